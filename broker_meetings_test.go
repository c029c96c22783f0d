//go:build !core

package zpipes

import (
	"slices"
	"testing"
	"time"
)

// Things at one broker are found at all others, until they are withdrawn, or the broker ends.
func TestThingsAreFoundAtOtherBrokers(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	told := make([]chan []offering, len(brokers))
	for i, b := range brokers {
		told[i] = make(chan []offering, 100)
		defer b.meets.exchange.seek(thingQueue, "q", func(_ time.Time, all []offering) { told[i] <- all })()
	}
	wants := func(at []int, want ...offering) {
		t.Helper()
		late := time.After(20 * time.Second)
		for _, i := range at {
			all := []offering{{token: 1}}
			for !slices.Equal(all, want) { // there may be others: who was first changes with those who register
				select {
				case all = <-told[i]:
				case <-late:
					t.Fatalf("%d is told %v at last, want %v", i, all, want)
				}
			}
		}
	}
	all := []int{0, 1, 2}
	wants(all)
	x := brokers[0].meets.exchange
	here := offering{brokers[0].meets.id, 33, true}
	x.offer(thingQueue, "q", here.token)
	wants(all, here)
	x.withdraw(here.token)
	wants(all)
	here.token = 34
	x.offer(thingQueue, "q", here.token)
	wants(all, here)
	if err := brokers[0].Close(); err != nil {
		t.Error(err)
	}
	wants([]int{1, 2})
}
