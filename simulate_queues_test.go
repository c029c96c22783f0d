package zpipes

import (
	"bytes"
	"container/list"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// In a world of queues, all kinds of clients use a few of them: some send and receive
// whole chunks, some read or write bytes, some use the text interface, some are in the
// broker's process. A few names are streams, which get in the way. Whatever happens,
//
//   - each chunk that was taken is in one place, or was received once. It comes again
//     only if its receiver left before it said that it had it;
//   - a sender's chunks come in the order in which it sent them, but for those that came
//     back; who asks first is served first;
//   - each request has one answer, the right one, in its turn;
//   - what the stores count is what is there, and bounded;
//   - nothing waits for what is there already;
//   - in the end nothing is left of anybody.
func TestSimulateQueues(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newQueueWorld(s, count)
	})
	for _, what := range queueEvents {
		if worlds >= enoughWorlds && count[what] < worlds/20 {
			t.Errorf("%s: %d times; the simulation does not reach what it should", what, count[what])
		}
	}
	t.Log(count)
}

// queueEvents are what should happen in a world of queues.
var queueEvents = []string{
	"INPUT_OK", "INPUT_FAILED", "OUTPUT_OK", "OUTPUT_FAILED", "READ_OK", "READ_END", "READ_TIMEOUT", "READ_FAILED",
	"WRITE_OK", "WRITE_TIMEOUT", "WRITE_FAILED", "CLOSE_OK", "PING_OK", "INVALID",
	"OPEN OK", "OPEN ERROR", "READ chunk", "READ ERROR", "WRITE OK", "WRITE ERROR", "CLOSE OK", "CLOSE ERROR",
	"received inside", "came back", "dropped with its sender", "deleted", "forgotten", "shut down", "closed",
}

const (
	queueNames   = 4
	queueMost    = 14  // how many pipes and queues, and how many have a queue open
	queuePending = 250 // bytes a queue holds
	queueMessage = 200 // bytes of the largest chunk, and of what a READ is answered with
)

type queueWorld struct {
	*sim
	guests   []*guest
	insiders []*inside
	books    map[*store]*book
	pieces   [256]*piece // by color; the first is nobody's
	empty    []*piece    // those without a byte
	tickets  map[receiver]ticket
	n        int   // which step it is
	serial   int   // numbers the pieces
	retired  int64 // bytes that queues took whose books are closed
	closed   bool
	void     bool           // all queues are
	count    map[string]int // of what happened
	tape     *tape          // nil: nobody wants a history
}

// A guest is a client outside of the broker's process.
type guest struct {
	name      string
	kind      guestKind
	session   *session
	agreed    bool
	congested bool
	lost      bool // its connection is, and nobody has noticed
	noticed   bool // somebody has
	doomed    bool // the session ends with what is being done
	pings     int
	holds     map[uint32]*hold
	said      []*said         // by text, and not answered
	lines     map[string]*row // by queue
}

type guestKind int

const (
	guestOld guestKind = iota
	guestModern
	guestText
)

// A hold is what a client knows of one of its channels.
type hold struct {
	store   *store
	end     *queueEnd // in the broker; tells one hold from the next
	stream  bool      // it is no queue that was opened
	whole   bool
	role    role
	told    bool // that nothing more can be sent, or to a reader: the end
	waiting []*wish
	line    *row
	last    map[*row]int // the number of the last chunk of each sender that came

	// One of whole chunks.
	sent      []*piece // not confirmed
	asked     int
	at        int // when
	answering bool
	returns   int // that are to be answered
	refused   int // WRITEs that are to fail
	out       []*piece
	ended     bool

	// A reader of bytes.
	got  []run // since the READ that is answered began
	cur  *piece
	left int // of cur, to come
}

type run struct {
	p *piece
	n int
}

// A wish is a request with one answer.
type wish struct {
	asked
	p *piece // a WRITE's
}

// A ticket says when a receiver asked.
type ticket struct {
	at    int           // the step
	place *list.Element // a reader of bytes asks anew after each chunk
}

// said is a command of the text interface.
type said struct {
	verb, name string
	wrong      bool // not a command
	p          *piece
	fails      bool // a CLOSE came behind it
	at         int
}

// An inside is a Queue in the broker's process.
type inside struct {
	w     *queueWorld
	store *store
	lane  lane
	line  row
	last  map[*row]int
	sent  []*piece
	ask   *insideAsk
	at    int
	over  bool
}

type insideAsk struct {
	l     *inside
	place *list.Element
}

