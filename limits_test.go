package zpipes

import (
	"strings"
	"testing"
	"unsafe"
)

// limited gives the callers' sessions limits, and one user.
func limited(client, user Limits, callers ...*caller) *account {
	client, _ = client.withDefaults(defaultPerClient)
	user, _ = user.withDefaults(defaultPerUser)
	above := &account{whose: "user", limits: user, post: callers[0].stage.post}
	for _, c := range callers {
		c.session.account.limits, c.session.account.above = client, above
	}
	return above
}

func TestLimitsOfPipes(t *testing.T) {
	st := newStage(t)
	a, b := st.modern(), st.modern()
	user := limited(Limits{Pipes: 2}, Limits{Pipes: 3}, a, b)
	a.on(1).input("p").gets("INPUT_OK")
	a.on(2).output("p").gets("OUTPUT_OK")
	a.on(3).output("q").gets("OUTPUT_FAILED too many")
	b.on(1).queue("q").gets("INPUT_OK") // counts twice: the queue, and that it is open
	b.on(2).output("r").gets("OUTPUT_FAILED too many")
	if n := st.pipes.stats().Refused; n != 2 {
		t.Errorf("%d refusals are counted", n)
	}
	a.on(1).close().gets("CLOSE_OK")
	b.on(2).output("r").gets("OUTPUT_FAILED too many")
	a.on(2).close().gets("WRITE_FAILED closed", "CLOSE_OK")
	b.on(2).output("r").gets("OUTPUT_OK")
	b.on(1).close().gets("CLOSE_OK")
	b.on(1).inputAs(modeDelete, "q").skip()
	if b.gone(); user.ends != 0 || user.queues.Load() != 0 {
		t.Errorf("%d ends and %d queues are left", user.ends, user.queues.Load())
	}
}

func TestLimitsOfQueuesByText(t *testing.T) {
	st := newStage(t)
	c := st.call()
	user := limited(Limits{}, Limits{Pipes: 2}, c)
	c.text("OPEN", "a").text("OPEN", "b").text("OPEN", "c").says("OK", "OK", "ERROR too many pipes: this user has 2")
	c.text("CLOSE", "a").text("OPEN", "c").says("OK", "OK")
	st.pipes.close(cause{code: causeBrokerGone}, true)
	if n := user.queues.Load(); n != 0 {
		t.Errorf("%d queues are left", n)
	}
}

// What many pipes hold together makes writes wait, but not where a reader waits.
func TestLimitsOfPendingBytes(t *testing.T) {
	for _, test := range []struct {
		name         string
		client, user int64
	}{{"client", 1000, 0}, {"user", 0, 1000}} {
		t.Run(test.name, func(t *testing.T) {
			st := newStage(t)
			w, r := st.modern(), st.modern()
			user := limited(Limits{Pending: test.client}, Limits{Pending: test.user}, w, r)
			for channel, name := range []string{"a", "b", "c"} {
				w.on(uint32(channel + 1)).output(name).gets("OUTPUT_OK")
				r.on(uint32(channel + 1)).input(name).gets("INPUT_OK")
			}
			const six, five, four = 600, 500, 400
			w.on(1).write(strings.Repeat("a", six), 0).gets("WRITE_OK")
			w.on(2).write(strings.Repeat("b", five), 0).waits()
			w.on(3).write(strings.Repeat("c", four), 0).gets("WRITE_OK")
			r.on(3).readWith(readAny, 1, 0).gets(`READ_OK "c"`)
			w.on(2).waits()
			r.on(1).readWith(readAny, six, 0).gets(bring1("a", six))
			w.on(2).gets("WRITE_OK")
			w.on(3).write(strings.Repeat("c", four), 0).waits()
			w.on(1).write("a", 0).gets("WRITE_OK")
			r.on(3).read(four, 0).gets(bring1("c", four)) // all that is there, and of what it waits for some
			w.on(3).gets("WRITE_OK")
			w.on(3).write(strings.Repeat("c", six), 0).waits()
			w.gone()
			if n := user.waiting.Len() + w.session.account.waiting.Len(); n > 0 {
				t.Errorf("%d pipes still wait for room", n)
			}
			r.on(2).readWith(readAny, five, 0).gets(bring1("b", five))
			r.on(1).close().gets("CLOSE_OK")
			r.gone()
			if n := user.held.Load(); n != 0 {
				t.Errorf("%d bytes are left", n)
			}
		})
	}
}

