package zpipes

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A sender is a sender queue, and counts how often it was woken.
type sender struct {
	senderQueue
	woken int
}

func (s *chunkQueue) sender() *sender {
	l := new(sender)
	l.wake = func() { l.woken++ }
	s.attach(&l.senderQueue)
	return l
}

// sends pushes chunks, which have 16 bytes each so that all count for as much as
// they have.
func (s *chunkQueue) sends(l *sender, names ...string) {
	for _, n := range names {
		s.push(&l.senderQueue, sixteen(n))
	}
}

func sixteen(name string) []byte { return []byte(name + strings.Repeat(".", leastChunk-len(name))) }

func (j *job) short() string { return short(j.data) }

func short(c []byte) string { return strings.TrimRight(string(c), ".") }

// A sink asks for chunks, and has what it was given.
type sink struct {
	chunks []string
	raw    []*job
	ended  int
}

func (k *sink) take(j *job) {
	if j == nil {
		k.ended++
		return
	}
	k.chunks, k.raw = append(k.chunks, j.short()), append(k.raw, j)
}

func roomFor(chunks int) *chunkQueue {
	return newChunkQueue("q", chunks*leastChunk, chunks*leastChunk, born)
}

// takes takes out what there is, and lets go of each chunk before it takes the next.
func (s *chunkQueue) takes(n int) (chunks []string) {
	for ; n > 0; n-- {
		c := s.next()
		if c == nil {
			break
		}
		chunks = append(chunks, c.short())
		s.release(c)
		s.settle()
	}
	return chunks
}

func checkChunks(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		t.Fatalf("chunks (-want +got):\n%s", diff)
	}
}

// checkSums wants the sums of a chunkQueue that has handed out nothing to be those of its
// chunks.
func checkSums(t *testing.T, s *chunkQueue) {
	t.Helper()
	var held, bytes, count int
	add := func(j *job) {
		held += j.size()
		bytes += len(j.data)
		count++
	}
	for _, c := range s.front.all() {
		add(c)
	}
	for _, l := range s.ready.all() {
		for _, c := range l.line.all() {
			add(c)
		}
	}
	for _, a := range s.aside {
		add(a.job)
	}
	if s.held != held || s.bytes != bytes || s.count != count {
		t.Fatalf("%d held, %d bytes, %d chunks; there are %d, %d, %d", s.held, s.bytes, s.count, held, bytes, count)
	}
}

func TestChunkQueueHandsOutInTurns(t *testing.T) {
	s := roomFor(100)
	a, b, c := s.sender(), s.sender(), s.sender()
	s.sends(a, "a1", "a2", "a3", "a4")
	s.sends(b, "b1")
	s.sends(c, "c1", "c2")
	checkChunks(t, s.takes(3), "a1", "b1", "c1")
	s.sends(b, "b2") // behind those who have waited
	checkChunks(t, s.takes(9), "a2", "c2", "b2", "a3", "a4")
	checkSums(t, s)
}

func TestChunkQueueTakesInTurns(t *testing.T) {
	s := roomFor(2)
	a, b, c := s.sender(), s.sender(), s.sender()
	s.sends(a, "a1", "a2", "a3", "a4")
	s.sends(b, "b1", "b2")
	s.sends(c, "c1")
	// Only what is taken is handed out.
	taken := func(want ...int64) {
		t.Helper()
		if got := []int64{a.settled, b.settled, c.settled}; !slices.Equal(got, want) {
			t.Fatalf("%v chunks were taken, want %v", got, want)
		}
	}
	taken(2, 0, 0)
	for _, step := range []struct {
		out   string
		taken []int64
	}{
		{"a1", []int64{3, 0, 0}}, {"a2", []int64{3, 1, 0}}, {"a3", []int64{3, 1, 1}}, {"b1", []int64{4, 1, 1}},
		{"c1", []int64{4, 2, 1}}, {"a4", []int64{4, 2, 1}}, {"b2", []int64{4, 2, 1}},
	} {
		checkChunks(t, s.takes(1), step.out)
		taken(step.taken...)
	}
	checkSums(t, s)
	if s.in != 7*leastChunk || s.out != s.in {
		t.Errorf("%d bytes in, %d out", s.in, s.out)
	}
}

// A chunk that does not fit is not overtaken by one that would.
func TestChunkQueueKeepsTheTurnOfALargeChunk(t *testing.T) {
	s := roomFor(4)
	a, b := s.sender(), s.sender()
	s.sends(a, "a1", "a2")
	s.push(&a.senderQueue, make([]byte, 3*leastChunk))
	s.sends(b, "b1")
	if b.settled != 0 {
		t.Fatal("a small chunk has overtaken a large one whose turn it was")
	}
	checkChunks(t, s.takes(1), "a1")
	if a.settled != 3 || b.settled != 0 {
		t.Fatalf("%d and %d chunks were taken, want the large one and not the one behind it", a.settled, b.settled)
	}
}

