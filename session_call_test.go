package zpipes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A stageCall is a farDial that has asked for a way, and that way.
type stageCall struct {
	call *farDial
	said []string
}

func (w *stageCall) begin() { w.said = append(w.said, "begin") }
func (w *stageCall) end(never bool) {
	w.said = append(w.said, map[bool]string{true: "never", false: "end"}[never])
}

// heard wants these to have been called.
func (w *stageCall) heard(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(w.said, " "); got != want {
		t.Errorf("the way was told %q, want %q", got, want)
	}
}

// listen has the directory say at which members somebody listens.
func (ms *meetingStage) listen(name string, at ...memberID) {
	ms.t.Helper()
	s := ms.sought[soughtKey{thingListener, name}]
	if s == nil {
		ms.t.Fatal("nobody seeks that")
	}
	ms.met, ms.settles = true, time.Time{}
	var all []meet.Offering
	for i, m := range at {
		all = append(all, meet.Offering{At: meet.Member(m), Token: meet.Token(i + 1)})
	}
	ms.exchange.found(s.token, all, ms.now)
	ms.turns()
}

// called is the last call that was made, on its way.
func (ms *meetingStage) called() *stageCall {
	ms.t.Helper()
	if len(ms.made) == 0 {
		ms.t.Fatal("nobody was called")
	}
	w := ms.made[len(ms.made)-1]
	w.call.began(w, nil, ms.now)
	return w
}

func (l *line) callFar(name string, forth, back meet.Token) *line {
	return l.send(message{id: msgCall, text: []byte(name), token: uint64(forth), other: uint64(back)})
}

// relayed is the way of the last relay, which is attached now.
func (ms *meetingStage) relayed() *stageWay {
	ms.t.Helper()
	ms.turns()
	w := ms.ways[len(ms.ways)-1]
	w.relay.found(w, nil, ms.now)
	ms.taken(w, 0, 1000, true)
	return w
}

// Whoever listens is asked one after the other; from then on either direction is a stream between brokers.
func TestCall(t *testing.T) {
	ms := newMeetingStage(t)
	c := ms.able()
	in, out := c.on(1).dial("svc", 2).waits(), c.on(2)
	ms.turns()
	ms.listen("svc", 3, 2)
	first := ms.called()
	first.call.failed(first, nobodyListens, ms.now)
	second := ms.called()
	if len(ms.made) != 2 || second.call.at == 3 {
		t.Fatalf("%d calls, the second of %d", len(ms.made), second.call.at)
	}
	in.waits()
	second.call.called(second, ms.now)
	ms.turns()
	in.gets("DIAL_OK").show()
	first.heard(t, "begin")
	second.heard(t, "begin end")
	way := ms.relayed()
	out.write("hi", 0).waits()
	ms.sends(way, "hi")
	ms.taken(way, 2, 998, false)
	out.gets("WRITE_OK")
	w := ms.fellow().on(1).attach("svc", 0, second.call.back).gets("TAKEN 0, 1000").show()
	in.readWith(readAny, 10, 0).waits()
	w.write("hello", 0).gets("TAKEN 5, 995")
	in.gets(`READ_OK "hello"`)
	w.close().gets("CLOSE_OK")
	in.read(1, 0).gets("READ_END").close().gets("CLOSE_OK")
	out.close().waits()
	way.relay.finished(way, cause{})
	ms.turns()
	out.gets("CLOSE_OK")
	ms.leavesNothing()
}

func TestCallThatFails(t *testing.T) {
	ms := newMeetingStage(t)
	c := ms.able()
	d := c.on(1).dial("svc", 2).waits()
	ms.turns()
	ms.listen("svc")
	d.gets("DIAL_FAILED no listener")
	d.dial("svc", 2).waits()
	ms.turns()
	ms.listen("svc", 2)
	ms.made[0].call.began(nil, errors.New("no way"), ms.now)
	ms.turns()
	d.gets("DIAL_FAILED unreachable")
	// Somebody begins to listen here before the answer comes.
	d.dial("svc", 2).waits()
	ms.turns()
	c.on(9).inputAs(modeListen, "svc").gets("INPUT_OK")
	ms.listen("svc", 1)
	d.gets("DIAL_OK").closeWith(causeNever, "").gets("CLOSE_OK")
	c.on(9).close().gets("CLOSE_OK")
	// And the broker closes.
	d.dial("svc", 2).waits()
	ms.turns()
	ms.stage.pipes.close(cause{causeBrokerGone, "it was closed"}, true)
	ms.turns()
	d.gets("DIAL_FAILED broker gone")
	ms.leavesNothing()
}

// One that is given up is taken back where it was made.
func TestCallThatIsGivenUp(t *testing.T) {
	ms := newMeetingStage(t)
	c := ms.able()
	d := c.on(1).dial("svc", 2).waits()
	ms.turns()
	d.closeWith(causeNever, "").gets("DIAL_FAILED closed", "CLOSE_OK") // before anybody was asked
	ms.turns()
	d.dial("svc", 2).waits()
	ms.turns()
	ms.listen("svc", 2)
	way := ms.called()
	c.gone()
	ms.turns()
	way.heard(t, "begin never")
	way.call.called(way, ms.now) // its answer was under way
	ms.turns()
	ms.leavesNothing()
}

