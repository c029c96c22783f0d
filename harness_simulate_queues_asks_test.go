package zpipes

import (
	"bytes"
	"math"
	"slices"
)

// deliver hands a message to a client's session, and notes what answers it should have.
func (w *queueWorld) deliver(g *guest, m message) {
	frame := m.append(nil)
	m, _ = parse(bytes.Clone(frame)) // without what has no place in it
	if w.logs {
		w.note("%s.%d > %s", g.name, m.channel, asking(m, frame, nil)+chunksOf(&m, g.hold(m.channel)))
	}
	k := g.hold(m.channel)
	q := &wish{asked: asked{message: m, at: w.now, left: m.size}}
	switch {
	case m.id == msgPing:
		g.pings++
		if m.block == hasBlock {
			w.leaveAll(g)
			g.agreed = true
		}
	case m.id == msgClose && m.channel == 0 && g.agreed:
		w.leaveAll(g) // and nothing is answered
		g.doomed = true
	case m.id == msgClose && len(k.waiting) > 0:
		k.waiting[0].fails = true
		k.waiting = slices.Insert(k.waiting, 1, q)
		w.letsGo(g, k, m.code, int(m.count))
	case k.whole && m.id == msgRead && len(k.waiting) == 0 && int(m.count) <= len(k.out):
		w.wants(k, &m)
	case k.whole && m.id == msgWrite && len(k.waiting) == 0:
		if !w.offers(k, &m) {
			q.invalid = true
			k.waiting = append(k.waiting, q)
			w.begun(g, k)
		}
	default:
		if m.id == msgWrite && !k.whole {
			to := ""
			if k.queue != nil {
				to = k.queue.name
			}
			q.p = w.begins(m.chunk, k.line, to, nil)
		}
		q.invalid = k.whole && m.id != msgClose
		k.waiting = append(k.waiting, q)
		if len(k.waiting) == 1 {
			w.begun(g, k)
		}
	}
	deliver(g.session, frame, w.now)
	w.check(g.pings == 0, "%d PINGs were not answered at once", g.pings)
	w.check(m.id != msgClose || !slices.Contains(k.waiting, q), "CLOSE was not answered at once")
	w.buried(g)
}

// wants is a READ of whole chunks.
func (w *queueWorld) wants(k *hold, m *message) {
	for _, p := range k.out[:m.count] {
		w.gone(p)
	}
	k.out = k.out[m.count:]
	if m.flags&readReturn != 0 {
		w.comesBack(k.out)
		k.out, k.asked = nil, 0
		k.returns++
		delete(w.tickets, k.end)
	}
	if m.size == 0 {
		return
	}
	if k.asked == 0 { // else it keeps its place
		k.at = w.n
	}
	k.asked = int(m.size)
}

// offers is a WRITE of whole chunks, and says whether it is a proper one.
func (w *queueWorld) offers(k *hold, m *message) bool {
	chunks, ok := recordsOf(m.chunk, 100)
	if !ok {
		return false
	}
	if k.queue.over != nil {
		k.refused++
		return true
	}
	for _, c := range chunks {
		if len(c) > queueMessage {
			return false
		}
	}
	for _, c := range chunks {
		k.sent = append(k.sent, w.begins(c, k.line, k.queue.name, k.queue))
	}
	return true
}

// begun says what follows at once from a request whose turn it is.
func (w *queueWorld) begun(g *guest, k *hold) {
	if len(k.waiting) == 0 || k.queue == nil {
		return
	}
	switch q := k.waiting[0]; {
	case q.invalid || q.id == msgInput || q.id == msgOutput:
		w.letsGo(g, k, causeVanished, 0)
	case q.id == msgClose:
		w.letsGo(g, k, q.code, int(q.count))
	case q.id == msgRead && q.size > 0 && k.role == reader:
		w.has(k, math.MaxInt) // it says that all before it was received
	}
}

// has records that a reader of bytes has so many of what it was sent.
func (w *queueWorld) has(k *hold, n int) {
	for _, r := range k.got {
		n -= r.n
		r.p.size -= min(r.n, max(0, n+r.n))
		if r.p.size == 0 {
			w.gone(r.p)
		}
	}
	k.got = nil
}

// dooms says that all that a client has open fails now, and its session ends.
func (w *queueWorld) dooms(g *guest) {
	g.doomed = true
	for _, k := range g.holds {
		if len(k.waiting) > 0 {
			k.waiting[0].fails = true
		}
		w.letsGo(g, k, causeVanished, 0)
	}
}

func (w *queueWorld) buried(g *guest) {
	w.check(g.doomed == g.session.gone, "%s: the session has ended: %v, but should have: %v", g.name, g.session.gone, g.doomed)
	if g.doomed {
		w.leaveAll(g)
		w.connect(g)
	}
}

// leaveAll records that a client has nothing open any more, and does not say more.
func (w *queueWorld) leaveAll(g *guest) {
	for _, channel := range sortedKeys(g.holds) {
		k := g.holds[channel]
		for _, q := range k.waiting {
			if q.p != nil {
				w.mayBe([]*piece{q.p})
			}
		}
		w.letsGo(g, k, causeVanished, 0)
		w.leave(k)
	}
	clear(g.holds)
	w.forgetsSaid(g)
}

func (w *queueWorld) forgetsSaid(g *guest) {
	for _, q := range g.said {
		if q.p != nil {
			w.mayBe([]*piece{q.p})
		}
	}
	g.said = nil
}

// letsGo records that what a client was sent and does not have goes back, if it leaves
// for that reason.
func (w *queueWorld) letsGo(g *guest, k *hold, code causeCode, unread int) {
	w.comesBack(k.out)
	k.out = nil
	sent := 0
	var back []*piece
	for _, r := range k.got {
		sent += r.n
		back = append(back, r.p)
	}
	switch {
	case !g.agreed:
		unread = 0
	case code == causeVanished:
		unread = sent
	}
	w.has(k, max(0, sent-unread))
	w.comesBack(back)
}

// leave records that a client has closed, or lost, what it had open on a channel.
func (w *queueWorld) leave(k *hold) {
	if k.queue != nil {
		w.books[k.queue].ends--
		w.mayBe(k.sent)
	}
	*k = hold{waiting: k.waiting, line: new(row)}
}
