package zpipes

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSessionStreamTimeoutsOfReads(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		ms := time.Millisecond
		r := dial().input("p").gets("INPUT_OK")
		w := dial().output("p").gets("OUTPUT_OK")

		r.read(5, 100).read(5, 100).waits()
		st.pass(100*ms - 1)
		r.waits()
		st.pass(1)
		r.gets("READ_TIMEOUT")
		st.pass(100*ms - 1) // the second one's time began when its turn came
		r.waits()
		st.pass(1)
		r.gets("READ_TIMEOUT")

		// What is not enough stays where it is.
		w.write("abc", 0).gets("WRITE_OK")
		r.read(5, 100).waits()
		st.pass(50 * ms)
		w.write("d", 0).gets("WRITE_OK")
		r.ping().skip()
		st.pass(50 * ms)
		r.gets("READ_TIMEOUT").read(4, 100).gets(`READ_OK "abcd"`)

		// A READ that was answered has no deadline, nor does it leave it to the
		// next one; whether that one's is earlier or later.
		for _, next := range []time.Duration{20, 200} {
			r.read(1, 100).waits()
			st.pass(50 * ms)
			w.write("x", 0).gets("WRITE_OK")
			r.gets(`READ_OK "x"`).read(1, uint32(next)).waits()
			st.pass(next*ms - 1)
			r.waits()
			st.pass(1)
			r.gets("READ_TIMEOUT")
		}

		r.read(1, math.MaxUint32).waits()
		st.pass(math.MaxUint32*ms - 1)
		r.waits()
		st.pass(1)
		r.gets("READ_TIMEOUT").read(1, 0).waits()
		st.pass(100 * 365 * 24 * time.Hour)
		r.waits()
		w.close().gets("CLOSE_OK")
		r.gets("READ_END")
	})
}

func TestSessionStreamTimeoutsOfWrites(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		w := dial().output("p").gets("OUTPUT_OK").write("early", 100).waits()
		st.pass(100*time.Millisecond - 1)
		w.waits()
		st.pass(1)
		w.gets("WRITE_TIMEOUT")
		r := dial().input("p").gets("INPUT_OK")

		full := strings.Repeat("f", stagePending)
		w.write(full, 100).gets("WRITE_OK").write("late", 100).waits()
		st.pass(100 * time.Millisecond)
		w.gets("WRITE_TIMEOUT").write("last", 100).waits()
		r.read(stagePending, 0).gets(fmt.Sprint("READ_OK of ", stagePending))
		w.gets("WRITE_OK")
		st.pass(time.Hour)
		w.waits()
		r.read(4, 0).gets(`READ_OK "last"`)
		// Nothing of a WRITE that timed out was taken.
		r.read(1, 0).waits()
	})
}

// WRITE_OK grants the writer what the pipe takes after it.
func TestSessionStreamWriteIsToldTheRoom(t *testing.T) {
	st := newStage(t)
	r, w := st.modern().on(1).input("p").skip(), st.modern().on(1).output("p").skip()
	for _, step := range []struct {
		reads, writes int
		room          uint32
	}{
		{0, 10, stagePending - 10}, {0, 30, stagePending - 40}, {40, 1, stagePending - 1}, {1, stagePending, 0},
	} {
		if step.reads > 0 {
			r.read(uint32(step.reads), 0).skip()
		}
		w.write(strings.Repeat("w", step.writes), 0)
		if m, err := parse(w.heard[0]); err != nil || m.id != msgWriteOK || m.count != step.room {
			t.Errorf("%d bytes written: message %d with room for %d, %v; want %d", step.writes, m.id, m.count, err, step.room)
		}
		w.skip()
	}
}

// An empty WRITE is one all the same: it says whether there is a reader.
func TestSessionStreamEmptyWriteWaitsForAReader(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		w := dial().output("p").gets("OUTPUT_OK").write("", 0).waits()
		r := dial().input("p").gets("INPUT_OK")
		w.gets("WRITE_OK")
		r.read(1, 0).waits().close().skip()
		w.skip().write("", 0).gets(w.failed("WRITE_FAILED"))
	})
}

