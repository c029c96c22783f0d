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

	mu     sync.Mutex       // guards what follows; a pipe's or store's mu is taken under it
	pipes  map[string]*pipe // those whose name is taken
	dead   map[*pipe]bool   // those whose name is free, but that an end still holds
	queues map[string]*store
	ends   int           // how many have a queue open
	closed *cause        // opens are refused
	empty  chan struct{} // closed once closed is set and no reader is left
	past   struct{ in, out int64 }

	clients, opened, refused, expired, violations, denied atomic.Int64
}

func newRegistry(maxPipes, maxPending, maxMessage int) *registry {
	return &registry{
		maxPipes: maxPipes, maxPending: maxPending, maxMessage: maxMessage,
		pipes: make(map[string]*pipe), dead: make(map[*pipe]bool), queues: make(map[string]*store),
		empty: make(chan struct{}),
	}
}

// open attaches an end to the pipe of that name, and creates the pipe if there
// is none. window is how many bytes a writer of this process may have
// unconfirmed. A refusal leaves no trace.
func (g *registry) open(name string, r role, window int, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attach(name, r, window, wake, now)
	if why == nil || why.code != causeMode { // else it can still be opened, see enter
		g.counted(why)
	}
	return p, why
}

func (g *registry) counted(why *cause) *cause {
	if why != nil {
		g.refused.Add(1)
	} else {
		g.opened.Add(1)
	}
	return why
}

// enter attaches someone to the queue of that name, whose lane is l. With create
// set, the queue comes into being where there is none.
func (g *registry) enter(name string, l *lane, create bool, now time.Time) (s *store, why *cause) {
	why = g.use(name, create, now, func(q *store) *cause {
		if g.ends >= g.maxPipes {
			return &cause{causeTooMany, fmt.Sprintf("the broker's queues are open %d times already", g.maxPipes)}
		}
		s = q
		s.attach(l)
		g.ends++
		return nil
	})
	return s, g.counted(why)
}

// use calls f with the queue of that name, and with its mu held.
func (g *registry) use(name string, create bool, now time.Time, f func(*store) *cause) *cause {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.queues[name] != nil
	s, why := g.queue(name, create, now)
	if why != nil {
		return why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = now
	if why = f(s); why != nil && !known {
		delete(g.queues, name)
	}
	return why
}

// queue finds or makes the queue of that name. mu is held.
func (g *registry) queue(name string, create bool, now time.Time) (*store, *cause) {
	if why := badName(name); why != nil {
		return nil, why
	}
	if g.closed != nil {
		return nil, g.closed
	}
	if s := g.queues[name]; s != nil {
		return s, nil
	}
	if p := g.pipes[name]; p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.over() {
			return nil, &cause{causeMode, "it is a stream, not a queue"}
		}
		g.retire(p)
	}
	if !create {
		return nil, &cause{causeNoQueue, "there is no such queue"}
	}
	if g.full() {
		return nil, g.tooMany()
	}
	s := newStore(name, g.maxPending, g.largest(), now)
	g.queues[name] = s
	return s, nil
}

// exit is called when someone leaves a queue. The queue stays.
func (g *registry) exit(s *store, l *lane, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ends--
	s.mu.Lock()
	s.detach(l)
	s.used = now
	s.mu.Unlock()
	g.noteEmpty()
}

// told is called when someone has learnt that a queue is over.
func (g *registry) told(s *store, l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.mu.Lock()
	l.receives = false
	s.mu.Unlock()
	g.noteEmpty()
}

// delete ends a queue and all that is in it.
func (g *registry) delete(name string, now time.Time) *cause {
	return g.use(name, false, now, func(s *store) *cause {
		g.end(s)
		return nil
	})
}

// end deletes a queue; mu and its mu are held.
func (g *registry) end(s *store) {
	delete(g.queues, s.name)
	s.end(cause{code: causeDeleted}, false)
	g.past.in += s.in
	g.past.out += s.out
}

