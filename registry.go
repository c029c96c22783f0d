package zpipes

import (
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A registry holds a broker's pipes by name. Clients of this process and
// sessions of remote ones open them here alike.
type registry struct {
	maxPipes   int
	maxPending int // bytes a pipe confirms before writes wait
	maxMessage int // bytes of the largest message, and so of a READ's answer
	backlog    int // how many dials succeed at a name before one of them is accepted
	tooMany    *cause
	tooOften   *cause

	seed maphash.Seed

	// mu guards what follows; a pipe's or queue's mu is taken under it. Nobody holds it for
	// longer than it takes to look at a few of them, or allocates meanwhile: who does may
	// have to help the garbage collector, which takes long where there are very many.
	mu     fairMutex           // it is held for a microsecond, and who sleeps is woken far later
	names  index               // pipes, queues and ports whose names are taken
	all    table[registration] // and pipes whose names are free, but that an end still holds; or that have none
	halves int                 // how many of those are connections'
	ends   int                 // how many have a queue open, or read a broadcast
	closed *cause              // opens are refused
	// resigned: those of queues in memory are, since they are handed over.
	resigned bool
	keep     func(*chunkQueue) *cause // nil: nobody keeps queues

	post func(resumer) // has somebody go on soon; nil: all is done at once
	// later has f run after that time, unless the returned function is called before.
	later func(d time.Duration, f func()) (stop func())

	waits atomic.Int64  // pipes with a reader, and 1 until closed is set; then queues, too, whose chunks somebody may want
	empty chan struct{} // closed when waits is 0
	moved totals

	clock  *clock // nil: no queue asks for the time
	alarms queueAlarms

	exchange *exchange            // nil: no cluster
	far      map[meet.Token]*pipe // whose writers are at other brokers, by their tokens; guarded by mu
	said     farewells            // of such writers; guarded by mu
	widened  widened

	clients, near, opened, refused, expired, violations, denied atomic.Int64
}

// What is refused while mu is held, besides.
var (
	causeIsQueue   = cause{causeMode, "it is a queue"}
	causeIsPort    = cause{causeMode, "somebody listens there for connections"}
	causeIsStream  = cause{causeMode, "it is a stream, not a queue"}
	causeIsCast    = cause{causeMode, "it is a broadcast, not a queue"}
	causeNotACast  = cause{causeMode, "it is a queue, not a broadcast"}
	causeAwaitCast = cause{causeMode, "readers of a broadcast wait there for its writer"}
	causeIsNoQueue = cause{causeNoQueue, "there is no such queue"}
	causeNotByText = cause{causeNoQueue, "nobody has opened it by text"}
	causesBusy     = [...]cause{reader: {causeBusy, "it has a reader already"}, writer: {causeBusy, "it has a writer already"}}
)

func newRegistry(maxPipes, maxPending, maxMessage int) *registry {
	g := &registry{
		maxPipes: maxPipes, maxPending: maxPending, maxMessage: maxMessage, backlog: defaultBacklog,
		seed: maphash.MakeSeed(), empty: make(chan struct{}),
		later: func(time.Duration, func()) func() { return func() {} },
	}
	g.tooMany = &cause{causeTooMany, fmt.Sprintf("the broker holds %d pipes already", maxPipes)}
	g.tooOften = &cause{causeTooMany, fmt.Sprintf("the broker's queues and broadcasts are open %d times already", maxPipes)}
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
	switch {
	case p.use == branch:
		p.leave(r, why)
		g.readerGone(p)
		return
	case p.over():
		p.leave(r, why)
		g.retire(p)
	case p.use == trunk:
		p.withdraw(r)
		g.unmakeBroadcast(p)
	default:
		if p.withdraw(r); !p.side(1 - r).open {
			g.drop(&p.registration, &p.counter)
		}
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
			return g.tooOften
		}
		s = q
		s.attach(l)
		g.ends++
		return nil
	})
	if why != &causeIsAway {
		g.counted(why)
	}
	return s, why
}

// configure makes a queue that l has entered as it is to be; where it can't be, l leaves it.
func (g *registry) configure(s *chunkQueue, l *senderQueue, set queueSettings, now time.Time) *cause {
	if (set == queueSettings{}) {
		return nil
	}
	s.mu.Lock()
	why := g.shape(s, set)
	s.mu.Unlock()
	if why != nil {
		g.exit(s, l, now)
		g.unmake(s)
	}
	return why
}

// lookAt is the queue of that name, for who changes nothing of it.
func (g *registry) lookAt(name string) (*chunkQueue, *cause) {
	key := g.keyOf(name)
	g.mu.Lock()
	s, why := g.queue(key, name, false, nil, time.Time{})
	g.mu.Unlock()
	if why == nil {
		s.mu.Lock()
		why = s.away()
		s.mu.Unlock()
	}
	return s, why
}

