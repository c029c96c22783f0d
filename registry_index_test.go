package zpipes

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// What follows is what there is in a registry, for tests. mu is held, or nobody else is there.

func everything(g *registry) (all []*registration) {
	for next := 0; ; {
		if next, all = g.all.step(next, all); next == 0 {
			return all
		}
	}
}

func (g *registry) pipes() map[string]*pipe {
	pipes := make(map[string]*pipe)
	for _, r := range everything(g) {
		if r.stream != nil && r.named {
			pipes[r.name()] = r.stream
		}
	}
	return pipes
}

func (g *registry) queues() map[string]*chunkQueue {
	queues := make(map[string]*chunkQueue)
	for _, r := range everything(g) {
		if r.queue != nil {
			queues[r.name()] = r.queue
		}
	}
	return queues
}

// allPipes are those without a name, too.
func (g *registry) allPipes() (pipes []*pipe) {
	for _, r := range everything(g) {
		if r.stream != nil {
			pipes = append(pipes, r.stream)
		}
	}
	return pipes
}

// deadOf is how many have none.
func deadOf(g *registry) int { return g.all.len() - g.names.n }

// Each is found by its key and name, and nothing else is, also where keys have all of
// their first digits in common, or all digits.
func TestRegistryIndexFindsByName(t *testing.T) {
	for seed := range uint64(60) {
		chance := rand.New(rand.NewPCG(seed, 0))
		var x index
		var there, gone []*registration
		key, most := chance.Uint64, 3000
		if seed%3 == 0 {
			key = func() uint64 { return uint64(chance.IntN(50)) << (chance.IntN(2) * 20) }
			most = 300
		}
		for range most {
			if chance.IntN(3) > 0 || len(there) == 0 {
				r := &registration{stream: newPipe(fmt.Sprint(chance.Uint64()), 0, born)}
				x.put(r, key())
				there = append(there, r)
			} else {
				i := chance.IntN(len(there))
				x.remove(there[i])
				gone = append(gone, there[i])
				there = slices.Delete(there, i, i+1)
			}
		}
		if x.n != len(there) {
			t.Errorf("seed %d: it counts %d of %d", seed, x.n, len(there))
		}
		for _, r := range there {
			if x.find(r.key, r.name()) != r || !r.named {
				t.Errorf("seed %d: one that is there is not found", seed)
			}
		}
		for _, r := range gone {
			if x.find(r.key, r.name()) != nil || r.named {
				t.Errorf("seed %d: one that is gone is found", seed)
			}
		}
		for _, r := range there {
			x.remove(r)
		}
		if x.root != nil || x.n != 0 {
			t.Errorf("seed %d: an empty index has something", seed)
		}
	}
}

// What others wait for meanwhile does not grow with the number of pipes: no way in the
// index is long, and an open allocates its pipe (before it has the lock) and, now and then, a
// page of the table.
func TestRegistryHoldsNobodyUpForLong(t *testing.T) {
	const n = 100_000
	g := newRegistry(2*n, 100, 100)
	name := make([]string, n)
	for i := range name {
		name[i] = fmt.Sprint("pipe-", i)
	}
	i := 0
	pipes := make([]*pipe, n)
	if got := testing.AllocsPerRun(n-1, func() {
		pipes[i], _ = g.open(name[i], reader, 0, nil, born)
		i++
	}); got != 1 {
		t.Errorf("%v allocations for an open", got)
	}
	if got := testing.AllocsPerRun(n/10, func() {
		p := pipes[i-1]
		giveBack(g, p, reader, cause{})
		g.open(p.name, writer, 0, nil, born)
		i--
	}); got != 1 {
		t.Errorf("%v allocations for a close and an open", got)
	}
	if d := depth(g.names.root); d > 30 {
		t.Errorf("%d pipes are on one way", d)
	}
}

func depth(r *registration) (d int) {
	if r != nil {
		for _, b := range r.below {
			d = max(d, depth(b))
		}
		d++
	}
	return d
}

// Names that are taken and freed again while somebody still holds what was there.
func TestRegistryOfPipesWithoutAName(t *testing.T) {
	const n = 20_000
	g := newRegistry(2*n, 100, 100)
	held := make([]*pipe, n)
	for i := range held {
		held[i] = mustOpen(t, g, "one", reader, 0)
		mustOpen(t, g, "one", writer, 0)
		giveBack(g, held[i], writer, cause{})
	}
	if g.names.root != nil || deadOf(g) != n {
		t.Errorf("%d named, %d others", g.names.n, deadOf(g))
	}
	g.close(cause{code: causeBrokerGone}, true)
	if !g.emptied() {
		t.Error("close has not ended all")
	}
	for _, p := range held {
		giveBack(g, p, reader, cause{})
	}
	if n := g.all.len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// forgetAll is forget, of all queues.
func forgetAll(g *registry, after time.Duration, now time.Time) (all []string) {
	for next := 0; ; {
		var names []string
		names, next = g.forget(next, after, now)
		if all = append(all, names...); next == 0 {
			return all
		}
	}
}
