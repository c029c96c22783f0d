package zpipes

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A meetingStage is a stage whose broker, member 1, is in a cluster with another one, member 2.
// That is a caller where it has the writer, and a list of ways where it has the reader.
type meetingStage struct {
	*stage
	*exchange
	sent []string // records
	ways []*stageWay
	made []*stageCall
	due  time.Time
	dug  *tunnel // the last one, see digsAtOnce
}

// digsAtOnce has ways to the other broker begin at once, with what that one is able to.
func (ms *meetingStage) digsAtOnce(able uint32) {
	ms.stage.digs = func(t *tunnel, _ memberID) {
		ms.dug = t
		t.begin(1000, able, func() {})
	}
}

func newMeetingStage(t *testing.T) *meetingStage {
	ms := &meetingStage{stage: newStage(t)}
	ms.exchange = newExchange(1, ms.stage.pipes, ms)
	ms.stage.pipes.exchange = ms.exchange
	ms.linkUp(2, ableDirectory)
	ms.settled()
	ms.viewChanged([]memberID{1, 2})
	ms.turns()
	ms.sent = nil      // that all has been told
	ms.others.Store(0) // so that nobody is asked whether a name is a queue's
	return ms
}

func (ms *meetingStage) ring() {}

func (ms *meetingStage) send(to memberID, m *message) {
	what := frameName(*m) + " " + string(m.text)
	if m.flags&endMatched != 0 {
		what += " matched"
	}
	if m.flags&endMany != 0 && m.flags>>thingShift == 0 {
		what += " many"
	}
	ms.sent = append(ms.sent, what)
}

func (ms *meetingStage) busy(memberID) bool       { return false }
func (ms *meetingStage) way(r *relay)             { ms.ways = append(ms.ways, &stageWay{relay: r}) }
func (ms *meetingStage) dial(c *farDial)          { ms.made = append(ms.made, &stageCall{call: c}) }
func (ms *meetingStage) cede(string, memberID)    {}
func (ms *meetingStage) keep(string)              {}
func (ms *meetingStage) describe(memberID) string { return "b@host" }
func (ms *meetingStage) name(memberID) string     { return "b@host" }
func (ms *meetingStage) patience() time.Duration  { return 10 * time.Second }
func (ms *meetingStage) tokens(name string) [2]meet.Token {
	return ms.stage.pipes.pipes()[name].rendezvous.tokens
}

// turns has the exchange do all that there is to do now.
func (ms *meetingStage) turns() {
	for range 10 {
		ms.due = ms.turn(ms.now)
	}
	ms.settle()
}

// goes lets time pass.
func (ms *meetingStage) goes(d time.Duration) {
	ms.pass(d)
	ms.turns()
}

// leavesNothing has all go, and the other broker end.
func (ms *meetingStage) leavesNothing() {
	ms.t.Helper()
	for _, c := range ms.callers {
		c.gone()
	}
	ms.linkDown(2)
	ms.left(2)
	for range 2 {
		for _, w := range ms.ways {
			w.relay.found(nil, errors.New("no way"), ms.now)
			w.relay.lost(w, ms.now)
		}
		ms.turns()
	}
	if n := len(ms.stage.pipes.far); n > 0 {
		ms.t.Errorf("%d writers of others are left", n)
	}
	if n := len(ms.ends); n > 0 {
		ms.t.Errorf("%d ends are left", n)
	}
	ms.stage.leavesNothing()
}

// records wants these to have been sent.
func (ms *meetingStage) records(want ...string) {
	ms.t.Helper()
	ms.turns()
	if !slices.Equal(ms.sent, want) {
		ms.t.Errorf("%q, want %q", ms.sent, want)
	}
	ms.sent = nil
}

// fellow is a connection of the other broker's.
func (ms *meetingStage) fellow() *caller {
	c := ms.call()
	c.session.member, c.session.peer = 2, "b@host"
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities | peerAbilities}}).gets("PING_OK")
	return c
}

func (l *line) attach(name string, r, w meet.Token) *line {
	return l.send(message{id: msgAttach, text: []byte(name), other: uint64(r), token: uint64(w)})
}

