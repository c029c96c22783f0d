//go:build unix && !linux && !core

package zpipes

import (
	"errors"
	"syscall"
)

// sendSome is write(2), without EINTR.
func sendSome(fd int, b []byte) (int, error) {
	for {
		if k, err := syscall.Write(fd, b); err != syscall.EINTR {
			return k, err
		}
	}
}

// Only Linux has what rings are made of.
const canGive = false

type gift struct{}

func sendDescriptors(int, []byte, []int) (int, error) { return 0, errors.ErrUnsupported }

func receiveGift(fd int, b []byte, _ *gift) (int, []int, error) {
	k, err := receiveSome(fd, b)
	return k, nil, err
}

func closeDescriptors([]int) {}
