//go:build !core

package zpipes

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"time"
)

// Queue is a pipe of whole chunks. Any number of Queues of one name, in any
// number of processes, send and receive, and each chunk goes to one of them.
// The queue outlives them: a chunk stays until somebody receives it, the queue
// is deleted (by DeleteQueue, by BrokerConfig.ForgetQueues, or by the last
// CLOSE of the text interface if no Queue is open), or the broker ends. A queue
// that somebody only waited at, and that never had a chunk, goes when its last
// user closes it. The methods of a Queue may be called concurrently.
//
// In a cluster (BrokerConfig.Cluster) a queue is the same at all brokers. It is
// at the one where it was opened first, which then is "the broker" of what
// follows. If that can't be reached, or another one has it by now, calls return
// ErrBrokerGone; OpenQueue finds it again.
type Queue struct {
	client *Client
	queue  *chunkQueue // the broker's where that runs in this process, else its own
	link   *queueLink  // nil: the queue is the broker's
	broker *Broker
	sender senderQueue

	closing chan struct{} // closed when Close begins
	down    chan struct{} // closed when it is done

	settings queueSettings // that it is to have
	mode     byte          // of the open

	// All below is guarded by queue.mu.
	jobs     map[uint64]*Job             // that it has taken, by their numbers
	takes    map[*delivery]*list.Element // Takes that wait
	acted    int64                       // acts on jobs, but for those that were refused at once
	late     error                       // an act that turned out to be too late; for the next Flush
	closed   bool
	finished bool          // the queue has been given back
	changed  chan struct{} // closed when wake is called; nil: nobody waits for that
	flushes  list.List     // of *flushing: those that wait, in the order in which they are reached
	idle     []*flushing   // that no Flush uses
	woken    int64         // how many were, and Takes, since the connection asked
	senders  list.List     // of chan struct{}: Sends that wait, in order; the first is told what changes
	spare    []*delivery   // that no Receive uses
	result   error         // of Close; guarded by down
}

// A delivery is one Receive that waits, or one Take.
type delivery struct {
	queue *chunkQueue
	takes *Queue   // whose Take it is; nil: a Receive
	got   chan got // gets what comes, or why nothing does
	came  bool     // it has; guarded by the queue's mu
}

type got struct {
	chunk []byte
	job   *Job
	lent  bool   // somebody else has its data, too
	over  *cause // nothing comes any more
}

// delivery returns one that is not in use. queue.mu is held.
func (q *Queue) delivery() *delivery {
	n := len(q.spare)
	if n == 0 {
		return &delivery{queue: q.queue, got: make(chan got, 1)}
	}
	d := q.spare[n-1]
	q.spare = q.spare[:n-1]
	d.came, d.takes = false, nil
	return d
}

func (d *delivery) take(j *job) {
	var g got
	switch d.came = true; {
	case j == nil:
		g.over = d.queue.over
	case d.takes != nil:
		g = d.takes.begin(j)
	default:
		g = receive(d.queue, j)
	}
	d.got <- g
}

// receive lets go of a chunk whose receiver is here. The queue's mu is held.
func receive(s *chunkQueue, j *job) got {
	g := got{chunk: j.data, lent: j.shared}
	s.release(j)
	return g
}

// OpenQueue opens a queue, which is created if it does not exist. Any number of
// Queues may be open. All else is as with OpenReader, the errors included,
// except that there is no ErrPipeBusy, that ErrPipeMode means that the name is
// a stream's, and that errors.ErrUnsupported means that the broker knows only
// the base protocol, which has no queues. In a cluster of which a broker is out
// of reach, it may wait for as long as the cluster's patience.
func (c *Client) OpenQueue(ctx context.Context, queue string) (*Queue, error) {
	return c.openQueue(ctx, queue, modeQueue, queueSettings{})
}

// openQueue opens a queue, and makes it as it is to be.
func (c *Client) openQueue(ctx context.Context, queue string, mode byte, set queueSettings) (*Queue, error) {
	q := &Queue{client: c, closing: make(chan struct{}), down: make(chan struct{}), settings: set, mode: mode}
	if err := c.open(ctx, q, queue); err != nil {
		return nil, c.opError("open queue", queue, err)
	}
	return q, nil
}

