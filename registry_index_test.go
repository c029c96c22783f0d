package zpipes

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// What follows is what there is in a registry, for tests. mu is held, or nobody else is there.

func (g *registry) pipes() map[string]*pipe {
	pipes := make(map[string]*pipe)
	for _, r := range g.names.root.all(nil) {
		if r.stream != nil {
			pipes[r.name()] = r.stream
		}
	}
	return pipes
}

func (g *registry) queues() map[string]*chunkQueue {
	queues := make(map[string]*chunkQueue)
	for _, r := range g.names.root.all(nil) {
		if r.queue != nil {
			queues[r.name()] = r.queue
		}
	}
	return queues
}

// allPipes are those without a name, too.
func (g *registry) allPipes() (pipes []*pipe) {
	for _, r := range g.dead.root.all(g.names.root.all(nil)) {
		if r.stream != nil {
			pipes = append(pipes, r.stream)
		}
	}
	return pipes
}

// deadOf is how many have none.
func deadOf(g *registry) int { return g.dead.n }

// Whoever is there from the first step to the last is found once, and no step has many.
func TestRegistryIndexThatChanges(t *testing.T) {
	for seed := range uint64(60) {
		chance := rand.New(rand.NewPCG(seed, 0))
		x := index{is: named}
		var there []*registration
		key, most := chance.Uint64, 4000
		if seed%3 == 0 { // keys that have all of their first digits in common, or all digits
			key = func() uint64 { return uint64(chance.IntN(50)) << (chance.IntN(2) * 20) }
			most = 400
		}
		put := func() {
			r := &registration{stream: newPipe(fmt.Sprint(chance.Uint64()), 0, born)}
			x.put(r, key())
			there = append(there, r)
		}
		remove := func() *registration {
			if len(there) == 0 {
				return nil
			}
			i := chance.IntN(len(there))
			r := there[i]
			there[i] = there[len(there)-1]
			there = there[:len(there)-1]
			x.remove(r)
			return r
		}
		for range chance.IntN(most) {
			put()
		}
		stays := make(map[*registration]bool)
		for _, r := range there {
			stays[r] = true
		}
		seen := make(map[*registration]int)
		tends := chance.IntN(3) // to grow, or to shrink
		for next := uint64(0); ; {
			var found []*registration
			next, found = x.step(next, nil)
			if seed%3 != 0 && len(found) > 4*indexStep {
				t.Errorf("seed %d: a step has found %d", seed, len(found))
			}
			for _, r := range found {
				seen[r]++
			}
			if next == 0 {
				break
			}
			for range chance.IntN(20) {
				if chance.IntN(4) <= tends {
					put()
				} else {
					delete(stays, remove())
				}
			}
		}
		if x.n != len(there) {
			t.Errorf("seed %d: it counts %d of %d", seed, x.n, len(there))
		}
		for r := range stays {
			if seen[r] != 1 {
				t.Errorf("seed %d: what stayed was found %d times", seed, seen[r])
			}
		}
		for r, n := range seen {
			if n != 1 {
				t.Errorf("seed %d: one was found %d times", seed, n)
			}
			if found := x.find(r.key, r.name()); (found == r) != (r.place == named) || found != nil && found != r {
				t.Errorf("seed %d: by its name, another one is found, or one that is not there", seed)
			}
		}
		for len(there) > 0 {
			remove()
		}
		if x.root != nil || x.n != 0 {
			t.Errorf("seed %d: an empty index has something", seed)
		}
	}
}

// What others wait for meanwhile does not grow with the number of pipes: no way in the
// index is long, and an open allocates its pipe (before it has the lock) and nothing else.
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
	for next, most := uint64(0), 0; ; {
		var found []*registration
		if next, found = g.names.step(next, nil); len(found) > most {
			if most = len(found); most > 4*indexStep {
				t.Errorf("a step has found %d", most)
			}
		}
		if next == 0 {
			break
		}
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

// Names that are taken and freed again while somebody still holds what was there make no
// way long.
func TestRegistryOfPipesWithoutAName(t *testing.T) {
	const n = 20_000
	g := newRegistry(2*n, 100, 100)
	held := make([]*pipe, n)
	for i := range held {
		held[i] = mustOpen(t, g, "one", reader, 0)
		mustOpen(t, g, "one", writer, 0)
		giveBack(g, held[i], writer, cause{})
	}
	if g.names.n != 0 || g.dead.n != n || depth(g.dead.root) > 30 {
		t.Errorf("%d named, %d others, %d on one way", g.names.n, g.dead.n, depth(g.dead.root))
	}
	g.close(cause{code: causeBrokerGone}, true)
	if !g.emptied() {
		t.Error("close has not ended all")
	}
	for _, p := range held {
		giveBack(g, p, reader, cause{})
	}
	if g.dead.n != 0 {
		t.Errorf("%d are left", g.dead.n)
	}
}

// forgetAll is forget, of all queues.
func forgetAll(g *registry, after time.Duration, now time.Time) (all []string) {
	for next := uint64(0); ; {
		var names []string
		names, next = g.forget(next, after, now)
		if all = append(all, names...); next == 0 {
			return all
		}
	}
}
