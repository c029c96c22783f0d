//go:build !core

package zpipes

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pass passes on what travels, both ways, until both have ended, and notes when something
// came from the client.
func (d *tcpDoor) pass(c, inner net.Conn, heard *lifeSign) {
	c = &patientWriter{Conn: c, door: d, patience: max(d.broker.cfg.ClientTimeout, handshakeTime)}
	var other sync.WaitGroup
	other.Go(func() { d.pour(inner, c, func() { heard.note(time.Now()) }) })
	d.pour(c, inner, func() {})
	other.Wait()
}

// A patientWriter writes to a client, and gives up when nothing has left for as long as patience.
type patientWriter struct {
	net.Conn
	door      *tcpDoor
	patience  time.Duration
	prolonged time.Time
}

func (w *patientWriter) Write(p []byte) (n int, err error) {
	for {
		w.prolong()
		k, err := w.Conn.Write(p[n:])
		if n += k; k == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		w.prolonged = time.Time{}
	}
}

// SyscallConn is for sluices.
func (w *patientWriter) SyscallConn() (syscall.RawConn, error) {
	c, ok := w.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return c.SyscallConn()
}

// prolong gives it that long from now on, or a little less.
func (w *patientWriter) prolong() {
	now := time.Now()
	if now.Sub(w.prolonged) < w.patience/8 {
		return
	}
	w.prolonged = now
	w.door.mu.Lock()
	defer w.door.mu.Unlock()
	if !w.door.ended {
		w.SetWriteDeadline(now.Add(w.patience))
	}
}

func (w *patientWriter) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// muchComes is how many bytes, at once, show that a connection has much to carry.
const muchComes = 4 << 10

// buffers are for connections that have much to carry.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// pour passes on what travels one way, and its end; came is called when something has come. What comes
// the other way then has a little time left.
func (d *tcpDoor) pour(to, from net.Conn, came func()) {
	d.pourAll(to, from, came)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	to.SetDeadline(time.Now().Add(partTime))
	from.SetDeadline(time.Now().Add(partTime))
}

func (d *tcpDoor) pourAll(to, from net.Conn, came func()) {
	var small [muchComes]byte
	var large *[64 << 10]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for buf := small[:]; ; {
		n, err := from.Read(buf)
		came()
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
		switch much := n >= muchComes; {
		case much && large == nil:
			if err = d.sluices.pour(to, from, came); err == nil {
				continue
			}
			if err != errors.ErrUnsupported {
				return
			}
			large = buffers.Get().(*[64 << 10]byte)
			buf = large[:]
		case !much && large != nil:
			buffers.Put(large)
			large, buf = nil, small[:]
		}
	}
}
