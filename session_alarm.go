package zpipes

import (
	"container/heap"
	"time"
)

// An alarm is a channel's place in the broker's alarms: at most one each,
// however often its deadline changes.
type alarm struct {
	at    time.Time
	place int // in the heap, from 1; 0: not there
}

// alarms is a heap of channels by the time they want to run at.
type alarms []*channel

// set enters, moves or, with a zero deadline, removes c.
func (h *alarms) set(ch *channel) {
	switch {
	case ch.deadline.IsZero():
		if ch.alarm.place > 0 {
			heap.Remove(h, ch.alarm.place-1)
		}
	case ch.alarm.place == 0:
		ch.alarm.at = ch.deadline
		heap.Push(h, ch)
	case ch.deadline.Before(ch.alarm.at):
		ch.alarm.at = ch.deadline
		heap.Fix(h, ch.alarm.place-1)
	}
}

// due returns a channel whose deadline has passed, or nil. A deadline that
// was met or moved since is looked at when its first time comes, not before.
func (h *alarms) due(now time.Time) *channel {
	for len(*h) > 0 && !now.Before((*h)[0].alarm.at) {
		c := heap.Pop(h).(*channel)
		if c.deadline.IsZero() {
			continue
		}
		if !now.Before(c.deadline) {
			return c
		}
		h.set(c)
	}
	return nil
}

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].alarm.at.Before(h[j].alarm.at) }

func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarm.place, h[j].alarm.place = i+1, j+1
}

func (h *alarms) Push(x any) {
	c := x.(*channel)
	*h = append(*h, c)
	c.alarm.place = len(*h)
}

func (h *alarms) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	c.alarm.place = 0
	return c
}
