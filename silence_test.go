package zpipes

import (
	"testing"
	"time"
)

// What came while the process stood still is heard only now; that is nobody's
// silence.
func TestSilenceWhileNobodyListened(t *testing.T) {
	now := time.Now()
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	for _, test := range []struct{ heard, due, now, want int }{
		{0, 100, 100, 0},
		{0, 100, 90, 0},
		{0, 100, 150, 0}, // as late as may be
		{0, 100, 5150, 5000},
		{80, 100, 5150, 5080},
		{5050, 100, 5150, 5150}, // heard since
	} {
		if got := creditSilence(at(test.heard), at(test.due), at(test.now), 50*time.Millisecond); !got.Equal(at(test.want)) {
			t.Errorf("heard at %d, due at %d, looking at %d: %v, want %d", test.heard, test.due, test.now, got.Sub(now), test.want)
		}
	}
}

// Who always comes late notices a death nevertheless, and soon.
func TestSilenceOnABusyMachine(t *testing.T) {
	const beat = 500 * time.Millisecond
	for _, late := range []time.Duration{0, 50 * time.Millisecond, beat, 3 * time.Second} {
		heard := time.Now()
		due, now, looks := heard, heard, 0
		for now.Sub(heard) < missedBeats*beat {
			due = now.Add(sweepEvery)
			now = due.Add(late)
			heard = creditSilence(heard, due, now, beat)
			looks++
		}
		if most := 1 + int(missedBeats*beat/(sweepEvery+min(late, beat))); looks > most {
			t.Errorf("late by %v: a death is noticed at the %d. look, and should be at the %d.", late, looks, most)
		}
	}
}
