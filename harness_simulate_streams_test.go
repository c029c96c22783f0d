package zpipes

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

type streamWorld struct {
	*sim
	actors   []*actor
	insiders []*insider
	streams  map[*pipe]*flow
	user     *account // all clients'
	closed   bool
	rings    []*simRing
	given    *simRing       // with the message that comes
	certain  bool           // nothing is left to chance now
	moving   bool           // a MOVE is sent that makes sense
	count    map[string]int // of replies, to see that all of them occur
}

const (
	worldPipes   = 5
	worldPending = 1000
	worldMessage = 3000
	worldWrite   = 4000
	worldWindow  = 700
	worldExpiry  = 200 * time.Millisecond
	worldBeat    = 20     // milliseconds
	worldRoom    = 10_000 // what pipes may hold for all clients together
)

// flow is what has gone into a pipe, and how much of it has come out.
type flow struct {
	in     []byte
	out    int
	source stream

	rider    *call // the writer that uses a ring
	ringAt   int   // so many bytes were before it
	inRing   int   // that are not read
	promised bool  // what was in it at its end counts as read
}

// An actor is one client.
type actor struct {
	name      string
	session   *session
	agreed    bool
	rings     bool // can have some
	able      bool // says when its opens have returned
	congested bool
	doomed    bool // the session ends with what is being done
	pings     int  // that are not answered
	calls     map[uint32]*call
}

// A call is what a client knows of one of its channels.
type call struct {
	pipe    *pipe
	role    role
	here    bool // it has said that its open has returned, or can't
	told    bool // of the end of the pipe
	waiting []*asked
	ringing
}

// asked is a request whose answer has not come.
type asked struct {
	message
	invalid bool // malformed
	at      time.Time
	left    uint32 // of a READ's size
	fails   bool   // it is to be answered *_FAILED now, whatever there is
}

// An insider is an end in the broker's own process.
type insider struct {
	pipe   *pipe
	role   role
	woken  bool
	pinned [][]byte // what a reader is copying while others go on

	offered []byte // the buffer of a Read that waits
	given   []byte // what a writer has given to it
	lent    func() // ends the copying of a writer to it
}

func newStreamWorld(s *sim, count map[string]int) *streamWorld {
	w := &streamWorld{sim: s, streams: make(map[*pipe]*flow), count: count}
	w.pipes = newRegistry(worldPipes, worldPending, worldMessage)
	w.user = newSimUser(w, worldRoom)
	for i := range 4 {
		a := &actor{name: string('A' + rune(i))}
		w.connect(a)
		w.actors = append(w.actors, a)
	}
	return w
}

func (w *streamWorld) flow(p *pipe) *flow {
	f := w.streams[p]
	if f == nil {
		f = new(flow)
		w.streams[p] = f
	}
	return f
}

// came checks bytes that have come out of a pipe.
func (w *streamWorld) came(p *pipe, b []byte) {
	f := w.flow(p)
	ok := f.out+len(b) <= len(f.in) && bytes.Equal(b, f.in[f.out:f.out+len(b)])
	w.check(ok, "%d bytes came out of %q that are not the next ones", len(b), p.name)
	f.out += len(b)
}
func (w *streamWorld) reply(s *session, frames ...[]byte) bool {
	frame := frames[0]
	i := slices.IndexFunc(w.actors, func(a *actor) bool { return a.session == s })
	w.check(i >= 0 && !s.gone, "a reply to a client that was dropped: % x", frame)
	a := w.actors[i]
	if a.congested {
		s.backlog = append(s.backlog, [][]byte{bytes.Clone(frame)})
	}
	m, err := parse(frame)
	w.check(err == nil, "a reply that does not parse: %v: % x", err, frame)
	if w.logs {
		w.note("%s.%d < %s", a.name, m.channel, shown(m))
	}
	w.count[frameName(m)]++
	w.answered(a, m)
	return true
}

// connect gives an actor a connection that knows of nothing.
func (w *streamWorld) connect(a *actor) {
	*a = actor{name: a.name, calls: make(map[uint32]*call)}
	a.session = newSession(w, w.pipes, []byte(a.name), worldExpiry, w.now)
	a.session.account.above = w.user
	limitSim(&a.session.account, worldRoom/2)
}