func newQueueWorld(s *sim, count map[string]int) *queueWorld {
	w := &queueWorld{sim: s, books: make(map[*store]*book), tickets: make(map[receiver]ticket), count: count}
	w.pipes = newRegistry(queueMost, queuePending, queueMessage)
	for i, kind := range []guestKind{guestModern, guestModern, guestText, guestText, guestOld, guestOld, guestOld} {
		g := &guest{name: string('A' + rune(i)), kind: kind}
		w.connect(g)
		w.guests = append(w.guests, g)
	}
	return w
}

func (w *queueWorld) connect(g *guest) {
	*g = guest{name: g.name, kind: g.kind, holds: make(map[uint32]*hold), lines: make(map[string]*row)}
	g.session = newSession(w, w.pipes, []byte(g.name), worldExpiry, w.now)
}

func (g *guest) hold(channel uint32) *hold {
	k := g.holds[channel]
	if k == nil {
		k = &hold{line: new(row)}
		g.holds[channel] = k
	}
	return k
}

func (w *queueWorld) step() {
	r := w.r
	w.n++
	g := w.guests[r.IntN(len(w.guests))]
	switch n := r.IntN(1000); {
	case n < 600:
		if g.kind == guestText {
			w.command(g)
		} else {
			w.act(g)
		}
	case n < 770:
		w.resume(1 + r.IntN(5))
	case n < 860:
		w.inside()
	case n < 890:
		w.pass(w.now.Add(time.Duration(r.IntN(20)) * time.Millisecond))
	case n < 900:
		g.congested = true
	case n < 940:
		for _, g := range w.guests {
			if g.congested {
				w.relieve(g)
			}
		}
	case n < 944:
		w.note("%s vanishes", g.name)
		w.vanish(g)
		w.connect(g)
	case n < 948:
		w.note("%s is lost", g.name)
		g.lost = true
	case n < 951:
		w.silence(g)
	case n < 956:
		w.forget()
	case n < 957:
		if r.IntN(4) == 0 {
			w.close(r.IntN(2) == 0)
		}
	default:
		w.resume(math.MaxInt)
		w.quiet()
	}
	w.holds()
	for _, g := range w.guests {
		if g.noticed {
			w.note("%s was lost", g.name)
			w.vanish(g)
			w.connect(g)
			w.holds()
		}
	}
}

func (w *queueWorld) relieve(g *guest) {
	g.congested = false
	g.session.backlog = nil
	for _, c := range g.session.talks {
		w.post(c)
	}
}

// close shuts the broker down, or with all set, closes it.
func (w *queueWorld) close(all bool) {
	w.note("the broker closes (at once: %v)", all)
	if all {
		w.count["closed"]++
	} else {
		w.count["shut down"]++
	}
	w.closed, w.void = true, w.void || all
	w.pipes.close(cause{causeBrokerGone, "closing"}, all)
	for s, b := range w.books {
		b.void = b.void || s.void
	}
}

// forget deletes queues that nobody uses.
func (w *queueWorld) forget() {
	if w.closed {
		return
	}
	for _, name := range w.pipes.forget(time.Duration(1+w.r.IntN(100))*time.Millisecond, w.now) {
		w.note("%q is forgotten", name)
		w.count["forgotten"]++
		b := w.bookOf(name)
		w.check(b.ends == 0, "%q was forgotten, and is open %d times", name, b.ends)
		b.deleted, b.void = true, true
	}
}

// silence lets so much time pass that a client expires, of which no other one does.
func (w *queueWorld) silence(g *guest) {
	w.pass(g.session.heard.Add(g.session.expiry))
	for _, other := range w.guests {
		if other == g {
			continue
		}
		if other.kind == guestText {
			other.session.heard = w.now
		} else {
			w.deliver(other, message{id: msgPing})
		}
		w.check(!other.session.expire(w.now), "%s was not silent", other.name)
	}
	if g.session.text != nil && g.session.text.waiting.len() > 0 {
		w.check(!g.session.expire(w.now), "%s waits by text, and expired", g.name)
		return
	}
	w.note("%s was silent", g.name)
	w.dooms(g)
	w.check(g.session.expire(w.now), "%s did not expire", g.name)
	w.buried(g)
}

// vanish drops a client as the broker does when its connection is lost.
func (w *queueWorld) vanish(g *guest) {
	w.leaveAll(g)
	g.session.drop(cause{code: causeVanished}, nil)
	g.session.gone = true
	w.check(len(g.session.talks) == 0, "conversations of nobody")
}

