package zpipes

import (
	"fmt"
	"strings"
	"testing"
)

func TestSessionTextCommands(t *testing.T) {
	st := newStage(t)
	a, b := st.call(), st.call()
	a.text("OPEN", "q").says("OK").text("WRITE", "q", "one").says("OK").text("WRITE", "q", "").says("OK")
	b.text("READ", "q").says("one").text("READ", "q").says("").text("READ", "q").says()
	a.text("WRITE", "q", "two").says("OK")
	b.says("two").text("OPEN", "q").says("OK").text("CLOSE", "q").says("OK")
	a.text("WRITE", "q", "gone with the queue").text("CLOSE", "q").says("OK", "OK")
	a.text("CLOSE", "q").text("READ", "q").text("WRITE", "q", "x").says("ERROR", "ERROR", "ERROR")
	if n := len(st.pipes.queues()); n != 0 {
		t.Errorf("%d queues", n)
	}
	st.leavesNothing()
}

func TestSessionTextCommandsThatAreWrong(t *testing.T) {
	st := newStage(t)
	st.modern().on(1).output("stream").gets("OUTPUT_OK")
	c := st.call().text("OPEN", "q").says("OK")
	for _, frames := range [][]string{
		{"", ""}, {"open", "q"}, {"DELETE", "q"}, {"OPENS", "q"},
		{"OPEN", "q", "x"}, {"READ", "q", "x"}, {"CLOSE", "q", "x"}, {"WRITE", "q"}, {"WRITE", "q", "x", "y"},
		{"OPEN", ""}, {"READ", ""}, {"CLOSE", ""}, {"WRITE", "", "x"}, {"OPEN", "a\x00b"}, {"OPEN", strings.Repeat("n", maxString+1)},
		{"READ", "none"}, {"WRITE", "none", "x"}, {"CLOSE", "none"},
		{"OPEN", "stream"}, {"READ", "stream"}, {"WRITE", "stream", "x"}, {"CLOSE", "stream"},
		{"WRITE", "q", strings.Repeat("l", stagePending+1)},
	} {
		if c.text(frames...).says("ERROR"); t.Failed() {
			t.Fatalf("%.40q", frames)
		}
	}
	st.checkQueued("q")
	c.text("WRITE", "q", "x").text("READ", "q").says("OK", "x") // it is none the worse
	st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	c.text("OPEN", "q").text("READ", "q").text("WRITE", "q", "x").text("CLOSE", "q").says("ERROR", "ERROR", "ERROR", "ERROR")
	st.sawViolations(0)
	st.leavesNothing()
}

// What is opened by text is nobody's: the count is the queue's.
func TestSessionTextUsersAreTheQueues(t *testing.T) {
	st := newStage(t)
	a, b := st.call(), st.call()
	a.text("OPEN", "q").text("OPEN", "q").text("WRITE", "q", "x").says("OK", "OK", "OK").gone()
	if got := st.pipes.queues()["q"].users; got != 2 {
		t.Errorf("%d users after a client with 2 has died", got)
	}
	b.text("CLOSE", "q").says("OK")
	st.checkQueued("q", "x")
	b.text("CLOSE", "q").says("OK")
	if len(st.pipes.queues()) != 0 {
		t.Error("the queue is there when its last user has closed")
	}

	// One who has it open in another way keeps it.
	m := st.member("q").put("y").confirms(1)
	b.text("CLOSE", "q").says("ERROR").text("OPEN", "q").text("CLOSE", "q").says("OK", "OK")
	st.checkQueued("q", "y")
	m.close().gets("CLOSE_OK")
	st.checkQueued("q", "y")
	st.leavesNothing()
}

