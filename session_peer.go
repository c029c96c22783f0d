package zpipes

import (
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A farWriter is what the writing end of a stream has besides whose writer is at another broker.
type farWriter struct {
	told   int  // how many bytes more it may send
	heads  int  // how many readers it knows of; a broadcast's
	closes bool // it says itself why it leaves
	late   bool // the stream goes on by another way. The pipe's mu guards it
	gauge
}

// attachFar opens the writing end for another broker's writer, or has it go on here. cast is a
// broadcast's.
func (c *channel) attachFar(q *request, cast *broadcastConfig, now time.Time) {
	s := c.session
	if c.open != nil || c.pledged {
		c.violate("a second open on an open connection")
		return
	}
	e := &streamWriter{streamEnd: streamEnd{channelEnd: channelEnd{c}, role: writer}, far: &farWriter{heads: 1}}
	p, again, why := s.pipes.admitFar(string(q.text), meet.Token(q.other), meet.Token(q.token), s.member, cast, e, now)
	if !again {
		s.pipes.counted(why)
	}
	if why != nil {
		c.reply(msgOutputFailed, *why)
		return
	}
	e.pipe = p
	c.open, c.known = e, again
	s.account.addEnds(1)
	p.mu.Lock()
	e.tell(0)
	p.mu.Unlock()
	e.notice()
}

// tell says how much was taken, n bytes since it was last said, and how much there is room for.
// Room that was told stays. The pipe's mu is held.
func (e *streamWriter) tell(n int) {
	c, p, f := e.channel, e.pipe, e.far
	f.told = max(f.told-n, p.room())
	c.session.send(&message{id: msgTaken, block: c.block(), channel: c.number, token: uint64(p.in), count: uint32(f.told)})
	e.watchRoom()
}

// watchRoom has it looked at again when there is much more room. The pipe's mu is held.
func (e *streamWriter) watchRoom() {
	p, f := e.pipe, e.far
	if grow := p.limit / 4; f.told <= p.limit-grow {
		p.expect(writer, f.told+max(1, grow))
	}
}

// writeFar takes a WRITE of another broker's. The pipe's mu is held.
func (e *streamWriter) writeFar(q *request, n int, now time.Time) {
	c, p := e.channel, e.pipe
	why, dead := p.deadFor(writer)
	switch {
	case e.far.late:
		c.recheck() // see overtaken
	case dead:
		e.notified = true
		c.reply(msgWriteFailed, why)
	case n > e.far.told:
		c.session.violation("a WRITE beyond what there is room for")
		c.reply(msgWriteFailed, cause{causeAborted, "a WRITE beyond what there is room for"})
	case !e.marks(q, n):
	default:
		p.take(q.frame, &q.message)
		if p.use != trunk { // whose readers may not be further behind than others
			e.far.fit(p, c.session.roundTrip(), now)
		}
		e.tell(n)
	}
}

// overtaken ends a way of the writer's where there is another one since, and says so. Else a writer
// that uses it would wait for ever: it may have been the other one's ATTACH that came late.
func (e *streamWriter) overtaken() bool {
	e.pipe.mu.Lock()
	late := e.far.late
	e.pipe.mu.Unlock()
	if late {
		e.channel.leave(cause{code: causeVanished}, 0)
		e.channel.reply(msgInvalid, cause{})
	}
	return late
}

// noticeFar says if there is much more room, or the reader waits for it. The pipe's mu is held.
func (e *streamWriter) noticeFar() {
	p, f := e.pipe, e.far
	if p.rendezvous.holder != e {
		return
	}
	if p.use == trunk && f.heads != p.cast.sure {
		c := e.channel
		f.heads = p.cast.sure
		c.session.send(&message{id: msgAudience, block: c.block(), channel: c.number, count: uint32(f.heads)})
	}
	if more := p.room() - f.told; more > 0 && (more >= p.limit/4 || p.starved()) {
		e.tell(0)
	} else {
		e.watchRoom()
	}
}

// heldUp takes note that the writer waits until so many bytes have been taken here.
func (e *streamWriter) heldUp(to uint64) {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	if e.pipe.use == trunk && e.pipe.rendezvous.holder == e {
		e.pipe.cast.hold(int64(to))
	}
}

// leaveFar gives the end up. Where the connection was lost, the writer may come by another one.
func (e *streamWriter) leaveFar(why cause, never bool) {
	pipes := e.channel.session.pipes
	if why.code == causeVanished && (!never || e.pipe.of != nil) && !e.far.closes {
		pipes.partFar(e.pipe, e)
	} else {
		pipes.endFar(e.pipe, e, why, never)
	}
}
