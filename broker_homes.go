//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/seglog"
)

// A mover hands the jobs of a queue that was ceded over to its other home. It has a goroutine, since
// bodies may have to be read from the disk.
type mover struct {
	host  *meetingHost
	queue *chunkQueue
	to    memberID
	wake  bell // there may be something to be handed over
	stop  context.CancelFunc
	done  chan struct{}

	makes   bool        // the other home has yet to be made
	recalls atomic.Bool // what others have taken is to come back

	// What follows belongs to its goroutine.
	sender senderQueue // has what is on its way
	stay   []seenJob   // that the other home does not take, or that are rotten
	made   bool        // the other home was, and has not refused this one since
}

// movers are those of a broker.
type movers struct {
	of      map[string]*mover // by the queues' names; the exchange's owner's, as recalls
	recalls bool
	running sync.WaitGroup
}

const (
	// moveBytes is how much is handed over at a time.
	moveBytes = 1 << 20
	// moveAgain is how long after one attempt there is another.
	moveAgain = 500 * time.Millisecond
	// moveElsewhere is how long after another broker did not take a queue the next one is asked, or it again if the way broke.
	moveElsewhere = 50 * time.Millisecond
)

var (
	errMoveEnded = errors.New("the queue was deleted") // at its other home
	errMoveVoid  = errors.New("what is here of the queue is gone, or is read again from the disk")
)

// cede is for the exchange, as keep.
func (h *meetingHost) cede(name string, to memberID) {
	s := h.pipes.queueNamed(name)
	if s == nil {
		return
	}
	before := h.movers.of[name]
	m := &mover{
		host: h, queue: s, to: to, wake: newBell(), done: make(chan struct{}),
		sender: senderQueue{worker: worker{lost: func(uint64, uint32) {}}},
	}
	m.recalls.Store(h.movers.recalls)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(h.mesh.stop)
	h.movers.of[name] = m
	where := h.name(to)
	h.log.info("the queue has another home", "queue", name, "at", where)
	s.mu.Lock()
	m.makes = h.exchange.homes.resigned && s.log == nil
	s.cede(where, m.wake.ring)
	s.mu.Unlock()
	h.movers.running.Go(func() {
		defer close(m.done)
		if before != nil {
			before.stop()
			<-before.done
		}
		m.run(ctx)
		m.stop()
		h.exchange.do(func(time.Time) {
			if h.movers.of[name] == m {
				delete(h.movers.of, name)
			}
		})
		h.moved.ring()
	})
}

func (h *meetingHost) keep(name string) {
	if m := h.movers.of[name]; m != nil { // else it has ended before, as where this broker has left
		m.stop()
	}
	if s := h.pipes.queueNamed(name); s != nil {
		s.mu.Lock()
		s.keepOn()
		s.mu.Unlock()
	}
}

// atHome does something with a queue: here, or if it is at another broker, through this one's endpoint.
// It waits until it is known where it is, or until ctx ends.
func (b *Broker) atHome(ctx context.Context, name string, create bool, here func() error, elsewhere func(endpoint string) error) error {
	var i *inquiry
	answered := make(chan struct{}, 1)
	for {
		err := here()
		if err != errNotHere {
			if err != nil {
				i.forgo()
			}
			return err
		}
		if i == nil {
			i = b.pipes.exchange.inquire(name, create, func() { answered <- struct{}{} })
		} else {
			i.again()
		}
		select {
		case <-answered:
		case <-b.closing:
			return cause{causeBrokerGone, "it was closed"}.openError()
		case <-ctx.Done():
			i.forgo()
			return fmt.Errorf("%w: where the queue is was not found out; see zpipes cluster status", ctx.Err())
		}
		switch {
		case i.why != nil:
			return i.why.openError()
		case i.at != 0:
			return elsewhere(memoryEndpoint(b.name))
		}
	}
}

// bytesElsewhere says that the name is a queue's at another broker.
func (b *Broker) bytesElsewhere(ctx context.Context, name string) (bool, error) {
	if !b.pipes.mayBeAway(name, time.Now()) {
		return false, nil
	}
	answered := make(chan struct{}, 1)
	i := b.pipes.exchange.inquireBytes(name, func() { answered <- struct{}{} })
	select {
	case <-answered:
		return i.at != 0, nil
	case <-b.closing:
		return false, cause{causeBrokerGone, "it was closed"}.openError()
	case <-ctx.Done():
		i.forgo()
		return false, ctx.Err()
	}
}

