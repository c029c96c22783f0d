//go:build !linux

package seglog

func (file) Allocate(int64) error { return errUnsupported }
