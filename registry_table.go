package zpipes

// A table keeps things in places that do not change, so that it can be looked through in
// steps, with others at it in between: what was there at the first step and is there at
// the last is seen once.
type table[T any] struct {
	pages [][]*T
	used  int   // places that ever had something
	free  []int // those of them that are empty
	n     int
}

// tablePage is small, since many a broker has a pipe or two.
const tablePage = 128

func (t *table[T]) len() int { return t.n }

// put returns the place of x, from 1.
func (t *table[T]) put(x *T) int {
	i := t.used
	if last := len(t.free) - 1; last >= 0 {
		i, t.free = t.free[last], t.free[:last]
	} else if t.used++; i == len(t.pages)*tablePage {
		t.pages = append(t.pages, make([]*T, tablePage))
	}
	t.pages[i/tablePage][i%tablePage] = x
	t.n++
	return i + 1
}

func (t *table[T]) remove(place int) {
	i := place - 1
	t.pages[i/tablePage][i%tablePage] = nil
	t.n--
	if t.free = append(t.free, i); t.n == 0 {
		*t = table[T]{}
	}
}

// step returns what is in the next places from there on, and where to go on; 0: that
// was all.
func (t *table[T]) step(from int, found []*T) (next int, _ []*T) {
	for i := from; i < min(from+tableStep, t.used); i++ {
		if x := t.pages[i/tablePage][i%tablePage]; x != nil {
			found = append(found, x)
		}
	}
	if next = from + tableStep; next >= t.used {
		next = 0
	}
	return next, found
}

// tableStep is how many places a step looks at.
const tableStep = 128