func TestChunkQueueTellsItsSenders(t *testing.T) {
	s := newChunkQueue("q", 40, 40, born)
	l := s.sender()
	s.push(&l.senderQueue, []byte{})
	s.push(&l.senderQueue, make([]byte, 24))
	if l.woken != 2 || l.window != 0 || l.unsure != 0 {
		t.Fatalf("woken %d times, %d in the window, %d unsure", l.woken, l.window, l.unsure)
	}
	s.push(&l.senderQueue, []byte("x"))
	s.push(&l.senderQueue, make([]byte, 17))
	if l.woken != 2 || l.window != leastChunk+17 || l.unsure != 18 || l.pushed != 4 || l.settled != 2 {
		t.Fatalf("woken %d times, %d in the window, %d unsure, %d pushed, %d settled", l.woken, l.window, l.unsure, l.pushed, l.settled)
	}
	if s.held != 40 || s.bytes != 24 || s.count != 2 || s.in != 24 {
		t.Fatalf("%d held, %d bytes, %d chunks, %d ever; an empty one counts for %d", s.held, s.bytes, s.count, s.in, leastChunk)
	}
	s.release(s.next())
	s.settle()
	if l.woken != 3 || l.window != 17 || l.unsure != 17 {
		t.Fatalf("woken %d times, %d in the window, %d unsure", l.woken, l.window, l.unsure)
	}
}

// One that is larger than the limit would wait for ever otherwise.
func TestChunkQueueTakesAChunkOfAnySizeAlone(t *testing.T) {
	s := roomFor(2)
	l := s.sender()
	s.sends(l, "1")
	s.push(&l.senderQueue, make([]byte, 1000))
	s.sends(l, "3")
	if s.count != 1 {
		t.Fatal("taken beside another chunk")
	}
	checkChunks(t, s.takes(1), "1")
	if s.count != 1 || s.bytes != 1000 {
		t.Fatal("not taken though nothing else is there")
	}
	if c := s.next(); len(c.data) != 1000 || s.count != 1 {
		t.Fatalf("%d bytes came, and %d chunks are there with it", len(c.data), s.count)
	} else {
		s.release(c)
		s.settle()
	}
	checkChunks(t, s.takes(9), "3")
}

func TestChunkQueueServesInTheOrderOfAsking(t *testing.T) {
	s := roomFor(100)
	l := s.sender()
	var first, second, third, gone sink
	s.demand(&first)
	s.demand(&second)
	cancelled := s.demand(&gone)
	s.demand(&first)
	s.demand(&third)
	s.demands.Remove(cancelled)
	s.sends(l, "1", "2", "3", "4", "5", "6")
	checkChunks(t, first.chunks, "1", "3")
	checkChunks(t, second.chunks, "2")
	checkChunks(t, third.chunks, "4")
	checkChunks(t, gone.chunks)
	s.demand(&second) // there is one already
	checkChunks(t, second.chunks, "2", "5")
	if s.count != 6 || s.demands.Len() != 0 {
		t.Errorf("%d chunks, %d demands; what was handed out counts until it is released", s.count, s.demands.Len())
	}
}

func TestChunkQueueGoesOnAsSoonAsThereIsRoom(t *testing.T) {
	s := roomFor(1)
	a, b := s.sender(), s.sender()
	var k sink
	s.sends(a, "a1")
	s.sends(b, "b1")
	s.demand(&k)
	s.demand(&k)
	checkChunks(t, k.chunks, "a1")
	s.release(k.raw[0])
	s.settle()
	checkChunks(t, k.chunks, "a1", "b1")
}

func TestChunkQueueReturnsToTheFrontInOrder(t *testing.T) {
	s := roomFor(100)
	a, b := s.sender(), s.sender()
	s.sends(a, "a1", "a2", "a3")
	s.sends(b, "b1")
	one, two, three := s.next(), s.next(), s.next() // a1 b1 a2
	s.putBack([]*job{two, three}, 0)
	s.putBack([]*job{one}, 0)
	if s.count != 4 {
		t.Errorf("%d chunks", s.count)
	}
	checkSums(t, s)
	var k sink
	s.demand(&k)
	checkChunks(t, k.chunks, "a1")
	s.release(k.raw[0])
	checkChunks(t, s.takes(9), "b1", "a2", "a3")

	s.sends(a, "x")
	x := s.next()
	s.demand(&k)
	s.demand(&k)
	s.putBack([]*job{x}, 0)
	checkChunks(t, k.chunks, "a1", "x") // at once
}

