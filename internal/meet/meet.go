// Package meet has those ends of a pipe find each other that are open at different brokers.
//
// Each open end is registered, under a random token, with the two members that rendezvous
// hashing of the pipe's name puts first among those that its broker sees. A registrar that
// knows of a reader and of a writer sends a Match to the writer's broker, which attaches at
// the reader's. There a Seat has the last word: a reader gets one writer, whatever registrars
// with different views have said. Of two ends of one kind, one that is matched beats one that
// waits, and else the lower token does; the other is told. A writer may take all readers there are
// (a broadcast); then these are no such two.
//
// What registrars know is soft: it lives as long as the link by which it came, and is told
// again when the members, a link or an end's state change. So nothing here is ever wrong for
// longer than the views of the members differ.
//
// Beside ends there are things of other kinds, which meet nobody: who has one offers it, to the
// same members, and who seeks it is told by them where there is one (see Broker.Offer).
//
// A Broker is one member's part in this, both sides of it: its own ends, and what it knows as
// a registrar. It has no goroutine, no socket and no clock, and belongs to one goroutine.
package meet

import (
	"slices"
	"time"
)

// A Member is a broker, from its start to its end. 0 is none.
type Member uint64

// A Token is an end, from its open to its end. 0 is none.
type Token uint64

// A Role is which end.
type Role byte

const (
	Reader Role = iota
	Writer
	Offerer // of a thing
	Seeker
)

// Kind says what a Record is for.
type Kind byte

const (
	Register   Kind = iota + 1 // to a registrar: the end Token is there; again when Matched changes
	Unregister                 // to a registrar: it is not (Over), or not its matter any more
	Match                      // to the writer's broker: Token may attach to the reader Other, which is At
	Conflict                   // to an end's broker: Token has to go, because of another of its kind, which is At
	Found                      // to a seeker's broker: there is the offer Other, which is At; without Other, it has been told of all
	Gone                       // to a seeker's broker: the offer Other is no more (Over), or not known here
	Told                       // to a member: it has been told of all for which it is a registrar, since the link is there
)

// A Record is what brokers tell each other. Those over one link stay in order.
type Record struct {
	Kind    Kind
	Thing   Thing
	Name    string
	Role    Role
	Matched bool
	Over    bool
	Many    bool // Register: a writer that takes all readers there are, at whichever brokers
	Token   Token
	Other   Token
	At      Member
}

// A Host is around a Broker, and is called by it. It does not call back before it has returned.
type Host interface {
	// Send sends a record to another member, to which there is a link.
	Send(to Member, r Record)
	// Busy says that so much waits to be sent to that member that what can wait should.
	Busy(to Member) bool
	// Attach has a writer of this broker's attach to that reader. Unless that succeeds, which
	// Set says, Failed or Close is to be called. One that takes all readers may be told of the
	// same one again.
	Attach(writer, reader Token, at Member)
	// Conflict has an end of this broker's go, because of one that is at another.
	Conflict(end Token, at Member)
	// Offers says where there is what a seeker of this broker's seeks, and again when that has changed.
	Offers(seeker Token, all []Offering)
}

const (
	// retryAfter is when an end is offered again whose attach has failed.
	retryAfter = 100 * time.Millisecond
	// contestTime is for how long two ends of one kind have to be known until one of them is
	// told: that the other has gone may be on its way.
	contestTime = 500 * time.Millisecond
	// lateAfter is when it is looked again whether a member is not busy any more.
	lateAfter = 50 * time.Millisecond
	// stepSize is how many ends one Step looks at.
	stepSize = 256
	// keepTime is for how long a thing is taken to be where it was that registrars do not know
	// of any more: the views of brokers may differ.
	keepTime = 5 * time.Second
	// mostEntries is how many ends and things one member may have here.
	mostEntries = 1 << 22
)

