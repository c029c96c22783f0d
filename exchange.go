package zpipes

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// An exchange has ends of a broker's pipes meet others at other brokers of its cluster. What
// happens to pipes, links and relays comes in from any goroutine, and turn is its owner's.
type exchange struct {
	self    memberID
	pipes   *registry
	host    exchangeHost
	changed mailbox[*rendezvous] // that have to be looked at

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	posted []func(now time.Time)
	away   map[string]*awayQueue // that clients of this broker have open

	turns sync.Mutex // held by turn, so that others may look when they don't have to wait; no lock is taken under it by those

	// The rest belongs to the owner.
	meet    *meet.Broker
	ends    map[meet.Token]*rendezvous
	members map[memberID]bool // that have been linked, and have not left
	calls   int               // that have been made, so that several listeners take turns
	linked  map[memberID]bool // those of them that there is a link to
	others  atomic.Int32      // how many these are
	homes   homes
	retries fifo[timer]
	waits   fifo[timer]

	sought  map[soughtKey]*sought
	seeks   map[meet.Token]*sought // the same
	lost    map[memberID]time.Time // members that are out of reach, for less than patience
	met     bool                   // see settled
	settles time.Time              // see calms; zero: they have had it
	shaken  time.Time              // when a link was lost
	telling map[memberID]bool      // linked ones that have not said yet that they have told all
	latest  time.Time              // until when that may be put off
}

// An exchangeHost is around an exchange.
type exchangeHost interface {
	// ring has turn be called soon. It waits for nothing, and takes leaves alone.
	ring()
	// send sends a record to a member, as long as there is a link to it.
	send(to memberID, m *message)
	// busy says that so much waits to be sent to a member that what can wait should.
	busy(to memberID) bool
	// way has the relay's found called with a way to the reader's broker, or with why there is none; soon,
	// and through do.
	way(r *relay)
	// dial has the farDial's began called with a way to the listener's broker, likewise.
	dial(c *farDial)
	// describe is what people call a member, and where it is; name the first of these.
	describe(m memberID) string
	name(m memberID) string
	// patience is how long a member may be out of reach.
	patience() time.Duration
	// cede has a queue hand all that it has over to a member, and keep has it not do so any more; both
	// soon.
	cede(queue string, to memberID)
	keep(queue string)
}

// A timer is something that is due.
type timer struct {
	at time.Time
	do func(now time.Time)
}

// retryWay is how long after another a way is looked for.
const retryWay = 200 * time.Millisecond

func newExchange(self memberID, pipes *registry, host exchangeHost) *exchange {
	x := &exchange{
		self: self, pipes: pipes, host: host, ends: make(map[meet.Token]*rendezvous), members: make(map[memberID]bool),
		sought: make(map[soughtKey]*sought), seeks: make(map[meet.Token]*sought), lost: make(map[memberID]time.Time),
		telling: make(map[memberID]bool),
	}
	x.meet = meet.New(meet.Member(self), exchangeMeet{x})
	x.linked = make(map[memberID]bool)
	x.homes = homes{self: self, host: exchangeHomes{x}, names: make(map[string]*home)}
	return x
}

// do has the owner call f soon.
func (x *exchange) do(f func(now time.Time)) {
	x.mu.Lock()
	x.posted = append(x.posted, f)
	x.mu.Unlock()
	x.host.ring()
}

