//go:build !linux

package main

import "errors"

func mountTmpfs(string, int64) error   { return errors.ErrUnsupported }
func remountTmpfs(string, int64) error { return errors.ErrUnsupported }
func unmount(string)                   {}
