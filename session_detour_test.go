package zpipes

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// detourStage is one with a stream whose ends can take a detour at once, and its reader
// asks for all there is.
func detourStage(t *testing.T) (st *stage, w, r *line) {
	st = newStage(t)
	st.rings = &stageRings{atOnce: true}
	w = st.near().on(1).output("p").gets("OUTPUT_OK").show()
	r = st.near().on(1).input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
	return st, w, r
}

var offer = fmt.Sprintf("OFFER of %d, %d", stagePending+stageWindow, stagePending)

// takes has both ends of a detourStage use a ring, behind a first WRITE.
func takes(t *testing.T, st *stage, w, r *line) *stageRing {
	t.Helper()
	w.write("first", 0).gets("WRITE_OK")
	r.gets(offer, `READ_OK "first"`).move(moveInto, 0).waits()
	w.gets(offer).move(moveInto, 0).gets("MOVED into 0")
	r.gets("MOVED into 0")
	return st.rings.made[len(st.rings.made)-1]
}

func (st *stage) info(name string) PipeInfo {
	info, ok := st.pipes.pipes()[name].info(st.now)
	if !ok {
		st.t.Fatal("no pipe of that name")
	}
	return info
}

// What went before the ring is read before it, what comes after it behind it, and the
// statistics know of all.
func TestDetourIntoAndOut(t *testing.T) {
	st, w, r := detourStage(t)
	g := takes(t, st, w, r)
	gw, gr := g.writer(t), g.reader(t)
	if _, err := gw.Write([]byte("by memory")); err != nil {
		t.Fatal(err)
	}
	if i := st.info("p"); i.BytesIn != 14 || i.BytesOut != 5 || i.Queued != 9 {
		t.Errorf("%+v", i)
	}
	b := make([]byte, 100)
	n, err := gr.Read(b)
	if string(b[:n]) != "by memory" || err != nil {
		t.Fatal(string(b[:n]), err)
	}
	if i := st.info("p"); i.BytesOut != 14 || i.Queued != 0 {
		t.Errorf("%+v", i)
	}

	// It is asked back when it is quiet, not before.
	p := st.pipes.pipes()["p"]
	p.lookAtDetour(st.now.Add(quietTime-1), false)
	st.settle()
	w.waits()
	p.lookAtDetour(st.now.Add(quietTime), false)
	st.settle()
	w.gets("OFFER of 0, 0").move(moveOut, 9).waits()
	r.gets("MOVED out 9")
	if !g.released {
		t.Error("the ring is still held")
	}
	st.rings.atOnce = false
	w.write("after", 0).gets("WRITE_OK")
	r.gets(`READ_OK "after"`)
	st.sawViolations(0)
	w.close().gets("CLOSE_OK")
	r.gets("READ_END")
	st.leavesNothing()
}

// The writer is told how much of what it has written before the ring is still unread.
func TestDetourBehindMuch(t *testing.T) {
	st := newStage(t)
	st.rings = &stageRings{atOnce: true}
	w := st.near().on(1).output("p").gets("OUTPUT_OK").show()
	r := st.near().on(1).input("p").gets("INPUT_OK").show()
	w.write(strings.Repeat("x", 700), 0).gets("WRITE_OK")
	r.gets(offer).move(moveInto, 0).waits()
	w.gets(offer).write("y", 0).gets("WRITE_OK").move(moveInto, 0).gets("MOVED into 701")
	r.waits().readWith(readAny|readStream, 700, 0).gets("READ_OK of 700")
	w.waits()
	r.readWith(readAny, 700, 0).gets(`READ_OK "y"`, "MOVED into 0")
	w.gets("MOVED into 0")
	st.sawViolations(0)
}

// A READ for more than there is before the ring is answered with that: nothing else will come.
func TestDetourBehindAReadForMore(t *testing.T) {
	for _, early := range []bool{true, false} {
		st := newStage(t)
		st.rings = &stageRings{atOnce: true}
		w := st.near().on(1).output("p").gets("OUTPUT_OK").show()
		r := st.near().on(1).input("p").gets("INPUT_OK").show()
		if early {
			r.read(100, 0)
		}
		w.write("first", 0).gets("WRITE_OK")
		r.gets(offer).move(moveInto, 0).waits()
		w.gets(offer).move(moveInto, 0)
		if !early {
			w.gets("MOVED into 5")
			r.waits().read(100, 0)
			w.gets("MOVED into 0")
		} else {
			w.gets("MOVED into 5", "MOVED into 0")
		}
		r.gets(`READ_OK "first"`, "MOVED into 0").read(100, 0).waits()
		w.close().gets("CLOSE_OK")
		r.gets("MOVED out 0", "READ_END")
		st.sawViolations(0)
		st.leavesNothing()
	}
}