// How a writer ends, and what its reader meets after the last byte.
func TestSessionStreamReaderIsToldHowItsWriterEnded(t *testing.T) {
	closes := func(code causeCode, text string) func(*stage, *line) {
		return func(st *stage, w *line) { w.closeWith(code, text).gets("CLOSE_OK") }
	}
	for _, test := range []struct {
		name      string
		extension bool // it needs the extension
		end       func(st *stage, w *line)
		told      string // "" for an orderly end, of which nothing is to be told
	}{
		{"CLOSE", false, closes(causeClosed, ""), ""},
		{"its connection is lost", false, func(st *stage, w *line) { w.gone() }, " vanished"},
		{"it breaks the protocol", false, func(st *stage, w *line) { w.output("again").gets("INVALID") }, " vanished"},
		{"it is silent", false, func(st *stage, w *line) {
			w.session.expire(st.now.Add(time.Hour))
			st.settle()
		}, " vanished"},
		{"the broker closes", false, func(st *stage, w *line) {
			st.pipes.close(cause{causeBrokerGone, "shutting down"}, false)
			st.settle()
		}, " broker gone"},
		{"CLOSE with an error", true, closes(causeAborted, "disk full"), ` aborted "disk full"`},
		{"CLOSE in despair", true, closes(causeUndelivered, ""), " undelivered"},
		{"CLOSE for a dead process", true, closes(causeVanished, ""), " vanished"},
		// Causes that are not a client's to give, or that nobody knows yet.
		{"CLOSE as if it were the broker", true, closes(causeBrokerGone, "ha"), ` aborted "ha"`},
		{"CLOSE with a new cause", true, closes(99, ""), " aborted"},
	} {
		for _, agreed := range []bool{false, true} {
			if test.extension && !agreed {
				continue
			}
			t.Run(fmt.Sprintf("%s, agreed %v", test.name, agreed), func(t *testing.T) {
				st := newStage(t)
				dial, told := st.base, ""
				if agreed {
					dial, told = func() *line { return st.modern().on(1) }, test.told
				}
				want := []string{"READ_FAILED" + told, "READ_END"}
				if test.told == "" {
					want = []string{"READ_END", "READ_END"}
				}

				late := dial().input("late").gets("INPUT_OK")
				w := dial().output("late").gets("OUTPUT_OK").write("what it wrote", 0).gets("WRITE_OK")
				waits := dial().input("waits").gets("INPUT_OK").read(500, 0).waits()
				w2 := dial().output("waits").gets("OUTPUT_OK").write("what it wrote", 0).gets("WRITE_OK")
				test.end(st, w)
				test.end(st, w2)

				// What was written comes first; a READ of more is answered short.
				waits.gets(`READ_OK "what it wrote"`)
				late.waits().read(4, 0).read(500, 0).gets(`READ_OK "what"`, `READ_OK " it wrote"`)
				for _, r := range []*line{late, waits} {
					r.read(1, 0).read(1, 0).gets(want...)
					r.read(1, 0).gets("READ_END").close().gets("CLOSE_OK")
				}
				st.leavesNothing()
			})
		}
	}
}

func TestSessionStreamReaderThatWaitsForTheFirstByteIsTold(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK").read(5, 1000).read(5, 0).waits()
	st.modern().on(1).output("p").closeWith(causeAborted, "no input")
	r.gets(`READ_FAILED aborted "no input"`, "READ_END")
}

// A writer that has agreed is told when its reader leaves, not only when it
// writes again.
func TestSessionStreamWriterIsToldHowItsReaderEnded(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(st *stage, r *line)
		told string
	}{
		{"CLOSE", func(st *stage, r *line) { r.close() }, "WRITE_FAILED closed"},
		{"CLOSE with an error", func(st *stage, r *line) { r.closeWith(causeAborted, "enough") }, `WRITE_FAILED aborted "enough"`},
		{"its connection is lost", func(st *stage, r *line) { r.gone() }, "WRITE_FAILED vanished"},
		{"it is silent", func(st *stage, r *line) {
			r.session.expire(st.now.Add(time.Hour))
			st.settle()
		}, "WRITE_FAILED vanished"},
		{"the broker closes", func(st *stage, r *line) {
			st.pipes.close(cause{causeBrokerGone, "shutting down"}, true)
			st.settle()
		}, "WRITE_FAILED broker gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newStage(t)
			writers := []*line{st.base(), st.modern().on(1), st.modern().on(1)}
			full := strings.Repeat("f", stagePending)
			var readers []*line
			for i, w := range writers {
				name := fmt.Sprint("p", i)
				readers = append(readers, st.modern().on(1).input(name).gets("INPUT_OK"))
				w.output(name).gets("OUTPUT_OK").write(full, 0).gets("WRITE_OK")
			}
			base, idle, busy := writers[0], writers[1], writers[2]
			busy.write("waits", 0).write("too", 0).waits()
			for _, r := range readers {
				test.end(st, r)
			}
			base.waits().write("", 0).write("more", 0).gets("WRITE_FAILED", "WRITE_FAILED")
			idle.gets(test.told).write("", 0).gets(test.told).close().gets("CLOSE_OK")
			// Who gets it as an answer is not told in addition.
			busy.gets(test.told, test.told).close().gets("CLOSE_OK")
			base.close().gets("CLOSE_OK")
			st.leavesNothing()
		})
	}
}

