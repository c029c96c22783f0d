package zpipes

import (
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// A busy reader of a broadcast whose client can have rings gets one of its own. The broker is
// the ring's writer: what the reader's place in the broadcast reaches is poured into it, as it
// would be sent in READ_OKs otherwise. So a ring holds no more than such a client asks for
// ahead, its window, and all that a broadcast promises is as it is with messages.

// mostPoured is how large such a ring is at most.
const mostPoured = 1 << 20

// consider begins a detour where a broadcast's reader is busy enough, which was sent n bytes.
// The pipe's mu is held.
func (e *streamReader) consider(n int, now time.Time) {
	p, s := e.pipe, e.channel.session
	if p.use != branch {
		return
	}
	size := min(s.window, mostPoured)
	e.turn(n, size, &s.account, now, func(h ringHost) *detour {
		g, memory, bell := h.newOwn(p, size, reader, e.channel)
		if g == nil {
			return nil
		}
		w, err := ring.NewWriter(memory, bell)
		if err != nil {
			g.release()
			return nil
		}
		return &detour{ring: g, pours: w}
	})
}

// poured says that what the reader gets is poured into a ring.
func (p *pipe) poured() bool {
	d := p.detour
	return d != nil && d.pours != nil && d.step == detourOpen
}

// pour pours what there is and the ring has room for. The pipe's mu is held, but not while
// bytes are copied.
func (e *streamReader) pour() {
	p, c := e.pipe, e.channel
	d := p.detour
	if d.step == detourAccepted {
		d.step, d.told = detourOpen, true
		e.moved(moveInto, 0)
	}
	some := false
	for range maxBurst {
		if p.reader.left || p.readable() == 0 || d.step != detourOpen {
			break
		}
		n, err := d.pours.Reserve(p.readable())
		if err == nil && n > 0 {
			some = true
			err = p.pourOut(n)
		}
		switch {
		case err != nil:
			c.session.violation(err.Error())
			p.leave(reader, cause{causeAborted, err.Error()})
		case n == 0:
			return // the bell will ring
		}
	}
	_, dead := p.deadFor(reader)
	switch {
	case d.step != detourOpen:
		if dead {
			p.dropDetour() // the reader has not answered
		}
	case dead || d.wanted && !some:
		e.moved(moveOut, d.pours.Written())
		e.letGo()
		p.dropDetour()
		c.recheck() // for a READ that waits
	case p.readable() > 0:
		c.recheck()
	default:
		d.wanted = false
		p.expect(reader, 1)
	}
}

// pourOut pours n bytes, for which there is room.
func (p *pipe) pourOut(n int) (err error) {
	var array [32][]byte
	segs, w, k := p.pin(array[:0], n), p.detour.pours, 0
	p.unlocked(func() {
		for _, s := range segs {
			if err = w.FillAt(k, s); err != nil {
				return
			}
			k += len(s)
		}
		err = w.Publish(k)
	})
	p.unpin(k)
	return err
}

// dropOwn is for an end that leaves: nobody else drops such a ring.
func (e *streamEnd) dropOwn() {
	p := e.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.detour.own() {
		p.dropDetour()
	}
}
