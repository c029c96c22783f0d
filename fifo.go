package zpipes

// A fifo is a queue in an array that is used again. Its zero value is empty.
type fifo[T any] struct {
	items []T
	first int
	keep  int // how large an array is kept when nothing is in it; 0: keptItems
}

// keptItems is how large an array is kept anyway.
const keptItems = 4

func (q *fifo[T]) len() int  { return len(q.items) - q.first }
func (q *fifo[T]) front() *T { return &q.items[q.first] }

// all is valid until the next change.
func (q *fifo[T]) all() []T { return q.items[q.first:] }

func (q *fifo[T]) push(x T) {
	if q.first > q.len() {
		// One that never runs empty must not grow with all that passes.
		q.compact()
	}
	q.items = append(q.items, x)
}

func (q *fifo[T]) compact() {
	n := copy(q.items, q.all())
	clear(q.items[n:])
	q.items, q.first = q.items[:n], 0
}

// unshift puts items before all others.
func (q *fifo[T]) unshift(items []T) {
	if q.first >= len(items) {
		q.first -= len(items)
		copy(q.items[q.first:], items)
		return
	}
	q.items, q.first = append(append(make([]T, 0, len(items)+q.len()), items...), q.all()...), 0
}

func (q *fifo[T]) pop() T {
	x := *q.front()
	clear(q.items[q.first : q.first+1])
	q.first++
	if q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
		if cap(q.items) > max(q.keep, keptItems) {
			q.items = nil
		}
	}
	return x
}

// truncate drops all but the first n.
func (q *fifo[T]) truncate(n int) {
	clear(q.items[q.first+n:])
	q.items = q.items[:q.first+n]
}

// remove takes out x, if it is there.
func (q *fifo[T]) remove(x T) {
	for i, y := range q.all() {
		if any(x) == any(y) {
			copy(q.all()[i:], q.all()[i+1:])
			q.truncate(q.len() - 1)
			return
		}
	}
}
