package zpipes

import (
	"slices"
	"testing"
)

// checkFifo wants q to have these items, and to keep no others alive.
func checkFifo(t *testing.T, q *fifo[*int], want []*int) {
	t.Helper()
	if q.len() != len(want) || !slices.Equal(q.all(), want) {
		t.Fatalf("%d items, want %d others or in another order", q.len(), len(want))
	}
	if len(want) > 0 && *q.front() != want[0] {
		t.Fatal("the front is not the first item")
	}
	whole := q.items[:cap(q.items)]
	for i, x := range whole {
		if (i < q.first || i >= q.first+len(want)) && x != nil {
			t.Fatalf("an item that was taken out is kept at %d of %d, with %d from %d", i, len(whole), len(want), q.first)
		}
	}
}

func TestFifoBehavesAsASlice(t *testing.T) {
	r := scripted(1)
	var q fifo[*int]
	var model []*int
	some := func(n int) (items []*int) {
		for range n {
			items = append(items, new(int))
		}
		return items
	}
	for range 20000 {
		switch n := len(model); {
		case r.IntN(2) == 0:
			x := new(int)
			q.push(x)
			model = append(model, x)
		case r.IntN(20) == 0:
			items := some(r.IntN(5))
			q.unshift(items)
			model = slices.Concat(items, model)
		case n == 0:
		case r.IntN(20) == 0:
			n = r.IntN(n + 1)
			q.truncate(n)
			model = slices.Clone(model[:n])
		case r.IntN(20) == 0:
			i := r.IntN(n)
			q.remove(model[i])
			model = slices.Delete(slices.Clone(model), i, i+1)
		case r.IntN(20) == 0:
			q.remove(new(int)) // it is not there
		default:
			if x := q.pop(); x != model[0] {
				t.Fatal("not the first item was popped")
			}
			model = model[1:]
		}
		checkFifo(t, &q, model)
	}
}

// A fifo that never runs empty takes no more room for it.
func TestFifoDoesNotGrowWithWhatPasses(t *testing.T) {
	var q fifo[*int]
	for range 10 {
		q.push(new(int))
	}
	for range 10000 {
		q.push(new(int))
		q.pop()
	}
	if n := cap(q.items); n > 64 {
		t.Errorf("room for %d items where there are 10", n)
	}
}

func TestFifoKeepsASmallArrayOnly(t *testing.T) {
	var q fifo[int]
	for n := range 2 * keptItems {
		for i := range n {
			q.push(i)
		}
		for range n {
			q.pop()
		}
		if cap(q.items) > keptItems {
			t.Errorf("an empty fifo keeps room for %d items", cap(q.items))
		}
	}
	q.push(1)
	q.pop()
	if n := testing.AllocsPerRun(100, func() { q.push(1); q.pop() }); n > 0 {
		t.Errorf("%v allocations for an item that comes and goes", n)
	}
}

// What goes back to the front after it was taken out finds its place again.
func TestFifoUnshiftUsesTheRoomInFront(t *testing.T) {
	var q fifo[int]
	for i := range 6 {
		q.push(i)
	}
	q.pop()
	q.pop()
	back := make([]int, 1)
	n := testing.AllocsPerRun(10, func() {
		back[0] = q.pop()
		q.unshift(back)
	})
	q.unshift([]int{0, 1})
	if want := []int{0, 1, 2, 3, 4, 5}; n > 0 || !slices.Equal(q.all(), want) {
		t.Errorf("%v, with %v allocations", q.all(), n)
	}
}
