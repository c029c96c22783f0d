package zpipes

import (
	"math/rand/v2"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A rendezvous is what a pipe with a name has at a broker of a cluster, so that its ends find
// others at other brokers. The pipe's mu guards it.
type rendezvous struct {
	pipe     *pipe
	exchange *exchange
	fixed    bool          // it is a connection's, and both brokers know each other
	tokens   [2]meet.Token // of its ends; 0: it is not there, or not sure, or another broker's

	seat   meet.Seat     // the writer's, where that is at another broker
	holder *streamWriter // that writer; nil: it has lost its way here
	parted int           // how often it has
	relay  *relay        // has the reader's side, where that is at another broker
	places [2]string     // what people call the broker of an end that is elsewhere

	// The exchange's:
	timed  int                   // the last parted that it has seen
	relays map[meet.Token]*relay // of a broadcast, by the readers that they were begun for

	mail letter[*rendezvous]
}

var _ addressee[*rendezvous] = (*rendezvous)(nil)

func (m *rendezvous) letter() *letter[*rendezvous] { return &m.mail }

// changed has the exchange look at the pipe, whose mu is held.
func (m *rendezvous) changed() {
	if m != nil && m.exchange.changed.put(m) {
		m.exchange.host.ring()
	}
}

// elsewhere says that the end is another broker's.
func (m *rendezvous) elsewhere(r role) bool {
	if r == reader {
		return m.relay != nil
	}
	return m.seat.Writer != 0
}

// place is where that end is, if it is at another broker.
func (m *rendezvous) place(r role) string {
	if m == nil || !m.elsewhere(r) {
		return ""
	}
	return m.places[r]
}

// A sight is what the exchange sees of a pipe's ends.
type sight struct {
	tokens [2]meet.Token // of those that are there
	fresh  [2]bool       // since the last look
	gone   [2]meet.Token // that were there then
	paired bool
	many   bool     // the writer takes all readers
	parted int      // the writer has lost its way, for so many times; 0: it has not
	at     memberID // where it is
}

// look says which of the pipe's ends are there, to meet others.
func (m *rendezvous) look() (s sight) {
	p := m.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.seat.Writer != 0 && m.holder == nil {
		s.parted, s.at = m.parted, memberID(m.seat.At)
	}
	if m.fixed {
		return s
	}
	for r := range m.tokens {
		t := &m.tokens[r]
		switch there := m.there(role(r)); {
		case there && *t == 0:
			*t = meet.Token(rand.Uint64() | 1)
			s.fresh[r] = true
		case !there && *t != 0:
			s.gone[r], *t = *t, 0
		}
		s.tokens[r] = *t
	}
	s.paired, s.many = p.paired(), p.use == trunk
	m.seat.Reader = m.tokens[reader]
	return s
}

// there says that an end is, which may meet others at other brokers. The pipe's mu is held.
func (m *rendezvous) there(r role) bool {
	p := m.pipe
	switch {
	case p.over() || p.use == branch || m.elsewhere(r):
		return false
	case p.use == trunk && r == reader: // several wait for a writer again, who was never there
		return !p.writer.open && p.cast.sure > 0
	}
	return p.side(r).sure
}

// paired says that both ends are there, wherever they are.
func (p *pipe) paired() bool {
	if p.use == trunk {
		return p.writer.sure && p.cast.sure > 0
	}
	return p.reader.sure && p.writer.sure
}

// meets has a pipe's ends find others at other brokers, if there are some. Its mu is held, too.
func (g *registry) meets(p *pipe) {
	switch {
	case g.exchange == nil:
	case p.rendezvous == nil:
		p.meetAt(&rendezvous{pipe: p, exchange: g.exchange})
	default:
		p.rendezvous.changed()
	}
}

// farewells are the last writers at other brokers that have said themselves why they leave. Who
// does not get the answer, because its connection is lost, asks by another one.
type farewells struct {
	of    map[meet.Token]bool
	order fifo[meet.Token]
}

const maxFarewells = 4096

func (f *farewells) add(w meet.Token) {
	if f.of == nil {
		f.of = make(map[meet.Token]bool)
	}
	if f.order.len() == maxFarewells {
		delete(f.of, f.order.pop())
	}
	f.of[w] = true
	f.order.push(w)
}

// causeNoSeat is why another broker's writer can't attach.
var causeNoSeat = cause{causeConflict, "that reader is not there any more, or has another writer"}

// admitFar attaches e, a writer at another broker, to a reader at this one; or has it go on by
// another way (again). cast is a broadcast's. Until it has shown itself, it can be withdrawn as
// others can.
func (g *registry) admitFar(name string, r, w meet.Token, at memberID, cast *broadcastConfig, e *streamWriter, now time.Time) (p *pipe, again bool, why *cause) {
	key := g.keyOf(name)
	var fresh *pipe
	if cast != nil {
		fresh = newTrunk(g, name, now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return nil, false, g.closed
	}
	if g.said.of[w] {
		return nil, false, &cause{code: causeClosed}
	}
	p, again = g.far[w]
	if !again {
		if known := g.names.find(key, name); known != nil {
			p = known.stream
		}
	}
	if p == nil || p.rendezvous == nil {
		return nil, false, &causeNoSeat
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.rendezvous
	if again && m.seat.At == meet.Member(at) { // also where the reader has left meanwhile
		if p.rouse(writer, e.channel.recheck); m.fixed && !p.writer.sure {
			p.propose(writer, e.channel.recheck)
			again = false
		}
	} else {
		m.seat.Local = p.writer.open && m.seat.Writer == 0
		if p.over() || p.use == trunk && cast == nil {
			return nil, false, &causeNoSeat
		}
		if ok, there := m.seat.Admit(r, w, meet.Member(at)); !ok || there {
			return nil, false, &causeNoSeat
		}
		if cast != nil {
			seat := m.seat
			m.seat.Leave()
			cfg := *cast
			cfg.keep, cfg.await = min(cfg.keep, g.maxPending), 0 // that was waited for
			p = g.graft(p, fresh, key, cfg)
			m = p.rendezvous
			m.seat = seat
		}
		if g.far == nil {
			g.far = make(map[meet.Token]*pipe)
		}
		g.far[w] = p
		m.places[writer] = e.channel.session.peer
		p.propose(writer, e.channel.recheck)
	}
	if m.holder != nil {
		m.holder.far.late = true
		m.holder.channel.recheck()
	}
	m.holder = e
	return p, again, nil
}

// partFar takes note that another broker's writer has lost its way here. It may come again.
func (g *registry) partFar(p *pipe, e *streamWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.rendezvous; m.holder == e {
		p.mute(writer)
		m.holder = nil
		m.parted++
		m.changed()
	}
}

// endFar ends another broker's writer, which has left for that reason; with never set it was
// never there. e is who has it, or nil.
func (g *registry) endFar(p *pipe, e *streamWriter, why cause, never bool) {
	g.mu.Lock()
	p.mu.Lock()
	m := p.rendezvous
	mine := m.holder == e && g.far[m.seat.Writer] == p
	never = never && !m.fixed // a connection has nobody else
	if mine {
		delete(g.far, m.seat.Writer)
		if e != nil && e.far.closes {
			g.said.add(m.seat.Writer)
		}
		m.holder = nil
		if p.mute(writer); never {
			m.seat.Leave()
		}
	}
	p.mu.Unlock()
	g.mu.Unlock()
	switch {
	case mine && never:
		g.withdraw(p, writer, why)
	case mine:
		g.depart(p, writer, why)
	}
}
