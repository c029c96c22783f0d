//go:build cgo && unix && !core

package zpipes

import (
	"os"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// waiter waits for a socket's ZMQ_FD in Go's poller: a duplicate of it, as a file.
type waiter struct {
	file  *os.File
	raw   syscall.RawConn
	edge  func(uintptr) bool
	edges int
}

func (w *waiter) init(z *zmq4.Socket, look func() bool) error {
	w.edge = func(uintptr) bool {
		w.edges++
		// An edge without a message may be the end of a connection.
		return look() || w.edges > 1
	}
	fd, err := z.GetFd()
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	dup, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(dup)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	// libzmq's end does not block either; os.NewFile asks the descriptor.
	if err := syscall.SetNonblock(dup, true); err != nil {
		syscall.Close(dup)
		return os.NewSyscallError("fcntl", err)
	}
	w.file = os.NewFile(uintptr(dup), "ZMQ_FD")
	if w.raw, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		w.file.Close()
	}
	return err
}

func (w *waiter) close() { w.file.Close() }

// checkDescriptors is why the process can't open n more files, if it can't.
func checkDescriptors(n int) error {
	open := make([]int, 0, n)
	defer func() {
		for _, fd := range open {
			syscall.Close(fd)
		}
	}()
	for range n {
		fd, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if outOfDescriptors(err) {
			return os.NewSyscallError("open", err)
		}
		if err == nil {
			open = append(open, fd)
		}
	}
	return nil
}

func (w *waiter) setDeadline(t time.Time) error { return w.file.SetReadDeadline(t) }

// wait returns when look succeeds, or at the deadline. It looks once before it waits, and
// again at each edge of the descriptor.
func (w *waiter) wait() {
	w.edges = 0
	if w.raw.Read(w.edge); w.edges == 0 {
		w.edge(0) // the deadline was over before the first look
	}
}
