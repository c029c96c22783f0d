package zpipes

import (
	"math"
	"time"
)

// A ringHost is a host whose connection can carry descriptors.
type ringHost interface {
	host
	// canGive says whether it ever can.
	canGive() bool
	// newRing makes a ring of that size for a pipe, if it can.
	newRing(p *pipe, size int) brokerRing
	// newOwn makes one of which the broker itself has the other end than r: of that memory, and
	// with that bell. t runs again when the other one's bell rings.
	newOwn(p *pipe, size int, r role, t resumer) (g brokerRing, memory []byte, bell func())
	// give is reply of a message with descriptors, which stay the host's. False: nothing
	// was sent.
	give(s *session, frame []byte, descriptors []int) bool
	// crowded has rings given back that nobody needs just now.
	crowded()
	// atOnce has each stream take a detour that can.
	atOnce() bool
}

// rings is the session's host, if it and its client can have rings.
func (s *session) rings() ringHost {
	h, ok := s.host.(ringHost)
	if !ok || s.able&ableRings == 0 {
		return nil
	}
	return h
}

// mayDetour says so to the pipe, for the session's client. The pipe's mu is held.
func (e *streamEnd) mayDetour() {
	s := e.channel.session
	if s.rings() == nil || s.window == 0 {
		return
	}
	window := 1
	if e.role == writer {
		window = s.window
	}
	e.pipe.mayDetour(e.role, window, &s.ringsHeld)
}

// consider begins a detour where the stream is busy enough after a WRITE of n bytes. The
// pipe's mu is held.
func (e *streamWriter) consider(n int, now time.Time) {
	p := e.pipe
	if p.use == trunk {
		e.considerDraw(n, now)
		return
	}
	size := p.detourSize()
	e.turn(n, size, p.payer, now, func(h ringHost) *detour {
		if g := h.newRing(p, size); g != nil {
			return &detour{ring: g}
		}
		return nil
	})
}

// turn begins the detour that begin makes, through a ring for which payer pays, where n bytes
// more are enough for it. The pipe's mu is held.
func (e *streamEnd) turn(n, size int, payer *account, now time.Time, begin func(ringHost) *detour) {
	p, h := e.pipe, e.channel.session.rings()
	if h == nil || !p.busy(n, h.atOnce(), now) {
		return
	}
	p.until = now.Add(busyTime) // where it can't be
	if !payer.claim(size) {     // or others of the client's pipes would have no room
		return
	}
	if p.takePlaces() {
		if d := begin(h); d != nil {
			d.size, d.payer = size, payer
			p.beginDetour(d, now)
			return
		}
		freePlaces(p.rings[:])
	}
	payer.charge(-size)
	h.crowded()
}

// offer sends one end the ring. The pipe's mu is held.
func (e *streamEnd) offer() bool {
	p, s := e.pipe, e.channel.session
	d, h := p.detour, s.rings()
	if h == nil || e.holds != nil || e.channel.heldUp() {
		return false
	}
	m := message{id: msgOffer, size: uint32(d.size), block: e.channel.block(), channel: e.channel.number, count: uint32(p.limit)}
	if d.draws != nil {
		m.count = 0 // nothing is confirmed that is in it
	}
	s.scratch = m.append(s.scratch[:0])
	if !h.give(s, s.scratch, d.ring.descriptors(e.role)) {
		return false
	}
	d.ring.given(e.role)
	e.asked, e.holds, d.places[e.role] = true, d.places[e.role], nil
	return true
}

// letGo counts that the end has no ring any more.
func (e *streamEnd) letGo() {
	if e.holds != nil {
		e.holds.Add(-1)
		e.holds = nil
	}
}

func (e *streamEnd) moved(mode byte, count uint64) {
	e.channel.session.send(&message{
		id: msgMoved, block: e.channel.block(), channel: e.channel.number, mode: mode, count: uint32(count),
	})
}

