package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The scripts that the broker plays over sockets hold without them, and need no
// time.
func TestConformanceWithoutSockets(t *testing.T) {
	for _, path := range scriptPaths(t, "v2", "fixes") {
		t.Run(scriptName(path), func(t *testing.T) {
			steps, err := scriptParse(scriptRead(t, path))
			if err != nil {
				t.Fatal(err)
			}
			st := newStageOf(t, 1<<20, 16<<20)
			actors := make(map[string]*line)
			for _, step := range steps {
				l := actors[step.actor]
				if l == nil {
					l = st.old()
					actors[step.actor] = l
				}
				switch step.verb {
				case "sleep":
					st.pass(step.wait)
				case "gone":
					l.gone()
				case ">":
					l.deliver(bytes.Clone(step.frames[0]))
				case "<":
					for len(l.heard) == 0 && len(st.alarms) > 0 {
						st.pass(st.alarms[0].alarm.at.Sub(st.now))
					}
					if len(l.heard) == 0 || !step.accepts(l.heard[:1]) {
						t.Fatalf("%d: want %s, got %s", step.line, step.text, scriptNotation(l.heard))
					}
					l.heard = l.heard[1:]
				case "nothing":
					if st.pass(step.wait); len(l.heard) > 0 {
						t.Fatalf("%d: want %s, got %s", step.line, step.text, scriptNotation(l.heard))
					}
				}
			}
			for name, l := range actors {
				if len(l.heard) > 0 {
					t.Errorf("%s got %s in the end", name, scriptNotation(l.heard))
				}
			}
			st.leavesNothing()
		})
	}
}

// overBoth runs a test with an old client and with one that has agreed, as far
// as there is no difference.
func overBoth(t *testing.T, test func(t *testing.T, st *stage, dial func() *line)) {
	t.Run("old", func(t *testing.T) {
		st := newStage(t)
		test(t, st, st.old)
		st.leavesNothing()
	})
	t.Run("agreed", func(t *testing.T) {
		st := newStage(t)
		c := st.modern()
		channel := uint32(0)
		test(t, st, func() *line {
			channel++
			return c.on(channel)
		})
		st.leavesNothing()
	})
}

// failed is a *_FAILED as a client gets it that has no cause to be told of.
func (l *line) failed(name string) string {
	if l.agreed {
		return name + " closed"
	}
	return name
}

func TestRequestsAreAnsweredInOrder(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK")
		w := dial().output("p").gets("OUTPUT_OK")
		r.read(3, 0).read(2, 0).read(0, 0).write("x", 0).read(1, 0).waits()
		w.write("ab", 0).gets("WRITE_OK")
		r.waits()
		w.write("cdef", 0).gets("WRITE_OK")
		r.gets(`READ_OK "abc"`, `READ_OK "de"`, "READ_END", "INVALID", `READ_OK "f"`)
		st.sawViolations(0)
	})
}

func TestPingOvertakes(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK").read(3, 0).read(3, 0).waits()
		pinger := r
		if r.agreed {
			pinger = r.on(0) // where PING_OK comes, whatever channel PING names
		}
		r.ping()
		pinger.gets("PING_OK")
		w := dial().output("p").gets("OUTPUT_OK").write("abc", 0).gets("WRITE_OK")
		r.gets(`READ_OK "abc"`)
		w.close().gets("CLOSE_OK")
		r.gets("READ_END")
	})
}

func TestCloseOvertakes(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK").read(3, 7).read(3, 0).input("q").read(1, 0).waits()
		r.close().gets(r.failed("READ_FAILED"), "CLOSE_OK", "INVALID", "INPUT_OK")
		st.pass(time.Hour) // the first READ's timeout is over and done with
		dial().output("q").gets("OUTPUT_OK").write("q's", 0).gets("WRITE_OK")
		r.gets(`READ_OK "q"`)

		w := dial().output("p").gets("OUTPUT_OK").write("nobody reads", 0).write("this", 0).waits()
		w.close().gets(w.failed("WRITE_FAILED"), "CLOSE_OK", "INVALID")
		w.close().gets("INVALID")
		st.sawViolations(0)
	})
}

