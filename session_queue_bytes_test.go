package zpipes

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSessionQueueBytesOfChunks(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		q := st.member("q").put("hello", "", "world", "", "!").confirms(5)
		r := dial().input("q").gets("INPUT_OK")
		r.read(7, 0).read(0, 0).read(3, 0).read(1, 0).gets(`READ_OK "hellowo"`, "READ_END", `READ_OK "rld"`, `READ_OK "!"`)
		r.read(4, 0).waits()
		q.put("a", "", "b").confirms(3).put("cde").confirms(1)
		r.gets(`READ_OK "abcd"`).close().gets("CLOSE_OK")
		st.checkQueued("q", "e")
		r.read(1, 0).gets("INVALID")
		st.leavesNothing()
	})
}

// A reader takes chunks as far as it needs them, and in its turn.
func TestSessionQueueReadersOfBytesTakeTurns(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		q := st.member("q")
		a, b := dial().input("q").gets("INPUT_OK").read(3, 0), dial().input("q").gets("INPUT_OK").read(1, 0)
		whole := st.member("q").ask(1, 0)
		q.put("1", "2", "3", "4", "5").confirms(5)
		b.gets(`READ_OK "2"`)
		whole.gets(bring("3"))
		a.gets(`READ_OK "145"`)
		st.leavesNothing()
	})
}

// What a reader did not get goes back when it leaves: of the chunk that it read in
// part, the rest.
func TestSessionQueueWhatAReaderDidNotReadGoesBack(t *testing.T) {
	closes := func(unread uint32) func(*line) {
		return func(r *line) { r.send(message{id: msgClose, count: unread}).gets("CLOSE_OK") }
	}
	vanishes := func(r *line) { r.gone() }
	for _, test := range []struct {
		name  string
		reads []uint32
		end   func(r *line)
		left  []string
		out   int64
	}{
		{"nothing was read", nil, closes(0), []string{"abcd", "efgh", "ijkl"}, 0},
		{"nothing was read, and it vanishes", nil, vanishes, []string{"abcd", "efgh", "ijkl"}, 0},
		{"half a chunk", []uint32{2}, closes(0), []string{"cd", "efgh", "ijkl"}, 2},
		{"a chunk", []uint32{4}, closes(0), []string{"efgh", "ijkl"}, 4},
		{"half a chunk behind another", []uint32{1, 5}, closes(0), []string{"gh", "ijkl"}, 6},
		{"the last READ_OK unread", []uint32{3, 2}, closes(2), []string{"d", "efgh", "ijkl"}, 3},
		{"a part of the last READ_OK unread", []uint32{3, 5}, closes(3), []string{"fgh", "ijkl"}, 5},
		{"a chunk of the last READ_OK unread", []uint32{4, 4}, closes(4), []string{"efgh", "ijkl"}, 4},
		{"more unread than was sent", []uint32{3, 2}, closes(4), []string{"d", "efgh", "ijkl"}, 3},
		{"any number unread", []uint32{3, 2}, closes(math.MaxUint32), []string{"d", "efgh", "ijkl"}, 3},
		{"it vanishes", []uint32{3, 6}, vanishes, []string{"d", "efgh", "ijkl"}, 3},
		{"it vanishes after its first READ", []uint32{6}, vanishes, []string{"abcd", "efgh", "ijkl"}, 0},
		{"it vanishes behind a chunk", []uint32{4, 8}, vanishes, []string{"efgh", "ijkl"}, 4},
		{"all", []uint32{12}, closes(0), nil, 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newStage(t)
			q := st.member("q").put("abcd", "efgh", "ijkl").confirms(3)
			r := st.modern().on(1).input("q").opens(modeQueue)
			for _, n := range test.reads {
				r.read(n, 0)
			}
			r.skip()
			test.end(r)
			st.checkQueued("q", test.left...)
			if s := st.pipes.queues()["q"]; s.out != test.out || s.in != 12 {
				t.Errorf("%d bytes are out of %d, want %d", s.out, s.in, test.out)
			}
			q.ask(9, 0).skip()
			st.leavesNothing()
		})
	}
}

// The base protocol has no way to say what was read. What was sent counts.
func TestSessionQueueWhatABaseReaderWasNotSentGoesBack(t *testing.T) {
	st := newStage(t)
	st.member("q").put("abcd", "efgh").confirms(2)
	st.base().input("q").gets("INPUT_OK").read(6, 0).gets(`READ_OK "abcdef"`).gone()
	st.checkQueued("q", "gh")
	st.leavesNothing()
}

// A READ that goes on does not have the broker keep any amount for the case that the
// reader is lost.
func TestSessionQueueStreamEnds(t *testing.T) {
	st := newStage(t)
	q := st.member("q")
	r := st.modern().on(1).input("q").opens(modeQueue).readWith(readStream, math.MaxUint32, 0).waits()
	for range stageMessage/500 - 1 {
		q.put(strings.Repeat("x", 500)).confirms(1)
		r.gets(bring1("x", 500))
	}
	q.put(strings.Repeat("x", 500)).confirms(1)
	r.gets(bring1("x", 500), "READ_TIMEOUT")
	q.put("y").confirms(1)
	r.readWith(readStream, 10, 0).gets(`READ_OK "y"`)
	if e := openAs[*queueReader](r.session.channels[1]); e.loaded.len() != 1 {
		t.Errorf("%d chunks are kept", e.loaded.len())
	}
	st.leavesNothing()
}

