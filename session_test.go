package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// The scripts that the broker plays over sockets hold without them, and need no
// time.
func TestSessionConformanceWithoutSockets(t *testing.T) {
	for _, path := range scriptPaths(t, "v2", "fixes") {
		t.Run(scriptName(path), func(t *testing.T) {
			steps, err := scriptParse(scriptRead(t, path))
			if err != nil {
				t.Fatal(err)
			}
			st := newStageOf(t, 1<<20, 16<<20)
			actors := make(map[string]*line)
			for _, step := range steps {
				l := actors[step.actor]
				if l == nil {
					l = st.base()
					actors[step.actor] = l
				}
				switch step.verb {
				case "sleep":
					st.pass(step.wait)
				case "gone":
					l.gone()
				case ">":
					l.deliver(bytes.Clone(step.frames[0]))
				case "<":
					for len(l.heard) == 0 && st.alarms.len() > 0 {
						st.pass(st.alarms.first().alarm.at.Sub(st.now))
					}
					if len(l.heard) == 0 || !step.accepts(l.heard[:1]) {
						t.Fatalf("%d: want %s, got %s", step.line, step.text, scriptNotation(l.heard))
					}
					l.heard = l.heard[1:]
				case "nothing":
					if st.pass(step.wait); len(l.heard) > 0 {
						t.Fatalf("%d: want %s, got %s", step.line, step.text, scriptNotation(l.heard))
					}
				}
			}
			for name, l := range actors {
				if len(l.heard) > 0 {
					t.Errorf("%s got %s in the end", name, scriptNotation(l.heard))
				}
			}
			st.leavesNothing()
		})
	}
}

func TestSessionRequestsAreAnsweredInOrder(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK")
		w := dial().output("p").gets("OUTPUT_OK")
		r.read(3, 0).read(2, 0).read(0, 0).write("x", 0).read(1, 0).waits()
		w.write("ab", 0).gets("WRITE_OK")
		r.waits()
		w.write("cdef", 0).gets("WRITE_OK")
		r.gets(`READ_OK "abc"`, `READ_OK "de"`, "READ_END", "INVALID", `READ_OK "f"`)
		st.sawViolations(0)
	})
}

func TestSessionPingOvertakes(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK").read(3, 0).read(3, 0).waits()
		pinger := r
		if r.agreed {
			pinger = r.on(0) // where PING_OK comes, whatever channel PING names
		}
		r.ping()
		pinger.gets("PING_OK")
		w := dial().output("p").gets("OUTPUT_OK").write("abc", 0).gets("WRITE_OK")
		r.gets(`READ_OK "abc"`)
		w.close().gets("CLOSE_OK")
		r.gets("READ_END")
	})
}

func TestSessionCloseOvertakes(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		r := dial().input("p").gets("INPUT_OK").read(3, 7).read(3, 0).input("q").read(1, 0).waits()
		r.close().gets(r.failed("READ_FAILED"), "CLOSE_OK", "INVALID", "INPUT_OK")
		st.pass(time.Hour) // the first READ's timeout is over and done with
		dial().output("q").gets("OUTPUT_OK").write("q's", 0).gets("WRITE_OK")
		r.gets(`READ_OK "q"`)

		w := dial().output("p").gets("OUTPUT_OK").write("nobody reads", 0).write("this", 0).waits()
		w.close().gets(w.failed("WRITE_FAILED"), "CLOSE_OK", "INVALID")
		w.close().gets("INVALID")
		st.sawViolations(0)
	})
}

func TestSessionWrongRoleChangesNothing(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		nobody := dial()
		nobody.read(1, 0).write("x", 0).close().gets("INVALID", "INVALID", "INVALID")
		r := dial().input("p").gets("INPUT_OK").write("x", 0).gets("INVALID")
		w := dial().output("p").gets("OUTPUT_OK").read(1, 0).gets("INVALID")
		w.write("fine", 0).gets("WRITE_OK")
		r.read(4, 0).gets(`READ_OK "fine"`)
		st.sawViolations(0)
		if n := len(nobody.session.channels); nobody.channel == 0 && n > 0 {
			t.Errorf("%d conversations of a client with nothing open", n)
		}
	})
}