func TestSessionTextReadsAreServedInTheOrderOfAsking(t *testing.T) {
	st := newStage(t)
	a, b, w := st.call(), st.call(), st.call().text("OPEN", "q").says("OK")
	a.text("READ", "q").text("READ", "q").says()
	b.text("READ", "q").says()
	m := st.member("q").ask(1, 0)
	a.text("READ", "q").says()
	for i := range 6 {
		w.text("WRITE", "q", fmt.Sprint(i)).says("OK")
	}
	a.says("0", "1", "4")
	b.says("2")
	m.gets(bring("3")).ask(0, 1)
	st.checkQueued("q", "5")
	st.leavesNothing()
}

// A client's commands are answered in order, though others could go first.
func TestSessionTextCommandsAreAnsweredInOrder(t *testing.T) {
	st := newStage(t)
	c, w := st.call(), st.call()
	w.text("OPEN", "q").text("OPEN", "p").text("WRITE", "p", "p1").says("OK", "OK", "OK")
	c.text("READ", "q").text("READ", "q").text("READ", "p").text("OPEN", "new").text("BAD", "x").text("READ", "q").says()
	if st.pipes.queues()["new"] != nil {
		t.Error("a command has begun before its turn")
	}
	st.checkQueued("p", "p1") // no READ has taken it
	w.text("WRITE", "q", "q1").says("OK")
	c.says("q1")
	st.checkQueued("p", "p1")
	w.text("WRITE", "q", "q2").text("WRITE", "q", "q3").says("OK", "OK")
	c.says("q2", "p1", "OK", "ERROR", "q3")
	if c.session.account.bytes != 0 {
		t.Errorf("%d bytes of commands are left", c.session.account.bytes)
	}

	// Also where both are there when it is woken.
	c.text("READ", "q").text("READ", "q").says()
	st.held = true
	w.text("WRITE", "q", "q4").text("WRITE", "q", "q5")
	st.held = false
	st.resume()
	c.says("q4", "q5")
	st.leavesNothing()
}

func TestSessionTextCloseAnswersReadsThatWait(t *testing.T) {
	st := newStage(t)
	c, other := st.call(), st.call()
	c.text("OPEN", "q").text("OPEN", "q").says("OK", "OK")
	other.text("READ", "q").says()
	c.text("READ", "q").text("READ", "q").says().text("CLOSE", "q").says("ERROR", "ERROR", "OK")
	other.says() // it is another's
	c.text("WRITE", "q", "x").says("OK")
	other.says("x").text("READ", "q").says()
	c.text("CLOSE", "q").says("OK")
	other.says("ERROR") // now the queue is gone

	// A READ that has its chunk is answered with it, and so is one of another queue.
	c.text("OPEN", "q").text("OPEN", "q").says("OK", "OK").text("READ", "q").text("READ", "q").says()
	st.held = true
	other.text("WRITE", "q", "y")
	c.text("CLOSE", "q")
	st.held = false
	st.resume()
	other.says("OK")
	c.says("y", "ERROR", "OK").text("OPEN", "p").text("READ", "p").text("CLOSE", "q").says("OK")
	other.text("WRITE", "p", "z").says("OK")
	c.says("z", "OK")
	st.leavesNothing()
}

func TestSessionTextWritesToAFullQueueWait(t *testing.T) {
	st := newStage(t)
	heavy, light, r := st.call(), st.call(), st.call()
	half := func(x string) string { return strings.Repeat(x, stagePending/2) }
	heavy.text("OPEN", "q").says("OK")
	for range 3 {
		heavy.text("WRITE", "q", half("h"))
	}
	heavy.text("OPEN", "p").says("OK", "OK")
	light.text("WRITE", "q", half("l")).text("WRITE", "q", "l2").says()
	r.text("READ", "q").says(half("h"))
	heavy.says("OK", "OK")
	light.says()
	r.text("READ", "q").says(half("h"))
	light.says("OK")
	r.text("READ", "q").text("READ", "q").text("READ", "q").says(half("h"), half("l"), "l2")
	light.says("OK")
	st.leavesNothing()
}

