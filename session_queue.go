package zpipes

import (
	"container/list"
	"fmt"
	"math"
	"time"
)

// A queueChannel is a channel's hold on a queue. There are three kinds, by how it
// was opened: a Queue of this library (INPUT with modeQueue), which sends and
// receives whole chunks and says which of them it has; a reader (any other INPUT),
// to whom the chunks are bytes of a pipe of its own; and a writer (OUTPUT), each of
// whose WRITEs is a chunk. Its owner is the broker's loop.
type queueChannel struct {
	channel *channel
	queue   *chunkQueue
	whole   bool // the first kind
	sender  senderQueue

	// What the queue has given, in order. fresh is guarded by the queue's mu.
	demand      *list.Element // in the queue; nil: nothing is asked for
	fresh       fifo[[]byte]  // not looked at yet
	out         fifo[[]byte]  // of the first kind: sent, and not known to have arrived
	asked       int           // how many chunks may answer the READ that waits; 0: none does
	ackedChunks int64         // chunks of sender that WRITE_OKs have counted
	window      int           // of sender, as far as it counts in the session

	// A reader's. loaded are the chunks whose bytes are in its pipe, from the byte
	// number base on, and kept until the reader is known to have them.
	loaded fifo[[]byte]
	base   int64
	known  int64 // it has the bytes before that one for sure
	owed   int   // bytes of loaded, which count for the client's account

	pushed bool // a writer's WRITE is in sender
	ended  bool // it knows that nothing more can be received
}

func (c *channel) enter(name string, r role, whole bool, now time.Time) *cause {
	e := &queueChannel{channel: c, whole: whole, sender: senderQueue{
		receives: r == reader && !whole,
		wake:     func() { c.session.host.post(c) },
		user:     c.session.account.above,
	}}
	s, why := c.session.pipes.enter(name, &e.sender, whole, now)
	if why != nil {
		return why
	}
	e.queue = s
	c.end, c.role, c.notified = e, r, false
	if r == reader && !whole {
		c.openOwn(name, c.session.pipes.maxMessage).attach(writer, nil)
	}
	return nil
}

// take is called by the queue, from any goroutine.
func (e *queueChannel) take(chunk []byte) {
	e.demand = nil
	if chunk != nil {
		e.fresh.push(chunk)
	}
	e.channel.session.host.post(e.channel)
}

// read is a READ of whole chunks, at most size of them. It is answered when there is
// one; a readReturn at once.
func (e *queueChannel) read(q *request) (violation string) {
	s := e.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(q.count) > int64(e.out.len()) {
		return "more chunks counted than were sent"
	}
	s.receives(&e.sender, true)
	for range q.count {
		s.release(e.out.pop())
	}
	if q.flags&readReturn != 0 {
		e.giveBack()
		e.channel.reply(msgReadTimeout, cause{})
	}
	if q.size > 0 {
		e.asked = int(min(q.size, math.MaxInt32))
		if e.demand == nil && e.fresh.len() == 0 {
			e.demand = s.ask(e)
		}
	}
	s.settle()
	return ""
}

// giveBack returns to the queue what the receiver does not have.
func (e *queueChannel) giveBack() {
	e.cancel()
	e.asked = 0
	back := append(append([][]byte{}, e.out.all()...), e.fresh.all()...)
	e.out, e.fresh = fifo[[]byte]{}, fifo[[]byte]{}
	e.queue.putBack(back)
}

func (e *queueChannel) cancel() {
	if e.demand != nil {
		e.queue.cancel(e.demand)
		e.demand = nil
	}
}

// push is a WRITE of whole chunks.
func (e *queueChannel) push(q *request) (violation string) {
	c, s := e.channel, e.queue
	most := c.session.mayWait()
	chunks, ok := records(q.chunk, int(most/leastChunk))
	if !ok {
		return "a WRITE to a queue that is no sequence of chunks, or of too many"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		e.acknowledge() // what was taken before
		c.notified = true
		c.reply(msgWriteFailed, *s.over)
		return ""
	}
	size := int64(0)
	for _, chunk := range chunks {
		if len(chunk) > s.largest {
			return tooLarge(chunk, s.largest).text
		}
		size += int64(chunkSize(chunk))
	}
	if (e.sender.window > 0 || len(chunks) > 1) && int64(e.sender.window)+size > most {
		return "too much sent without waiting for answers"
	}
	for _, chunk := range chunks {
		s.push(&e.sender, chunk)
	}
	e.acknowledge()
	return ""
}

