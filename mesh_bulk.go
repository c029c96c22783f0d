//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// Connections for data between two brokers, beside their link.

const (
	// fewFellows is how many others a broker has at most that keeps a connection for data ready to each of them. To
	// make one takes four round trips, which else the first stream would wait for.
	fewFellows = 8
	// mostUnsentFar is beyond what windows let a client send.
	mostUnsentFar = 1 << 30
)

// bulk calls f with a connection to a member for data, or with why there is none, soon. There are
// several, which take turns; but while the two are linked, nobody waits for one to be made if there is another.
func (m *mesh) bulk(to memberID, f func(*conn, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fellow := m.fellows[to]
	if fellow == nil || m.closed {
		go f(nil, errNoMember)
		return
	}
	fellow.turn = (fellow.turn + 1) % bulkConns
	c, turn, tries := fellow.bulkClient(), fellow.turn, 1
	if fellow.link != nil {
		tries = bulkConns
	}
	m.running.Go(func() {
		ctx, cancel := context.WithTimeout(m.stop, meetTime)
		defer cancel()
		for i := range tries {
			if k := c.connected(fellow.bulkEndpoint((turn + i) % bulkConns)); k != nil {
				f(k, nil)
				c.connect(ctx, fellow.bulkEndpoint(turn)) // for those who come later
				return
			}
		}
		f(c.connect(ctx, fellow.bulkEndpoint(turn)))
	})
}

// bulkClient is the client whose connections these are. The mesh's mu is held.
func (f *fellow) bulkClient() *Client {
	if f.client == nil {
		f.client = f.newClient(missedBeats*defaultHeartbeat, abilities&^ableRings)
	}
	return f.client
}

func (f *fellow) bulkEndpoint(turn int) string { return fmt.Sprintf("member://%v/%d", f.id, turn) }

// prepare makes a connection for data before there is any, unless there are many fellows; later, where it was not possible.
func (m *mesh) prepare(f *fellow, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.user == nil || f.link == nil || f.mute == nil && (!first || len(m.fellows) > fewFellows) {
		return
	}
	c := f.bulkClient()
	m.running.Go(func() {
		ctx, cancel := context.WithTimeout(m.stop, meetTime)
		defer cancel()
		if _, err := c.connect(ctx, f.bulkEndpoint(0)); err == nil {
			f.takes(nil) // it may have been there
		}
	})
}

// keeps says that a connection stays though nobody uses it.
func (f *fellow) keeps(k *conn) bool {
	f.mesh.mu.Lock()
	defer f.mesh.mu.Unlock()
	return k.endpoint == f.bulkEndpoint(0) && len(f.mesh.fellows) <= fewFellows
}

// dialBulk makes the transport of a connection for data.
func (f *fellow) dialBulk(ctx context.Context, largest int) (transport, error) {
	m := f.mesh
	m.mu.Lock()
	addresses := slices.Clone(f.addresses)
	if f.link != nil && f.link.dialer == m.id {
		addresses = slices.Insert(addresses, 0, f.link.remote)
	}
	strands := 1
	if f.able&ableStrands != 0 && time.Duration(f.rtt.Load()) >= farAway {
		strands = strandsFar
	}
	m.mu.Unlock()
	var c net.Conn
	err := error(errNoMember)
	for _, address := range addresses {
		if c, err = m.dialData(ctx, f, address, strands); err == nil {
			f.takes(nil)
			return newFar(c, max(m.broker.cfg.MaxMessage, largest)+messageOverhead, mostUnsentFar, &f.life).listen(), nil
		}
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		f.takes(err)
	}
	return nil, fmt.Errorf("%w: %w", errUnserved, err)
}

// takes notes why a connection for data could not be made, or that one could. Who waits for what would go over it does
// not hear of that, since it may be possible yet.
func (f *fellow) takes(err error) {
	f.mesh.mu.Lock()
	defer f.mesh.mu.Unlock()
	if f.mute = err; f.link == nil {
		f.mute = nil // which is said already
	}
}
