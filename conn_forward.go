//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// A tunnelLink is a tunnel's way, which has a connection to the other broker to itself. It belongs to
// the connection's owner; nil, it does nothing.
type tunnelLink struct {
	conn   *conn
	tunnel *tunnel
	begun  bool
}

// serve sends what there is, as fast as it leaves.
func (l *tunnelLink) serve() {
	if l == nil || !l.conn.greeted {
		return
	}
	if !l.begun {
		l.begun = true
		l.tunnel.begin(l.conn.pending, l.conn.able, l.conn.transport.wake)
	}
	for !l.conn.transport.stalled() {
		frame, closed := l.tunnel.next()
		if closed {
			l.conn.leaves = true
			l.conn.fail("its client is gone")
		}
		if frame == nil {
			return
		}
		l.conn.sendFrame(frame)
	}
}

func (l *tunnelLink) sated() bool { return l != nil && l.tunnel.sated() }

func (l *tunnelLink) busy() bool { return l != nil && l.tunnel.busy() }

// rest says that the connection may end, and so does the tunnel then.
func (l *tunnelLink) rest() bool { return l == nil || l.tunnel.rest() }

// take takes a message.
func (l *tunnelLink) take(p *packet, m *message) {
	frame := p.frame
	if p.lent || m.body != nil {
		frame = bytes.Clone(frame)
	}
	l.tunnel.arrived(frame)
}

// fault ends the tunnel where what comes is too large: another one would not have it, either.
func (l *tunnelLink) fault(err error) {
	if l != nil && l.tunnel.text != nil && err == errTooLarge {
		l.tunnel.end(cause{causeAborted, "the queue is at another broker of the cluster, and its next chunk is larger than this broker takes; see its MaxMessage"})
	}
}

// newClient makes a client of that broker. What goes there by it outlives a cut that is no longer than the
// heartbeats allow.
func (f *fellow) newClient(patience time.Duration, able uint32) *Client {
	cfg := ClientConfig{Heartbeat: min(max(patience/missedBeats, minBeat), maxBeat)}.withDefaults()
	c := newClient(cfg, f.name, "", nil)
	c.fellow, c.abilities = f, able
	return c
}

// outOfReach is why something is over that is at that member.
func (m *mesh) outOfReach(to memberID, why error) cause {
	return cause{causeBrokerGone, fmt.Sprintf("the broker that has it, %s, can't be reached (%v); see zpipes cluster status", m.describe(to), why)}
}

// dig is tunneler's.
func (h *sessionHost) dig(t *tunnel, to memberID) {
	m, able := h.mesh, t.session.able&^(ableRings|peerAbilities)
	ctx, cancel := context.WithTimeout(m.stop, m.patience())
	t.begin(0, ableText, func() {
		if t.closed {
			cancel()
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		cancel()
		t.end(cause{causeBrokerGone, errMeshEnded.Error()})
		return
	}
	m.running.Go(func() {
		defer cancel()
		t.end(m.outOfReach(to, m.tunnel(ctx, t, to, able)))
	})
}

// tunnel is a tunnel's way until that ends, and returns why it has.
func (m *mesh) tunnel(ctx context.Context, t *tunnel, to memberID, able uint32) error {
	m.mu.Lock()
	f := m.fellows[to]
	if f == nil || m.closed {
		m.mu.Unlock()
		return errNoMember
	}
	c := f.newClient(m.patience(), able)
	c.tunnel = t
	if f.tunnels == nil {
		f.tunnels = make(map[*Client]bool)
	}
	f.tunnels[c] = true
	m.mu.Unlock()
	k, err := dial(ctx, c, fmt.Sprintf("member://%v", to))
	if err == nil {
		<-k.done
		err = k.closeErr()
	}
	m.mu.Lock()
	delete(f.tunnels, c)
	m.mu.Unlock()
	return err
}
