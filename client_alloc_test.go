//go:build !race && !core

package zpipes

import (
	"fmt"
	"testing"
)

// An open at a broker of this process waits for nothing, and so makes no clock and no
// context: what it does make, stays.
func TestClientOpenAllocations(t *testing.T) {
	const runs = 1000
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	c := b.Client()
	var names [3][]string
	for i := range names {
		for k := range runs + 1 {
			names[i] = append(names[i], fmt.Sprint(i, " ", k))
		}
	}
	for i, way := range []struct {
		end  string
		open func(name string) error
		most float64
	}{
		{"writer", func(name string) error { _, err := c.OpenWriter(t.Context(), name); return err }, 5},
		{"reader", func(name string) error { _, err := c.OpenReader(t.Context(), name); return err }, 5},
		{"queue", func(name string) error { _, err := c.OpenQueue(t.Context(), name); return err }, 9},
	} {
		k := 0
		if got := testing.AllocsPerRun(runs, func() {
			if err := way.open(names[i][k]); err != nil {
				t.Fatal(err)
			}
			k++
		}); got > way.most {
			t.Errorf("opening a %s takes %.0f allocations", way.end, got)
		}
	}
}
