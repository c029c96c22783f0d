package zpipes

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pipesOf are all pipes of a registry, those without a name included.
func pipesOf(g *registry) (pipes []*pipe) {
	steps(g, &g.allPipes, func(p *pipe) { pipes = append(pipes, p) })
	return pipes
}

// deadOf is how many of them have no name.
func deadOf(g *registry) int { return g.allPipes.len() - len(g.pipes) }

// Whoever is there from the first step to the last is seen once.
func TestRegistryTableThatChanges(t *testing.T) {
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 0))
		var tab table[int]
		places := make(map[int]int)
		next := 0
		put := func() {
			next++
			x := next
			places[x] = tab.put(&x)
		}
		remove := func() (x int) {
			for x = range places {
				tab.remove(places[x])
				delete(places, x)
				break
			}
			return x
		}
		for range chance.IntN(4000) {
			put()
		}
		stays := make(map[int]bool)
		for x := range places {
			stays[x] = true
		}
		seen := make(map[int]int)
		for at := 0; ; {
			var found []*int
			at, found = tab.step(at, nil)
			for _, x := range found {
				seen[*x]++
			}
			if at == 0 {
				break
			}
			for range chance.IntN(300) {
				if chance.IntN(2) == 0 {
					put()
				} else {
					delete(stays, remove())
				}
			}
		}
		if tab.len() != len(places) {
			t.Errorf("it counts %d of %d", tab.len(), len(places))
		}
		for x := range stays {
			if seen[x] != 1 {
				t.Errorf("seed %d: %d was seen %d times", seed, x, seen[x])
			}
		}
		for x, n := range seen {
			if n != 1 {
				t.Errorf("seed %d: %d was seen %d times", seed, x, n)
			}
		}
		for len(places) > 0 {
			remove()
		}
		if len(tab.pages) > 0 {
			t.Error("an empty table keeps memory")
		}
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
