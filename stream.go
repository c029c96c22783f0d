//go:build cgo

package zpipes

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// An end is what Reader and Writer have in common: one side of a pipe, which is
// the broker's own where that runs in this process, and else one that a
// connection empties or fills.
type end struct {
	client *Client
	pipe   *pipe
	role   role
	self   opener      // the Reader or Writer whose end this is
	link   *streamLink // nil: the pipe is the broker's
	broker *Broker

	// All below is guarded by pipe.mu.
	cond     sync.Cond // its L is pipe.mu; whatever may unblock a call broadcasts
	deadline deadline
	busy     bool        // a call works on the stream outside of pipe.mu, or is half done
	turns    fifo[*byte] // of the calls that wait until it is not, in the order in which they came
	closed   bool        // by Close or CloseWithError
	torn     error       // by a CloseWithError while Close still delivers
	down     bool        // the end is closed for good
	result   error       // of it
	finished bool        // the pipe has been given back
	ended    error       // what a Reader met at its end
}

func (e *end) init(c *Client, p *pipe) {
	e.client, e.pipe = c, p
	e.cond.L = &p.mu
}

func (e *end) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return e.client.opError(op, e.pipe.name, err)
}

// usable is the error of a call on a closed end or after the deadline.
func (e *end) endErr() error {
	switch {
	case e.closed:
		return os.ErrClosed
	case e.deadline.expired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// acquire waits until no other call is half done, and none waits that came before. A
// cond has no order, and who calls in a loop would leave the others none. pipe.mu is
// held.
func (e *end) acquire() error {
	if err := e.endErr(); err != nil || !e.busy && e.turns.len() == 0 {
		return err
	}
	turn := new(byte)
	e.turns.push(turn)
	for {
		err := e.endErr()
		if err != nil || !e.busy && *e.turns.front() == turn {
			e.turns.remove(turn)
			e.cond.Broadcast() // to the next one
			return err
		}
		e.cond.Wait()
	}
}

func (e *end) release() {
	e.busy = false
	e.cond.Broadcast()
}

// await waits for n bytes, or for room for so many. pipe.mu is held.
func (e *end) await(n int) {
	e.pipe.side(e.role).want = n
	e.cond.Wait()
}

func (e *end) setDeadline(op string, t time.Time) error {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if e.closed && e.finished { // behind the end of a stream it is allowed
		return e.fail(op, os.ErrClosed)
	}
	e.deadline.set(&e.cond, t)
	return nil
}

// closeOnce marks the end closed, which unblocks its calls, and closes it with f. Who
// comes second waits until that is done, for its result.
func (e *end) closeOnce(f func() error) (first bool, err error) {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if e.closed {
		for !e.down {
			e.cond.Wait()
		}
		return false, e.result
	}
	e.closed = true
	e.cond.Broadcast()
	e.pipe.mu.Unlock()
	err = f()
	e.pipe.mu.Lock()
	e.down, e.result = true, err
	e.cond.Broadcast()
	return true, err
}

// once has only the first Close report what became of it.
func once(first bool, err error) error {
	if !first {
		return nil
	}
	return err
}

// close gives the pipe back and ends the deadline. It says whether the broker has
// answered within the patience.
func (e *end) close(why cause, patience time.Duration) bool {
	e.finish(why)
	answered := e.link == nil || e.awaitLink(patience)
	e.pipe.mu.Lock()
	e.deadline.set(&e.cond, time.Time{})
	e.pipe.mu.Unlock()
	e.client.forget(e.self)
	return answered
}

// finish gives the pipe back, once.
func (e *end) finish(why cause) {
	p := e.pipe
	p.mu.Lock()
	first := !e.finished
	e.finished = true
	p.leave(e.role, why)
	p.mu.Unlock()
	if e.link == nil && first {
		e.broker.pipes.release(p)
	}
}

// wordTime is how long CloseWithError waits for the broker's word that it knows, so that
// a program may exit behind it.
const wordTime = 100 * time.Millisecond

// patience is how long Close waits for the same.
func (e *end) patience() time.Duration {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if e.deadline.armed {
		return max(partingTime, time.Until(e.deadline.at))
	}
	return e.client.cfg.Timeout
}

func (e *end) awaitLink(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-e.link.done:
		return true
	case <-timer.C:
		return false
	}
}

// A deadline is a point in time that ends the waiting of an end's calls.
type deadline struct {
	expired bool
	armed   bool // there is one
	at      time.Time
	timer   *time.Timer
}

func (d *deadline) set(c *sync.Cond, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.expired, d.armed, d.at = false, !t.IsZero(), t
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		c.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		c.L.Lock()
		defer c.L.Unlock()
		if d.timer == timer {
			d.expired = true
			c.Broadcast()
		}
	})
	d.timer = timer
}