// beginTry makes a sender for a try to open it: what an earlier one was told is that one's alone.
func (q *Queue) beginTry() { q.sender = senderQueue{wake: q.wake, worker: worker{lost: q.lose}} }

func (q *Queue) openDirect(ctx context.Context, c *Client, b *Broker, name string) error {
	return b.atHome(ctx, name, q.mode == modeQueue, func() error { return q.openHere(c, b, name) },
		func(endpoint string) error { return q.openRemote(ctx, c, endpoint, name) })
}

func (q *Queue) openAtOnce(c *Client, b *Broker, name string) (done bool, err error) {
	err = q.openHere(c, b, name)
	return err != errNotHere, err
}

func (q *Queue) openHere(c *Client, b *Broker, name string) error {
	return c.enter(q, func() error {
		q.beginTry()
		s, why := b.pipes.enter(name, &q.sender, q.mode == modeQueue, time.Now())
		if why == nil {
			why = b.pipes.configure(s, &q.sender, q.settings, time.Now())
		}
		if why != nil {
			return why.openError()
		}
		q.broker, q.queue, q.link = b, s, nil
		return nil
	})
}

func (q *Queue) openRemote(ctx context.Context, c *Client, endpoint, name string) error {
	var open func(k *conn) error
	open = func(k *conn) error {
		if err := k.needExtension("queues"); err != nil {
			return err
		}
		if (q.settings != queueSettings{} || q.mode != modeQueue) && k.able&ableJobs == 0 {
			return errNoJobs
		}
		if k.pending > k.largest {
			// Another connection must do, which takes chunks of any size.
			c.enlarge(k)
			return c.onConn(ctx, endpoint, open)
		}
		q.beginTry()
		q.queue = newChunkQueue(name, noLimit, k.pending, time.Time{})
		q.queue.attach(&q.sender)
		q.link = k.newQueueLink(q, q.queue, &q.sender, q.mode)
		q.link.rules, q.link.lose, q.link.end = q.settings, q.lose, q.loseJobs
		q.link.late = func() { q.late = ErrLeaseLost }
		q.link.woken = q.wereWoken
		return k.openQueue(ctx, q.link)
	}
	return c.onConn(ctx, endpoint, open)
}

// DeleteQueue deletes a queue and all chunks in it. Whoever has it open gets
// io.ErrClosedPipe from the next call, and from calls that wait. The errors are
// those of OpenQueue, except ErrTooManyPipes, and fs.ErrNotExist if there is no
// such queue.
func (c *Client) DeleteQueue(ctx context.Context, queue string) error {
	lost := false // the answer to a deletion that the broker may have done
	remote := func(ctx context.Context, endpoint string) error {
		return c.onConn(ctx, endpoint, func(k *conn) error {
			if err := k.needExtension("queues"); err != nil {
				return err
			}
			s := newChunkQueue(queue, noLimit, noLimit, time.Time{})
			err := k.openQueue(ctx, k.newQueueLink(nil, s, new(senderQueue), modeDelete))
			if lost && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			lost = errors.Is(err, ErrBrokerGone)
			return err
		})
	}
	err := c.reachPipe(ctx, queue, func(ctx context.Context, b *Broker) error {
		return b.atHome(ctx, queue, false, func() error {
			if why := b.pipes.delete(queue, time.Now()); why != nil {
				return why.openError()
			}
			return nil
		}, func(endpoint string) error { return remote(ctx, endpoint) })
	}, func(ctx context.Context) error { return remote(ctx, c.endpoint) })
	if err != nil {
		return c.opError("delete queue", queue, err)
	}
	return nil
}

func (q *Queue) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return q.client.opError(op, q.queue.name, err)
}

// A flushing waits until so much is confirmed. Each is woken by itself: of several hundred the others would find out that
// it was not for them, and that takes longer than all else.
type flushing struct {
	sent, acted int64
	told        chan struct{} // gets something when it is taken out of flushes
}