// act has a client of the binary protocol do something.
func (w *queueWorld) act(g *guest) {
	r := w.r
	if g.kind == guestModern && !g.agreed || r.IntN(2000) == 0 {
		w.deliver(g, message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: worldBeat}})
		return
	}
	m := message{channel: 1 + r.Uint32N(3)}
	if !g.agreed {
		m.channel = 0
	}
	k := g.hold(m.channel)
	opening := slices.ContainsFunc(k.waiting, func(q *wish) bool { return q.id == msgInput || q.id == msgOutput })
	switch sense := r.IntN(100); {
	case opening || sense < 3 || sense < 40 && (k.stream || k.told):
		m.id = msgClose
		m.code = causeCode(r.IntN(4))
		m.count = r.Uint32N(60)
	case len(k.waiting) > 4 || k.stream:
		return
	case sense < 4:
		m.id = msgRead + 5*messageID(r.IntN(2)) // perhaps the wrong one
	case k.store == nil || sense == 4 && r.IntN(10) == 0:
		w.open(g, &m)
	case k.whole && sense < 50, !k.whole && k.role == reader:
		m.id = msgRead
	default:
		m.id = msgWrite
	}
	if r.IntN(3) == 0 {
		m.timeout = 1 + r.Uint32N(40)
	}
	switch m.id {
	case msgRead:
		w.reads(k, &m)
	case msgWrite:
		if !w.writes(g, k, &m) {
			return
		}
	}
	if g.agreed {
		m.block = hasBlock
	}
	w.deliver(g, m)
}

func (w *queueWorld) open(g *guest, m *message) {
	r := w.r
	m.id, m.text = msgInput, []byte(w.name())
	if !g.agreed {
		m.id += 3 * messageID(r.IntN(2))
		return
	}
	switch n := r.IntN(100); {
	case n < 70:
		m.mode = modeQueue
	case n < 80:
		m.id = msgOutput
	case n < 90:
	case n < 94:
		m.mode = modeDelete
	default:
		m.mode = byte(r.IntN(5))
	}
}

func (w *queueWorld) name() string {
	if w.r.IntN(100) == 0 {
		return ""
	}
	return "q" + string('0'+rune(w.r.IntN(queueNames)))
}

func (w *queueWorld) reads(k *hold, m *message) {
	r := w.r
	if k.whole {
		m.size, m.flags = r.Uint32N(4), readReturn*byte(r.IntN(8)/7)
		if n := uint32(len(k.out)); r.IntN(100) > 0 {
			m.count = r.Uint32N(n + 1)
		} else {
			m.count = n + 1
		}
		return
	}
	m.flags = byte(r.IntN(4))
	switch r.IntN(20) {
	case 0:
	case 1:
		m.size = queueMessage + r.Uint32N(queueMessage)
	case 2:
		m.size, m.flags = math.MaxUint32, m.flags&readAny
	default:
		m.size = 1 + r.Uint32N(queueMessage/2)
	}
}

// writes makes a WRITE of chunks, or of one; false: there are enough on their way.
func (w *queueWorld) writes(g *guest, k *hold, m *message) bool {
	r := w.r
	if !k.whole {
		m.chunk = w.chunk(false)
		return m.chunk != nil
	}
	if len(k.sent) > 5 {
		return false
	}
	if r.IntN(200) == 0 {
		m.chunk = []byte{0, 0, 0, 9, 1}[:r.IntN(5)]
		return true
	}
	for range 1 + r.IntN(3) {
		c := w.chunk(true)
		if c == nil {
			return false
		}
		m.chunk = appendRecord(m.chunk, c)
	}
	return true
}

// chunk makes a chunk, whose color is reserved until the end of the step if nobody
// sends it; nil: there are too many already. An empty one has none, so it is only for
// those who put it into their queue at once.
func (w *queueWorld) chunk(empty bool) []byte {
	n := 1 + w.r.IntN(60)
	switch k := w.r.IntN(30); {
	case k == 0 && empty:
		return []byte{}
	case k == 1:
		n = 1 + w.r.IntN(queueMessage)
	case k == 2:
		n = queueMessage + w.r.IntN(3)
	}
	for color := 1; color < len(w.pieces); color++ {
		if w.pieces[color] == nil {
			w.pieces[color] = &piece{color: byte(color), size: n}
			return bytes.Repeat([]byte{byte(color)}, n)
		}
	}
	return nil
}

