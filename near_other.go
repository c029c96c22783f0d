//go:build unix && !linux && !core

package zpipes

import "syscall"

// sendSome is write(2), without EINTR.
func sendSome(fd int, b []byte) (int, error) {
	for {
		if k, err := syscall.Write(fd, b); err != syscall.EINTR {
			return k, err
		}
	}
}
