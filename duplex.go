package zpipes

import (
	"container/list"
	"sync/atomic"
	"time"
)

// A duplex is a connection: two pipes without names, one for each direction. The broker
// makes both at once for who dials, so nobody else can take an end of them. They are pipes
// as others are, but for who may come: the dialler, and one who accepts.
type duplex struct {
	port        *port
	dialler     Access
	forth, back *pipe                  // from the dialler, and to it
	accepted    atomic.Pointer[Access] // who has accepted it; nil: nobody

	// The registry's mu guards what follows.
	call   *farDial      // it has no port, but a listener at another broker; nil: it has
	place  *list.Element // in port.waiting; nil: it is not there
	told   bool          // the dial has succeeded
	wake   func()        // tells the dialler of that, or that it was accepted; nil: it has left
	why    *cause        // the dial has failed
	given  *accepting    // who is to accept it, and has not begun to
	wrote  bool          // the dialler's writing end has left,
	tore   bool          // and not in order
	read   bool          // its reading end has left
	over   bool          // it was never accepted, and will not be
	places int           // how many of its pipes are in the registry
}

// A port is a name at which connections come in: who listens there, and who has dialled
// and was not accepted yet. It exists as long as somebody listens. The registry's mu
// guards it.
type port struct {
	name      string
	created   time.Time
	listeners int
	turns     list.List     // of listeners that wait in Accept: who is next
	waiting   list.List     // of duplexes, the oldest first
	told      int           // how many of those dials have succeeded: the first ones
	untold    *list.Element // the first of the others; nil: there are none
	open      int           // duplexes that there are
	token     uint64        // of the offer to other brokers

	registration
}

// A listener is one who listens at a port.
type listener struct {
	port    *port
	who     Access
	accepts fifo[*accepting] // that wait
	turn    *list.Element    // in port.turns; nil: none does
	over    *cause
}

// An accepting is an Accept that has not been answered.
type accepting struct {
	listener *listener
	wake     func()
	duplex   *duplex // what it is to accept
	why      *cause  // or why it will accept nothing
}

const defaultBacklog = 128

// listen brings a listener to the port of that name, and makes the port where there is none.
func (g *registry) listen(name string, who Access, now time.Time) (*listener, *cause) {
	l := &listener{who: who}
	l.who.Pipe, l.who.Op = name, "listen"
	return l, g.counted(g.bring(l, name, now))
}

func (g *registry) bring(l *listener, name string, now time.Time) *cause {
	if why := badName(name); why != nil {
		return why
	}
	key := g.keyOf(name)
	fresh := &port{name: name, created: now}
	fresh.port = fresh
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return g.closed
	}
	p, why := g.portOf(key, name)
	switch {
	case p != nil:
	case why != &nobodyListens:
		return why
	case g.full(1):
		return g.tooMany
	default:
		p = fresh
		g.add(&p.registration, key)
		if g.exchange != nil {
			p.token = uint64(newEndToken())
			g.exchange.offer(thingListener, name, p.token)
		}
	}
	p.listeners++
	l.port = p
	return nil
}

// portOf is the port of that name, or why there is none. mu is held.
func (g *registry) portOf(key uint64, name string) (*port, *cause) {
	r := g.names.find(key, name)
	switch {
	case r == nil:
		return nil, &nobodyListens
	case r.stream != nil:
		p := r.stream
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.over() {
			g.retire(p)
			return nil, &nobodyListens
		}
	case r.port != nil:
		return r.port, nil
	}
	return nil, r.another()
}

// another says what has a name, to who wants it for something else.
func (r *registration) another() *cause {
	switch {
	case r.queue != nil:
		return &causeIsQueue
	case r.port != nil:
		return &causeIsPort
	}
	return &causeIsStream
}

// quit takes a listener away: its Accepts fail for that reason. Behind the last one nobody
// is left whom those who wait could wait for.
func (g *registry) quit(l *listener, why cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.end(&why)
	p := l.port
	if p.listeners--; p.listeners > 0 {
		return
	}
	g.remove(&p.registration)
	if p.token != 0 {
		g.exchange.withdraw(p.token)
	}
	for e := p.waiting.Front(); e != nil; e = p.waiting.Front() {
		d := e.Value.(*duplex)
		p.remove(d)
		g.refuse(d, &nobodyListens)
	}
}

var nobodyListens = cause{causeNoListener, "nobody listens there"}

// end fails a listener's Accepts, now and later.
func (l *listener) end(why *cause) {
	l.over = why
	for l.accepts.len() > 0 {
		a := l.accepts.pop()
		a.why = why
		a.wake()
	}
	l.list()
}

// list has the listener among those who wait, at the end, or no longer.
func (l *listener) list() {
	turns := &l.port.turns
	switch {
	case l.accepts.len() == 0 && l.turn != nil:
		turns.Remove(l.turn)
		l.turn = nil
	case l.accepts.len() > 0 && l.turn == nil:
		l.turn = turns.PushBack(l)
	}
}

