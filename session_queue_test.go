package zpipes

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSessionQueueChunksStayWhole(t *testing.T) {
	st := newStage(t)
	q := st.member("q").put("one", "", "three").confirms(3).put("four").confirms(1)
	r := st.member("q").ask(2, 0).gets(bring("one", ""))
	r.ask(2, 2).gets(bring("three", "four")).ask(2, 0).waits()
	q.put("five", "six").confirms(2)
	r.gets(bring("five", "six")).ask(0, 4).waits()
	q.ask(1, 0).close().gets("CLOSE_OK") // the READ that waits is just over
	r.put("mine").confirms(1).ask(1, 0).gets(bring("mine")).close().gets("CLOSE_OK")
	st.checkQueued("q", "mine")
	st.leavesNothing()
}

func TestSessionQueueReceiversAreServedInTheOrderOfAsking(t *testing.T) {
	st := newStage(t)
	q := st.member("q")
	a, b, c := st.member("q").ask(3, 0), st.member("q").ask(1, 0), st.member("q").ask(1, 0)
	// Nobody gets a second one while others wait for a first.
	q.put("1", "2", "3", "4", "5").confirms(5)
	a.gets(bring("1", "4", "5"))
	b.gets(bring("2"))
	c.gets(bring("3"))
	st.leavesNothing()
}

func TestSessionQueueSendersTakeTurns(t *testing.T) {
	st := newStage(t)
	heavy, light := st.member("q"), st.member("q")
	heavy.put("h1", "h2", "h3", "h4").confirms(4)
	light.put("l1", "l2").confirms(2)
	st.member("q").ask(6, 0).gets(bring("h1", "l1", "h2", "l2", "h3", "h4"))

	// Those who wait for room take turns as well.
	st = newStage(t)
	heavy, light, r := st.member("q"), st.member("q"), st.member("q")
	half := strings.Repeat("h", stagePending/2)
	heavy.put(half, half, half, half).confirms(2)
	light.put(half, half).confirms(0)
	for _, step := range []struct{ heavy, light int }{{1, 0}, {0, 1}, {1, 0}, {0, 1}, {0, 0}} {
		r.ask(1, 0).gets(bring(half)).ask(0, 1).waits()
		heavy.confirms(step.heavy)
		light.confirms(step.light)
	}
	st.leavesNothing()
}

func TestSessionQueueWritesToAFullOneWait(t *testing.T) {
	st := newStage(t)
	q, r := st.member("q"), st.member("q")
	most := strings.Repeat("m", stagePending-leastChunk)
	q.put(most, "", "x", "y").confirms(2)
	if q.session.account.bytes != 2*leastChunk {
		t.Errorf("%d bytes wait", q.session.account.bytes)
	}
	r.ask(2, 0).gets(bring(most, ""))
	q.waits() // they are there until the receiver has said that it has them
	r.ask(0, 1).waits()
	q.confirms(2)
	if q.session.account.bytes != 0 {
		t.Errorf("%d bytes wait", q.session.account.bytes)
	}
	st.leavesNothing()
}

// What a receiver was sent and has not counted goes back, to the front and in order.
func TestSessionQueueWhatAReceiverDoesNotHaveGoesBack(t *testing.T) {
	for name, end := range map[string]func(r *line){
		"CLOSE":                  func(r *line) { r.close().gets("CLOSE_OK") },
		"its connection is lost": func(r *line) { r.gone() },
		"it is silent":           func(r *line) { r.session.expire(born.Add(time.Hour)) },
		"it breaks the protocol": func(r *line) { r.queue("q").gets("INVALID") },
		"it returns them":        func(r *line) { r.askWith(readReturn, 0, 0).gets("READ_TIMEOUT") },
		"it returns them and asks": func(r *line) {
			r.stage.held = true
			r.askWith(readReturn, 1, 0).gets("READ_TIMEOUT", bring("b"))
			r.gone()
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			q := st.member("q").put("a", "b", "c", "d").confirms(4)
			r := st.member("q").ask(3, 0).gets(bring("a", "b", "c")).ask(0, 1)
			end(r)
			st.held = false
			st.resume()
			st.checkQueued("q", "b", "c", "d")
			if s := st.pipes.queues()["q"]; s.out != 1 {
				t.Errorf("%d bytes are out, want 1", s.out)
			}
			q.ask(3, 0).gets(bring("b", "c", "d"))
			st.leavesNothing()
		})
	}
}

