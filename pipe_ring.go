package zpipes

import (
	"io"

	"github.com/zpipes/zpipes/internal/ring"
)

// A ringEnd is a remote Reader's or Writer's end of a ring: a detour's other side, see
// there. A Writer's bytes go into it as soon as it has one, while its connection still
// sends those before. A Reader's come out of it when the broker has said so, and all that
// came before is read. The pipe's mu guards it.
type ringEnd struct {
	w       *ring.Writer // either
	r       *ring.Reader // or
	mapping *ring.Mapping
	bell    *ring.Bell

	pending  int    // a Writer's: how many bytes count as confirmed that the reader has not taken
	copying  bool   // a Write fills it without the lock
	answered bool   // and the broker has all that was before the ring
	ahead    int    // but so many bytes of it are not read, as far as is known
	sure     uint64 // bytes that are confirmed

	live   bool // a Reader's: it may be read
	mute   bool // its bell never rings again
	before int  // when so many bytes of buf are
}

// A ringed is what a pipe has of that.
type ringed struct {
	ring    *ringEnd // of a remote end; nil: none
	filling bool     // a Write copies, without mu, what it will push
}

// openRingEnd makes one, but for its bell, of what came with an OFFER of that size.
func openRingEnd(descriptors []int, size, pending int, r role) (*ringEnd, error) {
	mapping, err := ring.Map(descriptors[0], size)
	if err != nil {
		return nil, err
	}
	g := &ringEnd{mapping: mapping, pending: pending}
	ringBell := func() { g.bell.Ring() }
	if r == writer {
		g.w, err = ring.NewWriter(g.mapping.Bytes(), ringBell)
	} else {
		g.r, err = ring.NewReader(g.mapping.Bytes(), ringBell, ring.Pause)
	}
	if err != nil {
		mapping.Release()
		return nil, err
	}
	return g, nil
}

// enterRing has the end use a ring.
func (p *pipe) enterRing(g *ringEnd) { p.ring = g }

// leaveRing ends that.
func (p *pipe) leaveRing() {
	g := p.ring
	p.ring = nil
	if g.w != nil {
		p.lose(int(g.w.Written() - g.sure))
	}
	g.bell.Close()
	g.mapping.Release()
}

// sideLeft is for when an end of a pipe with a ring leaves: what is in the ring can still
// be read. Where the broker has not said what that is, it is gone, and it is all.
func (p *pipe) sideLeft(r role) {
	g := p.ring
	own := writer
	if p.use == inbound {
		own = reader
	}
	switch {
	case r == own, g.r != nil && !g.live:
		p.leaveRing()
	case g.r != nil && g.r.EndHere() != nil:
		p.leaveRing()
	}
}

// rung is for the bell of a Writer's ring. For a Reader's, a call that waits listens itself.
func (p *pipe) rung(g *ringEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ring != g {
		return
	}
	if err := g.w.Rung(); err != nil {
		p.breaks()
	}
	p.wakeSide(&p.writer)
}

// breaks ends the stream because the other end has broken the ring, or the system has no
// memory for it.
func (p *pipe) breaks() {
	r := reader
	if p.use == inbound {
		r = writer
	}
	why := cause{causeAborted, ring.ErrBroken.Error()}
	p.leaveRing()
	p.leave(r, why)
	p.tear(r, why) // it may have left in order before, but not all of it is there
}

// What follows is the Writer's.

// fills says that a Write copies what it will push into the pipe; what goes into a ring
// comes behind that. The link may have waited for the end of it, also where nothing was pushed.
func (p *pipe) fills(now bool) {
	if p.filling = now; !now && p.ring != nil {
		p.wakeSide(&p.reader)
	}
}

// answered records that all that was written before the ring is the broker's, where so many
// bytes of it are unread.
func (p *pipe) answered(ahead int) {
	p.ring.answered, p.ring.ahead = true, ahead
	p.wakeSide(&p.writer)
}

// writesRing says that bytes go into a ring.
func (p *pipe) writesRing() bool { return p.ring != nil && p.ring.w != nil }