func TestTimeoutsOfReads(t *testing.T) {
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

func TestTimeoutsOfWrites(t *testing.T) {
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

// WRITE_OK grants the writer what the pipe takes behind it.
func TestWriteIsToldTheRoom(t *testing.T) {
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
func TestEmptyWriteWaitsForAReader(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		w := dial().output("p").gets("OUTPUT_OK").write("", 0).waits()
		r := dial().input("p").gets("INPUT_OK")
		w.gets("WRITE_OK")
		r.read(1, 0).waits().close().skip()
		w.skip().write("", 0).gets(w.failed("WRITE_FAILED"))
	})
}

// How a writer ends, and what its reader meets behind the last byte.
func TestReaderIsToldHowItsWriterEnded(t *testing.T) {
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
				dial, told := st.old, ""
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

func TestReaderThatWaitsForTheFirstByteIsTold(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK").read(5, 1000).read(5, 0).waits()
	st.modern().on(1).output("p").closeWith(causeAborted, "no input")
	r.gets(`READ_FAILED aborted "no input"`, "READ_END")
}

// A writer that has agreed is told when its reader leaves, not only when it
// writes again.
func TestWriterIsToldHowItsReaderEnded(t *testing.T) {
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
			writers := []*line{st.old(), st.modern().on(1), st.modern().on(1)}
			full := strings.Repeat("f", stagePending)
			var readers []*line
			for i, w := range writers {
				name := fmt.Sprint("p", i)
				readers = append(readers, st.modern().on(1).input(name).gets("INPUT_OK"))
				w.output(name).gets("OUTPUT_OK").write(full, 0).gets("WRITE_OK")
			}
			old, idle, busy := writers[0], writers[1], writers[2]
			busy.write("waits", 0).write("too", 0).waits()
			for _, r := range readers {
				test.end(st, r)
			}
			old.waits().write("", 0).write("more", 0).gets("WRITE_FAILED", "WRITE_FAILED")
			idle.gets(test.told).write("", 0).gets(test.told).close().gets("CLOSE_OK")
			// Who gets it as an answer is not told in addition.
			busy.gets(test.told, test.told).close().gets("CLOSE_OK")
			old.close().gets("CLOSE_OK")
			st.leavesNothing()
		})
	}
}