// dial makes a connection to who listens at that name, for a dialler of whom wake is told
// when something has become of it; bring attaches its ends. See dialled.
func (g *registry) dial(name string, who Access, wake func(), bring func(in, out *pipe), now time.Time) (*duplex, *cause) {
	return g.dialAs(name, who, false, wake, bring, now)
}

// dialAs is dial; with called set the dialler is at another broker, and nobody but this one is asked.
func (g *registry) dialAs(name string, who Access, called bool, wake func(), bring func(in, out *pipe), now time.Time) (*duplex, *cause) {
	d := &duplex{
		dialler: who, wake: wake,
		forth: newPipe(name, g.maxPending, now), back: newPipe(name, g.maxPending, now),
	}
	d.dialler.Pipe, d.dialler.Op = name, "dial"
	if why := g.counted(g.connect(d, name, called, bring)); why != nil {
		return nil, why
	}
	return d, nil
}

func (g *registry) connect(d *duplex, name string, called bool, bring func(in, out *pipe)) *cause {
	if why := badName(name); why != nil {
		return why
	}
	key := g.keyOf(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return g.closed
	}
	p, why := g.portOf(key, name)
	switch {
	case p == nil && (called || g.exchange == nil || why != &nobodyListens):
		return why
	case g.full(2):
		return g.tooMany
	}
	for _, x := range []*pipe{d.forth, d.back} {
		x.stream, x.of = x, d
		x.join(&g.moved, &x.mu)
		x.place = g.all.put(&x.registration)
		d.places++
		g.halves++
	}
	g.occupy(d.back, d.forth, bring)
	if p == nil {
		g.callElsewhere(d)
		return nil
	}
	d.port = p
	p.open++
	g.place(d, false)
	return nil
}

// occupy attaches the ends of one side. mu is held.
func (g *registry) occupy(in, out *pipe, bring func(in, out *pipe)) {
	in.mu.Lock()
	in.waited = true
	in.mu.Unlock()
	g.waits.Add(1)
	bring(in, out)
}

// place has a connection accepted by who waits for one, or wait; again: in front of the
// others, where it was before. mu is held.
func (g *registry) place(d *duplex, again bool) {
	p := d.port
	if first := p.turns.Front(); first != nil {
		l := first.Value.(*listener)
		a := l.accepts.pop()
		p.turns.Remove(first)
		l.turn = nil
		l.list()
		a.give(d)
		a.wake()
		return
	}
	if again {
		d.place = p.waiting.PushFront(d)
		p.told++
		return
	}
	d.place = p.waiting.PushBack(d)
	if p.untold == nil {
		p.untold = d.place
	}
	p.tell(g.backlog)
}

// tell has those dials succeed that are within the backlog now.
func (p *port) tell(backlog int) {
	for p.told < backlog && p.untold != nil {
		d := p.untold.Value.(*duplex)
		p.untold = p.untold.Next()
		p.told++
		d.succeed()
	}
}

// succeed tells the dialler that it did, or that it was accepted.
func (d *duplex) succeed() {
	d.told = true
	if d.wake != nil {
		d.wake()
	}
}

// remove takes one out of those who wait.
func (p *port) remove(d *duplex) {
	if d.told {
		p.told--
	} else if p.untold == d.place {
		p.untold = d.place.Next()
	}
	p.waiting.Remove(d.place)
	d.place = nil
}

// give has the Accept accept a connection.
func (a *accepting) give(d *duplex) {
	a.duplex, d.given = d, a
	d.accepted.Store(&a.listener.who)
	d.succeed()
}

// dialled says whether something has become of a dial: it has succeeded, or failed.
func (g *registry) dialled(d *duplex) (why *cause, done bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return d.why, d.told || d.why != nil
}

// accept begins an Accept, of which wake is told when there is something; see enterAccepted
// and forgo, one of which follows.
func (g *registry) accept(l *listener, wake func()) *accepting {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := &accepting{listener: l, wake: wake}
	p := l.port
	switch first := p.waiting.Front(); {
	case g.closed != nil:
		a.why = g.closed
	case l.over != nil:
		a.why = l.over
	case first != nil:
		d := first.Value.(*duplex)
		p.remove(d)
		a.give(d)
		p.tell(g.backlog)
	default:
		l.accepts.push(a)
		l.list()
	}
	return a
}

// enterAccepted ends an Accept, if there is something: bring attaches the ends of who
// accepts.
func (g *registry) enterAccepted(a *accepting, bring func(in, out *pipe)) (d *duplex, why *cause, done bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d = a.duplex; d != nil && g.closed == nil {
		a.duplex, d.given = nil, nil
		g.occupy(d.forth, d.back, bring)
		return d, g.counted(nil), true
	}
	if a.why == nil && d != nil {
		a.why, a.duplex, d.given = g.closed, nil, nil
		g.refuse(d, g.closed)
	}
	return nil, a.why, a.why != nil
}

