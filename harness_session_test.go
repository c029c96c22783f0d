package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A stage is a broker without sockets and goroutines: a host whose clock stands
// still until a test moves it, and whose clients are callers.
type stage struct {
	t          *testing.T
	pipes      *registry
	now        time.Time
	held       bool // what is posted waits until resume is called
	posted     []resumer
	alarms     alarms
	tokens     uint64
	violations []string
	denies     *cause      // what allow says
	ponders    bool        // it says so when decide is called
	undecided  []undecided // for which it has to be
	callers    map[*session]*caller
	texted     []*caller   // who got the answers to commands, in order
	rings      *stageRings // nil: there are none
	digs       func(t *tunnel, to memberID)
	pump       func() // after all that is posted; nil: nothing is to be done
}

const (
	stagePending = 1000 // bytes a pipe holds
	stageMessage = 3000 // bytes a READ is answered with at most
	stageExpiry  = 10 * time.Second
)

func newStage(t *testing.T) *stage { return newStageOf(t, stagePending, stageMessage) }

func newStageOf(t *testing.T, pending, message int) *stage {
	st := &stage{
		t: t, pipes: newRegistry(10, pending, message), now: born,
		tokens: 0x0123456789abcdef, callers: make(map[*session]*caller),
	}
	st.pipes.tellTime(&clock{now: func() time.Time { return st.now }, stamp: func() int64 { return st.now.UnixNano() }}, func() {})
	return st
}

func (st *stage) reply(s *session, frames ...[]byte) bool {
	c := st.callers[s]
	if c.session != s || s.gone {
		st.t.Fatal("a reply to a client that was dropped")
	}
	if c.lost {
		return false
	}
	kept := make([][]byte, len(frames))
	for i, f := range frames {
		kept[i] = bytes.Clone(f)
	}
	if c.congested {
		s.backlog = append(s.backlog, kept)
	} else {
		c.hear(kept)
	}
	return true
}

func (st *stage) post(t resumer) {
	if !t.letter().posted {
		t.letter().posted = true
		st.posted = append(st.posted, t)
	}
}

func (st *stage) alarm(c *channel) { st.alarms.set(c) }

func (st *stage) violated(s *session, what string) { st.violations = append(st.violations, what) }

func (st *stage) allow(_ *session, _, _ string, t resumer) *verdict {
	v := &verdict{withdraw: func() {}} // too late: it is being decided
	if st.ponders {
		st.undecided = append(st.undecided, undecided{v, t})
	} else {
		v.give(st.denies)
	}
	return v
}

// decide gives the verdicts that are missing.
func (st *stage) decide() {
	for _, u := range st.undecided {
		u.give(st.denies)
		st.post(u.then)
	}
	st.undecided = nil
	st.settle()
}

// An undecided is a request whose verdict is missing.
type undecided struct {
	*verdict
	then resumer
}

func (st *stage) report(p *pipe, _ *chunkQueue, _ uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf.write([]byte("the status"), false)
	p.leave(writer, cause{})
}

func (st *stage) newToken() uint64 { return st.tokens }

// resume runs what was posted.
func (st *stage) resume() {
	for len(st.posted) > 0 {
		c := st.posted[0]
		st.posted = st.posted[1:]
		c.letter().posted = false
		c.resume(st.now)
	}
}

// pass lets time go by.
func (st *stage) pass(d time.Duration) {
	st.now = st.now.Add(d)
	for c := st.alarms.due(st.now); c != nil; c = st.alarms.due(st.now) {
		c.resume(st.now)
	}
	st.pipes.tick(st.now)
	st.settle()
}

func (st *stage) settle() {
	if !st.held {
		st.resume()
	}
	if st.pump != nil {
		st.pump()
	}
}

func (st *stage) dig(t *tunnel, to memberID) { st.digs(t, to) }

// sawViolations wants so many violations since it was last called.
func (st *stage) sawViolations(n int) {
	st.t.Helper()
	if len(st.violations) != n {
		st.t.Errorf("%d violations, want %d: %q", len(st.violations), n, st.violations)
	}
	st.violations = nil
}