func (a *actor) call(channel uint32) *call {
	k := a.calls[channel]
	if k == nil {
		k = new(call)
		a.calls[channel] = k
	}
	return k
}

// deliver hands a frame to an actor's session, and notes what answers it should
// have.
func (w *streamWorld) deliver(a *actor, frame []byte) {
	m, err := parse(bytes.Clone(frame))
	if m.id == msgInput && m.mode != modeStream && m.mode <= modeStatus {
		return // a bit fell over, and it would not be a matter of streams
	}
	if m.id == msgMove && !w.moving {
		return // nor this
	}
	if k := a.calls[m.channel]; m.id == msgRead && m.flags&readHere != 0 && (k == nil || k.pipe == nil || len(k.waiting) > 0) {
		return // it has no answer to be told from others
	}
	if w.logs {
		w.note("%s.%d > %s", a.name, m.channel, asking(m, frame, err))
	}
	k := a.call(m.channel)
	q := &asked{message: m, at: w.now, left: m.size}
	spared := w.spares(a, m, err)
	switch {
	case err == nil && m.id == msgPing:
		a.pings++
		if m.block == hasBlock && m.hello.session == 0 && m.hello.version > 0 {
			a.calls = make(map[uint32]*call)
			a.agreed, a.able = true, m.hello.able&ableHere != 0
			a.rings = m.hello.able&ableRings != 0 && m.hello.window > 0
		}
	case err != nil && a.agreed, a.agreed != (m.block != noBlock):
		w.dooms(a)
	case err == nil && a.agreed && m.id == msgClose && m.channel == 0:
		a.doomed = true // it takes its leave, and nothing is answered
	case err != nil || m.block == badBlock:
		q.invalid = true
		k.waiting = append(k.waiting, q)
	case m.id == msgClose && k.fails():
		k.waiting = slices.Insert(k.waiting, 1, q)
	case m.id == msgRead && m.flags&readHere != 0 && a.able:
		k.here = true
	case m.id == msgMove && k.role == reader:
	default:
		k.waiting = append(k.waiting, q)
	}
	deliver(a.session, frame, w.now)
	spared()
	w.check(a.pings == 0, "%d PINGs were not answered at once", a.pings)
	w.check(m.id != msgClose || err != nil || q.invalid || !slices.Contains(k.waiting, q), "CLOSE was not answered at once")
	w.buried(a)
}

// asking tells of a client's message.
func asking(m message, frame []byte, err error) string {
	if err != nil || m.block == badBlock {
		return fmt.Sprintf("% .20x (%v)", frame, err)
	}
	s := frameName(m)
	switch m.id {
	case msgInput, msgOutput:
		s = fmt.Sprintf("%s %q mode %d", s, m.text, m.mode)
	case msgRead:
		s = fmt.Sprintf("%s %d flags %d count %d", s, m.size, m.flags, m.count)
	case msgWrite:
		s = fmt.Sprintf("%s of %d bytes", s, len(m.chunk))
	case msgMove:
		s = fmt.Sprintf("%s %s %d", s, moveNames[m.mode], m.count)
	case msgClose:
		s = fmt.Sprintf("%s %s count %d", s, causeNames[m.code], m.count)
	}
	if m.timeout > 0 {
		s = fmt.Sprintf("%s within %d ms", s, m.timeout)
	}
	return s
}

// dooms says that all of an actor's channels fail now, and its session ends.
func (w *streamWorld) dooms(a *actor) {
	a.doomed = true
	for _, k := range a.calls {
		k.fails()
	}
}

// fails says that the request that waits, if there is one, is to fail now.
func (k *call) fails() bool {
	k.trim()
	if len(k.waiting) == 0 {
		return false
	}
	k.waiting[0].fails = true
	return true
}

// buried gives an actor whose session has ended a new one.
func (w *streamWorld) buried(a *actor) {
	w.check(a.doomed == a.session.gone, "%s: the session has ended: %v, but should have: %v", a.name, a.session.gone, a.doomed)
	if !a.doomed {
		return
	}
	for _, k := range a.calls {
		w.check(len(k.waiting) == 0 || !k.waiting[0].fails, "%s: a waiting request was not answered in the end", a.name)
	}
	w.connect(a)
}

// answered checks one reply.
