package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// In a world of streams, old clients, clients of the extension and goroutines of the
// broker's process meet on a few pipes; wake-ups come late; libzmq is full at times; time
// passes; clients fall silent or vanish. Whatever happens,
//
//   - the bytes that come out of a pipe are the first of those that went in, and
//     at its end all that were confirmed;
//   - each request has one answer, the right one, in its turn;
//   - nothing waits for what is there already;
//   - what pipes and queues hold is bounded;
//   - in the end nothing is left of anybody.
func TestSimulateStreams(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newStreamWorld(s, count)
	})
	for id := msgInput; id <= msgInvalid; id++ {
		switch name := wireLayout[id].name; id {
		case msgInput, msgOutput, msgRead, msgWrite, msgClose, msgPing, msgCloseFailed:
			if count[name] > 0 {
				t.Errorf("the broker said %s", name)
			}
		default:
			if worlds >= enoughWorlds && count[name] < worlds {
				t.Errorf("%s occurred %d times; the simulation does not reach what it should", name, count[name])
			}
		}
	}
	t.Log(count)
}

// enoughWorlds is how many worlds should see everything happen.
const enoughWorlds = 20

type streamWorld struct {
	*sim
	actors   []*actor
	insiders []*insider
	streams  map[*pipe]*flow
	closed   bool
	count    map[string]int // of replies, to see that all of them occur
}

const (
	worldPipes   = 5
	worldPending = 1000
	worldMessage = 3000
	worldWrite   = 4000
	worldWindow  = 700
	worldExpiry  = 200 * time.Millisecond
	worldBeat    = 20 // milliseconds
)

// flow is what has gone into a pipe, and how much of it has come out.
type flow struct {
	in     []byte
	out    int
	source stream
}

// An actor is one client.
type actor struct {
	name      string
	session   *session
	agreed    bool
	congested bool
	doomed    bool // the session ends with what is being done
	pings     int  // that are not answered
	calls     map[uint32]*call
}

// A call is what a client knows of one of its channels.
type call struct {
	pipe    *pipe
	role    role
	told    bool // of the end of the pipe
	waiting []*asked
}

// asked is a request whose answer has not come.
type asked struct {
	message
	invalid bool // malformed
	at      time.Time
	left    uint32 // of a READ's size
	fails   bool   // it is to be answered *_FAILED now, whatever there is
}

// An insider is an end in the broker's own process.
type insider struct {
	pipe   *pipe
	role   role
	woken  bool
	pinned [][]byte // what a reader is copying while others go on
}

func newStreamWorld(s *sim, count map[string]int) *streamWorld {
	w := &streamWorld{sim: s, streams: make(map[*pipe]*flow), count: count}
	w.pipes = newRegistry(worldPipes, worldPending, worldMessage)
	for i := range 4 {
		a := &actor{name: string('A' + rune(i))}
		w.connect(a)
		w.actors = append(w.actors, a)
	}
	return w
}

func (w *streamWorld) flow(p *pipe) *flow {
	f := w.streams[p]
	if f == nil {
		f = new(flow)
		w.streams[p] = f
	}
	return f
}

// came checks bytes that have come out of a pipe.
func (w *streamWorld) came(p *pipe, b []byte) {
	f := w.flow(p)
	ok := f.out+len(b) <= len(f.in) && bytes.Equal(b, f.in[f.out:f.out+len(b)])
	w.check(ok, "%d bytes came out of %q that are not the next ones", len(b), p.name)
	f.out += len(b)
}
func (w *streamWorld) reply(s *session, frames ...[]byte) bool {
	frame := frames[0]
	i := slices.IndexFunc(w.actors, func(a *actor) bool { return a.session == s })
	w.check(i >= 0 && !s.gone, "a reply to a client that was dropped: % x", frame)
	a := w.actors[i]
	if a.congested {
		s.backlog = append(s.backlog, [][]byte{bytes.Clone(frame)})
	}
	m, err := parse(frame)
	w.check(err == nil, "a reply that does not parse: %v: % x", err, frame)
	if w.logs {
		w.note("%s.%d < %s", a.name, m.channel, shown(m))
	}
	w.count[frameName(m)]++
	w.answered(a, m)
	return true
}

// connect gives an actor a connection that knows of nothing.
func (w *streamWorld) connect(a *actor) {
	*a = actor{name: a.name, calls: make(map[uint32]*call)}
	a.session = newSession(w, w.pipes, []byte(a.name), worldExpiry, w.now)
}

func (a *actor) call(channel uint32) *call {
	k := a.calls[channel]
	if k == nil {
		k = new(call)
		a.calls[channel] = k
	}
	return k
}

// deliver hands a frame to an actor's session, and notes what answers it should
// have.
func (w *streamWorld) deliver(a *actor, frame []byte) {
	m, err := parse(bytes.Clone(frame))
	if m.id == msgInput && m.mode != modeStream && m.mode <= modeStatus {
		return // a bit fell over, and it would not be a matter of streams
	}
	if w.logs {
		w.note("%s.%d > %s", a.name, m.channel, asking(m, frame, err))
	}
	k := a.call(m.channel)
	q := &asked{message: m, at: w.now, left: m.size}
	switch {
	case err == nil && m.id == msgPing:
		a.pings++
		if m.block == hasBlock && m.hello.session == 0 && m.hello.version > 0 {
			a.calls = make(map[uint32]*call)
			a.agreed = true
		}
	case err != nil && a.agreed, a.agreed != (m.block != noBlock):
		w.dooms(a)
	case err != nil || m.block == badBlock:
		q.invalid = true
		k.waiting = append(k.waiting, q)
	case m.id == msgClose && len(k.waiting) > 0:
		k.waiting[0].fails = true
		k.waiting = slices.Insert(k.waiting, 1, q)
	default:
		k.waiting = append(k.waiting, q)
	}
	a.session.handle(slices.Clip(frame), w.now)
	w.check(a.pings == 0, "%d PINGs were not answered at once", a.pings)
	w.check(m.id != msgClose || err != nil || q.invalid || !slices.Contains(k.waiting, q), "CLOSE was not answered at once")
	w.buried(a)
}

