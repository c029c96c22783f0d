package zpipes

import "testing"

func TestQueueThatCantBeKeptHasNoMoreRoom(t *testing.T) {
	g := &registry{}
	g.keepBy(func(*chunkQueue) *cause { return &cause{code: causeBusy} })
	s := roomFor(3)
	room := s.room
	if why := g.shape(s, queueSettings{durable: true}); why == nil || s.room != room {
		t.Errorf("%v, and it has room for %d bytes, want %d", why, s.room, room)
	}
}
