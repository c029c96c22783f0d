//go:build linux && !race && !core

package zpipes

import (
	"io"
	"testing"
)

// In the steady state a message costs no memory, whatever its size.
func TestRingAllocations(t *testing.T) {
	r := ringRig(t, BrokerConfig{})
	rd, w := r.pipe("allocations")
	r.moved(rd, w)
	for _, size := range []int{64, 1000, 64 << 10, 500_000} {
		b := make([]byte, size)
		if got := testing.AllocsPerRun(500, func() {
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(rd, b); err != nil {
				t.Fatal(err)
			}
		}); got > 0.05 {
			t.Errorf("%d bytes: %.2f allocations", size, got)
		}
	}
	if !rd.hasRing() || !w.hasRing() {
		t.Error("it did not go through a ring")
	}
}
