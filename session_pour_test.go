package zpipes

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
)

func (l *line) cast(name string, cfg broadcastConfig) *line {
	return l.send(message{id: msgOutput, text: []byte(name), mode: modeBroadcast, cast: cfg})
}

// casts is a WRITE that a Write begins.
func (l *line) casts(chunk string) *line {
	return l.send(message{id: msgWrite, chunk: []byte(chunk), begins: []byte{0}})
}

func (st *stage) follows() *line {
	return st.near().on(1).input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
}

// A pouredStage has a broadcast and a reader of it that has a ring, into which a first WRITE has
// not come.
type pouredStage struct {
	*stage
	w, r   *line
	ring   *stageRing
	reader *ring.Reader
	lapse  func() // ends the patience; nil: it does not run
}

var pourOffer = fmt.Sprintf("OFFER of %d, %d", stageWindow, stagePending)

func newPouredStage(t *testing.T, cfg broadcastConfig) *pouredStage {
	st := &pouredStage{stage: newStage(t)}
	st.rings = &stageRings{atOnce: true}
	st.pipes.later = func(_ time.Duration, f func()) func() {
		st.lapse = f
		return func() { st.lapse = nil }
	}
	st.w = st.able().on(1).cast("p", cfg).gets("OUTPUT_OK").show()
	st.r = st.follows()
	st.w.casts("first").gets("WRITE_OK")
	st.r.gets(`READ_OK "first"`, pourOffer).move(moveInto, 0).gets("MOVED into 0")
	st.ring = st.rings.made[0]
	st.reader = st.ring.reader(t)
	return st
}

// reads says that so much comes out of the ring, and is what it says.
func (st *pouredStage) reads(want string) {
	st.t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(unblocked{st.reader}, b); err != nil || string(b) != want {
		st.t.Fatalf("%q, %v; want %q", b[:n], err, want)
	}
}

// unblocked has a read of nothing be an error.
type unblocked struct{ *ring.Reader }

func (u unblocked) Read(b []byte) (int, error) {
	n, err := u.Reader.Read(b)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return n, err
}

func (st *pouredStage) branch() *pipe { return st.pipes.pipes()["p"].cast.readers[0] }

// quiet has the ring be given back.
func (st *pouredStage) quiet() {
	p := st.branch()
	p.lookAtDetour(st.now, false)
	p.lookAtDetour(st.now.Add(quietTime), false)
	st.settle()
}

// What a reader's ring has no room for waits in the broadcast, is there once, and comes in order.
func TestPouredIntoAndOut(t *testing.T) {
	st := newPouredStage(t, broadcastConfig{})
	second := st.follows()
	data := digits(1000)
	st.w.casts(data).gets("WRITE_OK")
	st.r.waits()
	second.gets(`READ_OK of 1000`, pourOffer).move(moveInto, 0).gets("MOVED into 0")
	if i := st.info("p"); i.Queued != 1000-stageWindow || i.Lag != 1000-stageWindow || i.BytesOut != 5+1000+stageWindow {
		t.Errorf("%+v", i)
	}
	st.quiet() // it is not
	st.r.waits()
	for rest := data; rest != ""; rest = rest[100:] {
		st.reads(rest[:100])
	}
	if i := st.info("p"); i.Queued != 0 || i.BytesOut != 5+2000 {
		t.Errorf("%+v", i)
	}
	st.quiet()
	st.r.gets("MOVED out 1000").waits()
	if !st.ring.released {
		t.Error("the ring is still held")
	}
	st.rings.atOnce = false
	st.w.casts("after").gets("WRITE_OK")
	st.r.gets(`READ_OK "after"`)
	st.sawViolations(0)
	st.leavesNothing()
	st.paidNothing()
}

func digits(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprint(&b, i, " ")
	}
	return b.String()[:n]
}

func (st *pouredStage) paidNothing() {
	st.t.Helper()
	for s := range st.callers {
		if n, held := s.ringsHeld.Load(), s.account.held.Load(); n != 0 || held != 0 {
			st.t.Errorf("%d rings and %d bytes are counted", n, held)
		}
	}
}

