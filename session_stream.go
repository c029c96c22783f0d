package zpipes

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// A streamEnd is what the ends of a stream that a channel may have open have in common.
type streamEnd struct {
	channelEnd
	pipe     *pipe
	role     role
	notified bool        // the client knows why the other end has left
	side     *duplexSide // of a connection; nil: the pipe has a name

	asked bool          // a ring was offered to the client, and it has not answered
	holds *atomic.Int32 // counts the ring that the client has of it; nil: it has none
}

// openStream opens an end of a stream, unless the name is a queue's.
func (c *channel) openStream(name string, r role, now time.Time) *cause {
	p, why := c.session.pipes.propose(name, r, c.recheck, now)
	if why != nil {
		return why
	}
	e := streamEnd{channelEnd: channelEnd{c}, pipe: p, role: r}
	p.mu.Lock()
	if p.use == brokers || p.use == branch {
		e.mayDetour()
	}
	p.mu.Unlock()
	if r == reader {
		c.open = &streamReader{e}
		return nil
	}
	p.mu.Lock()
	p.bill(&c.session.account)
	p.mu.Unlock()
	c.open = &streamWriter{streamEnd: e}
	return nil
}

func (e *streamEnd) show() {
	if e.side != nil && !e.side.shown {
		e.side.show()
		return
	}
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	e.pipe.show(e.role)
}

// wait is the channel's. The pipe's mu is held.
func (e *streamEnd) wait(q *request, now time.Time) (over bool) {
	if over = e.channel.wait(q, now); over && !e.pipe.poured() {
		e.pipe.expect(e.role, 0)
	}
	return over
}

func (e *streamEnd) leave(why cause, _ uint32, never bool) {
	p, pipes := e.pipe, e.channel.session.pipes
	e.letGo()
	e.dropOwn()
	switch {
	case !never || e.side != nil && !e.side.accepts:
		pipes.depart(p, e.role, why)
		return
	case e.side != nil:
		e.side.undo()
		return
	}
	p.mu.Lock()
	p.mute(e.role)
	p.mu.Unlock()
	pipes.withdraw(p, e.role, why)
}

// A streamReader is the reading end of a stream.
type streamReader struct{ streamEnd }

func (e *streamReader) read(q *request, now time.Time) bool {
	return e.channel.burst(q, func() (*segment, bool) { return e.segment(q, now) })
}

// burst answers a READ with what next takes out, or has been answered with (done).
func (c *channel) burst(q *request, next func() (seg *segment, done bool)) bool {
	if q.size == 0 {
		c.reply(msgReadEnd, cause{})
		return true
	}
	for range maxBurst {
		seg, done := next()
		if seg == nil {
			return done
		}
		c.session.reply(seg.frame(msgReadOK, c.block(), c.number))
		q.size -= uint32(seg.w - seg.r)
		seg.release()
		if q.flags&readStream == 0 || q.size == 0 {
			return true
		}
	}
	c.session.host.post(c)
	return false
}

// segment takes what answers the READ from the pipe. Without one, either the READ has
// been answered otherwise (done), or it must wait.
func (e *streamReader) segment(q *request, now time.Time) (seg *segment, done bool) {
	c, p, most := e.channel, e.pipe, int64(e.channel.session.pipes.maxMessage)
	p.mu.Lock()
	defer p.mu.Unlock()
	partial := q.flags&(readAny|readStream) != 0
	need := int64(q.size)
	if partial {
		need = 1
	}
	e.guide()
	n := min(int64(q.size), most, int64(p.readable()))
	why, dead := p.deadFor(reader)
	switch {
	case p.poured(), c.heldUp():
		return nil, e.wait(q, now)
	case n >= need || n > 0 && (p.writer.left || p.turnsOff()):
		seg = p.slice(int(n), partial)
		e.consider(int(n), now)
		return seg, true
	case dead && (e.notified || why.code == causeClosed):
		c.reply(msgReadEnd, cause{})
	case dead:
		e.notified = true
		c.reply(msgReadFailed, why)
	case n == most:
		c.reply(msgReadFailed, cause{text: fmt.Sprintf("no READ is answered with more than %d bytes", most)})
	case !e.wait(q, now):
		p.await(reader, int(min(need, most)))
		return nil, false
	}
	return nil, true
}

// A streamWriter is the writing end of a stream.
type streamWriter struct {
	streamEnd
	far *farWriter // the writer is at another broker; nil: it is the session's client

	// WRITEs that were taken, and whose bytes another broker has yet to confirm:
	owed      fifo[int]
	owedBytes int
}

func (e *streamWriter) write(q *request, now time.Time) bool {
	c, p, n := e.channel, e.pipe, len(q.chunk)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.far != nil {
		e.writeFar(q, n, now)
		return true
	}
	e.settleOwed()
	why, dead := p.deadFor(writer)
	switch {
	case dead:
		e.notified = true
		c.reply(msgWriteFailed, why)
	case p.detour != nil && p.detour.step >= detourBegun && p.detour.step < detourClosed:
		c.session.violation("a WRITE beside a ring")
		c.reply(msgWriteFailed, cause{causeAborted, "a WRITE beside a ring"})
	case p.accepts(n):
		if !e.marks(q, n) {
			break
		}
		p.take(q.frame, &q.message)
		if p.use == relayed {
			e.owe(n)
			break
		}
		e.writeOK(n)
		e.consider(n, now)
	case !e.wait(q, now):
		p.await(writer, max(n, 1))
		return false
	}
	return true
}

