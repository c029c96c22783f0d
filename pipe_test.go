package zpipes

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestPipeEndOfEachCause(t *testing.T) {
	const text = "disk full"
	type meaning struct {
		is    error
		tells string // what the error's text has, beside that of is
	}
	plain := func(err error) meaning { return meaning{err, ""} }
	torn, left := meaning{io.ErrUnexpectedEOF, text}, meaning{io.ErrClosedPipe, text}
	for _, test := range []struct {
		cause             cause
		read, write, open meaning
	}{
		{cause{causeClosed, ""}, plain(io.EOF), plain(io.ErrClosedPipe), plain(ErrPipeBusy)},
		{cause{causeAborted, text}, torn, left, meaning{ErrPipeBusy, text}},
		{cause{causeAborted, ""}, plain(io.ErrUnexpectedEOF), plain(io.ErrClosedPipe), plain(ErrPipeBusy)},
		{
			cause{causeVanished, ""},
			meaning{io.ErrUnexpectedEOF, "writer vanished"}, meaning{io.ErrClosedPipe, "reader vanished"}, plain(ErrPipeBusy),
		},
		{cause{causeUndelivered, ""}, meaning{io.ErrUnexpectedEOF, "gave up"}, plain(io.ErrClosedPipe), plain(ErrPipeBusy)},
		{cause{causeBrokerGone, text}, meaning{ErrBrokerGone, text}, meaning{ErrBrokerGone, text}, meaning{ErrBrokerGone, text}},
		{cause{causeBusy, text}, torn, left, meaning{ErrPipeBusy, text}},
		{cause{causeMode, text}, torn, left, meaning{ErrPipeMode, text}},
		{cause{causeBadName, text}, torn, left, meaning{ErrBadName, text}},
		{cause{causeTooMany, text}, torn, left, meaning{ErrTooManyPipes, text}},
		{
			cause{causeDeleted, ""},
			meaning{io.ErrUnexpectedEOF, "deleted"}, meaning{io.ErrClosedPipe, "deleted"}, meaning{fs.ErrNotExist, "deleted"},
		},
		{cause{causeNoQueue, text}, torn, left, meaning{fs.ErrNotExist, "no such queue"}},
		{cause{causeDenied, text}, torn, left, meaning{fs.ErrPermission, text}},
		// What a later version may send.
		{cause{200, text}, torn, left, meaning{ErrPipeBusy, text}},
	} {
		for name, side := range map[string]struct {
			got  error
			want meaning
		}{
			"a reader": {test.cause.readError(), test.read},
			"a writer": {test.cause.writeError(), test.write},
			"an open":  {test.cause.openError(), test.open},
		} {
			if !errors.Is(side.got, side.want.is) || !strings.Contains(side.got.Error(), side.want.tells) {
				t.Errorf("%+v: %s meets %q, want %q with %q", test.cause, name, side.got, side.want.is, side.want.tells)
			}
			// io.EOF must be bare, or nobody recognizes it; the others have
			// nothing to add where there is no text.
			if side.want.tells == "" && side.got != side.want.is {
				t.Errorf("%+v: %s meets %q, want it bare", test.cause, name, side.got)
			}
		}
	}
}

// A woken counts the wake-ups of each end, by role.
type woken [2]int

func (w *woken) count(r role) func() { return func() { w[r]++ } }

// since returns the wake-ups since it was last called.
func (w *woken) since() woken {
	n := *w
	*w = woken{}
	return n
}

// attached returns a pipe with both ends.
func attached(window, limit int) (*pipe, *woken) {
	p, w := &pipe{window: window, limit: limit}, new(woken)
	p.attach(reader, w.count(reader))
	p.attach(writer, w.count(writer))
	return p, w
}