// However much lies about, those whose readers wait go on, one at a time.
func TestLimitsBeyondPendingBytes(t *testing.T) {
	st := newStage(t)
	w, r := st.modern(), st.modern()
	user := limited(Limits{Pending: 1000}, Limits{}, w, r)
	for channel, name := range []string{"", "a", "b", "c"} {
		if name != "" {
			w.on(uint32(channel)).output(name).gets("OUTPUT_OK")
			r.on(uint32(channel)).input(name).gets("INPUT_OK")
		}
	}
	w.on(1).write(strings.Repeat("a", 1000), 0).gets("WRITE_OK")
	r.on(3).read(1, 0).waits()
	r.on(2).read(700, 0).waits()
	w.on(2).write(strings.Repeat("b", 500), 0).gets("WRITE_OK")
	w.on(3).write("c", 0).waits()
	w.on(2).write(strings.Repeat("b", 300), 0).gets("WRITE_OK")
	r.on(2).gets(bring1("b", 700))
	if n := user.held.Load(); n != 1100 {
		t.Errorf("%d bytes are held, want 1100", n)
	}
	w.on(3).waits()
	r.on(2).readWith(readAny, 700, 0).gets(bring1("b", 100))
	w.on(3).gets("WRITE_OK")
	r.on(3).gets(`READ_OK "c"`).read(1, 0).waits()
	w.on(3).write("cc", 0).gets("WRITE_OK")
	r.on(3).gets(`READ_OK "c"`)
	r.on(2).read(700, 0).waits()
	w.on(2).write("b", 0).waits()
	w.on(3).close().gets("CLOSE_OK") // and with it what it has borrowed
	r.on(3).close().gets("CLOSE_OK")
	w.on(2).gets("WRITE_OK")
	r.gone()
	if w.gone(); user.held.Load() != 0 || user.lent.Load() || w.session.account.lent.Load() {
		t.Errorf("%d bytes are held, something is lent: %v %v", user.held.Load(), user.lent.Load(), w.session.account.lent.Load())
	}
}

// Who leaves keeps what was lent until it is read.
func TestLimitsDebtOutlivesItsWriter(t *testing.T) {
	st := newStage(t)
	w, r := st.modern(), st.modern()
	user := limited(Limits{}, Limits{Pending: 1000}, w, r)
	for channel, name := range []string{"", "a", "b", "c"} {
		if name != "" {
			w.on(uint32(channel)).output(name).gets("OUTPUT_OK")
			r.on(uint32(channel)).input(name).gets("INPUT_OK")
		}
	}
	w.on(1).write(strings.Repeat("a", 1000), 0).gets("WRITE_OK")
	r.on(2).read(1, 0).waits()
	w.on(2).write(strings.Repeat("b", 900), 0).gets("WRITE_OK").close().gets("CLOSE_OK")
	r.on(2).gets(`READ_OK "b"`)
	r.on(3).read(1, 0).waits()
	w.on(3).write("c", 0).waits()
	r.on(1).readWith(readAny, 950, 0).gets(bring1("a", 950)) // so that nothing more is lent
	w.on(3).gets("WRITE_OK")
	if n := user.held.Load(); n != 949 || user.lent.Load() {
		t.Errorf("%d bytes are held, and something is lent: %v", n, user.lent.Load())
	}
	w.gone()
	r.gone()
	st.leavesNothing()
}

func bring1(what string, n int) string {
	return shown(message{id: msgReadOK, chunk: []byte(strings.Repeat(what, n))})
}

func TestLimitsOfPendingBytesInQueues(t *testing.T) {
	st := newStage(t)
	a, b := st.modern(), st.modern()
	user := limited(Limits{}, Limits{Pending: 1000}, a, b)
	a.on(1).queue("q").gets("INPUT_OK")
	a.on(2).queue("r").gets("INPUT_OK")
	large := strings.Repeat("x", 700)
	a.on(1).put(large).confirms(1)
	a.on(2).put(large).confirms(0)
	b.on(1).queue("r").gets("INPUT_OK")
	b.on(1).ask(1, 0).gets(bring(large)) // one that is wanted is taken
	a.on(2).confirms(1)
	b.on(1).ask(0, 1).waits()
	a.on(2).put(large).confirms(0)
	b.on(3).inputAs(modeDelete, "q").skip()
	a.on(2).confirms(1)
	a.on(4).queue("s").gets("INPUT_OK")
	a.on(4).put(large).confirms(0)
	a.on(3).inputAs(modeDelete, "s").skip()
	if user.waiting.Len() > 0 {
		t.Error("a deleted queue still waits for room")
	}
	a.on(3).inputAs(modeDelete, "r").skip()
	if n, m := user.held.Load(), user.queues.Load(); n != 0 || m != 0 {
		t.Errorf("%d bytes and %d queues are left", n, m)
	}
}

