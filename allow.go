//go:build cgo

package zpipes

import (
	"fmt"
	"sync"
	"time"
)

// A gate asks BrokerConfig.Allow, which is the host program's and may take its time: on
// goroutines of its own, so many at once, and fewer for one client, so that one whose
// questions hang does not keep all others out.
type gate struct {
	ask func(who Access) *cause // may panic, too
	log *journal

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	askers  map[*session]*asker
	turns   fifo[*asker] // who may ask next
	running int
	quiet   chan struct{} // closed when none runs any more; nil: nobody waits for that
}

// An asker is what one session has to ask.
type asker struct {
	session *session
	waiting fifo[question]
	running int
	listed  bool // it is in turns
}

type question struct {
	who     Access
	verdict *verdict
	then    func() // what to do when it is given
}

const (
	maxAsking     = 64
	maxAskingEach = 4
)

func (g *gate) put(s *session, q question) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.askers[s]
	if a == nil {
		if g.askers == nil {
			g.askers = make(map[*session]*asker)
		}
		a = &asker{session: s}
		g.askers[s] = a
	}
	a.waiting.push(q)
	g.list(a)
	g.start()
}

// list gives an asker a turn, or forgets one that has nothing more to ask. mu is held.
func (g *gate) list(a *asker) {
	switch {
	case a.listed || a.running >= maxAskingEach:
	case a.waiting.len() > 0:
		a.listed = true
		g.turns.push(a)
	case a.running == 0 && g.askers[a.session] == a:
		delete(g.askers, a.session)
	}
}

// start begins what may be asked now. mu is held.
func (g *gate) start() {
	for g.running < maxAsking && g.turns.len() > 0 {
		a := g.turns.pop()
		a.listed = false
		if a.waiting.len() > 0 {
			q := a.waiting.pop()
			g.running++
			a.running++
			go g.answer(a, q)
		}
		g.list(a)
	}
}

func (g *gate) answer(a *asker, q question) {
	why := &cause{causeDenied, "the broker could not decide"} // where Allow panics, or ends the goroutine
	defer func() {
		if p := recover(); p != nil {
			g.log.warn("Allow panicked", "panic", fmt.Sprint(p), "op", q.who.Op, "pipe", q.who.Pipe)
		}
		q.verdict.give(why)
		q.then()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running--
		a.running--
		g.list(a)
		if g.start(); g.running == 0 && g.quiet != nil {
			close(g.quiet)
			g.quiet = nil
		}
	}()
	why = g.ask(q.who)
}

// forget drops what a session that is gone had to ask.
func (g *gate) forget(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.askers[s]; a != nil {
		a.waiting = fifo[question]{}
		g.list(a)
	}
}

// close asks nothing more, and waits a little for what was asked.
func (g *gate) close() {
	g.mu.Lock()
	for _, a := range g.askers {
		a.waiting = fifo[question]{}
	}
	if g.running == 0 {
		g.mu.Unlock()
		return
	}
	quiet := make(chan struct{})
	g.quiet = quiet
	g.mu.Unlock()
	patience := time.NewTimer(handlerTime)
	defer patience.Stop()
	select {
	case <-quiet:
	case <-patience.C:
	}
}
