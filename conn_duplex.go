//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// A pairing is what the two links know of each other that a client's side of a connection
// has. The reader's opens both.
type pairing struct {
	twin    *streamLink             // the writer's; nil but in the reader's
	listens *streamLink             // whose Accept it is; nil: a Dial
	peer    *atomic.Pointer[Access] // gets who is at the other end
}

// pair makes the links of both ends of a connection.
func (k *conn) pair(n *Conn, listens *streamLink) *streamLink {
	r, w := &n.r, &n.w
	r.link = k.newLink(n, r.remotePipe(n.client, n.addr.Name), reader, modeStream)
	w.link = k.newLink(nil, w.remotePipe(n.client, n.addr.Name), writer, modeStream)
	r.link.pairing = pairing{twin: w.link, listens: listens, peer: n.peer}
	return r.link
}

// meet sends the DIAL or ACCEPT. Its pipe's mu is held.
func (l *streamLink) meet() {
	l.twin.begin(l.twin)
	m := message{id: msgDial, text: []byte(l.pipe.name), count: l.twin.channel}
	if l.listens != nil {
		m = message{id: msgAccept, size: l.listens.channel, count: l.twin.channel}
	}
	l.send(&m)
}

// met takes the broker's word that the connection is open.
func (l *streamLink) met(m *message) {
	if who := m.who.access(); l.listens != nil || who != unknownAccess {
		l.peer.Store(&who)
	}
	l.accepted(true)
	if !l.answered { // it was given up, and the CLOSE that says so is to say it of both
		if l.state == linkOpening {
			l.pipe.mu.Lock()
			l.close(never)
			l.pipe.mu.Unlock()
		}
		return
	}
	l.state, l.twin.state = linkOpen, linkOpen
	l.serve()
	l.twin.serve()
}

// parted ends the other link, too, where the open has failed.
func (l *streamLink) parted() {
	if l.twin != nil && l.twin.state == linkOpening {
		l.twin.finish()
	}
}

// needConnections is an error where the broker knows no connections.
func (k *conn) needConnections() error {
	if err := k.needExtension("connections"); err != nil {
		return err
	}
	if k.able&ableConnections == 0 {
		return fmt.Errorf("%w: the broker is of an earlier version, which has no connections", errors.ErrUnsupported)
	}
	return nil
}
