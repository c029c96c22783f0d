package zpipes

// A schedule has the one at hand whose time comes first: a heap. Its array is in pages, since
// it may have millions, and others wait while it grows. Its zero value is empty.
type schedule[T timed[T]] struct {
	pages [][]T
	n     int
}

// What is in a schedule keeps its place there.
type timed[T any] interface {
	earlier(than T) bool
	seat() *int // from 1; 0: it is not in it
}

const schedulePage = 1024

func (h *schedule[T]) len() int { return h.n }

func (h *schedule[T]) first() T { return *h.at(0) }

func (h *schedule[T]) at(i int) *T { return &h.pages[i/schedulePage][i%schedulePage] }

// set puts x in, or if it is there, where it belongs by now.
func (h *schedule[T]) set(x T) {
	i := *x.seat() - 1
	if i < 0 {
		i = h.n
		h.n++
		k := i / schedulePage
		if k == len(h.pages) {
			h.pages = append(h.pages, nil)
		}
		h.pages[k] = append(h.pages[k], x)
	}
	h.place(x, i)
}

// remove takes x out, if it is there.
func (h *schedule[T]) remove(x T) {
	i := *x.seat() - 1
	if i < 0 {
		return
	}
	*x.seat() = 0
	h.n--
	last, k := *h.at(h.n), h.n/schedulePage
	clear(h.pages[k][h.n%schedulePage:])
	if h.pages[k] = h.pages[k][:h.n%schedulePage]; h.n%schedulePage == 0 {
		h.pages[k] = nil
		h.pages = h.pages[:k]
	}
	if i < h.n {
		h.place(last, i)
	}
}

// place has x, for which there is room at i, find where it belongs.
func (h *schedule[T]) place(x T, i int) {
	put := func(i int, x T) { *h.at(i), *x.seat() = x, i+1 }
	for i > 0 && x.earlier(*h.at((i - 1) / 2)) {
		put(i, *h.at((i - 1) / 2))
		i = (i - 1) / 2
	}
	for {
		below := 2*i + 1
		if below+1 < h.n && (*h.at(below + 1)).earlier(*h.at(below)) {
			below++
		}
		if below >= h.n || !(*h.at(below)).earlier(x) {
			break
		}
		put(i, *h.at(below))
		i = below
	}
	put(i, x)
}
