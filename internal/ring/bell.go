//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Bell is one end of a pair of sockets over which two processes wake each other: one
// pair for all the rings that they share.
//
// An eventfd would cost a third. But whether a write to it blocks, and whether it is full,
// is the other process's to decide at any time, since both have the same open file; a call
// to a socket says for itself that it does not wait, and a full one has been rung.
type Bell struct {
	file  *os.File
	raw   syscall.RawConn
	ring  func(uintptr)
	hear  func(uintptr) bool // b.heard
	over  bool               // it has ended; Wait's
	heard [64]byte
	state atomic.Int32
}

const (
	bellListens = 1 + iota // or has; or somebody waits
	bellClosed             // before anybody has, or while nobody waits
)

// MakeBell makes the two descriptors of a pair.
func MakeBell() (a, b int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err) // 0 is somebody's
	}
	return p[0], p[1], nil
}

// OpenBell makes a Bell of a descriptor of MakeBell, which is its from now on. It may come
// from a process that is not trusted.
func OpenBell(fd int) (*Bell, error) {
	b, err := openBell(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return b, nil
}

func openBell(fd int) (*Bell, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("looking at a bell", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("looking at a bell", err)
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		return nil, fmt.Errorf("%w: its bell is another kind of socket", ErrBroken)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that Go's poller takes it
		return nil, os.NewSyscallError("fcntl", err)
	}
	b := &Bell{file: os.NewFile(uintptr(fd), "bell")}
	// An error here says that the poller can't wait for it.
	err = b.file.SetReadDeadline(time.Time{})
	if err == nil {
		b.raw, err = b.file.SyscallConn()
	}
	if err != nil {
		return nil, err
	}
	b.ring = func(fd uintptr) { socketCall(unix.SYS_SENDTO, fd, one[:]) }
	b.hear = b.look
	return b, nil
}

// one is a ring's byte; which, nobody looks at.
var one [1]byte

// socketCall is send or recv, which package unix has only with allocations.
func socketCall(call, fd uintptr, b []byte) (int, syscall.Errno) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	n, _, errno := unix.Syscall6(call, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags, 0, 0)
	return int(n), errno
}

// Ring makes the other process look. It never blocks. What can't be sent need not be:
// there is enough that the other process has not taken, or it is gone.
func (b *Bell) Ring() { b.raw.Control(b.ring) }

// Listen calls rung whenever the other process may have rung, and once at the beginning.
// It returns when the bell is closed, here (os.ErrClosed) or there (io.EOF). It is called
// once.
func (b *Bell) Listen(rung func()) error {
	if !b.state.CompareAndSwap(0, bellListens) {
		return os.ErrClosed
	}
	defer b.file.Close()
	rung()
	buf := make([]byte, 4<<10)
	err := io.EOF
	b.raw.Read(func(fd uintptr) bool {
		// To the last byte, and to the end behind it: what has come is not told again.
		for {
			n, errno := socketCall(unix.SYS_RECVFROM, fd, buf)
			switch {
			case errno == 0 && n > 0:
				rung()
			case errno == unix.EAGAIN:
				return false
			case errno == 0 || errno == unix.ECONNRESET:
				return true
			case errno != unix.EINTR:
				err = os.NewSyscallError("recv", errno)
				return true
			}
		}
	})
	if b.state.Load() == bellClosed {
		return os.ErrClosed
	}
	return err
}

// Wait returns when the other process may have rung since it last did, or after Interrupt.
// It says false once the bell is closed, here or there. One goroutine calls it at a time,
// and none beside Listen.
func (b *Bell) Wait() bool {
	if !b.state.CompareAndSwap(0, bellListens) {
		return false
	}
	b.raw.Read(b.hear)
	if !b.state.CompareAndSwap(bellListens, 0) {
		b.file.Close()
		return false
	}
	return !b.over
}

// look takes what has come, and says whether there is anything, or never will be.
func (b *Bell) look(fd uintptr) bool {
	for {
		n, errno := socketCall(unix.SYS_RECVFROM, fd, b.heard[:])
		switch errno {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.over = n <= 0
			return true
		}
	}
}

// Interrupt has Wait return, now or when it is called, until Resume.
func (b *Bell) Interrupt() { b.file.SetReadDeadline(time.Unix(1, 0)) }

// Resume ends that.
func (b *Bell) Resume() { b.file.SetReadDeadline(time.Time{}) }

// Close ends Wait or Listen, and does not wait for it: what Listen calls may need a lock of the
// caller's. The other process hears of it, too.
func (b *Bell) Close() {
	if b.state.Swap(bellClosed) != bellListens {
		b.file.Close()
		return
	}
	b.raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}

// Pause is what a Reader's pause should be.
func Pause() {
	for t := time.Now(); time.Since(t) < time.Microsecond/2; {
	}
}