// A Broker is one member's part.
type Broker struct {
	self    *peer
	host    Host
	peers   map[Member]*peer
	members []*peer // that it sees, itself included, in order

	ends  map[Token]*end
	order list[end] // in the order in which they were last placed
	round int       // grows when they have to be placed anew
	retry queue[Token]
	kept  queue[Token] // seekers

	names    map[key]*listing
	gone     []*link // whose entries have yet to go
	fresh    []*peer // that have to hear Told
	late     []*link // that have some late
	lateAt   time.Time
	contests queue[*listing]
}

// A peer is a member that there is a link to, or that is seen.
type peer struct {
	id   Member
	salt uint64
	seen bool
	old  bool  // it knows nothing of things
	link *link // nil: none
}

// A link is one from its beginning to its end.
type link struct {
	to      Member
	up      bool
	late    []Token     // of ends of this broker's that are to be registered there as soon as it is not busy
	entries list[entry] // that came by it
	entered int         // how many
}

// An end is one of this broker's, or a thing that it offers or seeks.
type end struct {
	key
	hash      uint64
	token     Token
	role      Role
	matched   bool
	attaching bool
	many      bool
	told      [2]*link // registrars that know of it, if the link is up
	seeking   *seeking // nil: it does not
	round     int
	place     place[end]
}

// New returns the part of member self, which sees nobody else yet.
func New(self Member, h Host) *Broker {
	b := &Broker{
		host: h, peers: make(map[Member]*peer), ends: make(map[Token]*end), names: make(map[key]*listing),
	}
	b.self = b.peer(self)
	b.self.seen = true
	b.self.link = &link{to: self, up: true}
	b.members = []*peer{b.self}
	return b
}

func (b *Broker) peer(m Member) *peer {
	p := b.peers[m]
	if p == nil {
		p = &peer{id: m, salt: mix(uint64(m))}
		b.peers[m] = p
	}
	return p
}

// drop forgets a peer that is of no interest any more.
func (b *Broker) drop(p *peer) {
	if !p.seen && p.link == nil {
		delete(b.peers, p.id)
	}
}

// View says which members there are. The broker itself is one in any case. Steps follow.
func (b *Broker) View(members []Member) {
	for _, p := range b.members {
		p.seen = p == b.self
	}
	old := b.members
	b.members = []*peer{b.self}
	for _, m := range members {
		if p := b.peer(m); !p.seen {
			p.seen = true
			b.members = append(b.members, p)
		}
	}
	slices.SortFunc(b.members, func(x, y *peer) int {
		if x.id < y.id {
			return -1
		}
		return 1
	})
	for _, p := range old {
		b.drop(p)
	}
	b.round++
}

// LinkUp says that records can be sent to a member, and whether it knows of things. Steps follow.
func (b *Broker) LinkUp(m Member, things bool) {
	p := b.peer(m)
	p.link, p.old = &link{to: m, up: true}, !things
	b.round++
	if things && !slices.Contains(b.fresh, p) {
		b.fresh = append(b.fresh, p)
	}
}

// LinkDown says that they can't, and that those which were sent last may not have arrived. Steps
// follow.
func (b *Broker) LinkDown(m Member) {
	p := b.peers[m]
	if p == nil || p.link == nil || p == b.self {
		return
	}
	p.link.up = false
	b.gone = append(b.gone, p.link)
	p.link = nil
	b.drop(p)
	b.round++
}

// Open adds an end of this broker's.
func (b *Broker) Open(name string, r Role, t Token, matched bool, now time.Time) {
	b.add(&end{key: key{0, name}, token: t, role: r, matched: matched}, now)
}

// OpenMany is Open of a writer that takes all readers there are: each of them is attached to, be
// others or not. It is matched while it has any.
func (b *Broker) OpenMany(name string, t Token, matched bool, now time.Time) {
	b.add(&end{key: key{0, name}, token: t, role: Writer, matched: matched, many: true}, now)
}

func (b *Broker) add(e *end, now time.Time) {
	e.hash, e.round, e.place.of = hash(e.name), b.round, e
	b.ends[e.token] = e
	b.order.push(&e.place)
	b.register(e, now)
}

