package zpipes

import (
	"container/list"
	"math"
	"time"
)

const (
	queueNames   = 4
	queueMost    = 14  // how many pipes and queues, and how many have a queue open
	queuePending = 250 // bytes a queue holds
	queueMessage = 200 // bytes of the largest chunk, and of what a READ is answered with
)

type queueWorld struct {
	*sim
	user     *account // all inproc connections'
	guests   []*guest
	insiders []*inside
	books    map[*chunkQueue]*book
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

// A inproc connection is a client outside of the broker's process.
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
	queue   *chunkQueue
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
	w      *queueWorld
	queue  *chunkQueue
	sender senderQueue
	line   row
	last   map[*row]int
	sent   []*piece
	ask    *insideAsk
	at     int
	over   bool
}

type insideAsk struct {
	l     *inside
	place *list.Element
}

func newQueueWorld(s *sim, count map[string]int) *queueWorld {
	w := &queueWorld{sim: s, books: make(map[*chunkQueue]*book), tickets: make(map[receiver]ticket), count: count}
	w.pipes = newRegistry(queueMost, queuePending, queueMessage)
	w.user = newSimUser(w, queuePending*3/2)
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
	g.session.account.above = w.user
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
	case n < 964:
		w.forget()
	case n < 965:
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
	g.session.unload(math.MaxInt, func([][]byte) error { return nil })
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
	for _, name := range forgetAll(w.pipes, time.Duration(1+w.r.IntN(100))*time.Millisecond, w.now) {
		w.note("%q is forgotten", name)
		w.count["forgotten"]++
		b := w.bookOf(name)
		w.check(b.ends == 0, "%q was forgotten, and is open %d times", name, b.ends)
		b.deleted, b.void = true, true
	}
}

// silence lets so much time pass that a client expires, of which no other one does.
func (w *queueWorld) silence(g *guest) {
	w.pass(g.session.excused().Add(g.session.expiry))
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
	w.check(len(g.session.channels) == 0, "conversations of nobody")
}