// marks takes note of where Writes begin in a WRITE of n bytes to a broadcast; false: that can't be.
// The pipe's mu is held.
func (e *streamWriter) marks(q *request, n int) bool {
	p := e.pipe
	if p.use != trunk {
		return true
	}
	if toldMarks(q.begins, n, func(int) {}) {
		return toldMarks(q.begins, n, func(at int) { p.beginsAt(p.in + int64(at)) })
	}
	e.channel.session.violation("a WRITE that tells of Writes outside of it")
	e.channel.reply(msgWriteFailed, cause{causeAborted, "a WRITE that tells of Writes outside of it"})
	return false
}

// writeOK answers a WRITE of n bytes. What an earlier answer has allowed may be on its way.
func (e *streamWriter) writeOK(n int) {
	c := e.channel
	room := min(e.pipe.room()+e.owedBytes, math.MaxInt32)
	c.told = uint32(max(int(c.told)-n, room))
	c.session.send(&message{id: msgWriteOK, block: c.block(), channel: c.number, count: uint32(room)})
}

// relays says that the reader is at another broker, and that the client does not know of its end.
func (e *streamWriter) relays() bool {
	if e == nil || e.far != nil || e.notified {
		return false
	}
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	return e.pipe.use == relayed
}

// owe leaves a WRITE of n bytes unanswered until another broker has confirmed them. The pipe's
// mu is held.
func (e *streamWriter) owe(n int) {
	if e.owed.len() == 0 {
		e.pipe.beginFlush(false)
	}
	e.owed.push(n)
	e.owedBytes += n
	e.settleOwed()
}

// settleOwed answers WRITEs whose bytes are confirmed, or will never be. The pipe's mu is held.
func (e *streamWriter) settleOwed() {
	p := e.pipe
	why, dead := p.deadFor(writer)
	for e.owed.len() > 0 {
		sure := e.owedBytes-*e.owed.front() >= p.unconfirmed+p.lost
		if !sure && !dead {
			return
		}
		n := e.owed.pop()
		if e.owedBytes -= n; sure {
			e.writeOK(n)
		} else {
			e.notified = true
			e.channel.reply(msgWriteFailed, why)
		}
		if e.owed.len() == 0 {
			p.endFlush()
		}
	}
}

// notice tells an idle writer at once that its pipe is dead, which the base protocol has
// no way to say.
func (e *streamWriter) notice() {
	if e.far != nil && e.overtaken() {
		return
	}
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	e.settleOwed()
	if e.notified || !e.channel.session.agreed {
		return
	}
	if e.far == nil {
		e.guide()
	}
	if why, dead := e.pipe.deadFor(writer); dead {
		e.notified = true
		e.channel.reply(msgWriteFailed, why)
	} else if e.far != nil {
		e.noticeFar()
	}
}

func (e *streamWriter) leave(why cause, unread uint32, never bool) {
	if e.far != nil {
		e.leaveFar(why, never)
		return
	}
	if e.streamEnd.leave(why, unread, never); why.code == causeVanished || e.owed.len() == 0 {
		return // nobody waits for answers
	}
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	e.settleOwed()
}

// A statusReader reads what the broker says of itself, or of a queue's jobs, from a pipe of its own.
type statusReader struct {
	streamReader
	of *int // the session's reports of that kind
}

func (c *channel) openStatus() *cause { return c.openReport(nil) }

// openPeek opens a reader of what the broker says of a queue's jobs.
func (c *channel) openPeek(name string) *cause {
	s, why := c.session.pipes.lookAt(name)
	if why != nil {
		return why
	}
	return c.openReport(s)
}

func (c *channel) openReport(jobs *chunkQueue) *cause {
	s := c.session
	e := &statusReader{of: &s.reports[0]}
	switch {
	case jobs != nil:
		if e.of = &s.reports[1]; *e.of == maxPeeks {
			return &cause{causeBusy, fmt.Sprintf("this client looks at jobs %d times already", maxPeeks)}
		}
	case *e.of == 1:
		return &cause{causeBusy, "this client reads the status already"}
	}
	*e.of++
	e.streamReader = c.ownPipe("status", reportPiece)
	c.open = e
	s.host.report(e.pipe, jobs, s.able)
	return nil
}

// maxPeeks is how many looks at jobs a client may have open.
const maxPeeks = 16

// reportPiece is how many bytes of a status may wait to be read before more is added.
const reportPiece = 64 << 10

// ownPipe returns a reader of a pipe that nobody else knows of.
func (c *channel) ownPipe(name string, limit int) streamReader {
	p := newPipe(name, limit, time.Time{})
	p.attach(reader, c.recheck)
	return streamReader{streamEnd{channelEnd: channelEnd{c}, pipe: p}}
}

func (e *statusReader) leave(why cause, unread uint32, _ bool) {
	e.streamEnd.leave(why, unread, false)
	*e.of--
}