// writerLeaves are ways in which a writer does, and what its reader is told then.
var writerLeaves = map[string]struct {
	leave func(w *line)
	then  string
}{
	"closed":   {func(w *line) { w.close().gets("CLOSE_OK") }, "READ_END"},
	"vanished": {func(w *line) { w.gone() }, "READ_FAILED vanished"},
	"torn":     {func(w *line) { w.closeWith(causeAborted, "why").gets("CLOSE_OK") }, `READ_FAILED aborted "why"`},
}

// An end that leaves ends the ring, and what was in it by then is read.
func TestDetourEnds(t *testing.T) {
	for name, test := range writerLeaves {
		t.Run(name, func(t *testing.T) {
			st, w, r := detourStage(t)
			g := takes(t, st, w, r)
			if _, err := g.writer(t).Write([]byte("left")); err != nil {
				t.Fatal(err)
			}
			test.leave(w)
			r.gets("MOVED out 4", test.then)
			if !g.released {
				t.Error("the ring is still held")
			}
			st.leavesNothing()
		})
	}
	t.Run("the reader", func(t *testing.T) {
		st, w, r := detourStage(t)
		g := takes(t, st, w, r)
		if r.close().gets("READ_FAILED closed", "CLOSE_OK"); !g.released {
			t.Error("the ring is still held")
		}
		w.gets("WRITE_FAILED closed")
		st.leavesNothing()
	})
	t.Run("the broker", func(t *testing.T) {
		st, w, r := detourStage(t)
		g := takes(t, st, w, r)
		if _, err := g.writer(t).Write([]byte("left")); err != nil {
			t.Fatal(err)
		}
		st.pipes.close(cause{causeBrokerGone, "closing"}, true)
		st.settle()
		r.gets("READ_FAILED broker gone") // it is not told that the ring ends before what it may have read
		w.gets("WRITE_FAILED broker gone")
		if !g.released {
			t.Error("the ring is still held")
		}
	})
}

// Who leaves before the writer has gone over, or refuses, leaves no trace of a ring.
func TestDetourIsNotTaken(t *testing.T) {
	for name, f := range map[string]func(st *stage, w, r *line){
		"the reader refuses": func(st *stage, w, r *line) {
			r.move(moveNot, 0).waits()
			w.write("more", 0).gets("WRITE_OK")
			r.gets(`READ_OK "more"`)
		},
		"the writer refuses": func(st *stage, w, r *line) {
			r.move(moveInto, 0).waits()
			w.gets(offer).move(moveNot, 0).write("more", 0).gets("WRITE_OK")
			r.gets("MOVED out 0", `READ_OK "more"`)
		},
		"the reader leaves": func(st *stage, w, r *line) { r.close().gets("READ_FAILED closed", "CLOSE_OK") },
		"the reader leaves with it": func(st *stage, w, r *line) {
			r.move(moveInto, 0)
			w.gets(offer)
			r.close().gets("READ_FAILED closed", "CLOSE_OK")
			w.gets("WRITE_FAILED closed").move(moveInto, 0).waits()
		},
		"the writer leaves": func(st *stage, w, r *line) {
			w.close().gets("CLOSE_OK")
			r.gets("READ_END").move(moveInto, 0).gets("MOVED out 0").waits()
		},
		"the writer leaves with it": func(st *stage, w, r *line) {
			r.move(moveInto, 0)
			w.gets(offer).gone()
			r.gets("MOVED out 0", "READ_FAILED vanished")
		},
		"nobody answers": func(st *stage, w, r *line) {
			st.pipes.pipes()["p"].lookAtDetour(st.now.Add(quietTime), false)
			r.move(moveInto, 0).gets("MOVED out 0").waits()
			w.waits()
		},
		"nobody answers, and others want one": func(st *stage, w, r *line) {
			st.pipes.pipes()["p"].lookAtDetour(st.now.Add(quietTime/4), true)
			r.move(moveInto, 0).gets("MOVED out 0").waits()
			w.waits()
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, w, r := detourStage(t)
			w.write("first", 0).gets("WRITE_OK")
			r.gets(offer, `READ_OK "first"`)
			f(st, w, r)
			if !st.rings.made[0].released {
				t.Error("the ring is still held")
			}
			st.sawViolations(0)
			st.leavesNothing()
			for s := range st.callers {
				if n := s.ringsHeld.Load(); n != 0 || s.account.held.Load() != 0 {
					t.Errorf("%d rings and %d bytes are counted", n, s.account.held.Load())
				}
			}
		})
	}
}