// Set says whether the end is matched, be it with one at this broker.
func (b *Broker) Set(t Token, matched bool, now time.Time) {
	e := b.ends[t]
	if e == nil || e.matched == matched && !e.attaching {
		return
	}
	e.attaching = false
	if e.matched != matched {
		e.matched = matched
		b.repeat(e, now)
	}
}

// Failed says that an attach was in vain. The writer waits again.
func (b *Broker) Failed(t Token, now time.Time) {
	if e := b.ends[t]; e != nil && (e.attaching || e.many) {
		e.attaching = false
		b.retry.push(now.Add(retryAfter), t)
	}
}

// Close takes an end away, or a thing that is offered or sought.
func (b *Broker) Close(t Token, now time.Time) { b.end(t, true, now) }

// Release takes a thing away that another member is about to offer: for a while those who seek it
// take it to be there.
func (b *Broker) Release(t Token, now time.Time) { b.end(t, false, now) }

func (b *Broker) end(t Token, over bool, now time.Time) {
	e := b.ends[t]
	if e == nil {
		return
	}
	delete(b.ends, t)
	b.order.remove(&e.place)
	for _, l := range e.told {
		b.unregister(e, l, over, now)
	}
}

// Receive takes a record that came from a member.
func (b *Broker) Receive(from Member, r Record, now time.Time) {
	p := b.peers[from]
	if p == nil || p.link == nil || r.Role > Seeker || (r.Thing == 0) != (r.Role <= Writer) {
		return
	}
	switch r.Kind {
	case Register:
		b.enter(p.link, r, now)
	case Unregister:
		b.leave(p.link, r, now)
	case Match:
		if e := b.ends[r.Token]; e != nil && e.role == Writer && e.key == r.key() && e.waits() && r.At != b.self.id {
			e.attaching = !e.many
			b.host.Attach(e.token, r.Other, r.At)
		}
	case Conflict:
		if e := b.ends[r.Token]; e != nil && e.role == r.Role && e.key == r.key() && !e.matched && !e.attaching {
			b.host.Conflict(e.token, r.At)
		}
	case Found, Gone:
		b.heard(p.link, r, now)
	}
}

// waits says that the end can still meet another one.
func (e *end) waits() bool { return e.many || !e.matched && !e.attaching }

// Next is when Step has something to do: the zero time, if it has now; ok is false if it has
// nothing.
func (b *Broker) Next() (at time.Time, ok bool) {
	if len(b.gone) > 0 || b.stale() || slices.ContainsFunc(b.fresh, (*peer).hasAll) {
		return time.Time{}, true
	}
	at, ok = b.retry.next()
	if c, is := b.contests.next(); is && (!ok || c.Before(at)) {
		at, ok = c, true
	}
	if k, is := b.kept.next(); is && (!ok || k.Before(at)) {
		at, ok = k, true
	}
	if len(b.late) > 0 && (!ok || b.lateAt.Before(at)) {
		at, ok = b.lateAt, true
	}
	return at, ok
}

// stale says that there are ends that have to be placed anew.
func (b *Broker) stale() bool { return b.order.first != nil && b.order.first.of.round != b.round }

// Step does some of what there is to do; see Next.
func (b *Broker) Step(now time.Time) {
	for n := 0; n < stepSize && len(b.gone) > 0; n++ {
		l := b.gone[len(b.gone)-1]
		if l.entries.first == nil {
			b.gone = b.gone[:len(b.gone)-1]
			continue
		}
		b.remove(l.entries.first.of, false, now)
	}
	for n := 0; n < stepSize && b.stale(); n++ {
		e := b.order.first.of
		e.round = b.round
		b.order.remove(&e.place)
		b.order.push(&e.place)
		b.register(e, now)
	}
	if !now.Before(b.lateAt) {
		b.tellLate(now)
	}
	b.tellFresh(now)
	for n := 0; n < stepSize && b.retry.due(now); n++ {
		if e := b.ends[b.retry.pop()]; e != nil && e.waits() {
			b.repeat(e, now)
		}
	}
	for n := 0; n < stepSize && b.contests.due(now); n++ {
		b.decide(b.contests.pop(), now)
	}
	for n := 0; n < stepSize && b.kept.due(now); n++ {
		b.expire(b.ends[b.kept.pop()], now)
	}
}