// A stageWay is one that a relay has asked for.
type stageWay struct {
	relay *relay
	said  []string
}

func (w *stageWay) begin() { w.said = append(w.said, "begin") }
func (w *stageWay) drop(never bool) {
	w.said = append(w.said, map[bool]string{true: "never", false: "drop"}[never])
}

// taken is TAKEN, in answer to an attach or not.
func (ms *meetingStage) taken(w *stageWay, at int64, room int, anew bool) {
	ms.t.Helper()
	p := w.relay.pipe
	p.mu.Lock()
	if !p.relayedTo(at, room, anew) {
		ms.t.Fatalf("it was not sent so much as %d", at)
	}
	if anew && !p.reader.sure {
		p.show(reader)
	}
	p.mu.Unlock()
	if anew {
		w.relay.isAttached(w)
	}
	ms.turns()
}

// sends is what a way has to send now.
func (ms *meetingStage) sends(w *stageWay, want string) {
	ms.t.Helper()
	p := w.relay.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	got := ""
	for s := p.relay(100); s != nil; s = p.relay(100) {
		got += string(s.data())
		s.release()
	}
	if got != want {
		ms.t.Errorf("%q is sent, want %q", got, want)
	}
}

func TestMeetingEndsAreRegistered(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.able().on(1).input("p").gets("INPUT_OK")
	ms.records() // it may be undone
	r.show()
	ms.records("REGISTER p")
	w := ms.base()
	w.output("p").gets("OUTPUT_OK")
	ms.records("REGISTER p matched", "REGISTER p matched")
	w.close().gets("CLOSE_OK")
	ms.records("UNREGISTER p", "UNREGISTER p")
	r.close().gets("CLOSE_OK")
	w = ms.able().on(1).send(message{id: msgOutput, text: []byte("cast"), mode: modeBroadcast}).gets("OUTPUT_OK").show()
	ms.records("REGISTER cast many")
	ms.base().input("cast").gets("INPUT_OK")
	ms.records("REGISTER cast matched many")
	w.close().gets("CLOSE_OK")
	ms.records("UNREGISTER cast")
	ms.leavesNothing()
}

// A reader that waits for a writer is a broadcast's, when that comes first.
func TestMeetingReaderOfABroadcastIsNotRegistered(t *testing.T) {
	ms := newMeetingStage(t)
	ms.base().input("cast").gets("INPUT_OK")
	ms.records("REGISTER cast")
	w := ms.able().on(1).send(message{id: msgOutput, text: []byte("cast"), mode: modeBroadcast}).gets("OUTPUT_OK")
	ms.records("UNREGISTER cast")
	w.closeWith(causeNever, "").gets("CLOSE_OK")
	ms.records("REGISTER cast")
	ms.leavesNothing()
}

