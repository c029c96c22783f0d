package zpipes

import (
	"slices"
	"testing"
)

// A queue that nobody has is made as soon as all who should know have heard of the claim, and of nobody else's
// before.
func TestSessionQueueOfACluster(t *testing.T) {
	ms := newDirectoryStage(t)
	c := ms.able()
	q := c.on(1).queue("q").waits()
	known := c.on(2).inputAs(modeKnown, "q").waits()
	ms.records("REGISTER q") // it is sought
	ms.says(msgFound, thingQueue, 0, 0)
	q.waits()
	ms.records("REGISTER q") // and claimed
	token := ms.homes.names["q"].token
	ms.says(msgFound, thingQueue, token, 1)
	q.opens(modeQueue).put("x").confirms(1)
	known.opens(modeKnown)
	c.on(3).queue("q").opens(modeQueue) // by now, it is here
	ms.records()
	c.on(4).inputAs(modeDelete, "q").gets("INPUT_OK")
	ms.says(msgGone, thingQueue, token, 0, thingOver)
	for _, l := range []*line{q, known, c.on(3)} {
		l.gets("WRITE_FAILED deleted", "READ_FAILED deleted").close().gets("CLOSE_OK")
	}
	ms.records("UNREGISTER q", "UNREGISTER q")

	// One that is not to be made, or whose client has given up, is not.
	none := c.on(5).inputAs(modeDelete, "q").waits()
	gone := c.on(6).queue("q").waits()
	ms.records("REGISTER q")
	gone.close().gets("INPUT_FAILED closed", "CLOSE_OK")
	ms.says(msgFound, thingQueue, 0, 0)
	none.gets("INPUT_FAILED no queue")
	gone.waits()
	if n := len(ms.stage.pipes.queues()); n > 0 || len(ms.homes.names) > 0 {
		t.Errorf("%d queues, %d are known", n, len(ms.homes.names))
	}

	// Another broker's client is told that it is not here, and all else is that broker's matter.
	ms.fellow().on(1).queue("q").gets("INPUT_FAILED elsewhere")
	ms.records("UNREGISTER q")
	ms.leavesNothing()
}

// By text, too: commands wait until it is known where the queue is, and are passed on if it is at another broker.
func TestSessionQueueOfAClusterByText(t *testing.T) {
	ms := newDirectoryStage(t)
	c := ms.call().text("OPEN", "q").text("WRITE", "q", "x").says()
	ms.records("REGISTER q")
	ms.says(msgFound, thingQueue, 0, 0)
	ms.says(msgFound, thingQueue, ms.homes.names["q"].token, 1)
	c.says("OK", "OK")
	c.text("READ", "q").says("x").text("CLOSE", "q").says("OK")
	ms.turns()
	c.text("CLOSE", "q").says()
	ms.turns()
	ms.digsAtOnce(ableText)
	ms.says(msgFound, thingQueue, 7, 2)
	if ms.dug == nil {
		t.Fatal("nothing is passed on")
	}
	frame, _ := ms.dug.next()
	m, _ := parse(frame)
	if passed, _ := unpackFrames(m.chunk); m.id != msgText || len(passed) != 2 || string(passed[0]) != textClose || string(passed[1]) != "q" {
		t.Errorf("message %d, %q is passed on", m.id, passed)
	}
	ms.dug.arrived((&message{id: msgTextAnswer, block: hasBlock, chunk: packFrames([][]byte{[]byte(textOK)})}).append(nil))
	ms.turns()
	c.says("OK")
	ms.sent = nil
	ms.leavesNothing()
}

// What a client has passed on that is gone does not begin anew when its way is lost: nothing is made or sought for it.
func TestSessionTextOfAClientThatIsGone(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.digsAtOnce(ableText)
	c := ms.call().text("OPEN", "q").text("READ", "q").says()
	ms.records("REGISTER q")
	ms.says(msgFound, thingQueue, 7, 2)
	if ms.dug == nil || ms.dug.text.passed.len() != 1 {
		t.Fatal("nothing is passed on")
	}
	ms.turns()
	ms.records("UNREGISTER q") // that is over
	c.gone()
	ms.dug.end(cause{causeBrokerGone, "it ends"})
	ms.stage.settle()
	ms.turns()
	if ms.records(); len(ms.homes.names) > 0 {
		t.Error("it is sought")
	}
	ms.leavesNothing()
}

