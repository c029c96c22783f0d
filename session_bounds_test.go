package zpipes

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSessionTooManyRequests(t *testing.T) {
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

func TestSessionTooManyBytes(t *testing.T) {
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
		l := st.base().output("p").gets("OUTPUT_OK")
		l.write(strings.Repeat("f", 2*behind), 0).waits() // the first one does not count
		rest := test.behind - 2*(chunkOffset+4)
		l.write(strings.Repeat("b", rest/2), 0).waits()
		if l.write(strings.Repeat("b", rest-rest/2), 0); test.dropped {
			l.gets("WRITE_FAILED", "INVALID")
		} else {
			l.waits()
			st.base().input("p").gets("INPUT_OK").read(4, 0).gets(`READ_OK "ffff"`)
			l.gets("WRITE_OK")
		}
	}
}

// Many channels together are bounded, too.
func TestSessionTooMuchOnAllChannels(t *testing.T) {
	t.Run("requests", func(t *testing.T) {
		st := newStage(t)
		const maxRequests = 1 << 13
		st.pipes.maxPipes = maxRequests
		c := st.modern()
		c.session.account.limits.Requests = maxRequests
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
		const large, maxBytes = 1 << 20, 16 << 20
		st := newStageOf(t, 2*maxBytes, large)
		l := st.base().output("p").gets("OUTPUT_OK")
		l.session.account.limits.Pending = maxBytes
		// It is the same memory each time, but the session can't know.
		frame := (&message{id: msgWrite, chunk: make([]byte, large-chunkOffset-4)}).append(nil)
		for range maxBytes / large {
			l.deliver(frame)
		}
		if l.waits(); l.session.account.bytes != maxBytes {
			t.Errorf("%d bytes are counted, want %d", l.session.account.bytes, maxBytes)
		}
		session := l.session
		if l.write(strings.Repeat("x", stageMessage), 0).gets("WRITE_FAILED", "INVALID"); session.account.requests != 0 || session.account.bytes != 0 {
			t.Errorf("%d requests of %d bytes are counted after the end", session.account.requests, session.account.bytes)
		}
	})
	t.Run("one that ZeroMQ should have stopped", func(t *testing.T) {
		st := newStage(t)
		frame := make([]byte, stageMessage+messageOverhead+1)
		copy(frame, (&message{id: msgOutput, text: []byte("p")}).append(nil))
		l := st.base()
		l.deliver(frame)
		l.gets("INVALID")
		st.sawViolations(1)
		l.deliver(frame[:len(frame)-1])
		l.gets("OUTPUT_OK")
	})
}

// A client that always has a request waiting must not make the broker remember
// all those that it has answered.
func TestSessionAnsweredRequestsLeaveNoMemory(t *testing.T) {
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

func TestSessionSilentClientIsDropped(t *testing.T) {
	for _, test := range []struct {
		name   string
		agreed bool
		beat   uint32
		after  time.Duration
	}{
		{"base", false, 0, stageExpiry},
		{"agreed", true, 100, 400 * time.Millisecond},
		{"agreed on a very fast heartbeat", true, 1, 40 * time.Millisecond},
		{"agreed on none", true, 0, 40 * time.Millisecond},
		{"agreed on a slower one than there may be", true, math.MaxUint32, 4 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := newStage(t)
			r, w := st.base(), st.base()
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
func TestSessionClientThatWaitsIsNotSilent(t *testing.T) {
	st := newStage(t)
	r, w := st.base(), st.base()
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

func TestSessionSilentAgreedClientIsToldWhy(t *testing.T) {
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
func TestSessionBacklogHoldsReadsBack(t *testing.T) {
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

// Many requests of one end that all can be answered at once are answered some at a time,
// so that others have their turn in between.
func TestSessionAnswersSomeAtATime(t *testing.T) {
	const many = 10 * maxBurst
	st := newStage(t)
	w, text := st.modern().on(1).output("p").gets("OUTPUT_OK"), st.call()
	for range many {
		w.write("x", 0)
	}
	text.text("OPEN", "q").text("WRITE", "q", strings.Repeat("f", stagePending)).says("OK", "OK").text("WRITE", "q", "x")
	for range many {
		text.text("OPEN", "q")
	}
	w.waits()
	text.says()
	st.held = true
	st.modern().on(1).input("p").gets("INPUT_OK").read(many, 0)
	st.call().text("READ", "q")
	answers := func() int { return len(w.heard) + len(text.lines) }
	for before := 0; len(st.posted) > 0; before = answers() {
		x := st.posted[0]
		st.posted = st.posted[1:]
		x.letter().posted = false
		if x.resume(st.now); answers()-before > maxBurst {
			t.Errorf("%d answers in one turn", answers()-before)
		}
	}
	if len(w.heard) != many || len(text.lines) != 1+many {
		t.Errorf("%d and %d of %d answers", len(w.heard), len(text.lines), many)
	}
}

// When a client takes again what was sent, those of its ends go on that have waited for that,
// some at a time, and nobody else does.
func TestSessionGoesOnInStepsWhenItsClientTakesAnswers(t *testing.T) {
	const held, others = 2*dropStep + 1, 50
	st := newStage(t)
	st.pipes = newRegistry(held+others, stagePending, stageMessage)
	c, neighbour := st.modern(), st.modern()
	for channel := range uint32(held + others) {
		name := fmt.Sprint("p", channel+1)
		c.on(channel + 1).input(name).gets("INPUT_OK")
		neighbour.on(channel+1).output(name).gets("OUTPUT_OK").write("x", 0)
	}
	neighbour.heard = nil
	c.congested = true
	c.on(0).ping()
	for channel := range uint32(held) {
		c.on(channel+1).read(1, 0)
	}
	st.held = true
	c.congested = false
	c.session.unload(1, func(frames [][]byte) error { c.hear(frames); return nil })
	c.on(0).gets("PING_OK")
	for turns := 0; len(st.posted) > 0; turns++ {
		now := st.posted
		st.posted = nil
		if len(now) > dropStep+1 {
			t.Errorf("turn %d: %d go on", turns, len(now))
		}
		for _, x := range now {
			x.letter().posted = false
			x.resume(st.now)
		}
	}
	for channel := range uint32(held) {
		c.on(channel + 1).gets(`READ_OK "x"`)
	}
	if len(c.heard) > 0 {
		t.Errorf("%d more answers", len(c.heard))
	}
}