func TestFarWriter(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	token := ms.tokens("p")[reader]
	f := ms.fellow()
	f.on(1).attach("p", token+1, 7).gets("OUTPUT_FAILED conflict")
	f.on(1).attach("q", token, 7).gets("OUTPUT_FAILED conflict")
	f.on(1).attach("p", token, 0).gets("OUTPUT_FAILED conflict")
	w := f.on(2).attach("p", token, 7).gets("TAKEN 0, 1000")
	f.on(3).attach("p", token, 8).gets("OUTPUT_FAILED conflict")
	ms.base().output("p").gets("OUTPUT_FAILED")
	w.show().write("hello", 0).gets("TAKEN 5, 995")
	r.read(5, 0).gets(`READ_OK "hello"`)
	w.write(strings.Repeat("x", 995), 0).gets("TAKEN 1000, 5")
	r.read(200, 0).skip()
	w.waits() // for more room than that
	r.read(200, 0).skip()
	w.gets("TAKEN 1000, 405")
	w.closeWith(causeAborted, "disk full").gets("CLOSE_OK")
	r.read(595, 0).skip()
	r.read(1, 0).gets("READ_FAILED")
	r.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// A reader that waits for more than a pipe holds is served.
func TestFarWriterOfAReaderThatWantsMuch(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	w := ms.fellow().on(1).attach("p", ms.tokens("p")[reader], 7).gets("TAKEN 0, 1000").show()
	w.write(strings.Repeat("x", 1000), 0).gets("TAKEN 1000, 0")
	r.read(1500, 50)
	w.gets("TAKEN 1000, 500")
	ms.pass(50 * time.Millisecond)
	r.gets("READ_TIMEOUT")
	w.write(strings.Repeat("x", 500), 0).gets("TAKEN 1500, 0") // it was told so
	w.write("x", 0).gets("WRITE_FAILED aborted \"a WRITE beyond what there is room for\"")
	ms.sawViolations(1)
	ms.leavesNothing()
}

// Only other brokers may attach.
func TestFarWriterOfAStranger(t *testing.T) {
	ms := newMeetingStage(t)
	ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	ms.able().on(1).attach("p", ms.tokens("p")[reader], 7).gets("INVALID")
	ms.sawViolations(1)
	ms.leavesNothing()
}

// A writer whose connection is lost comes again, by another one, while the old one may still be
// there; or it does not, and the reader is told.
func TestFarWriterGoesOn(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	token := ms.tokens("p")[reader]
	f := ms.fellow()
	w := f.on(1).attach("p", token, 7).gets("TAKEN 0, 1000").show().write("hello", 0).gets("TAKEN 5, 995")
	again := ms.fellow().on(4).attach("p", token, 7).gets("TAKEN 5, 995")
	w.gets("INVALID")
	w.write("hello", 0).gets("INVALID")
	f.gone()
	again.write(" there", 0).gets("TAKEN 11, 989")
	// The ATTACH of an older way may come after that of the one that is used, which is told.
	late := ms.fellow()
	late.on(1).attach("p", token, 7).gets("TAKEN 11, 989")
	again.gets("INVALID")
	again = ms.fellow().on(1).attach("p", token, 7).gets("TAKEN 11, 989")
	late.gone()
	again.gone()
	ms.goes(9 * time.Second)
	third := ms.fellow().on(1).attach("p", token, 7).gets("TAKEN 11, 989")
	ms.goes(9 * time.Second)
	r.read(11, 0).gets(`READ_OK "hello there"`)
	third.gone()
	ms.turns()
	ms.goes(9 * time.Second)
	r.read(1, 0).waits()
	ms.goes(time.Second)
	r.gets("READ_FAILED")
	ms.fellow().on(1).attach("p", token, 7).gets("OUTPUT_FAILED conflict")
	r.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// One whose broker has ended is not waited for.
func TestFarWriterWhoseBrokerEnds(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	f := ms.fellow()
	f.on(1).attach("p", ms.tokens("p")[reader], 7).gets("TAKEN 0, 1000").show()
	r.read(1, 0).waits()
	f.gone()
	ms.turns()
	r.waits()
	ms.linkDown(2)
	ms.left(2)
	ms.turns()
	r.gets("READ_FAILED")
	r.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// What its reader says when it leaves meanwhile, it learns when it comes again.
func TestFarWriterWhoseReaderLeavesMeanwhile(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.able().on(1).input("p").gets("INPUT_OK").show()
	ms.turns()
	token := ms.tokens("p")[reader]
	f := ms.fellow()
	f.on(1).attach("p", token, 7).gets("TAKEN 0, 1000").show().write("abc", 0).gets("TAKEN 3, 997")
	f.gone()
	r.closeWith(causeAborted, "enough").gets("CLOSE_OK")
	ms.turns()
	w := ms.fellow().on(1).attach("p", token, 7)
	w.heard = w.heard[1:] // how much room there is does not matter
	w.gets(`WRITE_FAILED aborted "enough"`)
	w.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// An attach that was never answered, as far as the writer's broker knows, is undone.
func TestFarWriterThatNeverShows(t *testing.T) {
	ms := newMeetingStage(t)
	ms.base().input("p").gets("INPUT_OK")
	ms.turns()
	token := ms.tokens("p")[reader]
	f := ms.fellow()
	f.on(1).attach("p", token, 7).gets("TAKEN 0, 1000")
	f.gone()
	g := ms.fellow()
	g.on(1).attach("p", token, 8).gets("TAKEN 0, 1000").closeWith(causeNever, "").gets("CLOSE_OK")
	g.on(2).attach("p", token, 9).gets("TAKEN 0, 1000")
	ms.leavesNothing()
}

// matched has a writer here meet a reader there.
func (ms *meetingStage) matched(name string) *stageWay {
	ms.t.Helper()
	ms.turns()
	ms.received(2, &message{id: msgMatch, block: hasBlock, text: []byte(name), token: uint64(ms.tokens(name)[writer]), other: 99, at: 2})
	ms.turns()
	if len(ms.ways) == 0 {
		ms.t.Fatal("no way was asked for")
	}
	w := ms.ways[len(ms.ways)-1]
	w.relay.found(w, nil, ms.now)
	return w
}

// A WRITE is answered when the reader's broker has its bytes, and CLOSE when that knows.
func TestRelayOfAClient(t *testing.T) {
	for _, base := range []bool{true, false} {
		ms := newMeetingStage(t)
		l := ms.base()
		if !base {
			l = ms.modern().on(1)
		}
		l.output("p").gets("OUTPUT_OK").write("early", 0).waits()
		way := ms.matched("p")
		l.waits()
		ms.taken(way, 0, 8, true)
		l.waits()
		ms.sends(way, "early")
		ms.taken(way, 5, 3, false)
		l.gets("WRITE_OK")
		l.write("ab", 0).write("c", 0).write("d", 50).waits()
		ms.sends(way, "abc")
		ms.taken(way, 7, 1, false)
		l.gets("WRITE_OK")
		ms.pass(50 * time.Millisecond)
		l.gets("WRITE_TIMEOUT") // there was no room for it
		way.relay.lost(way, ms.now)
		ms.pass(time.Minute / 20) // one that waits for an answer is not silent
		if ms.ways[len(ms.ways)-1] == way {
			t.Fatal("no other way is looked for")
		}
		second := ms.ways[len(ms.ways)-1]
		second.relay.found(second, nil, ms.now)
		ms.sends(second, "")
		ms.taken(second, 7, 5, true)
		ms.sends(second, "c") // again
		ms.taken(second, 8, 5, false)
		l.gets("WRITE_OK")
		l.close().waits()
		second.relay.finished(second, cause{})
		ms.turns()
		l.gets("CLOSE_OK")
		ms.leavesNothing()
	}
}

// If the reader's broker can't be reached for too long, each WRITE that is not answered fails,
// and so does a CLOSE.
func TestRelayThatIsGivenUp(t *testing.T) {
	ms := newMeetingStage(t)
	l, other := ms.modern().on(1), ms.base()
	l.output("p").gets("OUTPUT_OK")
	way := ms.matched("p")
	ms.taken(way, 0, 1000, true)
	other.output("q").gets("OUTPUT_OK")
	second := ms.matched("q")
	ms.taken(second, 0, 1000, true)
	l.write("abc", 0).write("def", 0).waits()
	ms.sends(way, "abcdef")
	ms.taken(way, 3, 997, false)
	l.gets("WRITE_OK")
	other.close().waits()
	for _, w := range []*stageWay{way, second} {
		w.relay.lost(w, ms.now)
	}
	for range 9 {
		ms.goes(time.Second)
		for _, w := range ms.ways[2:] {
			w.relay.found(nil, errors.New("no way"), ms.now)
		}
		ms.ways = ms.ways[:2]
		l.ping().skip()
	}
	l.waits()
	other.waits()
	ms.goes(time.Second)
	l.gets("WRITE_FAILED unreachable")
	other.gets("CLOSE_FAILED")
	l.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// A writer whose attach fails waits again, with all that it has.
func TestRelayThatIsRefused(t *testing.T) {
	ms := newMeetingStage(t)
	l := ms.modern().on(1).output("p").gets("OUTPUT_OK").write("abc", 0)
	for i := range 3 {
		way := ms.matched("p")
		switch i {
		case 0:
			way.relay.refused(way, cause{code: causeConflict}, ms.now)
		case 1:
			way.relay.lost(way, ms.now)
		case 2: // after it had been attached, but nothing was sent
			ms.taken(way, 0, 1000, true)
			way.relay.lost(way, ms.now)
			next := ms.ways[len(ms.ways)-1]
			next.relay.found(next, nil, ms.now)
			next.relay.refused(next, cause{code: causeConflict}, ms.now)
		}
		ms.goes(time.Second / 5)
		l.ping().gets()
		l.on(0).skip()
	}
	r := ms.base().input("p").gets("INPUT_OK").read(3, 0).gets(`READ_OK "abc"`)
	l.gets("WRITE_OK")
	l.close().gets("CLOSE_OK")
	r.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// One that was read, or may have been, is over, also where nobody has heard how far that went.
func TestRelayThatIsRefusedInTheMiddle(t *testing.T) {
	ms := newMeetingStage(t)
	l := ms.modern().on(1).output("p").gets("OUTPUT_OK").write("abc", 0)
	way := ms.matched("p")
	ms.taken(way, 0, 1000, true)
	ms.sends(way, "abc")
	way.relay.lost(way, ms.now)
	next := ms.ways[len(ms.ways)-1]
	next.relay.found(next, nil, ms.now)
	next.relay.refused(next, cause{code: causeConflict}, ms.now)
	ms.turns()
	l.gets("WRITE_FAILED unreachable")
	l.close().gets("CLOSE_OK")
	ms.leavesNothing()
}

// A conflict that comes late is none of a broadcast that the reader has become one of meanwhile.
func TestMeetingConflictThatIsLate(t *testing.T) {
	ms := newMeetingStage(t)
	r := ms.able().on(1).input("cast").gets("INPUT_OK").show()
	ms.turns()
	ms.received(2, &message{id: msgConflict, block: hasBlock, text: []byte("cast"), token: uint64(ms.tokens("cast")[reader]), at: 2})
	ms.turn(ms.now)
	w := ms.able().on(1).send(message{id: msgOutput, text: []byte("cast"), mode: modeBroadcast}).gets("OUTPUT_OK").show()
	ms.turns()
	w.send(message{id: msgWrite, chunk: []byte("hello"), begins: []byte{0}}).gets("WRITE_OK")
	r.read(5, 0).gets(`READ_OK "hello"`)
	ms.leavesNothing()
}

func TestMeetingConflict(t *testing.T) {
	ms := newMeetingStage(t)
	l := ms.modern().on(1).output("p").gets("OUTPUT_OK")
	r := ms.base().input("q").gets("INPUT_OK")
	ms.turns()
	for _, name := range []string{"p", "q"} {
		for r, token := range ms.tokens(name) {
			if token != 0 {
				ms.received(2, &message{id: msgConflict, block: hasBlock, text: []byte(name), flags: byte(r), token: uint64(token), at: 2})
			}
		}
	}
	ms.turns()
	l.gets("WRITE_FAILED conflict")
	r.read(1, 0).gets("READ_FAILED")
	ms.base().output("p").gets("OUTPUT_OK") // the name is free
	ms.leavesNothing()
}

// Records that make no sense change nothing.
func FuzzRecords(f *testing.F) {
	for _, id := range []messageID{msgRegister, msgUnregister, msgMatch, msgConflict, msgAttach, msgTaken, msgLink, msgFound, msgGone, msgFeed, msgHeld} {
		for flags := range byte(32) {
			m := message{id: id, block: hasBlock, channel: 1, text: []byte("p"), flags: flags, mode: modeBroadcast, token: 1, other: 2, at: 2}
			f.Add(m.append(nil), m.append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, record, frame []byte) {
		ms := newMeetingStage(t)
		r := ms.base().input("p").gets("INPUT_OK")
		w := ms.base().output("q").gets("OUTPUT_OK")
		ms.turns()
		peer := ms.fellow()
		if m, err := parse(record); err == nil {
			ms.received(2, &m)
		}
		ms.turns()
		peer.deliver(frame)
		ms.goes(time.Second)
		r.close().skip()
		w.close().skip()
		ms.violations = nil
		ms.leavesNothing()
	})
}