// use calls f with the queue of that name, and with its mu held.
func (g *registry) use(name string, create bool, now time.Time, f func(*chunkQueue) *cause) *cause {
	if why := badName(name); why != nil {
		return why
	}
	key := g.keyOf(name)
	var fresh *chunkQueue
	known, _, page := g.knows(key, name)
	create = create && g.exchange == nil // else it may be at another broker
	if create && !known {
		fresh = g.newQueue(name, now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all.stock(page)
	s, why := g.queue(key, name, create, fresh, now)
	if why != nil {
		return why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.away(); why != nil {
		return why
	}
	if g.resigned && s.log == nil {
		return &causeResigned
	}
	s.visit(now)
	if why = f(s); why != nil && s.uses == 1 {
		g.drop(&s.registration, &s.counter)
	}
	return why
}

// knows says that there is something of that name, and whether it is a broadcast. What is
// new can be made before mu is taken then; and page is one that the table lacks for it, or nil.
func (g *registry) knows(key uint64, name string) (known, cast bool, page *page[registration]) {
	g.mu.Lock()
	r := g.names.find(key, name)
	known = r != nil
	if known && r.stream != nil {
		r.stream.mu.Lock()
		cast = r.stream.use == trunk
		r.stream.mu.Unlock()
	}
	lacks := !known && g.all.lacks()
	g.mu.Unlock()
	if lacks {
		page = newPage[registration]()
	}
	return known, cast, page
}

func (g *registry) newQueue(name string, now time.Time) *chunkQueue {
	s := newChunkQueue(name, g.maxPending, g.largest(), now)
	g.begin(s)
	return s
}

// queue finds the queue of that name, or with create set makes it: of fresh, unless that is
// nil. mu is held.
func (g *registry) queue(key uint64, name string, create bool, fresh *chunkQueue, now time.Time) (*chunkQueue, *cause) {
	if g.closed != nil {
		return nil, g.closed
	}
	if r := g.names.find(key, name); r != nil {
		if r.queue != nil {
			return r.queue, nil
		}
		if r.port != nil {
			return nil, &causeIsPort
		}
		p := r.stream
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.over() {
			if p.use == trunk {
				return nil, &causeIsCast
			}
			return nil, &causeIsStream
		}
		g.retire(p)
	}
	if !create {
		return nil, g.notHere()
	}
	if g.resigned {
		return nil, &causeResigned
	}
	if g.full(1) {
		return nil, g.tooMany
	}
	if fresh == nil { // what was there has gone just now
		fresh = g.newQueue(name, now)
	}
	fresh.join(&g.moved, &fresh.mu)
	fresh.queue = fresh
	g.add(&fresh.registration, key)
	return fresh, nil
}

// beginQueue makes a queue whose home this broker is, if it is not there.
func (g *registry) beginQueue(name string, now time.Time) *cause {
	key := g.keyOf(name)
	_, _, page := g.knows(key, name)
	fresh := g.newQueue(name, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all.stock(page)
	_, why := g.queue(key, name, true, fresh, now)
	return why
}

// unbegin ends a queue that nobody has ever used, and to which nothing has come.
func (g *registry) unbegin(name string) {
	key := g.keyOf(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.names.find(key, name)
	if r == nil || r.queue == nil {
		return
	}
	s := r.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses == 0 && s.lastID == 0 && s.log == nil && s.over == nil {
		g.end(s)
	}
}

// mayBeAway says that a name which is free here may be a queue's at another broker.
func (g *registry) mayBeAway(name string, now time.Time) bool {
	if g.exchange == nil || g.exchange.others.Load() == 0 {
		return false
	}
	key := g.keyOf(name)
	g.mu.Lock()
	free := g.closed == nil && g.names.find(key, name) == nil
	g.mu.Unlock()
	return free && !g.exchange.plainlyNone(name, now)
}

// notHere is why there is no queue of a name.
func (g *registry) notHere() *cause {
	if g.exchange != nil {
		return &causeIsAway
	}
	return &causeIsNoQueue
}

// add puts in what is new and has a name.
func (g *registry) add(r *registration, key uint64) {
	g.names.put(r, key)
	r.place = g.all.put(r)
	if s := r.queue; s != nil {
		g.exchange.has(s.name, s.kind())
	}
}

// remove takes out what nobody has any more.
func (g *registry) remove(r *registration) {
	if r.named {
		g.names.remove(r)
		if r.queue != nil {
			g.exchange.lacks(r.queue.name)
		}
	}
	g.all.remove(r.place)
	r.place = 0
}

// drop is remove of what has counted bytes.
func (g *registry) drop(r *registration, c *counter) {
	g.remove(r)
	if r.of != nil {
		g.parted(r.of)
	}
	g.moved.leave(c)
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
	if g.closed == nil && s.unused() && s.vain() && s.named {
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
	if s.named && s.uses == 1 && s.unused() {
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
	g.drop(&s.registration, &s.counter)
	if s.log != nil {
		s.log.remove()
	}
}

// leaveText takes back one OPEN of the text interface. When that was the last one,
// and nobody else has the queue open, it is deleted; but not one that had another home, where others may have opened it.
func (g *registry) leaveText(name string, now time.Time) *cause {
	return g.use(name, false, now, func(s *chunkQueue) *cause {
		switch {
		case s.users > 0:
			s.leaveText()
		case !s.moved:
			return &causeNotByText
		}
		if s.unused() && s.log == nil && !s.moved {
			g.end(s)
		}
		return nil
	})
}

// forget deletes those of the next few queues that nobody has used for so long. It
// says where to go on; 0: these were the last.
func (g *registry) forget(from int, after time.Duration, now time.Time) (names []string, next int) {
	found, names := make([]*registration, 0, tablePage), make([]string, 0, tablePage)
	g.mu.Lock()
	defer g.mu.Unlock()
	next, found = g.all.step(from, found)
	for _, r := range found {
		s := r.queue
		if s == nil {
			continue
		}
		s.mu.Lock()
		if s.log == nil && s.idle(now) >= after {
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

// full says that there is no place for n more pipes, queues or ports. mu is held.
func (g *registry) full(n int) bool { return g.all.len()+n > g.maxPipes }

func (g *registry) attach(name string, r role, bring func(*pipe), now time.Time) (*pipe, *cause) {
	if why := badName(name); why != nil {
		return nil, why
	}
	key := g.keyOf(name)
	var fresh *pipe
	known, cast, page := g.knows(key, name)
	if !known || cast && r == reader {
		fresh = newPipe(name, g.maxPending, now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all.stock(page)
	if g.closed != nil {
		return nil, g.closed
	}
	var p *pipe
	if known := g.names.find(key, name); known != nil {
		if p = known.stream; p == nil {
			return nil, known.another()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.over():
			g.retire(p)
			p = nil
		case p.use == trunk && r == reader:
			if g.ends >= g.maxPipes {
				return nil, g.tooOften
			}
			if fresh == nil { // it has come just now
				fresh = newPipe(name, g.maxPending, now)
			}
			g.ends++
			fresh.growOn(p)
			p = fresh
		case p.side(r).open:
			return nil, &causesBusy[r]
		case p.use == trunk:
			return nil, &causeAwaitCast
		}
	}
	if p == nil {
		if g.full(1) {
			return nil, g.tooMany
		}
		if p = fresh; p == nil { // what was there has gone just now
			p = newPipe(name, g.maxPending, now)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		g.enroll(p, key)
	}
	if r == reader {
		p.waited = true
		g.waits.Add(1)
	}
	bring(p)
	return p, nil
}

// enroll has the name be the pipe's. Its mu is held, too.
func (g *registry) enroll(p *pipe, key uint64) {
	p.join(&g.moved, &p.mu)
	p.stream = p
	g.meets(p)
	g.add(&p.registration, key)
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
	if p.named {
		g.names.remove(&p.registration)
	}
	if p.place > 0 && p.idle() && !p.of.keeps() {
		g.drop(&p.registration, &p.counter)
	}
}

// release is called after an end has left.
func (g *registry) release(p *pipe) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.mu.Lock()
	if p.use == branch {
		g.readerGone(p)
		p.mu.Unlock()
		return
	}
	g.retire(p)
	g.left(p)
	if p.of != nil {
		p.of.note(p)
	}
	p.mu.Unlock()
	if p.of != nil {
		g.lose(p.of)
	}
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
	g.steps(func(r *registration) {
		if r.stream != nil {
			g.endPipe(r.stream, why, all)
			g.callFails(r.of)
			return
		}
		if r.port != nil {
			g.closePort(r.port)
			return
		}
		s := r.queue
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.end(why, !all); first && !s.drained() {
			s.waited = true
			s.tellEmpty(func() { g.drained(s) })
			g.waits.Add(1)
		}
		for s.more {
			s.mu.Unlock()
			s.mu.Lock()
			s.settle()
		}
	})
	if first {
		g.waitsLess()
	}
}

func (g *registry) endPipe(p *pipe, why cause, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(writer, why)
	if all {
		p.leave(reader, why)
		g.left(p)
	}
}

// steps calls f with all that there is, but for what comes or goes meanwhile: mu is
// not held then, and only now and then before.
func (g *registry) steps(f func(*registration)) {
	found := make([]*registration, 0, tablePage)
	for next := 0; ; {
		g.mu.Lock()
		next, found = g.all.step(next, found[:0])
		g.mu.Unlock()
		for _, r := range found {
			f(r)
		}
		if next == 0 {
			return
		}
	}
}
