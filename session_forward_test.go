package zpipes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A forwarding is two brokers: what the clients of near open is at home.
type forwarding struct {
	near, home *stage
	tunnels    []*stageTunnel
	slow       bool   // the way takes nothing
	lacks      uint32 // what home is not able to do, as an earlier version
}

// A stageTunnel is a tunnel and its client at the other broker.
type stageTunnel struct {
	*tunnel
	there *caller
	ended bool
}

func newForwarding(t *testing.T) *forwarding {
	f := &forwarding{near: newStageOf(t, 1<<20, 1<<20), home: newStageOf(t, 1<<20, 1<<20)}
	f.near.digs = func(t *tunnel, to memberID) {
		c := f.home.call()
		c.session.member, c.agreed = 1, true
		c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: t.session.able&^f.lacks | peerAbilities}}).gets("PING_OK")
		f.tunnels = append(f.tunnels, &stageTunnel{tunnel: t, there: c})
		t.begin(f.home.pipes.largest(), t.session.able&^f.lacks|ableText, func() {})
	}
	f.near.pump = f.pump
	return f
}

// pump takes what there is to and fro, until there is nothing.
func (f *forwarding) pump() {
	for moved := true; moved; {
		moved = false
		for _, t := range f.tunnels {
			for !f.slow && !t.ended {
				frame, closed := t.next()
				if closed {
					t.ended = true
					t.there.gone()
				}
				if frame == nil {
					break
				}
				moved = true
				t.there.deliver(frame)
			}
			f.home.settle()
			for !t.ended && len(t.there.heard) > 0 && !t.sated() {
				moved = true
				t.arrived(t.there.heard[0])
				t.there.heard = t.there.heard[1:]
			}
		}
		f.near.resume()
	}
}

// opens has what the client opens be at home.
func (f *forwarding) opens(l *line, m message) *line {
	if l.agreed {
		m.block, m.channel = hasBlock, l.channel
	}
	frame := m.append(nil)
	m, _ = parse(frame)
	s := l.session
	c := &channel{session: s, number: l.channel}
	s.channels[l.channel] = c
	c.forward(&request{message: m, frame: frame, asked: true}, 2)
	s.account.addEnds(1)
	l.stage.settle()
	return l
}

func (f *forwarding) queue(l *line, name string) *line {
	return f.opens(l, message{id: msgInput, text: []byte(name), mode: modeQueue})
}

func (f *forwarding) leavesNothing() {
	f.near.t.Helper()
	for _, c := range f.near.callers {
		if c.session.account.ends != 0 {
			c.gone()
			if n := c.session.account.ends; n != 0 {
				f.near.t.Errorf("%d ends are counted for a client that is gone", n)
			}
		}
	}
	f.near.leavesNothing()
	f.pump()
	for _, t := range f.tunnels {
		if len(t.there.session.channels) > 0 {
			f.near.t.Errorf("%d channels are left at the other broker", len(t.there.session.channels))
		}
	}
	f.home.leavesNothing()
}

// lose ends all tunnels.
func (f *forwarding) lose() {
	for _, t := range f.tunnels {
		if !t.ended {
			t.ended = true
			t.there.gone()
			t.end(cause{causeBrokerGone, "the other broker is out of reach"})
		}
	}
	f.near.settle()
}

// What clients say of a queue that is elsewhere has the effects and the answers that it has at home.
func TestSessionForwardIsAsAtHome(t *testing.T) {
	f := newForwarding(t)
	c := f.near.able()
	q := f.queue(c.on(7), "q").opens(modeQueue).show().waits()
	q.put("a", "b").confirms(2).put("c").confirms(1)
	f.home.checkQueued("q", "a", "b", "c")
	q.ask(1, 0).gets(bring("a")).ask(1, 1).gets(bring("b"))
	q.askWith(readReturn, 0, 0).gets("READ_TIMEOUT")
	f.home.checkQueued("q", "b", "c")
	q.send(message{id: msgTake, count: 1}).gets("JOB")
	q.close().gets("CLOSE_OK")
	f.home.checkQueued("q", "b", "c") // the one who had it has left
	q.read(1, 0).gets("INVALID")

	r := f.opens(c.on(8), message{id: msgInput, text: []byte("q")}).gets("INPUT_OK")
	r.show().readWith(readAny, 10, 0).gets(`READ_OK "b"`).close().gets("CLOSE_OK")
	w := f.opens(c.on(9), message{id: msgOutput, text: []byte("q")}).gets("OUTPUT_OK")
	w.show().write("x", 0).gets("WRITE_OK").close().gets("CLOSE_OK")
	f.home.checkQueued("q", "c", "x")

	f.opens(c.on(10), message{id: msgInput, text: []byte("none"), mode: modeKnown}).gets("INPUT_FAILED no queue")
	f.opens(c.on(10), message{id: msgInput, text: []byte("q"), mode: modeDelete}).gets("INPUT_OK")
	if n := len(f.home.pipes.queues()); n != 0 {
		t.Errorf("%d queues are left", n)
	}
	if n := len(f.tunnels); n != 1 {
		t.Errorf("%d tunnels, want 1", n)
	}
	f.leavesNothing()
}

