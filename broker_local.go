//go:build cgo && !core

package zpipes

import "sync"

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

// inprocConns are the connections of this process's clients over inproc: they live
// in the broker's context, which cannot end before they do.
type inprocConns struct {
	mu     sync.Mutex // guards conns and closed; no other lock is taken under it
	conns  map[*conn]bool
	closed bool
}

// admit has a connection make its socket, unless the broker is closing.
func (g *inprocConns) admit(k *conn, connect func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errUnserved
	}
	if err := connect(); err != nil {
		return err
	}
	if g.conns == nil {
		g.conns = make(map[*conn]bool)
	}
	g.conns[k] = true
	return nil
}

func (g *inprocConns) left(k *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, k)
}

func (g *inprocConns) closeAll() {
	g.mu.Lock()
	g.closed = true
	conns := make([]*conn, 0, len(g.conns))
	for k := range g.conns {
		conns = append(conns, k)
	}
	g.mu.Unlock()
	for _, k := range conns {
		k.kill("it was closed")
		<-k.done
	}
}
