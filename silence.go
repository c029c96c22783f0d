package zpipes

import "time"

// started is when the process did, about: what is kept as the time since then goes by the clock
// that nobody sets, and takes a third of the room.
var started = time.Now()

// sweepEvery is how often a broker looks for clients that are silent too long.
const sweepEvery = 100 * time.Millisecond

// creditSilence corrects the time at which a peer was last heard for an owner that
// looks only now, and not when it was due: what came while the process stood
// still has yet to be received. Who looks more often than the peer beats is not
// excused for being late by less than a beat: it would add up where one is always
// late, and the dead would live for long on a busy machine.
func creditSilence(heard, due, now time.Time, beat time.Duration) time.Time {
	if late := now.Sub(due) - beat; late > 0 {
		heard = heard.Add(late)
	}
	if heard.After(now) {
		return now
	}
	return heard
}