// A writer in the broker's process has its window on top of what the pipe takes.
func TestPipeWindowAndLimit(t *testing.T) {
	p := &pipe{window: 100, limit: 50}
	p.attach(writer, nil)
	var popped *segment
	for _, step := range []struct {
		does                        string
		do                          func()
		readable, unconfirmed, room int
	}{
		{"nothing yet", func() {}, 0, 0, 100},
		{"60 bytes without a reader", func() { p.write(make([]byte, 60)) }, 0, 60, 40},
		{"a reader", func() { p.attach(reader, nil) }, 50, 10, 90},
		{"what there is room for", func() { p.write(make([]byte, 90)) }, 50, 100, 0},
		{"a read of 30", func() { p.read(make([]byte, 30)) }, 50, 70, 30},
		{"a read of more than there may be read", func() { p.read(make([]byte, 1000)) }, 50, 20, 80},
		{"a reader that waits for what is there", func() { p.await(reader, 50) }, 50, 20, 80},
		{"one that wants a byte more", func() { p.await(reader, 51) }, 51, 19, 81},
		{"one that wants more than all", func() { p.await(reader, 500) }, 70, 0, 530},
		{"one that gives up", func() { p.reader.want = 0 }, 70, 0, 100},
		{"a write", func() { p.write(make([]byte, 5)) }, 70, 5, 95},
		{"a pop of what is not all confirmed", func() { popped = p.pop(1000) }, 70, 5, 95},
		{"a read of what is confirmed", func() { p.read(make([]byte, 70)) }, 5, 0, 145},
		{"a pop of less than the chunk", func() { popped = p.pop(4) }, 5, 0, 145},
		{"a read of all", func() { p.read(make([]byte, 5)) }, 0, 0, 150},
	} {
		step.do()
		got := [3]int{p.readable(), p.unconfirmed, p.room()}
		if want := [3]int{step.readable, step.unconfirmed, step.room}; got != want {
			t.Errorf("%s: readable, unconfirmed and room are %v, want %v", step.does, got, want)
		}
		if popped != nil {
			t.Errorf("%s: a chunk of %d bytes came out", step.does, len(popped.data()))
		}
	}
}

// A writer whose broker is elsewhere has the room there on top of its window, as
// far as the broker has granted it.
func TestPipeWindowAndGrant(t *testing.T) {
	p := &pipe{use: outbound, window: 100, granted: 50}
	p.attach(reader, nil)
	p.attach(writer, nil)
	p.write(make([]byte, 120))
	p.pop(1000) // which leaves it unconfirmed
	if got := p.room(); got != 30 {
		t.Errorf("room for %d bytes behind 120, want 30", got)
	}
	p.granted = 0
	if got := p.room(); got != 0 {
		t.Errorf("room for %d bytes behind 120 without a grant", got)
	}
	p.confirm(120)
	if got := p.room(); got != 100 {
		t.Errorf("room for %d bytes when all is confirmed, want 100", got)
	}
}

// The bound falls when a reader waits no longer. A writer may be copying outside
// of the lock just then, in the belief that its room can only grow.
func TestPipeRoomIsNeverNegative(t *testing.T) {
	p, _ := attached(100, 50)
	p.await(reader, 1000)
	room := p.room()
	p.reader.want = 0
	p.write(make([]byte, room))
	if got := p.room(); got != 0 {
		t.Errorf("room for %d bytes", got)
	}
}

func TestPipeAccepts(t *testing.T) {
	for _, test := range []struct {
		name              string
		limit, have, want int // want: the bytes that the reader waits for
		reader            bool
		n                 int
		accepts           bool
	}{
		{"without a reader", 100, 0, 0, false, 1, false},
		{"nothing without a reader", 100, 0, 0, false, 0, false},
		{"nothing", 100, 100, 0, true, 0, true},
		{"what just fits", 100, 40, 0, true, 60, true},
		{"a byte more", 100, 40, 0, true, 61, false},
		{"into a full pipe", 100, 100, 0, true, 1, false},
		{"more than the limit, into an empty pipe", 100, 0, 0, true, 1000, true},
		{"more than the limit, behind one byte", 100, 1, 0, true, 1000, false},
		// Both would wait for ever, if it depended on whether it fits.
		{"more than fits, for a reader that waits", 100, 90, 95, true, 20, true},
		{"more than the limit, for a reader that waits", 100, 90, 1000, true, 5000, true},
		{"more than fits, for a reader that has enough", 100, 90, 90, true, 20, false},
	} {
		p := &pipe{limit: test.limit}
		if test.reader {
			p.attach(reader, nil)
		}
		p.take(received(make([]byte, test.have), noBlock, 0))
		p.await(reader, test.want)
		if got := p.accepts(test.n); got != test.accepts {
			t.Errorf("%s: accepts is %v", test.name, got)
		}
	}
}

