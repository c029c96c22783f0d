//go:build !core

package zpipes

import (
	"sync"
	"time"
)

// parking is how a transport's owner waits, mostly in Go's poller: a deadline is both the
// alarm clock and the way to interrupt.
type parking struct {
	deadline func(time.Time) error // sets it
	until    time.Time             // the one that is set

	mu     sync.Mutex // guards what follows and the deadline; no other lock is taken under it
	awake  bool       // wake was called since the owner waited
	parked bool       // the owner waits
}

// park says that the owner may wait now, until then, and calls unpark when it has.
func (p *parking) park(until time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.awake {
		p.awake = false
		return false
	}
	p.parked = true
	if !until.Equal(p.until) {
		p.until = until
		p.deadline(until)
	}
	return true
}

// unpark ends what park has begun, and says whether it was by wake.
func (p *parking) unpark() (woken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	woken = p.awake
	p.parked, p.awake = false, false
	return woken
}

// wake ends the owner's waiting, or does not let it begin. It may be called from any
// goroutine.
func (p *parking) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.awake {
		return
	}
	p.awake = true
	if p.parked {
		p.until = time.Unix(1, 0)
		p.deadline(p.until)
	}
}

// A bell wakes one who waits in a select, or lets it not wait at all.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

// ring waits for nobody.
func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // it has rung
	}
}