// The other broker's writer may come before its broker's answer, and that answer may never come.
func TestCallWhoseAnswerIsLate(t *testing.T) {
	for _, lost := range []bool{false, true} {
		ms := newMeetingStage(t)
		c := ms.able()
		in, out := c.on(1).dial("svc", 2), c.on(2)
		ms.turns()
		ms.listen("svc", 2, 3)
		way := ms.called()
		f := ms.fellow()
		f.on(1).attach("svc", 0, way.call.back+1).gets("OUTPUT_FAILED conflict")
		f.on(2).attach("svc", 0, way.call.back).gets("TAKEN 0, 0").show().close().gets("CLOSE_OK")
		if in.waits(); lost {
			way.call.failed(way, cause{code: causeUnreachable}, ms.now)
		} else {
			way.call.called(way, ms.now)
		}
		ms.turns()
		in.gets("DIAL_OK").show().read(1, 0).gets("READ_END")
		if len(ms.made) != 1 {
			t.Errorf("%d brokers were called", len(ms.made))
		}
		relay := ms.relayed()
		out.close().waits()
		relay.relay.finished(relay, cause{})
		ms.turns()
		out.gets("CLOSE_OK")
		ms.leavesNothing()
	}
}

// Where a direction does not get there within the patience, it is over.
func TestCallOfABrokerThatIsLost(t *testing.T) {
	ms := newMeetingStage(t)
	c := ms.able()
	in, out := c.on(1).dial("svc", 2), c.on(2)
	ms.turns()
	ms.listen("svc", 2)
	way := ms.called()
	way.call.called(way, ms.now)
	ms.turns()
	in.gets("DIAL_OK").show().read(1, 0)
	out.write("x", 0)
	for range 9 {
		ms.goes(time.Second)
		c.on(0).ping().skip()
		last := ms.ways[len(ms.ways)-1]
		last.relay.found(nil, errors.New("no way"), ms.now)
	}
	in.waits()
	out.waits()
	ms.goes(time.Second)
	in.gets("READ_FAILED unreachable")
	out.gets("WRITE_FAILED unreachable")
	ms.leavesNothing()
}

// At the listener's broker, a call is a dial.
func TestCallee(t *testing.T) {
	ms := newMeetingStage(t)
	f := ms.fellow()
	f.on(1).callFar("svc", 7, 8).gets("CALL_FAILED no listener")
	c := ms.able()
	c.on(1).inputAs(modeListen, "svc").gets("INPUT_OK").show()
	f.on(1).callFar("svc", 7, 8).gets("CALLED").close().gets("CLOSE_OK")
	f.on(1).callFar("svc", 7, 9).gets("CALL_FAILED conflict")
	f.on(1).callFar("svc", 0, 9).gets("CALL_FAILED conflict")
	w := f.on(2).attach("svc", 0, 7).gets("TAKEN 0, 0").show() // nobody reads yet
	in, out := c.on(2).send(message{id: msgAccept, size: 1, count: 3}).gets("ACCEPT_OK").show(), c.on(3)
	w.gets("TAKEN 0, 1000").write("hi", 0).gets("TAKEN 2, 998")
	in.readWith(readAny, 9, 0).gets(`READ_OK "hi"`)
	way := ms.relayed()
	if way.relay.writer != 8 || way.relay.at != 2 {
		t.Errorf("a relay of %v to %v", way.relay.writer, way.relay.at)
	}
	out.write("hello", 0).waits()
	ms.sends(way, "hello")
	ms.taken(way, 5, 995, false)
	out.gets("WRITE_OK")
	w.closeWith(causeVanished, "").gets("CLOSE_OK") // the dialler's process
	in.read(1, 0).gets("READ_FAILED vanished")
	way.relay.finished(way, cause{code: causeVanished})
	ms.turns()
	out.gets("WRITE_FAILED vanished")
	ms.leavesNothing()
}

// A call that is taken back, in whichever way, is accepted by nobody.
func TestCalleeTakenBack(t *testing.T) {
	for name, takeBack := range map[string]func(ms *meetingStage, f *caller){
		"by a CLOSE":                   func(ms *meetingStage, f *caller) { f.on(1).closeWith(causeNever, "").gets("CLOSE_OK") },
		"by the end of its connection": func(ms *meetingStage, f *caller) { f.gone() },
		"by the patience's end": func(ms *meetingStage, f *caller) {
			f.on(1).close().gets("CLOSE_OK")
			for range 10 {
				ms.goes(time.Second)
				f.on(0).ping().skip()
				last := ms.ways[len(ms.ways)-1]
				last.relay.found(nil, errors.New("no way"), ms.now)
			}
			ms.turns()
		},
		"by a refusal, and the patience's end": func(ms *meetingStage, f *caller) {
			f.on(1).close().gets("CLOSE_OK")
			last := ms.ways[len(ms.ways)-1]
			last.relay.found(last, nil, ms.now)
			last.relay.refused(last, causeNoSeat, ms.now)
			for range 10 {
				ms.goes(time.Second)
				f.on(0).ping().skip()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ms := newMeetingStage(t)
			ms.stage.pipes.backlog = 1
			c := ms.able()
			c.on(1).inputAs(modeListen, "svc").gets("INPUT_OK").show()
			f, other := ms.fellow(), ms.fellow()
			f.on(1).callFar("svc", 7, 8).gets("CALLED")
			ms.turns()
			waits := other.on(1).callFar("svc", 9, 10).waits()
			takeBack(ms, f)
			ms.turns()
			waits.gets("CALLED")
			info, _ := ms.stage.pipes.lookUp("svc", ms.now)
			if info.Waiting != 1 {
				t.Errorf("%d wait to be accepted", info.Waiting)
			}
			other.gone()
			ms.turns()
			if info, _ = ms.stage.pipes.lookUp("svc", ms.now); info.Waiting != 0 {
				t.Errorf("%d wait to be accepted", info.Waiting)
			}
			ms.leavesNothing()
		})
	}
}

// Only other brokers may call.
func TestCallOfAStranger(t *testing.T) {
	ms := newMeetingStage(t)
	ms.able().on(1).callFar("svc", 7, 8).gets("INVALID")
	ms.sawViolations(1)
	ms.leavesNothing()
}