// How the writer ends is told behind all that was written, wherever that is.
func TestPouredEnds(t *testing.T) {
	for name, test := range writerLeaves {
		t.Run(name, func(t *testing.T) {
			st := newPouredStage(t, broadcastConfig{})
			data := digits(2*stageWindow + 50)
			st.w.casts(data).gets("WRITE_OK")
			test.leave(st.w)
			st.r.waits()
			st.reads(data[:stageWindow])
			st.r.waits()
			st.reads(data[stageWindow : 2*stageWindow])
			st.r.gets(fmt.Sprint("MOVED out ", len(data)), test.then)
			st.reads(data[2*stageWindow:])
			if !st.ring.released {
				t.Error("the ring is still held")
			}
			st.leavesNothing()
			st.paidNothing()
		})
	}
	t.Run("the broker", func(t *testing.T) {
		st := newPouredStage(t, broadcastConfig{})
		st.w.casts("left").gets("WRITE_OK")
		st.pipes.close(cause{causeBrokerGone, "closing"}, true)
		st.settle()
		st.r.gets("MOVED out 4", "READ_FAILED broker gone")
		st.reads("left")
		st.leavesNothing()
		st.paidNothing()
	})
	t.Run("the reader", func(t *testing.T) {
		st := newPouredStage(t, broadcastConfig{})
		st.w.casts(digits(stageWindow + 10)).gets("WRITE_OK")
		st.r.close().gets("READ_FAILED closed", "CLOSE_OK")
		if !st.ring.released {
			t.Error("the ring is still held")
		}
		st.w.casts("more").gets("WRITE_OK").close().gets("CLOSE_OK")
		st.sawViolations(0)
		st.leavesNothing()
		st.paidNothing()
	})
}

// Who is too slow reads what its ring has, and is told how much it has missed: all else.
func TestPouredTooSlow(t *testing.T) {
	st := newPouredStage(t, broadcastConfig{patience: time.Second})
	data := digits(stageWindow + stagePending)
	st.w.casts(data[:1000]).casts(data[1000:]).gets("WRITE_OK", "WRITE_OK")
	st.w.casts("one too many").waits()
	st.lapse()
	st.settle()
	st.w.gets("WRITE_OK")
	missed := stagePending
	st.r.gets("MOVED out 300", fmt.Sprintf(`READ_FAILED too slow "%d bytes missed"`, missed))
	st.reads(data[:stageWindow])
	if n, err := st.reader.Read(make([]byte, 1)); n > 0 {
		t.Error(n, err)
	}
	st.sawViolations(0)
	st.leavesNothing()
	st.paidNothing()
}

// A client that spoils its ring loses its own reader, and nothing else.
func TestPouredSpoiled(t *testing.T) {
	st := newPouredStage(t, broadcastConfig{})
	good := st.follows()
	st.w.casts("x").gets("WRITE_OK")
	good.gets(`READ_OK "x"`, pourOffer).move(moveInto, 0).gets("MOVED into 0")
	(*atomic.Uint64)(unsafe.Pointer(&st.ring.memory[ringPlaces[2]])).Store(math.MaxUint64)
	st.w.casts(digits(stageWindow)).gets("WRITE_OK")
	st.sawViolations(1)
	st.r.gets("MOVED out 1", fmt.Sprintf("READ_FAILED aborted %q", ring.ErrBroken))
	if got, err := st.rings.made[1].reader(t).Read(make([]byte, 2*stageWindow)); got != stageWindow || err != nil {
		t.Errorf("the other reader has %d bytes, %v", got, err)
	}
	st.leavesNothing()
	st.paidNothing()
}

