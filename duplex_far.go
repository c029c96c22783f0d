package zpipes

import (
	"math/rand/v2"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A connection whose listener is at another broker of the cluster has both its pipes at each of the two
// brokers. Each direction is relayed from where it is written to where it is read, as a stream between
// brokers is; only who may attach is known beforehand.

// A farDial is a dial at other brokers, one after another. It belongs to the exchange's owner.
type farDial struct {
	exchange *exchange
	duplex   *duplex
	known    bool       // who listens
	left     []memberID // of those, who was not asked yet
	why      cause      // what the last one has said
	stop     func()     // ends the search

	at          memberID
	where       string
	forth, back meet.Token // the writers of the two directions
	way         callWay    // nil: there is none
	over        bool
}

// A callWay is a way of a call to one broker. Its methods are called by the exchange's owner. It calls
// called or failed, through do.
type callWay interface {
	// begin calls.
	begin()
	// end ends it; with never set, the call is taken back there.
	end(never bool)
}

// callElsewhere has a dial ask other brokers. mu is held.
func (g *registry) callElsewhere(d *duplex) {
	c := &farDial{exchange: g.exchange, duplex: d, why: nobodyListens}
	d.call = c
	g.exchange.do(func(time.Time) { c.stop = g.exchange.seek(thingListener, d.forth.name, c.found) })
}

// found takes who listens.
func (c *farDial) found(_ time.Time, all []offering) {
	if c.known || c.over {
		return
	}
	c.known = true
	c.stop()
	x := c.exchange
	for i := range all { // in turns
		if at := all[(i+x.calls)%len(all)].at; at != x.self {
			c.left = append(c.left, at)
		} else if x.pipes.callHere(c.duplex) { // somebody has begun to listen meanwhile
			c.over = true
			return
		}
	}
	x.calls = (x.calls + 1) & 0xffff
	c.next()
}

// callHere has a dial go on at this broker, if somebody listens here.
func (g *registry) callHere(d *duplex) bool {
	name := d.forth.name
	key := g.keyOf(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	p, _ := g.portOf(key, name)
	if p == nil || g.closed != nil || d.gone() {
		return false
	}
	d.call, d.port = nil, p
	p.open++
	g.place(d, false)
	return true
}

// next asks the next one, if there is one.
func (c *farDial) next() {
	x := c.exchange
	if len(c.left) == 0 {
		c.over = true
		x.pipes.uncalled(c)
		return
	}
	c.at, c.left = c.left[0], c.left[1:]
	c.where = x.host.describe(c.at)
	c.forth, c.back = newEndToken(), newEndToken()
	x.pipes.expectCalled(c)
	x.host.dial(c)
}

func newEndToken() meet.Token { return meet.Token(rand.Uint64() | 1) }

// began takes the way, or why there is none.
func (c *farDial) began(way callWay, err error, now time.Time) {
	switch {
	case c.over:
	case err != nil:
		c.failed(nil, c.exchange.outOfReach(c.at, err), now)
	default:
		c.way = way
		way.begin()
	}
}

// outOfReach is why a member is of no use.
func (x *exchange) outOfReach(at memberID, err error) cause {
	return cause{causeUnreachable, "somebody listens at " + x.host.describe(at) + ", which can't be reached: " + err.Error()}
}

// failed is for a broker that has no listener any more, or can't be reached.
func (c *farDial) failed(way callWay, why cause, now time.Time) {
	if c.over || c.way != way {
		return
	}
	if c.way, c.why = nil, why; c.exchange.pipes.expectNone(c) {
		c.next()
	} else {
		c.goOn(now)
	}
}

// called is for one where somebody has accepted, or will.
func (c *farDial) called(way callWay, now time.Time) {
	if c.over || c.way != way {
		return
	}
	if c.goOn(now) {
		c.way = nil
		way.end(false)
	}
}

// goOn begins to relay, and says whether it does; else giveUp follows.
func (c *farDial) goOn(now time.Time) bool {
	r := c.exchange.pipes.called(c)
	if r != nil {
		c.over = true
		r.start(now)
	}
	return r != nil
}

// giveUp ends a call whose dialler has gone.
func (c *farDial) giveUp(time.Time) {
	if c.over {
		return
	}
	c.over = true
	c.stop()
	if c.way != nil {
		c.way.end(true)
	}
	c.exchange.pipes.expectNone(c)
}

// uncalled fails the dial.
func (g *registry) uncalled(c *farDial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.duplex.over {
		g.refuse(c.duplex, &c.why)
	}
}

// callFails fails a dial that waits for another broker, since this one closes.
func (g *registry) callFails(d *duplex) {
	if d == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.call != nil && !d.told && !d.over {
		g.refuse(d, g.closed)
		g.exchange.do(d.call.giveUp)
	}
}

// expectCalled has the other broker attach as the writer of what comes back, if it is called.
func (g *registry) expectCalled(c *farDial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expectFar(c.duplex.back, c.back, c.at, c.where)
}

// expectFar has another broker's writer attach to a pipe of a connection, and no other. mu is held.
func (g *registry) expectFar(p *pipe, w meet.Token, at memberID, where string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &rendezvous{pipe: p, exchange: g.exchange, fixed: true, seat: meet.Seat{Writer: w, At: meet.Member(at)}}
	m.places[writer] = where
	p.meetAt(m)
	if g.far == nil {
		g.far = make(map[meet.Token]*pipe)
	}
	g.far[w] = p
}

// expectNone takes that back, and says whether it can: that writer may have come, and even gone, before
// its broker has answered the call.
func (g *registry) expectNone(c *farDial) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := c.duplex.back
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writer.open {
		return false
	}
	if g.far[c.back] == p {
		delete(g.far, c.back)
	}
	p.meetAt(nil)
	return true
}

// called has a dial succeed, and begins to relay; nil: its dialler has gone.
func (g *registry) called(c *farDial) *relay {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := c.duplex
	if d.over || d.gone() {
		return nil
	}
	r := g.exchange.relayTo(d.forth, c.forth, c.at, c.where)
	g.awaitFar(d.back)
	d.succeed()
	return r
}

// awaitFar gives another broker's writer the time of the cluster's patience to attach. mu is held.
func (g *registry) awaitFar(p *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.rendezvous; m.holder == nil {
		m.parted++
		m.changed()
	}
}

// relayTo has a pipe of a connection be relayed, as soon as the relay is started.
func (x *exchange) relayTo(p *pipe, w meet.Token, at memberID, where string) *relay {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &rendezvous{pipe: p, exchange: x, fixed: true}
	m.places[reader] = where
	m.relay = &relay{exchange: x, rendezvous: m, pipe: p, writer: w, at: at, where: where, attached: true}
	p.meetAt(m)
	p.beRelayed(true)
	p.propose(reader, nil)
	return m.relay
}

// start begins a connection's relay, which has its place at the other broker, and the time of the
// cluster's patience to get there.
func (r *relay) start(now time.Time) {
	r.lacksWay(now)
	r.seek()
}

// A callee is the channel of a CALL that has been answered. It does nothing any more but take it back.
type callee struct {
	channelEnd
	duplex *duplex
}

// call is a CALL, of another broker's client; false: it must wait.
func (c *channel) call(q *request, now time.Time) bool {
	s, pipes := c.session, c.session.pipes
	if q.called == nil {
		if c.open != nil || c.pledged {
			c.violate("a CALL on a channel that is in use")
			return true
		}
		d, why := pipes.callFrom(q, s.member, s.peer, c.recheck, now)
		if why != nil {
			c.reply(msgCallFailed, *why)
			return true
		}
		q.called = d
	}
	why, done := pipes.dialled(q.called)
	switch {
	case !done:
		return false
	case why != nil:
		c.reply(msgCallFailed, *why)
		return true // pop has it forgotten
	}
	c.open, c.known = &callee{channelEnd{c}, q.called}, true
	q.called = nil
	s.account.addEnds(1)
	c.reply(msgCalled, cause{})
	return true
}

// callFrom dials here, for a dialler at another broker.
func (g *registry) callFrom(q *request, at memberID, where string, wake func(), now time.Time) (*duplex, *cause) {
	forth, back := meet.Token(q.token), meet.Token(q.other)
	g.mu.Lock()
	known := g.far[forth] != nil
	g.mu.Unlock()
	if known || forth == 0 || back == 0 {
		return nil, &causeNoSeat
	}
	var r *relay
	d, why := g.dialAs(string(q.text), unknownAccess, true, wake, func(in, out *pipe) {
		g.expectFar(out, forth, at, where)
		out.mu.Lock()
		out.propose(writer, nil)
		out.mu.Unlock()
		r = g.exchange.relayTo(in, back, at, where)
	}, now)
	if why == nil {
		g.exchange.do(func(now time.Time) {
			g.awaitFar(d.forth)
			r.start(now)
		})
	}
	return d, why
}

// forgoCalled takes back what another broker's dialler has given up.
func (g *registry) forgoCalled(d *duplex) {
	why := cause{code: causeVanished}
	d.forth.mu.Lock()
	holder := d.forth.rendezvous.holder
	d.forth.mu.Unlock()
	g.endFar(d.forth, holder, why, false)
	d.back.mu.Lock()
	r := d.back.rendezvous.relay
	d.back.mu.Unlock()
	g.exchange.do(func(time.Time) { r.end(why) })
}

// leave takes the connection back, unless the dialler's broker knows of it.
func (e *callee) leave(why cause, _ uint32, _ bool) {
	p := e.duplex.forth
	p.mu.Lock()
	knows := why.code == causeClosed || p.writer.sure
	p.mu.Unlock()
	if !knows {
		e.channel.session.pipes.forgoCalled(e.duplex)
	}
}
