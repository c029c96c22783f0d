package zpipes

import (
	"fmt"
	"testing"
)

// dial and accept send for a pair of channels: this one, and one for the writing end.
func (l *line) dial(name string, out uint32) *line {
	return l.send(message{id: msgDial, text: []byte(name), count: out})
}

func (l *line) accept(listener, out uint32) *line {
	return l.send(message{id: msgAccept, size: listener, count: out})
}

func (st *stage) listens(name string) *caller {
	st.t.Helper()
	c := st.able()
	c.on(1).inputAs(modeListen, name).opens(modeListen)
	return c
}

// known wants so many ends to be counted in the caller's account.
func (c *caller) counts(ends int) {
	c.stage.t.Helper()
	if got := c.session.account.ends; got != ends {
		c.stage.t.Errorf("%d ends are counted, want %d", got, ends)
	}
}

func TestSessionDialsWhoWaitsInAccept(t *testing.T) {
	st := newStage(t)
	here, there := st.able(), st.listens("svc")
	there.session.who = Access{UID: 1, GID: 2, PID: 3}
	there.on(2).accept(1, 3).waits()
	there.on(3).waits()
	here.on(1).dial("svc", 2).gets("DIAL_OK")
	there.on(2).gets("ACCEPT_OK").show()
	here.on(1).show()
	here.on(2).write("ping", 0).gets("WRITE_OK")
	there.on(2).readWith(readAny, 10, 0).gets(`READ_OK "ping"`)
	there.on(3).write("pong", 0).gets("WRITE_OK")
	here.on(1).readWith(readAny, 10, 0).gets(`READ_OK "pong"`)
	here.counts(2)
	there.counts(3)

	here.on(2).close().gets("CLOSE_OK") // half of it
	there.on(2).read(1, 0).gets("READ_END")
	there.on(3).write("more", 0).gets("WRITE_OK")
	there.on(3).closeWith(causeAborted, "no more").gets("CLOSE_OK")
	here.on(1).readWith(readAny, 10, 0).gets(`READ_OK "more"`).read(1, 0).gets(`READ_FAILED aborted "no more"`)
	here.gone()
	there.on(2).close().gets("CLOSE_OK")
	there.counts(1)
	st.sawViolations(0)
	st.leavesNothing()
}

func TestSessionDialWhereNobodyListens(t *testing.T) {
	st := newStage(t)
	a := st.able()
	a.on(1).dial("svc", 2).gets("DIAL_FAILED no listener")
	a.on(3).output("stream").gets("OUTPUT_OK")
	a.on(1).dial("stream", 2).gets("DIAL_FAILED mode")
	a.on(1).inputAs(modeListen, "stream").gets("INPUT_FAILED mode")
	l := st.listens("svc")
	for mode, want := range []string{"INPUT_FAILED mode", "INPUT_FAILED mode", "INPUT_FAILED mode"} {
		a.on(1).inputAs(byte(mode), "svc").gets(want)
	}
	a.on(1).output("svc").gets("OUTPUT_FAILED mode")
	l.on(1).close().gets("CLOSE_OK")
	a.on(1).dial("svc", 2).gets("DIAL_FAILED no listener").dial("", 2).gets("DIAL_FAILED bad name")
	st.denies = &cause{causeDenied, "not yours"}
	a.on(1).dial("svc", 2).gets("DIAL_FAILED denied").inputAs(modeListen, "svc").gets("INPUT_FAILED denied")
	a.counts(1)
	st.leavesNothing()
}

func TestSessionDialsWithinTheBacklogSucceed(t *testing.T) {
	st := newStage(t)
	st.pipes.backlog = 1
	l := st.listens("svc")
	a, b, c := st.able(), st.able(), st.able()
	a.on(1).dial("svc", 2).gets("DIAL_OK").show()
	a.on(2).write("a", 0).waits() // nobody is there yet
	b.on(1).dial("svc", 2).waits()
	c.on(1).dial("svc", 2).waits()

	// One that gives up is gone, and one that dies.
	b.on(1).closeWith(causeNever, "").gets("DIAL_FAILED closed", "CLOSE_OK")
	b.counts(0)
	a.gone()
	c.on(1).gets("DIAL_OK").show()
	c.on(2).write("c", 0).waits()
	l.on(2).accept(1, 3).gets("ACCEPT_OK").show()
	c.on(1).gets("ACCEPTED")
	c.on(2).gets("WRITE_OK")
	l.on(2).readWith(readAny, 10, 0).gets(`READ_OK "c"`)
	l.on(4).accept(1, 5).waits()
	st.leavesNothing()
}

