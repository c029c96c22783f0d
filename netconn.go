//go:build !core

package zpipes

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection to or from a Listener: two pipes, one in each direction.
// It is a net.Conn, io.WriterTo and io.ReaderFrom. Its methods may be called
// concurrently, as those of a Reader and a Writer.
//
// Errors are *net.OpErrors, but for io.EOF, which Read returns bare. They are
// around net.ErrClosed on a connection that this side has closed,
// os.ErrDeadlineExceeded after a deadline, and else around the errors of Reader
// and Writer.
type Conn struct {
	client   *Client
	addr     Addr
	accepted bool                    // else dialled
	peer     *atomic.Pointer[Access] // who is at the other end; nil in it: not known yet

	r Reader
	w Writer

	closing sync.Once
	closed  atomic.Bool   // Close has been called
	down    chan struct{} // closed when all is delivered, or will not be
	err     error         // of that; set before
}

// Read reads what the other side has written, as Reader.Read does. io.EOF means
// that it has closed, or called CloseWrite, and all was read; io.ErrUnexpectedEOF
// that it died, gave up or called CloseWithError.
func (n *Conn) Read(b []byte) (int, error) {
	k, err := n.r.read(b)
	if err == io.EOF {
		return k, err
	}
	return k, n.fail("read", err)
}

// Write writes to the other side, as Writer.Write does: it returns once the
// bytes are in the pipe or in this end's window. It fails with io.ErrClosedPipe
// when the other side reads no more.
func (n *Conn) Write(b []byte) (int, error) {
	k, err := n.w.write(b)
	return k, n.fail("write", err)
}

// WriteTo is Reader.WriteTo, and ReadFrom Writer.ReadFrom; io.Copy uses them.
func (n *Conn) WriteTo(w io.Writer) (int64, error) {
	k, err := n.r.WriteTo(w)
	return k, n.failOurs("read", err)
}

// ReadFrom is Writer.ReadFrom.
func (n *Conn) ReadFrom(r io.Reader) (int64, error) {
	k, err := n.w.ReadFrom(r)
	return k, n.failOurs("write", err)
}

// failOurs is fail, but leaves alone what is the source's or destination's error.
func (n *Conn) failOurs(op string, err error) error {
	if ours, ok := err.(*OpError); ok && ours.Broker == n.client.broker && ours.Pipe == n.addr.Name {
		return n.fail(op, ours.Err)
	}
	return err
}

func (n *Conn) fail(op string, err error) error { return n.addr.fail(op, err) }

// LocalAddr returns the address of the Listener, an Addr: neither side of a
// connection has one of its own.
func (n *Conn) LocalAddr() net.Addr { return n.addr }

// RemoteAddr returns the same.
func (n *Conn) RemoteAddr() net.Addr { return n.addr }

// Peer says which process is at the other end, as far as the operating system
// has told the broker: UID, GID and PID are -1 where that is not known, as of a
// process at another broker of a cluster. To a dialler they are so until somebody has accepted the connection. Op is "dial"
// or "listen", for what that process has done, and Pipe the name.
func (n *Conn) Peer() Access {
	who := unknownAccess
	if p := n.peer.Load(); p != nil {
		who = *p
	}
	who.Pipe, who.Op = n.addr.Name, "listen"
	if n.accepted {
		who.Op = "dial"
	}
	return who
}

// SetDeadline sets both deadlines; of a half that is closed there is nothing to set.
func (n *Conn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}

// SetReadDeadline sets the time at which Reads that wait, now and later, end
// with os.ErrDeadlineExceeded. A zero t clears it. Nothing is lost at a
// deadline.
func (n *Conn) SetReadDeadline(t time.Time) error { return n.setDeadline(&n.r.end, t) }

// SetWriteDeadline sets the time at which Writes that wait, now and later, and a
// CloseWrite end with os.ErrDeadlineExceeded. A zero t clears it. What Write has
// counted is sent, once; also after Close, for which the deadline counts for
// nothing.
func (n *Conn) SetWriteDeadline(t time.Time) error { return n.setDeadline(&n.w.end, t) }

func (n *Conn) setDeadline(e *end, t time.Time) error {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if n.closed.Load() { // before Close has the mu, which ends deadlines
		return n.fail("set", net.ErrClosed)
	}
	if !e.down {
		e.moveDeadline(t)
	}
	return nil
}

// CloseWrite ends what this side writes, as Writer.Close does: it waits until
// the other side's end of the pipe has all of it, which reads io.EOF behind it.
// Where that does not happen by the write deadline, or without one within
// ClientConfig.Timeout, CloseWrite gives up, and the other side gets
// io.ErrUnexpectedEOF; the error then wraps an *UndeliveredError.
func (n *Conn) CloseWrite() error { return n.failOurs("close", n.w.Close()) }

// CloseRead ends the reading: the other side's Writes fail. It returns nil.
func (n *Conn) CloseRead() error { return n.failOurs("close", n.r.Close()) }

// Close closes the connection and returns nil at once, as TCP's does: calls
// that wait return net.ErrClosed, and what was written is delivered in the
// background, for as long as the other side's process lives. It reads all of
// it, and then io.EOF. Client.Close waits for that, for ClientConfig.Timeout at
// most, and tells what was not delivered: so close the client before a program
// ends. A second Close does nothing.
func (n *Conn) Close() error {
	n.closing.Do(func() {
		n.closed.Store(true)
		first := n.r.beginClose()
		last := n.w.beginClose()
		if first {
			n.r.finish(cause{})
		}
		w := &n.w
		w.pipe.mu.Lock()
		if last {
			w.deadline.set(&w.pipe.mu, w.wake, time.Time{})
			w.patient = true
		}
		w.pipe.mu.Unlock()
		go func() {
			n.err = w.endClose(last, w.deliver)
			n.r.endClose(first, n.r.leave)
			n.client.forget(n)
			if n.err != nil {
				n.client.log.info("a connection was closed and not all was delivered", "name", n.addr.Name, "why", n.err)
			}
			close(n.down)
		}()
	})
	return nil
}

// shutDown is Close, but waits for it, for the client's Timeout, whatever deadline a
// CloseWrite has that is still at it.
func (n *Conn) shutDown() error {
	n.Close()
	w := &n.w
	limit := time.Now().Add(n.client.cfg.Timeout)
	w.pipe.mu.Lock()
	if !w.down && (!w.deadline.armed || w.deadline.at.After(limit)) {
		w.deadline.set(&w.pipe.mu, w.wake, limit)
	}
	w.pipe.mu.Unlock()
	<-n.down
	return n.failOurs("close", n.err)
}

// CloseWithError closes the connection as torn: what is not delivered is
// dropped, and the other side's calls fail with io.ErrUnexpectedEOF and
// io.ErrClosedPipe, with err's text (at most 255 bytes). It waits until the
// broker knows, but for 100 ms at most, and returns nil. A nil err means Close.
func (n *Conn) CloseWithError(err error) error {
	if err == nil {
		return n.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.r.abort(err) })
	n.w.abort(err)
	wg.Wait()
	return n.Close()
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ net.Listener  = (*Listener)(nil)
	_ net.Addr      = Addr{}
)