// The next end on a channel has a reader of its own.
func TestWriterIsToldAgainOnTheNextPipe(t *testing.T) {
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

func TestReadRaisesTheBound(t *testing.T) {
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

func TestReadThatIsOverDoesNotRaiseTheBound(t *testing.T) {
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
			r := st.old().input("p").gets("INPUT_OK")
			w := st.old().output("p").gets("OUTPUT_OK")
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
func TestReadAndWriteDoNotWaitForEachOther(t *testing.T) {
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

func TestReadOfMoreThanTheLargestMessage(t *testing.T) {
	for name, pending := range map[string]int{
		"of which the pipe holds less of itself": stagePending,
		"of which the pipe holds more":           2 * stageMessage,
	} {
		t.Run(name, func(t *testing.T) {
			st := newStageOf(t, pending, stageMessage)
			r := st.old().input("p").gets("INPUT_OK")
			w := st.old().output("p").gets("OUTPUT_OK")
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

// To ask for 4 GiB costs nothing, and behind the end of the writer it is a way
// to ask for all there is.
func TestReadOfAllThatIsLeft(t *testing.T) {
	st := newStageOf(t, 2*stageMessage, stageMessage)
	r := st.old().input("p").gets("INPUT_OK")
	w := st.old().output("p").gets("OUTPUT_OK")
	w.write(strings.Repeat("a", stageMessage), 0).write("the rest", 0).close().gets("WRITE_OK", "WRITE_OK", "CLOSE_OK")
	for _, want := range []string{fmt.Sprint("READ_OK of ", stageMessage), `READ_OK "the rest"`, "READ_END"} {
		r.read(math.MaxUint32, 0).gets(want)
	}
}

func TestReadAny(t *testing.T) {
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

func TestReadStream(t *testing.T) {
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
func TestReadStreamOfMoreThanTheLargestMessage(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	r.readWith(readStream, math.MaxUint32, 0).waits()
	for range 10 {
		w.write(strings.Repeat("s", stageMessage+1), 0)
		r.gets(fmt.Sprint("READ_OK of ", stageMessage), `READ_OK "s"`)
	}
}

func TestWrongRoleChangesNothing(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		nobody := dial()
		nobody.read(1, 0).write("x", 0).close().gets("INVALID", "INVALID", "INVALID")
		r := dial().input("p").gets("INPUT_OK").write("x", 0).gets("INVALID")
		w := dial().output("p").gets("OUTPUT_OK").read(1, 0).gets("INVALID")
		w.write("fine", 0).gets("WRITE_OK")
		r.read(4, 0).gets(`READ_OK "fine"`)
		st.sawViolations(0)
		if n := len(nobody.session.channels); nobody.channel == 0 && n > 0 {
			t.Errorf("%d conversations of a client with nothing open", n)
		}
	})
}

func TestWhatEndsAConversation(t *testing.T) {
	breaches := map[string]func(l *line){
		"a second INPUT":  func(l *line) { l.input("q") },
		"a second OUTPUT": func(l *line) { l.output("q") },
	}
	for _, m := range everyMessage() {
		switch m.id {
		case msgInput, msgOutput, msgRead, msgWrite, msgClose, msgPing:
		default:
			breaches["the broker's "+frameName(m)] = func(l *line) { l.send(bare(m)) }
		}
	}
	for name, breach := range breaches {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
				r := dial().input("p").gets("INPUT_OK").read(1, 0)
				breach(r)
				r.waits().input("q").read(9, 0).waits() // all in good order
				w := dial().output("p").gets("OUTPUT_OK").write("x", 0)
				r.gets(`READ_OK "x"`, "INVALID", "INPUT_OK")
				st.sawViolations(1)
				if w.agreed {
					w.gets("WRITE_OK", "WRITE_FAILED vanished")
				} else {
					w.write("y", 0).gets("WRITE_OK", "WRITE_FAILED")
				}
				dial().input("p").gets("INPUT_OK") // the name is free
				dial().output("q").gets("OUTPUT_OK").write("of the new", 0).gets("WRITE_OK")
				r.gets(`READ_OK "of the ne"`)
			})
		})
	}
}

func TestRefusedOpensSayWhy(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		refused := func(l *line, name string, why causeCode) {
			t.Helper()
			id := " " + causeNames[why]
			if !l.agreed {
				id = ""
			}
			l.input(name).gets("INPUT_FAILED" + id)
			l.output(name).gets("OUTPUT_FAILED" + id)
			// The connection is as good as new.
			l.read(1, 0).close().gets("INVALID", "INVALID")
		}
		l := dial()
		refused(l, "", causeBadName)
		refused(l, "a\x00b", causeBadName)
		dial().input("p").gets("INPUT_OK")
		dial().output("p").gets("OUTPUT_OK")
		refused(l, "p", causeBusy)
		for i := range 9 {
			dial().input(fmt.Sprint(i)).gets("INPUT_OK")
		}
		refused(l, "one too many", causeTooMany)
		st.pipes.close(cause{causeBrokerGone, "closing"}, false)
		refused(l, "too late", causeBrokerGone)
		st.sawViolations(0)
	})
}

var malformed = map[string]string{
	"an empty frame":   "",
	"no signature":     "00 00 13",
	"no id":            "aaa0",
	"an unknown id":    "aaa0 ff",
	"a name cut short": "aaa0 01 05 6162",
	"a chunk too long": "aaa0 0c ffffffff 6162",
}

func TestMalformedFrameOfAnOldClient(t *testing.T) {
	for name, frame := range malformed {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			st.old().raw(t, frame).gets("INVALID")
			r := st.old().input("p").gets("INPUT_OK").read(1, 0).raw(t, frame).read(1, 0).input("p").waits()
			w := st.old().output("p").gets("OUTPUT_OK").write("xy", 0).gets("WRITE_OK")
			r.gets(`READ_OK "x"`, "INVALID", "INVALID", "INPUT_OK")
			w.write("z", 0).gets("WRITE_FAILED")
			_, err := parse(unhex(t, frame))
			if !slices.Equal(st.violations, []string{err.Error(), err.Error()}) {
				t.Errorf("violations are %q, want twice %v", st.violations, err)
			}
			st.leavesNothing()
		})
	}
}

// Once channels are agreed on, a frame whose channel cannot be read may have
// been anybody's.
func TestMalformedFrameOfAnAgreedClient(t *testing.T) {
	for name, frame := range malformed {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			c := st.modern()
			c.on(1).input("p").gets("INPUT_OK").read(1, 0)
			c.on(2).output("q").gets("OUTPUT_OK").write("x", 0)
			c.on(3).output("p").gets("OUTPUT_OK")
			c.on(9).raw(t, frame)
			c.on(1).gets("READ_FAILED broker gone")
			c.on(2).gets("WRITE_FAILED broker gone")
			c.on(0).gets("INVALID broker gone")
			c.on(3).waits()
			_, err := parse(unhex(t, frame))
			if !slices.Equal(st.violations, []string{err.Error()}) {
				t.Errorf("violations are %q, want %v", st.violations, err)
			}
			st.violations = nil
			if !c.session.gone {
				t.Error("the session goes on")
			}
			c.on(1).read(1, 0).waits() // the broker does not know it any more
			c.on(0).gets("INVALID broker gone")
			if n := st.pipes.allPipes.len(); n > 0 {
				t.Errorf("%d pipes are left", n)
			}
		})
	}
}

