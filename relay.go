package zpipes

import (
	"math/rand/v2"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A relay takes a stream from this broker, where the writer is, to that where the reader is. It
// has the reader's side of the pipe here, and is the writer there, by one way after another. It
// belongs to the exchange's owner.
//
// Of a broadcast, the pipe is a branch, and there is a relay for each broker that has readers.
type relay struct {
	exchange   *exchange
	rendezvous *rendezvous
	pipe       *pipe
	reader     meet.Token
	writer     meet.Token // as the reader's broker knows it
	offered    meet.Token // and as it is registered
	at         memberID
	where      string

	way      relayWay  // that it has; nil: it looks for one
	attached bool      // it was, by one or another
	since    time.Time // it has none; zero: it has
	over     bool
}

// A relayWay is a way to the reader's broker. Its methods are called by the exchange's owner. It
// calls attached, refused, lost or finished, through do.
type relayWay interface {
	// begin attaches. It has the pipe's mu to itself.
	begin()
	// drop ends it; with never set, the writer was never there.
	drop(never bool)
}

// attach begins a relay.
func (x *exchange) attach(w, r meet.Token, at memberID, now time.Time) {
	m := x.ends[w]
	if m == nil {
		x.meet.Failed(w, now)
		return
	}
	where, p := x.host.describe(at), m.pipe
	if m.relays[r] != nil {
		return // a registrar has said so before
	}
	p.mu.Lock()
	if p.use == trunk && m.tokens[writer] == w {
		p.mu.Unlock()
		x.feed(m, w, r, at, where, now)
		return
	}
	ok := m.tokens[writer] == w && !p.reader.open && !p.over() && p.use == brokers
	if ok {
		m.relay = &relay{exchange: x, rendezvous: m, pipe: p, reader: r, writer: w, offered: w, at: at, where: where}
		m.places[reader] = where
		p.beRelayed(true)
		p.propose(reader, nil)
	}
	p.mu.Unlock()
	if ok {
		x.host.way(m.relay)
	} else {
		x.meet.Failed(w, now)
	}
}

// feed begins a relay of a broadcast, to readers at another broker.
func (x *exchange) feed(m *rendezvous, w, r meet.Token, at memberID, where string, now time.Time) {
	p := x.pipes.branchOff(m.pipe)
	if p == nil {
		x.meet.Failed(w, now)
		return
	}
	if m.relays == nil {
		m.relays = make(map[meet.Token]*relay)
	}
	m.relays[r] = &relay{exchange: x, rendezvous: m, pipe: p, reader: r, writer: meet.Token(rand.Uint64() | 1), offered: w, at: at, where: where}
	x.host.way(m.relays[r])
}

// found has the relay use a way that was found.
func (r *relay) found(way relayWay, err error, now time.Time) {
	switch {
	case r.over:
		return
	case err == nil:
		r.way = way
		way.begin()
	case !r.attached:
		r.fail(now)
	case !r.exchange.members[r.at]:
		r.end(r.exchange.unreachable(r.at, r.where))
	default:
		r.exchange.retries.push(timer{now.Add(retryWay), func(time.Time) { r.seek() }})
	}
}

func (r *relay) seek() {
	if !r.over && r.way == nil {
		r.exchange.host.way(r)
	}
}

// isAttached takes note that the reader's broker has let it attach.
func (r *relay) isAttached(way relayWay) {
	if r.way == way {
		r.attached, r.since = true, time.Time{}
	}
}

// refused is for when it has not.
func (r *relay) refused(way relayWay, why cause, now time.Time) {
	if r.way != way {
		return
	}
	r.way = nil
	r.pipe.mu.Lock()
	begun := r.pipe.begun || r.pipe.over()
	r.pipe.mu.Unlock()
	if why.code == causeClosed { // the answer to a CLOSE that went by an earlier way
		r.end(why)
	} else if r.rendezvous.fixed || r.attached && begun {
		r.end(cause{causeUnreachable, "the broker of the other end, " + r.where + ", has given this stream up: " + why.text})
	} else {
		r.fail(now)
	}
}

// lost is for a way that is no more.
func (r *relay) lost(way relayWay, now time.Time) {
	switch {
	case r.way != way || r.over:
		return
	case !r.attached:
		r.way = nil
		r.fail(now)
		return
	}
	r.way = nil
	r.lacksWay(now)
	r.seek()
}

// lacksWay ends the relay if it does so for too long.
func (r *relay) lacksWay(now time.Time) {
	if r.since.IsZero() {
		r.since = now
		r.exchange.waits.push(timer{now.Add(r.exchange.host.patience()), func(time.Time) { r.giveUp(now) }})
	}
}

// giveUp ends the stream, unless a way has been found since that time.
func (r *relay) giveUp(since time.Time) {
	if !r.over && r.since.Equal(since) {
		r.end(r.exchange.unreachable(r.at, r.where))
	}
}

// fail has the writer wait again, for another reader or the same.
func (r *relay) fail(now time.Time) {
	p := r.pipe
	if r.rendezvous.relays[r.reader] == r {
		delete(r.rendezvous.relays, r.reader)
		r.over = true
		r.exchange.pipes.withdraw(p, reader, cause{})
		r.exchange.meet.Failed(r.offered, now)
		return
	}
	p.mu.Lock()
	gone := p.over()
	if !gone {
		r.rendezvous.relay = nil
		p.withdraw(reader)
		p.relaysNothing()
	}
	p.mu.Unlock()
	if gone {
		r.end(cause{code: causeVanished})
		return
	}
	r.over = true
	r.exchange.meet.Failed(r.offered, now)
}

// end gives the reader's side back, for that reason.
func (r *relay) end(why cause) {
	if r.over {
		return
	}
	r.over = true
	delete(r.rendezvous.relays, r.reader)
	r.exchange.pipes.depart(r.pipe, reader, why)
	if r.way != nil {
		r.way.drop(!r.attached)
	}
}

// finished is for a way on which all was said.
func (r *relay) finished(way relayWay, why cause) {
	if r.way == way {
		r.way = nil
		r.end(why)
	}
}
