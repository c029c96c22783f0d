package zpipes

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// reads is a round of a stream whose other end is at another broker: as much is written as there is
// room for, and read, within that time.
func (ms *meetingStage) reads(w, r *line, room int, within time.Duration) (more int) {
	ms.t.Helper()
	p := ms.stage.pipes.pipes()["p"]
	for range 4 {
		w.write(strings.Repeat("x", room/4), 0).skip()
		r.read(uint32(room/4), 0).skip()
		ms.pass(within / 4)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// There is more room for a writer at another broker as long as its reader reads as much in a round
// trip, and less when it does not.
func TestFarWriterGetsMoreRoom(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	const trip = 80 * time.Millisecond
	f := ms.fellow()
	f.session.trip = new(atomic.Int64)
	w := f.on(1).attach("p", ms.tokens("p")[reader], 7).gets("TAKEN 0, 1000").show()
	if got := ms.reads(w, r, 1000, trip); got != 1000 {
		t.Errorf("a limit of %d while it is not known how far the writer is", got)
	}
	f.session.trip.Store(int64(trip))
	ms.reads(w, r, 1000, trip)
	w.write(strings.Repeat("x", 4), 0).skip()
	r.read(4, 0).skip()
	if got := ms.reads(w, r, 1000, trip); got != 2000 {
		t.Errorf("a limit of %d", got)
	}
	for range 5 {
		ms.reads(w, r, ms.stage.pipes.pipes()["p"].limit/2, trip)
	}
	grown := ms.stage.pipes.pipes()["p"].limit
	if grown < 8000 || ms.stage.pipes.widened.bytes.Load() != int64(grown-1000) {
		t.Errorf("a limit of %d, and %d for all", grown, ms.stage.pipes.widened.bytes.Load())
	}
	w.write("x", 0).skip()
	w.heard = nil
	w.write("x", 0)
	if len(w.heard) != 1 {
		t.Fatalf("%d answers", len(w.heard))
	}
	if m, _ := parse(w.heard[0]); int(m.count) < grown/2 {
		t.Errorf("the writer's broker hears of room for %d, of %d", m.count, grown)
	}
	w.skip()
	r.read(2, 0).skip()
	for range 3 { // slower
		ms.reads(w, r, 100, 4*trip)
	}
	if got := ms.stage.pipes.pipes()["p"].limit; got != 1000 {
		t.Errorf("a limit of %d of one that is slow now", got)
	}
	for range 8 {
		ms.reads(w, r, ms.stage.pipes.pipes()["p"].limit, trip)
	}
	w.close().skip()
	ms.leavesNothing()
	if got := ms.stage.pipes.widened.bytes.Load(); got != 0 {
		t.Errorf("%d bytes are left", got)
	}
}

// All pipes of a broker together take no more than that.
func TestFarWritersShareTheRoom(t *testing.T) {
	ms := newMeetingStage(t)
	ms.stage.pipes.widened.bytes.Store(mostWidened - 500)
	ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	p := ms.stage.pipes.pipes()["p"]
	p.mu.Lock()
	p.widen(2000)
	few := p.limit
	p.widen(1400)
	p.mu.Unlock()
	if few != 1000 || p.limit != 1400 {
		t.Errorf("limits of %d and %d", few, p.limit)
	}
	ms.leavesNothing()
	if got := ms.stage.pipes.widened.bytes.Load(); got != mostWidened-500 {
		t.Errorf("%d bytes are left", got-mostWidened+500)
	}
}

// A WRITE larger than there ever is room for is taken when nothing is before it, however much room
// the reader's broker once had.
func TestRelayOfALargeWrite(t *testing.T) {
	ms := newMeetingStage(t)
	l := ms.base().output("p").gets("OUTPUT_OK")
	way := ms.matched("p")
	ms.taken(way, 0, 900, true) // its reader waits for much
	l.write("abc", 0)
	ms.sends(way, "abc")
	ms.taken(way, 3, 0, false)
	l.gets("WRITE_OK")
	l.write(strings.Repeat("x", 500), 0).waits()
	ms.taken(way, 3, 100, false)
	ms.sends(way, strings.Repeat("x", 100))
	ms.taken(way, 103, 400, false)
	ms.sends(way, strings.Repeat("x", 400))
	ms.taken(way, 503, 0, false)
	l.gets("WRITE_OK")
	l.close()
	way.relay.finished(way, cause{})
	ms.turns()
	l.gets("CLOSE_OK")
	ms.leavesNothing()
}

// A client may send what it was told that there is room for, also where the reader's broker has less when the
// stream goes on.
func TestRelayOfAClientThatWasToldOfMuchRoom(t *testing.T) {
	t.Parallel()
	ms := newMeetingStage(t)
	l := ms.modern().on(1).output("p").gets("OUTPUT_OK")
	way := ms.matched("p")
	const much = 4 << 20
	ms.taken(way, 0, much, true)
	l.write("abc", 0)
	ms.sends(way, "abc")
	ms.taken(way, 3, much, false)
	if m, _ := parse(l.heard[0]); m.id != msgWriteOK || m.count != much {
		t.Errorf("%v, room for %d", m.id, m.count)
	}
	l.gets("WRITE_OK")
	way.relay.lost(way, ms.now)
	next := ms.ways[len(ms.ways)-1]
	next.relay.found(next, nil, ms.now)
	ms.taken(next, 3, 1000, true)
	l.write("def", 0)
	ms.sends(next, "def")
	ms.taken(next, 6, 1000, false)
	l.gets("WRITE_OK") // of less, while what was allowed is on its way
	chunk := strings.Repeat("x", ms.stage.pipes.maxMessage)
	for range min((much-3)/len(chunk), maxQueued-1) {
		l.write(chunk, 0)
	}
	l.waits()
	if ms.violations != nil {
		t.Errorf("%q", ms.violations)
	}
	ms.leavesNothing()
}
