//go:build !core

package zpipes

import (
	"syscall"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
	"golang.org/x/sys/unix"
)

// sendSome is write(2), without EINTR and SIGPIPE.
func sendSome(fd int, b []byte) (int, error) {
	for {
		if k, err := syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_NOSIGNAL); err != syscall.EINTR {
			return k, err
		}
	}
}

// canGive says whether descriptors can be given away, and rings be made of them.
const canGive = ring.Supported

// sendDescriptors is sendSome, and gives descriptors away with what leaves.
func sendDescriptors(fd int, b []byte, descriptors []int) (int, error) {
	for {
		k, err := unix.SendmsgN(fd, b, unix.UnixRights(descriptors...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return k, err
		}
	}
}

// A gift is room for what recvmsg(2) says, so that receiving allocates nothing.
type gift struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [64]byte // for the descriptors of one message
}

// receiveGift is receiveSome with descriptors, which came with the last of the bytes.
func receiveGift(fd int, b []byte, g *gift) (k int, descriptors []int, err error) {
	g.vector.Base = &b[0]
	g.vector.SetLen(len(b))
	g.header = unix.Msghdr{Iov: &g.vector, Control: &g.control[0]}
	g.header.SetIovlen(1)
	g.header.SetControllen(len(g.control))
	for {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&g.header)), unix.MSG_CMSG_CLOEXEC)
		g.vector.Base = nil
		switch {
		case errno == unix.EINTR:
			g.vector.Base = &b[0]
			continue
		case errno != 0:
			return 0, nil, errno
		case g.header.Controllen == 0:
			return int(n), nil, nil
		}
		messages, _ := unix.ParseSocketControlMessage(g.control[:g.header.Controllen])
		for i := range messages {
			more, _ := unix.ParseUnixRights(&messages[i])
			descriptors = append(descriptors, more...)
		}
		if g.header.Flags&unix.MSG_CTRUNC != 0 { // some of them are missing
			closeDescriptors(descriptors)
			descriptors = nil
		}
		return int(n), descriptors, nil
	}
}

func closeDescriptors(ds []int) {
	for _, d := range ds {
		unix.Close(d)
	}
}
