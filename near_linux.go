//go:build !core

package zpipes

import (
	"context"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
	"golang.org/x/sys/unix"
)

// dialDoor connects to a Unix socket. Package net would do so with twice as many calls of the
// system: it has its own descriptor of a connection, of which the file is a copy, and both
// get into the poller.
func dialDoor(ctx context.Context, address string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: address})
	}
	if err != nil {
		unix.Close(fd)
		return nil, &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: address, Net: "unix"}, Err: os.NewSyscallError("connect", err)}
	}
	return os.NewFile(uintptr(fd), "near"), nil
}

// acceptSome is accept(2), of what does not block.
func acceptSome(fd int) (int, error) {
	to, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	return to, err
}

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
