package zpipes

import (
	"math"

	"github.com/zpipes/zpipes/internal/ring"
)

// worldRingWindow is the window of clients that take detours.
const worldRingWindow = 150

// A simRing is a ring of plain memory.
type simRing struct {
	*ring.Keeper
	world            *streamWorld
	pipe             *pipe
	memory           []byte
	number           int
	closed, released bool
	sure             uint64 // bytes of it that its writer takes for confirmed
}

// A ringing is what a client knows of the ring of one of its ends.
type ringing struct {
	ring    *simRing
	offered bool         // and it has not answered
	out     *ring.Writer // it has taken it, as the writer,
	in      *ring.Reader // or as the reader

	written   []byte // into it
	published int    // so much of that can be read
	moved     bool   // the writer has said so,
	answered  bool   // and heard that all before is taken,
	ahead     int    // of which so much is not read
	wanted    bool   // it is asked to come back

	live bool // the reader may read it
}

func (w *streamWorld) canGive() bool { return true }
func (w *streamWorld) crowded()      {}
func (w *streamWorld) atOnce() bool  { return w.certain || w.r.IntN(2) == 0 }

func (w *streamWorld) newRing(p *pipe, size int) brokerRing {
	for _, r := range []role{reader, writer} {
		w.check(w.canRing(p, r), "a ring for %q, whose %v can have none", p.name, r)
	}
	if !w.certain && w.r.IntN(10) == 0 {
		return nil
	}
	g := &simRing{world: w, pipe: p, memory: make([]byte, ring.Header+size), number: len(w.rings)}
	var err error
	g.Keeper, err = ring.NewKeeper(g.memory, size)
	w.check(err == nil, "no keeper: %v", err)
	w.rings = append(w.rings, g)
	return g
}

// newOwn is a broadcast's, of which there are none here.
func (w *streamWorld) newOwn(p *pipe, _ int, _ role, _ resumer) (brokerRing, []byte, func()) {
	w.check(false, "a ring of the broker's for %q", p.name)
	return nil, nil, nil
}

// canRing says that an end is a client's that can have rings.
func (w *streamWorld) canRing(p *pipe, r role) bool {
	for _, a := range w.actors {
		for _, k := range a.calls {
			if k.pipe == p && k.role == r {
				return a.rings
			}
		}
	}
	return false
}

func (w *streamWorld) give(s *session, frame []byte, descriptors []int) bool {
	for _, a := range w.actors {
		if a.session == s && (a.congested || !w.certain && w.r.IntN(10) == 0) {
			return false
		}
	}
	w.given = w.rings[descriptors[0]]
	return w.reply(s, frame)
}

func (g *simRing) descriptors(role) []int { return []int{g.number, 0} }
func (g *simRing) given(role)             {}

func (g *simRing) Close() (uint64, error) {
	w, f := g.world, g.world.flow(g.pipe)
	w.check(!g.closed && !g.released, "the ring of %q is closed twice", g.pipe.name)
	g.closed = true
	f.promised = !g.pipe.reader.left
	if g.pipe.over() {
		w.count["ended in a ring"]++
	} else {
		w.count["moved out"]++
	}
	final, err := g.Keeper.Close()
	w.check(final >= g.sure, "%d bytes of %q's ring were confirmed, and %d are read", g.sure, g.pipe.name, final)
	return final, err
}

func (g *simRing) release() {
	g.world.check(!g.released, "the ring of %q is released twice", g.pipe.name)
	g.world.check(g.closed || g.sure == 0, "%d bytes of %q's ring were confirmed, and are lost", g.sure, g.pipe.name)
	if g.released = true; !g.closed {
		g.world.count["ended while moving"]++
	}
}

// ringBytes is how much is paid for rings.
func (w *streamWorld) ringBytes() (n int) {
	for _, g := range w.rings {
		if !g.released {
			n += len(g.memory) - ring.Header
		}
	}
	return n
}