// While the next of a client's WRITEs waits for its turn to be begun, the queue may be
// empty, and a chunk of another's may come first. The client's own keep their order.
func TestSessionTextWritesBesideOthersKeepTheirOrder(t *testing.T) {
	st := newStage(t)
	w, other, r := st.call().text("OPEN", "q").says("OK"), st.call(), st.call()
	chunk := func(i int) string { return strings.Repeat(fmt.Sprint(i), stagePending/2) }
	for i := range 5 {
		w.text("WRITE", "q", chunk(i))
	}
	w.says("OK", "OK") // the third waits in the queue, and the others for it
	st.held = true
	for range 3 {
		r.text("READ", "q")
	}
	r.says(chunk(0), chunk(1), chunk(2))
	st.checkQueued("q")
	other.text("WRITE", "q", "another's").says("OK")
	st.held = false
	st.resume()
	w.says("OK", "OK") // and of the next two, one has room
	for range 3 {
		r.text("READ", "q")
	}
	r.says("another's", chunk(3), chunk(4))
	w.says("OK")
	st.leavesNothing()
}

// What a client that has vanished was to be given goes back, in order; and what it
// could not write is dropped.
func TestSessionTextClientVanishes(t *testing.T) {
	st := newStage(t)
	c, w := st.call(), st.call().text("OPEN", "q").says("OK")
	c.text("READ", "q").text("READ", "q").text("READ", "q").says()
	st.held = true
	w.text("WRITE", "q", "1").text("WRITE", "q", "2")
	c.gone()
	st.held = false
	st.resume()
	w.says("OK", "OK")
	st.checkQueued("q", "1", "2")
	w.text("WRITE", "q", "3").text("READ", "q").text("READ", "q").text("READ", "q").says("OK", "1", "2", "3")

	full := strings.Repeat("f", stagePending)
	w.text("WRITE", "q", full).says("OK")
	dies, lives := st.call().text("WRITE", "q", "dies").says(), st.call().text("WRITE", "q", "lives").says()
	dies.text("READ", "q").gone()
	w.text("READ", "q").says(full)
	lives.says("OK")
	st.checkQueued("q", "lives")
	st.leavesNothing()
}

// libzmq may be the first to know that a client is gone.
func TestSessionTextAnswersThatCannotBeSent(t *testing.T) {
	st := newStage(t)
	c, w, other := st.call(), st.call().text("OPEN", "q").says("OK"), st.call()
	c.text("READ", "q").text("READ", "q").text("READ", "q").says()
	other.text("READ", "q").says()
	c.lost = true
	st.held = true
	w.text("WRITE", "q", "1").text("WRITE", "q", "2").says("OK", "OK")
	st.held = false
	st.resume()
	other.says("1")
	st.checkQueued("q", "2")
	if c.session.account.bytes != 0 {
		t.Errorf("%d bytes of commands are left", c.session.account.bytes)
	}

	// Nor do the chunks that wait stay.
	full := strings.Repeat("f", stagePending)
	w.text("READ", "q").text("WRITE", "q", full).says("2", "OK")
	d := st.call().text("WRITE", "q", "a").text("WRITE", "q", "b").says()
	d.lost = true
	w.text("READ", "q").says(full)
	st.checkQueued("q", "a") // it was taken before its sender was missed
	st.leavesNothing()
}

