//go:build !core

package zpipes

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// brokerRings are the rings of a broker's pipes.
type brokerRings struct {
	mu    sync.Mutex // guards what follows; taken under a pipe's
	of    map[*pipe]bool
	timer *time.Timer
	hurry bool // somebody found no place for a ring
}

const (
	// mostBrokerRings is how many there may be.
	mostBrokerRings = 4096
	// mostOffered is how many there may be in this process whose descriptors, four at most
	// each, have not both been handed on: many clients may never answer an offer.
	mostOffered = 32
	// lookAtRings is how often the broker looks which are quiet.
	lookAtRings = time.Second
)

// ringsOffered counts those.
var ringsOffered atomic.Int32

// ownRings counts those in this process of which a broker has an end, and so a descriptor for
// as long as they last.
var ownRings atomic.Int32

// mostOwnRings is how many there may be: the other descriptors are for who still comes.
func mostOwnRings() int { return mostDescriptors() / 4 }

// A pipeRing is what the broker has of one.
type pipeRing struct {
	*ring.Keeper
	rings  *brokerRings
	pipe   *pipe
	mapped *ring.Mapping // the header, or all of one of which the broker has an end
	bell   *ring.Bell    // of that end; nil: it has none

	offered bool   // it has descriptors
	memory  int    // one; -1: there is none
	bells   [2]int // the reader's and the writer's; likewise
}

// newRing makes one for a pipe, whose mu is held; nil: that can't be.
func (b *Broker) newRing(p *pipe, size int) brokerRing {
	if g := b.makeRing(p, size, ring.MapHeader); g != nil {
		return g
	}
	return nil
}

func (k *peerConn) newOwn(p *pipe, size int, r role, t resumer) (own brokerRing, memory []byte, ringBell func()) {
	defer func() {
		if own == nil {
			ownRings.Add(-1)
		}
	}()
	if int(ownRings.Add(1)) > mostOwnRings() {
		return nil, nil, nil
	}
	g := k.makeRing(p, size, ring.Map)
	if g == nil {
		return nil, nil, nil
	}
	bell, err := ring.OpenBell(g.bells[1-r])
	if g.bells[1-r] = -1; err != nil {
		g.release()
		k.log.info("no ring can be made", "why", err)
		return nil, nil, nil
	}
	g.bell = bell
	go bell.Listen(func() { k.post(t) })
	return g, g.mapped.Bytes(), bell.Ring
}

func (b *Broker) makeRing(p *pipe, size int, mapped func(fd, size int) (*ring.Mapping, error)) *pipeRing {
	if ringsOffered.Add(1) > mostOffered || !b.rings.enter(p) {
		ringsOffered.Add(-1)
		return nil
	}
	g := &pipeRing{rings: &b.rings, pipe: p, offered: true, bells: [2]int{-1, -1}}
	var err error
	if g.memory, err = ring.Make(size); err == nil {
		g.mapped, err = mapped(g.memory, size)
	}
	if err == nil {
		g.Keeper, err = ring.NewKeeper(g.mapped.Bytes(), size)
	}
	if err == nil {
		g.bells[reader], g.bells[writer], err = ring.MakeBell()
	}
	if err != nil {
		g.release()
		b.log.info("no ring can be made", "why", err)
		return nil
	}
	return g
}

// enter notes that a pipe is to have a ring, if there may be one more.
func (rs *brokerRings) enter(p *pipe) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.of) >= mostBrokerRings {
		return false
	}
	if rs.of == nil {
		rs.of = make(map[*pipe]bool)
	}
	if rs.of[p] = true; rs.timer == nil {
		rs.timer = time.AfterFunc(lookAtRings, rs.look)
	}
	return true
}

func (g *pipeRing) descriptors(r role) []int { return []int{g.memory, g.bells[r]} }

func (g *pipeRing) given(r role) {
	closeDescriptors([]int{g.bells[r]})
	if g.bells[r] = -1; r == writer || g.bell != nil { // who is the second, or alone
		g.handedOn()
	}
}

// handedOn closes the descriptors that are left.
func (g *pipeRing) handedOn() {
	if !g.offered {
		return
	}
	g.offered = false
	for _, d := range []int{g.memory, g.bells[reader], g.bells[writer]} {
		if d >= 0 {
			closeDescriptors([]int{d})
		}
	}
	ringsOffered.Add(-1)
}

// free gives everything back.
func (g *pipeRing) free() {
	g.handedOn()
	if g.bell != nil {
		g.bell.Close()
		ownRings.Add(-1)
	}
	if g.mapped != nil {
		g.mapped.Release()
	}
}

func (g *pipeRing) release() {
	g.free()
	g.rings.mu.Lock()
	defer g.rings.mu.Unlock()
	delete(g.rings.of, g.pipe)
}

// look is the timer's.
func (rs *brokerRings) look() {
	rs.mu.Lock()
	hurry := rs.hurry
	rs.hurry = false
	rs.mu.Unlock()
	rs.count(hurry)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.timer = nil; len(rs.of) > 0 {
		rs.timer = time.AfterFunc(lookAtRings, rs.look)
	}
}

// count has all pipes know what went through their rings, and quiet ones give theirs back.
func (rs *brokerRings) count(hurry bool) {
	rs.mu.Lock()
	pipes := make([]*pipe, 0, len(rs.of))
	for p := range rs.of {
		pipes = append(pipes, p)
	}
	rs.mu.Unlock()
	now := time.Now()
	for _, p := range pipes {
		p.lookAtDetour(now, hurry)
	}
}

// crowded is for one who found no place for a ring. There may be very many, and one look
// for all of them is enough.
func (b *Broker) crowded() {
	b.rings.mu.Lock()
	defer b.rings.mu.Unlock()
	b.rings.hurry = true
}

// moveAtOnce is for tests.
var moveAtOnce bool

func (b *Broker) atOnce() bool { return moveAtOnce }

// A giver is a transport that can carry descriptors.
type giver interface {
	// give is send of a message with descriptors, which stay the caller's. False: not now,
	// and nothing was sent.
	give(frame []byte, descriptors []int) bool
	// wantDescriptors has those taken that come, and says whether any can.
	wantDescriptors() bool
	givesDescriptors() bool
}

func (k *peerConn) canGive() bool {
	g, ok := k.transport.(giver)
	return ok && g.givesDescriptors()
}

func (k *peerConn) give(s *session, frame []byte, descriptors []int) bool {
	if s.gone || k.lost {
		return false
	}
	return k.transport.(giver).give(frame, descriptors)
}
