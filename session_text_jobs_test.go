package zpipes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// id is the job of that number as a text client has it.
func (st *stage) id(queue string, n int) string {
	return jobID(st.pipes.queues()[queue].incarnation, uint64(n))
}

// got is what TAKE is answered with.
func (st *stage) got(queue string, n, deliveries int, chunk string) string {
	return fmt.Sprint(st.id(queue, n), " ", deliveries, " ", chunk)
}

// jobs wants so many to be ready, taken, delayed and dead.
func (st *stage) jobs(queue string, ready, taken, delayed, dead int) {
	st.t.Helper()
	s := st.pipes.queues()[queue]
	got := [4]int{s.count - s.many[jobTaken] - s.many[jobDelayed] - s.many[jobDead], s.many[jobTaken], s.many[jobDelayed], s.many[jobDead]}
	if want := [4]int{ready, taken, delayed, dead}; got != want {
		st.t.Fatalf("ready, taken, delayed and dead are %v, want %v", got, want)
	}
}

func TestSessionTextJobs(t *testing.T) {
	st := newStage(t)
	a, b := st.call(), st.call()
	a.text("OPEN", "q").text("WRITE", "q", "one").text("WRITE", "q", "").text("WRITE", "q", "three").says("OK", "OK", "OK", "OK")
	a.text("TAKE", "q").says(st.got("q", 1, 1, "one"))
	b.text("TAKE", "q").says(st.got("q", 2, 1, ""))
	st.jobs("q", 1, 2, 0, 0)
	b.text("DONE", "q", st.id("q", 1)).says("ERROR") // it is the other's
	b.text("RETURN", "q", st.id("q", 2)).says("OK")
	a.text("DONE", "q", st.id("q", 1)).says("OK").text("DONE", "q", st.id("q", 1)).says("ERROR")
	a.text("TAKE", "q").says(st.got("q", 2, 2, ""))
	a.text("EXTEND", "q", st.id("q", 2)).text("EXTEND", "q", st.id("q", 2), "10").says("OK", "OK")
	a.text("RETURN", "q", st.id("q", 2)+".1").says("ERROR") // an earlier delivery
	a.text("RETURN", "q", st.id("q", 2)+".2", "1000").says("OK")
	st.jobs("q", 1, 0, 1, 0)
	a.text("TAKE", "q").says(st.got("q", 3, 1, "three")).text("TAKE", "q").says()
	st.pass(time.Second)
	a.says(st.got("q", 2, 3, "")).gone()
	b.text("READ", "q").text("TAKE", "q").says("", st.got("q", 3, 2, "three"))
	b.text("CLOSE", "q").says("OK").text("DONE", "q", "1-3").says("ERROR")
	st.sawViolations(0)
	st.leavesNothing()
}

func TestSessionTextJobsCommandsThatAreWrong(t *testing.T) {
	st := newStage(t)
	st.modern().on(1).output("stream").gets("OUTPUT_OK")
	c := st.call().text("OPEN", "q").text("WRITE", "q", "x").text("TAKE", "q").says("OK", "OK", st.got("q", 1, 1, "x"))
	id := st.id("q", 1)
	for _, frames := range [][]string{
		{"take", "q"}, {"TAKE", "q", "x"}, {"TAKE", ""}, {"TAKE", "none"}, {"TAKE", "stream"},
		{"DONE", "q"}, {"DONE", "q", id, "1"}, {"DONE", "none", id}, {"DONE", "stream", id}, {"DONE", "", id},
		{"RETURN", "q"}, {"RETURN", "q", id, "1", "2"}, {"RETURN", "q", id, ""}, {"RETURN", "q", id, "-1"}, {"RETURN", "q", id, "1s"},
		{"EXTEND", "q"}, {"EXTEND", "q", id, "9223372036854775808"}, {"EXTEND", "q", id, "1", "2"},
		{"DONE", "q", ""}, {"DONE", "q", "-"}, {"DONE", "q", "x"}, {"DONE", "q", "1-1"}, {"DONE", "q", id + "."}, {"DONE", "q", id + ".2"},
		{"DONE", "q", id + "0"}, {"DONE", "q", id + ".0"}, {"DONE", "q", "-" + id}, {"DONE", "q", id + ".4294967297"},
		{"DONE", "q", strings.Repeat("z", 100_000)},
	} {
		if c.text(frames...).says("ERROR"); t.Failed() {
			t.Fatalf("%.40q", frames)
		}
	}
	st.jobs("q", 0, 1, 0, 0)
	c.text("DONE", "q", id+".1").says("OK")
	st.sawViolations(0)
	st.leavesNothing()
}

