//go:build !core

package zpipes

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A meetingHost is around the exchange of a broker that belongs to a cluster. Its goroutine owns
// that.
type meetingHost struct {
	*Broker
	id       memberID
	exchange *exchange
	bell     bell
	done     chan struct{} // closed when serve has ended
	movers   movers
	moved    bell                 // rung when one has ended
	handing  sync.Mutex           // held while queues are handed over; b.closed and b.ending are taken before, mesh.mu under it
	ends     chan context.Context // has that of who ends the broker, from when it does
}

func newMeetingHost(b *Broker) *meetingHost {
	h := &meetingHost{Broker: b, id: memberID(rand.Uint64() | 1), bell: newBell(), done: make(chan struct{}), moved: newBell(), ends: make(chan context.Context, 1)}
	h.movers.of = make(map[string]*mover)
	h.exchange = newExchange(h.id, b.pipes, h)
	b.pipes.exchange = h.exchange
	return h
}

func (h *meetingHost) serve() {
	defer close(h.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := h.exchange.turn(time.Now()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-h.closing:
			return
		case <-h.bell:
		case <-timer.C:
		}
	}
}

func (h *meetingHost) ring() { h.bell.ring() }

func (h *meetingHost) send(to memberID, m *message) { h.mesh.send(to, m) }

func (h *meetingHost) busy(to memberID) bool { return h.mesh.busy(to) }

func (h *meetingHost) way(r *relay) {
	h.mesh.bulk(r.at, func(k *conn, err error) {
		h.exchange.do(func(now time.Time) {
			if err != nil {
				r.found(nil, err, now)
			} else {
				r.found(newRelayLink(k, r), nil, now)
			}
		})
	})
}

func (h *meetingHost) dial(c *farDial) {
	h.mesh.bulk(c.at, func(k *conn, err error) {
		h.exchange.do(func(now time.Time) {
			if err != nil {
				c.began(nil, err, now)
			} else {
				c.began(newCallLink(k, c), nil, now)
			}
		})
	})
}

func (h *meetingHost) describe(m memberID) string { return h.mesh.describe(m) }

func (h *meetingHost) name(m memberID) string { return h.mesh.nameOf(m) }

func (h *meetingHost) patience() time.Duration { return h.mesh.patience() }
