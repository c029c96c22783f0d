//go:build !core

package zpipes

import "syscall"

// sendSome is write(2), without EINTR and SIGPIPE.
func sendSome(fd int, b []byte) (int, error) {
	for {
		if k, err := syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL); err != syscall.EINTR {
			return k, err
		}
	}
}
