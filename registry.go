package zpipes

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A registration is what the registry notes about a pipe or queue.
type registration struct {
	place  int  // in its table; 0: not there. Guarded by the registry's mu
	waited bool // it is counted in waits. Guarded by the pipe's or queue's mu
}

// A registry holds a broker's pipes by name. Clients of this process and
// sessions of remote ones open them here alike.
type registry struct {
	maxPipes   int
	maxPending int // bytes a pipe confirms before writes wait
	maxMessage int // bytes of the largest message, and so of a READ's answer

	// mu guards what follows; a pipe's or queue's mu is taken under it. Nobody holds it for
	// longer than it takes to look at a few of them.
	mu        sync.Mutex
	pipes     map[string]*pipe // those whose name is taken
	allPipes  table[pipe]      // and those whose name is free, but that an end still holds
	queues    map[string]*chunkQueue
	allQueues table[chunkQueue]
	ends      int    // how many have a queue open
	closed    *cause // opens are refused

	waits atomic.Int64  // pipes with a reader, and 1 until closed is set; then queues, too, whose chunks somebody may want
	empty chan struct{} // closed when waits is 0
	moved totals

	clients, near, opened, refused, expired, violations, denied atomic.Int64
}

func newRegistry(maxPipes, maxPending, maxMessage int) *registry {
	g := &registry{
		maxPipes: maxPipes, maxPending: maxPending, maxMessage: maxMessage,
		pipes: make(map[string]*pipe), queues: make(map[string]*chunkQueue),
		empty: make(chan struct{}),
	}
	g.waits.Store(1)
	return g
}

// open attaches an end to the pipe of that name, and creates the pipe if there
// is none. window is how many bytes a writer of this process may have
// unconfirmed. A refusal leaves no trace.
func (g *registry) open(name string, r role, window int, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attach(name, r, func(p *pipe) {
		if r == writer {
			p.openWindow(window)
		}
		p.attach(r, wake)
	}, now)
	return p, g.streamed(why)
}

// propose is open for an end whose open has not returned: show follows, or withdraw.
func (g *registry) propose(name string, r role, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attach(name, r, func(p *pipe) { p.propose(r, wake) }, now)
	return p, g.streamed(why)
}

func (g *registry) streamed(why *cause) *cause {
	if why == nil || why.code != causeMode { // else it can still be opened, see enter
		g.counted(why)
	}
	return why
}

// withdraw takes back an end that has not shown itself. Where its pipe is over, it
// leaves it in the ordinary way.
func (g *registry) withdraw(p *pipe, r role, why cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over() {
		p.leave(r, why)
		g.retire(p)
	} else if p.withdraw(r); !p.side(1 - r).open {
		delete(g.pipes, p.name)
		g.allPipes.remove(p.place)
		p.place = 0
		g.moved.leave(&p.counter)
	}
	g.left(p)
}

func (g *registry) counted(why *cause) *cause {
	if why != nil {
		g.refused.Add(1)
	} else {
		g.opened.Add(1)
	}
	return why
}