func tooLarge(chunk []byte, limit int) *cause {
	return &cause{causeAborted, fmt.Sprintf("a chunk of %d bytes, where a queue takes at most %d", len(chunk), limit)}
}

// acknowledge tells how many chunks were taken since it did so last.
func (e *queueChannel) acknowledge() {
	c, l := e.channel, &e.sender
	c.session.account.add(0, l.window-e.window)
	e.window = l.window
	if n := l.settled - e.ackedChunks; n > 0 {
		e.ackedChunks = l.settled
		c.session.send(&message{id: msgWriteOK, block: c.block(), channel: c.number, count: uint32(n)})
	}
}

// serve answers what can be answered by now, and says when the queue is over.
func (e *queueChannel) serve() {
	c, s := e.channel, e.queue
	s.mu.Lock()
	if e.whole {
		e.acknowledge()
		if e.asked > 0 && e.fresh.len() == 0 && e.demand == nil && s.available() {
			// Told that there was nothing any more, and something has come back since.
			e.demand = s.ask(e)
			s.settle()
		}
		if e.asked > 0 && e.fresh.len() > 0 {
			e.answer()
		}
	}
	over := s.over
	empty := !s.available() && e.fresh.len() == 0
	s.mu.Unlock()
	if over == nil {
		return
	}
	if !c.notified && c.session.agreed && (e.whole || c.role == writer) {
		c.notified = true
		c.reply(msgWriteFailed, *over)
	}
	if e.whole && empty && !e.ended {
		e.ended = true
		c.reply(msgReadFailed, *over)
		c.session.pipes.noteNotified(s, &e.sender)
	}
}

// answer sends what the queue gave, and more where nobody else waits for it.
func (e *queueChannel) answer() {
	c, s := e.channel, e.queue
	for n := 0; n < maxAnswers && e.asked > 0; n++ {
		frame := append(c.session.scratch[:0], make([]byte, chunkOffset)...)
		for ; e.asked > 0; e.asked-- {
			if e.fresh.len() == 0 && s.demands.Len() == 0 && len(c.session.backlog) == 0 && s.available() {
				e.fresh.push(s.next())
			}
			if e.fresh.len() == 0 || !fits(frame, *e.fresh.front()) {
				break
			}
			chunk := e.fresh.pop()
			frame = appendRecord(frame, chunk)
			e.out.push(chunk)
		}
		if len(frame) == chunkOffset {
			break
		}
		ch := segment{buf: frame, r: chunkOffset, w: len(frame)}
		c.session.scratch = ch.frame(msgReadOK, c.block(), c.number)
		c.session.reply(c.session.scratch)
	}
	if e.asked > 0 {
		e.asked = 0
		c.reply(msgReadEnd, cause{}) // no more for this READ
	}
	s.putBack(e.fresh.all())
	e.fresh = fifo[[]byte]{}
}

// maxAnswers is how many messages answer one READ of a queue.
const maxAnswers = 8

