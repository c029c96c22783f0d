package zpipes

import (
	"testing"
	"time"
)

func TestSessionAlarms(t *testing.T) {
	at := func(ms int) time.Time { return born.Add(time.Duration(ms) * time.Millisecond) }
	var h alarms
	a, b, c := new(channel), new(channel), new(channel)
	set := func(x *channel, deadline time.Time) {
		x.deadline = deadline
		h.set(x)
	}
	due := func(ms int, want ...*channel) {
		t.Helper()
		for _, w := range want {
			got := h.due(at(ms))
			if got != w {
				t.Errorf("at %d ms: due is %p, want %p of %p, %p, %p", ms, got, w, a, b, c)
			}
			got.deadline = time.Time{}
		}
		if got := h.due(at(ms)); got != nil {
			t.Errorf("at %d ms: one more is due", ms)
		}
	}

	set(a, at(30))
	set(b, at(10))
	set(c, at(20))
	due(9)
	due(10, b)
	due(25, c)
	set(b, at(28)) // earlier than what is there
	due(50, b, a)

	set(a, at(100))
	set(a, at(60)) // moved to an earlier time
	due(59)
	due(60, a)
	due(100)

	set(a, at(110))
	a.deadline = at(150) // met, and the next one is later
	h.set(a)
	due(110)
	due(149)
	due(150, a)

	set(a, at(160))
	a.deadline = time.Time{} // met
	due(200)

	set(a, at(210))
	set(b, at(211))
	set(a, time.Time{}) // cancelled
	set(c, time.Time{}) // never set
	due(300, b)
	if h.len() != 0 || a.alarm.place != 0 {
		t.Errorf("%d alarms are left", h.len())
	}
}

// However deadlines are set, moved, met and cancelled: each channel runs
// at the first look after its deadline, and never before it.
func TestSessionAlarmsNeitherEarlyNorMissed(t *testing.T) {
	r := scripted(1)
	var h alarms
	all := make([]channel, 20)
	now := born
	for step := range 20000 {
		c := &all[r.IntN(len(all))]
		switch r.IntN(4) {
		case 0, 1:
			c.deadline = now.Add(time.Duration(1+r.IntN(50)) * time.Millisecond)
			h.set(c)
		case 2: // met: whoever is called next finds nothing to do
			c.deadline = time.Time{}
			if r.IntN(2) == 0 {
				h.set(c)
			}
		}
		now = now.Add(time.Duration(r.IntN(5)) * time.Millisecond)
		for c := h.due(now); c != nil; c = h.due(now) {
			if c.deadline.IsZero() || now.Before(c.deadline) {
				t.Fatalf("step %d: due at %v, but its deadline is %v", step, now, c.deadline)
			}
			c.deadline = time.Time{}
		}
		for i := range all {
			c := &all[i]
			if !c.deadline.IsZero() && !now.Before(c.deadline) {
				t.Fatalf("step %d: a deadline was missed", step)
			}
			if p := c.alarm.place; p > 0 && *h.at(p - 1) != c {
				t.Fatalf("step %d: a channel is not in its place", step)
			}
		}
		if h.len() > len(all) {
			t.Fatalf("step %d: %d alarms for %d conversations", step, h.len(), len(all))
		}
	}
	for i := range all {
		all[i].deadline = time.Time{}
		h.set(&all[i])
	}
	if h.len() != 0 {
		t.Errorf("%d alarms are left", h.len())
	}
}