func TestSessionQueueReaderTakesMoreThanItHolds(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		full := strings.Repeat("f", stagePending)
		q := st.member("q").put(full, full).put(full, full).confirms(1)
		r := dial().input("q").gets("INPUT_OK").read(2*stagePending+1, 0)
		r.gets(fmt.Sprint("READ_OK of ", 2*stagePending+1))
		q.confirms(3)
		// It goes back, and is more than the queue would take.
		r.close().gets("CLOSE_OK")
		st.checkQueued("q", full[1:], full)
		q.put("x").confirms(0).ask(2, 0).gets(bring(full[1:], full)).ask(0, 1).confirms(0).ask(0, 1).confirms(1)
		st.leavesNothing()
	})
}

func TestSessionQueueNoReadIsAnsweredWithTooMuch(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		q := st.member("q")
		r := dial().input("q").gets("INPUT_OK").read(stageMessage+1, 0).waits()
		full := strings.Repeat("f", stagePending)
		q.put(full, full, full).confirms(3)
		r.gets(r.failed("READ_FAILED")).read(stageMessage, 0).gets(fmt.Sprint("READ_OK of ", stageMessage))
		st.leavesNothing()
	})
}

func TestSessionQueueTimeoutsOfReads(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		ms := time.Millisecond
		q := st.member("q").put("ab").confirms(1)
		r := dial().input("q").gets("INPUT_OK").read(5, 100).waits()
		st.pass(100*ms - 1)
		r.waits()
		st.pass(1)
		r.gets("READ_TIMEOUT")
		q.put("c").confirms(1) // which it does not want any more
		st.checkQueued("q", "c")
		// It keeps what it took.
		r.read(2, 0).gets(`READ_OK "ab"`)

		// What it is given at the last moment comes with the next READ, and is
		// nobody else's loss if it leaves instead.
		r.read(3, 100).waits()
		st.held = true
		q.put("d").confirms(1)
		st.now = st.now.Add(100 * ms)
		st.held = false
		r.resumed().gets("READ_TIMEOUT")
		st.resume()
		q.put("e").confirms(1)
		st.checkQueued("q", "e")
		r.close().gets("CLOSE_OK")
		st.checkQueued("q", "c", "d", "e")
		st.leavesNothing()
	})
}

// What it takes makes room, and so it may be given one more chunk in the very moment
// at which its time is over.
func TestSessionQueueReadThatIsGivenAChunkTooLate(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		full := strings.Repeat("f", stagePending)
		q, r := st.member("q"), dial().input("q").gets("INPUT_OK").read(2*stagePending, 100)
		st.held = true
		q.put(full, "x").confirms(1)
		st.now = st.now.Add(100 * time.Millisecond)
		st.held = false
		r.resumed().gets("READ_TIMEOUT")
		st.resume()
		q.confirms(1)
		st.checkQueued("q", "x")
		r.close().gets("CLOSE_OK")
		st.checkQueued("q", full, "x")
		st.leavesNothing()
	})
}

func TestSessionQueueReadsOfWhatItHas(t *testing.T) {
	st := newStage(t)
	q := st.member("q").put("abc", "def").confirms(2)
	r := st.modern().on(1).input("q").opens(modeQueue)
	r.readWith(readAny, 10, 0).readWith(readAny, 10, 0).gets(`READ_OK "abc"`, `READ_OK "def"`)
	r.readWith(readAny, 10, 0).waits()
	q.put("g", "h").confirms(2)
	r.gets(`READ_OK "g"`)
	st.checkQueued("q", "h")
	r.readWith(readAny, 1, 0).gets(`READ_OK "h"`)
	st.leavesNothing()
}

// A READ that is answered several times gets chunks as they come.
func TestSessionQueueStream(t *testing.T) {
	st := newStage(t)
	q := st.member("q").put("abc", "def").confirms(2)
	r := st.modern().on(1).input("q").opens(modeQueue).readWith(readStream, 10, 0).gets(`READ_OK "abc"`, `READ_OK "def"`)
	q.put("gh").confirms(1)
	r.gets(`READ_OK "gh"`)
	q.put("ijk", "l").confirms(2)
	r.gets(`READ_OK "ij"`)
	r.close().gets("CLOSE_OK")
	st.checkQueued("q", "k", "l")

	// Only the next READ says that all this has arrived.
	r.input("q").opens(modeQueue).readWith(readStream, 10, 0).gets(`READ_OK "k"`, `READ_OK "l"`).gone()
	st.checkQueued("q", "k", "l")
	st.leavesNothing()
}

