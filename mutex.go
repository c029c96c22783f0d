package zpipes

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A fairMutex is a mutex for which two goroutines that lock it all the time do not
// make a third one wait long: now and then, who unlocks it steps aside. (A sync.Mutex
// has them do so after a millisecond.)
type fairMutex struct {
	mu      sync.Mutex
	waiting atomic.Int32
	passed  int // how often it was unlocked while somebody waited
}

// maxPassed is how often that may be before the one who unlocks it steps aside.
const maxPassed = 8

// spins is how often one looks whether it is free before one waits. It is held for so short
// a time that who keeps running is there sooner than who has to be woken; a sync.Mutex
// looks again only where nobody else wants the processor.
const spins = 64

func (m *fairMutex) Lock() {
	for range spins {
		if m.mu.TryLock() {
			return
		}
	}
	m.waiting.Add(1)
	m.mu.Lock()
	m.waiting.Add(-1)
}

func (m *fairMutex) Unlock() {
	yield := false
	if m.waiting.Load() > 0 {
		if m.passed++; m.passed >= maxPassed {
			m.passed, yield = 0, true
		}
	}
	m.mu.Unlock()
	if yield {
		runtime.Gosched()
	}
}
