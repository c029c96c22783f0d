//go:build !core

package zpipes

import (
	"maps"
	"slices"
	"sync"
)

// processBrokers lists the brokers of this process.
var processBrokers brokerTable

type brokerTable struct {
	mu      sync.Mutex         // guards brokers
	brokers map[string]*Broker // nil: the name is reserved for one that starts
}

func (l *brokerTable) reserve(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.brokers[name]; taken {
		return false
	}
	if l.brokers == nil {
		l.brokers = make(map[string]*Broker)
	}
	l.brokers[name] = nil
	return true
}

func (l *brokerTable) enter(b *Broker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.brokers[b.name] = b
}

func (l *brokerTable) leave(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.brokers, name)
}

// find returns the serving broker of that name, or nil.
func (l *brokerTable) find(name string) *Broker {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.brokers[name]; b != nil && b.serving() {
		return b
	}
	return nil
}

func (b *Broker) serving() bool {
	select {
	case <-b.closing:
		return false
	default:
		return true
	}
}

// members are those who have to be gone before a broker is.
type members[T comparable] struct {
	mu     sync.Mutex // guards all and closed; no other lock is taken under it
	all    map[T]bool
	closed bool
}

// admit counts x, if what makes it succeeds; unless they were closed.
func (g *members[T]) admit(x T, make func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errUnserved
	}
	if err := make(); err != nil {
		return err
	}
	if g.all == nil {
		g.all = map[T]bool{}
	}
	g.all[x] = true
	return nil
}

func (g *members[T]) left(x T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, x)
}

// close admits no more, and returns who is there.
func (g *members[T]) close() []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return slices.Collect(maps.Keys(g.all))
}