func TestSessionTextClientThatSendsTooMuch(t *testing.T) {
	for name, more := range map[string]func(c *caller){
		"commands": func(c *caller) {
			for range maxQueued - 1 {
				c.text("READ", "p")
			}
			c.says().text("READ", "p")
		},
		"bytes": func(c *caller) {
			chunk := strings.Repeat("x", stagePending)
			for c.session.account.bytes+int64(2*len(chunk)) < c.session.mayWait() {
				c.text("WRITE", "p", chunk)
			}
			c.says().text("WRITE", "p", chunk).text("WRITE", "p", chunk)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			c := st.call().text("OPEN", "q").says("OK").text("READ", "q").says()
			first := c.session
			more(c)
			if !first.gone || first.account.bytes != 0 || first.text.waiting.len() != 0 {
				t.Errorf("dropped %v, %d bytes and %d commands left", first.gone, first.account.bytes, first.text.waiting.len())
			}
			if len(c.lines) == 0 || !strings.HasPrefix(c.lines[0], "ERROR ") {
				t.Errorf("told %.80q", c.lines)
			}
			st.sawViolations(1)
			st.leavesNothing()
		})
	}
}

// A command that is alone may be of any size.
func TestSessionTextTakesALargeChunk(t *testing.T) {
	st := newStageOf(t, 3<<20, 4<<20)
	chunk := strings.Repeat("x", 3<<20)
	c := st.call().text("OPEN", "q").text("WRITE", "q", chunk).says("OK", "OK")
	c.text("WRITE", "q", chunk).says()
	st.sawViolations(0)
	if got := st.call().text("READ", "q").lines; len(got) != 1 || got[0] != chunk {
		t.Errorf("%d answers", len(got))
	}
	c.says("OK").text("WRITE", "q", chunk+chunk).says("ERROR") // which is no reason to drop it
	st.sawViolations(0)
	st.leavesNothing()
}

// One that waits has nothing with which it could show that it is there.
func TestSessionTextClientThatWaitsIsNotSilent(t *testing.T) {
	st := newStage(t)
	c := st.call().text("OPEN", "q").says("OK").text("READ", "q").says()
	if st.pass(10 * stageExpiry); c.session.expire(st.now) {
		t.Fatal("dropped while it waits")
	}
	st.call().text("WRITE", "q", "x").says("OK")
	c.says("x")
	if st.pass(stageExpiry - 1); c.session.expire(st.now) {
		t.Fatal("dropped before it could be heard again")
	}
	if st.pass(1); !c.session.expire(st.now) || !c.session.gone {
		t.Error("not dropped though it does not wait for anything")
	}
	c.text("READ", "q").says() // as a new client
	st.leavesNothing()
}

// A client may use both interfaces at once, and what it has goes with it.
func TestSessionTextBesideMessages(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	c.on(1).queue("q").opens(modeQueue).ask(1, 0).waits()
	c.text("OPEN", "p").text("READ", "p").says("OK")
	c.texts = false
	c.on(1).put("a").gets("WRITE_OK", bring("a"))
	w := st.member("p")
	st.held = true
	w.put("b")
	c.session.end(hasBlock, "it is tired")
	st.held = false
	st.resume()
	w.confirms(1)
	st.checkQueued("q", "a")
	st.checkQueued("p", "b")
	c.on(0).gets("INVALID broker gone")
	st.leavesNothing()
}

// What a client once wrote to is forgotten when it is read, and no chunk before.
func TestSessionTextForgetsTheSenderQueuesThatAreEmpty(t *testing.T) {
	st := newStage(t)
	st.pipes.maxPipes = 1000
	c, r := st.call(), st.call()
	for i := range 3 * maxTextSenders {
		q := fmt.Sprint("q", i)
		c.text("OPEN", q).text("WRITE", q, "x").says("OK", "OK")
		if r.text("READ", q).says("x"); len(c.session.text.senders) > maxTextSenders {
			t.Fatalf("%d senders after %d queues", len(c.session.text.senders), i+1)
		}
	}
	for i := range 2 * maxTextSenders {
		q := fmt.Sprint("kept", i)
		c.text("OPEN", q).text("WRITE", q, "x").says("OK", "OK")
	}
	if n := len(c.session.text.senders); n < 2*maxTextSenders {
		t.Errorf("%d senders, and %d have chunks", n, 2*maxTextSenders)
	}
	for i := range 2 * maxTextSenders {
		q := fmt.Sprint("kept", i)
		if i%2 == 0 {
			r.text("READ", q).says("x")
		} else {
			r.text("CLOSE", q).says("OK")
		}
	}
	for i := range 3 * maxTextSenders {
		q := fmt.Sprint("last", i)
		c.text("OPEN", q).text("WRITE", q, "x").says("OK", "OK")
		r.text("READ", q).says("x")
	}
	if n := len(c.session.text.senders); n > maxTextSenders {
		t.Errorf("%d senders in the end", n)
	}
	st.leavesNothing()
}

