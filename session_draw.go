package zpipes

import (
	"math"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// A busy writer of a broadcast, too, can have a ring, whose reader is the broker: it draws what
// it would get in WRITEs otherwise, and takes no more of it than of these. What it has not
// taken is the writer's window, and not confirmed.

// considerDraw begins a detour where a broadcast's writer is busy enough, which has written n
// bytes. The pipe's mu is held.
func (e *streamWriter) considerDraw(n int, now time.Time) {
	p, s := e.pipe, e.channel.session
	e.turn(n, s.window, p.payer, now, func(h ringHost) *detour {
		g, memory, bell := h.newOwn(p, s.window, writer, e.channel)
		if g == nil {
			return nil
		}
		r, err := ring.NewReader(memory, bell, ring.Pause)
		if err != nil {
			g.release()
			return nil
		}
		return &detour{ring: g, draws: r}
	})
}

// draw takes what there is and the broadcast has room for. The pipe's mu is held, but not while
// bytes are copied.
func (e *streamWriter) draw() {
	p, c := e.pipe, e.channel
	d := p.detour
	switch d.step {
	case detourMade:
		if d.step = detourProposed; !e.offer() {
			p.dropDetour()
		}
		return
	case detourOpen:
	default:
		return
	}
	for range maxBurst {
		if _, dead := p.deadFor(writer); dead {
			return
		}
		n, err := d.draws.Ready(math.MaxInt)
		if err == nil && n == 0 { // the bell will ring
			if d.wanted {
				d.wanted = false
				c.session.send(&message{id: msgOffer, block: c.block(), channel: c.number})
			}
			return
		}
		if err == nil {
			all := n
			if !p.accepts(n) {
				n = min(n, p.room())
			}
			if n == 0 || !p.accepts(n) {
				p.await(writer, min(all, max(1, p.bound()/2)))
				return
			}
			d.wanted = false
			err = p.drawOff(n)
		}
		if err != nil {
			c.session.violation(err.Error())
			p.leave(writer, cause{causeAborted, err.Error()})
			return
		}
	}
	c.recheck() // when others have had their turn
}

// drawOff takes n bytes, for which there is room.
func (p *pipe) drawOff(n int) (err error) {
	r, s := p.detour.draws, segmentFor(n)
	p.unlocked(func() { err = r.Copy(s.free()[:n]) })
	if err == nil && !p.accepts(n) { // not any more
		s.release()
		return nil
	}
	if err == nil {
		err = r.Marks(n, func(at int) { p.beginsAt(p.in + int64(at)) })
	}
	if err != nil {
		s.release()
		return err
	}
	s.w += n
	p.bring(s)
	p.unlocked(func() { err = r.Consume(n) }) // it may ring
	return err
}
