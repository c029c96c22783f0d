package zpipes

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

func (l *line) feed(name string, r, w meet.Token, cfg broadcastConfig) *line {
	return l.send(message{id: msgFeed, text: []byte(name), other: uint64(r), token: uint64(w), mode: modeBroadcast, cast: cfg})
}

// writes is a WRITE to a broadcast, and where Writes begin in it.
func (l *line) writes(chunk string, begins ...byte) *line {
	return l.send(message{id: msgWrite, chunk: []byte(chunk), begins: begins})
}

// awaits opens a reader who waits for a writer, and says which it is.
func (ms *meetingStage) awaits(name string) (*line, meet.Token) {
	ms.t.Helper()
	r := ms.base().input(name).gets("INPUT_OK")
	ms.turns()
	return r, ms.tokens(name)[reader]
}

// A broadcast whose writer is at another broker: its readers here are those of any broadcast, and
// it is fed as long as there are some.
func TestFedBroadcast(t *testing.T) {
	ms := newMeetingStage(t)
	first, token := ms.awaits("p")
	f := ms.fellow()
	f.on(1).feed("p", token+1, 7, broadcastConfig{}).gets("OUTPUT_FAILED conflict")
	w := f.on(2).feed("p", token, 7, broadcastConfig{keep: 4, await: 9}).gets("TAKEN 0, 1000").show()
	ms.records("REGISTER p", "UNREGISTER p")
	ms.base().output("p").gets("OUTPUT_FAILED")
	ms.able().on(1).send(message{id: msgOutput, text: []byte("p"), mode: modeBroadcast}).gets("OUTPUT_FAILED busy")
	f.on(3).feed("p", token, 8, broadcastConfig{}).gets("OUTPUT_FAILED conflict")
	f.on(4).attach("p", token, 9).gets("OUTPUT_FAILED conflict")

	second := ms.base().input("p").gets("INPUT_OK")
	w.gets("AUDIENCE 2")
	w.writes("onetwo", 0, 3).gets("TAKEN 6, 994")
	late := ms.base().input("p").gets("INPUT_OK")
	w.gets("AUDIENCE 3")
	late.read(3, 0).gets(`READ_OK "two"`)
	first.read(6, 0).gets(`READ_OK "onetwo"`)
	second.read(6, 0).gets(`READ_OK "onetwo"`)

	w.writes(strings.Repeat("x", 994)).gets("TAKEN 1000, 6")
	for _, r := range []*line{first, second, late} {
		r.read(994, 0).skip()
	}
	w.gets("TAKEN 1000, 1000") // what all of them have read
	first.close().gets("CLOSE_OK")
	w.gets("AUDIENCE 2")
	late.close().gets("CLOSE_OK")
	w.gets("AUDIENCE 1")
	second.close().gets("CLOSE_OK")
	w.gets("WRITE_FAILED closed")
	ms.records() // the name is free, though the writer has yet to know
	_, token = ms.awaits("p")
	ms.records("REGISTER p")
	w.close().gets("CLOSE_OK")
	f.on(5).feed("p", token, 10, broadcastConfig{}).gets("TAKEN 0, 1000")
	ms.leavesNothing()
}

// The writer leaves: each reader is told, behind what there was.
func TestFedBroadcastEnds(t *testing.T) {
	for _, how := range []string{"", "aborted", "too slow", "gone", "never"} {
		ms := newMeetingStage(t)
		r, token := ms.awaits("p")
		f := ms.fellow()
		w := f.on(1).feed("p", token, 7, broadcastConfig{}).gets("TAKEN 0, 1000")
		other := ms.base().input("p").gets("INPUT_OK")
		w.gets("AUDIENCE 2")
		if how != "never" {
			w.show().writes("hello", 0).gets("TAKEN 5, 995")
		}
		switch how {
		case "":
			w.close().gets("CLOSE_OK")
		case "aborted":
			w.closeWith(causeAborted, "disk full").gets("CLOSE_OK")
		case "too slow":
			w.closeWith(causeTooSlow, "12 bytes missed").gets("CLOSE_OK")
		case "gone":
			f.gone()
			ms.linkDown(2)
			ms.left(2)
			ms.turns()
		case "never":
			f.gone()
			ms.turns()
			r.read(1, 0).waits()
			other.close().gets("CLOSE_OK")
			_ = ms.base().input("p").gets("INPUT_FAILED") // one waits, as before
			ms.base().output("p").gets("OUTPUT_OK").write("x", 0).gets("WRITE_OK")
			r.gets(`READ_OK "x"`)
			ms.leavesNothing()
			continue
		}
		for _, l := range []*line{r, other} {
			if l.read(5, 0).gets(`READ_OK "hello"`).read(1, 0); how == "" {
				l.gets("READ_END")
			} else {
				l.gets("READ_FAILED")
			}
		}
		ms.leavesNothing()
	}
}

