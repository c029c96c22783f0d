//go:build !core

package zpipes

import (
	"strings"
	"time"
)

// A pace fits how much leaves at once to what a connection between machines carries. A
// message that takes long holds up whatever is behind it, heartbeats too, and who receives
// it looks silent meanwhile. It belongs to the conn's owner.
type pace struct {
	largest int           // bytes of a WRITE, at most; 0: a connection within a machine has no pace
	flight  int           // bytes that may be on their way at once
	least   time.Duration // that an answer has taken so far: what the way takes, whatever is sent
	of      *linkBase     // whose WRITE is being timed; nil: nobody's
	behind  int           // how many answers come to it before
	left    time.Time
	full    bool // much of flight was on its way then: else it is not known what the way carries
}

const (
	// What may be on its way grows while an answer takes less than quickly, and shrinks when it
	// takes longer than slowly, beside what the way takes.
	quickly = 25 * time.Millisecond
	slowly  = 100 * time.Millisecond

	firstPace = 64 << 10
	leastPace = 4 << 10
	// flightPaces is how many WRITEs may be on their way at once, while they are not the largest.
	flightPaces = 10
	mostFlight  = 2 * widest
)

// paced says that the other side may be another machine.
func (k *conn) paced() bool {
	return k.client.fellow != nil || strings.HasPrefix(k.at, "tcp:")
}

// begin is for a connection that carries WRITEs of that size at most, and whose first answer
// took so long. It returns how large they are to be.
func (p *pace) begin(largest int, took time.Duration) int {
	*p = pace{largest: largest, flight: flightPaces * firstPace, least: took}
	return p.most()
}

func (p *pace) most() int { return min(p.largest, max(leastPace, p.flight/flightPaces)) }

// sent takes note of a WRITE that l sends, behind others that have no answer yet. On the connection so
// many bytes are on their way.
func (p *pace) sent(l *linkBase, behind, flight int) {
	if p.largest > 0 && (p.of == nil || p.of.state == linkDone) {
		p.of, p.behind, p.left, p.full = l, behind, time.Now(), flight >= p.flight/2
	}
}

// answered returns how large WRITEs are to be from now on, given how large they are.
func (p *pace) answered(l *linkBase, most int) int {
	if p.of != l {
		return most
	}
	if p.behind--; p.behind >= 0 {
		return most
	}
	took := time.Since(p.left)
	p.of, p.least = nil, min(p.least, took)
	switch took -= p.least; {
	case took > slowly:
		p.flight = max(flightPaces*leastPace, p.flight/2)
	case took < quickly && p.full:
		p.flight = min(mostFlight, 2*p.flight)
	}
	return p.most()
}