func TestBlockCutShortEndsItsChannelOnly(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	w := c.on(1).output("p").gets("OUTPUT_OK")
	r := c.on(2).input("p").gets("INPUT_OK").read(1, 0)
	r.raw(t, "aaa0 07 00000001 00000000 5a50 00000002") // no flags
	r.raw(t, "aaa0 10 5a50 00000002 00 09 78")          // does not overtake
	r.waits()
	w.write("xy", 0)
	r.gets(`READ_OK "x"`, "INVALID", "INVALID")
	w.gets("WRITE_OK", "WRITE_FAILED vanished").close().gets("CLOSE_OK")
	c.on(3).raw(t, "aaa0 10 5a50 00000003").gets("INVALID")
	c.on(0).waits()
	st.sawViolations(3)
	st.leavesNothing()
}

// The two sides do not believe the same of each other, so nothing that is said
// may be done.
func TestBlockWithoutAgreement(t *testing.T) {
	for _, agreed := range []bool{false, true} {
		for name, m := range map[string]message{
			"INPUT":  {id: msgInput, text: []byte("new")},
			"OUTPUT": {id: msgOutput, text: []byte("new")},
			"READ":   {id: msgRead, size: 1},
			"WRITE":  {id: msgWrite, chunk: []byte("unheard of")},
			"CLOSE":  {id: msgClose},
		} {
			t.Run(fmt.Sprintf("%s, agreed %v", name, agreed), func(t *testing.T) {
				st := newStage(t)
				r := st.modern().on(1).input("p").gets("INPUT_OK")
				l := st.old()
				if agreed {
					l = st.modern().on(0)
				}
				l.output("p").gets("OUTPUT_OK").write("confirmed", 0).gets("WRITE_OK")
				if !agreed {
					m.block = hasBlock
				}
				l.deliver(m.append(nil))
				st.sawViolations(1)
				l.gets("INVALID broker gone")
				r.read(100, 0).gets(`READ_OK "confirmed"`).read(1, 0).gets("READ_FAILED vanished")
				if len(st.pipes.pipes) > 0 {
					t.Error("a pipe came into being")
				}
				// Afterwards the client is a new one.
				l.connect()
				l.input("new").gets("INPUT_OK")
				st.leavesNothing()
			})
		}
	}
}

// hellos returns the PING_OKs that have come.
func (c *caller) hellos() (all []message) {
	for _, frame := range c.heard {
		if m, _ := parse(frame); m.id == msgPingOK {
			all = append(all, m)
		}
	}
	c.heard = nil
	return all
}

func TestAnswersToPing(t *testing.T) {
	st := newStage(t)
	here := hello{version: 1, session: st.tokens, number: minQueueBytes, pending: stagePending, total: 256 << 20}
	unknown := here
	unknown.session = 0
	bare := message{id: msgPingOK}
	with := func(h hello) message { return message{id: msgPingOK, block: hasBlock, hello: h} }
	ping := func(version byte, session uint64) message {
		return message{id: msgPing, block: hasBlock, hello: hello{version: version, session: session, number: 100}}
	}
	for _, test := range []struct {
		name   string
		agreed bool // before
		ping   message
		answer message
		then   bool // agreed
	}{
		{"bare", false, message{id: msgPing}, bare, false},
		{"bare, of a client that has agreed", true, message{id: msgPing}, bare, true},
		{"the first", false, ping(1, 0), with(here), true},
		{"of a later version", false, ping(9, 0), with(here), true},
		{"of version 0", false, ping(0, 0), with(unknown), false},
		{"a heartbeat", true, ping(1, st.tokens), with(here), true},
		// Both learn from the answer that their broker is not there any more.
		{"a heartbeat of an unknown session", false, ping(1, 5), with(unknown), false},
		{"a heartbeat of another session", true, ping(1, 5), with(here), true},
	} {
		c := st.call()
		if test.agreed {
			c.sayHello(100)
		}
		c.deliver(test.ping.append(nil))
		if diff := cmp.Diff([]message{test.answer}, c.hellos(), sameMessage); diff != "" {
			t.Errorf("%s: other answers than expected (-want +got):\n%s", test.name, diff)
		}
		if c.session.agreed != test.then {
			t.Errorf("%s: agreed is %v", test.name, c.session.agreed)
		}
	}

	cut := (&message{id: msgPing, block: hasBlock, hello: hello{version: 1}}).append(nil)
	c := st.call()
	c.deliver(cut[:len(cut)-1])
	if diff := cmp.Diff([]message{bare}, c.hellos(), sameMessage); diff != "" || c.session.agreed {
		t.Errorf("a block that is cut short is no agreement:\n%s", diff)
	}
}

// Settings may be larger than what the wire has room for.
func TestHelloOfABrokerWithHugeLimits(t *testing.T) {
	for largest, pending := range map[int]uint32{math.MaxInt - messageOverhead: math.MaxInt32, stageMessage: stageMessage} {
		st := newStageOf(t, math.MaxInt, largest)
		c := st.call()
		c.deliver(firstPing())
		want := hello{1, st.tokens, math.MaxInt32, pending, 256 << 20, 0}
		if diff := cmp.Diff(want, c.hellos()[0].hello, sameMessage); diff != "" {
			t.Errorf("hello (-want +got):\n%s", diff)
		}
	}
}

