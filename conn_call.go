//go:build !core

package zpipes

import (
	"sync/atomic"
	"time"
)

// A callLink is a call's way over a connection to the listener's broker.
type callLink struct {
	linkBase
	call         *farDial
	name         string
	token, other uint64
	ended        atomic.Bool
	tooLate      atomic.Bool // it was not ended because the call was taken back
}

func newCallLink(k *conn, c *farDial) *callLink {
	return &callLink{linkBase: newLinkBase(k, nil), call: c, name: c.duplex.forth.name, token: uint64(c.forth), other: uint64(c.back)}
}

// begin is callWay's.
func (l *callLink) begin() {
	l.conn.post(l)
	if !l.conn.alive() { // and nobody may be there to take it
		l.lose()
	}
}

func (l *callLink) end(never bool) {
	l.tooLate.Store(!never)
	l.ended.Store(true)
	l.conn.post(l)
}

// tell has the exchange's owner call f.
func (l *callLink) tell(f func(c *farDial, now time.Time)) {
	c := l.call
	c.exchange.do(func(now time.Time) { f(c, now) })
}

func (l *callLink) lose() {
	l.tell(func(c *farDial, now time.Time) { c.failed(l, c.exchange.outOfReach(c.at, errGone), now) })
}

func (l *callLink) serve() {
	ended := l.ended.Load()
	switch {
	case l.state == linkNew && ended:
		l.finish()
	case l.state == linkNew:
		l.linkBase.begin(l)
		l.send(&message{id: msgCall, text: []byte(l.name), token: l.token, other: l.other})
	case (l.state == linkOpening || l.state == linkOpen) && ended:
		why := never
		if l.tooLate.Load() {
			why = cause{}
		}
		l.state = linkClosing
		l.send(&message{id: msgClose, code: why.code, cause: []byte(why.text)})
	}
}

func (l *callLink) expects(m *message) bool {
	switch m.id {
	case msgCalled, msgCallFailed:
		return l.state == linkOpening || l.state == linkClosing
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	}
	return m.id == msgInvalid
}

func (l *callLink) handle(_ []byte, m *message) {
	switch m.id {
	case msgCalled:
		if l.state == linkOpening {
			l.state = linkOpen
			l.tell(func(c *farDial, now time.Time) { c.called(l, now) })
		}
	case msgCallFailed:
		why := m.why()
		if why.code == causeNoListener {
			why = nobodyListens
		}
		if l.state == linkOpening {
			l.finish()
		}
		l.tell(func(c *farDial, now time.Time) { c.failed(l, why, now) })
	case msgCloseOK, msgCloseFailed:
		l.finish()
	case msgInvalid:
		l.lost(droppedEnd)
	}
}

func (l *callLink) lost(cause) {
	if l.state == linkDone {
		return
	}
	l.finish()
	l.lose()
}