// So does what it has been given but was not sent.
func TestSessionQueueWhatAReceiverWasNotSentGoesBack(t *testing.T) {
	st := newStage(t)
	q, r := st.member("q"), st.member("q").ask(5, 0)
	st.held = true
	q.put("a", "b")
	r.gone()
	st.held = false
	st.resume()
	q.confirms(2)
	st.checkQueued("q", "a", "b")
	st.leavesNothing()
}

func TestSessionQueueReturnCancelsTheRead(t *testing.T) {
	st := newStage(t)
	q, r := st.member("q"), st.member("q").ask(5, 0).askWith(readReturn, 0, 0).gets("READ_TIMEOUT")
	q.put("a").confirms(1)
	r.waits().ask(1, 0).gets(bring("a"))
	st.leavesNothing()
}

func TestSessionQueueMembersThatBreakTheProtocol(t *testing.T) {
	for name, breaks := range map[string]func(m *line){
		"more counted than was sent":    func(m *line) { m.ask(0, 3) },
		"any number counted":            func(m *line) { m.ask(5, math.MaxUint32) },
		"a WRITE without a chunk":       func(m *line) { m.put() },
		"a WRITE that is no sequence":   func(m *line) { m.write("\x00\x00\x00\x05abc", 0) },
		"a length cut short":            func(m *line) { m.write("\x00\x00\x00\x01a\x00", 0) },
		"too large a chunk":             func(m *line) { m.put("x", strings.Repeat("l", stagePending+1)) },
		"a second open":                 func(m *line) { m.queue("other") },
		"a message that is the brokers": func(m *line) { m.send(message{id: msgReadOK}) },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			q := st.member("q").put("a", "b", "c").confirms(3)
			m := st.member("q").ask(2, 0).gets(bring("a", "b"))
			breaks(m)
			m.gets("INVALID")
			st.sawViolations(1)
			st.checkQueued("q", "a", "b", "c")
			q.put("d").confirms(1)
			m.queue("q").opens(modeQueue).ask(1, 0).skip()
			st.leavesNothing()
		})
	}
}

func TestSessionQueueTooMuchSentToAFullOne(t *testing.T) {
	st := newStageOf(t, stagePending, 1<<20)
	full := strings.Repeat("f", stagePending)
	other := st.member("q").put(full).confirms(1)
	m := st.member("q")
	part := make([]string, 100)
	for i := range part {
		part[i] = full
	}
	sent := 0
	for len(st.violations) == 0 {
		if sent += len(packed(part...)); sent > 2*m.session.queueBytes() {
			t.Fatal("it takes more than it may")
		}
		m.put(part...)
	}
	if sent < m.session.queueBytes() {
		t.Errorf("refused after %d bytes, and %d are allowed", sent, m.session.queueBytes())
	}
	st.sawViolations(1)
	m.gets("INVALID")
	if m.session.account.bytes != 0 {
		t.Errorf("%d bytes are left", m.session.account.bytes)
	}
	// Another channel of the same client is not meant.
	m.on(2).queue("q").opens(modeQueue).put("x").confirms(0)
	other.ask(1, 0).gets(bring(full)).ask(0, 1)
	m.on(2).confirms(1)
	st.leavesNothing()
}

// A message is no larger than others like it, and what does not fit in comes with the
// next one.
func TestSessionQueueAnswersWithManyChunksAreNotLarge(t *testing.T) {
	st := newStageOf(t, 1<<20, 1<<20)
	large := func(x string) string { return strings.Repeat(x, 30000) }
	giant := strings.Repeat("g", 200000)
	st.member("q").put(large("a"), large("b"), large("c"), giant, "d", "e").confirms(6)
	r := st.member("q")
	asked := uint32(6)
	for _, want := range [][]string{{large("a"), large("b")}, {large("c")}, {giant}, {"d", "e"}} {
		if len(r.heard) == 0 {
			r.ask(asked, 0)
		}
		m, err := parse(r.heard[0])
		if err != nil || !bytes.Equal(m.chunk, packed(want...)) {
			t.Fatalf("a READ_OK of %d bytes (%v), want %d", len(m.chunk), err, len(packed(want...)))
		}
		r.heard = r.heard[1:]
		asked -= uint32(len(want))
	}
	r.ask(0, 6).waits().ask(1, 1).gets("INVALID")
	st.leavesNothing()
}