func TestChunkQueueWithdraws(t *testing.T) {
	s := roomFor(1)
	a, b := s.sender(), s.sender()
	s.sends(a, "a1", "a2", "a3")
	s.sends(b, "b1")
	s.withdraw(&a.senderQueue) // a3; a2 still has its turn
	if a.window != leastChunk || a.unsure != leastChunk || a.pushed != 2 {
		t.Fatalf("%d in the window, %d unsure, %d pushed", a.window, a.unsure, a.pushed)
	}
	checkChunks(t, s.takes(1), "a1")
	s.sends(a, "a4")
	checkChunks(t, s.takes(1), "a2")
	s.withdraw(&a.senderQueue) // a4, which was all that it waited with
	checkChunks(t, s.takes(9), "b1")
	s.sends(a, "a5")
	checkChunks(t, s.takes(9), "a5")
	checkSums(t, s)
	if s.full.len() != 0 {
		t.Error("somebody waits")
	}
}

func TestChunkQueueKeepsWhatItTookOfASenderThatLeft(t *testing.T) {
	s := roomFor(3)
	a, b := s.sender(), s.sender()
	s.sends(a, "a1", "a2", "a3", "a4", "a5")
	s.sends(b, "b1", "b2")
	s.detach(&a.senderQueue)
	if a.window != 0 || a.unsure != 0 || a.line.len() != 3 || a.place != nil {
		t.Errorf("%d in the window, %d unsure, %d chunks, attached %v", a.window, a.unsure, a.line.len(), a.place != nil)
	}
	checkChunks(t, s.takes(9), "a1", "a2", "b1", "a3", "b2")
	checkSums(t, s)
	s.detach(&b.senderQueue) // which has nothing
	if !s.unused() || s.full.len() != 0 || s.ready.len() != 0 {
		t.Error("something is left")
	}
}

// Whoever leaves may be the one whose turn it is.
func TestChunkQueueGoesOnWithoutASenderThatLeft(t *testing.T) {
	s := roomFor(3)
	a, b := s.sender(), s.sender()
	s.sends(b, "b1", "b2")
	s.push(&a.senderQueue, make([]byte, 3*leastChunk))
	s.sends(b, "b3")
	if b.settled != 2 {
		t.Fatalf("%d taken", b.settled)
	}
	s.detach(&a.senderQueue)
	if b.settled != 3 {
		t.Error("the next sender is held up by one that has left")
	}
}

func TestChunkQueueOverWithWhatItHas(t *testing.T) {
	s := roomFor(2)
	a, stranger := s.sender(), s.sender()
	s.senders.Remove(stranger.place) // as those of the text interface
	stranger.place = nil
	s.sends(a, "a1", "a2", "a3", "a4")
	s.sends(stranger, "x")
	back := s.next()
	a.woken, stranger.woken = 0, 0
	s.end(cause{causeBrokerGone, "first"}, true)
	if a.woken == 0 || stranger.woken == 0 {
		t.Error("a sender was not told")
	}
	if a.unsure != 2*leastChunk || a.settled != 2 || a.line.len() != 1 || a.chunks.len() != 0 {
		t.Errorf("%d bytes unsure, %d settled, %d chunks kept; what was not taken must not count as such", a.unsure, a.settled, a.line.len())
	}
	s.putBack([]*job{back}, 0)
	var k sink
	for range 3 {
		s.demand(&k)
	}
	checkChunks(t, k.chunks, "a1", "a2")
	if k.ended != 1 {
		t.Errorf("told %d times that there is nothing, want 1", k.ended)
	}
	s.release(k.raw[0])
	s.release(k.raw[1])
	s.settle()
	checkSums(t, s)

	// Nothing has come to an end that still can be given back.
	s.hold(&job{data: sixteen("back")})
	s.putBack([]*job{{data: sixteen("back"), deliveries: 1}}, 0)
	checkChunks(t, s.takes(9), "back")
	s.end(cause{causeBrokerGone, "second"}, true)
	if s.over.text != "first" {
		t.Errorf("it is over for the reason %q", s.over.text)
	}
}