// The next end on a channel has a reader of its own.
func TestSessionStreamWriterIsToldAgainOnTheNextPipe(t *testing.T) {
	st := newStage(t)
	r := st.modern()
	r.on(1).input("p").gets("INPUT_OK")
	r.on(2).input("q").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	w.write(strings.Repeat("f", stagePending), 0).gets("WRITE_OK")
	// The second open ends the first pipe, and the third begins another one.
	w.write("waits", 0).output("p").output("q").waits()
	r.on(1).close().gets("CLOSE_OK")
	w.gets("WRITE_FAILED closed", "INVALID", "OUTPUT_OK")
	r.on(2).closeWith(causeAborted, "over").gets("CLOSE_OK")
	w.gets(`WRITE_FAILED aborted "over"`)
}

func TestSessionStreamReadRaisesTheBound(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		part := strings.Repeat("p", stagePending)
		r := dial().input("p").gets("INPUT_OK")
		w := dial().output("p").gets("OUTPUT_OK")
		w.write(part, 0).gets("WRITE_OK").write(part, 0).waits()
		r.read(2*stagePending+1, 0).waits()
		w.gets("WRITE_OK").write("ab", 0).gets("WRITE_OK")
		r.gets(fmt.Sprint("READ_OK of ", 2*stagePending+1))
		// And no longer than it waits.
		w.write(part[1:], 0).gets("WRITE_OK").write("c", 0).waits()
		r.read(1, 0).gets(`READ_OK "b"`)
		w.gets("WRITE_OK")
	})
}

func TestSessionStreamReadThatIsOverDoesNotRaiseTheBound(t *testing.T) {
	for name, end := range map[string]func(st *stage, r *line){
		"timeout": func(st *stage, r *line) {
			st.pass(100 * time.Millisecond)
			r.gets("READ_TIMEOUT")
		},
		"timeout while the client takes nothing": func(st *stage, r *line) {
			r.congested = true
			r.ping()
			st.pass(100 * time.Millisecond)
			r.relieve()
			r.gets("PING_OK", "READ_TIMEOUT")
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			r := st.base().input("p").gets("INPUT_OK")
			w := st.base().output("p").gets("OUTPUT_OK")
			w.write("held", 0).gets("WRITE_OK")
			r.read(2*stagePending, 100).waits()
			end(st, r)
			w.write(strings.Repeat("f", stagePending), 0).waits()
			r.read(4, 0).gets(`READ_OK "held"`)
			w.gets("WRITE_OK")
		})
	}
}

// A READ that wants a little more than there is, and a WRITE that brings more
// than fits: if each waited for the other, they would do so for ever.
func TestSessionStreamReadAndWriteDoNotWaitForEachOther(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		some := func(n int) string { return strings.Repeat("s", n) }
		for i, test := range []struct{ have, read, write int }{
			{600, 800, 500},
			{999, 1000, 1000},
			{1000, 1001, 2000},
			{1000, 2999, 2000},
		} {
			for _, readFirst := range []bool{true, false} {
				name := fmt.Sprint(i, readFirst)
				r := dial().input(name).gets("INPUT_OK")
				w := dial().output(name).gets("OUTPUT_OK").write(some(test.have), 0).gets("WRITE_OK")
				if readFirst {
					r.read(uint32(test.read), 0).waits()
					w.write(some(test.write), 0)
				} else {
					w.write(some(test.write), 0).waits()
					r.read(uint32(test.read), 0)
				}
				w.gets("WRITE_OK").close().gets("CLOSE_OK")
				r.gets(fmt.Sprint("READ_OK of ", test.read)).close().gets("CLOSE_OK")
			}
		}
	})
}

func TestSessionStreamReadOfMoreThanTheLargestMessage(t *testing.T) {
	for name, pending := range map[string]int{
		"of which the pipe holds less of itself": stagePending,
		"of which the pipe holds more":           2 * stageMessage,
	} {
		t.Run(name, func(t *testing.T) {
			st := newStageOf(t, pending, stageMessage)
			r := st.base().input("p").gets("INPUT_OK")
			w := st.base().output("p").gets("OUTPUT_OK")
			r.read(stageMessage+500, 0).waits()
			for range 2 {
				w.write(strings.Repeat("p", 1499), 0).gets("WRITE_OK")
			}
			r.waits()
			// Two bytes less than the largest message are there: now it is more.
			w.write(strings.Repeat("p", 1499), 0).gets("WRITE_OK")
			r.gets("READ_FAILED").read(math.MaxUint32, 0).gets("READ_FAILED")
			// A smaller READ gets what is there.
			r.read(stageMessage, 0).gets(fmt.Sprint("READ_OK of ", stageMessage))
			r.read(2*1499+1499-stageMessage, 0).gets("READ_OK of 1497")
		})
	}
}

