//go:build !core

package zpipes

import (
	"errors"
	"io"
	"os"
	"time"
)

// Writer is the writing end of a pipe. It is an io.WriteCloser, io.StringWriter
// and io.ReaderFrom. Its methods may be called concurrently; the bytes of
// concurrent Writes are not interleaved.
type Writer struct {
	end
	left time.Time     // when the last large Write returned
	away time.Duration // how long after that the next one came

	patient bool // Close has no limit of time while there is no deadline; guarded by pipe.mu
}

// Write writes b and returns how many bytes of it were accepted, as io.Writer
// has it. It returns once they are in the pipe or in this end's window
// (ClientConfig.Window): at once if there is room; otherwise it waits until the
// write deadline or Close. Without a reader there is room only in the window.
// Flush and Close tell whether what was accepted has arrived; the next call
// returns an error that occurred in between.
//
// The error is an *OpError around
//
//   - io.ErrClosedPipe: the reader has left (the text of its CloseWithError is
//     in the error), or the queue was deleted;
//   - os.ErrDeadlineExceeded: the deadline; the bytes that were counted are
//     sent, once;
//   - os.ErrClosed: this end is closed;
//   - ErrBrokerGone.
func (w *Writer) Write(b []byte) (int, error) {
	n, err := w.write(b)
	return n, w.fail("write", err)
}

// WriteString is Write of the bytes of s.
func (w *Writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *Writer) write(b []byte) (n int, err error) {
	tells()
	p := w.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := w.acquire(); err != nil {
		return 0, err
	}
	if len(b) < stayFrom && (p.put(b) || p.gather(b)) {
		return len(b), nil
	}
	defer func() {
		if w.busy {
			w.release()
		}
	}()
	large := len(b) >= stayFrom
	brisk := large && w.brisk(len(b))
	for {
		if err = w.writeErr(); err != nil {
			break
		}
		if n == 0 {
			p.begin() // each time: it may be elsewhere now, in a ring that has come
		}
		k := 0
		if p.into != nil {
			k = w.handOver(b[n:])
		}
		if k == 0 && p.writesRing() {
			if k, err = w.writeRing(b[n:]); err != nil {
				break
			}
		} else if k == 0 {
			k = min(len(b)-n, p.room())
			if grain := p.buf.grain(); k > grain/2 {
				k = min(k, grain)
				if err = w.writeSegment(b[n : n+k]); err != nil {
					break
				}
			} else if k > 0 {
				p.write(b[n : n+k])
			}
		}
		if brisk && k >= stayFrom {
			w.stay()
		}
		if n += k; n == len(b) {
			break
		}
		if k == 0 {
			w.busy = true
			w.await(min(len(b)-n, p.buf.grain(), p.window))
		}
	}
	if large {
		w.left = time.Now()
	}
	return n, err
}

// handOver copies b into the buffer of a Read that waits, as far as it goes there, and
// returns how much that is.
func (w *Writer) handOver(b []byte) int {
	n := w.pipe.wants(len(b))
	if n == 0 {
		return 0
	}
	aside := n > pinAbove
	w.busy = w.busy || aside
	return w.pipe.give(b[:n], aside)
}

// A Write that has served a call of the Reader with stayFrom bytes or more waits until that
// goes on, if the writer is away for less than a nanosecond for each stayRate bytes. Two
// ends that do little between their calls are faster if they take turns on one core, where
// the bytes are in its cache; two that do much are faster on two cores, at the same time.
const (
	stayFrom = 16 << 10
	stayRate = 32
)

// brisk says whether the writer comes so soon with n bytes, now or the last time: it may
// have been interrupted.
func (w *Writer) brisk(n int) bool {
	last := w.away
	w.away = time.Since(w.left)
	return min(last, w.away) < time.Duration(n/stayRate)
}

// stay waits until the call of the Reader that was served goes on.
func (w *Writer) stay() {
	p := w.pipe
	w.busy = true
	for p.stay(); p.stays && w.writeErr() == nil; {
		w.cond.Wait()
	}
	p.goOn()
}

// writeSegment copies b without holding the lock, so that the reader goes on
// meanwhile. Since this call is busy, the room can only grow.
func (w *Writer) writeSegment(b []byte) error {
	p := w.pipe
	w.busy = true
	p.fills(true)
	defer p.fills(false)
	var c *segment
	p.unlocked(func() {
		c = p.buf.newSegment(p.buf.pool())
		c.w += copy(c.free(), b)
	})
	err := w.writeErr()
	if err != nil {
		c.release()
	} else {
		p.push(c)
	}
	return err
}

// writeErr is why a Write can't go on.
func (w *Writer) writeErr() error {
	if err := w.endErr(); err != nil {
		return err
	}
	return w.pipe.writeError()
}

