package zpipes

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A registry holds a broker's pipes by name. Clients of this process and
// sessions of remote ones open them here alike.
type registry struct {
	maxPipes   int
	maxPending int // bytes a pipe confirms before writes wait
	maxMessage int // bytes of the largest message, and so of a READ's answer

	mu     sync.Mutex       // guards what follows; a pipe's mu is taken under it
	pipes  map[string]*pipe // those whose name is taken
	dead   map[*pipe]bool   // those whose name is free, but that an end still holds
	closed *cause           // opens are refused
	empty  chan struct{}    // closed once closed is set and no reader is left
	past   struct{ in, out int64 }

	clients, opened, refused, expired, violations atomic.Int64
}

func newRegistry(maxPipes, maxPending, maxMessage int) *registry {
	return &registry{
		maxPipes: maxPipes, maxPending: maxPending, maxMessage: maxMessage,
		pipes: make(map[string]*pipe), dead: make(map[*pipe]bool),
		empty: make(chan struct{}),
	}
}

// open attaches an end to the pipe of that name, and creates the pipe if there
// is none. window is how many bytes a writer of this process may have
// unconfirmed. A refusal leaves no trace.
func (g *registry) open(name string, r role, window int, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attach(name, r, window, wake, now)
	if why != nil {
		g.refused.Add(1)
	} else {
		g.opened.Add(1)
	}
	return p, why
}

func (g *registry) attach(name string, r role, window int, wake func(), now time.Time) (*pipe, *cause) {
	if err := checkPipeName(name); err != nil {
		return nil, &cause{causeBadName, fmt.Sprintf("a name is 1 to %d bytes without NUL", maxString)}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return nil, g.closed
	}
	p := g.pipes[name]
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.over() {
			g.retire(p)
			p = nil
		} else if p.side(r).open {
			return nil, &cause{causeBusy, "it has a " + r.String() + " already"}
		}
	}
	if p == nil {
		if len(g.pipes)+len(g.dead) >= g.maxPipes {
			return nil, &cause{causeTooMany, fmt.Sprintf("the broker holds %d pipes already", g.maxPipes)}
		}
		p = &pipe{name: name, limit: g.maxPending, created: now}
		p.mu.Lock()
		defer p.mu.Unlock()
		g.pipes[name] = p
	}
	if r == writer {
		p.window = window
	}
	p.attach(r, wake)
	return p, nil
}

// refusal is why opens are refused; nil: they are not.
func (g *registry) refusal() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		return nil
	}
	return g.closed.openError()
}

// retire frees the name of a pipe that is over, and forgets it once no end
// holds it.
func (g *registry) retire(p *pipe) {
	if g.pipes[p.name] == p {
		delete(g.pipes, p.name)
	} else if !g.dead[p] {
		return
	}
	delete(g.dead, p)
	if !p.idle() {
		g.dead[p] = true
		return
	}
	g.past.in += p.in
	g.past.out += p.out
}

// noteEmpty closes empty when the last reader has left a closed registry.
func (g *registry) noteEmpty() {
	if g.closed == nil {
		return
	}
	for p := range g.held {
		p.mu.Lock()
		waits := p.reader.attached()
		p.mu.Unlock()
		if waits {
			return
		}
	}
	select {
	case <-g.empty:
	default:
		close(g.empty)
	}
}

// release is called after an end has left.
func (g *registry) release(p *pipe) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.mu.Lock()
	g.retire(p)
	p.mu.Unlock()
	g.noteEmpty()
}

// close refuses opens from now on, and ends every pipe's writer, and with all
// set its reader, too.
func (g *registry) close(why cause, all bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = &why
	for p := range g.held {
		p.mu.Lock()
		p.leave(writer, why)
		if all {
			p.leave(reader, why)
		}
		p.mu.Unlock()
	}
	g.noteEmpty()
}

// held yields all pipes, those without a name included. mu is held.
func (g *registry) held(yield func(*pipe) bool) {
	for _, p := range g.pipes {
		if !yield(p) {
			return
		}
	}
	for p := range g.dead {
		if !yield(p) {
			return
		}
	}
}

func (g *registry) list(now time.Time) []PipeInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	infos := make([]PipeInfo, 0, len(g.pipes))
	for _, p := range g.pipes {
		p.mu.Lock()
		if !p.over() {
			infos = append(infos, PipeInfo{
				Name:     p.name,
				Reader:   p.reader.open,
				Writer:   p.writer.open,
				Queued:   p.buf.n,
				BytesIn:  p.in,
				BytesOut: p.out,
				Age:      now.Sub(p.created),
			})
		}
		p.mu.Unlock()
	}
	return infos
}

func (g *registry) stats() BrokerStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := BrokerStats{
		Pipes:      len(g.pipes),
		Clients:    int(g.clients.Load()),
		Opened:     g.opened.Load(),
		Refused:    g.refused.Load(),
		Expired:    g.expired.Load(),
		Violations: g.violations.Load(),
		BytesIn:    g.past.in,
		BytesOut:   g.past.out,
	}
	for p := range g.held {
		p.mu.Lock()
		s.BytesIn += p.in
		s.BytesOut += p.out
		p.mu.Unlock()
	}
	return s
}
