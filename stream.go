//go:build !core

package zpipes

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// An end is what Reader and Writer have in common: one side of a pipe, which is
// the broker's own where that runs in this process, and else one that a
// connection empties or fills.
type end struct {
	client *Client
	pipe   *pipe
	role   role
	self   member      // the Reader or Writer whose end this is
	link   *streamLink // nil: the pipe is the broker's
	broker *Broker
	cast   *broadcastConfig // nil: it is no broadcast's Writer

	// All below is guarded by pipe.mu.
	cond     sync.Cond  // its L is pipe.mu
	hears    *ring.Bell // a call waits for it, and not for cond; nil: none does
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

func (e *end) openDirect(ctx context.Context, c *Client, b *Broker, name string) error {
	if e.cast == nil {
		if is, err := b.bytesElsewhere(ctx, name); is {
			return e.openRemote(ctx, c, memoryEndpoint(b.name), name)
		} else if err != nil {
			return err
		}
	}
	if done, err := e.openHere(c, b, name); done {
		return err
	}
	return e.openRemote(ctx, c, memoryEndpoint(b.name), name)
}

func (e *end) openAtOnce(c *Client, b *Broker, name string) (done bool, err error) {
	if e.cast == nil && b.pipes.mayBeAway(name, time.Now()) {
		return false, nil
	}
	return e.openHere(c, b, name)
}

// openHere opens the broker's own pipe, unless the name is a queue's, of whose bytes only a session knows
// how to make a stream.
func (e *end) openHere(c *Client, b *Broker, name string) (done bool, err error) {
	var why *cause
	err = c.enter(e.self, func() error {
		var p *pipe
		if e.cast != nil {
			p, why = b.pipes.openBroadcast(name, *e.cast, c.cfg.Window, e.wake, time.Now())
		} else {
			p, why = b.pipes.open(name, e.role, c.cfg.Window, e.wake, time.Now())
		}
		if why != nil {
			return why.openError()
		}
		e.broker, e.link = b, nil
		e.init(c, p)
		return nil
	})
	return why == nil || why.code != causeMode || e.cast != nil, err
}

func (e *end) openRemote(ctx context.Context, c *Client, endpoint, name string) error {
	return c.onConn(ctx, endpoint, func(k *conn) error {
		if e.cast != nil {
			if err := k.needAbility(ableBroadcast, "broadcasts"); err != nil {
				return err
			}
		}
		e.link = k.newLink(e.self, e.remotePipe(c, name), e.role, modeStream)
		e.link.cast = e.cast
		return k.open(ctx, e.link)
	})
}

// remotePipe gives the end a pipe of its own, for a connection to fill or empty.
func (e *end) remotePipe(c *Client, name string) *pipe {
	p := newInbound(name, c.cfg.readAhead())
	if e.role == writer {
		p = newOutbound(name, c.cfg.Window, e.cast != nil)
	}
	e.init(c, p)
	p.attach(e.role, e.wake)
	return p
}

func (e *end) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return e.client.opError(op, e.pipe.name, err)
}

// endErr is the error of a call on a closed end or after the deadline.
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
			e.wake() // the next one
			return err
		}
		e.cond.Wait()
	}
}

func (e *end) release() {
	e.busy = false
	e.wake()
}

// wake has the calls look again that wait. Whatever may unblock one calls it, with pipe.mu
// held.
func (e *end) wake() {
	e.cond.Broadcast()
	if e.hears != nil {
		e.hears.Interrupt()
		e.hears = nil
	}
}

// await waits for n bytes, or for room for so many. pipe.mu is held.
func (e *end) await(n int) {
	e.pipe.expect(e.role, n)
	e.cond.Wait()
}

func (e *end) setDeadline(op string, t time.Time) error {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if e.closed && e.finished { // behind the end of a stream it is allowed
		return e.fail(op, os.ErrClosed)
	}
	e.moveDeadline(t)
	return nil
}

// moveDeadline sets the deadline that the user wants. A Close that still delivers has the Timeout where that is
// none. pipe.mu is held.
func (e *end) moveDeadline(t time.Time) {
	if t.IsZero() && e.closed {
		t = time.Now().Add(e.client.cfg.Timeout)
	}
	e.deadline.set(&e.pipe.mu, e.wake, t)
}

// closeOnce marks the end closed, which unblocks its calls, and closes it with f. Who
// comes second waits until that is done, for its result.
func (e *end) closeOnce(f func() error) (first bool, err error) {
	first = e.beginClose()
	return first, e.endClose(first, f)
}

// beginClose marks the end closed, and says whether nobody has before.
func (e *end) beginClose() (first bool) {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	first = !e.closed
	e.closed = true
	e.wake()
	return first
}

func (e *end) endClose(first bool, f func() error) (err error) {
	if first {
		err = f()
	}
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if first {
		e.down, e.result = true, err
		e.wake()
	}
	for !e.down {
		e.cond.Wait()
	}
	return e.result
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
	answered := e.link == nil && e.awaitRelay(patience) || e.link != nil && e.link.awaitDone(patience)
	e.pipe.mu.Lock()
	e.deadline.set(&e.pipe.mu, e.wake, time.Time{})
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

// awaitRelay waits until the broker of a reader elsewhere knows that the writer has left, and
// says whether it does, or can't be reached.
func (e *end) awaitRelay(patience time.Duration) bool {
	p, over := e.pipe, false
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.use != relayed || e.role != writer {
		return true
	}
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		over = true
		e.wake()
	})
	defer timer.Stop()
	for !p.reader.left && !over {
		e.cond.Wait()
	}
	return p.reader.left
}

// awaitDone waits until the link is off its connection, and says whether it is.
func (l *linkBase) awaitDone(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.done:
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

// set has wake called, with mu held, when the time is there.
func (d *deadline) set(mu sync.Locker, wake func(), t time.Time) {
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
		wake()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.timer == timer {
			d.expired = true
			wake()
		}
	})
	d.timer = timer
}

// abort is CloseWithError. A Close that still delivers ends with the same reason.
func (e *end) abort(why error) (first bool, err error) {
	e.pipe.mu.Lock()
	if e.torn == nil {
		e.torn = why
		e.wake()
	}
	e.pipe.mu.Unlock()
	return e.closeOnce(func() error {
		e.close(aborted(why), wordTime)
		return nil
	})
}

func aborted(err error) cause { return cause{causeAborted, shortText(err.Error())} }
