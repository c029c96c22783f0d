package zpipes

import (
	"errors"
	"math"
)

// Limits bound what clients of other processes hold at a broker, so that one that
// runs wild leaves room for the others. A zero field means its default, which
// ordinary programs do not reach.
type Limits struct {
	// Pipes is how many ends of pipes may be open at once. For a user, each
	// queue that they have created counts as one more, as long as it exists.
	// The next open is refused with ErrTooManyPipes.
	Pipes int

	// Pending is how many bytes may lie in pipes (for a user, in queues as
	// well) that were written and not read. Beyond it, writes wait until there
	// is room again; but one pipe at a time whose reader waits gets what it
	// waits for. A client that sends as much again without waiting for answers
	// is dropped. Clients of this library do not do that, unless one user has
	// very many of them at the limit.
	Pending int64

	// Requests is how many requests may wait for their answers. A client that
	// sends more is dropped, so this should be several times Pipes: each end
	// has a few.
	Requests int

	// Disk is how many bytes the durable queues that a user has created may take
	// on the disk; beyond it, what is sent waits, as on a full disk. By default
	// there is no limit but BrokerConfig.MaxDisk. Of one client nothing is
	// counted there.
	Disk int64
}

var (
	defaultPerClient = Limits{Pipes: 32 << 10, Pending: 256 << 20, Requests: 1 << 18, Disk: math.MaxInt64}
	noLimits         = Limits{Pipes: math.MaxInt, Pending: math.MaxInt64, Requests: math.MaxInt, Disk: math.MaxInt64}
	defaultPerUser   = Limits{Pipes: 48 << 10, Pending: 2 << 30, Requests: 1 << 20, Disk: math.MaxInt64}
)

func (l Limits) withDefaults(d Limits) (Limits, error) {
	if l.Pipes < 0 || l.Pending < 0 || l.Requests < 0 || l.Disk < 0 {
		return l, errors.New("a negative value in Limits; use zero for the default")
	}
	if l.Pipes == 0 {
		l.Pipes = d.Pipes
	}
	if l.Pending == 0 {
		l.Pending = d.Pending
	}
	if l.Requests == 0 {
		l.Requests = d.Requests
	}
	if l.Disk == 0 {
		l.Disk = d.Disk
	}
	return l, nil
}