func TestSessionAcceptThatIsUndoneLeavesTheConnectionToOthers(t *testing.T) {
	for _, undo := range []func(l *caller){
		func(l *caller) { l.on(2).closeWith(causeNever, "").gets("CLOSE_OK"); l.counts(1) },
		(*caller).gone,
		func(l *caller) { l.on(1).close().gets("CLOSE_OK"); l.on(2).closeWith(causeNever, "").gets("CLOSE_OK") },
		func(l *caller) { // what comes from it after that is not for the connection
			l.on(3).closeWith(causeNever, "").gets("CLOSE_OK")
			l.counts(1)
			l.on(2).readWith(readAny, 10, 0).gets("INVALID").close().gets("INVALID")
		},
		func(l *caller) {
			l.on(2).output("x").gets("INVALID")
			l.on(3).write("y", 0).gets("INVALID")
			l.counts(1)
		},
	} {
		st := newStage(t)
		first, other := st.listens("svc"), st.listens("svc")
		a := st.able()
		a.on(1).dial("svc", 2).gets("DIAL_OK").show()
		a.on(2).write("abc", 0).waits()
		first.on(2).accept(1, 3).gets("ACCEPT_OK")
		a.on(1).gets("ACCEPTED")
		undo(first)
		other.on(2).accept(1, 3).gets("ACCEPT_OK").show()
		a.on(1).gets("ACCEPTED")
		a.on(2).gets("WRITE_OK")
		other.on(2).readWith(readAny, 10, 0).gets(`READ_OK "abc"`)
		st.leavesNothing()
	}
}

func TestSessionWithoutListenersTurnsAwayWhoWaits(t *testing.T) {
	st := newStage(t)
	st.pipes.backlog = 1
	l := st.listens("svc")
	l.on(2).accept(1, 3).waits()
	other := st.listens("svc")
	other.on(1).close().gets("CLOSE_OK")
	l.on(2).close().gets("ACCEPT_FAILED closed", "CLOSE_OK")
	a, b := st.able(), st.able()
	a.on(1).dial("svc", 2).gets("DIAL_OK").show().readWith(readAny, 10, 0).waits()
	b.on(1).dial("svc", 2).waits()
	l.gone()
	b.on(1).gets("DIAL_FAILED no listener")
	a.on(1).gets(`READ_FAILED aborted "nobody listens there any more, and it was not accepted"`)
	a.on(2).gets(`WRITE_FAILED aborted "nobody listens there any more, and it was not accepted"`)
	st.leavesNothing()

	st = newStage(t)
	l = st.listens("svc")
	l.on(2).accept(1, 3).waits()
	l.on(1).close().gets("CLOSE_OK")
	l.on(2).gets("ACCEPT_FAILED broker gone").accept(1, 3).gets("ACCEPT_FAILED broker gone")
	st.leavesNothing()
}

func TestSessionListenersTakeTurns(t *testing.T) {
	st := newStage(t)
	st.pipes.maxPipes = 100
	ls := []*caller{st.listens("svc"), st.listens("svc")}
	for _, l := range ls {
		for i := range uint32(4) {
			l.on(2+2*i).accept(1, 3+2*i)
		}
	}
	a := st.able()
	for i := range uint32(8) {
		a.on(1+2*i).dial("svc", 2+2*i).gets("DIAL_OK")
		ls[i%2].on(2 + i/2*2).gets("ACCEPT_OK")
	}
	st.leavesNothing()
}

func TestSessionConnectionsCountInLimits(t *testing.T) {
	st := newStage(t)
	st.pipes.maxPipes = 5
	l := st.listens("svc")
	a := st.able()
	a.session.account.limits.Pipes = 3
	a.on(1).dial("svc", 2).gets("DIAL_OK")
	a.on(3).dial("svc", 4).gets("DIAL_FAILED too many") // its own limit
	a.on(3).output("p").gets("OUTPUT_OK").close().gets("CLOSE_OK")
	b := st.able()
	b.on(1).dial("svc", 2).gets("DIAL_OK")
	b.on(3).dial("svc", 4).gets("DIAL_FAILED too many") // the broker's
	l.session.account.limits.Pipes = 2
	l.on(2).accept(1, 3).gets("ACCEPT_FAILED too many")
	l.session.account.limits.Pipes = 3
	l.on(2).accept(1, 3).gets("ACCEPT_OK")
	st.leavesNothing()
}