// write is a writer's WRITE; false: it must wait.
func (e *queueChannel) write(q *request, now time.Time) bool {
	c, s := e.channel, e.queue
	if len(q.chunk) == 0 && c.session.able&ableHere != 0 {
		c.reply(msgWriteOK, cause{}) // it asks whether somebody is here
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !e.pushed && s.over == nil && len(q.chunk) <= s.largest {
		e.pushed = true
		s.push(&e.sender, own(q.chunk, q.frame))
	}
	switch {
	case e.took():
		c.reply(msgWriteOK, cause{})
	case s.over != nil:
		c.notified = true
		c.reply(msgWriteFailed, *s.over)
	case !e.pushed:
		c.reply(msgWriteFailed, *tooLarge(q.chunk, s.largest))
	case !c.wait(q, now):
		return false
	default:
		s.withdraw(&e.sender)
	}
	e.pushed = false
	return true
}

// resolve takes a writer's chunk back, unless the queue has it, which it says.
func (e *queueChannel) resolve() (took bool) {
	s := e.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if took = e.took(); e.pushed && !took && s.over == nil {
		s.withdraw(&e.sender)
	}
	e.pushed = false
	return took
}

// took says that the queue has a writer's chunk, whatever becomes of either then.
func (e *queueChannel) took() bool { return e.pushed && e.sender.window == 0 }

// own returns a chunk of a frame that is safe to keep: one that does not keep much
// else alive.
func own(chunk, frame []byte) []byte {
	if len(chunk) < len(frame)/2 || len(chunk) == 0 {
		return append(make([]byte, 0, len(chunk)), chunk...)
	}
	return chunk
}

// feed fills a reader's pipe, as far as its READ wants.
func (e *queueChannel) feed(q *request) {
	if e.fill(q) {
		e.channel.session.pipes.noteNotified(e.queue, &e.sender)
	}
}

// fill says whether nothing is left to be read, for ever.
func (e *queueChannel) fill(q *request) (ended bool) {
	c, s, p := e.channel, e.queue, e.channel.pipe
	s.mu.Lock()
	defer s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !q.fed {
		q.fed = true
		e.has(p.out)
	}
	need := int(min(int64(q.size), int64(c.session.pipes.maxMessage)))
	if q.flags&(readAny|readStream) != 0 {
		need = 1
	}
	for e.fresh.len() > 0 {
		e.load(e.fresh.pop())
	}
	poor := func() bool { return p.buf.n > 0 && c.session.account.room() == 0 }
	for p.buf.n < need && s.available() && !poor() {
		e.load(s.next())
	}
	if p.buf.n < need {
		if s.over != nil {
			p.leave(writer, *s.over)
			ended = p.buf.n == 0
		} else if poor() {
			c.session.account.await(c, 1)
		} else if e.demand == nil {
			e.demand = s.ask(e)
		}
	}
	s.settle()
	return ended
}

// lentOut says that a reader has been sent as much as there may be of which it has not
// shown that it has it: it does so with its next READ.
func (e *queueChannel) lentOut() bool {
	return e.channel.pipe.out-e.known >= int64(e.channel.session.pipes.maxMessage) || e.loaded.len() >= maxLoaded
}

// maxLoaded is how many chunks that may be.
const maxLoaded = 1 << 16

func (e *queueChannel) load(chunk []byte) {
	p := e.channel.pipe
	e.queue.lend(chunk)
	if len(chunk) == 0 {
		return // any number of them makes no byte
	}
	e.owe(len(chunk))
	e.loaded.push(chunk)
	p.fill(chunk)
}

func (e *queueChannel) owe(n int) {
	e.owed += n
	e.channel.session.account.charge(n)
}

// has records that the reader has the bytes before that one.
func (e *queueChannel) has(upTo int64) {
	e.known = upTo
	for e.loaded.len() > 0 && e.base+int64(len(*e.loaded.front())) <= upTo {
		chunk := e.loaded.pop()
		e.base += int64(len(chunk))
		e.owe(-len(chunk))
		e.queue.consumed(chunk)
	}
}

// rest withdraws what a READ that has been answered otherwise asked for. One that
// goes on asks again.
func (e *queueChannel) rest() {
	s := e.queue
	if e.channel.queue.front().flags&readStream != 0 {
		e.channel.session.host.post(e.channel)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.cancel()
	back := e.fresh.all()
	e.fresh = fifo[[]byte]{}
	s.putBack(back)
}

// leave gives up the hold on the queue. unread is how many of the bytes that a
// reader was sent last it gives back; one that vanished has none of them. With never
// set, a queue that nobody else has used was never there, either.
func (e *queueChannel) leave(why cause, unread uint32, never bool) {
	c, s := e.channel, e.queue
	s.mu.Lock()
	if p := c.pipe; p != nil {
		upTo := p.out
		if c.session.agreed {
			if upTo -= int64(unread); why.code == causeVanished || upTo < e.known {
				upTo = e.known
			}
		}
		e.has(upTo)
		s.reclaim(e.loaded.all(), upTo-e.base)
		e.owe(-e.owed)
		e.out, e.loaded = e.loaded, fifo[[]byte]{}
	}
	c.session.account.forget(c)
	e.giveBack()
	s.mu.Unlock()
	c.session.account.add(0, -e.window)
	c.session.pipes.exit(s, &e.sender, c.session.heard)
	if never {
		c.session.pipes.unmake(s)
	}
}