func TestChunkQueueDeleted(t *testing.T) {
	for _, shutDown := range []bool{false, true} {
		s := roomFor(4)
		a := s.sender()
		var waits sink
		s.sends(a, "a1", "a2", "a3", "a4", "a5")
		one, two := s.next(), s.next()
		s.putBack([]*job{two}, 0)
		if shutDown {
			s.end(cause{code: causeBrokerGone}, true)
		}
		a.woken = 0
		s.end(cause{code: causeDeleted}, false)
		s.demand(&waits)
		if waits.ended != 1 || a.woken == 0 || s.available() || s.held != 0 || s.bytes != 0 || s.count != 0 {
			t.Errorf("told %d, woken %d, %d held, %d bytes, %d chunks", waits.ended, a.woken, s.held, s.bytes, s.count)
		}
		// What was on its way may still be used or come back. It is nobody's.
		out := s.out
		s.release(one)
		s.hold(one)
		s.putBack([]*job{one}, 0)
		s.drop(one)
		s.demand(&waits)
		if waits.ended != 2 || len(waits.chunks) > 0 || s.held != 0 || s.out != out {
			t.Errorf("something has come back: %+v, %d held", waits, s.held)
		}
		s.detach(&a.senderQueue)
	}
}

func TestChunkQueueDeletedTellsThoseWhoWait(t *testing.T) {
	s := roomFor(1)
	var waits, others sink
	s.demand(&waits)
	s.demand(&others)
	s.demand(&waits)
	s.end(cause{code: causeDeleted}, false)
	if waits.ended != 2 || others.ended != 1 || s.demands.Len() != 0 {
		t.Errorf("told %d and %d times, %d wait still", waits.ended, others.ended, s.demands.Len())
	}
}

func TestChunkQueueIsUnusedIdleAndDrained(t *testing.T) {
	s := roomFor(1)
	later := born.Add(time.Hour)
	check := func(what string, unused, idle, drained bool) {
		t.Helper()
		if s.unused() != unused || (s.idle(later) == time.Hour) != idle || !idle && s.idle(later) != 0 || s.drained() != drained {
			t.Errorf("%s: unused %v, idle %v, drained %v", what, s.unused(), s.idle(later), s.drained())
		}
	}
	check("nothing", true, true, true)
	s.users++
	check("a user by text", false, true, true)
	s.users--
	l := s.sender()
	check("a sender", false, false, true)
	s.sends(l, "1")
	check("a chunk", false, false, true)
	s.receives(&l.senderQueue, true)
	check("a chunk and one who wants it", false, false, false)
	s.lent++
	s.takes(1)
	check("one who reads", false, false, false)
	s.lent--
	check("one who could receive", false, false, true)
	s.detach(&l.senderQueue)
	check("nobody", true, true, true)
	var k sink
	d := s.demand(&k)
	check("a demand", true, false, true)
	s.demands.Remove(d)
	stranger := &senderQueue{wake: func() {}}
	s.push(stranger, sixteen("1"))
	check("a chunk of nobody's", true, true, true)
	s.push(stranger, sixteen("2"))
	check("a chunk that waits", true, false, true)
}

// notices counts how often a carrier was told.
type notices int

func (n *notices) changed() { *n++ }

// A client's queue takes nothing itself: the broker does.
func TestChunkQueueOfAClient(t *testing.T) {
	s := newChunkQueue("q", noLimit, noLimit, born)
	var n notices
	s.link = &n
	l := s.sender()
	s.sends(l, "1", "2")
	if n != 2 || l.settled != 0 || l.window != 2*leastChunk || s.count != 0 {
		t.Fatalf("told %d times, %d settled, %d in the window, %d chunks", n, l.settled, l.window, s.count)
	}
	l.chunks.pop()
	s.confirm(&l.senderQueue, leastChunk)
	if l.woken != 1 || l.settled != 1 || l.window != leastChunk || l.unsure != leastChunk {
		t.Errorf("woken %d times, %d settled, %d in the window", l.woken, l.settled, l.window)
	}
}

// What passes through a queue takes no memory but the chunk's, and what the queue keeps for that is
// little, however much was in it.
func TestChunkQueueUsesJobsAgain(t *testing.T) {
	s := newChunkQueue("q", 1<<20, 1<<20, time.Now())
	l := &senderQueue{wake: func() {}}
	s.attach(l)
	chunk := sixteen("x")
	pass := func(n int) {
		for range n {
			s.push(l, chunk)
		}
		for range n {
			j := s.next()
			if j == nil || string(j.data) != string(chunk) || j.deliveries != 1 {
				t.Fatalf("handed out: %+v", j)
			}
			s.release(j)
		}
	}
	pass(10)
	if n := testing.AllocsPerRun(100, func() { pass(10) }); n > 0 {
		t.Errorf("10 chunks take %v allocations", n)
	}
	if pass(1000); s.spare.len() > spareJobs || s.count != 0 {
		t.Errorf("%d jobs are kept, %d chunks are there", s.spare.len(), s.count)
	}
}