func firstPing() []byte {
	return (&message{id: msgPing, block: hasBlock, hello: hello{version: 1}}).append(nil)
}

func TestOpensThatAreDenied(t *testing.T) {
	st := newStage(t)
	old, l := st.old(), st.modern().on(1)
	st.denies = &cause{causeDenied, "not yours"}
	old.input("p").output("p").gets("INPUT_FAILED", "OUTPUT_FAILED")
	l.input("p").output("p").gets("INPUT_FAILED denied", "OUTPUT_FAILED denied")
	for _, mode := range []byte{modeQueue, modeDelete, modeStatus} {
		l.inputAs(mode, "p").gets("INPUT_FAILED denied")
	}
	c := st.call().text("OPEN", "p").text("READ", "p").text("WRITE", "p", "x").text("CLOSE", "p").says("ERROR", "ERROR", "ERROR", "ERROR")
	if n := len(st.pipes.pipes) + len(st.pipes.queues); n > 0 {
		t.Errorf("%d pipes have come into being", n)
	}
	st.denies = nil
	l.queue("p").opens(modeQueue)
	c.text("OPEN", "p").says("OK")
	st.leavesNothing()
}

// A client reads the status through an end like others, one at a time.
func TestStatusIsReadOnce(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	l := c.on(1).inputAs(modeStatus, "").opens(modeStatus)
	c.on(2).inputAs(modeStatus, "").gets("INPUT_FAILED busy")
	l.readWith(readAny, 100, 0).read(1, 0).gets(`READ_OK "the status"`, "READ_END").close().gets("CLOSE_OK")
	c.on(2).inputAs(modeStatus, "").opens(modeStatus).close().gets("CLOSE_OK")
	if n := len(st.pipes.pipes) + len(st.pipes.queues); n > 0 {
		t.Errorf("%d pipes have come into being", n)
	}
	st.leavesNothing()
}

// A first PING says that its client knows of nothing before it: what there is
// under that routing id was another one's.
func TestFirstPingStartsFromNothing(t *testing.T) {
	for _, agreed := range []bool{false, true} {
		st := newStage(t)
		l := st.old()
		if agreed {
			l = st.modern().on(0)
		}
		r := st.modern().on(1)
		r.input("p").gets("INPUT_OK")
		l.output("p").gets("OUTPUT_OK").write("confirmed", 0).gets("WRITE_OK")
		if agreed {
			l.on(2).input("q").gets("INPUT_OK").read(1, 5).waits()
		}
		l.congested = true // with answers to the one before
		l.ping()
		l.congested = false
		st.tokens++
		l.sayHello(100)
		if n := len(l.session.backlog); n > 0 {
			t.Errorf("%d answers to the client before wait for the new one", n)
		}
		if n := len(l.session.channels); n > 0 || l.session.token != st.tokens {
			t.Errorf("%d conversations go on in session %x", n, l.session.token)
		}
		r.read(100, 0).gets(`READ_OK "confirmed"`).read(1, 0).gets("READ_FAILED vanished")
		st.pass(time.Hour)
		l.on(2).waits()
		l.on(1).output("p").gets("OUTPUT_OK")
		st.sawViolations(0)
		st.leavesNothing()
	}
}

func TestChannelsAreIndependent(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	c.on(1).input("p").gets("INPUT_OK").read(1, 0).waits()
	c.on(2).output("q").gets("OUTPUT_OK").write("waits", 0).waits()
	c.on(math.MaxUint32).output("p").gets("OUTPUT_OK").write("x", 0).gets("WRITE_OK")
	c.on(1).gets(`READ_OK "x"`).close().gets("CLOSE_OK")
	c.on(2).waits().close().gets("WRITE_FAILED closed", "CLOSE_OK")
	c.on(math.MaxUint32).gets("WRITE_FAILED closed").close().gets("CLOSE_OK")
	if n := len(c.session.channels); n > 0 {
		t.Errorf("%d conversations are left of closed channels", n)
	}
}

func TestTooManyRequests(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		l := dial().input("p").gets("INPUT_OK").read(1, 0)
		w := dial().output("p").gets("OUTPUT_OK")
		for range maxQueued {
			l.read(1, 0)
		}
		l.waits()
		w.write("x", 0).gets("WRITE_OK")
		l.gets(`READ_OK "x"`).read(1, 0).waits()
		session := l.session
		if l.read(1, 0); l.agreed {
			l.gets("READ_FAILED broker gone").on(0).gets("INVALID broker gone")
		} else {
			l.gets("READ_FAILED", "INVALID")
		}
		if !session.gone {
			t.Error("the session goes on")
		}
		st.sawViolations(1)
	})
}

