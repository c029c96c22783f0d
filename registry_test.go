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

func TestNamesOfPipes(t *testing.T) {
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

func TestPipeHasOneReaderAndOneWriter(t *testing.T) {
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
func TestNameIsFreeOnceAnEndHasLeft(t *testing.T) {
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
		if len(g.dead) != 0 || len(g.pipes) != 1 {
			t.Errorf("%d pipes and %d dead ones, want 1 and 0", len(g.pipes), len(g.dead))
		}
	}
}

// Between the moment at which an end leaves and the one at which the registry
// hears of it, somebody else may come.
func TestNameOfAPipeThatIsJustEnding(t *testing.T) {
	g := newRegistry(1, 100, 100)
	old := mustOpen(t, g, "p", writer, 100)
	old.write(make([]byte, 9))
	old.leave(writer, cause{})
	fresh := mustOpen(t, g, "p", writer, 100)
	if fresh == old {
		t.Fatal("the new writer is on a dead pipe")
	}
	g.release(old)
	if g.pipes["p"] != fresh || len(g.dead) != 0 {
		t.Error("the new pipe lost its name when the old one was given back")
	}
	if got := g.stats().BytesIn; got != 9 {
		t.Errorf("the old pipe's 9 bytes were counted as %d", got)
	}
}

func TestMaxPipesCountsWhatAnEndHolds(t *testing.T) {
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
	if len(g.pipes)+len(g.dead) != 0 {
		t.Errorf("%d pipes and %d dead ones are left", len(g.pipes), len(g.dead))
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

func TestClosedRegistryWaitsForItsReaders(t *testing.T) {
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
	if len(g.pipes)+len(g.dead) != 0 {
		t.Errorf("%d pipes and %d dead ones are left", len(g.pipes), len(g.dead))
	}
	giveBack(g, both, reader, cause{}) // a second time
}

func TestClosedRegistryEndsAll(t *testing.T) {
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

func TestStatsAndList(t *testing.T) {
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
		{Name: "waits", Writer: true, Queued: 7, BytesIn: 7, Age: 59 * time.Minute},
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