// guided checks what the broker says of a ring; false: it is something else.
func (w *streamWorld) guided(a *actor, k *call, m message) bool {
	if m.id != msgOffer && m.id != msgMoved {
		return false
	}
	p := k.pipe
	w.check(a.rings && p != nil, "of a ring to one who can have none")
	f := w.flow(p)
	switch {
	case m.id == msgOffer && m.size == 0:
		w.check(k.role == writer && k.answered, "wants a ring back that is not in use")
		k.wanted = true
	case m.id == msgOffer:
		w.check(!k.offered && k.in == nil && k.out == nil, "a second offer")
		w.check(m.size == worldPending+worldRingWindow && m.count == worldPending, "a ring of %d for %d", m.size, m.count)
		k.offered, k.ring = true, w.given
		w.check(w.given.pipe == p, "another pipe's ring")
	case m.mode == moveInto && k.role == writer && !k.answered:
		w.check(k.moved && k.out != nil, "MOVED without MOVE")
		w.check(int(m.count) == len(f.in)-f.out, "%d bytes are ahead of the ring, should be %d", m.count, len(f.in)-f.out)
		w.count["moved in"]++
		k.answered, k.ahead = true, int(m.count)
		f.rider, f.ringAt = k, len(f.in)
		w.publishes(k)
	case m.mode == moveInto && k.role == writer:
		w.check(k.ahead > 0 && m.count == 0 && f.out >= f.ringAt, "nothing is ahead of the ring, but %d of %d bytes are", k.ahead, f.ringAt-f.out)
		k.ahead = 0
	case m.mode == moveInto:
		w.check(k.in != nil && !k.live, "MOVED into what it has not")
		w.check(f.out == f.ringAt, "MOVED, with %d bytes before the ring", f.ringAt-f.out)
		k.live = true
	case k.in != nil && !k.live:
		w.check(m.mode == moveOut && m.count == 0 && k.ring.released, "MOVED %d, %d of a ring that was not taken", m.mode, m.count)
		k.ringing = ringing{}
	default:
		w.check(m.mode == moveOut && k.role == reader && k.live, "MOVED out of what is not in use")
		w.check(k.in.End(uint64(m.count)) == nil, "a ring that ends at %d", m.count)
		for w.readsRing(k, worldPending) > 0 {
		}
		w.check(f.inRing == 0, "%d bytes of the ring are never read", f.inRing)
		k.ringing = ringing{}
	}
	return true
}

// turnsOff says that the stream goes on in a ring behind what its reader still gets in messages.
func (f *flow) turnsOff(k *call) bool { return f.rider != nil && !k.live }

// publishes has those bytes count as the pipe's that can be read.
func (w *streamWorld) publishes(k *call) {
	n := int(k.out.Written()) - k.out.Gathered()
	if f := w.flow(k.pipe); k.answered && !k.ring.closed {
		f.in = append(f.in, k.written[k.published:n]...)
		f.inRing += n - k.published
		k.published = n
	}
}

func (w *streamWorld) writesRing(k *call, n int, flush bool) {
	p, limit, sure := k.pipe, worldRingWindow, 0
	if k.answered {
		sure = max(0, worldPending-k.ahead)
		limit += sure
	}
	k.out.Limit(limit)
	b := w.bytes(p, n)
	n, err := k.out.Write(b)
	if err == nil && flush {
		err = k.out.Push()
	}
	w.check(err == nil, "a Write into the ring of %q: %v", p.name, err)
	w.note("%d bytes go into the ring of %q", n, p.name)
	k.written = append(k.written, b[:n]...)
	w.publishes(k)
	if !k.answered {
		return
	}
	got, err := k.out.Confirmed(k.out.Written(), uint64(sure))
	w.check(err == nil, "the ring of %q: %v", p.name, err)
	k.ring.sure = max(k.ring.sure, got)
	f := w.flow(p)
	w.check(p.over() || f.inRing <= limit, "%d bytes are in the ring of %q, which may have %d", f.inRing, p.name, limit)
	ahead := f.ringAt + int(k.ring.sure) - f.out
	w.check(p.over() || ahead <= max(worldPending, f.ringAt-f.out), "%d unread bytes of %q are confirmed", ahead, p.name)
}

func (w *streamWorld) readsRing(k *call, n int) int {
	b := make([]byte, n)
	n, _ = k.in.Read(b)
	w.note("%d bytes come out of the ring of %q", n, k.pipe.name)
	w.came(k.pipe, b[:n])
	w.flow(k.pipe).inRing -= n
	return n
}

// takes has an actor answer an offer.
func (w *streamWorld) takes(a *actor, channel uint32, refuses bool) {
	k := a.calls[channel]
	k.offered = false
	nop := func() {}
	var err error
	switch {
	case refuses:
		w.count["refused"]++
		k.ringing = ringing{}
		w.moves(a, channel, moveNot, 0)
	case k.role == reader:
		k.in, err = ring.NewReader(k.ring.memory, nop, nop)
		w.moves(a, channel, moveInto, 0)
	default:
		k.out, err = ring.NewWriter(k.ring.memory, nop)
	}
	w.check(err == nil, "no end of a ring: %v", err)
}