// enter attaches someone, as the sender l, to the queue of that name. With create
// set, the queue comes into being where there is none.
func (g *registry) enter(name string, l *senderQueue, create bool, now time.Time) (s *chunkQueue, why *cause) {
	why = g.use(name, create, now, func(q *chunkQueue) *cause {
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
func (g *registry) use(name string, create bool, now time.Time, f func(*chunkQueue) *cause) *cause {
	var fresh *chunkQueue
	if create && !g.knows(name) {
		fresh = g.newQueue(name, now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.queues[name] != nil
	s, why := g.queue(name, create, fresh, now)
	if why != nil {
		return why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visit(now)
	if why = f(s); why != nil && !known {
		g.forgetQueue(s)
	}
	return why
}

// knows says that there is something of that name, so that what is new can be made before
// mu is taken: who allocates may have to help the garbage collector, which takes long
// where there are very many.
func (g *registry) knows(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pipes[name] != nil || g.queues[name] != nil
}

func (g *registry) newQueue(name string, now time.Time) *chunkQueue {
	return newChunkQueue(name, g.maxPending, g.largest(), now)
}

// queue finds the queue of that name, or with create set makes it: of fresh, unless that is
// nil. mu is held.
func (g *registry) queue(name string, create bool, fresh *chunkQueue, now time.Time) (*chunkQueue, *cause) {
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
	if fresh == nil {
		fresh = g.newQueue(name, now)
	}
	fresh.join(&g.moved, &fresh.mu)
	g.queues[name], fresh.place = fresh, g.allQueues.put(fresh)
	return fresh, nil
}

func (g *registry) forgetQueue(s *chunkQueue) {
	delete(g.queues, s.name)
	g.allQueues.remove(s.place)
	g.moved.leave(&s.counter)
}

// exit is called when someone leaves a queue. The queue stays, unless there was never
// more than somebody who waited for a chunk: a name that was mistyped leaves nothing behind.
func (g *registry) exit(s *chunkQueue, l *senderQueue, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ends--
	s.mu.Lock()
	s.exit(l, now)
	g.drained(s)
	if g.closed == nil && s.unused() && s.vain() && g.queues[s.name] == s {
		g.end(s)
	}
	s.mu.Unlock()
}

// unmake takes back a queue that only one has used, whose open has failed.
func (g *registry) unmake(s *chunkQueue) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.queues[s.name] == s && s.uses == 1 && s.unused() {
		g.end(s)
	}
}

// noteNotified is called when someone has learnt that a queue is over.
func (g *registry) noteNotified(s *chunkQueue, l *senderQueue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receives(l, false)
	g.drained(s)
}

// delete ends a queue and all that is in it.
func (g *registry) delete(name string, now time.Time) *cause {
	return g.use(name, false, now, func(s *chunkQueue) *cause {
		g.end(s)
		return nil
	})
}

// end deletes a queue; mu and its mu are held.
func (g *registry) end(s *chunkQueue) {
	s.end(cause{code: causeDeleted}, false)
	g.forgetQueue(s)
}

// leaveText takes back one OPEN of the text interface. When that was the last one,
// and nobody else has the queue open, it is deleted.
func (g *registry) leaveText(name string, now time.Time) *cause {
	return g.use(name, false, now, func(s *chunkQueue) *cause {
		if s.users == 0 {
			return &cause{causeNoQueue, "nobody has opened it by text"}
		}
		s.leaveText()
		if s.unused() {
			g.end(s)
		}
		return nil
	})
}

// forget deletes those of the next few queues that nobody has used for so long. It
// says where to go on; 0: these were the last.
func (g *registry) forget(from int, after time.Duration, now time.Time) (names []string, next int) {
	found := make([]*chunkQueue, 0, tablePage)
	g.mu.Lock()
	defer g.mu.Unlock()
	next, queues := g.allQueues.step(from, found)
	for _, s := range queues {
		s.mu.Lock()
		if s.idle(now) >= after {
			g.end(s)
			names = append(names, s.name)
		}
		s.mu.Unlock()
	}
	return names, next
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
func (g *registry) full() bool { return g.allPipes.len()+len(g.queues) >= g.maxPipes }

func (g *registry) tooMany() *cause {
	return &cause{causeTooMany, fmt.Sprintf("the broker holds %d pipes already", g.maxPipes)}
}

func (g *registry) attach(name string, r role, bring func(*pipe), now time.Time) (*pipe, *cause) {
	if why := badName(name); why != nil {
		return nil, why
	}
	var fresh *pipe
	if !g.knows(name) {
		fresh = newPipe(name, g.maxPending, now)
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
		if p = fresh; p == nil {
			p = newPipe(name, g.maxPending, now)
		}
		p.join(&g.moved, &p.mu)
		p.mu.Lock()
		defer p.mu.Unlock()
		g.pipes[name], p.place = p, g.allPipes.put(p)
	}
	if r == reader {
		p.waited = true
		g.waits.Add(1)
	}
	bring(p)
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
// holds it. Its mu is held, too.
func (g *registry) retire(p *pipe) {
	if g.pipes[p.name] == p {
		delete(g.pipes, p.name)
	}
	if p.place > 0 && p.idle() {
		g.allPipes.remove(p.place)
		p.place = 0
		g.moved.leave(&p.counter)
	}
}

// release is called after an end has left.
func (g *registry) release(p *pipe) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	g.retire(p)
	g.left(p)
}

// left takes note that nobody waits for the pipe's reader any more, if he has left. The
// pipe's mu is held.
func (g *registry) left(p *pipe) {
	if p.waited && !p.reader.attached() {
		p.waited = false
		g.waitsLess()
	}
}

// drained is left of a queue.
func (g *registry) drained(s *chunkQueue) {
	if s.waited && s.drained() {
		s.waited = false
		g.waitsLess()
	}
}

func (g *registry) waitsLess() {
	if g.waits.Add(-1) == 0 {
		close(g.empty)
	}
}

// close refuses opens from now on, and ends every pipe's writer and all sending to
// queues, and with all set also their readers and receivers.
func (g *registry) close(why cause, all bool) {
	g.mu.Lock()
	first := g.closed == nil
	g.closed = &why
	g.mu.Unlock()
	steps(g, &g.allPipes, func(p *pipe) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leave(writer, why)
		if all {
			p.leave(reader, why)
			g.left(p)
		}
	})
	steps(g, &g.allQueues, func(s *chunkQueue) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.end(why, !all); first && !s.drained() {
			s.waited = true
			s.tellEmpty(func() { g.drained(s) })
			g.waits.Add(1)
		}
	})
	if first {
		g.waitsLess()
	}
}

// steps calls f with all that is in a table, but for what comes or goes meanwhile: mu is
// not held then, and only now and then before.
func steps[T any](g *registry, t *table[T], f func(*T)) {
	found := make([]*T, 0, tablePage)
	for next := 0; ; {
		g.mu.Lock()
		next, found = t.step(next, found[:0])
		g.mu.Unlock()
		for _, x := range found {
			f(x)
		}
		if next == 0 {
			return
		}
	}
}

// A survey looks at all that there is, in steps. Its zero value is at the beginning.
type survey struct {
	streams bool // the queues have been looked at
	next    int
	over    bool
}

// step says what there is among the next few, in no order.
func (v *survey) step(g *registry, now time.Time) (infos []PipeInfo) {
	pipes, queues := make([]*pipe, 0, tablePage), make([]*chunkQueue, 0, tablePage)
	g.mu.Lock()
	if v.streams {
		v.next, pipes = g.allPipes.step(v.next, pipes)
	} else {
		v.next, queues = g.allQueues.step(v.next, queues)
	}
	g.mu.Unlock()
	for _, p := range pipes {
		if info, ok := p.info(now); ok {
			infos = append(infos, info)
		}
	}
	for _, s := range queues {
		if info, ok := s.info(now); ok {
			infos = append(infos, info)
		}
	}
	if v.next == 0 {
		v.streams, v.over = true, v.streams
	}
	return infos
}

// list says what there is, in no order.
func (g *registry) list(now time.Time) []PipeInfo {
	g.mu.Lock()
	n := len(g.pipes) + len(g.queues)
	g.mu.Unlock()
	infos := make([]PipeInfo, 0, n) // without the lock: it takes long where they are many
	for v := (survey{}); !v.over; {
		infos = append(infos, v.step(g, now)...)
	}
	return infos
}

// lookUp says what there is of that name.
func (g *registry) lookUp(name string, now time.Time) (PipeInfo, bool) {
	g.mu.Lock()
	p, s := g.pipes[name], g.queues[name]
	g.mu.Unlock()
	switch {
	case p != nil:
		return p.info(now)
	case s != nil:
		return s.info(now)
	}
	return PipeInfo{}, false
}

// info is what there is to tell of a queue, unless it is gone.
func (s *chunkQueue) info(now time.Time) (PipeInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return PipeInfo{
		Name:     s.name,
		Mode:     ModeQueue,
		Reads:    s.demands.Len() > 0,
		Writes:   s.full.len() > 0,
		Users:    s.users + len(s.senders),
		Queued:   s.bytes,
		Chunks:   s.count,
		BytesIn:  s.in,
		BytesOut: s.out,
		Age:      now.Sub(s.created),
		Idle:     s.idle(now),
	}, !s.void
}

// info is what there is to tell of a pipe, unless its name is free.
func (p *pipe) info(now time.Time) (PipeInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countDetour(now)
	return PipeInfo{
		Name:     p.name,
		Reader:   p.reader.open,
		Writer:   p.writer.open,
		Reads:    p.reader.want > 0,
		Writes:   p.writer.want > 0 || p.unconfirmed > 0 || p.writer.open && p.queued() >= p.limit, // in a ring it waits unseen
		Queued:   p.queued(),
		BytesIn:  p.in,
		BytesOut: p.out,
		Age:      now.Sub(p.created),
	}, !p.over()
}

func (g *registry) stats() BrokerStats {
	in, out := g.moved.sums()
	g.mu.Lock()
	defer g.mu.Unlock()
	return BrokerStats{
		Pipes:      len(g.pipes) + len(g.queues),
		Clients:    int(g.clients.Load()),
		Near:       int(g.near.Load()),
		Opened:     g.opened.Load(),
		Refused:    g.refused.Load(),
		Expired:    g.expired.Load(),
		Violations: g.violations.Load(),
		Denied:     g.denied.Load(),
		BytesIn:    in,
		BytesOut:   out,
	}
}
