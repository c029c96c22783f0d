package zpipes

import "slices"

// A table keeps things in places that do not change, so that it can be looked through in
// steps, with others at it in between: what was there at the first step and is there at
// the last is seen once.
type table[T any] struct {
	pages []*page[T]
	free  int // the number, from 1, of the first page with an empty place; 0: there is none
	n     int
	spare *page[T] // the next one, see stock
}

// A page is small, since many a broker has a pipe or two; and no array grows with the
// number of things but that of pages, since others wait meanwhile. A table has all in the
// order in which it came, more or less: looking through a million of things in another one
// takes several times as long.
type page[T any] struct {
	places [tablePage]*T
	used   int
	free   int // the next page with an empty place
}

const tablePage = 128

func newPage[T any]() *page[T] { return new(page[T]) }

func (t *table[T]) len() int { return t.n }

// lacks says that the next put would have to make a page. It does not if somebody stocks
// one before, without the lock.
func (t *table[T]) lacks() bool { return t.free == 0 && t.spare == nil }

func (t *table[T]) stock(p *page[T]) {
	if p != nil {
		t.spare = p
	}
}

// put returns the place of x, from 1.
func (t *table[T]) put(x *T) int {
	if t.free == 0 {
		if t.lacks() {
			t.spare = new(page[T])
		}
		t.pages = append(t.pages, t.spare)
		t.free, t.spare = len(t.pages), nil
	}
	k := t.free - 1
	p := t.pages[k]
	i := slices.Index(p.places[:], nil)
	p.places[i] = x
	if p.used++; p.used == tablePage {
		t.free = p.free
	}
	t.n++
	return k*tablePage + i + 1
}

func (t *table[T]) remove(place int) {
	k, i := (place-1)/tablePage, (place-1)%tablePage
	p := t.pages[k]
	p.places[i] = nil
	if p.used == tablePage {
		p.free, t.free = t.free, k+1
	}
	p.used--
	if t.n--; t.n == 0 {
		*t = table[T]{}
	}
}

// step returns what is on a page, for which found has room; and the next page, or 0: that
// was the last.
func (t *table[T]) step(k int, found []*T) (next int, _ []*T) {
	if k < len(t.pages) {
		for _, x := range t.pages[k].places {
			if x != nil {
				found = append(found, x)
			}
		}
	}
	if next = k + 1; next >= len(t.pages) {
		next = 0
	}
	return next, found
}
