//go:build !core

package zpipes

import (
	"sync/atomic"
	"time"
)

// A relayLink is a relay's way over a connection to the reader's broker.
type relayLink struct {
	linkBase
	relay   *relay
	dropped atomic.Int32 // 1: it is to be ended; 2: the writer was never there

	// The rest belongs to the connection's owner.
	feeds bool             // it has begun with a FEED
	sent  fifo[relayWrite] // the WRITEs that are not answered
	held  int64            // what was said of who waits, see pipe.heldTo
}

// A relayWrite is a WRITE of n bytes, which end before number end of the stream.
type relayWrite struct {
	end int64
	n   int
}

// maxSmall is how many WRITEs may be unanswered before those that are not full wait for others.
const maxSmall = 8

func newRelayLink(k *conn, r *relay) *relayLink {
	return &relayLink{linkBase: newLinkBase(k, nil), relay: r}
}

// begin is relayWay's.
func (l *relayLink) begin() {
	p := l.relay.pipe
	p.mu.Lock()
	p.rouse(reader, func() { l.conn.post(l) })
	p.mu.Unlock()
	l.conn.post(l)
	if !l.conn.alive() { // and nobody may be there to take it
		l.tell(func(r *relay, now time.Time) { r.lost(l, now) })
	}
}

func (l *relayLink) drop(never bool) {
	what := int32(1)
	if never {
		what = 2
	}
	l.dropped.Store(what)
	l.conn.post(l)
}

// tell has the exchange's owner call f.
func (l *relayLink) tell(f func(r *relay, now time.Time)) {
	r := l.relay
	r.exchange.do(func(now time.Time) { f(r, now) })
}

// serve sends what there is to be sent.
func (l *relayLink) serve() {
	p := l.relay.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	dropped := l.dropped.Load()
	switch {
	case l.state == linkNew && dropped > 0:
		l.finish()
	case l.state == linkNew:
		l.attach()
	case l.state == linkOpening && dropped == 2:
		l.close(never)
	case (l.state == linkOpen || l.state == linkOpening) && dropped > 0:
		l.close(cause{causeAborted, "the stream was given up"})
	case l.state == linkOpen:
		l.relayBytes()
		switch {
		case p.use == branch && p.reader.left:
			l.close(p.leftBehind())
		case p.writer.left && p.relayedAll():
			l.close(p.writer.cause)
		}
	}
}

// attach asks the reader's broker. The pipe's mu is held.
func (l *relayLink) attach() {
	p, r := l.relay.pipe, l.relay
	m := message{id: msgAttach, text: []byte(p.name), token: uint64(r.writer), other: uint64(r.reader)}
	if p.use == branch {
		if l.conn.able&ableFeeds == 0 {
			l.finish()
			l.tell(func(r *relay, now time.Time) { r.lost(l, now) })
			return
		}
		l.feeds = true
		m.id, m.mode, m.cast = msgFeed, modeBroadcast, p.cast.broadcastConfig
	}
	l.linkBase.begin(l)
	l.send(&m)
}

// relayBytes sends what the reader's broker has room for. The pipe's mu is held.
func (l *relayLink) relayBytes() {
	p, k := l.relay.pipe, l.conn
	most := k.most
	if p.use == branch {
		most = min(most, frameSegment-beginsRoom) // so that the begins need no copy
	}
	for p.readable() > 0 && (l.sent.len() < maxSmall || p.readable() >= k.most) && k.mayLeave(l, min(p.readable(), k.most), k.pace.flight) {
		s := p.relay(most)
		if s == nil {
			break
		}
		k.pace.sent(&l.linkBase, l.sent.len(), int(k.inFlight.Load()))
		l.sent.push(relayWrite{p.done + int64(p.sent), len(s.data())})
		l.addInFlight(len(s.data()))
		k.sendFrame(appendBegins(s.frame(msgWrite, l.block(), l.channel), p.relayBegins(len(s.data()))))
		s.release()
	}
	if to := p.heldTo(); to > l.held {
		l.held = to
		l.send(&message{id: msgHeld, token: uint64(to)})
	}
	switch {
	case p.granted == p.sent:
		p.expect(reader, 0) // until there is room
	case l.sent.len() < maxSmall:
		p.expect(reader, 1)
	default:
		p.expect(reader, k.most)
	}
}

// close says how the writer has left.
func (l *relayLink) close(why cause) {
	switch why.code {
	case causeBrokerGone:
		why = cause{causeAborted, "the writer's broker has ended: " + why.text}
	case causeConflict, causeUnreachable:
		why.code = causeAborted
	}
	l.state = linkClosing
	l.send(&message{id: msgClose, code: why.code, cause: []byte(why.text)})
}

func (l *relayLink) expects(m *message) bool {
	switch m.id {
	case msgTaken:
		return l.state == linkOpening || l.state == linkOpen || l.state == linkClosing
	case msgAudience:
		return l.feeds && (l.state == linkOpen || l.state == linkClosing)
	case msgOutputFailed:
		return l.state == linkOpening || l.state == linkClosing
	case msgWriteFailed:
		return l.state == linkOpen || l.state == linkClosing
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	case msgInvalid:
		return true
	}
	return false
}

func (l *relayLink) handle(_ []byte, m *message) {
	switch m.id {
	case msgTaken:
		l.taken(m)
	case msgAudience:
		p := l.relay.pipe
		p.mu.Lock()
		if p.use == branch { // it may have become a stream's since
			p.cast.recount(p, size(m.count))
		}
		p.mu.Unlock()
	case msgOutputFailed:
		why := m.why()
		l.finish()
		l.tell(func(r *relay, now time.Time) { r.refused(l, why, now) })
	case msgWriteFailed:
		l.ended(m.why())
	case msgCloseOK, msgCloseFailed:
		l.finish()
		l.tell(func(r *relay, _ time.Time) { r.finished(l, cause{}) })
	case msgInvalid:
		l.lost(droppedEnd)
	}
}

// taken takes note of how far the reader's broker has got.
func (l *relayLink) taken(m *message) {
	p := l.relay.pipe
	if l.dropped.Load() > 0 {
		l.serve() // and the pipe may be somebody else's matter by now
		return
	}
	p.mu.Lock()
	attached := l.state == linkOpening
	sound := p.relayedTo(int64(m.token), size(m.count), attached)
	if attached {
		l.state = linkOpen
		if !p.reader.sure {
			p.show(reader)
		}
	}
	p.mu.Unlock()
	if !sound {
		l.conn.fail("the broker broke the protocol: it has taken what was not sent")
		return
	}
	l.conn.inTurn(func() {
		for l.sent.len() > 0 && l.sent.front().end <= int64(m.token) {
			l.addInFlight(-l.sent.pop().n)
			l.conn.most = l.conn.pace.answered(&l.linkBase, l.conn.most)
		}
	})
	if attached {
		l.send(&message{id: msgRead, flags: readHere})
		l.tell(func(r *relay, _ time.Time) { r.isAttached(l) })
	}
	l.serve()
}

// ended is for a reader that has left.
func (l *relayLink) ended(why cause) {
	if why.code == causeBrokerGone {
		why.text = l.relay.where + ": " + why.text
	}
	p := l.relay.pipe
	p.mu.Lock()
	p.leave(reader, why)
	p.mu.Unlock()
	if l.state == linkOpen {
		l.close(cause{})
	}
	l.tell(func(r *relay, _ time.Time) { r.finished(l, why) })
}

func (l *relayLink) lost(cause) {
	if l.state == linkDone {
		return
	}
	l.finish()
	l.tell(func(r *relay, now time.Time) { r.lost(l, now) })
}