// leavesNothing drops all callers and wants no trace of them.
func (st *stage) leavesNothing() {
	st.t.Helper()
	for _, c := range st.callers {
		c.gone()
	}
	if n := len(st.pipes.allPipes()); n > 0 {
		st.t.Errorf("%d pipes are left", n)
	}
	if n := st.pipes.halves; n > 0 {
		st.t.Errorf("%d pipes of connections are left", n)
	}
	if n := st.alarms.len(); n > 0 {
		st.t.Errorf("%d alarms are left", n)
	}
	for s := range st.callers {
		if n := s.ringsHeld.Load(); n != 0 {
			st.t.Errorf("%d rings are counted for a client", n)
		}
	}
	if st.rings != nil {
		for _, g := range st.rings.made {
			if !g.released {
				st.t.Error("a ring is held")
			}
		}
	}
	for name, s := range st.pipes.queues() {
		if s.senders.Len() > 0 || s.demands.Len() > 0 || s.full.len() > 0 || s.lent > 0 {
			st.t.Errorf("queue %q has %d senders, %d demands, %d chunks that wait and %d lent ones",
				name, s.senders.Len(), s.demands.Len(), s.full.len(), s.lent)
		}
		checkSums(st.t, s)
	}
}

// A caller is one client's connection.
type caller struct {
	stage     *stage
	session   *session
	agreed    bool
	congested bool     // libzmq takes no more for it
	lost      bool     // libzmq knows nobody of that routing id any more
	heard     [][]byte // frames that came and were not asked for yet
	texts     bool     // the client uses the text interface
	lines     []string // what came, as text
}

func (st *stage) call() *caller {
	c := &caller{stage: st}
	c.connect()
	return c
}

func (c *caller) connect() {
	delete(c.stage.callers, c.session)
	c.session = newSession(c.stage, c.stage.pipes, []byte("id"), stageExpiry, c.stage.now)
	c.stage.callers[c.session] = c
	c.agreed = false
}

// base returns a client of the base protocol.
func (st *stage) base() *line { return &line{caller: st.call()} }

// modern returns a client that has agreed to the extension.
func (st *stage) modern() *caller {
	st.t.Helper()
	c := st.call()
	c.sayHello(100)
	return c
}

// sayHello agrees to the extension. beat is the heartbeat in milliseconds.
func (c *caller) sayHello(beat uint32) {
	c.stage.t.Helper()
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: beat}}).gets("PING_OK")
}

// deliver hands a frame to the session, or where that has been dropped, to a new
// one.
func (c *caller) deliver(frame []byte) {
	if c.session.gone {
		c.connect()
	}
	deliver(c.session, frame, c.stage.now)
	c.stage.settle()
}

// gone drops the caller as the broker does when its connection is lost.
func (c *caller) gone() {
	c.session.drop(cause{code: causeVanished}, nil)
	c.session.gone = true
	if s := c.session; len(s.channels) > 0 || s.account.bytes != 0 || s.account.requests != 0 {
		c.stage.t.Errorf("%d conversations, %d bytes and %d requests are left", len(s.channels), s.account.bytes, s.account.requests)
	}
	c.stage.settle()
}

// relieve has libzmq take what it did not take before.
func (c *caller) relieve() {
	c.congested = false
	c.session.unload(math.MaxInt, func(frames [][]byte) error { c.hear(frames); return nil })
	c.stage.settle()
}

func (c *caller) hear(frames [][]byte) {
	t := c.stage.t
	if c.texts {
		c.stage.texted = append(c.stage.texted, c)
		c.lines = append(c.lines, strings.Join(slices.Collect(func(yield func(string) bool) {
			for _, f := range frames {
				if !yield(string(f)) {
					return
				}
			}
		}), " "))
		return
	}
	frame := frames[0]
	m, err := parse(frame)
	if err != nil {
		t.Fatalf("a reply that does not parse: %v: % x", err, frame)
	}
	if strings.HasSuffix(frameName(m), "_FAILED") {
		switch {
		case len(m.text) == 0:
			t.Errorf("%s has no reason", frameName(m))
		case len(m.cause) > 0 && !bytes.Equal(m.text, m.cause):
			t.Errorf("%s has the reason %q for the cause %q", frameName(m), m.text, m.cause)
		}
	}
	c.heard = append(c.heard, frame)
}

// on returns one channel of a connection.
func (c *caller) on(channel uint32) *line { return &line{c, channel} }

// A line is one channel of a caller. Its methods send; gets says what comes back.
type line struct {
	*caller
	channel uint32
}

func (l *line) send(m message) *line {
	if l.agreed {
		m.block, m.channel = hasBlock, l.channel
	}
	l.deliver(m.append(nil))
	return l
}

func (l *line) raw(t testing.TB, digits string) *line {
	l.deliver(unhex(t, digits))
	return l
}

func (l *line) input(name string) *line {
	return l.send(message{id: msgInput, text: []byte(name)})
}

