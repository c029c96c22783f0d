package zpipes

import (
	"fmt"
	"time"
)

// openBroadcast is open for the writer of a broadcast.
func (g *registry) openBroadcast(name string, cfg broadcastConfig, window int, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attachTrunk(name, cfg, func(p *pipe) {
		p.openWindow(window)
		p.attach(writer, wake)
	}, now)
	return p, g.counted(why)
}

// proposeBroadcast is openBroadcast for one whose open has not returned: show follows, or
// withdraw. payer pays.
func (g *registry) proposeBroadcast(name string, cfg broadcastConfig, payer *account, wake func(), now time.Time) (*pipe, *cause) {
	p, why := g.attachTrunk(name, cfg, func(p *pipe) {
		p.propose(writer, wake)
		p.bill(payer)
	}, now)
	return p, g.counted(why)
}

// attachTrunk attaches the writer of a broadcast. A reader who waits for a stream's writer,
// or several whose broadcast has not come into being after all, are its first ones.
func (g *registry) attachTrunk(name string, cfg broadcastConfig, bring func(*pipe), now time.Time) (*pipe, *cause) {
	if why := badName(name); why != nil {
		return nil, why
	}
	if cfg.keep > g.maxPending {
		return nil, &cause{causeTooMany, fmt.Sprintf("a broadcast of this broker keeps %d bytes at most", g.maxPending)}
	}
	key, t := g.keyOf(name), newTrunk(g, name, now)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		return nil, g.closed
	}
	var p *pipe
	if known := g.names.find(key, name); known != nil {
		if p = known.stream; known.port != nil {
			return nil, &causeIsPort
		} else if p == nil {
			return nil, &causeNotACast
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.over() {
			g.retire(p)
			p = nil
		} else if p.writer.open {
			return nil, &causesBusy[writer]
		}
	}
	switch {
	case p == nil && g.full(1):
		return nil, g.tooMany
	case p == nil:
		t.mu.Lock()
		defer t.mu.Unlock()
		g.enroll(t, key)
		t.cast.configure(cfg)
	default:
		t = g.graft(p, t, key, cfg)
	}
	bring(t)
	return t, nil
}

// graft has those who wait at p for a writer be the first readers of a broadcast, and returns its
// trunk: t, unless they have one. p's mu is held, and g's.
func (g *registry) graft(p, t *pipe, key uint64, cfg broadcastConfig) *pipe {
	if p.use == trunk {
		p.cast.configure(cfg)
		return p
	}
	t.share(p)
	g.drop(&p.registration, &p.counter)
	g.enroll(t, key)
	g.ends++
	t.cast.configure(cfg)
	p.becomeBranch(t)
	return t
}

// unmakeBroadcast is for one whose writer was never there. Its mu is held, and g's.
func (g *registry) unmakeBroadcast(p *pipe) {
	switch readers := p.cast.readers; len(readers) {
	case 0:
		g.drop(&p.registration, &p.counter)
	case 1:
		g.drop(&p.registration, &p.counter)
		waiting := readers[0]
		waiting.becomeStream()
		g.ends--
		g.enroll(waiting, g.keyOf(p.name))
	}
}

// readerGone is release for the reader of a broadcast.
func (g *registry) readerGone(p *pipe) {
	g.ends--
	g.left(p)
	switch t := p.cast.trunk; {
	case t.over():
		g.retire(t)
	case !t.writer.open && t.place > 0:
		g.unmakeBroadcast(t)
	}
}

// branchOff makes a branch for readers at another broker; nil: it can't be.
func (g *registry) branchOff(t *pipe) *pipe {
	p := newPipe(t.name, g.maxPending, started.Add(t.created))
	g.mu.Lock()
	defer g.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over() || g.closed != nil || g.ends >= g.maxPipes {
		return nil
	}
	g.ends++
	p.growOn(t)
	p.reachFar()
	p.waited = true
	g.waits.Add(1)
	p.propose(reader, nil)
	return p
}