// Several who wait, for a writer that was never there, wait at one broker together, and have the
// next one.
func TestFedBroadcastThatWasNeverThere(t *testing.T) {
	ms := newMeetingStage(t)
	r, token := ms.awaits("p")
	f := ms.fellow()
	f.on(1).feed("p", token, 7, broadcastConfig{}).gets("TAKEN 0, 1000")
	other := ms.base().input("p").gets("INPUT_OK")
	f.gone()
	ms.records("REGISTER p", "UNREGISTER p", "REGISTER p")
	w := ms.fellow().on(1).feed("p", ms.tokens("p")[reader], 8, broadcastConfig{}).gets("TAKEN 0, 1000", "AUDIENCE 2").show()
	w.writes("x", 0).gets("TAKEN 1, 999")
	r.read(1, 0).gets(`READ_OK "x"`)
	other.read(1, 0).gets(`READ_OK "x"`)
	ms.leavesNothing()
}

// Marks that can't be, as another broker's violation.
func TestFedBroadcastOfAMadWriter(t *testing.T) {
	ms := newMeetingStage(t)
	_, token := ms.awaits("p")
	w := ms.fellow().on(1).feed("p", token, 7, broadcastConfig{}).gets("TAKEN 0, 1000").show()
	w.writes("x", 1).gets(`WRITE_FAILED aborted "a WRITE that tells of Writes outside of it"`)
	ms.sawViolations(1)
	ms.able().on(1).feed("p", token, 7, broadcastConfig{}).gets("INVALID")
	ms.sawViolations(1)
	ms.leavesNothing()
}

// hasCast opens a broadcast here.
func (ms *meetingStage) hasCast(cfg broadcastConfig) *line {
	ms.t.Helper()
	w := ms.able().on(1).send(message{id: msgOutput, text: []byte("p"), mode: modeBroadcast, cast: cfg}).gets("OUTPUT_OK").show()
	ms.turns()
	return w
}

// meets has the broadcast meet a reader there.
func (ms *meetingStage) meets(reader meet.Token) *stageWay {
	ms.t.Helper()
	before := len(ms.ways)
	for range 2 { // both registrars say so
		ms.received(2, &message{id: msgMatch, block: hasBlock, text: []byte("p"), token: uint64(ms.tokens("p")[writer]), other: uint64(reader), at: 2})
	}
	ms.turns()
	if len(ms.ways) != before+1 {
		ms.t.Fatalf("%d ways were asked for", len(ms.ways)-before)
	}
	w := ms.ways[before]
	w.relay.found(w, nil, ms.now)
	return w
}

// feeds is what a way has to send now, and which Writes begin there.
func (ms *meetingStage) feeds(w *stageWay, want string, begins ...byte) {
	ms.t.Helper()
	p := w.relay.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	got, told := "", []byte(nil)
	if s := p.relay(100); s != nil {
		got = string(s.data())
		told = p.relayBegins(len(got))
		s.release()
	}
	if got != want || !slices.Equal(told, begins) {
		ms.t.Errorf("%q is sent, begins %v; want %q, %v", got, told, want, begins)
	}
}

// To each broker with readers goes one copy, which goes on where a connection breaks.
func TestBroadcastIsRelayed(t *testing.T) {
	ms := newMeetingStage(t)
	w := ms.hasCast(broadcastConfig{keep: 3, await: 2})
	first := ms.meets(51)
	ms.taken(first, 0, 10, true)
	w.writes("onetwo", 0, 3).waits()
	p := first.relay.pipe
	p.mu.Lock()
	p.cast.recount(p, 2)
	p.mu.Unlock()
	ms.turns()
	w.gets("WRITE_OK")
	second := ms.meets(52)
	ms.taken(second, 0, 10, true)
	ms.feeds(first, "onetwo", 0, 3)
	ms.feeds(second, "two", 0) // what is kept
	ms.taken(first, 4, 6, false)
	ms.taken(second, 3, 10, false)
	w.writes("more", 0).gets("WRITE_OK")
	ms.feeds(first, "more", 0)
	first.relay.lost(first, ms.now)
	again := ms.ways[len(ms.ways)-1]
	again.relay.found(again, nil, ms.now)
	ms.taken(again, 4, 6, true)
	ms.feeds(again, "womore", 2)
	ms.taken(again, 10, 10, false)
	w.close().gets("CLOSE_OK")
	if first.relay.pipe.relayedAll() == false || second.relay.pipe.relayedAll() {
		t.Error("the one has all, and the other has not")
	}
	ms.feeds(second, "more", 0)
	ms.taken(second, 7, 10, false)
	second.relay.finished(second, cause{})
	again.relay.finished(again, cause{})
	ms.turns()
	ms.leavesNothing()
}