// Who does not take the ring goes on with messages, and leaves no trace of it.
func TestPouredIsNotTaken(t *testing.T) {
	for name, f := range map[string]func(st *pouredStage){
		"refused": func(st *pouredStage) {
			st.r.move(moveNot, 0).waits()
			st.w.casts("more").gets("WRITE_OK")
			st.r.gets(`READ_OK "more"`)
		},
		"the reader leaves": func(st *pouredStage) { st.r.close().gets("READ_FAILED closed", "CLOSE_OK").move(moveInto, 0) },
		"the writer leaves": func(st *pouredStage) {
			st.w.close().gets("CLOSE_OK")
			st.r.gets("READ_END").move(moveInto, 0).gets("MOVED out 0").waits()
		},
		"not answered": func(st *pouredStage) {
			st.branch().lookAtDetour(st.now.Add(quietTime), false)
			st.r.move(moveInto, 0).gets("MOVED out 0").waits()
		},
		"it has too many": func(st *pouredStage) {
			st.r.move(moveNot, 0)
			r := st.near().on(1)
			r.session.ringsHeld.Store(mostRings)
			r.input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
			st.w.casts("more").gets("WRITE_OK")
			r.gets(`READ_OK "more"`)
			st.r.gets(`READ_OK "more"`)
			r.session.ringsHeld.Store(0)
		},
		"it has no room": func(st *pouredStage) {
			st.r.move(moveNot, 0)
			r := st.near().on(1)
			r.session.account.limits.Pending = 2*stageWindow - 1
			r.input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
			st.w.casts("more").gets("WRITE_OK")
			r.gets(`READ_OK "more"`)
			st.r.gets(`READ_OK "more"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := &pouredStage{stage: newStage(t)}
			st.rings = &stageRings{atOnce: true}
			st.w = st.able().on(1).cast("p", broadcastConfig{}).gets("OUTPUT_OK").show()
			st.r = st.follows()
			st.w.casts("first").gets("WRITE_OK")
			st.r.gets(`READ_OK "first"`, pourOffer)
			f(st)
			st.sawViolations(0)
			if len(st.rings.made) != 1 {
				t.Errorf("%d rings were made", len(st.rings.made))
			}
			st.leavesNothing()
			st.paidNothing()
		})
	}
}

// A READ whose time is over is answered, and what is written later goes into the ring all the same.
func TestPouredReadTimeout(t *testing.T) {
	st := newPouredStage(t, broadcastConfig{})
	st.w.casts("x").gets("WRITE_OK")
	st.reads("x")
	for range 2 {
		st.r.read(1, 7)
	}
	st.w.close().gets("CLOSE_OK")
	st.r.gets("MOVED out 1", "READ_END", "READ_END", "READ_END")
	st.leavesNothing()

	st = newPouredStage(t, broadcastConfig{})
	st.r.close().gets("READ_FAILED closed", "CLOSE_OK")
	st.r.input("p").gets("INPUT_OK").show().readWith(readAny, 10, 0)
	st.w.casts("y").gets("WRITE_OK")
	st.r.gets(`READ_OK "y"`, pourOffer).move(moveInto, 0).gets("MOVED into 0").read(1, 7).waits()
	st.pass(7 * time.Millisecond)
	st.r.gets("READ_TIMEOUT")
	st.w.casts("later").gets("WRITE_OK")
	b := make([]byte, 10)
	if n, err := st.rings.made[1].reader(t).Read(b); string(b[:n]) != "later" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
	st.sawViolations(0)
	st.leavesNothing()
}

// A reader that was there before the writer, and waited for a stream's, can have a ring.
func TestPouredToWhoWaited(t *testing.T) {
	st := newStage(t)
	st.rings = &stageRings{atOnce: true}
	r := st.follows()
	w := st.able().on(1).cast("p", broadcastConfig{await: 1}).gets("OUTPUT_OK").show()
	w.casts("first").gets("WRITE_OK")
	r.gets(`READ_OK "first"`, pourOffer).move(moveInto, 0).gets("MOVED into 0")
	w.casts("x").gets("WRITE_OK")
	if got := st.rings.made[0].reader(t); got == nil || !errors.Is(func() error { _, err := got.Read(make([]byte, 1)); return err }(), nil) {
		t.Error("nothing is in the ring")
	}
	st.leavesNothing()
}