// What a client has of jobs at another broker is known job by job: who has none left, or none any more, can rest and expire.
func TestSessionTextOfJobsElsewhere(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.digsAtOnce(ableText)
	c := ms.call()
	answers := func(frames ...string) {
		t.Helper()
		if frame, _ := ms.dug.next(); frame == nil {
			t.Fatal("nothing is passed on")
		}
		var all [][]byte
		for _, f := range frames {
			all = append(all, []byte(f))
		}
		ms.dug.arrived((&message{id: msgTextAnswer, block: hasBlock, chunk: packFrames(all)}).append(nil))
		ms.stage.settle()
	}
	has := func(jobs bool) {
		t.Helper()
		if c.session.works() != jobs || ms.dug.busy() != jobs {
			t.Errorf("the client has jobs: %t, and the way is in use: %t; want %t", c.session.works(), ms.dug.busy(), jobs)
		}
	}
	c.session.presence = present
	c.text("TAKE", "q").says()
	ms.records("REGISTER q")
	ms.says(msgFound, thingQueue, 7, 2)
	takes := func(id, deliveries string) {
		t.Helper()
		answers(id, deliveries, "x")
		c.says(id + " " + deliveries + " x")
		has(true)
	}
	one, two := jobID(5, 1), jobID(5, 2)
	takes(one, "1")
	c.text("TAKE", "q")
	takes(one, "2") // its lease has ended, and it has come again
	c.text("EXTEND", "q", one)
	answers("OK")
	c.says("OK")
	c.text("DONE", "q", one+".1")
	answers("ERROR", "that delivery is over")
	c.says("ERROR").text("DONE", "q", two)
	answers("ERROR", "it is not this client's")
	c.says("ERROR").text("RETURN", "q", one, "soon").says("ERROR") // is not passed on
	has(true)
	c.text("DONE", "q", one)
	answers("OK")
	c.says("OK")
	has(false)

	c.text("TAKE", "q")
	takes(two, "1")
	c.text("EXTEND", "q", two)
	answers("ERROR", "its lease has ended")
	c.says("ERROR")
	has(false)

	// One that is returned is given to a TAKE that waits.
	c.text("TAKE", "q")
	takes(one, "3")
	c.text("TAKE", "q").text("RETURN", "q", one)
	takes(one, "4")
	answers("OK")
	c.says("OK")
	has(true)
	c.text("DONE", "q", one)
	answers("ERROR", "it was deleted")
	c.says("ERROR")
	has(false)

	c.text("READ", "q")
	answers(one, "1", "read")
	c.says("read")
	answers("OK") // to the DONE
	has(false)
	for id := range uint64(mostFarJobs + 1) {
		ms.dug.text.holds([]byte(jobID(5, id)), []byte("1"))
	}
	if n := len(ms.dug.text.jobs); n != mostFarJobs {
		t.Errorf("%d jobs are known", n)
	}
	ms.sent = nil
	ms.leavesNothing()
}

