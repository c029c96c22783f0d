package zpipes

import (
	"sync"
	"sync/atomic"
	"testing"
)

// What clients of a user share is counted exactly, also by owners who know nothing of
// one another: of those who come at once, as many get in as there is room for.
func TestAccountIsExactForManyOwners(t *testing.T) {
	const owners, ends, requests = 8, 100, 1000
	user := &account{whose: "user", limits: Limits{Pipes: ends, Pending: 1 << 40, Requests: requests}}
	var opened, taken atomic.Int64
	var all sync.WaitGroup
	for range owners {
		all.Go(func() {
			a := &account{whose: "client", limits: defaultPerClient, above: user}
			for range ends {
				whole := a.whole()
				whole.opening.Lock()
				if a.refusal(1) == nil {
					a.addEnds(1)
					opened.Add(1)
				}
				whole.opening.Unlock()
			}
			for range requests {
				if a.take(10) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if opened.Load() != ends || taken.Load() != requests {
		t.Errorf("%d ends of %d, %d requests of %d", opened.Load(), ends, taken.Load(), requests)
	}
	if user.ends != ends || user.requests != requests || user.bytes != 10*requests {
		t.Errorf("%d ends, %d requests, %d bytes are counted", user.ends, user.requests, user.bytes)
	}
}

// Rings are paid for in one step, so that many who want one at once leave half of the room.
func TestAccountClaimsInOneStep(t *testing.T) {
	const limit, ring = 1 << 20, 10_000
	user := &account{whose: "user", limits: Limits{Pending: limit}}
	var most atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a := &account{whose: "client", limits: defaultPerClient, above: user}
			for range 1000 {
				claimed := 0
				for a.claim(ring) {
					claimed++
				}
				if n := user.held.Load(); n > most.Load() {
					most.Store(n)
				}
				a.charge(-claimed * ring)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > limit-ring || n < limit/2 || user.held.Load() != 0 {
		t.Errorf("at most %d, and at last %d are held, of %d", n, user.held.Load(), limit)
	}
}
