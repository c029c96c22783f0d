//go:build !core

package zpipes

import (
	"container/list"
	"fmt"
	"sync"
	"time"
)

// A gate asks BrokerConfig.Allow, which is the host program's and may take its time: on
// goroutines of its own, so many at once, and fewer for one client, so that one whose
// questions hang does not keep all others out.
type gate struct {
	ask func(who Access) *cause // may panic, too
	log *asyncLog

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	askers  map[*session]*asker
	turns   list.List // of askers: who may ask next
	running int
	quiet   chan struct{} // closed when none runs any more; nil: nobody waits for that
}

// An asker is what one session has to ask.
type asker struct {
	session *session
	waiting list.List // of questions
	running int
	turn    *list.Element // in turns; nil: it is not there
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

// put has a question asked, and returns what takes it back.
func (g *gate) put(s *session, q question) (withdraw func()) {
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
	place := a.waiting.PushBack(q)
	g.list(a)
	g.start()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		a.waiting.Remove(place) // unless it is being asked
		g.list(a)
	}
}

// list gives an asker a turn while it has something to ask, and forgets one that has
// not. mu is held.
func (g *gate) list(a *asker) {
	switch {
	case a.waiting.Len() == 0:
		if a.turn != nil {
			g.turns.Remove(a.turn)
			a.turn = nil
		}
		if a.running == 0 {
			delete(g.askers, a.session)
		}
	case a.turn == nil && a.running < maxAskingEach:
		a.turn = g.turns.PushBack(a)
	}
}

// start begins what may be asked now. mu is held.
func (g *gate) start() {
	for g.running < maxAsking && g.turns.Len() > 0 {
		a := g.turns.Remove(g.turns.Front()).(*asker)
		a.turn = nil
		q := a.waiting.Remove(a.waiting.Front()).(question)
		g.running++
		a.running++
		go g.answer(a, q)
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

// close asks nothing more, and waits a little for what was asked.
func (g *gate) close() {
	g.mu.Lock()
	for _, a := range g.askers {
		for a.waiting.Len() > 0 {
			a.waiting.Remove(a.waiting.Front())
		}
		g.list(a)
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

// admit says who a client is, and why it may not connect.
func (cfg *BrokerConfig) admit(address string) (Access, error) {
	who, ok := peerOf(address)
	switch {
	case !ok:
		return who, fmt.Errorf("the system does not say who the client is (%q)", address)
	case who.UID >= 0 && !trusted(who.UID, cfg.AllowUIDs):
		return who, fmt.Errorf("%s may not use this broker; its BrokerConfig.AllowUIDs can allow it", whose(who.UID))
	}
	return who, nil
}

// allow is why a client may not do what it asks for.
func (cfg BrokerConfig) allow(who Access) *cause {
	if err := cfg.Allow(who); err != nil {
		return &cause{causeDenied, err.Error()}
	}
	return nil
}