// run tries until all is handed over, or there is no need to any more.
func (m *mover) run(ctx context.Context) {
	s, log := m.queue, m.host.log
	defer func() {
		s.mu.Lock()
		s.unlift(&m.sender, m.stay)
		s.mu.Unlock()
	}()
	for {
		again := moveAgain
		err := m.attempt(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && m.host.pipes.handedOver(s, false):
			log.info("a queue is handed over to its other home", "queue", s.name)
			return
		case err == errMoveEnded:
			m.host.pipes.handedOver(s, true)
			return
		case err == errMoveVoid:
			return
		case err != nil && m.makes: // which ends this one soon, if another broker is to have it
			again = moveElsewhere
		case errors.Is(err, errNotHere):
			m.host.exchange.do(func(now time.Time) { m.host.exchange.homes.denied(s.name, m.to, now) })
		case err != nil:
			log.info("a queue can't be handed over now", "queue", s.name, "why", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
			if again == moveElsewhere {
				m.host.exchange.resign(s.name, m.to, m.made)
			}
		}
	}
}

// attempt hands over what there is, and what comes back, until nothing is left.
func (m *mover) attempt(ctx context.Context) error {
	way, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer way.link.leave(cause{})
	for s, first := m.queue, true; ; first = false {
		var jobs []seenJob
		s.mu.Lock()
		if first { // else who sends one of them there again meanwhile has it twice
			jobs = s.goneKeys()
		}
		if len(jobs) == 0 {
			jobs = s.lift(&m.sender, moveBytes)
		}
		if len(jobs) == 0 && m.recalls.Load() && s.recall(&m.sender, settleMost) {
			jobs = s.lift(&m.sender, moveBytes)
		}
		void, bare, log := s.void, len(jobs) == 0 && s.bare(), s.log
		if bare {
			jobs = s.goneKeys()
		}
		s.mu.Unlock()
		switch {
		case void:
			return errMoveVoid
		case len(jobs) == 0 && !bare:
			if err := way.wait(ctx, m.wake); err != nil {
				return err
			}
			continue
		}
		n, err := 0, readAway(jobs, log)
		if err == nil || errors.Is(err, seglog.ErrCorrupt) {
			jobs, err = m.sift(jobs, way.queue.largest, err)
		}
		if err == nil {
			n, err = way.pass(ctx, jobs)
		}
		s.mu.Lock()
		s.settleLifted(&m.sender, jobs[:n])
		s.unlift(&m.sender, jobs[n:])
		s.mu.Unlock()
		if err != nil || bare {
			return err
		}
	}
}

// sift keeps jobs back that are too large for the other home, and if some are rotten, those. The error says that some
// are not on the disk.
func (m *mover) sift(jobs []seenJob, largest int, rotten error) (fit []seenJob, err error) {
	log, name := m.host.log, m.queue.name
	for _, j := range jobs {
		switch missing := j.rests && j.data == nil; {
		case missing && rotten != nil:
			log.warn("a job can't be read, and does not go to its queue's other home", "queue", name, "job", j.id, "err", rotten)
			m.stay = append(m.stay, j)
		case len(j.data) > largest:
			log.warn("a job is too large for its queue's other home, and stays", "queue", name, "bytes", len(j.data), "largest", largest)
			m.stay = append(m.stay, j)
		default:
			if missing {
				err = fmt.Errorf("job %d is not there", j.id)
			}
			fit = append(fit, j)
		}
	}
	return fit, err
}

// A moveWay is a mover's connection to the other home: a queue of its own, in which is what leaves.
type moveWay struct {
	queue  *chunkQueue
	sender senderQueue
	link   *queueLink
	news   bell
}

func (m *mover) open(ctx context.Context) (*moveWay, error) {
	type found struct {
		k   *conn
		err error
	}
	if m.makes { // where it takes longer, there may be another broker
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handOverTime/3)
		defer cancel()
	}
	got := make(chan found, 1)
	m.host.mesh.bulk(m.to, func(k *conn, err error) { got <- found{k, err} })
	var f found
	select {
	case f = <-got:
	case <-ctx.Done():
		f.err = ctx.Err()
	}
	if f.err != nil {
		return nil, f.err
	}
	w := &moveWay{queue: newChunkQueue(m.queue.name, noLimit, f.k.pending, time.Time{}), news: newBell()}
	w.sender = senderQueue{wake: w.news.ring}
	w.queue.attach(&w.sender)
	mode := byte(modeKnown)
	if m.makes {
		mode = modeResigned
	}
	w.link = f.k.newQueueLink(nil, w.queue, &w.sender, mode)
	if m.makes {
		m.queue.mu.Lock()
		w.link.rules = m.queue.settings()
		m.queue.mu.Unlock()
	}
	err := f.k.openQueue(ctx, w.link)
	m.made = err == nil
	return w, err
}

// failed is why nothing can be sent any more; nil: it can. The queue's mu is held.
func (w *moveWay) failed() error {
	why := w.queue.refused
	if why == nil {
		why = w.queue.over
	}
	switch {
	case why == nil:
		return nil
	case why.code == causeDeleted:
		return errMoveEnded
	}
	return why.openError()
}

// wait waits for what wakes it, or for news of the way.
func (w *moveWay) wait(ctx context.Context, wake <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-w.news:
	}
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return w.failed()
}

// pass sends jobs, and says how many of them, from the first on, the other home has. Where that fails, what has not
// left by then does not leave any more.
func (w *moveWay) pass(ctx context.Context, jobs []seenJob) (n int, err error) {
	q := w.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	base := w.sender.settled
	for _, j := range jobs {
		t := &terms{key: j.key(), handed: &handedTerms{sent: j.sent, deliveries: j.deliveries, state: j.state, reason: j.reason}}
		if j.state == jobDelayed {
			t.due = j.at
		}
		data := j.data
		if !j.rests { // else it is nobody else's; who gets it here if it is put back may change it
			data = bytes.Clone(data)
		}
		q.pushJob(&w.sender, q.newJob(data, t))
	}
	for {
		if n = int(w.sender.settled - base); n == len(jobs) {
			return n, nil
		}
		if err == nil {
			err = w.failed()
		}
		if err != nil {
			q.refuse(&w.sender, cause{code: causeClosed})
			return n, err
		}
		q.mu.Unlock()
		err = w.wait(ctx, nil)
		q.mu.Lock()
	}
}
