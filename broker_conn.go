//go:build !core

package zpipes

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// A peerConn is the broker's side of a connection that is not ZeroMQ's. Its goroutine owns
// the transport and the session on it, whose host it is: what a client asks for takes
// no way through anybody else's hands. Its client's death is the end of the connection.
type peerConn struct {
	sessionHost
	transport transport
	session   *session
	ending    atomic.Bool   // the broker closes
	done      chan struct{} // closed when serve has ended

	// The rest belongs to serve.
	lookAt time.Time // when to look whether the client lives
	lost   bool      // it is to be dropped
	met    bool      // the client has said something
}

// inARow is how many messages of a client that sends without end are taken before other
// clients have a turn. Go would let each of them go on for 10 ms. One that waits for its
// answers has no such row, and does not wait behind whoever else wants a processor.
const inARow = 32

// helloTime is how long a client may take to say anything.
const helloTime = 5 * time.Second

// join serves a client, about whom that is known. The error is errUnserved if the broker
// is closing; then, the transport is still the caller's.
func (b *Broker) join(t transport, who Access, peer string) error {
	return b.joinAs(t, who, peer, nil)
}

// joinFellow serves another broker of the cluster as a client, whose windows are its bounds.
func (b *Broker) joinFellow(t *far, f *fellow, name string) error {
	err := b.joinAs(t, unknownAccess, name, f)
	if err != nil {
		t.close()
	}
	return err
}

func (b *Broker) joinAs(t transport, who Access, peer string, f *fellow) error {
	k := &peerConn{transport: t, done: make(chan struct{})}
	k.sessionHost = sessionHost{Broker: b, wake: t.wake}
	k.session = newSession(k, b.pipes, nil, b.cfg.ClientTimeout, time.Now())
	k.session.peer, k.session.who, k.session.presence = peer, who, present
	if f != nil {
		k.session.member, k.session.trip = f.id, &f.rtt
		k.session.account.limits = noLimits
	} else {
		k.session.account.limits, k.session.account.above = b.cfg.PerClient, b.user(who)
	}
	return b.peers.admit(k, func() error {
		go k.serve()
		return nil
	})
}

// end has serve end, who says so to the client. It may be called from any goroutine.
func (k *peerConn) end() {
	k.ending.Store(true)
	k.transport.wake()
}

func (k *peerConn) serve() {
	defer close(k.done)
	defer k.peers.left(k)
	s := k.session
	k.transport.linger(goodbyeTime)
	ends, why := k.loop()
	s.drop(cause{code: causeVanished}, nil)
	s.gone = true
	k.finish(time.Now())
	if k.met {
		k.count(-1)
	}
	if why != "" {
		k.expired(s, ends, why)
	}
	k.transport.close()
}

// loop returns how many ends the client had, and why it was lost; "" if it was not.
func (k *peerConn) loop() (ends int, why string) {
	s, now := k.session, time.Now()
	k.lookAt = now.Add(helloTime)
	for row := 0; !s.gone; row++ {
		if row == inARow {
			row = 0
			runtime.Gosched()
		}
		p, ok := k.transport.wait(k.nextAlarm(k.lookAt))
		if p.waited { // others have had a turn
			row = 0
		}
		now = time.Now()
		if ok {
			k.handle(&p, now)
		}
		k.resume(now)
		if s.full() && !k.transport.stalled() {
			s.stalled = false
			s.unload(math.MaxInt, func(frames [][]byte) error { return k.transport.send(frames...) })
		}
		switch {
		case s.gone:
		case k.lost || !ok && !k.transport.connected():
			return len(s.channels), "connection lost"
		case k.ending.Load():
			k.goodbye()
		case !now.Before(k.lookAt):
			ends = len(s.channels)
			if why = k.look(now); why != "" {
				return ends, why
			}
		}
	}
	return 0, ""
}

// handle takes a message.
func (k *peerConn) handle(p *packet, now time.Time) {
	s := k.session
	if s.gone {
		return
	}
	if p.fault != nil {
		k.violated(s, p.fault.Error())
		s.end(hasBlock, p.fault.Error())
		return
	}
	s.receive(p.frame, p.lent, p.body, now)
	first := !k.met
	if first {
		k.met = true
		k.count(1)
	}
	if look := now.Add(s.expiry / missedBeats); first || look.Before(k.lookAt) {
		k.lookAt = look
	}
}

// count counts the client.
func (k *peerConn) count(n int64) {
	k.pipes.clients.Add(n)
	if k.session.peer != "" && k.session.member == 0 { // else it is in this process, or another broker
		k.pipes.near.Add(n)
	}
}

// look is called when it is time to see whether the client was silent for too long; if so, it
// says so.
func (k *peerConn) look(now time.Time) (why string) {
	s := k.session
	if !k.met {
		s.gone = true
		return ""
	}
	if f, ok := k.transport.(*far); ok && f.heardAt().After(s.heard) {
		s.heard = f.heardAt()
	}
	s.heard = creditSilence(s.heard, k.lookAt, now, 0)
	k.lookAt = now.Add(s.expiry / missedBeats)
	silent := s.silence(now)
	if s.expire(now) {
		return "silent for " + silent.Round(time.Millisecond).String()
	}
	if end := now.Add(s.expiry - silent); end.Before(k.lookAt) {
		k.lookAt = end
	}
	return ""
}

// goodbye tells the client that the broker closes, and waits a little until it has hung up.
// One that has not by then takes nothing, and closing need not wait for that again.
func (k *peerConn) goodbye() {
	if !k.session.agreed {
		k.session.gone = true
		return
	}
	k.session.end(hasBlock, "it was closed")
	for end := time.Now().Add(goodbyeTime); time.Now().Before(end); {
		if _, ok := k.transport.wait(end); !ok && !k.transport.connected() {
			return
		}
	}
	k.transport.linger(0)
}

// What sessions need of their host follows; see host.

func (k *peerConn) reply(s *session, frames ...[]byte) bool {
	if s.gone || k.lost {
		return false
	}
	if len(s.backlog) == 0 {
		switch k.transport.send(frames...) {
		case nil:
			s.stalled = s.stalled || k.transport.stalled() // until unload
			return true
		case errGone: // what it had sent before is still to be taken
			return false
		}
	}
	if s.keep(frames) {
		k.violated(s, "the client does not take its answers")
		k.lost = true
	}
	return true
}
