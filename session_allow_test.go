package zpipes

import "testing"

func TestSessionOpenWaitsForItsVerdict(t *testing.T) {
	st := newStage(t)
	st.ponders = true
	for l, denied := range map[*line]string{st.base(): "", st.modern().on(1): " denied"} {
		l.input("p").read(2, 0).waits()
		l.caller.on(0).ping().gets("PING_OK")
		other := st.modern().on(1)
		other.output("p").waits()
		st.decide()
		l.gets("INPUT_OK").waits()
		other.gets("OUTPUT_OK").write("ab", 0).gets("WRITE_OK")
		l.gets(`READ_OK "ab"`)
		l.close().gets("CLOSE_OK")
		other.close().gets("WRITE_FAILED closed", "CLOSE_OK")

		st.denies = &cause{causeDenied, "not yours"}
		l.input("p").output("p").waits()
		st.decide()
		l.gets("INPUT_FAILED" + denied)
		st.decide()
		l.gets("OUTPUT_FAILED" + denied)
		st.denies = nil
	}
	st.leavesNothing()
}

func TestSessionCloseOvertakesAnOpenThatWaits(t *testing.T) {
	st := newStage(t)
	st.ponders = true
	a := st.modern()
	a.on(1).input("p").input("q").close().gets("INPUT_FAILED closed", "CLOSE_OK").waits()
	st.decide() // on the first one, too, which nobody waits for
	a.on(1).gets("INPUT_OK").close().gets("CLOSE_OK")
	a.on(1).close().gets("INVALID")
	a.on(2).output("p").waits()
	a.on(3).inputAs(modeQueue, "r").waits()
	a.gone()
	st.decide()
	if n := len(st.pipes.allPipes()) + len(st.pipes.queues()); n > 0 {
		t.Errorf("%d pipes were opened for who is gone", n)
	}
	st.leavesNothing()
}

func TestSessionTextCommandsWaitForTheirVerdicts(t *testing.T) {
	st := newStage(t)
	st.ponders = true
	c := st.call()
	c.text("OPEN", "q").text("WRITE", "q", "chunk").text("READ", "q").text("CLOSE", "q").says()
	for _, want := range []string{"OK", "OK", "chunk", "OK"} {
		st.decide()
		c.says(want)
	}
	c.text("OPEN", "q").text("READ", "q").text("READ", "q").says()
	st.denies = &cause{causeDenied, "not yours"}
	st.decide()
	c.says("ERROR " + cause{causeDenied, "not yours"}.openError().Error())
	st.denies = nil
	c.gone()
	st.decide()
	st.leavesNothing()
}