// What becomes of a job counts at once, though something before it waits, perhaps for just that.
func TestSessionTextJobsAreSettledWhileOthersWait(t *testing.T) {
	st := newStage(t)
	full := strings.Repeat("f", stagePending)
	c, w := st.call(), st.call()
	c.text("OPEN", "q").text("WRITE", "q", full).text("TAKE", "q").says("OK", "OK", st.got("q", 1, 1, full))
	c.text("WRITE", "q", "room").says().text("DONE", "q", st.id("q", 1)).says("OK", "OK")
	c.text("TAKE", "q").text("TAKE", "q").says(st.got("q", 2, 1, "room"))
	c.text("DONE", "q", st.id("q", 2)).says()
	st.jobs("q", 0, 0, 0, 0)
	c.text("TAKE", "q").text("OPEN", "p").text("DONE", "q", st.id("q", 2)).says()
	w.text("WRITE", "q", "3").says("OK")
	c.says(st.got("q", 3, 1, "3"), "OK")
	w.text("WRITE", "q", "4").says("OK")
	c.says(st.got("q", 4, 1, "4"), "OK", "ERROR")

	// CLOSE answers those that wait.
	c.text("OPEN", "q").says("OK").text("TAKE", "q").text("TAKE", "q").says().text("CLOSE", "q").says("ERROR", "ERROR", "OK")
	st.leavesNothing()
}

// What a client that has vanished had, or was to be given, goes back in order; and only what it had
// counts as delivered.
func TestSessionTextJobsOfAClientThatVanishes(t *testing.T) {
	st := newStage(t)
	c, w := st.call(), st.call().text("OPEN", "q").says("OK")
	w.text("WRITE", "q", "1").text("WRITE", "q", "2").says("OK", "OK")
	c.text("TAKE", "q").text("TAKE", "q").text("TAKE", "q").text("TAKE", "q").text("TAKE", "q").says(st.got("q", 1, 1, "1"), st.got("q", 2, 1, "2"))
	st.held = true
	w.text("WRITE", "q", "3").text("WRITE", "q", "4")
	c.gone()
	st.held = false
	st.resume()
	w.says("OK", "OK")
	st.jobs("q", 4, 0, 0, 0)
	for i, deliveries := range []int{2, 2, 1, 1} {
		w.text("TAKE", "q").says(st.got("q", i+1, deliveries, fmt.Sprint(i+1)))
	}

	// libzmq may be the first to know.
	d := st.call().text("TAKE", "q").says()
	d.lost = true
	w.text("RETURN", "q", st.id("q", 2)).says("OK")
	w.text("TAKE", "q").says(st.got("q", 2, 3, "2"))
	st.leavesNothing()
}

// The lease is the client's connection, since it has nothing with which to show that it is there;
// or a time.
func TestSessionTextJobsLease(t *testing.T) {
	st := newStage(t)
	w := st.call().text("OPEN", "q").text("WRITE", "q", "1").text("WRITE", "q", "2").says("OK", "OK", "OK")
	a, b := st.call(), st.call()
	a.session.presence, b.session.presence = present, unknown
	a.text("TAKE", "q").says(st.got("q", 1, 1, "1"))
	b.text("TAKE", "q").says(st.got("q", 2, 1, "2"))
	if st.pass(10 * stageExpiry); a.session.expire(st.now) || !b.session.expire(st.now) {
		t.Fatal("what expires is who has no job, or of whose connection nobody knows")
	}
	a.text("DONE", "q", st.id("q", 1)).says("OK")
	st.jobs("q", 1, 0, 0, 0)
	if st.pass(2 * stageExpiry); !a.session.expire(st.now) {
		t.Error("it has no job any more")
	}

	m := st.able().on(1).queue("q").opens(modeQueue)
	m.send(message{id: msgRules, rules: wireRules{lease: 1000}}).skip()
	w.text("TAKE", "q").says(st.got("q", 2, 2, "2"))
	st.pass(999 * time.Millisecond)
	w.text("EXTEND", "q", st.id("q", 2), "2000").says("OK")
	st.pass(1999 * time.Millisecond)
	st.jobs("q", 0, 1, 0, 0)
	st.pass(time.Millisecond)
	st.jobs("q", 1, 0, 0, 0)
	w.text("DONE", "q", st.id("q", 2)).text("EXTEND", "q", st.id("q", 2)).text("TAKE", "q").says("ERROR", "ERROR", st.got("q", 2, 3, "2"))
	st.leavesNothing()
}