func TestSessionWhatEndsAChannel(t *testing.T) {
	breaches := map[string]func(l *line){
		"a second INPUT":  func(l *line) { l.input("q") },
		"a second OUTPUT": func(l *line) { l.output("q") },
	}
	for _, m := range everyMessage() {
		switch m.id {
		case msgInput, msgOutput, msgRead, msgWrite, msgClose, msgPing, msgMove:
		default:
			breaches["the broker's "+frameName(m)] = func(l *line) { l.send(bare(m)) }
		}
	}
	for name, breach := range breaches {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
				r := dial().input("p").gets("INPUT_OK").read(1, 0)
				breach(r)
				r.waits().input("q").read(9, 0).waits() // all in good order
				w := dial().output("p").gets("OUTPUT_OK").write("x", 0)
				r.gets(`READ_OK "x"`, "INVALID", "INPUT_OK")
				st.sawViolations(1)
				if w.agreed {
					w.gets("WRITE_OK", "WRITE_FAILED vanished")
				} else {
					w.write("y", 0).gets("WRITE_OK", "WRITE_FAILED")
				}
				dial().input("p").gets("INPUT_OK") // the name is free
				dial().output("q").gets("OUTPUT_OK").write("of the new", 0).gets("WRITE_OK")
				r.gets(`READ_OK "of the ne"`)
			})
		})
	}
}

func TestSessionRefusedOpensSayWhy(t *testing.T) {
	overBoth(t, func(t *testing.T, st *stage, dial func() *line) {
		refused := func(l *line, name string, why causeCode) {
			t.Helper()
			id := " " + causeNames[why]
			if !l.agreed {
				id = ""
			}
			l.input(name).gets("INPUT_FAILED" + id)
			l.output(name).gets("OUTPUT_FAILED" + id)
			// The connection is as good as new.
			l.read(1, 0).close().gets("INVALID", "INVALID")
		}
		l := dial()
		refused(l, "", causeBadName)
		refused(l, "a\x00b", causeBadName)
		dial().input("p").gets("INPUT_OK")
		dial().output("p").gets("OUTPUT_OK")
		refused(l, "p", causeBusy)
		for i := range 9 {
			dial().input(fmt.Sprint(i)).gets("INPUT_OK")
		}
		refused(l, "one too many", causeTooMany)
		st.pipes.close(cause{causeBrokerGone, "closing"}, false)
		refused(l, "too late", causeBrokerGone)
		st.sawViolations(0)
	})
}

func TestSessionOpensThatAreDenied(t *testing.T) {
	st := newStage(t)
	base, l := st.base(), st.modern().on(1)
	st.denies = &cause{causeDenied, "not yours"}
	base.input("p").output("p").gets("INPUT_FAILED", "OUTPUT_FAILED")
	l.input("p").output("p").gets("INPUT_FAILED denied", "OUTPUT_FAILED denied")
	for _, mode := range []byte{modeQueue, modeDelete, modeStatus} {
		l.inputAs(mode, "p").gets("INPUT_FAILED denied")
	}
	c := st.call().text("OPEN", "p").text("READ", "p").text("WRITE", "p", "x").text("CLOSE", "p").says("ERROR", "ERROR", "ERROR", "ERROR")
	if n := len(st.pipes.pipes()) + len(st.pipes.queues()); n > 0 {
		t.Errorf("%d pipes have come into being", n)
	}
	st.denies = nil
	l.queue("p").opens(modeQueue)
	c.text("OPEN", "p").says("OK")
	st.leavesNothing()
}

// A client reads the status through an end like others, one at a time.
func TestSessionStatusIsReadOnce(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	l := c.on(1).inputAs(modeStatus, "").opens(modeStatus)
	c.on(2).inputAs(modeStatus, "").gets("INPUT_FAILED busy")
	l.readWith(readAny, 100, 0).read(1, 0).gets(`READ_OK "the status"`, "READ_END").close().gets("CLOSE_OK")
	c.on(2).inputAs(modeStatus, "").opens(modeStatus).close().gets("CLOSE_OK")
	if n := len(st.pipes.pipes()) + len(st.pipes.queues()); n > 0 {
		t.Errorf("%d pipes have come into being", n)
	}
	st.leavesNothing()
}

