package main

import (
	"time"

	"github.com/zpipes/zpipes"
)

// stuckAfter is for how long data that somebody waits with must not have got on.
const stuckAfter = 3 * time.Second

// halted says that somebody has data that do not get on, if they do not move: a writer
// or a sender waits, or a stream holds what its reader does not take. Chunks in a queue
// wait for somebody to come, as they are meant to; a receiver at an empty one is idle.
func halted(p zpipes.PipeInfo) bool {
	switch p.Mode {
	case zpipes.ModeListener:
		return false // no bytes tell whether connections are accepted
	case zpipes.ModeQueue:
		return p.Writes || p.Reads && p.Chunks > 0
	case zpipes.ModeBroadcast: // which may keep what all have read
		return p.Writes || p.Lag > 0
	}
	return p.Writes || p.Queued > 0
}

// A standstill is since when a pipe has been halted without a byte read.
type standstill struct{ since time.Time }

func (s *standstill) note(now time.Time, p zpipes.PipeInfo, moved bool) {
	switch {
	case !halted(p):
		s.since = time.Time{}
	case moved || s.since.IsZero():
		s.since = now
	}
}

// stuck is how long that has been; 0 if that is no time.
func (s *standstill) stuck(now time.Time) time.Duration {
	if d := now.Sub(s.since); !s.since.IsZero() && d >= stuckAfter {
		return d
	}
	return 0
}
