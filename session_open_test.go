package zpipes

import "testing"

func TestSessionAbilitiesAreWhatBothSidesKnow(t *testing.T) {
	st := newStage(t)
	st.rings = new(stageRings)
	for sent, want := range map[uint32]uint32{0: 0, abilities: abilities, abilities | 1<<31: abilities, 1 << 31: 0} {
		c := st.call()
		c.deliver((&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 100, able: sent}}).append(nil))
		if got := c.hellos()[0].hello.able; got != want {
			t.Errorf("able to do %#x, and the broker names %#x, want %#x", sent, got, want)
		}
	}
}

// Nothing is confirmed because of a reader whose open has not returned, and whether it
// fails or its client dies, it was never there.
func TestSessionReaderThatWasNeverThere(t *testing.T) {
	for name, fail := range map[string]func(l *line){
		"given up":   func(l *line) { l.closeWith(causeNever, "").gets("CLOSE_OK") },
		"vanished":   func(l *line) { l.gone() },
		"took leave": func(l *line) { l.on(0).close() },
		"violation":  func(l *line) { l.input("p").gets("INVALID") },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			w := st.base().output("p").gets("OUTPUT_OK").write("kept", 0).waits()
			inside := st.insideReader
			r := st.able().on(1).input("p").gets("INPUT_OK")
			w.waits()
			if _, why := inside("p"); why == nil || why.code != causeBusy {
				t.Errorf("a second reader: %v", why)
			}
			fail(r)
			w.waits()
			r = st.able().on(1).input("p").gets("INPUT_OK")
			w.waits()
			r.show()
			w.gets("WRITE_OK").close().gets("CLOSE_OK")
			r.read(10, 0).gets(`READ_OK "kept"`).read(10, 0).gets("READ_END").close().gets("CLOSE_OK")
			st.leavesNothing()
		})
	}
}

// Likewise a reader that waits learns nothing of a writer that was never there.
func TestSessionWriterThatWasNeverThere(t *testing.T) {
	for name, fail := range map[string]func(l *line){
		"given up": func(l *line) { l.closeWith(causeNever, "").gets("CLOSE_OK") },
		"vanished": func(l *line) { l.gone() },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			r := st.able().on(1).input("p").gets("INPUT_OK").show().read(3, 0).waits()
			gone := st.able().on(1).output("p").gets("OUTPUT_OK")
			if info, _ := st.pipes.lookUp("p", st.now); !info.Writer {
				t.Error("it is not seen, and has the place")
			}
			fail(gone)
			r.waits()
			w := st.able().on(1).output("p").gets("OUTPUT_OK").write("abc", 0).gets("WRITE_OK")
			r.gets(`READ_OK "abc"`)
			w.close().gets("CLOSE_OK")
			r.read(3, 0).gets("READ_END")
			st.leavesNothing()
		})
	}
}

// A pipe that only had ends that were never there is not there.
func TestSessionPipeThatWasNeverThere(t *testing.T) {
	st := newStage(t)
	c := st.able()
	c.on(1).input("p").gets("INPUT_OK")
	c.on(2).output("p").gets("OUTPUT_OK")
	c.on(1).closeWith(causeNever, "").gets("CLOSE_OK")
	c.on(2).closeWith(causeNever, "").gets("CLOSE_OK")
	if n := len(st.pipes.allPipes()); n > 0 {
		t.Errorf("%d pipes are left", n)
	}
	c.on(3).queue("q").gets("INPUT_OK").closeWith(causeNever, "").gets("CLOSE_OK")
	c.on(4).queue("used").gets("INPUT_OK")
	c.text("OPEN", "used")
	c.texts = false
	c.on(4).closeWith(causeNever, "").gets("CLOSE_OK")
	if st.pipes.queues()["q"] != nil || st.pipes.queues()["used"] == nil {
		t.Error("queues are left that were never open, or gone that somebody uses")
	}
	st.leavesNothing()
}

// Whoever has shown that it is there has been there; and so has a client that can't
// show it.
func TestSessionEndsThatWereThere(t *testing.T) {
	for name, open := range map[string]func(st *stage) *line{
		"shown":         func(st *stage) *line { return st.able().on(1).input("p").gets("INPUT_OK").show().waits() },
		"read":          func(st *stage) *line { return st.able().on(1).input("p").gets("INPUT_OK").read(99, 0).waits() },
		"extension":     func(st *stage) *line { return st.modern().on(1).input("p").gets("INPUT_OK") },
		"base protocol": func(st *stage) *line { return st.base().input("p").gets("INPUT_OK") },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			w := st.modern().on(1).output("p").gets("OUTPUT_OK").write("abc", 0).waits()
			r := open(st)
			w.gets("WRITE_OK")
			if r.agreed {
				r.closeWith(causeNever, "the open was given up")
				w.gets(`WRITE_FAILED aborted "the open was given up"`)
			} else {
				r.close()
				w.gets("WRITE_FAILED closed")
			}
		})
	}
}

// A WRITE of nothing asks whether a reader is there; into a queue it is a chunk only for
// those who do not know better.
func TestSessionWriteOfNothing(t *testing.T) {
	st := newStage(t)
	w := st.able().on(1).output("p").gets("OUTPUT_OK").write("", 0).waits()
	st.base().input("p").gets("INPUT_OK")
	w.gets("WRITE_OK")
	q := st.able().on(1).queue("q").gets("INPUT_OK")
	st.able().on(1).output("q").gets("OUTPUT_OK").write("", 0).gets("WRITE_OK")
	q.show().ask(1, 0).waits()
	st.modern().on(1).output("q").gets("OUTPUT_OK").write("", 0).gets("WRITE_OK")
	q.gets(bring(""))
}
