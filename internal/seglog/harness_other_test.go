//go:build !linux

package seglog

import (
	"errors"
	"os"
)

func mountTmpfs(string, int64) error   { return errors.ErrUnsupported }
func remountTmpfs(string, int64) error { return errors.ErrUnsupported }
func unmount(string)                   {}

func allocated(info os.FileInfo) int64 { return info.Size() }