func TestDetourWhereThereIsNone(t *testing.T) {
	for name, f := range map[string]func(st *stage) (w, r *line){
		"the broker can make none": func(st *stage) (w, r *line) {
			st.rings.none = true
			return st.near().on(1), st.near().on(1)
		},
		"nothing can be given": func(st *stage) (w, r *line) {
			st.rings.full = true
			return st.near().on(1), st.near().on(1)
		},
		"the reader can't": func(st *stage) (w, r *line) { return st.near().on(1), st.able().on(1) },
		"the writer can't": func(st *stage) (w, r *line) { return st.able().on(1), st.near().on(1) },
		"no room for it": func(st *stage) (w, r *line) {
			w = st.near().on(1)
			w.session.account.limits.Pending = 2*(stagePending+stageWindow) - 1
			return w, st.near().on(1)
		},
		"too many": func(st *stage) (w, r *line) {
			w = st.near().on(1)
			w.session.ringsHeld.Store(mostRings)
			return w, st.near().on(1)
		},
		"too many for the reader": func(st *stage) (w, r *line) {
			r = st.near().on(1)
			r.session.ringsHeld.Store(mostRings)
			return st.near().on(1), r
		},
		"a large MaxPending": func(st *stage) (w, r *line) {
			st.pipes.maxPending = mostDetour + 1
			return st.near().on(1), st.near().on(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			st.rings = &stageRings{atOnce: true}
			w, r := f(st)
			w.output("p").gets("OUTPUT_OK").show()
			r.input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
			for range 3 {
				w.write("x", 0).gets("WRITE_OK")
				r.gets(`READ_OK "x"`)
				st.pass(2 * busyTime)
			}
			if len(st.rings.made) > 0 && !st.rings.full {
				t.Error("a ring is made of which there can be no use")
			}
			for _, l := range []*line{w, r} {
				if n := l.session.ringsHeld.Load(); n != mostRings && n != 0 {
					t.Errorf("%d rings are counted", n)
				}
				l.session.ringsHeld.Store(0)
				if l.session.account.held.Load() != 0 {
					t.Error("a ring is paid for")
				}
			}
			st.leavesNothing()
		})
	}
}

// Who was never there does not count as one that can take a detour.
func TestDetourOfWhomNobodyKnows(t *testing.T) {
	st := newStage(t)
	st.rings = &stageRings{atOnce: true}
	w := st.near().on(1).output("p").gets("OUTPUT_OK").show()
	st.near().on(1).input("p").gets("INPUT_OK").gone()
	p, why := st.pipes.open("p", reader, 0, func() {}, st.now)
	if why != nil {
		t.Fatal(why)
	}
	if w.write("x", 0).gets("WRITE_OK"); len(st.rings.made) > 0 {
		t.Error("a ring for a reader that can have none")
	}
	p.leave(reader, cause{})
	st.settle()
	w.gets("WRITE_FAILED closed")
	st.pipes.release(p)
	st.leavesNothing()
}

// A stream takes a detour when it is busy, and no sooner.
func TestDetourOfBusyStreams(t *testing.T) {
	for _, test := range []struct {
		writes, bytes int
		pause         time.Duration
		want          bool
	}{
		{busyWrites - 1, 1, 0, false},
		{busyWrites, 1, 0, true},
		{2 * busyWrites, 1, 2 * busyTime / busyWrites, false},
		{2, 100_000, 0, false},
		{3, 100_000, 0, true},
	} {
		st := newStageOf(t, 1<<20, 1<<20)
		st.rings = new(stageRings)
		w := st.near().on(1).output("p").gets("OUTPUT_OK").show()
		st.near().on(1).input("p").gets("INPUT_OK").show().readWith(readAny|readStream, 1<<20, 0)
		for range test.writes {
			w.write(strings.Repeat("x", test.bytes), 0)
			st.pass(test.pause)
		}
		if got := len(st.rings.made) > 0; got != test.want {
			t.Errorf("%d WRITEs of %d bytes, one each %v: a ring is made: %v", test.writes, test.bytes, test.pause, got)
		}
		st.leavesNothing()
	}
}