func TestTooManyBytes(t *testing.T) {
	const behind = minQueueBytes + queueSlack // what may wait behind the first one
	for _, test := range []struct {
		name    string
		pending int
		behind  int
		dropped bool
	}{
		{"as many as there may be", stagePending, behind, false},
		{"one more", stagePending, behind + 1, true},
		{"as many as a large pipe may have", 3 * minQueueBytes, 3*minQueueBytes + queueSlack, false},
	} {
		st := newStageOf(t, test.pending, 2*test.behind)
		l := st.old().output("p").gets("OUTPUT_OK")
		l.write(strings.Repeat("f", 2*behind), 0).waits() // the first one does not count
		rest := test.behind - 2*(chunkOffset+4)
		l.write(strings.Repeat("b", rest/2), 0).waits()
		if l.write(strings.Repeat("b", rest-rest/2), 0); test.dropped {
			l.gets("WRITE_FAILED", "INVALID")
		} else {
			l.waits()
			st.old().input("p").gets("INPUT_OK").read(4, 0).gets(`READ_OK "ffff"`)
			l.gets("WRITE_OK")
		}
	}
}

// Many channels together are bounded, too.
func TestTooMuchOnAllChannels(t *testing.T) {
	t.Run("requests", func(t *testing.T) {
		st := newStage(t)
		maxRequests := defaultPerClient.Requests
		st.pipes.maxPipes = maxRequests
		c := st.modern()
		const each = maxQueued + 1
		for channel := uint32(1); channel <= uint32(maxRequests/each); channel++ {
			c.on(channel).input(fmt.Sprint(channel)).gets("INPUT_OK")
			for range each {
				c.on(channel).read(1, 0)
			}
		}
		l := c.on(0).input("last").gets("INPUT_OK")
		for range maxRequests % each {
			l.read(1, 0)
		}
		l.waits()
		l.read(1, 0).gets("READ_FAILED broker gone", "INVALID broker gone")
		c.heard = nil
		st.leavesNothing()
	})
	t.Run("bytes", func(t *testing.T) {
		const large = 16 << 20
		maxBytes := int(defaultPerClient.Pending)
		st := newStageOf(t, 2*maxBytes, large)
		l := st.old().output("p").gets("OUTPUT_OK")
		// It is the same memory each time, but the session can't know.
		frame := (&message{id: msgWrite, chunk: make([]byte, large-chunkOffset-4)}).append(nil)
		for range maxBytes / large {
			l.deliver(frame)
		}
		if l.waits(); l.session.account.bytes != int64(maxBytes) {
			t.Errorf("%d bytes are counted, want %d", l.session.account.bytes, maxBytes)
		}
		session := l.session
		if l.write(strings.Repeat("x", stageMessage), 0).gets("WRITE_FAILED", "INVALID"); session.account.requests != 0 || session.account.bytes != 0 {
			t.Errorf("%d requests of %d bytes are counted behind the end", session.account.requests, session.account.bytes)
		}
	})
	t.Run("one that ZeroMQ should have stopped", func(t *testing.T) {
		st := newStage(t)
		frame := make([]byte, stageMessage+messageOverhead+1)
		copy(frame, (&message{id: msgOutput, text: []byte("p")}).append(nil))
		l := st.old()
		l.deliver(frame)
		l.gets("INVALID")
		st.sawViolations(1)
		l.deliver(frame[:len(frame)-1])
		l.gets("OUTPUT_OK")
	})
}