func TestSessionQueueDeletedTellsAll(t *testing.T) {
	st := newStage(t)
	full := strings.Repeat("f", stagePending)
	idle := st.member("q")
	waits := st.member("q")
	reads := st.base().input("q").gets("INPUT_OK")
	modern := st.modern().on(1).input("q").opens(modeQueue)
	writes := st.base().output("q").gets("OUTPUT_OK")
	calm := st.modern().on(1).output("q").gets("OUTPUT_OK")
	var receivers []*line
	for range 2 {
		receivers = append(receivers, st.modern().on(1).queue("q").opens(modeQueue).ask(1, 0))
	}
	reads.read(3, 0).read(3, 0).waits()
	modern.readWith(readAny, 3, 0).waits()
	reader := st.call().text("READ", "q").says()
	st.modern().on(1).inputAs(modeDelete, "q").gets("INPUT_OK").write("nothing is open", 0).gets("INVALID")

	for _, l := range append(receivers, idle, waits) {
		l.gets("WRITE_FAILED deleted", "READ_FAILED deleted")
		l.put("x").gets("WRITE_FAILED deleted").ask(0, 0).close().gets("CLOSE_OK")
	}
	reads.gets("READ_FAILED", "READ_END").close().gets("CLOSE_OK")
	modern.gets("READ_FAILED deleted").read(1, 0).gets("READ_END").close().gets("CLOSE_OK")
	calm.gets("WRITE_FAILED deleted").write("x", 0).gets("WRITE_FAILED deleted").close().gets("CLOSE_OK")
	writes.waits().write("x", 0).gets("WRITE_FAILED").close().gets("CLOSE_OK")
	reader.says("ERROR")
	st.modern().on(1).inputAs(modeDelete, "q").gets("INPUT_FAILED no queue")

	// Now with chunks in it, and some that wait.
	idle.queue("q").opens(modeQueue).put(full, "x").confirms(1)
	writes.output("q").gets("OUTPUT_OK").write("y", 0).waits()
	w := st.call().text("WRITE", "q", "z").says()
	st.modern().on(1).inputAs(modeDelete, "q").gets("INPUT_OK")
	idle.gets("WRITE_FAILED deleted", "READ_FAILED deleted")
	writes.gets("WRITE_FAILED")
	w.says("ERROR").text("READ", "q").says("ERROR")
	st.member("q").ask(1, 0).waits() // a new one
	st.leavesNothing()
}

// Who asks for chunks of a durable queue, and does not say that he has them, has none of them kept in memory; what comes
// back is as it was.
func TestSessionQueueOfADiskKeepsNothingThatIsSent(t *testing.T) {
	st := newStage(t)
	q := st.member("q")
	s := st.pipes.queues()["q"]
	log := &bodyLog{shop: &shop{T: t, chunkQueue: s}}
	s.keepBy(log)
	q.put("aa", "", "bb")
	s.committed(3, 0)
	has := st.member("q").ask(3, 0).gets(bring("aa", "", "bb"))
	e := has.session.channels[1].open.(*queueMember)
	for _, j := range e.out.all() {
		if j.data != nil {
			t.Errorf("%q is in memory", j.data)
		}
	}
	has.askWith(readReturn, 0, 1).gets("READ_TIMEOUT")
	s.committed(0, s.noting.len())
	next := st.member("q").ask(2, 0).waits()
	log.bring()
	st.resume()
	next.gets(bring("", "bb"))
}