func TestDetourViolations(t *testing.T) {
	for name, f := range map[string]func(st *stage, w, r *line){
		"a MOVE without an offer":    func(st *stage, w, r *line) { w.move(moveInto, 0) },
		"an answer without an offer": func(st *stage, w, r *line) { r.move(moveInto, 0) },
		"an answer out":              func(st *stage, w, r *line) { r.move(moveOut, 0) },
		"a MOVE out of nothing":      func(st *stage, w, r *line) { w.move(moveOut, 0) },
		"two answers": func(st *stage, w, r *line) {
			w.write("first", 0)
			r.move(moveInto, 0).move(moveInto, 0)
		},
		"two MOVEs": func(st *stage, w, r *line) {
			takes(t, st, w, r)
			w.move(moveInto, 0)
		},
		"a WRITE beside the ring": func(st *stage, w, r *line) {
			takes(t, st, w, r)
			w.write("x", 0)
		},
		"out where it does not end": func(st *stage, w, r *line) {
			takes(t, st, w, r)
			w.move(moveOut, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, w, r := detourStage(t)
			f(st, w, r)
			st.sawViolations(1)
			st.leavesNothing()
		})
	}
	// Whose connection can't have rings does not know the message.
	st := newStage(t)
	l := st.near().on(1)
	l.output("p").gets("OUTPUT_OK").move(moveInto, 0).gets("INVALID")
	st.sawViolations(1)
}

func TestDetourFrames(t *testing.T) {
	for want, m := range map[string]message{
		"aaa016 00140000 5a5000000003 00100000": {id: msgOffer, size: 0x140000, count: 0x100000, channel: 3},
		"aaa017 5a5000000003 01 00000000":       {id: msgMove, mode: moveInto, channel: 3},
		"aaa018 5a5000000003 02 00000009":       {id: msgMoved, mode: moveOut, count: 9, channel: 3},
		"aaa013 5a5000000000 01 0000000000000000 000007d0 5a41 00000003 00040000": {
			id: msgPing, hello: hello{version: 1, number: 2000, able: ableHere | ableRings, window: 256 << 10},
		},
	} {
		m.block = hasBlock
		frame := m.append(nil)
		if !bytes.Equal(frame, unhex(t, want)) {
			t.Errorf("% x, want %s", frame, want)
		}
		if got, err := parse(frame); err != nil || fmt.Sprint(got) != fmt.Sprint(m) {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
}

// The reader hears that the ring is over before it gets what follows, however soon that
// comes: it may have asked for less than that, and reads none of it until then.
func TestDetourOutBeforeMore(t *testing.T) {
	st, w, r := detourStage(t)
	takes(t, st, w, r)
	st.pipes.pipes()["p"].lookAtDetour(st.now.Add(quietTime), false)
	st.settle()
	st.held = true
	w.gets("OFFER of 0, 0").move(moveOut, 0).write("after", 0)
	st.held = false
	st.settle()
	w.gets("WRITE_OK")
	r.gets("MOVED out 0", `READ_OK "after"`)
	st.sawViolations(0)
	st.leavesNothing()
}

// What an end has sent before it knew that the other one left, or behind its own CLOSE
// which overtook it, is no violation.
func TestDetourAnswersBehindClose(t *testing.T) {
	for name, f := range map[string]func(st *stage, w, r *line){
		"the reader's": func(st *stage, w, r *line) {
			r.close().gets("READ_FAILED closed", "CLOSE_OK").move(moveNot, 0)
		},
		"the writer's": func(st *stage, w, r *line) {
			r.move(moveInto, 0).waits()
			w.gets(offer).closeWith(causeAborted, "why").gets("CLOSE_OK").move(moveNot, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, w, r := detourStage(t)
			w.write("first", 0).gets("WRITE_OK")
			r.gets(offer, `READ_OK "first"`)
			f(st, w, r)
			st.sawViolations(0)
			st.leavesNothing()
		})
	}
}