// A READ that could be answered for long takes turns with what others want.
func TestStreamTakesTurns(t *testing.T) {
	st := newStageOf(t, 1<<20, stageMessage)
	w := st.old().output("p").gets("OUTPUT_OK")
	r := st.modern().on(1).input("p").gets("INPUT_OK")
	const chunk = copyUpTo + 1 // each is an answer of its own
	for range 2*maxBurst + 10 {
		w.write(strings.Repeat("c", chunk), 0).gets("WRITE_OK")
	}
	st.held = true
	r.readWith(readStream, 1<<20, 50)
	for _, want := range []int{maxBurst, maxBurst, 10, 0} {
		if got := len(r.heard); got != want {
			t.Errorf("%d answers in a turn, want %d", got, want)
		}
		r.heard = nil
		posted := st.posted
		st.posted = nil
		for _, c := range posted {
			*c.flag() = false
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

// A client that always has a request waiting must not make the broker remember
// all those that it has answered.
func TestAnsweredRequestsLeaveNoMemory(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK").read(1, 0)
		w := dial().output("p").gets("OUTPUT_OK")
		q := &r.session.channels[r.channel].queue
		check := func(waiting, most int) {
			t.Helper()
			var frames int
			for _, r := range q.items[:cap(q.items)] {
				if r.frame != nil {
					frames++
				}
			}
			if q.len() != waiting || frames != waiting || cap(q.items) > most {
				t.Fatalf("room for %d requests, and %d frames in it, where %d of %d wait", cap(q.items), frames, q.len(), waiting)
			}
		}
		for range 1000 {
			r.read(1, 0)
			check(2, 16)
			r.read(1, 0)
			check(3, 16)
			w.write("x", 0).write("y", 0).gets("WRITE_OK", "WRITE_OK")
			r.gets(`READ_OK "x"`, `READ_OK "y"`)
			check(1, 16)
		}
		// A long queue is forgotten once it is empty.
		for range 100 {
			r.read(1, 0)
		}
		w.write(strings.Repeat("z", 101), 0).gets("WRITE_OK")
		check(0, 4)
		if r.skip(); q.bytes != 0 {
			t.Errorf("%d bytes, where nothing waits", q.bytes)
		}
	})
}

func TestSilentClientIsDropped(t *testing.T) {
	for _, test := range []struct {
		name   string
		agreed bool
		beat   uint32
		after  time.Duration
	}{
		{"old", false, 0, stageExpiry},
		{"agreed", true, 100, 400 * time.Millisecond},
		{"agreed on a very fast heartbeat", true, 1, 40 * time.Millisecond},
		{"agreed on none", true, 0, 40 * time.Millisecond},
		{"agreed on a slower one than there may be", true, math.MaxUint32, 4 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newStage(t)
			r, w := st.old(), st.old()
			if test.agreed {
				r = st.call().on(0)
				r.sayHello(test.beat)
			}
			r.input("p").gets("INPUT_OK").read(1, 0)
			w.output("p").gets("OUTPUT_OK")
			for _, sign := range []func(){ // of life, which any message is
				func() { r.read(1, 0) },
				func() { r.ping() },
				func() { r.output("a second open") },
			} {
				st.pass(test.after - 1)
				if r.session.expire(st.now) {
					t.Fatal("dropped too early")
				}
				sign()
			}
			st.pass(test.after - 1)
			if r.skip(); r.session.expire(st.now) {
				t.Fatal("dropped too early")
			}
			st.pass(1)
			session := r.session
			if !session.expire(st.now) || !session.gone {
				t.Fatal("not dropped")
			}
			st.settle()
			if test.agreed {
				r.gets("READ_FAILED broker gone", "INVALID broker gone")
			} else {
				r.gets("READ_FAILED") // the one that was waiting, and no more
			}
			w.write("x", 0).gets("WRITE_FAILED")
			if r.read(1, 0); test.agreed {
				r.gets("INVALID broker gone")
			} else {
				r.gets("INVALID")
			}
			st.leavesNothing()
		})
	}
}

// A client of the base protocol that waits sends nothing. It has the time that it may be
// silent from the answer on; when its connection has ended it is dropped.
func TestClientThatWaitsIsNotSilent(t *testing.T) {
	st := newStage(t)
	r, w := st.old(), st.old()
	r.input("p").gets("INPUT_OK").read(1, 0)
	w.output("p").gets("OUTPUT_OK")
	r.session.presence = present
	for range 10 {
		st.pass(stageExpiry)
		if r.session.expire(st.now) {
			t.Fatal("dropped while it waits")
		}
	}
	w.write("x", 0).gets("WRITE_OK")
	r.gets(`READ_OK "x"`)
	if st.pass(stageExpiry - 1); r.session.expire(st.now) {
		t.Fatal("dropped before it could be heard again")
	}
	r.read(1, 0)
	r.session.presence = present
	st.pass(stageExpiry)
	if r.session.expire(st.now) {
		t.Fatal("dropped while it waits again")
	}
	r.session.presence = absent
	st.pass(stageExpiry)
	if !r.session.expire(st.now) {
		t.Fatal("not dropped though its connection has ended")
	}
	st.settle()
	r.gets("READ_FAILED")
	w.write("x", 0).gets("WRITE_FAILED")
}

func TestSilentAgreedClientIsToldWhy(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	c.on(1).input("p").gets("INPUT_OK").read(1, 0).read(1, 0)
	c.on(2).output("p").gets("OUTPUT_OK")
	c.on(3).output("q").gets("OUTPUT_OK").write("x", 0)
	st.pass(500 * time.Millisecond)
	if !c.session.expire(st.now) {
		t.Fatal("not dropped")
	}
	st.settle()
	c.on(1).gets("READ_FAILED broker gone")
	c.on(2).waits()
	c.on(3).gets("WRITE_FAILED broker gone")
	c.on(0).gets("INVALID broker gone")
	st.leavesNothing()
}