// limitRing sets how many bytes the ring may have now.
func (p *pipe) limitRing() {
	g := p.ring
	n := p.window + max(0, g.pending-g.ahead)
	if !g.answered {
		n = max(0, p.window+p.granted-p.unconfirmed)
	}
	g.w.Limit(n)
}

// gather is put where the bytes go into a ring, and are some of many small ones.
func (p *pipe) gather(b []byte) bool {
	g := p.ring
	if g == nil || g.w == nil || p.over() {
		return false
	}
	p.limitRing()
	p.markRing()
	if took, _ := g.w.Gather(b); !took {
		return false // writeRing finds what is wrong, if anything is
	}
	if p.entered(len(b)); g.w.Gathered() == 0 {
		p.settleEntered()
	}
	return true
}

// markRing marks that a Write begins here, in a broadcast's ring.
func (p *pipe) markRing() {
	if p.begins != nil {
		p.ring.w.Mark()
	}
}

// inRing is how many bytes were written into the ring.
func (p *pipe) inRing() int64 {
	if !p.writesRing() {
		return 0
	}
	return int64(p.ring.w.Written())
}

// entered counts bytes that were written into the ring.
func (p *pipe) entered(n int) { p.passed(int64(n), 0) }

// unsettled is how many of the bytes that were written are not confirmed.
func (p *pipe) unsettled() int {
	if !p.writesRing() {
		return p.unconfirmed
	}
	return p.unconfirmed + int(p.ring.w.Written()-p.ring.sure)
}

// settleRing looks what of the ring is confirmed. What is not makes the bell ring when it
// may be.
func (p *pipe) settleRing() {
	g := p.ring
	if g.w.Push() != nil {
		p.breaks()
		return
	}
	all := g.w.Written()
	if !g.answered || all == g.sure {
		return
	}
	sure, err := g.w.Confirmed(all, uint64(max(0, g.pending-g.ahead)))
	if err != nil {
		p.breaks()
		return
	}
	g.sure = max(g.sure, sure)
}

// settleEntered records what is confirmed of what was just published: once the reader has
// left, nobody can tell any more.
func (p *pipe) settleEntered() {
	g := p.ring
	if !g.answered {
		return
	}
	sure, err := g.w.Settled(uint64(max(0, g.pending-g.ahead)))
	if err != nil {
		p.breaks()
		return
	}
	g.sure = max(g.sure, sure)
}

// mayComeBack says that there is a ring, of no use now: all that was written is read.
func (p *pipe) mayComeBack() bool {
	g := p.ring
	if g == nil || p.over() || g.copying || !g.answered || g.ahead > 0 || g.w.Gathered() > 0 {
		return false
	}
	if n, err := g.w.Unread(); err != nil || n > 0 {
		return false
	}
	g.sure = g.w.Written()
	return true
}

// And this the Reader's.

// readsRing says that the next byte is the ring's.
func (p *pipe) readsRing() bool {
	return p.ring != nil && p.ring.live && p.ring.before == 0
}

// ready says how many of n bytes can be copied out of the ring. 0: none; where it is over,
// readsRing says so from then on.
func (p *pipe) ready(n int) int {
	k, err := p.ring.r.Ready(n)
	switch {
	case err == io.EOF:
		p.leaveRing()
	case err != nil:
		p.breaks()
	}
	return k
}

// taken records that n bytes were taken out of the ring.
func (p *pipe) taken(n int) {
	p.passed(0, int64(n))
	if p.ring.r.Consume(n) != nil {
		p.breaks()
	}
}

// goOver has the Reader use the ring, behind what has come.
func (p *pipe) goOver() {
	p.ring.live, p.ring.before = true, p.buf.n
	p.wakeSide(&p.reader)
}

// comeBack has it do so no longer behind the ring's byte number n, of which the lower 32
// bits are told.
func (p *pipe) comeBack(n uint32) {
	g := p.ring
	count := g.r.Count()
	if g.r.End(count+uint64(n-uint32(count))) != nil {
		p.breaks()
	} else if g.before == 0 && g.r.There() == 0 {
		p.leaveRing()
	}
	p.wakeSide(&p.reader)
}
