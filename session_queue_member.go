package zpipes

import (
	"math"
	"time"
)

// A queueMember is a Queue of this library, which INPUT opens with modeQueue: it sends and
// receives whole chunks, and says which of them it has.
type queueMember struct {
	queueEnd
	out      jobList // chunks sent, and not known to have arrived
	asked    int     // how many chunks may answer the READ that waits; 0: none does
	acked    int64   // chunks of sender that WRITE_OKs have counted
	window   int     // of sender, as far as it counts in the session
	desk     jobDesk
	notified bool // the client knows that nothing can be sent any more
	ended    bool // and that nothing can be received
}

func (e *queueMember) read(q *request, _ time.Time) bool {
	if wrong := e.ask(q); wrong != "" {
		e.channel.violate(wrong)
	} else {
		e.notice()
	}
	return true
}

// ask is a READ of at most size chunks. It is answered when there is one; a readReturn at
// once.
func (e *queueMember) ask(q *request) (violation string) {
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
		e.returnAll(false)
		e.channel.reply(msgReadTimeout, cause{})
	}
	if q.size > 0 {
		e.asked = int(min(q.size, math.MaxInt32))
		if e.demand == nil && e.fresh.len() == 0 {
			e.demand = s.ask(&e.queueEnd)
		}
	}
	s.settle()
	return ""
}

// returnAll returns to the queue what the receiver does not have, and may have seen or not. The
// queue's mu is held.
func (e *queueMember) returnAll(seen bool) {
	e.asked = 0
	e.giveBack(e.out.all(), seen)
	e.out = jobList{}
}

func (e *queueMember) write(q *request, _ time.Time) bool {
	if wrong := e.push(q); wrong != "" {
		e.channel.violate(wrong)
	}
	return true
}

// push is a WRITE of whole chunks.
func (e *queueMember) push(q *request) (violation string) {
	c, s := e.channel, e.queue
	most := c.session.mayWait()
	chunks, ok := q.records(int(most / leastChunk))
	if !ok {
		return "a WRITE to a queue that is no sequence of chunks, or of too many"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := s.ended(&e.sender); over != nil {
		e.acknowledge() // what was taken before
		e.notified = true
		c.reply(msgWriteFailed, *over)
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

// acknowledge tells how many chunks were taken since it did so last. The queue's mu is held.
func (e *queueMember) acknowledge() {
	c, l := e.channel, &e.sender
	c.session.account.add(0, l.window-e.window)
	e.window = l.window
	if n := l.settled - e.acked; n > 0 {
		e.acked = l.settled
		c.session.send(&message{id: msgWriteOK, block: c.block(), channel: c.number, count: uint32(n)})
	}
}

// notice answers what can be answered by now, and says when the queue is over.
func (e *queueMember) notice() {
	c, s := e.channel, e.queue
	s.mu.Lock()
	e.acknowledge()
	if e.asked > 0 && e.fresh.len() == 0 && e.demand == nil && s.available() {
		// Told that there was nothing any more, and something has come back since.
		e.demand = s.ask(&e.queueEnd)
		s.settle()
	}
	if e.asked > 0 && e.fresh.len() > 0 {
		e.answer()
	}
	e.serveJobs()
	over := s.ended(&e.sender)
	empty := !s.available() && e.fresh.len() == 0 && !s.has(&e.sender)
	s.mu.Unlock()
	if over == nil {
		return
	}
	if !e.notified {
		e.notified = true
		c.reply(msgWriteFailed, *over)
	}
	if empty && !e.ended {
		e.ended, e.asked = true, 0 // what comes back later is for others
		c.reply(msgReadFailed, *over)
		c.session.pipes.noteNotified(s, &e.sender)
	}
}

// answer sends what the queue gave, and more where nobody else waits for it. The queue's
// mu is held.
func (e *queueMember) answer() {
	c, s := e.channel, e.queue
	for n := 0; n < maxAnswers && e.asked > 0; n++ {
		frame := append(c.session.scratch[:0], make([]byte, chunkOffset)...)
		for ; e.asked > 0; e.asked-- {
			if e.fresh.len() == 0 && s.demands.Len() == 0 && !c.session.full() && s.available() {
				e.fresh.push(s.next())
			}
			if e.fresh.len() == 0 || !fits(frame, e.fresh.front().data) {
				break
			}
			chunk := e.fresh.pop()
			frame = appendRecord(frame, chunk.data)
			s.part(chunk) // which is loaded again if it comes back
			e.out.push(chunk)
		}
		if len(frame) == chunkOffset {
			break
		}
		seg := segment{buf: frame, r: chunkOffset, w: len(frame)}
		c.session.scratch = seg.frame(msgReadOK, c.block(), c.number)
		c.session.reply(c.session.scratch)
	}
	if e.asked > 0 {
		e.asked = 0
		c.reply(msgReadEnd, cause{}) // no more for this READ
	}
	e.giveBack(nil, false)
}

// maxAnswers is how many messages answer one READ of a queue.
const maxAnswers = 8

func (e *queueMember) leave(why cause, _ uint32, never bool) {
	e.queue.mu.Lock()
	e.asksAtMost(0)
	e.returnUnseen()
	e.returnAll(why.code == causeVanished)
	e.queue.mu.Unlock()
	e.channel.session.account.add(0, -e.window)
	e.exit(never)
}
