package zpipes

import (
	"bytes"
	"math"
	"slices"
	"time"
)

// act has an actor do something.
func (w *streamWorld) act(a *actor) {
	r := w.r
	if !a.agreed && r.IntN(200) == 0 || r.IntN(2000) == 0 {
		w.deliver(a, (&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: worldBeat, able: r.Uint32N(4), window: worldRingWindow}}).append(nil))
		return
	}
	if a.agreed && r.IntN(1000) == 0 { // it takes its leave
		w.deliver(a, (&message{id: msgClose, block: hasBlock}).append(nil))
		return
	}
	m := message{channel: 1 + r.Uint32N(3), flags: byte(r.IntN(4))}
	if !a.agreed {
		m.channel = 0
	}
	k := a.call(m.channel)
	if r.IntN(3) > 0 && w.rides(a, m.channel, k) {
		return
	}
	m.id = msgInput + messageID(r.IntN(int(msgInvalid)))
	switch sense := r.IntN(10); {
	case sense == 0 && r.IntN(10) == 0: // whatever
	case sense == 0 && r.IntN(5) == 0, sense < 5 && k.pipe != nil && k.pipe.over() && k.pipe.readable() <= 0:
		m.id = msgClose
	case len(k.waiting) > 5:
		return
	case k.pipe != nil && !k.here && len(k.waiting) == 0:
		switch r.IntN(3) {
		case 0:
			m.id = msgClose
		case 1:
			w.deliver(a, (&message{id: msgRead, flags: readHere, block: hasBlock, channel: m.channel}).append(nil))
			return
		default:
			return // it takes its time
		}
	case k.pipe == nil:
		m.id = msgInput
		if r.IntN(2) == 0 {
			m.id = msgOutput
		}
	case k.role == reader:
		m.id = msgRead
	default:
		m.id = msgWrite
	}
	if r.IntN(3) == 0 {
		m.timeout = 1 + r.Uint32N(40)
	}
	switch m.id {
	case msgInput, msgOutput:
		m.text = []byte(w.name(role(m.id / msgOutput)))
	case msgRead:
		switch r.IntN(20) {
		case 0:
			m.size = 0
		case 1:
			m.size = worldMessage + r.Uint32N(worldMessage)
		case 2:
			m.size = math.MaxUint32
		default:
			m.size = 1 + r.Uint32N(2*worldPending)
		}
	case msgWrite:
		if k.out != nil && (!k.moved || r.IntN(50) > 0) {
			return
		}
		n := r.IntN(worldPending)
		switch r.IntN(20) {
		case 0:
			n = 0
		case 1:
			n = r.IntN(worldWrite)
		}
		m.chunk = w.bytes(k.pipe, n)
	case msgClose:
		if m.code = causeCode(r.IntN(6)); r.IntN(3) == 0 {
			m.code = causeNever
		}
	case msgPing:
		m.hello = hello{1, 1, 1, 1, 1, 1, 0}
	}
	if a.agreed {
		m.block = hasBlock
	}
	frame := m.append(nil)
	switch r.IntN(300) {
	case 0: // cut short
		frame = frame[:r.IntN(len(frame)+1)]
	case 1: // a bit fell over
		frame[r.IntN(len(frame))] ^= 1 << r.IntN(8)
	case 2: // a longer one
		frame = append(frame, "ZP and what may follow"[:r.IntN(22)]...)
	case 3: // noise
		for i := range frame {
			frame[i] = byte(r.Uint32())
		}
	case 4: // no block, or one too many
		m.block = hasBlock - m.block
		frame = m.append(nil)
	}
	w.deliver(a, frame)
}

// name picks a pipe for an end: mostly one that lacks it.
func (w *streamWorld) name(r role) string {
	var name string
	for range 4 {
		name = string('a' + rune(w.r.IntN(worldPipes+1)))
		if p := w.pipes.pipes()[name]; p != nil && !p.side(r).open {
			return name
		}
	}
	if w.r.IntN(50) == 0 {
		return ""
	}
	return name
}

// bytes makes n bytes for a pipe, which not every other byte of it equals.
func (w *streamWorld) bytes(p *pipe, n int) []byte {
	if p == nil {
		return make([]byte, n)
	}
	return w.flow(p).source.next(n)
}

// inside has something happen in the broker's process.
func (w *streamWorld) inside() {
	r := w.r
	if len(w.insiders) < 3 {
		l := &insider{role: role(r.IntN(2))}
		p, why := w.pipes.open(w.name(l.role), l.role, worldWindow, func() { l.woken = true }, w.now)
		if why == nil {
			l.pipe = p
			w.insiders = append(w.insiders, l)
			w.note("inside: a %v of %q", l.role, p.name)
		}
		return
	}
	l := w.insiders[r.IntN(len(w.insiders))]
	p, n := l.pipe, 1+r.IntN(2*worldPending)
	ended := l.role == reader && p.readError() != nil || l.role == writer && p.writeError() != nil
	switch {
	case l.lent != nil && r.IntN(2) == 0:
		l.lent()
	case r.IntN(50) == 0 || ended && l.pinned == nil:
		w.note("inside: the %v of %q leaves", l.role, p.name)
		w.insideLeaves(l, cause{code: causeCode(r.IntN(2))})
		w.insiders = slices.DeleteFunc(w.insiders, func(x *insider) bool { return x == l })
	case l.pinned != nil:
		w.unpin(l)
	case l.lent != nil || l.offered != nil && p.lent:
	case l.offered != nil && (l.woken || r.IntN(10) == 0):
		w.collect(l)
	case l.role == writer && p.wants(n) > 0:
		w.handOver(l, w.bytes(p, p.wants(n)))
	case l.role == reader && p.readable() > 0 && r.IntN(2) == 0:
		w.note("inside: a read of %d from %q begins", n, p.name)
		l.pinned = p.pin(make([][]byte, 0, 2), min(n, p.readable()))
	case l.role == reader && p.readable() > 0:
		b := make([]byte, n)
		b = b[:p.read(b)]
		w.note("inside: a read of %d from %q", len(b), p.name)
		w.came(p, b)
	case l.role == writer && p.room() > 0:
		b := w.bytes(p, min(n, p.room()))
		f := w.flow(p)
		f.in = append(f.in, b...)
		w.note("inside: a write of %d to %q", len(b), p.name)
		if len(b) < worldWindow/2 {
			p.write(b)
			return
		}
		c := newSegment(largePool)
		c.w += copy(c.free(), b)
		p.push(c)
	default:
		l.woken = false
		p.side(l.role).want = 1
		if l.role == reader && l.offered == nil {
			l.offered = make([]byte, n)
			w.note("inside: a Read of %d from %q waits", n, p.name)
			w.check(p.offer(l.offered), "two Reads wait with their buffers")
		}
	}
}

