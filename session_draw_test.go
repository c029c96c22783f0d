package zpipes

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
)

// A drawnStage has a broadcast whose writer has a ring, and no reader yet.
type drawnStage struct {
	*stage
	w      *line
	ring   *stageRing
	writer *ring.Writer
	lapse  func() // ends the patience; nil: it does not run
}

var drawOffer = fmt.Sprintf("OFFER of %d, 0", stageWindow)

func newDrawnStage(t *testing.T, cfg broadcastConfig) *drawnStage {
	st := &drawnStage{stage: newStage(t)}
	st.rings = &stageRings{atOnce: true}
	st.pipes.later = func(_ time.Duration, f func()) func() {
		st.lapse = f
		return func() { st.lapse = nil }
	}
	st.w = st.near().on(1).cast("p", cfg).gets("OUTPUT_OK").show()
	st.w.casts("first").gets("WRITE_OK", drawOffer).move(moveInto, 0).gets("MOVED into 0")
	st.ring = st.rings.made[0]
	st.writer = st.ring.writer(t)
	return st
}

// follower is a reader that can have no ring.
func (st *stage) follower() *line {
	return st.able().on(1).input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
}

// writes has so much go into the ring, as a Write where it is marked, and says how much there
// was room for.
func (st *drawnStage) writes(what string, marked bool) int {
	st.t.Helper()
	if marked {
		st.writer.Mark()
	}
	n, err := st.writer.Write([]byte(what))
	if err != nil {
		st.t.Fatal(err)
	}
	return n
}

func (st *drawnStage) confirmed() int {
	st.t.Helper()
	n, err := st.writer.Confirmed(st.writer.Written(), 0)
	if err != nil {
		st.t.Fatal(err)
	}
	return int(n)
}

func (st *drawnStage) endsClean() {
	st.t.Helper()
	st.sawViolations(0)
	st.leavesNothing()
	(&pouredStage{stage: st.stage}).paidNothing()
}

// What comes out of the writer's ring is what WRITEs would bring, and says where Writes begin.
func TestDrawnIntoAndOut(t *testing.T) {
	st := newDrawnStage(t, broadcastConfig{})
	first := st.follower()
	st.writes("the rest of a Write", false)
	first.waits()
	st.writes("a Write", true)
	st.writes(" and more of it", false)
	first.gets(`READ_OK "a Write"`, `READ_OK " and more of it"`)
	if i := st.info("p"); i.BytesIn != 5+19+7+15 || i.Queued != 0 {
		t.Errorf("%+v", i)
	}
	p := st.pipes.pipes()["p"]
	quiet := func() {
		p.lookAtDetour(st.now, false)
		p.lookAtDetour(st.now.Add(quietTime), false)
		st.settle()
	}
	quiet()
	st.w.gets("OFFER of 0, 0")
	st.writes("not now", true) // so it does not come back
	first.gets(`READ_OK "not now"`)
	quiet()
	st.rings.atOnce = false
	st.w.gets("OFFER of 0, 0").move(moveOut, uint32(st.writer.Written())).waits()
	if !st.ring.released {
		t.Error("the ring is still held")
	}
	st.w.casts("after").gets("WRITE_OK").close().gets("CLOSE_OK")
	first.gets(`READ_OK "after"`, "READ_END")
	st.endsClean()
}

// Who comes late begins at a Write that is kept, also of those that came through the ring.
func TestDrawnKeeps(t *testing.T) {
	st := newDrawnStage(t, broadcastConfig{keep: 10})
	for _, s := range []string{"0123", "4567", "89ab", "cd"} {
		st.writes(s, true)
	}
	late := st.follower()
	late.gets(`READ_OK "456789abcd"`)
	st.w.close().gets("CLOSE_OK")
	late.gets("READ_END")
	st.endsClean()
}

// The broker takes no more of a ring than of WRITEs, and what it has not taken is not confirmed.
func TestDrawnWaits(t *testing.T) {
	st := newDrawnStage(t, broadcastConfig{patience: time.Second})
	slow := st.able().on(1).input("p").gets("INPUT_OK").show()
	data := digits(stagePending + stageWindow)
	in := 0
	st.writer.Mark()
	for in < len(data) {
		n := st.writes(data[in:], false)
		if n == 0 {
			t.Fatalf("no room after %d bytes", in)
		}
		in += n
	}
	if n := st.writes("x", true); n > 0 {
		t.Error("more than the broker and the window can have")
	}
	if n := st.confirmed(); n != stagePending {
		t.Errorf("%d bytes are confirmed, not %d", n, stagePending)
	}
	if st.lapse == nil {
		t.Fatal("nobody is impatient")
	}
	st.lapse()
	st.settle()
	if n := st.confirmed(); n != len(data) {
		t.Errorf("%d bytes are confirmed, not all", n)
	}
	slow.read(10, 0).gets(fmt.Sprintf(`READ_FAILED too slow "%d bytes missed"`, stagePending))
	st.w.close().gets("CLOSE_OK")
	st.endsClean()
}

// A writer that fills its ring as soon as there is room is not forgotten when others have had
// their turn.
func TestDrawnWithoutEnd(t *testing.T) {
	st := newDrawnStage(t, broadcastConfig{})
	left := 3 * maxBurst
	fill := func() {
		for left > 0 && st.writes("x", true) > 0 {
			left--
		}
	}
	st.writer.Limit(1)
	st.ring.rung = fill
	fill()
	st.settle()
	if n := st.confirmed(); left > 0 || n != 3*maxBurst {
		t.Errorf("%d bytes were taken, %d are left", n, left)
	}
	st.endsClean()
}

