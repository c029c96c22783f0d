package zpipes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// born is when everything begins in tests that have a clock of their own.
var born = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// mustOpen opens an end that nobody has to wake.
func mustOpen(t testing.TB, g *registry, name string, r role, window int) *pipe {
	t.Helper()
	p, why := g.open(name, r, window, nil, born)
	if why != nil {
		t.Fatalf("opening %.20q as %v: %+v", name, r, *why)
	}
	return p
}

func sortedList(g *registry, now time.Time) []PipeInfo {
	infos := g.list(now)
	slices.SortFunc(infos, func(a, b PipeInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// giveBack has an end leave its pipe.
func giveBack(g *registry, p *pipe, r role, why cause) {
	p.leave(r, why)
	g.release(p)
}

// checkRefused wants an open to be refused with that cause, and nothing else to
// happen.
func checkRefused(t *testing.T, g *registry, name string, r role, want causeCode) {
	t.Helper()
	before, list := g.stats(), sortedList(g, born)
	p, why := g.open(name, r, 0, nil, born)
	if p != nil || why == nil || why.code != want || why.text == "" {
		t.Errorf("opening %.20q as %v: %v, %+v, want a refusal for cause %d with a text", name, r, p, why, want)
	}
	before.Refused++
	if diff := cmp.Diff(before, g.stats()); diff != "" {
		t.Errorf("opening %.20q as %v changed the counters:\n%s", name, r, diff)
	}
	if diff := cmp.Diff(list, sortedList(g, born)); diff != "" {
		t.Errorf("opening %.20q as %v left a trace:\n%s", name, r, diff)
	}
}

func TestRegistryNamesOfPipes(t *testing.T) {
	g := newRegistry(10, 100, 100)
	long := strings.Repeat("n", maxString)
	for _, bad := range []string{"", "\x00", "a\x00b", long + "n"} {
		checkRefused(t, g, bad, reader, causeBadName)
		checkRefused(t, g, bad, writer, causeBadName)
	}
	met := make(map[*pipe]bool)
	for _, good := range []string{"a", " ", "ä", "\xff", "a/b", "A", long, long[1:]} {
		p := mustOpen(t, g, good, reader, 0)
		if met[p] {
			t.Errorf("%.20q is another name's pipe", good)
		}
		met[p] = true
		if mustOpen(t, g, good, writer, 0) != p {
			t.Errorf("the reader and the writer of %.20q are not on one pipe", good)
		}
	}
}

func TestRegistryPipeHasOneReaderAndOneWriter(t *testing.T) {
	g := newRegistry(10, 100, 100)
	for _, r := range []role{writer, reader} {
		mustOpen(t, g, "p", r, 0)
		checkRefused(t, g, "p", r, causeBusy)
	}
}

func TestRegistrySetsUpPipes(t *testing.T) {
	g := newRegistry(10, 123, 100)
	p := mustOpen(t, g, "p", reader, 45)
	if p.limit != 123 || p.window != 0 {
		t.Errorf("limit %d and, for a reader, window %d", p.limit, p.window)
	}
	if mustOpen(t, g, "p", writer, 45); p.window != 45 {
		t.Errorf("the writer has a window of %d", p.window)
	}
}

// The name is free as soon as one end has left, and the end that stays keeps
// what it has.
func TestRegistryNameIsFreeOnceAnEndHasLeft(t *testing.T) {
	for _, stays := range []role{reader, writer} {
		g := newRegistry(10, 100, 100)
		old := mustOpen(t, g, "p", reader, 100)
		mustOpen(t, g, "p", writer, 100)
		giveBack(g, old, 1-stays, cause{})
		fresh := mustOpen(t, g, "p", stays, 100)
		if fresh == old {
			t.Fatalf("the second %v is on the first one's pipe", stays)
		}
		// That the end which stayed leaves is nothing to the new pipe.
		giveBack(g, old, stays, cause{})
		if mustOpen(t, g, "p", 1-stays, 100) != fresh {
			t.Errorf("the new pipe lost its name when the old %v left", stays)
		}
		if deadOf(g) != 0 || len(g.pipes()) != 1 {
			t.Errorf("%d pipes and %d dead ones, want 1 and 0", len(g.pipes()), deadOf(g))
		}
	}
}

// Between the moment at which an end leaves and the one at which the registry
// hears of it, somebody else may come.
func TestRegistryNameOfAPipeThatIsJustEnding(t *testing.T) {
	g := newRegistry(1, 100, 100)
	old := mustOpen(t, g, "p", writer, 100)
	old.write(make([]byte, 9))
	old.leave(writer, cause{})
	fresh := mustOpen(t, g, "p", writer, 100)
	if fresh == old {
		t.Fatal("the new writer is on a dead pipe")
	}
	g.release(old)
	if g.pipes()["p"] != fresh || deadOf(g) != 0 {
		t.Error("the new pipe lost its name when the old one was given back")
	}
	if got := g.stats().BytesIn; got != 9 {
		t.Errorf("the old pipe's 9 bytes were counted as %d", got)
	}
}

func TestRegistryMaxPipesCountsWhatAnEndHolds(t *testing.T) {
	g := newRegistry(2, 100, 100)
	held := mustOpen(t, g, "held", reader, 0)
	mustOpen(t, g, "held", writer, 0)
	other := mustOpen(t, g, "other", reader, 0)
	checkRefused(t, g, "third", reader, causeTooMany)
	mustOpen(t, g, "other", writer, 0) // brings no pipe into being

	giveBack(g, held, writer, cause{})
	checkRefused(t, g, "third", reader, causeTooMany)
	checkRefused(t, g, "held", writer, causeTooMany)
	giveBack(g, held, reader, cause{})
	third := mustOpen(t, g, "third", reader, 0)
	checkRefused(t, g, "held", writer, causeTooMany)

	giveBack(g, third, reader, cause{})
	giveBack(g, other, reader, cause{})
	giveBack(g, other, writer, cause{})
	if len(g.allPipes()) != 0 {
		t.Errorf("%d pipes and %d dead ones are left", len(g.pipes()), deadOf(g))
	}
}

// emptied says whether empty is closed.
func (g *registry) emptied() bool {
	select {
	case <-g.empty:
		return true
	default:
		return false
	}
}

func TestRegistryClosedWaitsForItsReaders(t *testing.T) {
	g := newRegistry(10, 100, 100)
	var wakes woken
	both, why := g.open("both", reader, 0, wakes.count(reader), born)
	if why != nil {
		t.Fatal(*why)
	}
	mustOpen(t, g, "both", writer, 100)
	both.write([]byte("to be read"))
	noReader := mustOpen(t, g, "no reader", writer, 100)
	noWriter := mustOpen(t, g, "no writer", reader, 0)
	dead := mustOpen(t, g, "dead", reader, 0)
	mustOpen(t, g, "dead", writer, 0)
	giveBack(g, dead, writer, cause{})

	gone := cause{causeBrokerGone, "it is shutting down"}
	if err := g.refusal(); err != nil {
		t.Errorf("refused before it is closed: %v", err)
	}
	g.close(gone, false)
	g.close(gone, false)
	if err := g.refusal(); err == nil || err.Error() != gone.openError().Error() {
		t.Errorf("opens are refused with %v", err)
	}
	checkRefused(t, g, "new", reader, causeBrokerGone)
	checkRefused(t, g, "no reader", reader, causeBrokerGone)
	if wakes[reader] == 0 {
		t.Error("the reader was not woken")
	}
	for _, p := range []*pipe{both, noReader} {
		if got, want := fmt.Sprint(p.writeError()), fmt.Sprint(gone.writeError()); got != want {
			t.Errorf("%s: a writer meets %s, want %s", p.name, got, want)
		}
	}
	if err := both.readError(); err != nil {
		t.Errorf("a reader that has bytes to read meets %v", err)
	}
	both.read(make([]byte, 100))
	for _, p := range []*pipe{both, noWriter} {
		if got, want := fmt.Sprint(p.readError()), fmt.Sprint(gone.readError()); got != want {
			t.Errorf("%s: a reader meets %s, want %s", p.name, got, want)
		}
	}

	for _, end := range []struct {
		p *pipe
		r role
	}{{both, reader}, {noWriter, reader}, {noReader, writer}, {both, writer}, {dead, reader}} {
		if g.emptied() {
			t.Fatalf("empty before the %v of %q has left", end.r, end.p.name)
		}
		giveBack(g, end.p, end.r, cause{})
	}
	if !g.emptied() {
		t.Error("not empty when the last reader has left")
	}
	if len(g.allPipes()) != 0 {
		t.Errorf("%d pipes and %d dead ones are left", len(g.pipes()), deadOf(g))
	}
	giveBack(g, both, reader, cause{}) // a second time
}

func TestRegistryClosedEndsAll(t *testing.T) {
	g := newRegistry(10, 100, 100)
	p := mustOpen(t, g, "p", reader, 0)
	mustOpen(t, g, "p", writer, 100)
	p.write([]byte("nobody's any more"))
	g.close(cause{causeBrokerGone, "shutdown"}, false)
	g.close(cause{causeBrokerGone, "closed"}, true)
	if p.readError() == nil || p.writeError() == nil || p.readable() != 0 {
		t.Errorf("reader %v, writer %v, %d bytes", p.readError(), p.writeError(), p.readable())
	}
	if !g.emptied() {
		t.Error("not empty though all readers were ended")
	}
	_, why := g.open("p", reader, 0, nil, born)
	if why == nil || why.text != "closed" {
		t.Errorf("an open is refused with %+v", why)
	}
}

func TestRegistryWithoutPipesIsEmptyWhenClosed(t *testing.T) {
	g := newRegistry(10, 100, 100)
	giveBack(g, mustOpen(t, g, "r", reader, 0), reader, cause{})
	mustOpen(t, g, "w", writer, 0)
	if g.emptied() {
		t.Error("empty before it is closed")
	}
	g.close(cause{code: causeBrokerGone}, false)
	if !g.emptied() {
		t.Error("not empty without a reader")
	}
}

func TestRegistryStatsAndList(t *testing.T) {
	g := newRegistry(10, 100, 100)
	p := mustOpen(t, g, "p", reader, 0)
	mustOpen(t, g, "p", writer, 100)
	p.write(make([]byte, 120))
	p.read(make([]byte, 30))
	waits, why := g.open("waits", writer, 100, nil, born.Add(time.Minute))
	if why != nil {
		t.Fatal(*why)
	}
	waits.write(make([]byte, 7))
	dead := mustOpen(t, g, "dead", reader, 0)
	mustOpen(t, g, "dead", writer, 100)
	dead.write(make([]byte, 50))
	giveBack(g, dead, writer, cause{})
	dead.read(make([]byte, 20))
	past := mustOpen(t, g, "past", reader, 0)
	mustOpen(t, g, "past", writer, 100)
	past.write(make([]byte, 1000))
	past.read(make([]byte, 100))
	giveBack(g, past, reader, cause{})
	giveBack(g, past, writer, cause{})
	checkRefused(t, g, "p", reader, causeBusy)
	g.clients.Add(3)
	g.expired.Add(4)
	g.violations.Add(5)
	// It is over, but the registry has not heard of it yet.
	ending := mustOpen(t, g, "ending", reader, 0)
	ending.leave(reader, cause{})

	if diff := cmp.Diff([]PipeInfo{
		{Name: "p", Reader: true, Writer: true, Queued: 90, BytesIn: 120, BytesOut: 30, Age: time.Hour},
		{Name: "waits", Writer: true, Writes: true, Queued: 7, BytesIn: 7, Age: 59 * time.Minute},
	}, sortedList(g, born.Add(time.Hour))); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	g.release(ending)
	if diff := cmp.Diff(BrokerStats{
		Pipes: 2, Clients: 3, Opened: 8, Refused: 1, Expired: 4, Violations: 5,
		BytesIn: 120 + 7 + 50 + 1000, BytesOut: 30 + 20 + 100,
	}, g.stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestRegistryListShowsWhoWaits(t *testing.T) {
	g := newRegistry(10, 100, 100)
	empty, _ := mustEnter(t, g, "empty", born)
	empty.demand(new(sink))
	full, l := mustEnter(t, g, "full", born)
	full.push(l, make([]byte, 100))
	full.push(l, make([]byte, 1))
	mustOpen(t, g, "read", reader, 0).await(reader, 1)
	mustOpen(t, g, "written", writer, 0).await(writer, 1)
	mustOpen(t, g, "calm", writer, 0)
	if diff := cmp.Diff([]PipeInfo{
		{Name: "calm", Writer: true},
		{Name: "empty", Mode: ModeQueue, Users: 1, Reads: true},
		{Name: "full", Mode: ModeQueue, Users: 1, Writes: true, Queued: 100, Chunks: 1, BytesIn: 100},
		{Name: "read", Reader: true, Reads: true},
		{Name: "written", Writer: true, Writes: true},
	}, sortedList(g, born)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

// mustEnter opens a queue for somebody who does not have to be told anything.
func mustEnter(t testing.TB, g *registry, name string, now time.Time) (*chunkQueue, *senderQueue) {
	t.Helper()
	l := &senderQueue{wake: func() {}}
	s, why := g.enter(name, l, true, now)
	if why != nil {
		t.Fatalf("entering %.20q: %+v", name, *why)
	}
	return s, l
}

func noCause(*chunkQueue) *cause { return nil }

func TestRegistryQueuesAndStreamsShareTheirNames(t *testing.T) {
	g := newRegistry(10, 100, 50)
	stream := mustOpen(t, g, "stream", writer, 10)
	s, l := mustEnter(t, g, "queue", born)
	if s.limit != 100 || s.largest != 50 || s.name != "queue" {
		t.Errorf("%q takes %d bytes, and %d at once", s.name, s.limit, s.largest)
	}
	before := g.stats()
	if _, why := g.open("queue", reader, 0, nil, born); why == nil || why.code != causeMode || g.stats() != before {
		t.Errorf("a queue opened as a stream: %+v, which may not count yet", why)
	}
	refused := func(name string, create bool, want causeCode) {
		t.Helper()
		if s, why := g.enter(name, new(senderQueue), create, born); s != nil || why == nil || why.code != want {
			t.Errorf("entering %.20q: %v, %+v, want cause %d", name, s, why, want)
		}
	}
	refused("stream", true, causeMode)
	refused("stream", false, causeMode)
	refused("none", false, causeNoQueue)
	refused("", true, causeBadName)
	if got := g.stats(); got.Refused != 4 || got.Opened != 2 {
		t.Errorf("%d opened and %d refused, want 2 and 4", got.Opened, got.Refused)
	}

	// Queues stay, and streams make room for them.
	g.exit(s, l, born)
	if again, _ := mustEnter(t, g, "queue", born); again != s {
		t.Error("not the same queue again")
	}
	stream.leave(writer, cause{}) // the registry has not heard of it yet
	mustEnter(t, g, "stream", born)
	g.release(stream)
	if len(g.queues()) != 2 || len(g.allPipes()) != 0 {
		t.Errorf("%d queues, %d pipes, %d dead", len(g.queues()), len(g.pipes()), deadOf(g))
	}
	if why := g.delete("queue", born); why != nil {
		t.Error(*why)
	}
	mustOpen(t, g, "queue", reader, 0)
}

func TestRegistryQueuesCountAsPipes(t *testing.T) {
	g := newRegistry(2, 100, 100)
	s, l := mustEnter(t, g, "q", born)
	p := mustOpen(t, g, "p", reader, 0)
	checkRefused(t, g, "new", reader, causeTooMany)
	if _, why := g.enter("new", new(senderQueue), true, born); why == nil || why.code != causeTooMany {
		t.Errorf("a third one: %+v", why)
	}
	mustEnter(t, g, "q", born) // brings no queue into being
	g.exit(s, l, born)
	checkRefused(t, g, "new", reader, causeTooMany)
	if why := g.delete("q", born); why != nil {
		t.Fatal(*why)
	}
	mustOpen(t, g, "new", reader, 0)
	giveBack(g, p, reader, cause{})
	mustEnter(t, g, "q", born)
}

func TestRegistryForgetDeletesQueuesThatNobodyUses(t *testing.T) {
	g := newRegistry(10, 2*leastChunk, 100)
	at := func(minutes int) time.Time { return born.Add(time.Duration(minutes) * time.Minute) }
	forgets := func(now time.Time, want ...string) {
		t.Helper()
		got := forgetAll(g, time.Hour, now)
		slices.Sort(got)
		checkChunks(t, got, want...)
	}
	open, _ := mustEnter(t, g, "open", born)
	left, l := mustEnter(t, g, "left", born)
	left.push(l, []byte("nobody's"))
	text := g.use("text", true, born, func(s *chunkQueue) *cause {
		s.users++
		return nil
	})
	waited := g.use("waited for", true, born, noCause)
	full := g.use("full", true, born, func(s *chunkQueue) *cause {
		stranger := &senderQueue{wake: func() {}}
		for range 3 {
			s.push(stranger, []byte("x"))
		}
		return nil
	})
	if text != nil || waited != nil || full != nil {
		t.Fatal(text, waited, full)
	}
	var k sink
	d := g.queues()["waited for"].demand(&k)
	g.exit(left, l, at(30))
	forgets(at(59))
	if why := g.use("text", false, at(20), noCause); why != nil {
		t.Fatal(*why)
	}
	forgets(at(79))
	forgets(at(80), "text") // though it was never closed
	forgets(at(89))
	forgets(at(90), "left")
	if left.over == nil || left.count != 0 {
		t.Errorf("over %v, with %d chunks", left.over, left.count)
	}
	g.queues()["waited for"].demands.Remove(d)
	forgets(at(100), "waited for")
	g.queues()["full"].takes(1)
	forgets(at(100), "full")
	forgets(at(100000))
	if len(g.queues()) != 1 || open.over != nil {
		t.Errorf("%d queues, over %v", len(g.queues()), open.over)
	}
	if got := g.stats(); got.BytesIn != 8+3 || got.BytesOut != 1 {
		t.Errorf("%d bytes in, %d out, with those of queues that are gone", got.BytesIn, got.BytesOut)
	}
}

func TestRegistryClosedWaitsForItsReceivers(t *testing.T) {
	gone := cause{causeBrokerGone, "it is shutting down"}
	for name, end := range map[string]func(g *registry, s *chunkQueue, l *senderQueue){
		"it leaves":   func(g *registry, s *chunkQueue, l *senderQueue) { g.exit(s, l, born) },
		"it was told": func(g *registry, s *chunkQueue, l *senderQueue) { g.noteNotified(s, l) },
	} {
		g := newRegistry(10, 100, 100)
		s, l := mustEnter(t, g, "q", born)
		_, sends := mustEnter(t, g, "q", born)
		mustEnter(t, g, "no chunks", born)
		s.receives(l, true)
		s.push(sends, []byte("x"))
		g.noteNotified(s, sends)
		g.close(gone, false)
		if _, why := g.enter("q", new(senderQueue), true, born); why == nil || why.code != causeBrokerGone {
			t.Errorf("entered a closed registry: %+v", why)
		}
		g.noteNotified(s, sends)
		if g.emptied() || s.count != 1 {
			t.Fatalf("%s: empty while somebody receives, with %d chunks", name, s.count)
		}
		if end(g, s, l); !g.emptied() {
			t.Errorf("%s: not empty", name)
		}
		g.exit(s, sends, born) // a second time
		g.close(gone, true)
		if s.count != 0 {
			t.Errorf("%s: %d chunks in the end", name, s.count)
		}
	}
}

// A queue that was only waited for goes with the last who did; any other stays.
func TestRegistryQueueThatWasWaitedForInVain(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		what  string
		stays bool
		use   func(g *registry, s *chunkQueue, l *senderQueue)
	}{
		{"waited for", false, func(_ *registry, s *chunkQueue, l *senderQueue) { s.receives(l, true) }},
		{"opened", true, func(*registry, *chunkQueue, *senderQueue) {}},
		{"sent to", true, func(_ *registry, s *chunkQueue, l *senderQueue) { s.receives(l, true); s.push(l, []byte("x")) }},
		{"sent an empty chunk, which was received", true, func(_ *registry, s *chunkQueue, l *senderQueue) {
			s.receives(l, true)
			s.push(l, nil)
			s.release(s.next())
		}},
		{"opened by text", true, func(g *registry, s *chunkQueue, l *senderQueue) { s.receives(l, true); s.users++ }},
		{"waited for by text", true, func(_ *registry, s *chunkQueue, l *senderQueue) { s.receives(l, true); s.demands.PushBack(nil) }},
	} {
		g := newRegistry(2, 100, 100)
		l, other := &senderQueue{wake: func() {}}, &senderQueue{wake: func() {}}
		s, why := g.enter("q", l, true, now)
		if why != nil {
			t.Fatal(why)
		}
		g.enter("q", other, true, now)
		s.mu.Lock()
		c.use(g, s, l)
		s.mu.Unlock()
		g.exit(s, l, now)
		if g.queues()["q"] == nil {
			t.Errorf("one that was %s is gone while somebody has it open", c.what)
		}
		g.exit(s, other, now)
		if stays := g.queues()["q"] != nil; stays != c.stays {
			t.Errorf("one that was %s stays: %v", c.what, stays)
		}
	}
}

func TestRegistryStatsAndListOfQueues(t *testing.T) {
	g := newRegistry(10, 1000, 1000)
	s, l := mustEnter(t, g, "q", born)
	_, second := mustEnter(t, g, "q", born)
	s.users = 3
	s.push(l, make([]byte, 20))
	s.push(l, make([]byte, 3))
	s.push(second, make([]byte, 100))
	if got := s.takes(1); len(got) != 1 {
		t.Fatal(got)
	}
	s.next() // is on its way
	idle, third := mustEnter(t, g, "idle", born.Add(time.Minute))
	g.exit(idle, third, born.Add(2*time.Minute))
	deleted, _ := mustEnter(t, g, "deleted", born)
	deleted.push(l, make([]byte, 7))
	if why := g.delete("deleted", born); why != nil {
		t.Fatal(*why)
	}
	if diff := cmp.Diff([]PipeInfo{
		{Name: "idle", Mode: ModeQueue, Age: 59 * time.Minute, Idle: 58 * time.Minute},
		{Name: "q", Mode: ModeQueue, Users: 5, Queued: 103, Chunks: 2, Taken: 1, Handed: 2, Oldest: time.Hour,
			BytesIn: 123, BytesOut: 20, Age: time.Hour},
	}, sortedList(g, born.Add(time.Hour))); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(BrokerStats{Pipes: 2, Opened: 4, BytesIn: 123 + 7, BytesOut: 20}, g.stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestRegistryQueuesAreOpenOnlySoOften(t *testing.T) {
	g := newRegistry(2, 100, 100)
	enter := func(name string) (*chunkQueue, *senderQueue, *cause) {
		l := &senderQueue{wake: func() {}}
		s, why := g.enter(name, l, true, born)
		return s, l, why
	}
	s, l, _ := enter("q")
	if _, _, why := enter("q"); why != nil {
		t.Fatal(why)
	}
	for _, name := range []string{"q", "new"} {
		if _, _, why := enter(name); why == nil || why.code != causeTooMany {
			t.Errorf("a third one on %q: %v", name, why)
		}
	}
	if g.queues()["new"] != nil {
		t.Error("a queue that could not be opened is left")
	}
	g.exit(s, l, born)
	if _, _, why := enter("q"); why != nil {
		t.Errorf("after one that left: %v", why)
	}
}