// command has a client of the text interface say something.
func (w *queueWorld) command(g *guest) {
	r := w.r
	if len(g.said) > 5 {
		return
	}
	q := &said{name: w.name(), at: w.n}
	var frames [][]byte
	switch n := r.IntN(100); {
	case n < 1:
		q.wrong, q.verb = true, "DANCE"
	case n < 2:
		q.wrong, q.verb, q.name = true, textWrite, ""
	case n < 15:
		q.verb = textOpen
	case n < 22:
		q.verb = textClose
	case n < 60:
		q.verb = textRead
	default:
		q.verb = textWrite
	}
	frames = [][]byte{[]byte(q.verb), []byte(q.name)}
	if q.verb == textWrite && !q.wrong {
		c := w.chunk(false)
		if c == nil {
			return
		}
		if g.lines[q.name] == nil {
			g.lines[q.name] = new(row)
		}
		q.p = w.begins(c, g.lines[q.name], q.name, nil)
		frames = append(frames, c)
	}
	if w.logs {
		w.note("%s > %s", g.name, commanded(frames))
	}
	if q.verb == textClose {
		for _, other := range g.said {
			other.fails = other.fails || other.verb == textRead && other.name == q.name
		}
	}
	g.said = append(g.said, q)
	g.session.handleText(frames, w.now)
}

func commanded(frames [][]byte) string {
	if len(frames) == 3 || len(frames) == 1 && string(frames[0]) != textOK {
		last := len(frames) - 1
		c := frames[last]
		s := fmt.Sprintf("a chunk of %d bytes", len(c))
		if len(c) > 0 {
			s = fmt.Sprintf("chunk %d of %d bytes", c[0], len(c))
		}
		return strings.TrimSpace(string(bytes.Join(frames[:last], []byte(" "))) + " " + s)
	}
	return string(bytes.Join(frames, []byte(" ")))
}

// inside has something happen in the broker's process.
func (w *queueWorld) inside() {
	r := w.r
	if len(w.insiders) < 2 {
		l := &inside{w: w, last: make(map[*row]int)}
		l.lane.wake = func() {}
		s, why := w.pipes.enter(w.name(), &l.lane, true, w.now)
		if why == nil {
			w.note("inside: %d opens %q", len(w.insiders), s.name)
			l.store = s
			w.bookFor(s).ends++
			w.insiders = append(w.insiders, l)
		}
		return
	}
	i := r.IntN(len(w.insiders))
	l := w.insiders[i]
	s := l.store
	switch n := r.IntN(100); {
	case n < 2 || l.over || s.over != nil && s.count == 0:
		w.note("inside: %d leaves %q", i, s.name)
		w.insideLeaves(l)
		w.insiders = slices.Delete(w.insiders, i, i+1)
	case n < 40 && s.over == nil && len(l.sent) < 5:
		c := w.chunk(true)
		if c == nil || len(c) > s.largest {
			return
		}
		p := w.begins(c, &l.line, s.name, s)
		l.sent = append(l.sent, p)
		w.note("inside: %d sends chunk %d of %d bytes to %q", i, p.color, p.size, s.name)
		s.push(&l.lane, c)
	case l.ask != nil && n < 50:
		w.note("inside: %d gives up", i)
		s.demands.Remove(l.ask.place)
		s.settle()
		l.ask = nil
	case l.ask == nil:
		w.note("inside: %d asks %q", i, s.name)
		l.lane.receives = true
		a := &insideAsk{l: l}
		l.ask, l.at = a, w.n
		a.place = s.demand(a)
	}
}

func (w *queueWorld) insideLeaves(l *inside) {
	if l.ask != nil {
		l.store.demands.Remove(l.ask.place)
		l.store.settle()
	}
	w.confirmInside(l)
	w.pipes.exit(l.store, &l.lane, w.now)
	w.books[l.store].ends--
	w.mayBe(l.sent)
}

// confirmInside notes what the store has taken of an insider's chunks.
func (w *queueWorld) confirmInside(l *inside) {
	for l.lane.pushed-l.lane.settled < int64(len(l.sent)) {
		w.confirm(l.sent[0])
		l.sent = l.sent[1:]
	}
}

func (a *insideAsk) take(chunk []byte) {
	l := a.l
	w := l.w
	l.ask = nil
	if chunk == nil {
		w.check(l.store.over != nil, "inside: told of an end that is none")
		l.over = true
		return
	}
	if w.logs {
		w.note("inside: %s came", commanded([][]byte{chunk}))
	}
	w.count["received inside"]++
	w.inTurn(l.store, a)
	p := w.received(l.store, chunk, l, l.last)
	w.tape.receive(p, l.at, w.n)
	w.gone(p)
	l.store.release(chunk)
}