// Without the readers that it waits for, nothing is taken.
func TestDrawnAwaitsReaders(t *testing.T) {
	st := &drawnStage{stage: newStage(t)}
	st.rings = &stageRings{atOnce: true}
	st.w = st.near().on(1).cast("p", broadcastConfig{await: 1}).gets("OUTPUT_OK").show()
	r := st.follower()
	st.w.casts("first").gets("WRITE_OK", drawOffer).move(moveInto, 0).gets("MOVED into 0")
	st.writer = st.rings.made[0].writer(t)
	r.gets(`READ_OK "first"`).close().gets("READ_FAILED closed", "CLOSE_OK")
	st.writes("for the next", true)
	if n := st.confirmed(); n > 0 {
		t.Errorf("%d bytes are confirmed", n)
	}
	st.follower().gets(`READ_OK "for the next"`)
	if n := st.confirmed(); n != 12 {
		t.Errorf("%d bytes are confirmed", n)
	}
	st.endsClean()
}

// How the writer ends is told behind what was taken; what was not is gone.
func TestDrawnEnds(t *testing.T) {
	for name, test := range map[string]struct {
		leave func(w *line)
		then  string
	}{
		"vanished": {func(w *line) { w.gone() }, "READ_FAILED vanished"},
		"torn":     {func(w *line) { w.closeWith(causeAborted, "why").gets("CLOSE_OK") }, `READ_FAILED aborted "why"`},
	} {
		t.Run(name, func(t *testing.T) {
			st := newDrawnStage(t, broadcastConfig{})
			r := st.able().on(1).input("p").gets("INPUT_OK").show()
			data := digits(stagePending)
			st.writer.Mark()
			for in := 0; in < len(data); {
				in += st.writes(data[in:], false)
			}
			st.writes("not taken", true)
			test.leave(st.w)
			r.read(stagePending, 0).gets(fmt.Sprintf("READ_OK of %d", stagePending)).read(1, 0).gets(test.then)
			if !st.ring.released {
				t.Error("the ring is still held")
			}
			st.endsClean()
		})
	}
	t.Run("the broker", func(t *testing.T) {
		st := newDrawnStage(t, broadcastConfig{})
		st.pipes.close(cause{causeBrokerGone, "closing"}, true)
		st.settle()
		st.w.gets("WRITE_FAILED broker gone")
		st.writes("too late", true)
		if n := st.confirmed(); n > 0 {
			t.Errorf("%d bytes are confirmed", n)
		}
		st.endsClean()
	})
}

// A client that spoils its ring ends its broadcast, as torn, and nothing else.
func TestDrawnSpoiled(t *testing.T) {
	const told, place = 4 << 10, 4<<10 + 128
	for name, spoil := range map[string]func(at func(int) *atomic.Uint64){
		"written":          func(at func(int) *atomic.Uint64) { at(ringPlaces[0]).Store(math.MaxUint64) },
		"marks":            func(at func(int) *atomic.Uint64) { at(told).Store(math.MaxUint64) },
		"a mark before":    func(at func(int) *atomic.Uint64) { at(place + 8).Store(0) },
		"marks taken back": func(at func(int) *atomic.Uint64) { at(told).Store(0) },
	} {
		t.Run(name, func(t *testing.T) {
			st := newDrawnStage(t, broadcastConfig{})
			r := st.follower()
			st.writes("good", true)
			r.gets(`READ_OK "good"`)
			st.held = true
			st.writes("bad", true)
			spoil(func(i int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&st.ring.memory[i])) })
			st.held = false
			st.settle()
			st.w.gets(fmt.Sprintf("WRITE_FAILED aborted %q", ring.ErrBroken))
			r.gets(fmt.Sprintf("READ_FAILED aborted %q", ring.ErrBroken))
			st.sawViolations(1)
			st.leavesNothing()
		})
	}
}

func TestDrawnIsNotTaken(t *testing.T) {
	for name, f := range map[string]func(st *drawnStage){
		"refused": func(st *drawnStage) { st.w.move(moveNot, 0).casts("more").gets("WRITE_OK") },
		"left":    func(st *drawnStage) { st.w.closeWith(causeAborted, "why").gets("CLOSE_OK").move(moveInto, 0) },
		"gone":    func(st *drawnStage) { st.w.gone() },
	} {
		t.Run(name, func(t *testing.T) {
			st := &drawnStage{stage: newStage(t)}
			st.rings = &stageRings{atOnce: true}
			st.w = st.near().on(1).cast("p", broadcastConfig{}).gets("OUTPUT_OK").show()
			st.w.casts("first").gets("WRITE_OK", drawOffer)
			f(st)
			st.endsClean()
		})
	}
	// Who does not know of marks gets none.
	st := newStage(t)
	st.rings = &stageRings{atOnce: true}
	c := st.call()
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities &^ ableDraws, window: stageWindow}}).gets("PING_OK")
	c.on(1).cast("p", broadcastConfig{}).gets("OUTPUT_OK").show().casts("first").gets("WRITE_OK").waits()
	st.leavesNothing()
}

func TestDrawnViolations(t *testing.T) {
	for name, f := range map[string]func(st *drawnStage){
		"a WRITE beside the ring":   func(st *drawnStage) { st.w.casts("x") },
		"out where it does not end": func(st *drawnStage) { st.w.move(moveOut, 1) },
		"into where it is":          func(st *drawnStage) { st.w.move(moveInto, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			st := newDrawnStage(t, broadcastConfig{})
			f(st)
			st.sawViolations(1)
			st.leavesNothing()
		})
	}
}
