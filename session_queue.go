package zpipes

import (
	"container/list"
	"fmt"
	"time"
)

// A queueEnd is what the three kinds of ends of a queue have in common that a channel may
// have open: a queueMember, which has whole chunks; a queueReader, to whom they are bytes;
// and a queueWriter, each of whose WRITEs is a chunk.
type queueEnd struct {
	channelEnd
	queue  *chunkQueue
	sender senderQueue
	lost   func(id uint64, delivery uint32) // tells one that takes jobs

	// What the queue has given, in order.
	demand *list.Element // in the queue; nil: nothing is asked for
	fresh  jobList       // not looked at yet; guarded by the queue's mu
}

// openQueue opens an end of a queue. A whole one has whole chunks, and with create set, makes the
// queue where there is none.
func (c *channel) openQueue(name string, r role, whole, create bool, now time.Time) *cause {
	switch {
	case whole:
		e := &queueMember{}
		e.desk.member, e.lost = e, e.desk.release
		return e.enter(c, e, name, create, false, now)
	case r == writer:
		e := &queueWriter{}
		return e.enter(c, e, name, false, false, now)
	}
	e := &queueReader{bytes: c.ownPipe(name, c.session.pipes.maxMessage)}
	e.bytes.pipe.attach(writer, nil)
	return e.enter(c, e, name, false, true, now)
}

// enter opens the queue for self, whose base this is.
func (e *queueEnd) enter(c *channel, self openEnd, name string, create, receives bool, now time.Time) (why *cause) {
	e.channel = c
	e.sender = senderQueue{receives: receives, wake: c.recheck, user: c.session.account.above, worker: worker{lost: e.lost}}
	if e.queue, why = c.session.pipes.enter(name, &e.sender, create, now); why == nil {
		c.open = self
	}
	return why
}

// take is called by the queue, from any goroutine.
func (e *queueEnd) take(j *job) {
	e.demand = nil
	if j != nil {
		e.fresh.push(j)
	}
	e.channel.recheck()
}

// giveBack returns to the queue, whose mu is held, what it has given: the chunks sent, which
// the client may have seen or not, and behind them those that are fresh.
func (e *queueEnd) giveBack(sent []*job, seen bool) {
	if e.demand != nil {
		e.queue.cancel(e.demand)
		e.demand = nil
	}
	back := append(sent[:len(sent):len(sent)], e.fresh.all()...)
	e.fresh = jobList{}
	n := 0
	if seen {
		n = len(sent)
	}
	e.queue.putBack(back, n)
}

// exit gives up the hold on the queue. With never set, one that nobody else has used was
// never there, either.
func (e *queueEnd) exit(never bool) {
	s := e.channel.session
	s.pipes.exit(e.queue, &e.sender, s.heard)
	if never {
		s.pipes.unmake(e.queue)
	}
}

func tooLarge(chunk []byte, limit int) *cause {
	return &cause{causeAborted, fmt.Sprintf("a chunk of %d bytes, where a queue takes at most %d", len(chunk), limit)}
}

// A queueWriter is opened by an OUTPUT.
type queueWriter struct {
	queueEnd
	pushed   bool // the WRITE that waits is in sender
	notified bool // the client knows that the queue is over
}

func (e *queueWriter) write(q *request, now time.Time) bool {
	c, s := e.channel, e.queue
	if len(q.chunk) == 0 && c.session.able&ableHere != 0 {
		c.reply(msgWriteOK, cause{}) // it asks whether somebody is here
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.ended(&e.sender)
	if !e.pushed && over == nil && len(q.chunk) <= s.largest {
		e.pushed = true
		s.push(&e.sender, q.own(q.chunk, q.frame))
	}
	switch {
	case e.taken():
		c.reply(msgWriteOK, cause{})
	case over != nil && !s.committing(&e.sender):
		e.notified = true
		c.reply(msgWriteFailed, *over)
	case !e.pushed:
		c.reply(msgWriteFailed, *tooLarge(q.chunk, s.largest))
	case s.committing(&e.sender):
		q.waiting = true // beyond its timeout, too: nobody could say that it did not come
		return false
	case !c.wait(q, now):
		return false
	default:
		s.withdraw(&e.sender)
	}
	e.pushed = false
	return true
}

// resolve takes the chunk of a WRITE that waits back, unless the queue has it.
func (e *queueWriter) resolve() (took bool) {
	s := e.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if took = e.taken(); e.pushed && !took && s.ended(&e.sender) == nil && !s.committing(&e.sender) {
		s.withdraw(&e.sender)
	}
	e.pushed = false
	return took
}

// taken says that the queue has the chunk, whatever becomes of either then.
func (e *queueWriter) taken() bool { return e.pushed && e.sender.window == 0 }

func (e *queueWriter) notice() {
	s := e.queue
	s.mu.Lock()
	over := s.ended(&e.sender)
	s.mu.Unlock()
	if over != nil && !e.notified && e.channel.session.agreed {
		e.notified = true
		e.channel.reply(msgWriteFailed, *over)
	}
}

func (e *queueWriter) leave(_ cause, _ uint32, never bool) { e.exit(never) }