func (l *line) output(name string) *line {
	return l.send(message{id: msgOutput, text: []byte(name)})
}

// read's timeout is in milliseconds.
func (l *line) read(size, timeout uint32) *line { return l.readWith(0, size, timeout) }

func (l *line) readWith(flags byte, size, timeout uint32) *line {
	return l.send(message{id: msgRead, size: size, timeout: timeout, flags: flags})
}

func (l *line) write(chunk string, timeout uint32) *line {
	return l.send(message{id: msgWrite, chunk: []byte(chunk), timeout: timeout})
}

// queue opens a queue for whole chunks.
func (l *line) queue(name string) *line { return l.inputAs(modeQueue, name) }

func (l *line) inputAs(mode byte, name string) *line {
	return l.send(message{id: msgInput, text: []byte(name), mode: mode})
}

// put sends chunks to a queue.
func (l *line) put(chunks ...string) *line {
	return l.send(message{id: msgWrite, chunk: packed(chunks...)})
}

// ask asks a queue for so many chunks; had says how many of the last ones were used.
func (l *line) ask(n, had uint32) *line { return l.askWith(0, n, had) }

func (l *line) askWith(flags byte, n, had uint32) *line {
	return l.send(message{id: msgRead, size: n, flags: flags, count: had})
}

// packed is chunks as they are in a message.
func packed(chunks ...string) (b []byte) {
	for _, c := range chunks {
		b = appendRecord(b, []byte(c))
	}
	return b
}

// bring is the READ_OK that brings these chunks.
func bring(chunks ...string) string { return shown(message{id: msgReadOK, chunk: packed(chunks...)}) }

// confirms wants WRITE_OKs for so many chunks to have come on this channel, and
// nothing else.
func (l *line) confirms(want int) *line {
	l.stage.t.Helper()
	got := 0
	for _, frame := range l.heard {
		if m, _ := parse(frame); m.channel == l.channel && m.id == msgWriteOK {
			got += int(m.count)
		}
	}
	l.heard = slices.DeleteFunc(l.heard, func(frame []byte) bool {
		m, _ := parse(frame)
		return m.channel == l.channel && m.id == msgWriteOK
	})
	if got != want {
		l.stage.t.Fatalf("%d chunks were confirmed, want %d", got, want)
	}
	return l.waits()
}

// text sends a command of the text interface.
func (c *caller) text(frames ...string) *caller {
	if c.texts = true; c.session.gone {
		c.connect()
	}
	var message [][]byte
	for _, f := range frames {
		message = append(message, []byte(f))
	}
	c.session.handleText(message, c.stage.now)
	c.stage.settle()
	return c
}

// says wants these answers to commands to have come, and no others. Of an error it
// wants the beginning.
func (c *caller) says(want ...string) *caller {
	c.stage.t.Helper()
	for i, l := range c.lines {
		if i < len(want) && strings.HasPrefix(want[i], textError) && strings.HasPrefix(l, want[i]) && len(l) > len(textError)+1 {
			c.lines[i] = want[i]
		}
	}
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, c.lines...)); diff != "" {
		c.stage.t.Fatalf("other answers than expected (-want +got):\n%s", diff)
	}
	c.lines = nil
	return c
}

func (l *line) close() *line { return l.closeWith(causeClosed, "") }

func (l *line) closeWith(code causeCode, text string) *line {
	return l.send(message{id: msgClose, code: code, cause: []byte(text)})
}

func (l *line) ping() *line {
	return l.send(message{id: msgPing, hello: hello{version: 1, session: l.stage.tokens, number: 100}})
}

// gets wants these replies to have come on this channel, and no others.
func (l *line) gets(want ...string) *line {
	l.stage.t.Helper()
	got := []string{}
	l.heard = slices.DeleteFunc(l.heard, func(frame []byte) bool {
		m, _ := parse(frame)
		if m.channel != l.channel {
			return false
		}
		got = append(got, shown(m))
		return true
	})
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		l.stage.t.Fatalf("channel %d: other replies than expected (-want +got):\n%s", l.channel, diff)
	}
	return l
}

// waits wants no reply.
func (l *line) waits() *line {
	l.stage.t.Helper()
	return l.gets()
}

// skip forgets the replies that have come.
func (l *line) skip() *line {
	l.heard = nil
	return l
}

