package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A world is a broker without sockets whose clients do anything that comes to
// their mind, and some of it makes sense. Old clients, clients of the extension
// and goroutines of the broker's process meet on a few pipes; wake-ups come late;
// libzmq is full at times; time passes; clients fall silent or vanish. Whatever
// happens, the world checks that
//
//   - the bytes that come out of a pipe are the first of those that went in, and
//     at its end all that were confirmed;
//   - each request has one answer, the right one, in its turn;
//   - nothing waits for what is there already;
//   - what pipes and queues hold is bounded;
//   - in the end nothing is left of anybody.
type world struct {
	t        *testing.T
	r        *rand.Rand
	pipes    *registry
	now      time.Time
	alarms   alarms
	posted   []talker
	tokens   uint64
	actors   []*actor
	insiders []*insider
	streams  map[*pipe]*flow
	closed   bool
	log      []string
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

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, r: scripted(seed), now: born,
		pipes:   newRegistry(worldPipes, worldPending, worldMessage),
		streams: make(map[*pipe]*flow),
		count:   make(map[string]int),
	}
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
	if len(w.log) > 100 {
		w.log = slices.Delete(w.log, 0, 50)
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func (w *world) check(ok bool, format string, args ...any) {
	if !ok {
		w.t.Helper()
		w.fail(format, args...)
	}
}

func (w *world) flow(p *pipe) *flow {
	f := w.streams[p]
	if f == nil {
		f = new(flow)
		w.streams[p] = f
	}
	return f
}

// came checks bytes that have come out of a pipe.
func (w *world) came(p *pipe, b []byte) {
	w.t.Helper()
	f := w.flow(p)
	ok := f.out+len(b) <= len(f.in) && bytes.Equal(b, f.in[f.out:f.out+len(b)])
	w.check(ok, "%d bytes came out of %q that are not the next ones", len(b), p.name)
	f.out += len(b)
}

// What sessions need of a broker; see host.

func (w *world) post(c talker) {
	if !*c.flag() {
		*c.flag() = true
		w.posted = append(w.posted, c)
	}
}

func (w *world) alarm(c *conversation)                 { w.alarms.set(c) }
func (w *world) violated(s *session, _ string)         {}
func (w *world) allow(*session, string, string) *cause { return nil }
func (w *world) report(*pipe)                          {}
func (w *world) newToken() uint64                      { w.tokens++; return w.tokens }

func (w *world) reply(s *session, frames ...[]byte) bool {
	frame := frames[0]
	i := slices.IndexFunc(w.actors, func(a *actor) bool { return a.session == s })
	w.check(i >= 0 && !s.gone, "a reply to a client that was dropped: % x", frame)
	a := w.actors[i]
	if a.congested {
		s.backlog = append(s.backlog, [][]byte{bytes.Clone(frame)})
	}
	m, err := parse(frame)
	w.check(err == nil, "a reply that does not parse: %v: % x", err, frame)
	w.note("%s.%d < %s", a.name, m.channel, shown(m))
	w.count[frameName(m)]++
	w.answered(a, m)
	return true
}

// resume lets some of what was posted run.
func (w *world) resume(n int) {
	for ; n > 0 && len(w.posted) > 0; n-- {
		c := w.posted[0]
		w.posted = w.posted[1:]
		*c.flag() = false
		c.resume(w.now)
	}
}

// connect gives an actor a connection that knows of nothing.
func (w *world) connect(a *actor) {
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
func (w *world) deliver(a *actor, frame []byte) {
	m, err := parse(bytes.Clone(frame))
	w.note("%s.%d > % .20x (%v)", a.name, m.channel, frame, err)
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

// dooms says that all of an actor's conversations fail now, and its session ends.
func (w *world) dooms(a *actor) {
	a.doomed = true
	for _, k := range a.calls {
		if len(k.waiting) > 0 {
			k.waiting[0].fails = true
		}
	}
}

// buried gives an actor whose session has ended a new one.
func (w *world) buried(a *actor) {
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
func (w *world) answered(a *actor, m message) {
	if m.id == msgPingOK {
		a.pings--
		return
	}
	w.check(a.agreed == (m.block == hasBlock) || a.doomed, "block is %v", m.block)
	if a.doomed && m.id == msgInvalid && m.channel == 0 {
		w.check(m.block == noBlock || m.code == causeBrokerGone, "the session ends with cause %d", m.code)
		return
	}
	k := a.call(m.channel)
	if len(k.waiting) == 0 {
		ok := m.id == msgWriteFailed && a.agreed && k.pipe != nil && k.role == writer && !k.told && k.pipe.over()
		w.check(ok, "nobody asked for this")
		k.told = true
		return
	}
	q := k.waiting[0]
	if !w.answers(a, k, q, m) {
		return
	}
	k.waiting = k.waiting[1:]
}

// answers checks that m is what q should be told, and says whether it was all.
func (w *world) answers(a *actor, k *call, q *asked, m message) (done bool) {
	p := k.pipe
	late := q.timeout > 0 && !w.now.Before(q.at.Add(time.Duration(q.timeout)*time.Millisecond))
	must := func(id messageID) {
		w.t.Helper()
		w.check(m.id == id, "want %s", wireLayout[id].name)
	}
	switch {
	case q.invalid:
		must(msgInvalid)
		k.pipe = nil
	case q.id == msgClose && p == nil:
		must(msgInvalid)
	case q.id == msgClose:
		must(msgCloseOK)
		k.pipe = nil
	case q.id == msgInput && p == nil:
		w.opened(a, k, q, m, reader, msgInputOK, msgInputFailed)
	case q.id == msgOutput && p == nil:
		w.opened(a, k, q, m, writer, msgOutputOK, msgOutputFailed)
	case q.id == msgRead && p != nil && k.role == reader:
		return w.read(k, q, m, late)
	case q.id == msgWrite && p != nil && k.role == writer:
		w.wrote(k, q, m, late)
	default:
		must(msgInvalid)
		if q.id != msgRead && q.id != msgWrite {
			k.pipe = nil
		}
	}
	return true
}

func (w *world) opened(a *actor, k *call, q *asked, m message, r role, ok, failed messageID) {
	name := string(q.text)
	there := w.pipes.pipes[name]
	if m.id == ok {
		k.pipe, k.role, k.told = there, r, false
		w.check(there != nil && there == a.session.talks[m.channel].pipe && there.side(r).attached(), "not attached")
		return
	}
	w.check(m.id == failed, "want an answer to an open")
	justified := checkPipeName(name) != nil || w.closed ||
		there != nil && there.side(r).open ||
		there == nil && len(w.pipes.pipes)+len(w.pipes.dead) == worldPipes
	w.check(justified, "refused without a reason")
}

func (w *world) read(k *call, q *asked, m message, late bool) (done bool) {
	p := k.pipe
	f := w.flow(p)
	ended := p.writer.left && f.out == len(f.in)
	switch {
	case q.size == 0:
		w.check(m.id == msgReadEnd, "want READ_END for nothing")
	case m.id == msgReadOK:
		n := uint32(len(m.chunk))
		w.check(!q.fails && n > 0 && n <= q.left, "%d bytes for %d", n, q.left)
		w.came(p, m.chunk)
		if q.flags&readStream != 0 {
			q.left -= n
			return q.left == 0
		}
		short := p.writer.left && (f.out == len(f.in) || n == worldMessage)
		w.check(n == q.size || q.flags&readAny != 0 || short, "%d bytes for %d", n, q.size)
	case m.id == msgReadEnd:
		w.check(ended && (k.told || p.writer.cause.code == causeClosed), "an end that is none")
	case m.id == msgReadTimeout:
		w.check(late, "%v after %v", m.id, w.now.Sub(q.at))
	default:
		w.check(m.id == msgReadFailed, "want an answer to READ")
		torn := ended && !k.told && p.writer.cause.code != causeClosed
		large := q.flags&(readAny|readStream) == 0 && q.size > worldMessage && p.readable() >= worldMessage
		w.check(q.fails || torn || large, "failed without a reason")
		k.told = k.told || torn && !q.fails && !large
	}
	return true
}

func (w *world) wrote(k *call, q *asked, m message, late bool) {
	p := k.pipe
	switch m.id {
	case msgWriteOK:
		w.check(!q.fails && p.reader.attached() && !p.writer.left, "taken for nobody")
		f := w.flow(p)
		f.in = append(f.in, q.chunk...)
	case msgWriteTimeout:
		w.check(late, "after %v", w.now.Sub(q.at))
	default:
		w.check(m.id == msgWriteFailed, "want an answer to WRITE")
		w.check(q.fails || p.over(), "failed without a reason")
		k.told = k.told || !q.fails
	}
}

// act has an actor do something.
func (w *world) act(a *actor) {
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
func (w *world) name(r role) string {
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
func (w *world) bytes(p *pipe, n int) []byte {
	if p == nil {
		return make([]byte, n)
	}
	return w.flow(p).source.next(n)
}

// inside has something happen in the broker's process.
func (w *world) inside() {
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
func (w *world) unpin(l *insider) {
	b := bytes.Join(l.pinned, nil)
	l.pinned = nil
	w.note("inside: %d bytes were read from %q", len(b), l.pipe.name)
	w.came(l.pipe, b)
	l.pipe.consume(len(b))
	l.pipe.unpin()
}

func (w *world) insideLeaves(l *insider, why cause) {
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
func (w *world) step() {
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
	default:
		w.resume(math.MaxInt)
		w.quiet()
	}
	w.holds()
}

// pass lets time go by.
func (w *world) pass(to time.Time) {
	w.now = to
	w.note("%v", w.now.Sub(born))
	for c := w.alarms.due(w.now); c != nil; c = w.alarms.due(w.now) {
		c.resume(w.now)
	}
}

// silence lets so much time pass that an actor expires, of which no other one
// does.
func (w *world) silence(a *actor) {
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
func (w *world) vanish(a *actor) {
	a.session.drop(cause{code: causeVanished}, nil)
	a.session.gone = true
	w.check(len(a.session.talks) == 0, "conversations of nobody")
}

// holds checks what is true after each step.
func (w *world) holds() {
	g := w.pipes
	w.check(len(g.pipes)+len(g.dead) <= worldPipes, "%d pipes and %d dead ones", len(g.pipes), len(g.dead))
	for p := range g.held {
		f := w.flow(p)
		held := len(f.in) - f.out
		if p.reader.left {
			held = 0
		}
		w.check(p.buf.n == held, "%q holds %d bytes, should be %d", p.name, p.buf.n, held)
		w.check(p.reader.attached() || p.writer.attached() || w.closed, "%q is nobody's", p.name)
		w.check(p.unconfirmed >= 0 && p.unconfirmed <= worldWindow, "%q has %d bytes unconfirmed", p.name, p.unconfirmed)
		w.check(p.readable() <= worldMessage+worldWrite, "%q has %d bytes to be read", p.name, p.readable())
	}
	var ends int
	for _, a := range w.actors {
		requests, bytes := a.session.account.requests, a.session.account.bytes
		for channel, c := range a.session.talks {
			k := a.call(channel)
			w.check(c.pipe == k.pipe, "%s.%d is on another pipe than it knows", a.name, channel)
			w.check(c.pipe != nil || c.queue.len() > 0, "%s.%d: a conversation of nothing", a.name, channel)
			w.check(c.queue.len() == len(k.waiting),
				"%s.%d: %d requests, but %d answers are missing", a.name, channel, c.queue.len(), len(k.waiting))
			ends++
			requests, bytes = requests-c.queue.len(), bytes-c.queue.bytes
		}
		w.check(requests == 0 && bytes == 0, "%s: %d requests and %d bytes too many are counted", a.name, requests, bytes)
		for channel, k := range a.calls {
			w.check(a.session.talks[channel] != nil || k.pipe == nil && len(k.waiting) == 0, "%s.%d: forgotten", a.name, channel)
		}
	}
	w.check(len(w.alarms) <= ends, "%d alarms for %d conversations", len(w.alarms), ends)
}

// quiet checks what is true when no wake-up is on its way: who waits does so for
// something that is not there.
func (w *world) quiet() {
	for _, a := range w.actors {
		if len(a.session.backlog) > 0 {
			continue
		}
		for channel, c := range a.session.talks {
			p := c.pipe
			if c.queue.len() == 0 {
				told := p == nil || c.role == reader || !p.over() || !a.agreed || a.call(channel).told
				w.check(told, "%s.%d does not know that its pipe is dead", a.name, channel)
				continue
			}
			w.check(p != nil, "%s.%d waits for nothing", a.name, channel)
			q := c.queue.front()
			switch q.id {
			case msgRead:
				enough := p.readable() >= int(min(q.size, worldMessage)) ||
					q.flags&(readAny|readStream) != 0 && p.readable() > 0
				w.check(!enough && !p.writer.left, "%s.%d: a READ waits for what is there", a.name, channel)
				for _, other := range w.actors {
					for _, d := range other.session.talks {
						w.check(d.pipe != p || d.role == reader || d.queue.len() == 0, "READ and WRITE wait for each other on %q", p.name)
					}
				}
			case msgWrite:
				fits := p.reader.open && p.readable()+len(q.chunk) <= worldPending
				w.check(!fits && !p.over(), "%s.%d: a WRITE waits for what is there", a.name, channel)
			default:
				w.fail("%s.%d: %s waits", a.name, channel, wireLayout[q.id].name)
			}
			w.check(c.deadline.IsZero() || w.now.Before(c.deadline), "%s.%d: its deadline has passed", a.name, channel)
			w.check(c.deadline.IsZero() || c.alarm.place > 0, "%s.%d: nobody will wake it", a.name, channel)
		}
	}
	for _, l := range w.insiders {
		if p := l.pipe; p.side(l.role).want > 0 && !l.woken {
			there := l.role == reader && p.readable() > 0 || l.role == writer && p.room() > 0
			w.check(!there && !p.over(), "inside: a %v of %q waits for what is there", l.role, p.name)
		}
	}
}

// end closes the broker, lets what is under way end, and drops all. Nothing must
// be left.
func (w *world) end() {
	w.closed = true
	w.note("the broker closes")
	for p := range w.pipes.held {
		if f := w.flow(p); !p.writer.left && !p.reader.left {
			f.in = f.in[:len(f.in)-p.unconfirmed]
		}
	}
	w.pipes.close(cause{causeBrokerGone, "closing"}, false)
	for range 200 {
		w.step()
	}
	for _, a := range w.actors {
		w.vanish(a)
	}
	for _, l := range w.insiders {
		w.insideLeaves(l, cause{})
	}
	w.resume(math.MaxInt)
	w.check(len(w.posted) == 0 && len(w.alarms) == 0, "%d wake-ups and %d alarms are left", len(w.posted), len(w.alarms))
	held := len(w.pipes.pipes) + len(w.pipes.dead)
	w.check(held == 0, "%d pipes are left", held)
	w.check(w.pipes.emptied(), "the registry still waits for readers")
	var in, out int64
	for p, f := range w.streams {
		w.check(p.out == int64(f.out), "%q counts %d bytes read, should be %d", p.name, p.out, f.out)
		in, out = in+p.in, out+p.out
	}
	s := w.pipes.stats()
	w.check(s.BytesIn == in && s.BytesOut == out,
		"%d bytes in and %d out were counted, should be %d and %d", s.BytesIn, s.BytesOut, in, out)
}

func TestSimulation(t *testing.T) {
	rounds, steps := 100, 2000
	if testing.Short() {
		rounds = 10
	}
	count := make(map[string]int)
	for seed := range rounds {
		w := newWorld(t, uint64(seed))
		w.note("seed %d", seed)
		w.count = count
		for i := range 4 {
			a := &actor{name: string('A' + rune(i))}
			w.connect(a)
			w.actors = append(w.actors, a)
		}
		for range steps {
			w.step()
		}
		w.end()
	}
	for id := msgInput; id <= msgInvalid; id++ {
		switch name := wireLayout[id].name; id {
		case msgInput, msgOutput, msgRead, msgWrite, msgClose, msgPing, msgCloseFailed:
			if count[name] > 0 {
				t.Errorf("the broker said %s", name)
			}
		default:
			if count[name] < rounds {
				t.Errorf("%s occurred %d times; the simulation does not reach what it should", name, count[name])
			}
		}
	}
	t.Log(count)
}