// What is said of several jobs at once is passed on, one by one to a broker of an earlier version, and answered if the way is lost.
func TestSessionForwardOfLots(t *testing.T) {
	for _, lacks := range []uint32{0, ableLots} {
		f := newForwarding(t)
		f.lacks = lacks
		q := f.queue(f.near.able().on(1), "q").opens(modeQueue).show().put("a", "b", "c").confirms(3)
		q.send(message{id: msgTake, count: 3}).tells("JOB 1.1 a", "JOB 2.1 b", "JOB 3.1 c")
		say := func(ids ...uint64) *line {
			m := message{id: msgDone, token: f.home.pipes.queues()["q"].incarnation}
			for _, id := range ids {
				m.chunk = appendDone(m.chunk, wireJob{id: id, delivery: 1})
			}
			return q.send(m)
		}
		answers := say(1, 2).jobsHeard()
		if got := strings.Join(answers, ","); got != "SETTLED 2" && got != "SETTLED 1,SETTLED 1" {
			t.Errorf("answered %s", got)
		}
		f.home.sawViolations(0)
		f.home.checkQueued("q")
		f.lose()
		q.jobsHeard()
		say(3, 4).tells("LOST 1 3.1", "LOST 1 4.1")
	}
}

func TestSessionForwardForTheBaseProtocol(t *testing.T) {
	f := newForwarding(t)
	f.home.member("q").put("hello", "", "world").confirms(3)
	r := f.opens(f.near.base(), message{id: msgInput, text: []byte("q")}).gets("INPUT_OK")
	r.read(7, 0).gets(`READ_OK "hellowo"`).read(4, 0).waits()
	if r.session.presence = present; !r.session.waits() {
		t.Error("a client that waits for what is elsewhere counts as silent")
	}
	w := f.opens(f.near.base(), message{id: msgOutput, text: []byte("q")}).gets("OUTPUT_OK")
	w.write("!", 0).gets("WRITE_OK")
	r.gets(`READ_OK "rld!"`).read(1, 0).waits().close().gets("READ_FAILED", "CLOSE_OK")
	w.write("", 0).gets("WRITE_OK").write("rest", 0).gets("WRITE_OK").close().gets("CLOSE_OK")
	f.home.checkQueued("q", "", "rest") // also the empty chunk, which is one to them
	f.leavesNothing()
}

// A client that is gone is gone at home, too: what it had comes back.
func TestSessionForwardOfAClientThatDies(t *testing.T) {
	f := newForwarding(t)
	c := f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	q.put("a", "b").confirms(2).ask(1, 0).gets(bring("a"))
	c.gone()
	f.pump()
	f.home.checkQueued("q", "a", "b")
	f.leavesNothing()
}

// With the way there, each end is over, in the words of its kind.
func TestSessionForwardOfALostWay(t *testing.T) {
	f := newForwarding(t)
	c := f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	r := f.opens(c.on(2), message{id: msgInput, text: []byte("q")}).gets("INPUT_OK").readWith(readAny, 1, 0)
	w := f.opens(c.on(3), message{id: msgOutput, text: []byte("q")}).gets("OUTPUT_OK")
	f.slow = true
	o := f.opens(c.on(4), message{id: msgInput, text: []byte("p"), mode: modeQueue})
	u := f.queue(c.on(5), "u")
	b := f.near.base()
	br := f.opens(b, message{id: msgInput, text: []byte("q")})
	f.slow = false
	f.pump()
	br.gets("INPUT_OK").read(1, 0).waits()
	u.opens(modeQueue).send(message{id: msgRules, rules: wireRules{lease: 1000}}).gets("RULES_OK")
	f.slow = true
	u.send(message{id: msgRules, rules: wireRules{lease: 2000}})
	o.opens(modeQueue).close()
	n := f.queue(c.on(6), "n")
	f.lose()
	q.gets("WRITE_FAILED broker gone", "READ_FAILED broker gone")
	r.gets("READ_FAILED broker gone")
	w.gets("WRITE_FAILED broker gone")
	o.gets("CLOSE_OK")
	u.gets("RULES_FAILED broker gone", "WRITE_FAILED broker gone", "READ_FAILED broker gone")
	n.gets("INPUT_FAILED broker gone")
	br.gets("READ_FAILED").read(1, 0).gets("READ_FAILED").close().gets("CLOSE_OK")
	// What is asked of them is answered.
	q.put("x").gets("WRITE_FAILED broker gone").send(message{id: msgTake, count: 1}).waits()
	q.send(message{id: msgSettle, mode: byte(actDone)}).gets("LOST").send(message{id: msgPut}).gets("WRITE_FAILED broker gone")
	q.send(message{id: msgTend, mode: byte(tendRedrive)}).gets("WRITE_FAILED broker gone").close().gets("CLOSE_OK")
	r.readWith(readAny, 1, 0).gets("READ_FAILED broker gone").close().gets("CLOSE_OK")
	w.write("x", 0).gets("WRITE_FAILED broker gone").close().gets("CLOSE_OK")
	// And the next open has a new tunnel.
	f.slow = false
	f.queue(c.on(1), "q").opens(modeQueue).show().close().gets("CLOSE_OK")
	f.leavesNothing()
}