// ReadFrom writes what it reads from src until io.EOF, as io.ReaderFrom has it;
// io.Copy uses it. It returns how many bytes it read and the window accepted.
// What src delivers leaves at once; nothing is held back to gather more. The
// errors are those of Write, and src's, which it returns as they are.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	var total int64
	var c *segment
	defer func() { c.release() }()
	for much := false; ; {
		// What waits for src holds little memory, unless it has just delivered much.
		pool := smallPool
		if much {
			pool = w.pipe.buf.pool()
		}
		if c == nil || c.pool != pool {
			c.release()
			c = w.pipe.buf.newSegment(pool)
		}
		n, err := src.Read(c.free())
		if n < 0 || n > len(c.free()) {
			return total, errors.New("invalid count from Read")
		}
		much = n == len(c.free())
		c.w += n
		if n > 0 {
			took, werr := w.hand(&c)
			total += int64(took)
			if werr != nil {
				return total, w.fail("write", werr)
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// hand writes the bytes of c. Where it is well filled and fits, c itself goes into the
// pipe, and is nil then.
func (w *Writer) hand(c **segment) (int, error) {
	tells()
	p := w.pipe
	if n := len((*c).data()); n > p.buf.grain()/2 {
		p.mu.Lock()
		err := w.acquire()
		if err == nil {
			err = p.writeError()
		}
		if err == nil && n <= p.room() && !p.writesRing() {
			p.begin()
			p.push(*c)
			p.mu.Unlock()
			*c = nil
			return n, nil
		}
		p.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	n, err := w.write((*c).data())
	(*c).w = (*c).r
	return n, err
}

// Flush waits until all that was written before it is confirmed: a reader is
// attached, and the broker has taken the bytes, so that they survive the death
// of this process. It ends early at the write deadline, and when the pipe or
// the broker is gone. The errors are those of Write. If bytes are not
// confirmed, an *UndeliveredError in between counts them; after a deadline they
// are still on their way. If this end is closed meanwhile, Flush returns
// os.ErrClosed, and Close says what became of the bytes.
func (w *Writer) Flush() error {
	p := w.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.fail("flush", w.drain(false, w.endErr))
}

// drain waits until what has been written so far is confirmed, and at Close, which is
// ending, its end as well: there is a reader to learn of it. It ends early when usable has
// an error. pipe.mu is held.
func (w *Writer) drain(ending bool, usable func() error) error {
	p := w.pipe
	mark := p.in
	p.beginFlush(ending)
	defer p.endFlush()
	for {
		if err := usable(); err == os.ErrClosed {
			return err
		}
		if p.writesRing() {
			p.settleRing()
		}
		left := mark - (p.in - int64(p.unsettled()+p.lost))
		err := p.writeError()
		if err == nil {
			err = usable()
		}
		if left <= 0 && (!ending || p.hasMet()) {
			return err
		}
		if err != nil {
			return &UndeliveredError{Bytes: left, Err: err}
		}
		w.cond.Wait()
	}
}

// SetWriteDeadline sets the time at which Writes and Flushes that wait, now and
// later, and a Close that still delivers, end with os.ErrDeadlineExceeded, as
// net.Conn has it. A zero t clears it. The pipe stays usable. The error is an
// *OpError around os.ErrClosed if this end is closed.
func (w *Writer) SetWriteDeadline(t time.Time) error {
	return w.setDeadline("set write deadline", t)
}

// Close flushes and ends the stream: after the last byte the reader gets
// io.EOF. Blocked Writes and Flushes return os.ErrClosed at once. The end is
// part of the stream, so Close waits for a reader even if nothing was written.
//
// If what was written, or the end, is not confirmed by the write deadline
// (which can still be moved), or without one within ClientConfig.Timeout, Close
// gives up. Then the reader gets io.ErrUnexpectedEOF after the bytes that were
// confirmed. The error is an *OpError around
//
//   - *UndeliveredError around os.ErrDeadlineExceeded, io.ErrClosedPipe (the
//     reader has left), ErrBrokerGone, or the error of a CloseWithError that
//     ended this Close;
//   - ErrBrokerGone alone: all is confirmed, but the reader may not learn of
//     the end.
//
// The error is nil also if the reader left after all was confirmed. Close
// returns when the pipe's name is free, or if the broker has not answered in
// the same time, which is an *UndeliveredError of 0 bytes. A second Close waits
// for the first one, and returns nil.
func (w *Writer) Close() error { return once(w.closeOnce(w.deliver)) }

func (w *Writer) shutDown() error {
	_, err := w.closeOnce(w.deliver)
	return err
}

func (w *Writer) deliver() error {
	tells()
	p := w.pipe
	p.mu.Lock()
	if !w.deadline.armed && !w.patient {
		w.deadline.set(&p.mu, w.wake, time.Now().Add(w.client.cfg.Timeout))
	}
	err := w.drain(true, func() error {
		if w.torn != nil {
			return w.torn
		} else if w.deadline.expired {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	torn := w.torn
	p.mu.Unlock()
	var undelivered *UndeliveredError
	why, patience := cause{}, w.patience()
	switch {
	case errors.As(err, &undelivered) && torn != nil:
		why, patience = aborted(torn), wordTime
	case undelivered != nil && p.in == 0 && w.link != nil && !w.link.conn.shared:
		// It was an empty stream, and the base protocol has no other way to free the name.
	case undelivered != nil:
		why.code = causeUndelivered
	case !errors.Is(err, ErrBrokerGone):
		err = nil // all is confirmed, and what came then does not matter
	}
	told := w.close(why, patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
	case p.reader.left && p.reader.cause.code == causeBrokerGone:
		err = p.reader.cause.writeError() // before it could be told that this was the end
	case p.reader.left && p.reader.cause.code == causeUnreachable:
		err = &UndeliveredError{Err: p.reader.cause.writeError()} // likewise
	case !told:
		err = &UndeliveredError{Err: os.ErrDeadlineExceeded}
	}
	return w.fail("close writer", err)
}

// CloseWithError ends the stream as torn: it drops what is not confirmed. The
// reader gets what had been confirmed, and then io.ErrUnexpectedEOF with err's
// text (at most 255 bytes). CloseWithError waits until the broker knows, but
// for 100 ms at most, so that the program may exit after it, and returns nil. A
// nil err means Close.
//
// A Close that still delivers ends with the same error. If no reader has come
// yet, the pipe is over, and a reader that comes later opens a new one. A
// broker that knows only the base protocol can't be told: there the reader
// learns of it when the broker drops this writer as dead.
func (w *Writer) CloseWithError(err error) error {
	if err == nil {
		return w.Close()
	}
	return once(w.abort(err))
}