var causeNames = map[causeCode]string{
	causeClosed: "closed", causeAborted: "aborted", causeVanished: "vanished",
	causeUndelivered: "undelivered", causeBrokerGone: "broker gone",
	causeBusy: "busy", causeMode: "mode", causeBadName: "bad name", causeTooMany: "too many",
	causeDeleted: "deleted", causeNoQueue: "no queue", causeDenied: "denied",
	causeNever: "never", causeNoListener: "no listener",
	causeUnreachable: "unreachable", causeConflict: "conflict", causeElsewhere: "elsewhere", causeTooSlow: "too slow",
}

// shown writes a reply as tests have it. Reasons are for people, and so are the
// textSession of causes, but for those that come from the other end.
func shown(m message) string {
	s := frameName(m)
	if m.id == msgReadOK {
		if len(m.chunk) > 40 {
			return fmt.Sprintf("%s of %d", s, len(m.chunk))
		}
		return fmt.Sprintf("%s %q", s, m.chunk)
	}
	switch m.id {
	case msgOffer:
		return fmt.Sprintf("%s of %d, %d", s, m.size, m.count)
	case msgMoved:
		return fmt.Sprintf("%s %s %d", s, moveNames[m.mode], m.count)
	case msgTaken:
		return fmt.Sprintf("%s %d, %d", s, m.token, m.count)
	case msgAudience:
		return fmt.Sprintf("%s %d", s, m.count)
	}
	if m.block == hasBlock && layouts[m.id]&hasCause != 0 && (m.id != msgInvalid || m.channel == 0) {
		s += " " + causeNames[m.code]
		if (m.code < causeBrokerGone && m.code != causeClosed || m.code == causeTooSlow) && len(m.cause) > 0 {
			s += fmt.Sprintf(" %q", m.cause)
		} else if m.code >= causeBrokerGone && m.code != causeDeleted && len(m.cause) == 0 {
			s += " without a text"
		}
	}
	return s
}

// able returns a client that shows of each end that its open has returned.
func (st *stage) able() *caller {
	st.t.Helper()
	c := st.call()
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities | 1<<31}}).gets("PING_OK")
	return c
}

// show says that the open has returned, which has no answer.
func (l *line) show() *line { return l.send(message{id: msgRead, flags: readHere}) }

func (st *stage) insideReader(name string) (*pipe, *cause) {
	return st.pipes.open(name, reader, 0, func() {}, st.now)
}

// opens wants an open to have succeeded, of a pipe of that mode.
func (l *line) opens(mode byte) *line {
	l.stage.t.Helper()
	for _, frame := range l.heard {
		m, _ := parse(frame)
		if m.channel == l.channel && m.id == msgInputOK && m.mode != mode {
			l.stage.t.Errorf("opened in mode %d, want %d", m.mode, mode)
		}
	}
	return l.gets("INPUT_OK")
}

// member opens a queue for a client of its own.
func (st *stage) member(name string) *line {
	st.t.Helper()
	return st.modern().on(1).queue(name).opens(modeQueue)
}

// checkQueued wants a queue to hold these chunks, in the order in which they would be
// handed out.
func (st *stage) checkQueued(name string, want ...string) {
	st.t.Helper()
	s := st.pipes.queues()[name]
	if s == nil {
		st.t.Fatalf("there is no queue %q", name)
	}
	checkSums(st.t, s)
	var chunks []*job
	var got []string
	for s.available() {
		c := s.next()
		chunks, got = append(chunks, c), append(got, string(c.data))
	}
	s.putBack(chunks, 0)
	checkChunks(st.t, got, want...)
}

// resumed runs the channel as after a wake-up.
func (l *line) resumed() *line {
	l.session.channels[l.channel].resume(l.stage.now)
	return l
}

// overBoth runs a test with a client of the base protocol and with one that has agreed, as far
// as there is no difference.
func overBoth(t *testing.T, test func(t *testing.T, st *stage, dial func() *line)) {
	t.Run("base", func(t *testing.T) {
		st := newStage(t)
		test(t, st, st.base)
		st.leavesNothing()
	})
	t.Run("agreed", func(t *testing.T) {
		st := newStage(t)
		c := st.modern()
		channel := uint32(0)
		test(t, st, func() *line {
			channel++
			return c.on(channel)
		})
		st.leavesNothing()
	})
}

// failed is a *_FAILED as a client gets it that has no cause to be told of.
func (l *line) failed(name string) string {
	if l.agreed {
		return name + " closed"
	}
	return name
}

// hellos returns the PING_OKs that have come.
func (c *caller) hellos() (all []message) {
	for _, frame := range c.heard {
		if m, _ := parse(frame); m.id == msgPingOK {
			all = append(all, m)
		}
	}
	c.heard = nil
	return all
}