func TestPipeEndsAreWokenForWhatTheyWaitFor(t *testing.T) {
	p, w := attached(0, 10)
	for _, step := range []struct {
		does           string
		do             func()
		reader, writer int
	}{
		{"a reader that wants 5", func() { p.await(reader, 5) }, 0, 0},
		{"4 bytes", func() { p.take(received(make([]byte, 4), noBlock, 0)) }, 0, 0},
		{"the fifth", func() { p.take(received(make([]byte, 1), noBlock, 0)) }, 1, 0},
		{"more of them", func() { p.take(received(make([]byte, 5), noBlock, 0)) }, 0, 0},
		{"a reader that wants what is there", func() { p.await(reader, 10) }, 1, 0},
		{"a writer that wants room for 3", func() { p.await(writer, 3) }, 0, 0},
		{"room for 2", func() { p.read(make([]byte, 2)) }, 0, 0},
		{"room for 3", func() { p.read(make([]byte, 1)) }, 0, 1},
		{"room for more", func() { p.read(make([]byte, 1)) }, 0, 0},
		{"a writer that wants room for more than the limit", func() { p.await(writer, 50) }, 0, 0},
		{"almost an empty pipe", func() { p.read(make([]byte, 5)) }, 0, 0},
		{"a reader that needs it", func() { p.await(reader, 2) }, 0, 1},
		{"a writer that wants that room again", func() { p.reader.want = 0; p.await(writer, 50) }, 0, 0},
		{"an empty pipe", func() { p.read(make([]byte, 5)) }, 0, 1},
	} {
		step.do()
		if got, want := w.since(), (woken{step.reader, step.writer}); got != want {
			t.Errorf("%s wakes reader and writer %v times, want %v", step.does, got, want)
		}
	}
}

// An arrival and a flush are waited for, too.
func TestPipeWritersAreWokenByTheReaderThatComes(t *testing.T) {
	var w woken
	p := &pipe{window: 10, limit: 10}
	p.attach(writer, w.count(writer))
	p.write(make([]byte, 10))
	p.await(writer, 1)
	if got := w.since(); got != (woken{}) {
		t.Errorf("woken %v times without a reader", got)
	}
	p.attach(reader, w.count(reader))
	if got := w.since(); got != (woken{0, 1}) {
		t.Errorf("woken %v times when the reader came", got)
	}
	p.write(make([]byte, 10))
	p.flushing = 1
	p.settle()
	if got := w.since(); got != (woken{}) {
		t.Errorf("woken %v times when none of the window was confirmed", got)
	}
	p.read(make([]byte, 3))
	if got := w.since(); got != (woken{0, 1}) {
		t.Errorf("woken %v times when some of the window was confirmed", got)
	}
	p.flushing = 0
	p.read(make([]byte, 3))
	if got := w.since(); got != (woken{}) {
		t.Errorf("woken %v times when nobody flushed", got)
	}
}

func TestPipeWriterThatLeavesTakesItsWindowAlong(t *testing.T) {
	for code := causeClosed; code <= causeBrokerGone; code++ {
		p, w := attached(100, 50)
		if rerr, werr := p.readError(), p.writeError(); rerr != nil || werr != nil {
			t.Errorf("before anybody leaves the reader meets %v, and the writer %v", rerr, werr)
		}
		p.write([]byte(strings.Repeat("confirmed ", 5)))
		p.write(make([]byte, 70))
		why := cause{code, "why"}
		p.leave(writer, why)
		p.leave(writer, cause{causeVanished, "again"})
		if got := w.since(); got != (woken{1, 1}) {
			t.Errorf("%v: ends were woken %v times", why, got)
		}
		if p.unconfirmed != 0 || p.lost != 70 {
			t.Errorf("%v: %d bytes unconfirmed and %d lost, want 70 lost", why, p.unconfirmed, p.lost)
		}
		if err := p.readError(); err != nil {
			t.Errorf("%v: the reader meets %v before it has read", why, err)
		}
		b := make([]byte, 100)
		if n := p.read(b); string(b[:n]) != strings.Repeat("confirmed ", 5) {
			t.Errorf("%v: the reader gets %q", why, b[:n])
		}
		if got, want := p.readError(), why.readError(); got.Error() != want.Error() {
			t.Errorf("the reader meets %v, want %v", got, want)
		}
		if got, want := p.writeError(), why.writeError(); got.Error() != want.Error() {
			t.Errorf("the writer that was ended meets %v, want %v", got, want)
		}
	}
}

