//go:build !core

package zpipes

import (
	"slices"
	"sync"
	"time"
)

// A memoryConn is either end of a connection within the process.
type memoryConn struct {
	peer *memoryConn
	most int           // bytes that may wait here before the peer's send returns errFull; 0: any number
	bell chan struct{} // rings when there is something to be seen
	// timer is the owner's, and stands still while it does not wait.
	timer *time.Timer

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	in     fifo[[]byte]
	n      int  // bytes of them
	awake  bool // wake was called, or the peer may take more
	short  bool // the peer has met errFull
	over   bool // the peer has closed
	closed bool
}

// maxInMemory is how much may wait for a client in this process.
const maxInMemory = 1 << 20

// newMemoryConn makes a connection. What may wait for the client is bounded here, and what may
// wait for the broker by windows.
func newMemoryConn() (client, broker *memoryConn) {
	client = &memoryConn{bell: make(chan struct{}, 1), most: maxInMemory}
	broker = &memoryConn{bell: make(chan struct{}, 1), peer: client}
	client.peer = broker
	return client, broker
}

func (m *memoryConn) wait(until time.Time) (packet, bool) {
	for look := true; ; {
		if p, ok, done := m.look(); done || !look {
			return p, ok
		}
		look = m.park(until)
	}
}

// look takes what there is; done: the owner is to see it.
func (m *memoryConn) look() (p packet, ok, done bool) {
	m.mu.Lock()
	awake := m.awake
	m.awake = false
	if m.in.len() == 0 {
		over := m.over
		m.mu.Unlock()
		return packet{}, false, awake || over
	}
	p.frame = m.in.pop()
	m.n -= len(p.frame)
	room := m.short && m.n < m.most/2
	if room {
		m.short = false
	}
	m.mu.Unlock()
	if room {
		m.peer.wake()
	}
	return p, true, true
}

// park waits until the bell has rung, or says false: the time is there.
func (m *memoryConn) park(until time.Time) bool {
	if until.IsZero() {
		<-m.bell
		return true
	}
	left := time.Until(until)
	if left <= 0 {
		return false
	}
	if m.timer == nil {
		m.timer = time.NewTimer(left)
	} else {
		m.timer.Reset(left)
	}
	select {
	case <-m.bell:
		m.timer.Stop()
		return true
	case <-m.timer.C:
		return false
	}
}

func (m *memoryConn) send(frames ...[]byte) error {
	frame := slices.Concat(frames...)
	p := m.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errGone
	case p.most > 0 && p.n > 0 && p.n+len(frame) > p.most:
		p.short = true
		return errFull
	}
	p.in.push(frame)
	p.n += len(frame)
	p.ring()
	return nil
}

func (m *memoryConn) ring() {
	select {
	case m.bell <- struct{}{}:
	default: // it has
	}
}

// stalled is never said: what waits for the peer is where it will read it.
func (m *memoryConn) stalled() bool { return false }

func (m *memoryConn) connected() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.over || m.in.len() > 0
}

func (m *memoryConn) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.awake = true
	m.ring()
}

// linger has nothing to do: what was sent is there.
func (m *memoryConn) linger(time.Duration) {}

func (m *memoryConn) close() {
	m.mu.Lock()
	m.closed = true
	m.in, m.n = fifo[[]byte]{}, 0
	m.mu.Unlock()
	p := m.peer
	p.mu.Lock()
	p.over = true
	p.ring()
	p.mu.Unlock()
}