// What has waited for room on the way is answered, too, when there is none any more.
func TestSessionForwardOfALostWayThatWasFull(t *testing.T) {
	const writes = 6
	chunk := strings.Repeat("x", 64<<10)
	for _, agreed := range []bool{false, true} {
		f := newForwarding(t)
		f.home.member("q")
		l, failed := f.near.base(), "WRITE_FAILED"
		if agreed {
			l, failed = f.near.able().on(1), "WRITE_FAILED broker gone"
		}
		w := f.opens(l, message{id: msgOutput, text: []byte("q")}).gets("OUTPUT_OK")
		f.slow = true
		for range writes {
			w.write(chunk, 0)
		}
		if n := f.tunnels[0].out.len(); n == writes {
			t.Fatal("all of it had room")
		}
		f.lose()
		told := writes
		if agreed { // the first one is about all that was sent, which nobody answers by itself
			told = 1 + writes - f.tunnels[0].out.len()
		}
		w.gets(slices.Repeat([]string{failed}, told)...).close().gets("CLOSE_OK")
		f.leavesNothing()
	}
}

// Where it is elsewhere again, the open begins anew, and the client does not notice.
func TestSessionForwardThatIsElsewhereByNow(t *testing.T) {
	f := newForwarding(t)
	c := f.near.able()
	f.slow = true
	q := f.queue(c.on(1), "q")
	f.tunnels[0].arrived((&message{id: msgInputFailed, text: []byte("moved"), code: causeElsewhere, cause: []byte("moved"), block: hasBlock, channel: 1}).append(nil))
	f.near.settle()
	q.opens(modeQueue) // at near itself, to whom nobody says now that it should be elsewhere
	if f.near.pipes.queues()["q"] == nil {
		t.Error("it was not opened here")
	}
	q.show().put("x").confirms(1).close().gets("CLOSE_OK")
	f.near.checkQueued("q", "x")
	f.near.pipes.delete("q", born)
	f.slow = false
	f.leavesNothing()
}

// A client that has closed what it waits for is answered, and has nothing open afterwards, also where the
// queue has moved, or the way is lost, in that moment.
func TestSessionForwardClosedBeforeItIsOpen(t *testing.T) {
	moved := func(f *forwarding, channel uint32) {
		f.tunnels[0].arrived((&message{id: msgInputFailed, text: []byte("moved"), code: causeElsewhere, cause: []byte("moved"), block: hasBlock, channel: channel}).append(nil))
		f.near.settle()
	}
	f := newForwarding(t)
	c, b := f.near.able(), f.near.base()
	f.slow = true
	q := f.queue(c.on(1), "q").close()
	moved(f, 1)
	q.gets("INPUT_FAILED closed", "CLOSE_OK")
	base := f.opens(b, message{id: msgInput, text: []byte("q")}).close()
	f.tunnels[1].arrived((&message{id: msgInputFailed, text: []byte("no"), code: causeDenied, cause: []byte("no"), block: hasBlock, channel: 1}).append(nil))
	f.near.settle()
	base.gets("INPUT_FAILED", "CLOSE_OK")
	// Also a CLOSE that has no room yet behind others.
	other := f.queue(c.on(2), "other")
	for f.tunnels[0].out.bytes < maxInTunnel {
		other.put(strings.Repeat("x", 64<<10))
	}
	q = f.queue(c.on(3), "q").close()
	moved(f, 3)
	q.gets("INPUT_FAILED closed", "INVALID")
	if n := len(f.near.pipes.queues()); n > 0 || len(c.session.channels) != 1 || len(b.session.channels) > 0 {
		t.Errorf("%d queues are here, and %d and %d channels, want none, and 1 and none", n, len(c.session.channels), len(b.session.channels))
	}
	f.slow = false
	f.leavesNothing()
}