// Readers elsewhere that stand still: their broker is told that the writer waits, and if that does
// not help in time, all of them are left behind.
func TestBroadcastLeavesABrokerBehind(t *testing.T) {
	ms := newMeetingStage(t)
	var clocks []func()
	ms.stage.pipes.later = func(_ time.Duration, f func()) func() {
		i := len(clocks)
		clocks = append(clocks, f)
		return func() { clocks[i] = func() {} }
	}
	w := ms.hasCast(broadcastConfig{patience: time.Second})
	way := ms.meets(51)
	ms.taken(way, 0, 10, true)
	p := way.relay.pipe
	heldTo := func(want int64) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		if got := p.heldTo(); got != want {
			t.Errorf("%d bytes hold it up, want %d", got, want)
		}
	}
	w.writes(strings.Repeat("x", 1000), 0).gets("WRITE_OK")
	heldTo(0)
	w.writes(strings.Repeat("y", 30), 0).waits()
	heldTo(30)
	ms.feeds(way, strings.Repeat("x", 10), 0)
	ms.taken(way, 10, 50, false)
	heldTo(30)
	w.waits()
	clocks[len(clocks)-1]() // the patience is over
	w.waits()
	ms.feeds(way, strings.Repeat("x", 50))
	ms.taken(way, 60, 0, false)
	w.gets("WRITE_OK")
	heldTo(0)
	w.writes(strings.Repeat("z", 100), 0).waits()
	clocks[len(clocks)-1]()
	w.waits()
	clocks[len(clocks)-1]() // and its grace
	ms.turns()
	w.gets("WRITE_OK")
	if !p.reader.left || p.reader.cause != (cause{causeTooSlow, "970 bytes missed"}) {
		t.Error(p.reader.cause)
	}
	way.relay.finished(way, cause{})
	ms.turns()
	ms.leavesNothing()
}

// Here the readers of another broker's broadcast stand still: who holds it up is left behind when
// the patience is over, and others are not.
func TestFedBroadcastLeavesTheSlowBehind(t *testing.T) {
	ms := newMeetingStage(t)
	var clock func()
	ms.stage.pipes.later = func(_ time.Duration, f func()) func() {
		clock = f
		return func() { clock = nil }
	}
	r, token := ms.awaits("p")
	w := ms.fellow().on(1).feed("p", token, 7, broadcastConfig{patience: time.Second}).gets("TAKEN 0, 1000").show()
	slow := ms.base().input("p").gets("INPUT_OK")
	w.gets("AUDIENCE 2")
	w.writes(strings.Repeat("x", 1000), 0).gets("TAKEN 1000, 0")
	r.read(1000, 0).skip()
	if clock != nil {
		t.Error("the clock runs, and nobody waits")
	}
	w.send(message{id: msgHeld, token: 1100})
	if clock == nil {
		t.Fatal("the clock does not run")
	}
	clock()
	ms.turns()
	w.gets("AUDIENCE 1", "TAKEN 1000, 1000")
	w.writes(strings.Repeat("y", 200), 0).gets("TAKEN 1200, 800")
	slow.read(1, 0).gets("READ_FAILED")
	r.read(200, 0).skip()
	ms.leavesNothing()
}

// A broadcast's writer is told of another one unless it has readers, wherever.
func TestBroadcastMeetsAConflict(t *testing.T) {
	for _, has := range []bool{false, true} {
		ms := newMeetingStage(t)
		w := ms.hasCast(broadcastConfig{})
		if has {
			ms.taken(ms.meets(51), 0, 10, true)
		}
		ms.received(2, &message{id: msgConflict, block: hasBlock, text: []byte("p"), flags: endWriter, token: uint64(ms.tokens("p")[writer]), at: 2})
		ms.turns()
		if has {
			w.waits()
		} else {
			w.gets("WRITE_FAILED conflict")
		}
		ms.leavesNothing()
	}
}

// A relay that finds no reader any more, or no way, leaves nothing.
func TestBroadcastIsRefused(t *testing.T) {
	ms := newMeetingStage(t)
	w := ms.hasCast(broadcastConfig{})
	way := ms.meets(51)
	way.relay.refused(way, causeNoSeat, ms.now)
	way = ms.meets(51)
	way.relay.lost(way, ms.now)
	way = ms.meets(51)
	ms.taken(way, 0, 10, true)
	w.writes("x", 0).gets("WRITE_OK")
	way.relay.lost(way, ms.now)
	for range 12 {
		ms.goes(time.Second)
		for _, other := range ms.ways {
			other.relay.found(nil, errors.New("no way"), ms.now)
		}
	}
	if !way.relay.over || len(ms.stage.pipes.pipes()["p"].cast.readers) > 0 {
		t.Error("it holds the broadcast up still")
	}
	ms.leavesNothing()
}
