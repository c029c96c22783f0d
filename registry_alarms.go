package zpipes

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"
)

// queueAlarms are the queues that want tick called at a time: for a lease that ends, or a job
// that is due. Its zero value is empty.
type queueAlarms struct {
	mu   sync.Mutex // guards what follows, and the queues' alarm; a leaf
	heap queueHeap
	wake func() // has the broker look at next again; must not block
}

// A queueAlarm is a queue's place there.
type queueAlarm struct {
	at    time.Time
	place int // from 1; 0: not there
}

func (s *chunkQueue) alarmed() *queueAlarm { return &s.alarm }

// set has tick called then, or if it is to be called already, not later.
func (h *queueAlarms) set(s *chunkQueue, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := s.alarmed()
	switch {
	case a.place == 0:
		a.at = at
		heap.Push(&h.heap, s)
	case at.Before(a.at):
		a.at = at
		heap.Fix(&h.heap, a.place-1)
	default:
		return
	}
	if a.place == 1 {
		h.wake()
	}
}

// next is when due has something to do; a zero time: never.
func (h *queueAlarms) next() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.heap) == 0 {
		return time.Time{}
	}
	return h.heap[0].alarmed().at
}

// due takes out a queue whose time has come; nil: there is none.
func (h *queueAlarms) due(now time.Time) *chunkQueue {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.heap) == 0 || now.Before(h.heap[0].alarmed().at) {
		return nil
	}
	return heap.Pop(&h.heap).(*chunkQueue)
}

// ticksAtOnce is how many queues go on before the loop has others.
const ticksAtOnce = 256

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
	if g.clock != nil {
		s.tellTime(g.clock, func(at time.Time) { g.alarms.set(s, at) })
	}
}

type queueHeap []*chunkQueue

func (h queueHeap) Len() int           { return len(h) }
func (h queueHeap) Less(i, j int) bool { return h[i].alarmed().at.Before(h[j].alarmed().at) }

func (h queueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarmed().place, h[j].alarmed().place = i+1, j+1
}

func (h *queueHeap) Push(x any) {
	s := x.(*chunkQueue)
	*h = append(*h, s)
	s.alarmed().place = len(*h)
}

func (h *queueHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.alarmed().place = 0
	return s
}
