//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// A meshLink is a control connection between two brokers: records and heartbeats, and nothing
// for which they would have to wait. Its serve receives; anybody sends.
type meshLink struct {
	mesh   *mesh
	fellow *fellow
	far    *far
	dialer memberID                  // who has made it
	remote string                    // the other side's address
	pinged atomic.Pointer[time.Time] // when the last PING was sent; nil: it was answered
	knows  bool                      // how long a round trip takes; serve's
}

// look ends a link that is silent for longer than that, seen by one who looks late, and has the mesh look again
// when it may be. The mesh's mu is held.
func (l *meshLink) look(now time.Time, dead, late time.Duration) {
	heard := l.far.heardAt()
	if silent := now.Sub(heard); silent > dead+late {
		l.mesh.unlink(l.fellow, fmt.Sprintf("nothing was heard for %v", silent.Round(time.Millisecond)))
	} else if over := heard.Add(dead); over.Before(l.mesh.quiet) {
		l.mesh.quiet = over
	}
}

// beat says that this side lives, and may ask for an answer, by which it is known how far the other one
// is. No side's beats depend on what the other one says: an answer would come as late as the question,
// which may be behind many records, or at a broker that has no time. The mesh's mu is held.
func (l *meshLink) beat(now time.Time, asks bool) {
	if asks {
		l.tellOne()
	}
	if asks || l.fellow.able&ableBeats == 0 {
		l.ping(now)
	} else {
		l.far.send(beatFrame)
	}
}

// beatFrame says that this side lives. As to clients, it is a PING_OK that nobody has asked for.
var beatFrame = (&message{id: msgPingOK, block: hasBlock}).append(nil)

// ping is a beat that asks.
func (l *meshLink) ping(now time.Time) {
	l.pinged.CompareAndSwap(nil, &now)
	l.far.sendMessage(&message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion}})
}

// serve receives until the link ends.
func (l *meshLink) serve() {
	err := l.receive()
	l.far.close()
	m := l.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == errHasLeft && m.fellows[l.fellow.id] == l.fellow: // over whichever link it says so
		m.ended(l.fellow, true)
	case l.fellow.link != l:
	case err == io.EOF:
		m.unlink(l.fellow, errGone.Error())
	default:
		m.unlink(l.fellow, err.Error())
	}
}

var errHasLeft = errors.New("it has left")

func (l *meshLink) receive() error {
	for {
		p, err := l.far.next()
		if err != nil {
			return err
		}
		if bytes.Equal(p.frame, beatFrame) {
			continue // nearly all are
		}
		said, err := parse(p.frame)
		if err == errUnknownID {
			continue // of a later version
		}
		if err != nil {
			return err
		}
		switch {
		case said.id == msgPing:
			l.far.sendMessage(&message{id: msgPingOK, block: hasBlock, hello: said.hello})
		case said.id == msgPingOK && said.hello.version == 0: // unasked
		case said.id == msgPingOK:
			if at := l.pinged.Swap(nil); at != nil {
				l.measured(int64(time.Since(*at)))
			}
		case said.id == msgClose:
			return errHasLeft
		case said.id == msgInvalid:
			return said.why().openError()
		case said.id == msgLink && said.mode == linkTold:
			l.mesh.told(&said)
		default:
			l.mesh.received(l, &said)
		}
	}
}

// measured takes a round trip time. The least is the network's; what was longer has waited.
func (l *meshLink) measured(rtt int64) {
	if old := l.fellow.rtt.Load(); old != 0 && rtt > old {
		rtt = old + (rtt-old)/4
	}
	l.fellow.rtt.Store(rtt)
	l.mesh.prepare(l.fellow, !l.knows)
	l.knows = true
}

// received takes a record.
func (m *mesh) received(l *meshLink, said *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.fellow.link == l && m.user != nil {
		m.user.received(l.fellow.id, said)
	}
}

// tellOne says again that there is another one, whichever: those two may have been out of reach of each other for so long
// that they have forgotten that. The mesh's mu is held.
func (l *meshLink) tellOne() {
	for _, other := range l.mesh.fellows { // in no order, so that all have their turn
		if l.tell(other) {
			return
		}
	}
}

// tell says that there is another one, where it may be reached; false: there is nothing to say. The mesh's mu is held.
func (l *meshLink) tell(other *fellow) bool {
	if other == l.fellow || other.link == nil || len(other.addresses) == 0 {
		return false
	}
	address := other.addresses[0]
	if loopback(address) && !loopback(l.remote) {
		return false
	}
	l.far.sendMessage(&message{id: msgLink, block: hasBlock, mode: linkTold, text: []byte(other.name),
		fellow: wireFellow{id: other.id, address: []byte(address)}})
	return true
}

// goodbye ends the link in good order.
func (l *meshLink) goodbye() {
	l.far.part(&message{id: msgClose, block: hasBlock}, goodbyeTime)
}
