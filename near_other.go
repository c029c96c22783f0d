//go:build unix && !linux && !core

package zpipes

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

func dialDoor(ctx context.Context, address string) (*os.File, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.UnixConn).File()
}

func acceptSome(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	to, _, err := syscall.Accept(fd)
	if err != nil {
		return -1, err
	}
	syscall.CloseOnExec(to)
	if err = syscall.SetNonblock(to, true); err != nil {
		syscall.Close(to)
	}
	return to, err
}

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