func TestSessionChannelsAreIndependent(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	c.on(1).input("p").gets("INPUT_OK").read(1, 0).waits()
	c.on(2).output("q").gets("OUTPUT_OK").write("waits", 0).waits()
	c.on(math.MaxUint32).output("p").gets("OUTPUT_OK").write("x", 0).gets("WRITE_OK")
	c.on(1).gets(`READ_OK "x"`).close().gets("CLOSE_OK")
	c.on(2).waits().close().gets("WRITE_FAILED closed", "CLOSE_OK")
	c.on(math.MaxUint32).gets("WRITE_FAILED closed").close().gets("CLOSE_OK")
	if n := len(c.session.channels); n > 0 {
		t.Errorf("%d conversations are left of closed channels", n)
	}
}

// The broker may come to a wake-up when its channel is no more, and another
// one has its channel.
func TestSessionLateWakeUps(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	r := c.on(1).input("p").gets("INPUT_OK").read(1, 0)
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	st.held = true
	w.write("x", 0)
	r.close().gets("READ_FAILED closed", "CLOSE_OK")
	r.input("q").gets("INPUT_OK")
	st.held = false
	st.resume()
	r.waits().read(1, 0)
	st.modern().on(1).output("q").write("y", 0)
	r.gets(`READ_OK "y"`)
	w.gets("WRITE_OK", "WRITE_FAILED closed")
	st.leavesNothing()
}

// Who closes has no more to do with its pipe.
func TestSessionClosingWakesTheOtherEndOnly(t *testing.T) {
	st := newStage(t)
	r := st.base().input("p").gets("INPUT_OK").read(5, 0)
	w := st.base().output("p").gets("OUTPUT_OK")
	st.held = true
	r.close().gets("READ_FAILED", "CLOSE_OK")
	if len(st.posted) != 1 || st.posted[0] != w.session.channels[0] {
		t.Errorf("%d wake-ups, want the writer's", len(st.posted))
	}
}

// A base client has no more than the reason to go by.
func TestSessionReasonsOfEndsWithoutAText(t *testing.T) {
	for _, test := range []struct {
		id   messageID
		code causeCode
		says string
	}{
		{msgReadFailed, causeVanished, "vanished"},
		{msgWriteFailed, causeVanished, "vanished"},
		{msgReadFailed, causeUndelivered, "gave up"},
		{msgWriteFailed, causeClosed, "reader has left"},
		{msgWriteFailed, causeAborted, "reader has left"},
		{msgReadFailed, causeAborted, "closed"},
	} {
		if got := (cause{code: test.code}).reason(test.id); !strings.Contains(got, test.says) {
			t.Errorf("%s for cause %d says %q, want %q in it", wireLayout[test.id].name, test.code, got, test.says)
		}
	}
}

// Direct ends and remote ones meet on the same pipes.
func TestSessionRemoteReaderOfAWriterInThisProcess(t *testing.T) {
	st := newStage(t)
	p := mustOpen(t, st.pipes, "p", writer, 5000)
	p.write(bytes.Repeat([]byte("window "), 700))
	r := st.base().input("p").gets("INPUT_OK")
	if p.unconfirmed != 4900-stagePending {
		t.Errorf("%d bytes unconfirmed", p.unconfirmed)
	}
	// It takes from the window what a READ waits for.
	r.read(2500, 0).gets("READ_OK of 2500")
	if p.unconfirmed != 4900-2500-stagePending {
		t.Errorf("%d bytes unconfirmed", p.unconfirmed)
	}
	p.leave(writer, cause{code: causeVanished})
	st.pipes.release(p)
	st.settle()
	r.read(stageMessage, 0).read(1, 0).gets(fmt.Sprint("READ_OK of ", stagePending), "READ_FAILED")
	st.leavesNothing()
}

// CLOSE on the connection's own channel takes leave.
func TestSessionLeaveOfAConnection(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	r := c.on(1).input("p").gets("INPUT_OK")
	w := st.modern().on(1).output("p").gets("OUTPUT_OK")
	c.on(0).close().waits()
	if !c.session.gone {
		t.Error("the session goes on")
	}
	r.waits()
	w.gets("WRITE_FAILED vanished")
	st.leavesNothing()
}
