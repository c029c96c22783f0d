package zpipes

import (
	"math/rand/v2"
	"testing"
)

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

// A page that is stocked is taken for the one that is lacked, and none is made.
func TestRegistryTableStocksAPage(t *testing.T) {
	var tab table[int]
	x := new(int)
	for n := range 5 * tablePage {
		if lacks := tab.lacks(); lacks != (n%tablePage == 0) {
			t.Fatalf("with %d things it lacks a page: %v", n, lacks)
		} else if lacks {
			p := newPage[int]()
			tab.stock(p)
			tab.put(x)
			if tab.stock(nil); tab.pages[len(tab.pages)-1] != p || tab.lacks() {
				t.Fatal("not the page that was stocked")
			}
			continue
		}
		tab.put(x)
	}
}