// Whether the bytes of a stream are those of a queue at another broker is not asked where this one is told of such
// queues: an open waits for nobody then.
func TestSessionStreamOfACluster(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.others.Store(1)
	c := ms.able()
	c.on(1).input("p").gets("INPUT_OK").show()
	ms.received(2, &message{id: msgRegister, block: hasBlock, text: []byte("q"), flags: byte(thingQueue) << thingShift, token: 7})
	ms.turns()
	q := c.on(2).output("q").waits() // where it is said to be now
	q.close().gets("OUTPUT_FAILED closed", "CLOSE_OK")

	// Nor does it wait for the exchange, which may have much to do; it asks then, as if it knew nothing.
	ms.exchange.turns.Lock()
	busy := c.on(3).input("busy").waits()
	ms.exchange.turns.Unlock()
	ms.turns()
	busy.gets("INPUT_OK")

	// Who has been linked just now may have yet to tell what it has.
	ms.linkUp(2, ableDirectory)
	ms.turns()
	fresh := c.on(4).input("new").waits()
	ms.turns()
	fresh.waits()
	ms.goes(settleTime)
	fresh.gets("INPUT_OK")
	c.on(5).output("newer").gets("OUTPUT_OK")
	ms.sent = nil
	ms.linkUp(2, ableDirectory)
	ms.turns()
	if all := len(ms.sent) - 1; all < 1 || ms.sent[all] != "FOUND " || slices.Contains(ms.sent[:all], "FOUND ") {
		t.Errorf("it is told %q", ms.sent)
	}
	ms.received(2, &message{id: msgFound, block: hasBlock}) // as it has told now
	ms.turns()
	c.on(6).input("told").gets("INPUT_OK")
}

// A queue that was made for an open which is refused then, or whose client is gone by then, goes, too.
func TestSessionQueueMadeInVain(t *testing.T) {
	for _, gone := range []bool{false, true} {
		ms := newDirectoryStage(t)
		c := ms.able()
		limited(Limits{}, Limits{Pipes: 1}, c)
		q := c.on(1).queue("q").waits()
		ms.turns()
		ms.says(msgFound, thingQueue, 0, 0)
		c.on(2).input("other").gets("INPUT_OK") // which is all that it may have
		ms.stage.held = true
		ms.says(msgFound, thingQueue, ms.homes.names["q"].token, 1)
		if ms.stage.pipes.queues()["q"] == nil {
			t.Fatal("it is not made")
		}
		if gone {
			c.gone()
		}
		ms.stage.held = false
		if ms.turns(); !gone {
			q.gets("INPUT_FAILED too many")
		}
		ms.turns()
		if n := len(ms.stage.pipes.queues()); n > 0 || len(ms.homes.names) > 0 {
			t.Errorf("gone: %t: %d queues, %d are known", gone, n, len(ms.homes.names))
		}
		ms.sent = nil
		ms.leavesNothing()
	}
}

// A broker that ends says to others that a queue is elsewhere, since it will be; and to its own clients that it ends.
func TestSessionQueueOfABrokerThatEnds(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.stage.pipes.beginQueue("q", born)
	ms.stage.pipes.beResigned(true)
	f := ms.fellow()
	f.on(1).queue("q").gets("INPUT_FAILED elsewhere")
	f.on(1).input("q").gets("INPUT_FAILED elsewhere")
	f.on(1).inputAs(modeResigned, "q").gets("INPUT_FAILED broker gone")
	ms.able().on(1).queue("q").gets("INPUT_FAILED broker gone")
	f.texts = true
	f.on(0).send(message{id: msgText, mode: textAsks, chunk: packFrames([][]byte{[]byte("TAKE"), []byte("q")})})
	if m, _ := parse([]byte(f.lines[0])); m.code != causeElsewhere {
		t.Errorf("by text it is answered with cause %d", m.code)
	}
	ms.turns()
	ms.sent = nil
	ms.leavesNothing()
}

// An open whose answer is lost with the way begins anew; but not a deletion, which may have been done: then there is no such
// queue any more.
func TestSessionForwardDeletionWhoseAnswerIsLost(t *testing.T) {
	for _, mode := range []byte{modeKnown, modeDelete} {
		ms := newDirectoryStage(t)
		ms.digsAtOnce(0)
		q := ms.able().on(1).inputAs(mode, "q").waits()
		ms.turns()
		ms.says(msgFound, thingQueue, 7, 2)
		if ms.dug == nil {
			t.Fatal("nothing is passed on")
		}
		ms.dug.end(cause{causeBrokerGone, "it is out of reach"})
		ms.stage.settle()
		if mode == modeDelete {
			q.gets("INPUT_FAILED broker gone")
		} else {
			q.waits()
		}
		ms.turns()
		ms.sent = nil
		ms.callers[q.session].gone()
		ms.turns()
		ms.sent = nil
		ms.leavesNothing()
	}
}
