package zpipes

import (
	"math/rand/v2"
	"sync"
	"time"
)

// queueAlarms are the queues that want tick called at a time: for a lease that ends, or a job
// that is due. Its zero value is empty.
type queueAlarms struct {
	mu    sync.Mutex // guards what follows, and the queues' alarm; a leaf
	times schedule[*chunkQueue]
	wake  func() // has the broker look at next again; must not block
}

// A queueAlarm is a queue's place there.
type queueAlarm struct {
	at    time.Time
	place int // from 1; 0: not there
}

func (s *chunkQueue) earlier(than *chunkQueue) bool { return s.alarm.at.Before(than.alarm.at) }
func (s *chunkQueue) seat() *int                    { return &s.alarm.place }

// set has tick called then, or if it is to be called already, not later.
func (h *queueAlarms) set(s *chunkQueue, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &s.alarm
	if a.place > 0 && !at.Before(a.at) {
		return
	}
	a.at = at
	if h.times.set(s); a.place == 1 {
		h.wake()
	}
}

// next is when due has something to do; a zero time: never.
func (h *queueAlarms) next() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.times.len() == 0 {
		return time.Time{}
	}
	return h.times.first().alarm.at
}

// due takes out a queue whose time has come; nil: there is none.
func (h *queueAlarms) due(now time.Time) *chunkQueue {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.times.len() == 0 || now.Before(h.times.first().alarm.at) {
		return nil
	}
	s := h.times.first()
	h.times.remove(s)
	return s
}

// ticksAtOnce is how many queues go on before the loop has others: with settleMost jobs each.
const ticksAtOnce = 4

// tick has the queues go on whose time has come, some of them; the others are due still.
func (g *registry) tick(now time.Time) {
	for range ticksAtOnce {
		s := g.alarms.due(now)
		if s == nil {
			return
		}
		s.mu.Lock()
		next := s.tick(now)
		s.mu.Unlock()
		if !next.IsZero() {
			g.alarms.set(s, next)
		}
	}
}

// tellTime gives new queues the time, and has wake called when tick is wanted earlier than before.
func (g *registry) tellTime(c *clock, wake func()) {
	g.clock, g.alarms.wake = c, wake
}

// begin makes a queue one of the registry's.
func (g *registry) begin(s *chunkQueue) {
	s.identify(rand.Uint64(), 0)
	s.takeTurns(g.post)
	if g.clock != nil {
		s.tellTime(g.clock, func(at time.Time) { g.alarms.set(s, at) })
	}
}
