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
	least   time.Duration // that an answer has taken so far: what the way takes, whatever is sent
	of      *linkBase     // whose WRITE is being timed; nil: nobody's
	behind  int           // how many answers come to it before
	left    time.Time
}

const (
	// A WRITE grows while it takes less than quickly, and shrinks when it takes longer than
	// slowly, beside what the way takes.
	quickly = 25 * time.Millisecond
	slowly  = 100 * time.Millisecond

	firstPace = 64 << 10
	leastPace = 4 << 10
	// flightPaces is how many of them may be on their way at once.
	flightPaces = 10
)

// paced says that the other side may be another machine.
func (k *conn) paced() bool {
	return k.client.fellow != nil || strings.HasPrefix(k.at, "tcp:")
}

// begin is for a connection that carries WRITEs of that size at most, and whose first answer
// took so long.
func (p *pace) begin(largest int, took time.Duration) int {
	*p = pace{largest: largest, least: took}
	return min(largest, firstPace)
}

// sent takes note of a WRITE that l has sent, behind others that have no answer yet.
func (p *pace) sent(l *linkBase, behind int) {
	if p.largest > 0 && (p.of == nil || p.of.state == linkDone) {
		p.of, p.behind, p.left = l, behind, time.Now()
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
		return max(min(leastPace, most), most/2)
	case took < quickly:
		return min(p.largest, 2*most)
	}
	return most
}
