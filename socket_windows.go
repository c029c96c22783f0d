//go:build cgo && windows && !core

package zpipes

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pebbe/zmq4"
)

var wsaPoll = syscall.NewLazyDLL("ws2_32.dll").NewProc("WSAPoll")

// waiter waits for a socket's ZMQ_FD with WSAPoll, which holds an OS thread and
// cannot be interrupted; so it looks up every few milliseconds.
type waiter struct {
	fd    uintptr
	until atomic.Pointer[time.Time] // the deadline; nil or zero: none
	look  func() bool
}

const glance = 5 * time.Millisecond

func (w *waiter) init(z *zmq4.Socket, look func() bool) (err error) {
	w.look = look
	w.fd, err = z.GetFd()
	return err
}

func (w *waiter) close() {}

// checkDescriptors would say that too few files can be opened, of which there is no
// bound here.
func checkDescriptors(int) error { return nil }

func (w *waiter) setDeadline(t time.Time) error {
	w.until.Store(&t)
	return nil
}

func (w *waiter) wait() {
	for !w.look() {
		left := glance
		if t := w.until.Load(); t != nil && !t.IsZero() {
			left = min(left, time.Until(*t))
		}
		if left <= 0 {
			return
		}
		poll := struct {
			fd              uintptr
			events, revents int16
		}{fd: w.fd, events: 0x0100} // POLLRDNORM
		wsaPoll.Call(uintptr(unsafe.Pointer(&poll)), 1, uintptr((left+time.Millisecond-1)/time.Millisecond))
	}
}
