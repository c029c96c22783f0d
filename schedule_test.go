package zpipes

import (
	"cmp"
	"slices"
	"testing"
)

type scheduled struct {
	when, number int
	place        int
}

func (x *scheduled) earlier(than *scheduled) bool { return x.when < than.when }
func (x *scheduled) seat() *int                   { return &x.place }

// Whatever comes, moves and goes, over several pages: the first is the first, and each knows
// its place.
func TestSchedule(t *testing.T) {
	r := scripted(1)
	var h schedule[*scheduled]
	there, most := []*scheduled{}, 0
	for step := range 60000 {
		grows := step%20000 < 10000
		switch n := len(there); {
		case n == 0 || r.IntN(10) < 4 || grows && r.IntN(10) < 5:
			x := &scheduled{when: r.IntN(1000), number: step}
			h.set(x)
			there = append(there, x)
		case r.IntN(2) == 0:
			x := there[r.IntN(n)]
			x.when = r.IntN(1000)
			h.set(x)
		default:
			i := r.IntN(n)
			x := there[i]
			if r.IntN(2) == 0 {
				x = h.first()
				i = slices.Index(there, x)
			}
			h.remove(x)
			h.remove(x) // it is not there
			there = slices.Delete(there, i, i+1)
		}
		most = max(most, h.len())
		if h.len() != len(there) || len(h.pages) != (len(there)+schedulePage-1)/schedulePage {
			t.Fatalf("step %d: %d on %d pages, want %d", step, h.len(), len(h.pages), len(there))
		}
		if step%97 > 0 || len(there) == 0 {
			continue
		}
		for _, x := range there {
			if *h.at(x.place - 1) != x {
				t.Fatalf("step %d: one is not in its place", step)
			}
		}
		first := slices.MinFunc(there, func(a, b *scheduled) int { return cmp.Compare(a.when, b.when) })
		if h.first().when != first.when {
			t.Fatalf("step %d: the first is at %d, want %d", step, h.first().when, first.when)
		}
	}
	if most < 2*schedulePage {
		t.Errorf("%d at most; no third page was needed", most)
	}
	for last := -1; h.len() > 0; {
		x := h.first()
		if h.remove(x); x.when < last || x.place != 0 {
			t.Errorf("%d came after %d", x.when, last)
		}
		last = x.when
	}
}
