package seglog

import (
	"os"
	"syscall"
)

func (f file) Sync() error {
	err := f.retry(syscall.Fdatasync)
	return os.NewSyscallError("fdatasync", err)
}

const keepSize = 1 // FALLOC_FL_KEEP_SIZE

func (f file) Allocate(n int64) error {
	err := f.retry(func(fd int) error { return syscall.Fallocate(fd, keepSize, 0, n) })
	return os.NewSyscallError("fallocate", err)
}

// retry calls again what a signal has interrupted.
func (f file) retry(call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	outer := raw.Control(func(fd uintptr) {
		for {
			if err = call(int(fd)); err != syscall.EINTR {
				return
			}
		}
	})
	if outer != nil {
		return outer
	}
	return err
}