// Empty chunks are nothing to a reader of bytes, however many there are.
func TestSessionQueueEmptyChunksDoNotPileUp(t *testing.T) {
	st := newStage(t)
	r := st.modern().on(1).input("q").gets("INPUT_OK").close().gets("CLOSE_OK")
	q := st.member("q")
	r.input("q").opens(modeQueue).read(1, 0)
	for range 1000 {
		q.put("", "").confirms(2)
	}
	if n := openAs[*queueReader](r.session.channels[1]).loaded.len(); n > 2 {
		t.Errorf("%d chunks are kept", n)
	}
	q.put("x").confirms(1)
	r.gets(`READ_OK "x"`)
	st.leavesNothing()
}

func TestSessionQueueCongestedReader(t *testing.T) {
	st := newStage(t)
	st.member("q").put("abc", "def").confirms(2)
	r := st.modern().on(1).input("q").opens(modeQueue)
	r.congested = true
	r.read(3, 0).read(3, 0).waits()
	r.relieve()
	r.gets(`READ_OK "abc"`, `READ_OK "def"`)
	st.leavesNothing()
}

func TestSessionQueueWritesOfWriters(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		ms := time.Millisecond
		q := st.member("q")
		w := dial().output("q").gets("OUTPUT_OK")
		full := strings.Repeat("f", stagePending-2*leastChunk)
		w.write(full, 0).write("", 0).write("x", 0).gets("WRITE_OK", "WRITE_OK", "WRITE_OK") // no reader is needed
		w.write("late", 100).write("later", 0).waits()
		st.pass(100 * ms)
		w.gets("WRITE_TIMEOUT")
		q.ask(3, 0).gets(bring(full, "", "x")).ask(0, 1)
		w.gets("WRITE_OK")
		st.pass(time.Hour)
		w.waits().write(strings.Repeat("l", stagePending+1), 0)
		tooLarge := "WRITE_FAILED"
		if w.agreed { // closed would mean that the queue is over
			tooLarge = fmt.Sprintf("WRITE_FAILED aborted %q", "a chunk of 1001 bytes, where a queue takes at most 1000")
		}
		w.gets(tooLarge)
		w.write("fits", 0).gets("WRITE_OK")
		w.read(1, 0).gets("INVALID").close().gets("CLOSE_OK")
		q.ask(0, 2)
		st.checkQueued("q", "later", "fits")
		st.leavesNothing()
	})
}

// A WRITE that waits is not in the queue when its writer leaves.
func TestSessionQueueWriteThatWaitsLeavesWithItsWriter(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		full := strings.Repeat("f", stagePending)
		q := st.member("q").put(full).confirms(1)
		one, two := dial().output("q").gets("OUTPUT_OK"), dial().output("q").gets("OUTPUT_OK")
		one.write("one", 0).write("behind it", 0).waits()
		two.write("two", 0).waits()
		one.close().gets(one.failed("WRITE_FAILED"), "CLOSE_OK", "INVALID")
		q.ask(1, 0).gets(bring(full)).ask(0, 1)
		two.gets("WRITE_OK")
		st.checkQueued("q", "two")
		st.leavesNothing()
	})
}

// What a queue has taken is never called refused, whatever comes before the answer.
func TestSessionQueueWriteThatWasTakenIsConfirmed(t *testing.T) {
	for name, comes := range map[string]func(st *stage, w *line) (answers []string){
		"a CLOSE": func(st *stage, w *line) []string { w.close(); return []string{"WRITE_OK", "CLOSE_OK"} },
		"the broker's shutdown": func(st *stage, w *line) []string {
			st.pipes.close(cause{causeBrokerGone, "closing"}, false)
			if w.agreed {
				return []string{"WRITE_OK", "WRITE_FAILED broker gone"}
			}
			return []string{"WRITE_OK"}
		},
		"silence": func(st *stage, w *line) []string {
			w.session.expire(st.now.Add(time.Hour))
			return []string{"WRITE_OK"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
				full := strings.Repeat("f", stagePending)
				q := st.member("q").put(full).confirms(1).ask(1, 0).gets(bring(full))
				w := dial().output("q").gets("OUTPUT_OK").write("taken", 0).waits()
				st.held = true
				q.ask(0, 1)
				want := comes(st, w)
				st.held = false
				st.resume()
				w.gets(want...)
				st.checkQueued("q", "taken")
				st.leavesNothing()
			})
		})
	}
}

// Nor does WRITE_FAILED come before the WRITE_OK of what was taken.
func TestSessionQueueChunksThatWereTakenAreConfirmedFirst(t *testing.T) {
	st := newStage(t)
	full := strings.Repeat("f", stagePending)
	r := st.member("q").put(full).confirms(1).ask(1, 0).gets(bring(full))
	m := st.member("q").put("taken").waits()
	st.held = true
	r.ask(0, 1)
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	m.put("late").gets("WRITE_OK", "WRITE_FAILED broker gone")
	st.held = false
	st.resume()
	m.waits()
	st.checkQueued("q", "taken")
	st.leavesNothing()
}
