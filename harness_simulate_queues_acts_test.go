package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
)

// act has a client of the binary protocol do something.
func (w *queueWorld) act(g *guest) {
	r := w.r
	if g.kind == guestModern && !g.agreed || r.IntN(2000) == 0 {
		w.deliver(g, message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: worldBeat}})
		return
	}
	if g.agreed && r.IntN(500) == 0 { // it takes its leave
		w.deliver(g, message{id: msgClose, block: hasBlock})
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
	case k.queue == nil || sense == 4 && r.IntN(10) == 0:
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
		if !w.writes(k, &m) {
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
func (w *queueWorld) writes(k *hold, m *message) bool {
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
		l.sender.wake = func() {}
		s, why := w.pipes.enter(w.name(), &l.sender, true, w.now)
		if why == nil {
			w.note("inside: %d opens %q", len(w.insiders), s.name)
			l.queue = s
			w.bookFor(s).ends++
			w.insiders = append(w.insiders, l)
		}
		return
	}
	i := r.IntN(len(w.insiders))
	l := w.insiders[i]
	s := l.queue
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
		s.push(&l.sender, c)
	case l.ask != nil && n < 50:
		w.note("inside: %d gives up", i)
		s.demands.Remove(l.ask.place)
		s.settle()
		l.ask = nil
	case l.ask == nil:
		w.note("inside: %d asks %q", i, s.name)
		s.receives(&l.sender, true)
		a := &insideAsk{l: l}
		l.ask, l.at = a, w.n
		a.place = s.demand(a)
	}
}

func (w *queueWorld) insideLeaves(l *inside) {
	if l.ask != nil {
		l.queue.demands.Remove(l.ask.place)
		l.queue.settle()
	}
	w.confirmInside(l)
	w.pipes.exit(l.queue, &l.sender, w.now)
	w.books[l.queue].ends--
	w.mayBe(l.sent)
}

// confirmInside notes what the queue has taken of an insider's chunks.
func (w *queueWorld) confirmInside(l *inside) {
	for l.sender.pushed-l.sender.settled < int64(len(l.sent)) {
		w.confirm(l.sent[0])
		l.sent = l.sent[1:]
	}
}

func (a *insideAsk) take(j *job) {
	l := a.l
	w := l.w
	l.ask = nil
	if j == nil {
		w.check(l.queue.over != nil, "inside: told of an end that is none")
		l.over = true
		return
	}
	chunk := j.data
	if w.logs {
		w.note("inside: %s came", commanded([][]byte{chunk}))
	}
	w.count["received inside"]++
	w.inTurn(l.queue, a)
	p := w.received(l.queue, chunk, l, l.last)
	w.tape.receive(p, l.at, w.n)
	w.gone(p)
	l.queue.release(j)
}