// turn does what there is to do, and says when it is to be called again; zero: when it rings.
func (x *exchange) turn(now time.Time) (next time.Time) {
	x.turns.Lock()
	defer x.turns.Unlock()
	x.mu.Lock()
	posted := x.posted
	x.posted = nil
	x.mu.Unlock()
	for _, f := range posted {
		f(now)
	}
	again := x.changed.each(turnsEach, func(m *rendezvous) { x.look(m, now) })
	for _, q := range []*fifo[timer]{&x.retries, &x.waits} {
		for q.len() > 0 && !now.Before(q.front().at) {
			q.pop().do(now)
		}
		if q.len() > 0 {
			next = sooner(next, q.front().at)
		}
	}
	next = sooner(next, x.calms(now))
	x.meet.Step(now)
	if at, ok := x.meet.Next(); ok {
		next = sooner(next, at)
		again = again || at.IsZero()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if again || len(x.posted) > 0 {
		return now
	}
	return next
}

// turnsEach is how many pipes are looked at before others have their turn.
const turnsEach = 256

func sooner(x, y time.Time) time.Time {
	if x.IsZero() || !y.IsZero() && y.Before(x) {
		return y
	}
	return x
}

// look tells others what is new about a pipe's ends.
func (x *exchange) look(m *rendezvous, now time.Time) {
	s := m.look()
	for r, t := range s.gone {
		if t != 0 {
			delete(x.ends, t)
			x.meet.Close(t, now)
		} else if t = s.tokens[r]; s.fresh[r] {
			x.ends[t] = m
			if s.many && role(r) == writer {
				x.meet.OpenMany(m.pipe.name, t, s.paired, now)
			} else {
				x.meet.Open(m.pipe.name, meet.Role(r), t, s.paired, now)
			}
		} else if t != 0 {
			x.meet.Set(t, s.paired, now)
		}
	}
	if s.parted > m.timed {
		if m.timed = s.parted; x.members[s.at] {
			x.waits.push(timer{now.Add(x.host.patience()), func(time.Time) { x.giveUp(m, s.parted) }})
		} else {
			x.giveUp(m, s.parted)
		}
	}
}

// giveUp ends a writer at another broker that has lost its way here, unless it has come again.
func (x *exchange) giveUp(m *rendezvous, parted int) {
	m.pipe.mu.Lock()
	waits, where, at := m.holder == nil && m.parted == parted, m.places[writer], memberID(m.seat.At)
	m.pipe.mu.Unlock()
	if waits {
		x.pipes.endFar(m.pipe, nil, x.unreachable(at, where), false)
	}
}

// unreachable is why an end is over whose other one is at that broker.
func (x *exchange) unreachable(at memberID, where string) cause {
	if !x.members[at] {
		return cause{causeUnreachable, fmt.Sprintf("the broker of the other end, %s, has ended", where)}
	}
	return cause{causeUnreachable, fmt.Sprintf("the broker of the other end, %s, could not be reached for %v; see zpipes cluster status", where, x.host.patience())}
}

// What is heard of members; from any goroutine. All that concerns one member comes in order.

func (x *exchange) viewChanged(members []memberID) {
	seen := make([]meet.Member, len(members))
	for i, m := range members {
		seen[i] = meet.Member(m)
	}
	x.do(func(time.Time) { x.meet.View(seen) })
}

func (x *exchange) linkUp(m memberID, able uint32) {
	x.do(func(now time.Time) {
		x.members[m], x.linked[m] = true, true
		x.others.Store(int32(len(x.linked)))
		x.meet.LinkUp(meet.Member(m), able&ableDirectory != 0)
		x.meets(m, now)
		x.telling[m] = true
	})
}

func (x *exchange) linkDown(m memberID) {
	x.do(func(now time.Time) {
		delete(x.linked, m)
		delete(x.telling, m)
		x.others.Store(int32(len(x.linked)))
		x.meet.LinkDown(meet.Member(m))
		x.misses(m, now)
	})
}

// left says that a member has ended, and will not come again.
func (x *exchange) left(m memberID) {
	x.do(func(now time.Time) {
		delete(x.members, m)
		x.missed(m, now)
		x.pipes.steps(func(r *registration) {
			if p := r.stream; p != nil && p.rendezvous != nil {
				p.mu.Lock()
				parted := p.rendezvous.parted
				is := p.rendezvous.seat.At == meet.Member(m) && (parted > 0 || !p.rendezvous.fixed) // else a call waits
				if p.mu.Unlock(); is {
					x.giveUp(p.rendezvous, parted)
				}
			}
		})
	})
}

// received takes a record.
func (x *exchange) received(from memberID, m *message) {
	r := meet.Record{
		Thing: meet.Thing(m.flags >> thingShift),
		Name:  string(m.text), Role: meet.Role(m.flags & endWriter), Matched: m.flags&endMatched != 0, Many: m.flags&endMany != 0,
		Token: meet.Token(m.token), Other: meet.Token(m.other), At: meet.Member(m.at),
	}
	if r.Thing != 0 {
		r.Role, r.Matched, r.Many, r.Over = meet.Offerer, false, false, m.flags&thingOver != 0
		if m.flags&thingSought != 0 {
			r.Role = meet.Seeker
		}
	}
	switch m.id {
	case msgRegister:
		r.Kind = meet.Register
	case msgUnregister:
		r.Kind = meet.Unregister
	case msgMatch:
		r.Kind, r.Role = meet.Match, meet.Writer
	case msgConflict:
		r.Kind = meet.Conflict
	case msgFound:
		r.Kind = meet.Found
	case msgGone:
		r.Kind = meet.Gone
	default:
		return // of a later version
	}
	switch {
	case m.block != hasBlock:
		return
	case m.id == msgFound && r.Name == "":
		x.do(func(time.Time) { delete(x.telling, from) })
		return
	case checkPipeName(r.Name) != nil || r.Token == 0:
		return
	}
	x.do(func(now time.Time) { x.meet.Receive(meet.Member(from), r, now) })
}

// An exchangeMeet is the meet.Broker's host.
type exchangeMeet struct{ x *exchange }

func (h exchangeMeet) Send(to meet.Member, r meet.Record) {
	m := message{text: []byte(r.Name), token: uint64(r.Token), other: uint64(r.Other), at: memberID(r.At), block: hasBlock}
	if r.Role == meet.Writer {
		m.flags |= endWriter
	}
	if r.Matched {
		m.flags |= endMatched
	}
	if r.Many {
		m.flags |= endMany
	}
	if m.flags |= byte(r.Thing) << thingShift; r.Role == meet.Seeker {
		m.flags |= thingSought
	}
	if r.Thing != 0 && r.Over {
		m.flags |= thingOver
	}
	switch r.Kind {
	case meet.Register:
		m.id = msgRegister
	case meet.Unregister:
		m.id = msgUnregister
	case meet.Match:
		m.id = msgMatch
	case meet.Found, meet.Told:
		m.id = msgFound
	case meet.Gone:
		m.id = msgGone
	default:
		m.id = msgConflict
	}
	h.x.host.send(memberID(to), &m)
}

func (h exchangeMeet) Busy(to meet.Member) bool { return h.x.host.busy(memberID(to)) }

func (h exchangeMeet) Attach(w, r meet.Token, at meet.Member) {
	h.x.do(func(now time.Time) { h.x.attach(w, r, memberID(at), now) })
}

func (h exchangeMeet) Offers(t meet.Token, all []meet.Offering) {
	h.x.do(func(now time.Time) { h.x.found(t, all, now) })
}

func (h exchangeMeet) Conflict(t meet.Token, at meet.Member) {
	h.x.do(func(time.Time) {
		m := h.x.ends[t]
		if m == nil {
			return
		}
		where, p := h.x.host.describe(memberID(at)), m.pipe
		p.mu.Lock()
		defer p.mu.Unlock()
		for r := range m.tokens {
			if m.tokens[r] == t && p.use != branch && !p.paired() {
				p.leave(role(r), cause{causeConflict, fmt.Sprintf("it has a %v at %s already", role(r), where)})
			}
		}
	})
}