// asking tells of a client's message.
func asking(m message, frame []byte, err error) string {
	if err != nil || m.block == badBlock {
		return fmt.Sprintf("% .20x (%v)", frame, err)
	}
	s := frameName(m)
	switch m.id {
	case msgInput, msgOutput:
		s = fmt.Sprintf("%s %q mode %d", s, m.text, m.mode)
	case msgRead:
		s = fmt.Sprintf("%s %d flags %d count %d", s, m.size, m.flags, m.count)
	case msgWrite:
		s = fmt.Sprintf("%s of %d bytes", s, len(m.chunk))
	case msgClose:
		s = fmt.Sprintf("%s %s count %d", s, causeNames[m.code], m.count)
	}
	if m.timeout > 0 {
		s = fmt.Sprintf("%s within %d ms", s, m.timeout)
	}
	return s
}

// dooms says that all of an actor's conversations fail now, and its session ends.
func (w *streamWorld) dooms(a *actor) {
	a.doomed = true
	for _, k := range a.calls {
		if len(k.waiting) > 0 {
			k.waiting[0].fails = true
		}
	}
}

// buried gives an actor whose session has ended a new one.
func (w *streamWorld) buried(a *actor) {
	w.check(a.doomed == a.session.gone, "%s: the session has ended: %v, but should have: %v", a.name, a.session.gone, a.doomed)
	if !a.doomed {
		return
	}
	for _, k := range a.calls {
		w.check(len(k.waiting) == 0 || !k.waiting[0].fails, "%s: a waiting request was not answered in the end", a.name)
	}
	w.connect(a)
}

// answered checks one reply.
// act has an actor do something.
func (w *streamWorld) act(a *actor) {
	r := w.r
	if !a.agreed && r.IntN(200) == 0 || r.IntN(2000) == 0 {
		w.deliver(a, (&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: worldBeat}}).append(nil))
		return
	}
	m := message{channel: 1 + r.Uint32N(3), flags: byte(r.IntN(4))}
	if !a.agreed {
		m.channel = 0
	}
	k := a.call(m.channel)
	m.id = msgInput + messageID(r.IntN(int(msgInvalid)))
	switch sense := r.IntN(10); {
	case sense == 0 && r.IntN(10) == 0: // whatever
	case sense == 0 && r.IntN(5) == 0, sense < 5 && k.pipe != nil && k.pipe.over() && k.pipe.readable() <= 0:
		m.id = msgClose
	case len(k.waiting) > 5:
		return
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
		n := r.IntN(worldPending)
		switch r.IntN(20) {
		case 0:
			n = 0
		case 1:
			n = r.IntN(worldWrite)
		}
		m.chunk = w.bytes(k.pipe, n)
	case msgClose:
		m.code = causeCode(r.IntN(6))
	case msgPing:
		m.hello = hello{1, 1, 1, 1, 1}
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
		if p := w.pipes.pipes[name]; p != nil && !p.side(r).open {
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
	case r.IntN(50) == 0 || ended && l.pinned == nil:
		w.note("inside: the %v of %q leaves", l.role, p.name)
		w.insideLeaves(l, cause{code: causeCode(r.IntN(2))})
		w.insiders = slices.DeleteFunc(w.insiders, func(x *insider) bool { return x == l })
	case l.pinned != nil:
		w.unpin(l)
	case l.role == reader && p.readable() > 0 && r.IntN(2) == 0:
		w.note("inside: a read of %d from %q begins", n, p.name)
		l.pinned = p.buf.peek(make([][]byte, 0, 2), min(n, p.readable()))
		p.pinned = true
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
		c := newChunk(largePool)
		c.w += copy(c.free(), b)
		p.push(c)
	default:
		l.woken = false
		p.side(l.role).want = 1
	}
}

// unpin ends a read that copied while others went on.
func (w *streamWorld) unpin(l *insider) {
	b := bytes.Join(l.pinned, nil)
	l.pinned = nil
	w.note("inside: %d bytes were read from %q", len(b), l.pipe.name)
	w.came(l.pipe, b)
	l.pipe.consume(len(b))
	l.pipe.unpin()
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
				a.session.backlog = nil
				for _, c := range a.session.talks {
					w.post(c)
				}
			}
		}
	case n < 952:
		w.note("%s vanishes", a.name)
		w.vanish(a)
		w.connect(a)
	case n < 954:
		w.silence(a)
	case n < 955:
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
	w.pass(a.session.heard.Add(a.session.expiry))
	for _, b := range w.actors {
		if b != a {
			w.deliver(b, (&message{id: msgPing}).append(nil))
			w.check(!b.session.expire(w.now), "%s was not silent", b.name)
		}
	}
	w.note("%s was silent", a.name)
	w.dooms(a)
	w.check(a.session.expire(w.now), "%s did not expire", a.name)
	w.buried(a)
}

// vanish drops an actor as the broker does when its connection is lost.
func (w *streamWorld) vanish(a *actor) {
	a.session.drop(cause{code: causeVanished}, nil)
	a.session.gone = true
	w.check(len(a.session.talks) == 0, "conversations of nobody")
}