// handOver has a writer give bytes to a Read that waits: at once, or while others go on.
func (w *streamWorld) handOver(l *insider, b []byte) {
	p, f := l.pipe, w.flow(l.pipe)
	i := slices.IndexFunc(w.insiders, func(x *insider) bool { return x.pipe == p && x.offered != nil })
	to := w.insiders[i]
	f.in = append(f.in, b...)
	w.came(p, b)
	w.note("inside: %d bytes go to the Read of %q", len(b), p.name)
	w.count["handed over"]++
	if to.given = b; w.r.IntN(2) == 0 {
		buf := p.lend(len(b))
		l.lent = func() {
			copy(buf, b)
			p.gave()
			l.lent = nil
		}
	} else {
		p.give(b, false)
	}
}

// collect has a Read that waited return, or look again.
func (w *streamWorld) collect(l *insider) {
	n := l.pipe.collect()
	w.note("inside: the Read of %q has got %d bytes", l.pipe.name, n)
	w.check(bytes.Equal(l.offered[:n], l.given), "a Read of %q has got other bytes than were given", l.pipe.name)
	l.offered, l.given = nil, nil
}

// unpin ends a read that copied while others went on.
func (w *streamWorld) unpin(l *insider) {
	b := bytes.Join(l.pinned, nil)
	l.pinned = nil
	w.note("inside: %d bytes were read from %q", len(b), l.pipe.name)
	w.came(l.pipe, b)
	l.pipe.unpin(len(b))
}

func (w *streamWorld) insideLeaves(l *insider, why cause) {
	p, f := l.pipe, w.flow(l.pipe)
	if l.role == writer && !p.reader.left {
		f.in = f.in[:len(f.in)-p.unconfirmed]
	}
	if err := p.readError(); err != nil && l.role == reader && !p.reader.left {
		w.check(f.out == len(f.in), "%q ended before all was read: %v", p.name, err)
	}
	p.leave(l.role, why)
	if l.pinned != nil {
		w.unpin(l)
	}
	for _, x := range w.insiders { // who copies goes on, and then the Read returns
		if x.pipe == p && x.lent != nil {
			x.lent()
		}
	}
	if l.offered != nil {
		w.collect(l)
	}
	w.pipes.release(p)
}

// step lets one thing happen.
func (w *streamWorld) step() {
	r := w.r
	a := w.actors[r.IntN(len(w.actors))]
	switch n := r.IntN(1000); {
	case n < 550:
		w.act(a)
	case n < 750:
		w.resume(1 + r.IntN(5))
	case n < 850:
		w.inside()
	case n < 880:
		w.pass(w.now.Add(time.Duration(r.IntN(20)) * time.Millisecond))
	case n < 890:
		a.congested = true
	case n < 950:
		for _, a := range w.actors {
			if a.congested {
				a.congested = false
				a.session.unload(math.MaxInt, func([][]byte) error { return nil })
			}
		}
	case n < 952:
		w.note("%s vanishes", a.name)
		w.dies(a)
		w.vanish(a)
		w.connect(a)
	case n < 954:
		w.silence(a)
	case n < 960:
		for _, p := range w.pipes.allPipes() {
			p.lookAtDetour(w.now.Add(quietTime*time.Duration(r.IntN(2))), true)
		}
	case n < 961:
		if r.IntN(10) == 0 && !w.closed {
			w.close()
		}
	default:
		w.resume(math.MaxInt)
		w.quiet()
	}
	w.holds()
}

// pass lets time go by.
// silence lets so much time pass that an actor expires, of which no other one
// does.
func (w *streamWorld) silence(a *actor) {
	w.pass(a.session.excused().Add(a.session.expiry))
	for _, b := range w.actors {
		if b != a {
			w.deliver(b, (&message{id: msgPing}).append(nil))
			w.check(!b.session.expire(w.now), "%s was not silent", b.name)
		}
	}
	w.note("%s was silent", a.name)
	w.dies(a)
	w.dooms(a)
	spared := w.sparesAll(a)
	w.check(a.session.expire(w.now), "%s did not expire", a.name)
	spared()
	w.buried(a)
}

// vanish drops an actor as the broker does when its connection is lost.
func (w *streamWorld) vanish(a *actor) {
	spared := w.sparesAll(a)
	a.session.drop(cause{code: causeVanished}, nil)
	spared()
	a.session.gone = true
	w.check(len(a.session.channels) == 0, "conversations of nobody")
}
