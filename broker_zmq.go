//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// A zmqHost serves a broker's clients over ZeroMQ: all sessions, on one socket, are hosted
// by one goroutine.
type zmqHost struct {
	sessionHost
	bound    []string // endpoints
	ctx      *zmqContext
	door     *tcpDoor       // where those come in who need a key
	zap      *zapHandler    // nil: in a context that is shared, where somebody else may be asked
	inproc   members[*conn] // of this process's clients: they live in ctx, which cannot end before they do
	stopping atomic.Bool    // serve is to end
	done     chan struct{}  // closed when it has

	// The rest belongs to serve.
	sock      *socket
	round     int64 // one for each message
	sessions  map[string]*session
	order     []*session // the same, in the order of being looked at
	swept     int        // of order: the next
	congested map[*session]bool
	relieveAt time.Time           // not before
	lost      fifo[*session]      // to be dropped soon, and before they say more
	left      []*session          // whose connections have ended, but who may have sent something before
	ended     map[string]*session // by routing id: connections that are no more, of which there may be messages
	nextSweep time.Time

	unexcused        int       // of order: they have yet to be excused
	lateFrom, lateTo time.Time // for what, see sweep
}

const (
	// sweepMost is how many it looks at then. Where there are more, it looks again
	// soon, but not sooner than after sweepLeast.
	sweepMost  = 1024
	sweepLeast = 10 * time.Millisecond
	// lookAfter is how long a client is silent before the system is asked whether its
	// connection is there, and lastWords how long it takes at most, where the broker is
	// never idle, until all that it sent has been received when it is not.
	lookAfter = 500 * time.Millisecond
	lastWords = 500 * time.Millisecond
	// retryEvery is how often it tries to get rid of a backlog.
	retryEvery = 2 * time.Millisecond
	// relieveShare is how many times as long it does something else then.
	relieveShare = 5
	// maxEnded is how many connections are remembered that are no more.
	maxEnded = 4096
)

// newZmqHost binds the endpoints; serve follows.
func newZmqHost(of *Broker, endpoints []string) (_ *zmqHost, err error) {
	b := &zmqHost{
		done:      make(chan struct{}),
		sessions:  make(map[string]*session),
		ended:     make(map[string]*session),
		congested: make(map[*session]bool),
	}
	b.sessionHost = sessionHost{Broker: of, wake: func() { b.sock.wake() }}
	b.door = &tcpDoor{broker: of, sluices: newSluices(), inside: make(map[net.Conn]bool), heard: make(map[string]*lifeSign)}
	defer func() {
		if err != nil {
			b.unbind()
		}
	}()
	if b.ctx, err = newContext(b.cfg.Context); err != nil {
		return nil, err
	}
	if !b.ctx.shared {
		// Before any endpoint: without a ZAP handler, libzmq lets everybody in.
		if b.zap, err = newZapHandler(b.ctx, b.opens); err != nil {
			return nil, err
		}
	}
	if b.sock, err = newRouter(b.ctx, b.cfg.MaxMessage); err != nil {
		return nil, err
	}
	if b.zap != nil {
		if err := b.sock.useZap(plainDoor); err != nil {
			return nil, err
		}
	}
	b.sock.asks = b.asks
	for _, endpoint := range endpoints {
		if err := b.bindTo(endpoint); err != nil {
			return nil, err
		}
	}
	if len(b.door.listeners) > 0 {
		// What the socket binds from here on needs a key.
		if err := b.changePlaces(b.keys.Load().key); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *zmqHost) bindTo(endpoint string) error {
	usual := endpoint == defaultEndpoint(b.name) // which clients find by the name
	keyed := !usual && !b.cfg.Key.IsZero()
	endpoint, network, address, err := bindAddress(endpoint, keyed)
	if err != nil {
		return err
	}
	if keyed && network == "tcp" {
		return b.openTCP(address)
	}
	if network == "unix" && !tellsPeers && len(b.cfg.AllowUIDs) > 0 {
		return fmt.Errorf("%s: %w: neither this system nor libzmq says which user comes over ipc, so AllowUIDs can't hold there", endpoint, errors.ErrUnsupported)
	}
	release, err := claim(network, address, nil, func() error { return b.sock.bind(endpoint) })
	if release != nil {
		b.locks = append(b.locks, release)
	}
	if err == nil && isPath(network, address) {
		switch {
		case !tellsPeers: // the path's permissions must do
			err = os.Chmod(address, 0o600)
		case len(b.cfg.AllowUIDs) > 0:
			err = admitAll(address)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	if endpoint, err = b.sock.bound(); err != nil {
		return err
	}
	endpoint = strings.Replace(endpoint, "[::ffff:127.0.0.1]", "127.0.0.1", 1) // what one would write
	b.bound = append(b.bound, endpoint)
	return nil
}

func (b *zmqHost) unbind() {
	b.door.stop()
	if b.sock != nil {
		for _, endpoint := range b.bound {
			b.sock.unbind(endpoint)
		}
		b.sock.close()
	}
	b.door.close()
	if b.zap != nil {
		b.zap.close()
	}
	if b.ctx == nil {
		return // no endpoint was bound
	}
	if b.ctx.close(); b.ctx.shared {
		// In a context that lives on, libzmq gives the names free when it
		// comes to it.
		for _, endpoint := range b.bound {
			awaitUnbound(endpoint)
		}
	}
}

// stop ends serve, and this process's connections over inproc.
func (b *zmqHost) stop() {
	for _, k := range b.inproc.close() {
		k.kill("it was closed")
		<-k.done
	}
	b.stopping.Store(true)
	b.sock.wake()
	<-b.done
}

// serve is the only goroutine that touches the socket and its sessions.
func (b *zmqHost) serve() {
	defer close(b.done)
	now := time.Now()
	for !b.stopping.Load() {
		b.round++
		p, ok := b.sock.wait(b.nextLook(now))
		now = time.Now()
		if ok {
			b.dispatch(&p, now)
		} else {
			// All that they had sent has been received.
			clear(b.ended)
			for _, s := range b.left {
				b.lose(s)
			}
			clear(b.left)
			b.left = b.left[:0]
		}
		b.resume(now)
		b.relieve(now)
		b.sweep(now)
		b.dropLost()
	}
	b.finish(time.Now())
	b.goodbye()
}

// goodbye tells the clients, and waits a little until they have hung up: what is
// on its way to them when the connection ends is lost.
func (b *zmqHost) goodbye() {
	for id, s := range b.sessions {
		if s.agreed {
			s.end(hasBlock, "it was closed")
		} else {
			delete(b.sessions, id)
		}
	}
	probe := (&message{id: msgPingOK, block: hasBlock}).append(nil)
	for end := time.Now().Add(goodbyeTime); len(b.sessions) > 0 && time.Now().Before(end); {
		for id, s := range b.sessions {
			if b.sock.send(s.id, probe) == errGone {
				delete(b.sessions, id)
			}
		}
		for more := true; more && time.Now().Before(end); { // some never stop
			_, more = b.sock.wait(time.Now().Add(time.Millisecond))
		}
	}
}

func (b *zmqHost) nextLook(now time.Time) time.Time {
	var t time.Time
	if len(b.sessions) > 0 {
		t = b.nextSweep
	}
	if b.lost.len() > 0 {
		t = now
	}
	t = b.nextAlarm(t)
	if len(b.congested) > 0 {
		next := now.Add(retryEvery)
		if next.Before(b.relieveAt) {
			next = b.relieveAt
		}
		if t.IsZero() || next.Before(t) {
			t = next
		}
	}
	return t
}