// A WRITE that fails when its writer leaves is not taken, even if there has just come to
// be room.
func TestLimitsWriteThatFailsIsNotTaken(t *testing.T) {
	st := newStage(t)
	a, b, w := st.modern(), st.modern(), st.base()
	limited(Limits{}, Limits{Pending: 1000}, a, b, w.caller)
	large := strings.Repeat("x", 700)
	a.on(1).queue("q").gets("INPUT_OK")
	a.on(2).queue("r").gets("INPUT_OK")
	a.on(1).put(large).confirms(1)
	w.output("r").gets("OUTPUT_OK").write(large, 0).waits()
	st.held = true
	b.on(3).inputAs(modeDelete, "q").skip()
	w.close().gets("WRITE_FAILED", "CLOSE_OK")
	st.held = false
	st.resume()
	if n := st.pipes.queues()["r"].count; n != 0 {
		t.Errorf("the queue has %d chunks", n)
	}
	st.leavesNothing()
}

// What readers of a queue's bytes may give back counts for them.
func TestLimitsOfLentBytes(t *testing.T) {
	st := newStage(t)
	q, other := st.member("q"), st.member("other")
	r := st.modern()
	user := limited(Limits{}, Limits{Pending: 1000}, r)
	r.on(1).input("q").opens(modeQueue)
	r.on(2).input("other").opens(modeQueue)
	large := strings.Repeat("x", 700)
	other.put(large).confirms(1)
	r.on(2).readWith(readAny, 700, 0).gets(bring1("x", 700))
	r.on(1).read(1200, 0).waits()
	for range 4 {
		q.put(strings.Repeat("y", 300)).confirms(1)
	}
	r.on(1).waits()
	if n := user.held.Load(); n > 1000 {
		t.Errorf("%d bytes are counted", n)
	}
	r.on(2).readWith(readAny, 1, 0).waits() // so it has what it was sent
	r.on(1).gets(bring1("y", 1200))
	if r.gone(); user.held.Load() != 0 {
		t.Errorf("%d bytes are left", user.held.Load())
	}
	st.leavesNothing()
}

func TestLimitsOfRequests(t *testing.T) {
	st := newStage(t)
	a, b := st.modern(), st.modern()
	limited(Limits{}, Limits{Requests: 3}, a, b)
	a.on(1).input("p").gets("INPUT_OK").read(1, 0).read(1, 0).waits()
	b.on(1).input("q").gets("INPUT_OK").read(1, 0).waits()
	b.on(1).read(1, 0).gets("READ_FAILED broker gone")
	b.on(0).gets("INVALID broker gone")
	st.sawViolations(1)
	a.on(1).read(1, 0).waits()
}

type counted struct{ n *int }

func (c counted) recheck() { *c.n++ }

// Those who wait look again some at a time, so that a broker does other things, too.
func TestLimitsManyWaitForRoom(t *testing.T) {
	st := newStage(t)
	a := &account{limits: Limits{Pending: 10}, post: st.post}
	a.charge(10)
	looked := make([]int, 2*maxRechecks)
	for i := range looked {
		a.await(&counted{&looked[i]}, 1)
	}
	a.charge(-1)
	st.resume()
	for i, n := range looked {
		if n != 1 {
			t.Errorf("number %d has looked %d times", i, n)
		}
	}
}

// What a client may have many of takes no more room than the bounds of the trials of greed allow, whatever
// is added to it: a pipe fits the allocator's class of 768 bytes, and a request that waits
// is below half a kibibyte with a small frame.
func TestWhatAClientMayHaveIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(pipe{}); n > 768 {
		t.Errorf("a pipe takes %d bytes", n)
	}
	if n := unsafe.Sizeof(request{}); n > 448 {
		t.Errorf("a request that waits takes %d bytes", n)
	}
}