func TestPipeReaderThatLeavesDropsWhatItDidNotRead(t *testing.T) {
	for code := causeClosed; code <= causeBrokerGone; code++ {
		p, w := attached(100, 50)
		p.write(make([]byte, 120))
		why := cause{code, "why"}
		p.leave(reader, why)
		p.leave(reader, cause{causeVanished, "again"})
		if got := w.since(); got != (woken{1, 1}) {
			t.Errorf("%v: ends were woken %v times", why, got)
		}
		if p.buf != (buffer{}) {
			t.Errorf("%v: the pipe still holds %d bytes", why, p.buf.n)
		}
		if got, want := p.writeError(), why.writeError(); got.Error() != want.Error() {
			t.Errorf("the writer meets %v, want %v", got, want)
		}
		if p.unconfirmed != 70 {
			t.Errorf("%v: %d bytes unconfirmed, and so undelivered, want 70", why, p.unconfirmed)
		}
		p.leave(writer, cause{})
	}
}

// What the reader is copying must not be given to somebody else meanwhile.
func TestPipePinnedBytesStay(t *testing.T) {
	for name, leave := range map[string]func(p *pipe){
		"reader": func(p *pipe) { p.leave(reader, cause{}) },
		"writer": func(p *pipe) { p.leave(writer, cause{}) },
		"both":   func(p *pipe) { p.leave(writer, cause{}); p.leave(reader, cause{}) },
	} {
		p, _ := attached(100, 6)
		p.write([]byte("pinned, and not even confirmed"))
		var array [1][]byte
		seg := p.pin(array[:0], p.readable())[0]
		leave(p)
		other := newSegment(smallPool)
		copy(other.free(), "overwritten")
		if string(seg) != "pinned" {
			t.Errorf("%s: %q", name, seg)
		}
		p.unpin(3)
		want := "ned"
		if p.reader.left {
			want = ""
		}
		if got := contents(&p.buf); string(got) != want {
			t.Errorf("%s: %q is left, want %q", name, got, want)
		}
		other.release()
	}
}

func TestPipeIsOverOrIdle(t *testing.T) {
	const none, there, gone = 0, 1, 2
	for _, test := range []struct {
		reader, writer int
		registry       bool // ends both sides, whether they are there or not
		over, idle     bool
	}{
		{there, none, false, false, false},
		{none, there, false, false, false},
		{there, there, false, false, false},
		{gone, none, false, true, true},
		{none, gone, false, true, true},
		{gone, there, false, true, false},
		{there, gone, false, true, false},
		{gone, gone, false, true, true},
		{none, there, true, true, true},
		{there, none, true, true, true},
	} {
		p := new(pipe)
		for r, state := range map[role]int{reader: test.reader, writer: test.writer} {
			if state >= there {
				p.attach(r, nil)
			}
			if state == gone || test.registry {
				p.leave(r, cause{})
			}
		}
		if p.over() != test.over || p.idle() != test.idle {
			t.Errorf("%+v: over %v, idle %v", test, p.over(), p.idle())
		}
	}
}

