//go:build !windows && (!unix || solaris || illumos || aix)

package seglog

import (
	"io"
	"syscall"
)

const (
	directoriesSync = true
	errQuota        = syscall.ENOSPC
)

func lock(string) (io.Closer, error) { return nil, errUnsupported }