// What libzmq does not take for a client must not grow because of what others
// write.
func TestBacklogHoldsReadsBack(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	r := c.on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	exact := c.on(2).input("q").gets("INPUT_OK")
	w2 := st.modern().on(1).output("q").gets("OUTPUT_OK")

	c.congested = true
	r.readWith(readStream, 100, 0)
	exact.read(1, 20)
	w.write("into the backlog", 0).write("stays in the pipe", 0).gets("WRITE_OK", "WRITE_OK")
	w2.write("x", 0).gets("WRITE_OK")
	if n := len(c.session.backlog); n != 1 {
		t.Errorf("%d answers are waiting, want 1", n)
	}
	// Neither does the end of a pipe get through, but the time does.
	w2.close().gets("CLOSE_OK")
	c.on(0).ping()
	st.pass(20 * time.Millisecond)
	r.waits()
	if n := len(c.session.backlog); n != 3 {
		t.Errorf("%d answers are waiting, want 3", n)
	}
	c.relieve()
	r.gets(`READ_OK "into the backlog"`, `READ_OK "stays in the pipe"`)
	c.on(0).gets("PING_OK")
	exact.gets("READ_TIMEOUT").read(5, 0).gets(`READ_OK "x"`).read(5, 0).gets("READ_END")
}

// The broker may come to a wake-up when its channel is no more, and another
// one has its channel.
func TestLateWakeUps(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	r := c.on(1).input("p").gets("INPUT_OK").read(1, 0)
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	st.held = true
	w.write("x", 0)
	r.close().gets("READ_FAILED closed", "CLOSE_OK")
	r.input("q").gets("INPUT_OK")
	st.held = false
	st.resume()
	r.waits().read(1, 0)
	st.modern().on(1).output("q").write("y", 0)
	r.gets(`READ_OK "y"`)
	w.gets("WRITE_OK", "WRITE_FAILED closed")
	st.leavesNothing()
}

// Who closes has no more to do with its pipe.
func TestClosingWakesTheOtherEndOnly(t *testing.T) {
	st := newStage(t)
	r := st.old().input("p").gets("INPUT_OK").read(5, 0)
	w := st.old().output("p").gets("OUTPUT_OK")
	st.held = true
	r.close().gets("READ_FAILED", "CLOSE_OK")
	if len(st.posted) != 1 || st.posted[0] != w.session.channels[0] {
		t.Errorf("%d wake-ups, want the writer's", len(st.posted))
	}
}

// An old client has no more than the reason to go by.
func TestReasonsOfEndsWithoutAText(t *testing.T) {
	for _, test := range []struct {
		id   messageID
		code causeCode
		says string
	}{
		{msgReadFailed, causeVanished, "vanished"},
		{msgWriteFailed, causeVanished, "vanished"},
		{msgReadFailed, causeUndelivered, "gave up"},
		{msgWriteFailed, causeClosed, "reader has left"},
		{msgWriteFailed, causeAborted, "reader has left"},
		{msgReadFailed, causeAborted, "closed"},
	} {
		if got := (cause{code: test.code}).reason(test.id); !strings.Contains(got, test.says) {
			t.Errorf("%s for cause %d says %q, want %q in it", wireLayout[test.id].name, test.code, got, test.says)
		}
	}
}

// Direct ends and remote ones meet on the same pipes.
func TestRemoteReaderOfAWriterInThisProcess(t *testing.T) {
	st := newStage(t)
	p := mustOpen(t, st.pipes, "p", writer, 5000)
	p.write(bytes.Repeat([]byte("window "), 700))
	r := st.old().input("p").gets("INPUT_OK")
	if p.unconfirmed != 4900-stagePending {
		t.Errorf("%d bytes unconfirmed", p.unconfirmed)
	}
	// It takes from the window what a READ waits for.
	r.read(2500, 0).gets("READ_OK of 2500")
	if p.unconfirmed != 4900-2500-stagePending {
		t.Errorf("%d bytes unconfirmed", p.unconfirmed)
	}
	p.leave(writer, cause{code: causeVanished})
	st.pipes.release(p)
	st.settle()
	r.read(stageMessage, 0).read(1, 0).gets(fmt.Sprint("READ_OK of ", stagePending), "READ_FAILED")
	st.leavesNothing()
}

// CLOSE on the connection's own channel takes leave.
func TestLeaveOfAConnection(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	r := c.on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	c.on(0).close().waits()
	if !c.session.gone {
		t.Error("the session goes on")
	}
	r.waits()
	w.gets("WRITE_FAILED vanished")
	st.leavesNothing()
}