// leaveText takes back one OPEN of the text interface. When that was the last one,
// and nobody else has the queue open, it is deleted.
func (g *registry) leaveText(name string, now time.Time) *cause {
	return g.use(name, false, now, func(s *store) *cause {
		if s.users == 0 {
			return &cause{causeNoQueue, "nobody has opened it by text"}
		}
		s.users--
		if s.unused() {
			g.end(s)
		}
		return nil
	})
}

// forget deletes the queues that nobody has used for so long.
func (g *registry) forget(after time.Duration, now time.Time) (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, s := range g.queues {
		s.mu.Lock()
		if s.idle(now) >= after {
			g.end(s)
			names = append(names, name)
		}
		s.mu.Unlock()
	}
	return names
}

func badName(name string) *cause {
	if checkPipeName(name) == nil {
		return nil
	}
	return &cause{causeBadName, fmt.Sprintf("a name is 1 to %d bytes without NUL", maxString)}
}

// largest is how many bytes a chunk of a queue may have.
func (g *registry) largest() int { return min(g.maxPending, g.maxMessage) }

// full says that there are as many pipes and queues as there may be. mu is held.
func (g *registry) full() bool { return len(g.pipes)+len(g.dead)+len(g.queues) >= g.maxPipes }

func (g *registry) tooMany() *cause {
	return &cause{causeTooMany, fmt.Sprintf("the broker holds %d pipes already", g.maxPipes)}
}

func (g *registry) attach(name string, r role, window int, wake func(), now time.Time) (*pipe, *cause) {
	if why := badName(name); why != nil {
		return nil, why
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return nil, g.closed
	}
	if g.queues[name] != nil {
		return nil, &cause{causeMode, "it is a queue"}
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
		if g.full() {
			return nil, g.tooMany()
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
	for _, s := range g.queues {
		s.mu.Lock()
		drained := s.drained()
		s.mu.Unlock()
		if !drained {
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

// close refuses opens from now on, and ends every pipe's writer and all sending to
// queues, and with all set also their readers and receivers.
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
	for _, s := range g.queues {
		s.mu.Lock()
		s.end(why, !all)
		s.mu.Unlock()
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
	infos := make([]PipeInfo, 0, len(g.pipes)+len(g.queues))
	for _, s := range g.queues {
		s.mu.Lock()
		infos = append(infos, PipeInfo{
			Name:     s.name,
			Mode:     ModeQueue,
			Reads:    s.demands.Len() > 0,
			Writes:   s.full.len() > 0,
			Users:    s.users + len(s.lanes),
			Queued:   s.bytes,
			Chunks:   s.count,
			BytesIn:  s.in,
			BytesOut: s.out,
			Age:      now.Sub(s.created),
			Idle:     s.idle(now),
		})
		s.mu.Unlock()
	}
	for _, p := range g.pipes {
		p.mu.Lock()
		if !p.over() {
			infos = append(infos, PipeInfo{
				Name:     p.name,
				Reader:   p.reader.open,
				Writer:   p.writer.open,
				Reads:    p.reader.want > 0,
				Writes:   p.writer.want > 0 || p.unconfirmed > 0,
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
		Pipes:      len(g.pipes) + len(g.queues),
		Clients:    int(g.clients.Load()),
		Opened:     g.opened.Load(),
		Refused:    g.refused.Load(),
		Expired:    g.expired.Load(),
		Violations: g.violations.Load(),
		Denied:     g.denied.Load(),
		BytesIn:    g.past.in,
		BytesOut:   g.past.out,
	}
	for p := range g.held {
		p.mu.Lock()
		s.BytesIn += p.in
		s.BytesOut += p.out
		p.mu.Unlock()
	}
	for _, q := range g.queues {
		q.mu.Lock()
		s.BytesIn += q.in
		s.BytesOut += q.out
		q.mu.Unlock()
	}
	return s
}