// The queue that has the name now need not be the one that had it.
func TestSessionTextWritesToTheNextQueueOfAName(t *testing.T) {
	st := newStage(t)
	c := st.call()
	for range 3 {
		c.text("OPEN", "q").text("WRITE", "q", "x").text("WRITE", "q", "y").text("READ", "q").says("OK", "OK", "OK", "x")
		st.checkQueued("q", "y")
		c.text("CLOSE", "q").says("OK")
	}
	c.text("OPEN", "q").text("WRITE", "q", strings.Repeat("f", stagePending)).text("WRITE", "q", "x").says("OK", "OK").gone()
	if n := st.pipes.queues()["q"].full.len(); n > 0 {
		t.Error("what it could not write still has its turn")
	}
	st.leavesNothing()
}

func TestSessionTextTooManyReadsOfAQueue(t *testing.T) {
	st := newStage(t)
	c := st.call().text("OPEN", "q").says("OK")
	s := st.pipes.queues()["q"]
	var others sink
	for range maxDemands {
		s.demands.PushBack(&others)
	}
	c.text("READ", "q").says("ERROR")
	s.demands.Remove(s.demands.Front())
	c.text("READ", "q").says()
	s.demands.Init()
	c.session.text.waiting.all()[0].demand = s.demand(c.session.text.waiting.all()[0])
	c.text("WRITE", "q", "x").says()
	st.call().text("WRITE", "q", "y").says("OK")
	c.says("y", "OK")
	st.leavesNothing()
}

// A READ that begins when a CLOSE of its queue stands behind it need not wait.
func TestSessionTextCloseAfterReadsOfOthers(t *testing.T) {
	st := newStage(t)
	c := st.call().text("OPEN", "p").text("OPEN", "q").text("OPEN", "q").says("OK", "OK", "OK")
	c.text("READ", "p").text("READ", "q").text("CLOSE", "q").says()
	st.call().text("WRITE", "p", "x").says("OK")
	c.says("x", "ERROR", "OK")
	st.leavesNothing()
}

// Those who use text cannot receive in a shutdown, and are told.
func TestSessionTextWhenTheBrokerCloses(t *testing.T) {
	st := newStage(t)
	full := strings.Repeat("f", stagePending)
	r, w := st.call().text("OPEN", "q").says("OK").text("READ", "q").says(), st.call().text("OPEN", "p").says("OK")
	w.text("WRITE", "p", full).text("WRITE", "p", "waits").says("OK")
	if st.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false); !st.pipes.emptied() {
		t.Error("it waits for those who cannot receive")
	}
	st.settle()
	r.says("ERROR")
	w.says("ERROR")
	st.leavesNothing()
}

// Of a queue that has come from another home it is not known how many have opened it: no CLOSE deletes it.
func TestSessionTextCloseOfAQueueThatHasMoved(t *testing.T) {
	st := newStage(t)
	c := st.call().text("OPEN", "q").says("OK")
	s := st.pipes.queues()["q"]
	s.pushJob(&senderQueue{wake: func() {}}, s.newJob([]byte("x"), &terms{handed: &handedTerms{sent: 1}}))
	c.text("CLOSE", "q").says("OK")
	c.text("CLOSE", "q").says("OK") // of one who has opened it there
	st.checkQueued("q", "x")
	c.text("READ", "q").says("x")
	st.leavesNothing()
}
