package zpipes

import (
	"sync/atomic"
	"time"
)

// A stream between hosts needs as much under way as its way carries in a round trip, or it waits
// for answers. So its pipes take more than others while its reader keeps up: at the reader's
// broker, which tells how much, and at the writer's, which keeps it until that is confirmed.

const (
	// widest is how many bytes such a pipe may take, and mostWidened how many all of a broker's
	// may take beside MaxPending.
	widest      = 16 << 20
	mostWidened = 256 << 20
	// leastRound is for how long a reader is looked at until it is clear how fast it is.
	leastRound = 5 * time.Millisecond
)

// widened is how many bytes more than MaxPending all pipes of a broker may take.
type widened struct{ bytes atomic.Int64 }

func (w *widened) take(n int) bool {
	if w.bytes.Add(int64(n)) <= mostWidened {
		return true
	}
	w.bytes.Add(int64(-n))
	return false
}

// A widening is what a pipe has of that. The pipe's mu guards it.
type widening struct {
	extra int // bytes of its limit
}

// widen has the pipe take up to limit bytes, if its broker may hold so many.
func (p *pipe) widen(limit int) {
	n := min(limit, widest) - p.limit
	if n > 0 && p.rendezvous != nil && p.rendezvous.exchange.pipes.widened.take(n) {
		p.limit += n
		p.extra += n
	}
}

// narrow takes n bytes of that back, or all if it is fewer.
func (p *pipe) narrow(n int) {
	if n = min(n, p.extra); n > 0 {
		p.limit -= n
		p.extra -= n
		p.rendezvous.exchange.pipes.widened.bytes.Add(int64(-n))
	}
}

// A gauge says how fast a stream is read.
type gauge struct {
	began time.Time // its round; zero: there was none
	read  int64     // of the stream until then
}

// fit has a pipe take twice what is read of it in a round trip of that length, or up to four times
// as much: then its writer does not wait for answers. 0: the length is not known.
func (g *gauge) fit(p *pipe, trip time.Duration, now time.Time) {
	took := now.Sub(g.began)
	if trip <= 0 || took < max(trip, leastRound) {
		return
	}
	rate := float64(p.out-g.read) * float64(trip) / float64(took)
	switch {
	case g.began.IsZero():
	case rate >= float64(p.limit)/2:
		p.widen(2 * p.limit)
	case rate < float64(p.limit)/8:
		p.narrow(max(p.extra/2, largeSegment))
	}
	g.began, g.read = now, p.out
}