// register has the end known to its registrars, and to no others.
func (b *Broker) register(e *end, now time.Time) {
	first, second := b.registrars(e.hash, e.thing != 0)
	want := [2]*link{first.link, nil}
	if second != nil {
		want[1] = second.link
	}
	told := e.told
	e.told = want
	if e.seeking != nil {
		b.ask(e, want, second != nil, now)
	}
	for _, l := range told {
		if l != want[0] && l != want[1] {
			b.unregister(e, l, false, now)
		}
	}
	for _, l := range want {
		if l != nil && l != told[0] && l != told[1] {
			b.tellSoon(e, l, now)
		}
	}
	b.report(e)
}

// repeat tells the registrars what is new about the end.
func (b *Broker) repeat(e *end, now time.Time) {
	for _, l := range e.told {
		if l != nil && l.up {
			b.tell(e, l, now)
		}
	}
}

func (b *Broker) tell(e *end, l *link, now time.Time) {
	b.send(l, Record{Kind: Register, Thing: e.thing, Name: e.name, Role: e.role, Matched: e.matched, Many: e.many, Token: e.token}, now)
}

// tellSoon is tell, or later where much waits for the other side already.
func (b *Broker) tellSoon(e *end, l *link, now time.Time) {
	if len(l.late) == 0 && (l == b.self.link || !b.host.Busy(l.to)) {
		b.tell(e, l, now)
		return
	}
	if len(l.late) == 0 {
		b.late, b.lateAt = append(b.late, l), now.Add(lateAfter)
	}
	l.late = append(l.late, e.token)
}

// tellLate registers some of those that are late.
func (b *Broker) tellLate(now time.Time) {
	b.lateAt = now.Add(lateAfter)
	b.late = slices.DeleteFunc(b.late, func(l *link) bool {
		for n := 0; n < stepSize && l.up && len(l.late) > 0 && !b.host.Busy(l.to); n++ {
			e := b.ends[l.late[0]]
			if l.late = l.late[1:]; e != nil && (e.told[0] == l || e.told[1] == l) {
				b.tell(e, l, now)
			}
			b.lateAt = now
		}
		return !l.up || len(l.late) == 0
	})
}

// tellFresh says Told to those who have been sent all.
func (b *Broker) tellFresh(now time.Time) {
	if b.stale() {
		return
	}
	b.fresh = slices.DeleteFunc(b.fresh, func(p *peer) bool {
		if p.hasAll() {
			b.send(p.link, Record{Kind: Told}, now)
			return true
		}
		return p.link == nil
	})
}

// hasAll says that a peer is seen, and nothing is late that it is to be told, unless ends have yet to be placed.
func (p *peer) hasAll() bool { return p.link != nil && p.seen && len(p.link.late) == 0 }

func (b *Broker) unregister(e *end, l *link, over bool, now time.Time) {
	if l != nil && l.up {
		b.send(l, Record{Kind: Unregister, Thing: e.thing, Name: e.name, Role: e.role, Over: over, Token: e.token}, now)
	}
}

// send is the Host's, but to the broker itself.
func (b *Broker) send(l *link, r Record, now time.Time) {
	if l == b.self.link {
		b.Receive(b.self.id, r, now)
	} else {
		b.host.Send(l.to, r)
	}
}

// registrars are the members that a name's hash puts first, for things those which know of them.
// Where the broker sees nobody else, there is no second.
func (b *Broker) registrars(hash uint64, things bool) (first, second *peer) {
	var most, more uint64
	for _, p := range b.members {
		if things && p.old {
			continue
		}
		switch score := mix(hash ^ p.salt); {
		case first == nil || score > most:
			first, second, most, more = p, first, score, most
		case second == nil || score > more:
			second, more = p, score
		}
	}
	return first, second
}

// hash is the same at all brokers.
func hash(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return mix(h)
}

// mix makes each bit of the result depend on all of x.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