// forgo ends an Accept that nobody waits for any more.
func (g *registry) forgo(a *accepting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := a.duplex
	if d == nil {
		a.listener.accepts.remove(a)
		a.listener.list()
		return
	}
	a.duplex, d.given = nil, nil
	g.placeAgain(d)
}

// takeBack undoes an Accept whose client has not shown that it knows of it.
func (g *registry) takeBack(d *duplex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, x := range []*pipe{d.forth, d.back} {
		x.mu.Lock()
		x.withdraw(d.acceptorOf(x))
		g.left(x)
		x.mu.Unlock()
	}
	g.placeAgain(d)
}

// acceptorOf is what the one is of a pipe who accepts.
func (d *duplex) acceptorOf(x *pipe) role {
	if x == d.forth {
		return reader
	}
	return writer
}

// placeAgain has somebody else accept a connection. mu is held.
func (g *registry) placeAgain(d *duplex) {
	d.accepted.Store(nil)
	switch {
	case g.closed != nil:
		g.refuse(d, g.closed)
	case d.port.listeners == 0:
		g.refuse(d, &nobodyListens)
	case d.gone():
		g.refuse(d, &cause{code: causeVanished})
	default:
		g.place(d, true)
	}
}

// gone says that nobody needs to accept it any more: its dialler has given it up.
func (d *duplex) gone() bool { return d.wrote && (d.tore || d.read) }

// note records that an end of it has left. Its pipe's mu is held.
func (d *duplex) note(x *pipe) {
	switch {
	case x == d.forth && x.writer.left:
		d.wrote, d.tore = true, x.writer.cause.code != causeClosed
	case x == d.back && x.reader.left:
		d.read = true
	}
	if d.wrote && d.read {
		d.wake = nil
	}
}

// lose takes away a connection whose dialler has left before it was accepted. mu is held.
func (g *registry) lose(d *duplex) {
	if d.over || !d.gone() {
		return
	}
	if d.call != nil {
		g.exchange.do(d.call.giveUp)
		return
	}
	switch p := d.port; {
	case d.place != nil:
		p.remove(d)
		p.tell(g.backlog)
	case d.given != nil:
		a := d.given
		a.duplex, d.given = nil, nil
		if a.why = a.listener.over; a.why != nil {
			break
		}
		if first := p.waiting.Front(); first != nil {
			other := first.Value.(*duplex)
			p.remove(other)
			a.give(other)
			p.tell(g.backlog)
		} else {
			a.listener.accepts.unshift([]*accepting{a})
			a.listener.list()
		}
	default:
		return // it was accepted
	}
	g.refuse(d, &cause{code: causeVanished})
}

// refuse ends a connection that was never accepted: the dial fails or, if it has
// succeeded, both ends find out. mu is held.
func (g *registry) refuse(d *duplex, why *cause) {
	d.over = true
	d.accepted.Store(nil)
	told := *why
	if !d.told {
		d.why = why
		if d.wake != nil {
			d.wake()
		}
	} else if told.code == causeNoListener {
		told = cause{causeAborted, "nobody listens there any more, and it was not accepted"}
	}
	for _, x := range []*pipe{d.forth, d.back} {
		x.mu.Lock()
		x.leave(d.acceptorOf(x), told)
		g.retire(x)
		x.mu.Unlock()
	}
}

// keeps says that somebody may still come to its pipes.
func (d *duplex) keeps() bool {
	return d != nil && !d.over && (d.place != nil || d.given != nil)
}

// parted counts that one of its pipes is in the registry no more. mu is held.
func (g *registry) parted(d *duplex) {
	g.halves--
	if d.places--; d.places == 0 && d.port != nil {
		d.port.open--
	}
}

// closePort ends all that waits at a port, since the broker closes.
func (g *registry) closePort(p *port) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for e := p.turns.Front(); e != nil; e = p.turns.Front() {
		e.Value.(*listener).end(g.closed)
	}
	for e := p.waiting.Front(); e != nil; e = p.waiting.Front() {
		d := e.Value.(*duplex)
		p.remove(d)
		g.refuse(d, g.closed)
	}
}

// portInfo is what there is to tell of a port, unless it is gone.
func (g *registry) portInfo(p *port, now time.Time) (PipeInfo, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return PipeInfo{
		Name:        p.name,
		Mode:        ModeListener,
		Reads:       p.turns.Len() > 0,
		Writes:      p.waiting.Len() > 0,
		Listeners:   p.listeners,
		Waiting:     p.waiting.Len(),
		Connections: p.open,
		Age:         now.Sub(p.created),
	}, p.listeners > 0
}