// guide tells the reader what it has to know of the detour. The pipe's mu is held.
func (e *streamReader) guide() {
	p := e.pipe
	d := p.detour
	if d == nil {
		if e.holds != nil && !e.asked {
			if !p.reader.left { // else it is told that all is over, and reads what it has
				e.moved(moveOut, 0) // the writer did not take it
			}
			e.letGo()
		}
		return
	}
	if d.step == detourMade {
		if d.step = detourOffered; !e.offer() {
			p.dropDetour()
		}
		return
	}
	if d.pours != nil {
		e.pour()
		return
	}
	// Once it was told, what is in buf comes behind the ring.
	if d.step < detourBegun || !d.told && p.buf.n > 0 {
		return
	}
	if !d.told {
		d.told = true
		e.moved(moveInto, 0)
		if d.step == detourBegun {
			d.step = detourOpen
			p.wakeSide(&p.writer)
		}
	}
	if d.step == detourClosed {
		e.moved(moveOut, d.final)
		e.letGo()
		p.dropDetour()
	}
}

// notice is called after a wake-up.
func (e *streamReader) notice() {
	e.tell()
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	e.guide()
}

// answer takes the reader's answer to an offer.
func (e *streamReader) answer(m *message) (ok bool) {
	p := e.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.detour
	switch {
	case !e.asked || m.mode != moveInto && m.mode != moveNot:
		return false
	case m.mode == moveNot:
		e.letGo()
		if p.noDetour(reader); d != nil {
			p.dropDetour()
		}
	case d != nil && d.step == detourOffered:
		d.step = detourAccepted
		p.wakeSide(&p.writer)
	}
	e.asked = false
	e.guide() // it may have been dropped meanwhile
	return true
}

// guide does the same for the writer.
func (e *streamWriter) guide() {
	p := e.pipe
	d := p.detour
	switch {
	case d == nil:
		e.letGo()
	case d.draws != nil:
		e.draw()
	case d.step == detourAccepted:
		if d.step = detourProposed; !e.offer() {
			p.dropDetour()
			p.wakeSide(&p.reader)
		}
	case d.step == detourOpen && !d.writerMay:
		d.writerMay = true
		e.moved(moveInto, 0)
	case d.step == detourOpen && d.wanted:
		d.wanted = false
		e.channel.session.send(&message{id: msgOffer, block: e.channel.block(), channel: e.channel.number})
	}
}

// move answers a MOVE.
func (e *streamWriter) move(q *request) {
	c, p := e.channel, e.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.detour
	why, dead := p.deadFor(writer)
	answers := q.mode != moveOut && e.asked
	if answers {
		e.asked = false
	}
	switch {
	case dead:
		if !e.notified {
			e.notified = true
			c.reply(msgWriteFailed, why)
		}
	case d != nil && d.step == detourProposed && answers && q.mode == moveInto && d.draws != nil:
		d.step = detourOpen
		e.moved(moveInto, 0)
		e.draw()
	case d != nil && d.step == detourProposed && answers && q.mode == moveInto:
		d.step, d.writerMay = detourBegun, p.buf.n == 0
		e.moved(moveInto, uint64(min(p.buf.n, math.MaxInt32)))
		p.wakeSide(&p.reader)
	case d != nil && d.step == detourProposed && answers && q.mode == moveNot:
		p.dropDetour()
		p.noDetour(writer)
		e.letGo()
		p.wakeSide(&p.reader)
	case d != nil && d.step == detourOpen && q.mode == moveOut:
		if d.draws != nil {
			d.final = d.draws.Count()
			p.dropDetour()
		}
		if p.endDetour(); uint32(d.final) != q.count {
			c.session.violation("a MOVE out of a ring that ends elsewhere")
		}
		e.letGo()
		p.wakeSide(&p.reader)
	default:
		c.session.violation("a MOVE that nobody has asked for")
	}
}