func (q *Queue) reached(sent, acted int64) bool {
	return q.sender.settled >= sent && q.sender.acts >= acted
}

// wake tells those who wait that sender has changed. queue.mu is held.
func (q *Queue) wake() {
	q.wakeSender()
	over := q.flushes.Len() > 0 && (q.closed || q.refusal() != nil) // nothing to ask before it is open
	for first := q.flushes.Front(); first != nil; first = q.flushes.Front() {
		f := first.Value.(*flushing)
		if !over && !q.reached(f.sent, f.acted) {
			break
		}
		q.flushes.Remove(first)
		f.told <- struct{}{}
		q.woken++
	}
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}

// wereWoken says how many Flushes and Takes have returned since it was asked. queue.mu is held.
func (q *Queue) wereWoken() int64 {
	n := q.woken
	q.woken = 0
	return n
}

func (q *Queue) wakeSender() {
	if first := q.senders.Front(); first != nil {
		select {
		case first.Value.(chan struct{}) <- struct{}{}:
		default: // it knows
		}
	}
}

// await waits until sender has changed. queue.mu is held, but not
// meanwhile.
func (q *Queue) await(ctx context.Context) error {
	if q.changed == nil {
		q.changed = make(chan struct{})
	}
	changed := q.changed
	q.queue.mu.Unlock()
	defer q.queue.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitFlush waits until so much may be confirmed. queue.mu is held, but not meanwhile.
func (q *Queue) awaitFlush(ctx context.Context, sent, acted int64) {
	var f *flushing
	if n := len(q.idle); n > 0 {
		f, q.idle = q.idle[n-1], q.idle[:n-1]
	} else {
		f = &flushing{told: make(chan struct{}, 1)}
	}
	f.sent, f.acted = sent, acted
	before := q.flushes.Back() // which one that was woken for nothing may have to look for
	for before != nil && !before.Value.(*flushing).sooner(f) {
		before = before.Prev()
	}
	var place *list.Element
	if before == nil {
		place = q.flushes.PushFront(f)
	} else {
		place = q.flushes.InsertAfter(f, before)
	}
	q.queue.mu.Unlock()
	select {
	case <-f.told:
		q.queue.mu.Lock()
	case <-ctx.Done():
		q.queue.mu.Lock()
		q.flushes.Remove(place)
		select {
		case <-f.told: // just now
		default:
		}
	}
	q.idle = append(q.idle, f)
}

// sooner says that f is reached no later than g.
func (f *flushing) sooner(g *flushing) bool { return f.sent <= g.sent && f.acted <= g.acted }

// refusal is why nothing can be sent. queue.mu is held.
func (q *Queue) refusal() error {
	switch {
	case q.queue.refused != nil:
		return q.queue.refused.writeError()
	case q.queue.ended(&q.sender) != nil:
		return q.queue.ended(&q.sender).writeError()
	}
	return nil
}

// Send puts a copy of chunk, which may be empty, into the queue. Like
// Writer.Write it returns once the chunk is in this end's window
// (ClientConfig.Window): at once if there is room in the queue or the window.
// Otherwise it waits, after the Sends that waited before, until ctx ends or
// Close. Chunks of one Queue are received in the order in which they were sent;
// several Queues take turns. Flush and Close tell whether what was sent has
// arrived.
//
// The error is an *OpError around
//
//   - ctx's error; the chunk is not in the queue then;
//   - ErrTooLarge: the chunk has more bytes than BrokerConfig.MaxPending or
//     MaxMessage, or more than 1 GiB;
//   - io.ErrClosedPipe: the queue was deleted;
//   - os.ErrClosed: this Queue is closed;
//   - ErrBrokerGone.
func (q *Queue) Send(ctx context.Context, chunk []byte) error { return q.send(ctx, chunk, nil) }

func (q *Queue) send(ctx context.Context, chunk []byte, t *terms) error {
	if t != nil {
		if err := q.knowJobs(); err != nil {
			return q.fail("send", err)
		}
	}
	if len(chunk) > q.queue.largest {
		return q.fail("send", fmt.Errorf("%w: %s", ErrTooLarge, tooLarge(chunk, q.queue.largest).text))
	}
	own := append(make([]byte, 0, len(chunk)), chunk...)
	s := q.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	var turn *list.Element // in senders
	defer func() {
		if turn != nil {
			q.senders.Remove(turn)
			q.wakeSender()
		}
	}()
	for {
		err := ctx.Err()
		if q.closed {
			err = os.ErrClosed
		} else if why := q.refusal(); why != nil {
			err = why
		}
		if err != nil {
			return q.fail("send", err)
		}
		room := q.sender.window == 0 || q.sender.window+chunkSize(own) <= q.client.cfg.Window
		if q.senders.Front() == turn && room {
			s.pushJob(&q.sender, s.newJob(own, t))
			return nil
		}
		if turn == nil {
			turn = q.senders.PushBack(make(chan struct{}, 1))
		}
		s.mu.Unlock()
		select {
		case <-turn.Value.(chan struct{}):
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
}

// Flush waits until all that was sent before it is confirmed: the broker has
// it, so that it survives the death of this process. Nobody needs to have
// received it. The errors are those of Send except ErrTooLarge. If chunks are
// not confirmed, an *UndeliveredError in between counts their bytes; if it was
// ctx that ended, they are still on their way.
func (q *Queue) Flush(ctx context.Context) error {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	if q.closed {
		return q.fail("flush", os.ErrClosed)
	}
	return q.fail("flush", q.drain(ctx, false))
}

// drain waits until what has been sent so far is confirmed, and at Close leaves that to
// the call that closes. queue.mu is held.
func (q *Queue) drain(ctx context.Context, closes bool) error {
	for sent, acted := q.sender.pushed, q.acted; !q.reached(sent, acted); {
		if q.closed && !closes {
			return os.ErrClosed
		}
		err := q.refusal()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return &UndeliveredError{Bytes: q.sender.unsure, Err: err}
		}
		q.awaitFlush(ctx, sent, acted)
	}
	late := q.late
	q.late = nil
	return late
}

// Receive returns the next chunk, which is the caller's. It waits for one,
// after all that asked before, until ctx ends or Close. A Receive that is
// cancelled takes no chunk.
//
// Delivery is at least once. Once Receive has returned a chunk, the chunk is
// gone from the queue; but if this process dies in the moment before the broker
// knows, the chunk goes back to the front. So does a chunk on its way to a
// process that dies.
//
// The error is an *OpError around
//
//   - ctx's error;
//   - io.ErrClosedPipe: the queue was deleted;
//   - os.ErrClosed: this Queue is closed;
//   - ErrBrokerGone.
func (q *Queue) Receive(ctx context.Context) ([]byte, error) {
	got, err := q.obtain(ctx, false)
	if got.lent {
		got.chunk = bytes.Clone(got.chunk)
	}
	return got.chunk, q.fail("receive", err)
}

// obtain is Receive, or Take.
func (q *Queue) obtain(ctx context.Context, takes bool) (got, error) {
	s := q.queue
	s.mu.Lock()
	if err := ctx.Err(); err != nil || q.closed {
		s.mu.Unlock()
		if err == nil {
			err = os.ErrClosed
		}
		return got{}, err
	}
	if q.finished { // nothing has come before
		defer s.mu.Unlock()
		return got{}, s.ended(&q.sender).writeError()
	}
	s.receives(&q.sender, true)
	if s.demands.Len() == 0 && (!takes || q.link == nil && !s.counts()) {
		if j := s.next(); j != nil {
			var g got
			if takes {
				g = q.begin(j)
			} else {
				g = receive(s, j)
			}
			s.settle()
			s.mu.Unlock()
			return g, nil
		}
	}
	d := q.delivery()
	place := q.demand(d, takes)
	s.mu.Unlock()

	var err error
	var g got
	came := true
	select {
	case g = <-d.got:
	case <-ctx.Done():
		err = ctx.Err()
	case <-q.closing:
		err = os.ErrClosed
	}
	if err != nil {
		s.mu.Lock()
		if came = d.came; !came {
			q.cancel(d, place)
			s.settle()
		}
		s.mu.Unlock()
		if came { // in the meantime
			g = <-d.got
		}
	}
	s.mu.Lock()
	delete(q.takes, d)
	q.spare = append(q.spare, d)
	busy := len(q.jobs) > 0
	s.mu.Unlock()
	if came && g.over == nil {
		return g, nil
	}
	if err == nil {
		err = g.over.writeError()
		if !busy {
			q.finish() // a broker that shuts down need not wait for this end
		}
	}
	return got{}, err
}

// demand has a delivery wait for its turn. queue.mu is held.
func (q *Queue) demand(d *delivery, takes bool) *list.Element {
	s := q.queue
	if !takes {
		return s.demand(d)
	}
	d.takes = q
	var place *list.Element
	if q.link != nil {
		place = q.link.demand(d)
	} else {
		place = s.askJob(d)
	}
	if q.takes == nil {
		q.takes = make(map[*delivery]*list.Element)
	}
	q.takes[d] = place
	s.settle()
	return place
}

// cancel withdraws one that has got nothing. queue.mu is held.
func (q *Queue) cancel(d *delivery, place *list.Element) {
	switch {
	case d.takes != nil && q.takes[d] == nil: // it was withdrawn when the Queue was closed
	case d.takes != nil && q.link != nil:
		q.link.cancel(place)
	default:
		q.queue.cancel(place)
	}
	delete(q.takes, d)
}

// All yields the chunks that Receive returns, until Receive fails; it yields
// that error last. It takes no chunk that it does not yield.
func (q *Queue) All(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			chunk, err := q.Receive(ctx)
			if !yield(chunk, err) || err != nil {
				return
			}
		}
	}
}

