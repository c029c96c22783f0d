package zpipes

import "sync"

// A mailbox hands things that need the owner's attention to it, in the order in which they
// came, each at most once until it is taken. They are linked to each other, so that however
// many they are, nothing is copied or allocated while somebody waits. Under its mu no other
// is taken.
type mailbox[T addressee[T]] struct {
	mu          sync.Mutex
	first, last T // if there are some
	n           int
}

// An addressee keeps a letter for the mailbox, which guards it.
type addressee[T any] interface{ letter() *letter[T] }

type letter[T any] struct {
	posted bool
	next   T // if it is not the last
}

// put adds x unless it is there already.
func (m *mailbox[T]) put(x T) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := x.letter()
	if l.posted {
		return false
	}
	l.posted = true
	if m.n == 0 {
		m.first = x
	} else {
		m.last.letter().next = x
	}
	m.last = x
	m.n++
	return true
}

func (m *mailbox[T]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// take takes out the first of those that are there.
func (m *mailbox[T]) take() T {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.first
	l := x.letter()
	m.first = l.next
	*l = letter[T]{}
	if m.n--; m.n == 0 {
		var none T
		m.first, m.last = none, none
	}
	return x
}

// each has the owner call f with those that are there, but with most of them at most, and
// not with what comes meanwhile. It says whether some were left.
func (m *mailbox[T]) each(most int, f func(T)) (left bool) {
	n := m.len()
	for range min(n, most) {
		f(m.take())
	}
	return n > most
}