// A log that fails never says that anything is committed: who waits for that is told.
func TestSessionTextWaitsForALogThatFails(t *testing.T) {
	st := newStage(t)
	c, w := st.call().text("OPEN", "q").says("OK"), st.call()
	s := st.pipes.queues()["q"]
	s.keepBy(&opLog{})
	w.text("WRITE", "q", "1").says()
	s.committed(1, 0)
	st.settle()
	w.says("OK").text("WRITE", "q", "2").says()
	c.text("TAKE", "q").says(st.got("q", 1, 1, "1")).text("DONE", "q", st.id("q", 1)).says()
	s.end(cause{causeBrokerGone, "the disk is bad"}, false)
	st.settle()
	w.says("ERROR")
	c.says("ERROR")
}

// Another broker passes on that a client there has closed the queue: its READs are answered then, also those that had not
// begun, since something before them has yet to be committed.
func TestSessionTextClosedBehindWhatIsNotCommitted(t *testing.T) {
	st := newStage(t)
	w := st.call().text("OPEN", "q").says("OK")
	s := st.pipes.queues()["q"]
	s.keepBy(&opLog{})
	w.text("WRITE", "q", "x").says()
	s.committed(1, 0)
	st.settle()
	w.says("OK")
	l := st.call().on(0)
	l.session.member, l.agreed = 1, true
	l.send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities | peerAbilities}}).gets("PING_OK")
	l.texts = true
	passes := func(mode byte, frames ...string) {
		var raw [][]byte
		for _, f := range frames {
			raw = append(raw, []byte(f))
		}
		l.send(message{id: msgText, mode: mode, chunk: packFrames(raw)})
	}
	answers := func() (all []string) {
		for _, line := range l.lines {
			m, _ := parse([]byte(line))
			frames, _ := unpackFrames(m.chunk)
			all = append(all, string(frames[0]))
		}
		l.lines = nil
		return all
	}
	passes(textAsks, "TAKE", "q")
	if got, want := answers(), []string{st.id("q", 1)}; !slices.Equal(got, want) {
		t.Fatalf("TAKE is answered with %q, want %q", got, want)
	}
	passes(textAsks, "DONE", "q", st.id("q", 1))
	passes(textAsks, "TAKE", "q")
	passes(textInterrupt, "q")
	if got := answers(); len(got) > 0 {
		t.Fatalf("before all is committed it says %q", got)
	}
	s.committed(0, s.noting.len())
	st.settle()
	if got, want := answers(), []string{"OK", "ERROR"}; !slices.Equal(got, want) {
		t.Errorf("then it says %q, want %q", got, want)
	}
	st.leavesNothing()
}

// What a client had of a queue is not kept when it is not needed, and no job is forgotten.
func TestSessionTextJobsAreNotTidiedAway(t *testing.T) {
	st := newStage(t)
	st.pipes.maxPipes = 1000
	c := st.call()
	for i := range 3 * maxTextSenders {
		q := fmt.Sprint("q", i)
		c.text("OPEN", q).text("WRITE", q, "x").text("TAKE", q).says("OK", "OK", st.got(q, 1, 1, "x"))
	}
	for i := range 3 * maxTextSenders {
		q := fmt.Sprint("q", i)
		c.text("DONE", q, st.id(q, 1)).says("OK")
	}
	for i := range 2 * maxTextSenders {
		q := fmt.Sprint("p", i)
		c.text("OPEN", q).text("DONE", q, "1-1").says("OK", "ERROR")
	}
	if n := len(c.session.text.senders); n > 4*maxTextSenders {
		t.Errorf("%d senders are kept", n)
	}
	st.leavesNothing()
}