// What was under way when the queue was deleted does not come back, into that one or
// the next.
func TestSessionQueueDeletedStaysEmpty(t *testing.T) {
	st := newStage(t)
	q := st.member("q").put("a", "bcd", "e").confirms(3)
	has := st.member("q").ask(1, 0).gets(bring("a"))
	part := st.base().input("q").gets("INPUT_OK").read(2, 0).gets(`READ_OK "bc"`)
	last := st.member("q").ask(1, 0).gets(bring("e"))
	given := st.base().input("q").gets("INPUT_OK").read(1, 0).waits()
	st.held = true
	q.put("f").confirms(1)
	st.pipes.delete("q", st.now)
	st.held = false
	s := queueEndOf(q.session.channels[1]).queue
	st.resume()
	given.gets(`READ_OK "f"`).close().gets("CLOSE_OK")
	part.close().gets("CLOSE_OK")
	has.ask(0, 1).close().gets("WRITE_FAILED deleted", "READ_FAILED deleted", "CLOSE_OK")
	last.gone()
	if s.held != 0 || s.count != 0 || s.bytes != 0 || s.available() {
		t.Errorf("%d held, %d bytes, %d chunks; some to be had: %v", s.held, s.bytes, s.count, s.available())
	}
	q.gets("WRITE_FAILED deleted", "READ_FAILED deleted")
	if n := len(st.pipes.queues()); n != 0 {
		t.Errorf("%d queues", n)
	}
	st.leavesNothing()
}

// A shutdown ends when all that can be received has been.
func TestSessionQueueShutdownLetsReceiversDrain(t *testing.T) {
	st := newStage(t)
	full := strings.Repeat("f", stagePending-3*leastChunk)
	sends := st.member("q").put("ab", "cd", "ef", full, "lost in the window").confirms(4)
	r, b := st.member("q"), st.modern().on(1).input("q").opens(modeQueue)
	r.ask(1, 0).gets(bring("ab"))
	b.read(1, 0).gets(`READ_OK "c"`)
	sends.confirms(0)
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	st.settle()
	told, empty := "WRITE_FAILED broker gone", "READ_FAILED broker gone"
	sends.gets(told).put("x").gets(told)
	r.gets(told).ask(1, 1).gets(bring("ef")).ask(1, 0).gets(bring(full), empty)
	sends.waits().resumed().gets(empty)
	if st.pipes.emptied() {
		t.Fatal("empty with half a chunk to be read")
	}
	b.waits().read(1, 0).gets(`READ_OK "d"`)
	if st.pipes.emptied() {
		t.Fatal("empty before the reader has met the end")
	}
	b.read(1, 0).gets(empty).read(1, 0).gets("READ_END")
	if !st.pipes.emptied() {
		t.Error("not empty though all has been received")
	}
	st.leavesNothing()
}

// A reader that has just come may not have asked for anything yet.
func TestSessionQueueShutdownWaitsForAReader(t *testing.T) {
	for name, leaves := range map[string]func(b *line){
		"it closes":   func(b *line) { b.close().gets("CLOSE_OK") },
		"it vanishes": func(b *line) { b.gone() },
		"it reads all": func(b *line) {
			b.read(1, 0).read(9, 0).gets(`READ_OK "a"`, `READ_OK "b"`)
			if b.stage.pipes.emptied() {
				b.stage.t.Error("empty before the reader has met the end")
			}
			b.read(9, 0).gets("READ_FAILED broker gone")
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			st.member("q").put("a", "b").confirms(2)
			b := st.modern().on(1).input("q").opens(modeQueue)
			st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
			st.settle()
			if st.pipes.emptied() {
				t.Fatal("empty while somebody is there who reads")
			}
			leaves(b)
			if !st.pipes.emptied() {
				t.Error("not empty in the end")
			}
			st.leavesNothing()
		})
	}
}

// Also for one who waits, and for whom there was nothing when the shutdown began.
func TestSessionQueueShutdownServesOneWhoWaitsWithWhatComesBack(t *testing.T) {
	st := newStage(t)
	st.member("q").put("abc").confirms(1)
	gone := st.member("q").ask(1, 0).gets(bring("abc"))
	waits := st.member("q").ask(1, 0).waits()
	st.held = true
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	gone.gone()
	st.held = false
	st.resume()
	waits.gets(bring("abc"), "WRITE_FAILED broker gone", "READ_FAILED broker gone")
	st.leavesNothing()
}