// Close flushes, for up to ClientConfig.Timeout, and gives the queue up; the
// queue and its chunks stay. Blocked calls return os.ErrClosed. If what was
// sent is not confirmed, the error wraps an *UndeliveredError around
// os.ErrDeadlineExceeded, io.ErrClosedPipe or ErrBrokerGone. A second Close
// waits for the first one, and returns nil.
func (q *Queue) Close() error {
	first, err := q.closeOnce()
	if !first {
		return nil
	}
	return err
}

func (q *Queue) shutDown() error {
	_, err := q.closeOnce()
	return err
}

// closeOnce closes. Who comes second waits until that is done, for its result.
func (q *Queue) closeOnce() (first bool, err error) {
	s := q.queue
	s.mu.Lock()
	if q.closed {
		s.mu.Unlock()
		<-q.down
		return false, q.result
	}
	q.closed = true
	close(q.closing)
	q.wake()
	ctx, cancel := context.WithTimeout(context.Background(), q.client.cfg.Timeout)
	defer cancel()
	err = q.drain(ctx, true)
	if errors.Is(err, context.DeadlineExceeded) {
		err.(*UndeliveredError).Err = os.ErrDeadlineExceeded
	}
	s.mu.Unlock()
	q.finish()
	if q.link != nil {
		select {
		case <-q.link.done:
		case <-ctx.Done():
		}
	}
	q.result = q.fail("close queue", err)
	close(q.down)
	q.client.forget(q)
	return true, q.result
}

// finish gives the queue back, once. Who still waits is told now if that is over: the queue has nobody to tell it to
// any more.
func (q *Queue) finish() {
	q.queue.mu.Lock()
	first := !q.finished
	q.finished = true
	over := q.queue.ended(&q.sender)
	for d, place := range q.takes { // none gets a job any more
		if d.came {
			continue
		}
		if q.cancel(d, place); over != nil {
			d.came = true
			d.got <- got{over: over}
		}
	}
	q.loseJobs()
	q.wake()
	q.queue.mu.Unlock()
	switch {
	case !first:
	case q.link != nil:
		q.link.leave(cause{})
	default:
		q.broker.pipes.exit(q.queue, &q.sender, time.Now())
	}
}
