package meet

import "time"

// A list has its items linked, so that it costs nothing to have many.
type list[T any] struct{ first, last *place[T] }

// A place is an item's, of which it is a part.
type place[T any] struct {
	of         *T
	prev, next *place[T]
}

func (l *list[T]) push(p *place[T]) {
	p.prev, p.next = l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

func (l *list[T]) remove(p *place[T]) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

// A queue has things that are due in the order in which they came.
type queue[T any] struct {
	at    []time.Time
	items []T
}

func (q *queue[T]) push(at time.Time, x T) {
	q.at, q.items = append(q.at, at), append(q.items, x)
}

func (q *queue[T]) next() (at time.Time, ok bool) {
	if len(q.at) == 0 {
		return at, false
	}
	return q.at[0], true
}

func (q *queue[T]) due(now time.Time) bool { return len(q.at) > 0 && !now.Before(q.at[0]) }

func (q *queue[T]) pop() T {
	var none T
	x := q.items[0]
	q.items[0] = none
	q.at, q.items = q.at[1:], q.items[1:]
	return x
}
