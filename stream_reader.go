//go:build !core

package zpipes

import (
	"errors"
	"io"
	"os"
	"time"
)

// Reader is the reading end of a pipe. It is an io.ReadCloser and io.WriterTo.
// Its methods may be called concurrently; calls of Read and WriteTo take turns.
type Reader struct{ end }

// Read reads up to len(b) bytes and returns how many, as io.Reader has it. It
// returns what is there at once. If there is nothing, it waits until there is
// something, the writer is gone, the read deadline, or Close. If b is empty, it
// returns 0, nil at once.
//
// The error io.EOF means that the writer closed and all was read; nothing else
// does. Any other error is an *OpError around
//
//   - io.ErrUnexpectedEOF: the writer vanished, gave up, or called
//     CloseWithError (whose text is in the error), or the queue was deleted.
//     All that the broker had of a stream has been read;
//   - ErrTooSlow, in a *MissedError: of a broadcast, see BroadcastConfig.Patience;
//   - os.ErrDeadlineExceeded: the deadline. Nothing is lost, and the pipe is
//     still usable;
//   - os.ErrClosed: this end is closed;
//   - ErrBrokerGone.
func (r *Reader) Read(b []byte) (int, error) {
	n, err := r.read(b)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, r.fail("read", err)
}

func (r *Reader) read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := r.take(b)
	r.atEnd(err)
	return n, err
}

func (r *Reader) take(b []byte) (n int, err error) {
	p := r.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if n, err = r.awaitData(b, len(b)); n > 0 || err != nil {
			return n, err
		}
		if !p.readsRing() {
			return r.readBuffer(b), nil
		}
		if n = r.readRing(b, p.ready(len(b))); n > 0 {
			return n, nil
		}
		// it broke
	}
}

// readBuffer reads what there is in the pipe's buffer. pipe.mu is held, but not while much is
// copied. Where b faults, nothing is read.
func (r *Reader) readBuffer(b []byte) (n int) {
	p := r.pipe
	most := min(len(b), p.readable())
	if most <= pinAbove {
		return p.read(b[:most])
	}
	var array [8][]byte
	segs := r.pin(array[:0], most)
	defer func() { r.unpin(n) }()
	k := 0
	p.unlocked(func() {
		for _, s := range segs {
			k += copy(b[k:], s)
		}
	})
	return k
}

// awaitData returns when there is something to read and no other call reads, or with the
// number of bytes that a Write has copied into b. pipe.mu is held. most is how much the
// call has room for.
func (r *Reader) awaitData(b []byte, most int) (given int, err error) {
	p := r.pipe
	for {
		if err := r.acquire(); err != nil {
			return 0, err
		}
		if r.ended != nil {
			return 0, r.ended
		}
		if r.ended = p.readError(); r.ended != nil {
			hears()
			return 0, r.ended
		}
		if p.readable() > 0 {
			hears()
			return 0, nil
		}
		if p.readsRing() {
			if p.ready(most) > 0 {
				hears()
				return 0, nil
			}
			if !p.readsRing() {
				continue // it is over
			}
			if !p.ring.mute {
				r.awaitBell()
				continue
			}
		}
		p.request(most)
		offered := p.offer(b)
		r.await(1)
		if !offered {
			continue
		}
		for p.lent {
			r.cond.Wait()
		}
		if n := p.collect(); n > 0 {
			return n, nil
		}
	}
}

// atEnd gives the pipe back when its end has been reached.
func (r *Reader) atEnd(err error) {
	if err != nil && err != os.ErrClosed && err != os.ErrDeadlineExceeded {
		r.finish(cause{})
	}
}

func (r *Reader) pin(segs [][]byte, n int) [][]byte {
	r.busy = true
	return r.pipe.pin(segs, n)
}

func (r *Reader) unpin(n int) {
	r.pipe.unpin(n)
	r.release()
}

// WriteTo writes to w what comes through the pipe until its end, as io.WriterTo
// has it; io.Copy uses it. It returns how many bytes w took. What w did not
// take, be it because it panics, is there for the next Read. (One that w itself
// calls has its turn only when WriteTo returns.) The errors are those of Read except io.EOF,
// and w's, which it returns as they are.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	p := r.pipe
	for {
		p.mu.Lock()
		if _, err := r.awaitData(nil, largeSegment); err != nil {
			p.mu.Unlock()
			r.atEnd(err)
			if err == io.EOF {
				return total, nil
			}
			return total, r.fail("read", err)
		}
		var n int
		var err error
		if p.readsRing() {
			n, err = r.writeOutRing(w, p.ready(largeSegment))
		} else {
			var array [1][]byte
			seg := r.pin(array[:0], p.readable())[0]
			p.mu.Unlock()
			n, err = r.writeOut(w, seg)
		}
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

var errInvalidWrite = errors.New("invalid count from Write")

// writeOut writes pinned bytes to w, and unpins, whatever w does.
func (r *Reader) writeOut(w io.Writer, seg []byte) (n int, err error) {
	defer func() {
		r.pipe.mu.Lock()
		defer r.pipe.mu.Unlock()
		r.unpin(n)
	}()
	return writeAll(w, seg)
}

// writeAll is w's Write, held to what io.Writer says of it.
func writeAll(w io.Writer, b []byte) (n int, err error) {
	n, err = w.Write(b)
	if n < 0 || n > len(b) {
		return 0, errInvalidWrite
	}
	if n < len(b) && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

// SetReadDeadline sets the time at which Reads that wait, now and later, end
// with os.ErrDeadlineExceeded, as net.Conn has it. A zero t clears it. The pipe
// stays usable. The error is an *OpError around os.ErrClosed if this end is
// closed.
func (r *Reader) SetReadDeadline(t time.Time) error {
	return r.setDeadline("set read deadline", t)
}

// Close ends the reading. The writer's next call fails with io.ErrClosedPipe,
// and what was not read is gone. A blocked Read returns os.ErrClosed. Close
// waits until the pipe's name is free, but no longer than until the read
// deadline (a second at least) or, without one, for ClientConfig.Timeout. Close
// a Reader after the end of its stream as well, or the client keeps it. Close
// returns nil; a second one waits for the first.
func (r *Reader) Close() error { return once(r.closeOnce(r.leave)) }

func (r *Reader) shutDown() error {
	_, err := r.closeOnce(r.leave)
	return err
}

func (r *Reader) leave() error {
	r.close(cause{}, r.patience())
	return nil
}

// CloseWithError is Close with a reason: the writer's error carries err's text
// (at most 255 bytes). It waits until the broker knows, but for 100 ms at most,
// and returns nil. A nil err means Close.
func (r *Reader) CloseWithError(err error) error {
	if err == nil {
		return r.Close()
	}
	return once(r.abort(err))
}