func (w *streamWorld) goesOver(a *actor, channel uint32) {
	a.calls[channel].moved = true
	w.moves(a, channel, moveInto, 0)
}

// comesBack does so if it can.
func (w *streamWorld) comesBack(a *actor, channel uint32) {
	k := a.calls[channel]
	k.wanted = false
	if n, err := k.out.Unread(); err != nil || n > 0 || k.out.Gathered() > 0 || k.ahead > 0 {
		return
	}
	n := uint32(k.out.Written())
	w.flow(k.pipe).rider = nil
	k.ringing = ringing{}
	w.moves(a, channel, moveOut, n)
}

func (w *streamWorld) moves(a *actor, channel uint32, mode byte, count uint32) {
	w.moving = true
	w.deliver(a, (&message{id: msgMove, block: hasBlock, channel: channel, mode: mode, count: count}).append(nil))
	w.moving = false
}

// rides has an actor do something with a ring; false: there is nothing to be done.
func (w *streamWorld) rides(a *actor, channel uint32, k *call) bool {
	r := w.r
	switch {
	case k.pipe == nil:
		return false
	case k.offered && r.IntN(2) == 0:
		w.takes(a, channel, r.IntN(8) == 0)
	case k.out != nil && !k.moved && r.IntN(3) == 0:
		w.goesOver(a, channel)
	case k.out != nil && k.wanted && r.IntN(2) == 0:
		w.comesBack(a, channel)
	case k.out != nil:
		w.writesRing(k, 1+r.IntN([]int{50, worldPending}[r.IntN(2)]), r.IntN(2) == 0)
	case k.live:
		w.readsRing(k, 1+r.IntN(worldPending))
	default:
		return false
	}
	return true
}

// trim drops MOVEs that have had their turn, and need no answer.
func (k *call) trim() {
	for k.movesNext() {
		k.waiting = k.waiting[1:]
	}
}

func (k *call) movesNext() bool {
	return len(k.waiting) > 0 && k.waiting[0].id == msgMove && k.pipe != nil && k.role == writer
}

// dies counts what a ring was when its client died.
func (w *streamWorld) dies(a *actor) {
	for _, k := range a.calls {
		switch {
		case k.pipe == nil:
		case k.live, k.answered:
			w.count["died in a ring"]++
		case k.offered, k.in != nil, k.out != nil:
			w.count["died while moving"]++
		}
	}
}

// beginnings is how many ways there are for begin.
const beginnings = 12

// begin has two clients make so many steps into a ring, and out of it; then one may die.
func (w *streamWorld) begin(step int, dies bool) {
	w.certain = true
	from, to := w.actors[0], w.actors[1]
	for _, a := range []*actor{from, to} {
		w.deliver(a, (&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: worldBeat, able: abilities, window: worldRingWindow}}).append(nil))
	}
	w.says(from, message{id: msgOutput, text: []byte("a")})
	w.says(to, message{id: msgInput, text: []byte("a")})
	read := func(n uint32) { w.says(to, message{id: msgRead, size: n, flags: readStream | readAny}) }
	read(50)
	k := from.calls[1]
	steps := []func(){
		func() { w.says(from, message{id: msgWrite, chunk: w.bytes(k.pipe, 50)}) },
		func() { w.takes(to, 1, false) },
		func() { w.takes(from, 1, false) },
		func() { w.writesRing(k, 60, true) },
		func() { w.says(from, message{id: msgWrite, chunk: w.bytes(k.pipe, 40)}) },
		func() { w.goesOver(from, 1) },
		func() { w.writesRing(k, 70, true) },
		func() { read(10_000) },
		func() { w.readsRing(to.calls[1], 2*worldPending) },
		func() { k.pipe.lookAtDetour(w.now, false); k.pipe.lookAtDetour(w.now.Add(quietTime), false) },
		func() {
			w.comesBack(from, 1)
			w.says(from, message{id: msgWrite, chunk: w.bytes(k.pipe, 30)})
		},
	}
	for _, f := range steps[:step] {
		f()
		w.resume(math.MaxInt)
		w.holds()
	}
	if w.certain = false; dies {
		w.dies(from)
		w.vanish(from)
		w.connect(from)
	}
	w.holds()
}

func (w *streamWorld) says(a *actor, m message) {
	m.block, m.channel = hasBlock, 1
	w.deliver(a, m.append(nil))
	w.resume(math.MaxInt)
}
