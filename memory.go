//go:build !core

package zpipes

import (
	"slices"
	"sync"
	"time"
)

// A memoryConn is either end of a connection within the process.
type memoryConn struct {
	inbox
	peer *memoryConn
}

// maxInMemory is how much may wait for a client in this process.
const maxInMemory = 1 << 20

// newMemoryConn makes a connection. What may wait for the client is bounded here, and what may
// wait for the broker by windows.
func newMemoryConn() (client, broker *memoryConn) {
	client, broker = &memoryConn{inbox: newInbox(maxInMemory)}, &memoryConn{inbox: newInbox(0)}
	client.peer, broker.peer = broker, client
	client.roomy = broker.wake
	return client, broker
}

func (m *memoryConn) send(frames ...[]byte) error {
	return m.peer.put(packet{frame: slices.Concat(frames...)})
}

// stalled is never said: what waits for the peer is where it will read it.
func (m *memoryConn) stalled() bool { return false }

// linger has nothing to do: what was sent is there.
func (m *memoryConn) linger(time.Duration) {}

func (m *memoryConn) close() {
	m.shut()
	m.peer.end()
}

// An inbox has the messages that other goroutines put there for a transport's owner.
type inbox struct {
	most  int    // bytes that may wait before put returns errFull; 0: any number
	roomy func() // called when there is room after that
	bell  bell   // rings when there is something to be seen
	// timer is the owner's, and stands still while it does not wait.
	timer *time.Timer

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	in     fifo[packet]
	n      int  // bytes of them
	awake  bool // wake was called
	short  bool // put has returned errFull
	over   bool // nothing more comes
	closed bool // the owner takes nothing more
}

func newInbox(most int) inbox { return inbox{most: most, bell: newBell()} }

// wait is transport's.
func (b *inbox) wait(until time.Time) (packet, bool) {
	for look, waited := true, false; ; waited = true {
		if p, ok, done := b.look(); done || !look {
			p.waited = waited
			return p, ok
		}
		look = b.park(until)
	}
}

// pause is wait by an owner who takes nothing now.
func (b *inbox) pause(until time.Time) {
	for look := true; look; look = b.park(until) {
		b.mu.Lock()
		awake := b.awake || b.over && b.in.len() == 0
		b.awake = false
		b.mu.Unlock()
		if awake {
			return
		}
	}
}

// look takes what there is; done: the owner is to see it.
func (b *inbox) look() (p packet, ok, done bool) {
	b.mu.Lock()
	awake := b.awake
	b.awake = false
	if b.in.len() == 0 {
		over := b.over
		b.mu.Unlock()
		return packet{}, false, awake || over
	}
	p = b.in.pop()
	b.n -= len(p.frame)
	room := b.short && b.n < b.most/2
	if room {
		b.short = false
	}
	b.mu.Unlock()
	if room {
		b.roomy()
	}
	return p, true, true
}

// park waits until the bell has rung, or says false: the time is there.
func (b *inbox) park(until time.Time) bool {
	if until.IsZero() {
		<-b.bell
		return true
	}
	left := time.Until(until)
	if left <= 0 {
		return false
	}
	if b.timer == nil {
		b.timer = time.NewTimer(left)
	} else {
		b.timer.Reset(left)
	}
	select {
	case <-b.bell:
		b.timer.Stop()
		return true
	case <-b.timer.C:
		return false
	}
}

// put adds a message. It may be called from any goroutine, as what follows may be.
func (b *inbox) put(p packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return errGone
	case b.most > 0 && b.n > 0 && b.n+len(p.frame) > b.most:
		b.short = true
		return errFull
	}
	b.in.push(p)
	b.n += len(p.frame)
	b.bell.ring()
	return nil
}

func (b *inbox) connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over || b.in.len() > 0
}

func (b *inbox) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.awake = true
	b.bell.ring()
}

// end says that nothing more comes.
func (b *inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.bell.ring()
}

// shut has put return errGone from now on.
func (b *inbox) shut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.in.len() > 0 {
		p := b.in.pop()
		p.body.release()
	}
	b.n = 0
}
