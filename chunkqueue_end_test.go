package zpipes

import (
	"testing"
	"time"
)

// A queue that very many have open, and wait for, ends in steps, between which others have
// their turn; nobody is left out, also where some leave meanwhile.
func TestChunkQueueThatManyHaveOpenEndsInSteps(t *testing.T) {
	const many = 4*settleMost + 1
	for name, keep := range map[string]bool{"deleted": false, "shut down": true} {
		t.Run(name, func(t *testing.T) {
			var posted []resumer
			s := newChunkQueue("q", many*leastChunk, 100, born)
			s.tellTime(&clock{now: func() time.Time { return born }, stamp: born.UnixNano}, func(time.Time) {})
			s.takeTurns(func(x resumer) { posted = append(posted, x) })
			happened, lost := 0, make(map[uint64]bool)
			var senders []*sender
			worker := new(sender)
			worker.wake = func() { happened++; worker.woken++ }
			worker.senderQueue.lost = func(id uint64, _ uint32) { happened++; lost[id] = true }
			s.attach(&worker.senderQueue)
			for range many {
				l := new(sender)
				l.wake = func() { happened++; l.woken++ }
				s.attach(&l.senderQueue)
				senders = append(senders, l)
				s.sends(l, "x")
			}
			for s.available() {
				s.take(s.next(), &worker.senderQueue)
			}
			var asks sink
			for range many {
				s.demand(&asks)
			}
			for _, l := range senders {
				s.sends(l, "y", "z") // a y is taken up by those who ask; a z may wait for room
				l.woken = 0
			}
			for len(posted) > 0 {
				posted = posted[1:]
				s.resume(born)
			}
			emptied := 0
			s.tellEmpty(func() { emptied++ })
			jobs := worker.has.n
			if jobs != many {
				t.Fatalf("%d jobs are taken", jobs)
			}
			for _, l := range senders {
				l.woken = 0
			}
			happened = 0
			ended := asks.ended
			turns := 0
			did := func() int { return happened + asks.ended - ended }
			s.end(cause{code: causeDeleted}, keep)
			for before := 0; ; before = did() {
				if n := did() - before; n > 2*settleMost {
					t.Errorf("turn %d: %d were told", turns, n)
				}
				if len(posted) == 0 {
					break
				}
				s.detach(&senders[7*turns].senderQueue) // told or not
				s.detach(&senders[many-1-turns].senderQueue)
				posted = posted[1:]
				s.resume(born)
				turns++
			}
			if turns < many/settleMost {
				t.Errorf("it took %d turns", turns)
			}
			for i, l := range senders {
				if gone := l.place == nil; !gone && (l.woken == 0 || l.chunks.len() > 0) {
					t.Errorf("sender %d was not told, or still has %d chunks", i, l.chunks.len())
				}
			}
			if !keep && (len(lost) != many || emptied != 1 || worker.has.n > 0) {
				t.Errorf("%d jobs were lost, and it was empty %d times", len(lost), emptied)
			}
			if keep && (len(lost) > 0 || worker.has.n != many) {
				t.Errorf("%d jobs were lost, and %d are kept", len(lost), worker.has.n)
			}
		})
	}
}

// What waits for very much room goes on in steps, too.
func TestChunkQueueTakesManyInSteps(t *testing.T) {
	const many = 3*settleMost + 1
	posted := 0
	s := newChunkQueue("q", leastChunk, 100, born)
	s.takeTurns(func(resumer) { posted++ })
	l := s.sender()
	for range many {
		s.sends(l, "x")
	}
	for last := int64(0); ; last = l.settled {
		s.setRules(s.rules, many*leastChunk)
		if n := l.settled - last; n > 2*settleMost {
			t.Errorf("%d at once", n)
		}
		if posted == 0 {
			break
		}
		posted = 0
	}
	if l.settled != many || s.count != many {
		t.Errorf("%d of %d were taken, %d are there", l.settled, many, s.count)
	}
}