// Reader is the reading end of a pipe. It is an io.ReadCloser and io.WriterTo.
// Its methods may be called concurrently; calls of Read and WriteTo take turns.
type Reader struct{ end }

// Read reads up to len(b) bytes and returns how many, as io.Reader has it: what
// is there is returned at once, and only where there is nothing it waits, until
// there is, the writer is gone, the read deadline, or Close. An empty b returns
// 0, nil at once.
//
// io.EOF means that the writer closed and all was read; nothing else does. Any
// other error is an *OpError around
//
//   - io.ErrUnexpectedEOF: the writer vanished, gave up, or called CloseWithError
//     (whose text is in the error), and what the broker had of it has been read;
//   - os.ErrDeadlineExceeded: the deadline; nothing is lost, the next Read goes on;
//   - os.ErrClosed: this end is closed;
//   - ErrBrokerGone.
func (r *Reader) Read(b []byte) (int, error) {
	n, err := r.read(b)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, r.fail("read", err)
}

// pinAbove is the size from which bytes are copied without holding the pipe's
// lock, so that the writer goes on meanwhile.
const pinAbove = 4 << 10

func (r *Reader) read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	p := r.pipe
	p.mu.Lock()
	if err := r.awaitData(len(b)); err != nil {
		p.mu.Unlock()
		r.atEnd(err)
		return 0, err
	}
	n := min(len(b), p.readable())
	if n <= pinAbove {
		n = p.read(b[:n])
		p.mu.Unlock()
		return n, nil
	}
	var array [8][]byte
	segs := p.buf.peek(array[:0], n)
	r.pin()
	p.mu.Unlock()

	n = 0
	for _, s := range segs {
		n += copy(b[n:], s)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	r.unpin(n)
	return n, nil
}

// awaitData returns when there is something to read and no other call reads.
// pipe.mu is held. asks is how much the call has room for.
func (r *Reader) awaitData(asks int) error {
	p := r.pipe
	for {
		if err := r.acquire(); err != nil {
			return err
		}
		if r.ended != nil {
			return r.ended
		}
		if r.ended = p.readError(); r.ended != nil {
			return r.ended
		}
		if p.readable() > 0 {
			return nil
		}
		if p.limit == 0 {
			// The connection asks the broker for bytes from the first Read on.
			p.asks = asks
			p.limit = r.client.cfg.readAhead()
			p.wakeSide(&p.writer)
		}
		r.await(1)
	}
}

// met gives the pipe back when its end has been reached.
func (r *Reader) atEnd(err error) {
	if err != os.ErrClosed && err != os.ErrDeadlineExceeded {
		r.finish(cause{})
	}
}

func (r *Reader) pin() {
	r.busy, r.pipe.pinned = true, true
}

func (r *Reader) unpin(n int) {
	r.pipe.consume(n)
	r.pipe.unpin()
	r.release()
}

