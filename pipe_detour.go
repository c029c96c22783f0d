package zpipes

import (
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// A detour leads a busy stream past its pipe's buffer: what the writer writes from some
// byte on goes through memory that it shares with the reader, a ring, and the broker
// only says where that begins and ends. The way of a detour:
//
//	made      the reader is to be offered the ring
//	offered   it was offered it, and
//	accepted  has taken it; now the writer is to be offered it
//	proposed  was
//	begun     the writer has gone over: what it had written before is in buf
//	open      all that was read, or is on its way; the reader has been told to go over
//	closed    no more counts; the reader is to be told where the ring ends
//
// Who refuses an offer, or leaves before the writer has gone over, ends it without a trace.
//
// A broadcast's ends have one ring each, of which the broker itself is at the other end: see
// session_pour.go and session_draw.go. Such a detour is open once the client has taken it, and
// belongs to the session.
// The pipe's mu guards it.
type detour struct {
	step      detourStep
	ring      brokerRing
	pours     *ring.Writer // into a ring that the broker writes; nil: a client does. Only the reader's session uses it
	draws     *ring.Reader // likewise, out of one that the broker reads; only the writer's session does
	size      int
	payer     *account
	told      bool // the reader that it is to go over
	writerMay bool // the writer knows that nothing is before the ring any more
	wanted    bool // the writer is to be asked to come back
	final     uint64
	places    [2]*atomic.Int32 // that count it for an end which has not been offered it yet

	in, out uint64    // bytes that were counted
	moved   time.Time // when they last changed
}

type detourStep byte

const (
	detourMade detourStep = iota
	detourOffered
	detourAccepted
	detourProposed
	detourBegun
	detourOpen
	detourClosed
)

// A brokerRing is what the broker has of a ring.
type brokerRing interface {
	// Close ends it, and says behind how many bytes.
	Close() (final uint64, err error)
	// Counts says how many bytes went in, and came out.
	Counts() (written, read uint64, err error)
	// descriptors are for that end; given lets go of those that only it needs.
	descriptors(r role) []int
	given(r role)
	// release lets go of all.
	release()
}

// A detouring is when a pipe takes a detour: after so many WRITEs, or bytes, in a second.
type detouring struct {
	detour *detour
	ways   [2]int           // of both ends: how many bytes of window an end has that can take one; 0: it can't. The reader's is 1
	rings  [2]*atomic.Int32 // how many the client of such an end has, or will have in a moment; nil: the end has no client
	since  time.Time
	writes int
	bytes  int
	until  time.Time // none before
}

// quietTime is for how long a ring carries nothing until it is given back. Tests change it.
var quietTime = 5 * time.Second

// A detour is worth its price for a stream that carries this in a second.
const (
	busyWrites = 64
	busyBytes  = 256 << 10
	busyTime   = time.Second

	// mostDetour is the largest MaxPending of a pipe that takes one: its memory is paid
	// for as a whole.
	mostDetour = 8 << 20
	// mostRings is how many rings a client may have.
	mostRings = 64
)

// busy counts a WRITE of n bytes, or what a broadcast's reader is sent, and says whether the
// stream should take a detour. all has every one take it that can.
func (p *pipe) busy(n int, all bool, now time.Time) bool {
	d := &p.detouring
	if d.detour != nil || now.Before(d.until) || !p.detours() {
		return false
	}
	if now.Sub(d.since) > busyTime {
		d.since, d.writes, d.bytes = now, 0, 0
	}
	d.writes++
	d.bytes += n
	return d.writes >= busyWrites || d.bytes >= busyBytes || all
}

// detours says that those can take one who have to.
func (p *pipe) detours() bool {
	reads := p.ways[reader] > 0 && p.reader.attached()
	switch p.use {
	case branch:
		return reads
	case trunk:
		return p.ways[writer] > 0
	}
	return reads && p.ways[writer] > 0 && p.limit <= mostDetour
}

// detourSize is how large a ring has to be.
func (p *pipe) detourSize() int { return p.limit + p.ways[writer] }

// mayDetour says that an end can take a detour; window is the writer's. rings is how many its
// client has.
func (p *pipe) mayDetour(r role, window int, rings *atomic.Int32) {
	p.ways[r], p.rings[r] = window, rings
}

// noDetour is for an end that can't, or does not want to.
func (p *pipe) noDetour(r role) { p.ways[r], p.rings[r] = 0, nil }

// takePlaces counts a ring more for the clients of both ends, if each may have one.
func (p *pipe) takePlaces() bool {
	for r, n := range p.rings {
		if n != nil && n.Add(1) > mostRings {
			freePlaces(p.rings[:r+1])
			return false
		}
	}
	return true
}

func freePlaces(places []*atomic.Int32) {
	for _, n := range places {
		if n != nil {
			n.Add(-1)
		}
	}
}

// beginDetour takes one, for which there is a place, and somebody has paid.
func (p *pipe) beginDetour(d *detour, now time.Time) {
	d.moved, d.places = now, p.rings
	p.detour = d
	if d.draws != nil {
		p.wakeSide(&p.writer)
	} else {
		p.wakeSide(&p.reader)
	}
}

// own says that the broker is at one end.
func (d *detour) own() bool { return d != nil && (d.pours != nil || d.draws != nil) }

// dropDetour ends one that nobody needs any more.
func (p *pipe) dropDetour() {
	d := p.detour
	p.detour = nil
	d.ring.release()
	d.payer.charge(-d.size)
	freePlaces(d.places[:])
}

// endDetour is for when an end leaves, or the writer comes back.
func (p *pipe) endDetour() {
	d := p.detour
	if d == nil || d.step == detourClosed || d.own() {
		return
	}
	if d.step < detourBegun {
		p.dropDetour()
		return
	}
	d.final, _ = d.ring.Close()
	p.countDetour(d.moved)
	if !p.reader.left { // what is there will be read
		p.passed(0, int64(d.in-d.out))
		d.out = d.in
	}
	d.step = detourClosed
}

// countDetour adds what went through the ring since it last did.
func (p *pipe) countDetour(now time.Time) {
	d := p.detour
	if d == nil || d.step < detourBegun || d.step == detourClosed {
		return
	}
	in, out, err := d.ring.Counts()
	if err != nil || in == d.in && out == d.out {
		return
	}
	if !d.own() { // else they were counted as the broadcast's
		p.passed(int64(in-d.in), int64(out-d.out))
	}
	d.in, d.out, d.moved = in, out, now
}

// goesOver says that the stream is on its way into a ring, and the reader has yet to read what
// is before. What the writer has beyond that waits, and the broker does not see it.
func (p *pipe) goesOver() bool {
	d := p.detour
	return d != nil && !d.own() && (d.step == detourProposed || d.step == detourBegun) && p.buf.n > 0
}

// turnsOff says that behind what is in buf the stream goes on elsewhere.
func (p *pipe) turnsOff() bool {
	d := p.detour
	return d != nil && d.step >= detourBegun && !d.told
}

// queued is how many bytes the pipe has, wherever.
func (p *pipe) queued() int {
	if d := p.detour; d != nil && !d.own() {
		return p.buf.n + int(d.in-d.out)
	}
	return p.buf.n
}

// lookAtDetour is to be called now and then. It has a quiet stream come back; with hurry
// set, also one that was quiet for less time.
func (p *pipe) lookAtDetour(now time.Time, hurry bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countDetour(now)
	d := p.detour
	if d == nil {
		return
	}
	quiet := now.Sub(d.moved)
	switch {
	case d.step == detourOpen && d.in == d.out && (quiet >= quietTime || hurry && quiet > 0):
		if d.wanted = true; d.pours != nil {
			p.wakeSide(&p.reader)
		}
		p.wakeSide(&p.writer)
	case d.step == detourOffered && (quiet >= quietTime || hurry && quiet >= quietTime/4):
		p.dropDetour() // the reader does not answer
	}
}