// What nobody may send is answered as such, and ends no more than that channel.
func TestSessionConnectionsOnChannelsInUse(t *testing.T) {
	st := newStage(t)
	st.pipes.backlog = 1
	l := st.listens("svc")
	a := st.able()
	a.on(1).dial("svc", 0).gets("INVALID").dial("svc", 1).gets("INVALID")
	a.on(1).dial("svc", 2).gets("DIAL_OK").dial("svc", 3).gets("INVALID") // which ends it
	a.on(2).close().gets("CLOSE_OK")
	a.on(1).skip()
	st.sawViolations(3)
	a.on(5).dial("svc", 6).gets("DIAL_OK")
	a.on(7).dial("svc", 8).waits()
	a.on(8).output("p").gets("INVALID").read(1, 0).gets("INVALID").close().gets("INVALID")
	a.on(9).dial("svc", 8).gets("INVALID")
	st.sawViolations(2)
	l.on(2).accept(1, 3).gets("ACCEPT_OK")
	a.on(7).gets("DIAL_OK")
	a.on(8).write("", 0).waits()
	l.on(4).accept(9, 5).gets("ACCEPT_FAILED broker gone") // no listener is there
	l.on(1).read(1, 0).gets("INVALID").write("x", 0).gets("INVALID")

	old := st.modern()
	old.on(1).dial("svc", 2).gets("INVALID").accept(1, 2).gets("INVALID").inputAs(modeListen, "svc").gets("INPUT_FAILED mode")
	st.leavesNothing()
}

func TestSessionDialWaitsForItsVerdict(t *testing.T) {
	st := newStage(t)
	l := st.listens("svc")
	st.ponders = true
	a := st.able()
	a.on(1).dial("svc", 2).waits()
	a.on(3).dial("svc", 4).waits().close().gets("DIAL_FAILED closed", "CLOSE_OK")
	st.decide()
	a.on(1).gets("DIAL_OK")
	a.on(3).waits()
	a.counts(2)
	b := st.able()
	b.on(1).dial("svc", 2).waits()
	b.gone()
	st.decide()
	l.on(2).accept(1, 3).gets("ACCEPT_OK")
	l.on(4).accept(1, 5).waits()
	st.leavesNothing()
}

func TestRegistryClosedEndsPorts(t *testing.T) {
	for _, all := range []bool{false, true} {
		st := newStage(t)
		st.pipes.backlog = 1
		l := st.listens("svc")
		a, b := st.able(), st.able()
		a.on(1).dial("svc", 2).gets("DIAL_OK").show().readWith(readAny, 10, 0)
		b.on(1).dial("svc", 2).waits()
		idle := st.listens("idle")
		idle.on(2).accept(1, 3).waits()
		given := st.able()
		st.held = true
		given.on(1).dial("idle", 2).gets("DIAL_OK") // and given to who has not come for it
		st.pipes.close(cause{causeBrokerGone, "shutdown"}, all)
		st.held = false
		st.resume()
		idle.on(2).gets("ACCEPT_FAILED broker gone")
		b.on(1).gets("DIAL_FAILED broker gone")
		a.on(1).gets("READ_FAILED broker gone")
		l.on(2).accept(1, 3).gets("ACCEPT_FAILED broker gone")
		a.on(5).dial("svc", 6).gets("DIAL_FAILED broker gone")
		a.on(5).inputAs(modeListen, "other").gets("INPUT_FAILED broker gone")
		given.on(1).skip()
		st.leavesNothing()
	}
}

func TestRegistryShowsListeners(t *testing.T) {
	st := newStage(t)
	st.listens("svc")
	st.listens("svc")
	a := st.able()
	for i := range uint32(2) {
		a.on(1+2*i).dial("svc", 2+2*i).gets("DIAL_OK")
	}
	infos := sortedList(st.pipes, st.now)
	want := PipeInfo{Name: "svc", Mode: ModeListener, Writes: true, Listeners: 2, Waiting: 2, Connections: 2}
	if fmt.Sprint(infos) != fmt.Sprint([]PipeInfo{want}) || st.pipes.stats().Pipes != 5 {
		t.Errorf("the list is %+v, and there are %d pipes", infos, st.pipes.stats().Pipes)
	}
	st.leavesNothing()
}