func TestSessionForwardClosedAsTheWayIsLost(t *testing.T) {
	f, ms := newForwarding(t), newDirectoryStage(t)
	ms.stage.digs, ms.stage.pump, f.near = f.near.digs, f.pump, ms.stage
	c := ms.able()
	q := c.on(1).queue("q")
	ms.turns()
	f.slow = true
	ms.says(msgFound, thingQueue, 7, 2)
	q.close()
	f.lose()
	q.gets("INPUT_FAILED broker gone", "CLOSE_OK")
	if n := len(c.session.channels); n > 0 || c.session.account.ends != 0 {
		t.Errorf("%d channels and %d ends are left", n, c.session.account.ends)
	}
}

// A way that nobody uses ends, whoever its client is, and not while anything is open there.
func TestSessionForwardRests(t *testing.T) {
	f := newForwarding(t)
	c := f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	f.slow = true
	p := f.queue(c.on(2), "p")
	if q.close(); f.tunnels[0].rest() {
		t.Error("the way rests before the other broker has answered")
	}
	f.slow = false
	f.pump()
	q.gets("CLOSE_OK")
	if p.opens(modeQueue); f.tunnels[0].rest() {
		t.Error("the way rests while something is open")
	}
	if p.close().gets("CLOSE_OK"); !f.tunnels[0].rest() {
		t.Error("the way does not rest")
	}
	f.tunnels[0].ended = true
	f.tunnels[0].there.gone()
	f.near.settle()
	if n := len(c.session.tunnels); n > 0 {
		t.Errorf("%d tunnels are left", n)
	}
	f.queue(c.on(1), "q").opens(modeQueue).show().close().gets("CLOSE_OK")
	if n := len(f.tunnels); n != 2 {
		t.Errorf("%d ways were made, want 2", n)
	}
	f.leavesNothing()
}

// A broker that takes nothing, or a client that takes no answers, holds little memory here, and nobody else.
func TestSessionForwardHoldsLittle(t *testing.T) {
	f := newForwarding(t)
	c, other := f.near.able(), f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	f.queue(other.on(1), "other").opens(modeQueue).show()

	f.slow = true
	chunk := strings.Repeat("x", 64<<10)
	for range 12 {
		q.put(chunk)
	}
	if n := f.tunnels[0].out.bytes; n > maxInTunnel+len(chunk)+100 {
		t.Errorf("%d bytes wait for a broker that takes nothing", n)
	}
	if n := c.session.account.bytes; n < 7*int64(len(chunk)) {
		t.Errorf("the rest is %d bytes of the client's account", n)
	}
	other.on(0).ping().gets("PING_OK")
	f.slow = false
	f.pump()
	q.confirms(12)

	c.congested = true
	q.send(message{id: msgTake, count: 12})
	if n := f.tunnels[0].in.bytes; n > maxInTunnel+len(chunk)+100 {
		t.Errorf("%d bytes wait for a client that takes nothing", n)
	}
	if n := c.session.backlogBytes; n > 2*len(chunk) {
		t.Errorf("%d bytes are sent to a client that takes nothing", n)
	}
	other.on(1).put("y").confirms(1)
	for range 100 {
		c.relieve()
	}
	q.gets(strings.Split(strings.Repeat("JOB ", 12)[:47], " ")...)
	f.leavesNothing()
}

// What breaks the protocol ends the channel alone, and what is too large for the other broker is told.
func TestSessionForwardOfWhatIsWrong(t *testing.T) {
	f := newForwarding(t)
	f.home.pipes.maxPending = 1 << 17
	c := f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	q.put(strings.Repeat("x", 1<<18)).gets(`WRITE_FAILED aborted "a chunk of 262148 bytes, where a queue takes at most 131072"`)
	q.put("fits").confirms(1)
	q.queue("another").gets("INVALID")
	f.near.sawViolations(1)
	p := f.queue(c.on(2), "q").opens(modeQueue).show()
	p.write("no records", 0).gets("INVALID").put("x").gets("INVALID")
	f.home.sawViolations(1)
	f.home.checkQueued("q", "fits")
	f.leavesNothing()
}

// A chunk that the client's connection does not take ends the Queue, and not that connection.
func TestSessionForwardOfAChunkTooLargeForTheClient(t *testing.T) {
	f := newForwarding(t)
	f.near.pipes.maxMessage = 64 << 20
	f.home.pipes.maxPending, f.home.pipes.maxMessage = 64<<20, 64<<20
	c := f.near.able()
	q := f.queue(c.on(1), "q").opens(modeQueue).show()
	s := f.home.pipes.queues()["q"]
	for _, n := range []int{leastTaken, leastTaken + 1} {
		s.push(&senderQueue{wake: func() {}}, make([]byte, n-recordHead))
	}
	q.ask(1, 0).gets(fmt.Sprint("READ_OK of ", leastTaken))
	q.ask(1, 1).gets("WRITE_FAILED broker gone", "READ_FAILED broker gone").close().gets("CLOSE_OK")
	f.leavesNothing()
}
