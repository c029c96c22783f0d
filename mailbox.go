package zpipes

import "sync"

// mailbox hands things that need the owner's attention to it, each at most once
// until it is fetched. Under its mu no other is taken.
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	spare []T
}

// put adds an item unless its flag says that it is there already.
func (m *mailbox[T]) put(item T, posted *bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *posted {
		return false
	}
	*posted = true
	m.items = append(m.items, item)
	return true
}

// fetch takes all items; posted is where an item keeps its flag. What it
// returns is valid until the next fetch.
func (m *mailbox[T]) fetch(posted func(T) *bool) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	for _, item := range items {
		*posted(item) = false
	}
	clear(m.spare)
	m.items, m.spare = m.spare[:0], items
	return items
}