// Whoever takes the last chunk, those who do not wait for one are told that it was the last.
func TestSessionQueueShutdownTellsAllThatItIsEmpty(t *testing.T) {
	for name, takes := range map[string]func(st *stage, r *line){
		"a client":        func(st *stage, r *line) { r.skip().ask(1, 0).ask(0, 1) },
		"somebody inside": func(st *stage, r *line) { st.pipes.queues()["q"].takes(1); st.settle() },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			r := st.member("q")
			m := st.member("q").ask(1, 0).put("a", "b").gets("WRITE_OK", bring("a")).ask(0, 1)
			st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
			st.settle()
			m.gets("WRITE_FAILED broker gone")
			takes(st, r)
			m.gets("READ_FAILED broker gone")
			if !st.pipes.emptied() {
				t.Error("not empty though all has been received")
			}
			st.leavesNothing()
		})
	}
}

// What a receiver gives back during a shutdown is there for the others.
func TestSessionQueueShutdownGoesOnWithWhatComesBack(t *testing.T) {
	st := newStage(t)
	st.member("q").put("abc").confirms(1)
	b := st.modern().on(1).input("q").opens(modeQueue).read(1, 0).gets(`READ_OK "a"`)
	r := st.member("q")
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	b.send(message{id: msgClose, count: 0}).gets("CLOSE_OK")
	st.settle()
	r.skip().ask(1, 0).gets(bring("bc"), "READ_FAILED broker gone")
	st.leavesNothing()
}

// A chunk outlives the message that it came in, and the buffers of other messages.
func TestSessionQueueChunksAreKeptAsTheyWere(t *testing.T) {
	frame := bytes.Repeat([]byte("x"), 100)
	for _, n := range []int{0, 1, 49, 50, 99, 100} {
		kept := new(message).own(frame[:n], frame)
		if kept == nil || len(kept) != n {
			t.Fatalf("%d bytes kept of %d; nil: %v", len(kept), n, kept == nil)
		}
		if aliases := n > 0 && &kept[0] == &frame[0]; aliases != (n >= 50) {
			t.Errorf("%d bytes of %d keep the frame: %v", n, len(frame), aliases)
		}
	}
}

func TestSessionQueueOpens(t *testing.T) {
	st := newStage(t)
	m := st.modern()
	m.on(1).queue("").gets("INPUT_FAILED bad name")
	m.on(1).inputAs(modeDelete, "q").gets("INPUT_FAILED no queue")
	m.on(1).inputAs(7, "q").gets("INPUT_FAILED mode")
	m.on(1).queue("q").opens(modeQueue)
	m.on(2).output("s").gets("OUTPUT_OK")
	m.on(3).queue("s").gets("INPUT_FAILED mode").inputAs(modeDelete, "s").gets("INPUT_FAILED mode")
	m.on(3).input("s").opens(modeStream)
	m.on(4).input("q").opens(modeQueue)
	m.on(5).output("q").gets("OUTPUT_OK")
	m.on(4).queue("q").gets("INVALID")
	m.on(5).close().gets("CLOSE_OK").queue("q").opens(modeQueue)
	m.on(5).write("\x00\x00\x00\x01x", 0).confirms(1).close().gets("CLOSE_OK")
	m.on(4).input("q").opens(modeQueue).write("x", 0).gets("INVALID").read(1, 0).gets(`READ_OK "x"`)
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	st.settle()
	m.on(6).queue("new").gets("INPUT_FAILED broker gone").inputAs(modeDelete, "q").gets("INPUT_FAILED broker gone")
	st.sawViolations(1)
	st.leavesNothing()
}

// The base protocol knows no modes: what looks like one is none.
func TestSessionQueueBaseClientsOpenNone(t *testing.T) {
	st := newStage(t)
	st.base().queue("q").gets("INPUT_OK")
	if len(st.pipes.queues()) != 0 || len(st.pipes.pipes()) != 1 {
		t.Errorf("%d queues, %d streams", len(st.pipes.queues()), len(st.pipes.pipes()))
	}
	st.leavesNothing()
}