// WriteTo writes to w what comes through the pipe until its end, as io.WriterTo
// has it; io.Copy uses it. It returns how many bytes w took. What w did not take
// is there for the next Read. The errors are Read's, without io.EOF, and w's.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	p := r.pipe
	for {
		p.mu.Lock()
		if err := r.awaitData(largeSegment); err != nil {
			p.mu.Unlock()
			r.atEnd(err)
			if err == io.EOF {
				return total, nil
			}
			return total, r.fail("read", err)
		}
		var array [1][]byte
		seg := p.buf.peek(array[:0], p.readable())[0]
		r.pin()
		p.mu.Unlock()

		n, err := r.writeOut(w, seg)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// writeOut writes pinned bytes to w, and unpins, whatever w does.
func (r *Reader) writeOut(w io.Writer, seg []byte) (n int, err error) {
	defer func() {
		r.pipe.mu.Lock()
		defer r.pipe.mu.Unlock()
		r.unpin(n)
	}()
	k, err := w.Write(seg)
	if k < 0 || k > len(seg) {
		return 0, errors.New("invalid count from Write")
	}
	if n = k; n < len(seg) && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

// SetReadDeadline sets when waiting Reads, now and later, end with
// os.ErrDeadlineExceeded, as net.Conn has it. A zero t clears it. The pipe stays
// usable.
func (r *Reader) SetReadDeadline(t time.Time) error {
	return r.setDeadline("set read deadline", t)
}

// Close ends the reading. The writer's next call fails with io.ErrClosedPipe, and
// what was not read is gone. A blocked Read returns os.ErrClosed. Close returns
// when the pipe's name is free, or when the broker did not answer within
// ClientConfig.Timeout. Close a Reader also after its end, or the client keeps it.
// Closing again waits until that is done, and returns nil.
func (r *Reader) Close() error { return once(r.closeOnce(r.leave)) }

func (r *Reader) shutDown() error {
	_, err := r.closeOnce(r.leave)
	return err
}

func (r *Reader) leave() error {
	r.close(cause{}, r.patience())
	return nil
}

// CloseWithError is Close, with a reason: the writer's error carries err's text
// (at most 255 bytes). It waits until the broker knows, but for 100 ms at most. A nil
// err means Close.
func (r *Reader) CloseWithError(err error) error {
	if err == nil {
		return r.Close()
	}
	return once(r.abort(err))
}

// abort is CloseWithError. A Close that still delivers ends with the same reason.
func (e *end) abort(why error) (first bool, err error) {
	e.pipe.mu.Lock()
	if e.torn == nil {
		e.torn = why
		e.cond.Broadcast()
	}
	e.pipe.mu.Unlock()
	return e.closeOnce(func() error {
		e.close(aborted(why), wordTime)
		return nil
	})
}

func aborted(err error) cause {
	text := err.Error()
	if len(text) > maxString {
		cut := maxString
		for cut > 0 && text[cut]&0xc0 == 0x80 { // not within a rune
			cut--
		}
		text = text[:cut]
	}
	return cause{causeAborted, text}
}

// Writer is the writing end of a pipe. It is an io.WriteCloser, io.StringWriter
// and io.ReaderFrom. Its methods may be called concurrently; the bytes of
// concurrent Writes are not interleaved.
type Writer struct{ end }

// Write writes b and returns how many bytes of it were accepted, as io.Writer
// has it. It returns once they are in this end's window (ClientConfig.Window):
// at once, as long as there is room; it waits for room until the write deadline
// or Close. Without a reader there is room for as much as the window. Flush or
// Close tell whether what was accepted has arrived; an error met in between is
// returned by the next call.
//
// The error is an *OpError around
//
//   - io.ErrClosedPipe: the reader has left (the text of its CloseWithError is
//     in the error);
//   - os.ErrDeadlineExceeded: the deadline; the bytes counted are sent, once;
//   - os.ErrClosed: this end is closed;
//   - ErrBrokerGone.
func (w *Writer) Write(b []byte) (int, error) {
	n, err := w.write(b)
	return n, w.fail("write", err)
}

// WriteString is Write of the bytes of s.
func (w *Writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *Writer) write(b []byte) (n int, err error) {
	p := w.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := w.acquire(); err != nil {
		return 0, err
	}
	for {
		if err = w.writeErr(); err != nil {
			break
		}
		k := min(len(b)-n, p.room())
		if grain := p.buf.grain(); k > grain/2 {
			k = min(k, grain)
			if err = w.writeSegment(b[n : n+k]); err != nil {
				break
			}
		} else if k > 0 {
			p.write(b[n : n+k])
		}
		if n += k; n == len(b) {
			break
		}
		if k == 0 {
			w.busy = true
			w.await(min(len(b)-n, p.buf.grain(), p.window))
		}
	}
	if w.busy {
		w.release()
	}
	return n, err
}

// writeChunk copies b without holding the lock, so that the reader goes on
// meanwhile. Since this call is busy, the room can only grow.
func (w *Writer) writeSegment(b []byte) error {
	p := w.pipe
	w.busy = true
	p.mu.Unlock()
	c := newSegment(p.buf.pool())
	c.w += copy(c.free(), b)
	p.mu.Lock()
	err := w.writeErr()
	if err != nil {
		c.release()
	} else {
		p.push(c)
	}
	return err
}

// broken is why a Write can't go on.
func (w *Writer) writeErr() error {
	if err := w.endErr(); err != nil {
		return err
	}
	return w.pipe.writeError()
}

// ReadFrom writes what it reads from src until io.EOF, as io.ReaderFrom has it;
// io.Copy uses it. It returns how many bytes it read and the window accepted.
// What src delivers leaves at once, nothing is held back for more. The errors
// are Write's, and src's.
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
			c = newSegment(pool)
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
	p := w.pipe
	if n := len((*c).data()); n > p.buf.grain()/2 {
		p.mu.Lock()
		err := w.acquire()
		if err == nil {
			err = p.writeError()
		}
		if err == nil && n <= p.room() {
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
// attached and the broker has taken the bytes, so that they survive the death of
// this process. It ends early at the write deadline and when the pipe or the
// broker is gone, with the errors of Write; where bytes are not confirmed, an
// *UndeliveredError in between counts them. After a deadline they are still on
// their way. At Close it returns os.ErrClosed, and Close says what became of them.
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
	p.flushing++
	defer func() { p.flushing-- }()
	if ending && !p.hasMet() {
		p.ending = true
		p.wakeSide(&p.reader)
	}
	for {
		if err := usable(); err == os.ErrClosed {
			return err
		}
		left := mark - (p.in - int64(p.unconfirmed+p.lost))
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

// SetWriteDeadline sets when waiting Writes and Flushes, now and later, and a
// Close that still delivers end with os.ErrDeadlineExceeded, as net.Conn has it.
// A zero t clears it. The pipe stays usable.
func (w *Writer) SetWriteDeadline(t time.Time) error {
	return w.setDeadline("set write deadline", t)
}

// Close flushes, and ends the stream: behind the last byte the reader gets
// io.EOF. Blocked Writes and Flushes return os.ErrClosed at once. The end is part of the
// stream: Close waits for a reader even where nothing was written.
//
// Where what was written, or the end, is not confirmed before the write deadline (which can
// still be moved), or without one within ClientConfig.Timeout, Close gives up: its
// error wraps an *UndeliveredError, and the reader gets io.ErrUnexpectedEOF behind
// the bytes that were confirmed. The error is nil also if the reader left after all
// was confirmed; ErrBrokerGone says that the reader may not learn of the end.
//
// Close returns when the pipe's name is free, or when the broker did not answer in
// the same time, which is an error, too. Closing again waits until that is done, and
// returns nil.
func (w *Writer) Close() error { return once(w.closeOnce(w.deliver)) }

func (w *Writer) shutDown() error {
	_, err := w.closeOnce(w.deliver)
	return err
}

func (w *Writer) deliver() error {
	p := w.pipe
	p.mu.Lock()
	if !w.deadline.armed {
		w.deadline.set(&w.cond, time.Now().Add(w.client.cfg.Timeout))
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
	case !told:
		err = &UndeliveredError{Err: os.ErrDeadlineExceeded}
	}
	return w.fail("close writer", err)
}

// CloseWithError ends the stream as torn: it drops what is not confirmed, and waits for
// nothing but the broker's word that it knows, for 100 ms at most, so that the program
// may exit; the reader gets what had been confirmed, and then an error that is
// io.ErrUnexpectedEOF and carries err's text (at most 255 bytes). A nil err means
// Close. A Close that still delivers ends with the same error. Where no reader has come yet, the pipe is just over, and one that comes later
// finds a new one. A broker that knows only the base protocol can't be told: there the reader
// meets an end when the broker drops this writer as dead.
func (w *Writer) CloseWithError(err error) error {
	if err == nil {
		return w.Close()
	}
	return once(w.abort(err))
}