// To ask for 4 GiB costs nothing, and after the end of the writer it is a way
// to ask for all there is.
func TestSessionStreamReadOfAllThatIsLeft(t *testing.T) {
	st := newStageOf(t, 2*stageMessage, stageMessage)
	r := st.base().input("p").gets("INPUT_OK")
	w := st.base().output("p").gets("OUTPUT_OK")
	w.write(strings.Repeat("a", stageMessage), 0).write("the rest", 0).close().gets("WRITE_OK", "WRITE_OK", "CLOSE_OK")
	for _, want := range []string{fmt.Sprint("READ_OK of ", stageMessage), `READ_OK "the rest"`, "READ_END"} {
		r.read(math.MaxUint32, 0).gets(want)
	}
}

func TestSessionStreamReadAny(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	r.readWith(readAny, 1000, 0).waits()
	w.write("abc", 0)
	r.gets(`READ_OK "abc"`)
	w.write("defg", 0)
	r.readWith(readAny, 3, 0).gets(`READ_OK "def"`)
	r.readWith(readAny, math.MaxUint32, 0).gets(`READ_OK "g"`)
	r.readWith(readAny, 10, 5).waits()
	st.pass(5 * time.Millisecond)
	r.gets("READ_TIMEOUT")
	r.readWith(readAny, 10, 0)
	w.skip().closeWith(causeAborted, "over")
	r.gets(`READ_FAILED aborted "over"`).readWith(readAny, 10, 0).gets("READ_END")
}

func TestSessionStreamReadStream(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	r.readWith(readStream, 10, 0).waits()
	w.write("abc", 0)
	r.gets(`READ_OK "abc"`)
	w.write("defg", 0)
	r.gets(`READ_OK "defg"`)
	r.readWith(readStream|readAny, 5, 100) // adds to the credit that is left
	w.write("hijkl", 0)
	r.gets(`READ_OK "hij"`, `READ_OK "kl"`)
	st.pass(99 * time.Millisecond)
	w.write("m", 0)
	r.gets(`READ_OK "m"`)
	st.pass(time.Millisecond) // counts from the first moment at which it waited
	r.gets("READ_TIMEOUT")
	w.write("no", 0)
	r.waits() // the rest of the credit is void
	r.readWith(readStream, 2, 0).gets(`READ_OK "no"`)

	r.readWith(readStream, 10, 0).readWith(readStream, 10, 0)
	w.write("the end", 0).closeWith(causeUndelivered, "")
	r.gets(`READ_OK "the end"`, "READ_FAILED undelivered", "READ_END")
}

// A stream READ must not wait for a limit that only an exact one has.
func TestSessionStreamReadStreamOfMoreThanTheLargestMessage(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	r.readWith(readStream, math.MaxUint32, 0).waits()
	for range 10 {
		w.write(strings.Repeat("s", stageMessage+1), 0)
		r.gets(fmt.Sprint("READ_OK of ", stageMessage), `READ_OK "s"`)
	}
}

// A READ that could be answered for long takes turns with what others want.
func TestSessionStreamTakesTurns(t *testing.T) {
	st := newStageOf(t, 8<<20, largeSegment)
	w := st.base().output("p").gets("OUTPUT_OK")
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	const chunk = largeSegment/2 + 100 // each is an answer of its own
	for range 2*maxBurst + 10 {
		w.write(strings.Repeat("c", chunk), 0).gets("WRITE_OK")
	}
	st.held = true
	r.readWith(readStream, 8<<20, 50)
	for _, want := range []int{maxBurst, maxBurst, 10, 0} {
		if got := len(r.heard); got != want {
			t.Errorf("%d answers in a turn, want %d", got, want)
		}
		r.heard = nil
		posted := st.posted
		st.posted = nil
		for _, c := range posted {
			c.letter().posted = false
			c.resume(st.now)
		}
	}
	if len(st.posted) > 0 {
		t.Error("it wants another turn, for nothing")
	}
	st.held = false
	st.pass(50 * time.Millisecond)
	r.gets("READ_TIMEOUT")
}