// The pipe of a client whose broker is elsewhere: a connection takes what is
// written, and the broker's answers confirm it.
func TestPipeOutbound(t *testing.T) {
	p, w := attached(10, 0)
	p.use = outbound
	p.await(reader, 1000) // once a message is full
	if got := p.room(); got != 10 {
		t.Errorf("room for %d bytes, where the connection waits for more than the window", got)
	}
	p.await(reader, 1)
	p.write(make([]byte, 8))
	if got := w.since(); got != (woken{1, 0}) || p.readable() != 8 || p.room() != 2 {
		t.Errorf("after 8 bytes: woken %v, %d readable, room for %d", got, p.readable(), p.room())
	}
	p.await(writer, 7)
	p.pop(100).release()
	p.await(reader, 1000)
	// That they were sent does not confirm them.
	if got := w.since(); got != (woken{}) || p.readable() != 0 || p.unconfirmed != 8 || p.room() != 2 {
		t.Errorf("after they were sent: woken %v, %d readable, %d unconfirmed, room for %d",
			got, p.readable(), p.unconfirmed, p.room())
	}
	p.confirm(5)
	p.settle()
	if got := w.since(); got != (woken{0, 1}) || p.room() != 7 {
		t.Errorf("after 5 were answered: woken %v, room for %d", got, p.room())
	}
	// The three on their way are the broker's business; the rest is dropped.
	p.write(make([]byte, 4))
	p.leave(writer, cause{code: causeAborted})
	if p.buf.n != 0 || p.unconfirmed != 3 || p.lost != 4 {
		t.Errorf("after the writer left: %d bytes to be sent, %d unconfirmed, %d lost", p.buf.n, p.unconfirmed, p.lost)
	}
}

func TestPipeSliceCopiesOnlyWhatItMust(t *testing.T) {
	for _, test := range []struct {
		chunks  []int
		n       int
		partial bool
		gives   int
		copied  bool
	}{
		{[]int{5000, 5000}, 5000, false, 5000, false},
		{[]int{5000, 5000}, 4999, false, 4999, true},
		{[]int{5000, 5000}, 5001, false, 5001, true},
		{[]int{5000, 5000}, 10000, false, 10000, true},
		{[]int{5000, 5000}, 10000, true, 5000, false},
		{[]int{5000, 5000}, 5000, true, 5000, false},
		{[]int{5000, 5000}, 1, true, 1, true},
		{[]int{smallSegment + 1, smallSegment + 1}, smallSegment, false, smallSegment, true},
		{[]int{3 * largeSegment}, largeSegment, false, largeSegment, true},
		{[]int{3 * frameSegment}, frameSegment, false, frameSegment, true},
		{[]int{3 * frameSegment}, frameSegment + 1, false, frameSegment + 1, true},
	} {
		p, _ := attached(0, 1<<20)
		var source stream
		for _, n := range test.chunks {
			p.take(received(source.next(n), hasBlock, 0))
		}
		first := &p.buf.head.data()[0]
		c := p.slice(test.n, test.partial)
		if got := len(c.data()); got != test.gives || !bytes.Equal(c.data(), new(stream).next(got)) {
			t.Errorf("%+v: gives %d bytes, or not the first", test, got)
		}
		if copied := first != &c.data()[0]; copied != test.copied {
			t.Errorf("%+v: copied is %v", test, copied)
		} else if copied && test.gives <= smallSegment && len(c.buf) > largeSegment {
			t.Errorf("%+v: copied into %d bytes of memory", test, len(c.buf))
		}
		if want := source.made - test.gives; p.readable() != want || p.out != int64(test.gives) {
			t.Errorf("%+v: leaves %d bytes, and %d read, want %d", test, p.readable(), p.out, want)
		}
		if sent := c.frame(msgReadOK, hasBlock, 0); len(sent) != chunkOffset+test.gives+blockBytes {
			t.Errorf("%+v: a frame of %d bytes", test, len(sent))
		}
		c.release()
	}
}

func TestPipeRolesHaveNames(t *testing.T) {
	if reader.String() != "reader" || writer.String() != "writer" {
		t.Errorf("a reader is a %v and a writer a %v", reader, writer)
	}
}

// What another broker had room for counts no more once the relay to it has failed.
func TestRoomAfterARelayHasFailed(t *testing.T) {
	p := newPipe("pipe", 10, time.Time{})
	p.attach(writer, nil)
	p.beRelayed(true)
	p.attach(reader, nil)
	p.relayedTo(0, 7, true)
	if p.room() != 7 {
		t.Errorf("there is room for %d bytes at the other broker", p.room())
	}
	p.withdraw(reader)
	p.relaysNothing()
	p.attach(reader, nil)
	if p.room() != 10 {
		t.Errorf("there is room for %d bytes", p.room())
	}
}
