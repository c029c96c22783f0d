//go:build !core

package zpipes

import (
	"testing"
	"time"
)

type turn struct {
	host  *sessionHost
	again int // so often it posts itself
	taken int
	mail  letter[resumer]
}

func (x *turn) letter() *letter[resumer] { return &x.mail }

func (x *turn) resume(time.Time) {
	if x.taken++; x.taken <= x.again {
		x.host.post(x)
	}
}

// Those who were posted run some at a time, so that messages have their turns in between;
// at the end of a host, all do.
func TestBrokerHostTakesTurns(t *testing.T) {
	woken := 0
	h := &sessionHost{wake: func() { woken++ }}
	turns := make([]*turn, 2*turnsAtOnce+1)
	taken := func() (n int) {
		for _, x := range turns {
			n += x.taken
		}
		return n
	}
	for i := range turns {
		turns[i] = &turn{host: h}
		h.post(turns[i])
	}
	for i, want := range []int{turnsAtOnce, 2 * turnsAtOnce, len(turns), len(turns)} {
		woken = 0
		if h.resume(born); taken() != want || woken == 0 != (i > 1) {
			t.Errorf("step %d: %d turns, want %d; woken %d times", i, taken(), want, woken)
		}
	}
	turns[0].again = 3
	for _, x := range turns {
		x.taken = 0
		h.post(x)
	}
	if h.finish(born); taken() != len(turns)+3 || h.posted.len() > 0 {
		t.Errorf("%d turns at the end, want %d", taken(), len(turns)+3)
	}
}

// So do channels whose time has come.
func TestBrokerHostTakesTurnsOfAlarms(t *testing.T) {
	st := newStage(t)
	h := &sessionHost{wake: func() {}}
	s := newSession(st, st.pipes, nil, stageExpiry, born)
	late := make([]*channel, 3*turnsAtOnce)
	for i := range late {
		late[i] = &channel{session: s, deadline: born}
		h.alarm(late[i])
	}
	for left := len(late); left > 0; left -= turnsAtOnce {
		if h.alarms.len() != left || h.nextAlarm(time.Time{}) != born {
			t.Fatalf("%d alarms are left, want %d", h.alarms.len(), left)
		}
		h.resume(born)
	}
	if h.alarms.len() != 0 {
		t.Errorf("%d alarms are left", h.alarms.len())
	}
}
