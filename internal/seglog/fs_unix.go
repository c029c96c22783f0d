//go:build unix && !solaris && !illumos && !aix

package seglog

import (
	"errors"
	"io"
	"os"
	"syscall"
)

const (
	directoriesSync = true
	errQuota        = syscall.EDQUOT
)

func lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, &os.PathError{Op: "flock", Path: name, Err: err}
	}
	return locked{f}, nil
}

// locked is a lock's file.
type locked struct{ *os.File }

// Close also gives the lock up for a child that is being started, and has the file until
// it executes its program.
func (l locked) Close() error {
	err := syscall.Flock(int(l.Fd()), syscall.LOCK_UN)
	return errors.Join(err, l.File.Close())
}
