package zpipes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// A session is the broker's side of one client's connection, and a channel
// is what the protocol says of one pipe end on it. A client that knows only the
// base protocol has one channel at a time, on channel 0; one that has agreed
// to the extension has as many as it likes, each on a channel of its own.
//
// Both are plain state machines: frames, wake-ups and the time come in; replies
// go out through the host. The broker's loop owns them, nobody else touches
// them, and the pipes in between have locks of their own.
type session struct {
	host   host
	pipes  *registry
	id     []byte        // the client's routing id
	peer   string        // its address, as libzmq has it
	who    Access        // its process
	member memberID      // the broker of the cluster that it is; 0: it is none
	trip   *atomic.Int64 // the time to that one and back, in nanoseconds; 0: not known

	// A session belongs to one connection. Who comes next may have its routing id.
	connection string     // the connection's name; "" over inproc
	socket     *netSocket // nil: not asked for yet
	sure       bool       // the socket is its: it was there after that was found
	presence   liveness   // as it was when the broker last looked
	seen       int64      // the round of the broker's in which that was
	lostAt     time.Time  // when it was seen to be absent

	agreed bool
	able   uint32        // what both sides have beside that
	window int           // how many bytes of a stream the client may have unconfirmed, if it can take detours
	token  uint64        // names this session in PING and PING_OK
	expiry time.Duration // how long the client may be silent
	heard  time.Time     // when it last was not
	waited time.Time     // when it was last seen to wait for an answer
	lost   bool          // the host's: it is to be dropped
	gone   bool          // dropped: what still arrives for it starts a new one
	place  int           // in the host's list

	channels  map[uint32]*channel
	reports   [2]int       // that channels read: of the status, and of jobs
	text      *textSession // nil: the client has not used the text interface
	tunnels   map[memberID]*tunnel
	account   account
	ringsHeld atomic.Int32 // rings that the client has, or is to be offered
	scratch   []byte       // for replies
	frames    [1][]byte

	// What the transport would not take for this client. While there is something, or
	// stalled is set, nothing more is read from pipes for it.
	backlog      [][][]byte // messages of frames
	backlogBytes int
	stalled      bool           // the host's: the client does not take what was sent
	held         fifo[*channel] // who wait for that to end
	mail         letter[resumer]
}

// host is what a session needs of the broker around it.
type host interface {
	// reply sends one message to the session's client, now or later, in order. The
	// frames are the caller's again when it returns. It says whether the client
	// can still get it.
	reply(s *session, frames ...[]byte) bool
	// post has the resumer run again soon; from any goroutine.
	post(t resumer)
	// alarm has the channel run again at its deadline; a zero one cancels.
	alarm(c *channel)
	// violated records that a client broke the protocol.
	violated(s *session, what string)
	// allow says whether the session's client may do that with that pipe: now, or later,
	// and then t runs again. nil: it may.
	allow(s *session, pipe, op string, t resumer) *verdict
	// report writes what the broker says of itself, or of a queue's jobs, to a pipe, and ends
	// it. able is what its reader is able to do.
	report(p *pipe, jobs *chunkQueue, able uint32)
	// newToken is different for each session that ever was.
	newToken() uint64
}

// A leaver is a host whose broker may belong to a cluster, and leaves it, soon.
type leaver interface{ leaveCluster() }

// A verdict says why a client may not do what it has asked for, as soon as that is clear.
type verdict struct {
	given atomic.Bool
	why   *cause // nil: it may; written before given is

	withdraw func() // takes back what was asked; the loop's
}

// forgo says that nobody waits for it any more.
func (v *verdict) forgo() {
	if v != nil && !v.given.Load() {
		v.withdraw()
	}
}

func (v *verdict) give(why *cause) {
	v.why = why
	v.given.Store(true)
}

func (v *verdict) get() (why *cause, given bool) {
	if v == nil {
		return nil, true
	}
	if !v.given.Load() {
		return nil, false
	}
	return v.why, true
}

const (
	// maxQueued is how many requests may wait behind one that waits, and
	// minQueueBytes (or MaxPending, if that is more) how many bytes of WRITEs.
	maxQueued     = 4096
	minQueueBytes = 1 << 20
	queueSlack    = 32 * maxQueued // what frames have beside their chunks

	// A client that agreed is dropped after missing so many heartbeats.
	missedBeats = 4
	minBeat     = 10 * time.Millisecond
	maxBeat     = time.Hour

	// maxBacklog is how many bytes of answers may wait for a client that does
	// not take them.
	maxBacklog = 4 << 20

	// maxBurst is how many answers one READ gets before others have their turn, and how many
	// requests of one end are answered in a row.
	maxBurst = 64
)

func newSession(h host, pipes *registry, id []byte, expiry time.Duration, now time.Time) *session {
	return &session{
		host: h, pipes: pipes, id: id, expiry: expiry, heard: now,
		channels: make(map[uint32]*channel),
		account:  account{whose: "client", limits: defaultPerClient, post: h.post},
	}
}

// roundTrip is the time to the client and back, if it is another broker and that is known; else 0.
func (s *session) roundTrip() time.Duration {
	if s.trip == nil {
		return 0
	}
	return time.Duration(s.trip.Load())
}

// queueBytes is how many bytes of unanswered WRITEs a channel may have.
func (s *session) queueBytes() int { return max(s.pipes.maxPending, minQueueBytes) }

// mayWait is how many bytes of frames those may have.
func (s *session) mayWait() int64 { return int64(s.queueBytes()) + queueSlack }

// receive takes one frame from the client; for lent and body see message.
func (s *session) receive(frame []byte, lent bool, body *segment, now time.Time) {
	s.heard = now
	m, err := parse(frame)
	m.lent, m.body = lent, body
	switch {
	case len(frame)-messageOverhead > s.pipes.maxMessage: // libzmq lets it pass on inproc
		s.violation("too large a message")
		s.end(m.block, fmt.Sprintf("a message is above %d bytes", s.pipes.maxMessage))
		return
	case err == nil && m.id == msgPing:
		s.ping(&m)
		return
	case err != nil && s.agreed:
		s.violation(err.Error())
		s.end(hasBlock, "the broker got a frame whose channel cannot be read: "+err.Error())
		return
	case s.agreed != (m.block != noBlock):
		// One side believes in an agreement that the other does not know of:
		// this broker has dropped the client, or is not the one it agreed with.
		// Nothing it says may touch a pipe.
		s.violation("an extension block without an agreement, or none with one")
		s.end(hasBlock, "the broker does not know this connection; it may have been silent too long")
		return
	}
	if err == nil && m.id == msgText && m.block == hasBlock {
		if why := s.textPassed(&m); why != "" {
			s.violation(why)
			s.end(hasBlock, "the broker got "+why)
		}
		return
	}
	if err == nil && s.agreed && m.id == msgClose && m.channel == 0 {
		s.drop(cause{code: causeVanished}, nil) // it takes its leave
		s.gone = true
		return
	}
	c := s.channels[m.channel]
	if c == nil {
		c = &channel{session: s, number: m.channel}
		s.channels[m.channel] = c
	}
	switch {
	case err != nil:
		c.enqueue(request{frame: frame, message: m, invalid: err.Error()}, now)
	case m.block == badBlock:
		c.enqueue(request{frame: frame, message: m, invalid: "the extension block is cut short"}, now)
	case m.id == msgClose && c.forwards() == nil:
		c.close(&m, now)
	case m.id == msgMove && s.able&ableRings != 0 && c.reads():
		c.answered(&m)
	default:
		c.enqueue(request{frame: frame, message: m}, now)
	}
	c.tidy()
}

func (s *session) ping(m *message) {
	answer := message{id: msgPingOK}
	if m.block != hasBlock {
		s.send(&answer)
		return
	}
	if m.hello.session == 0 && m.hello.version > 0 {
		// A first PING. What there was under this routing id was another
		// client's, and so are the answers it waits for.
		s.drop(cause{code: causeVanished}, nil)
		s.backlog, s.backlogBytes = nil, 0
		s.agreed, s.able, s.window = true, m.hello.able&abilities, size(m.hello.window)
		if s.member != 0 {
			s.able |= m.hello.able & peerAbilities
		}
		if h, ok := s.host.(ringHost); !ok || !h.canGive() {
			s.able &^= ableRings
		}
		s.token = s.host.newToken()
		s.expiry = missedBeats * min(maxBeat, max(minBeat, time.Duration(m.hello.number)*time.Millisecond))
	}
	answer.block, answer.hello = hasBlock, s.hello()
	s.send(&answer)
}

func (s *session) hello() hello {
	return hello{
		version: protocolVersion,
		session: s.token,
		number:  uint32(min(s.queueBytes(), math.MaxInt32)),
		pending: uint32(min(s.pipes.largest(), math.MaxInt32)),
		total:   uint32(s.account.pending()),
		able:    s.able,
	}
}

func (s *session) send(m *message) {
	s.scratch = m.append(s.scratch[:0])
	s.reply(s.scratch)
}

// reply is the host's, for one frame.
func (s *session) reply(frame []byte) {
	s.frames[0] = frame
	s.host.reply(s, s.frames[:]...)
}

func (s *session) violation(what string) { s.host.violated(s, what) }

// drop ends all that the client has open, for the reason left: where that is much, the
// rest of it a little later. What waits is answered with the reason answer, if there is
// one, as far as that is done at once; for the rest the message that follows must do.
func (s *session) drop(left cause, answer *cause) {
	d := &dropping{session: s, channels: s.channels, left: left}
	s.channels, s.held = make(map[uint32]*channel), fifo[*channel]{}
	if s.text != nil {
		s.text.drop()
	}
	for _, t := range s.tunnels {
		t.close()
	}
	s.tunnels = nil
	d.step(answer)
}

// A dropping is the channels that a session has had, and that have yet to leave. They do
// so in steps, since there may be tens of thousands.
type dropping struct {
	session  *session
	channels map[uint32]*channel
	left     cause
	mail     letter[resumer] // guarded by the host's mailbox
}

// dropStep is how many leave before others have their turn.
const dropStep = 256

func (d *dropping) step(answer *cause) {
	numbers := make([]uint32, 0, min(len(d.channels), dropStep))
	for number := range d.channels {
		if len(numbers) == dropStep {
			break
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers) // so that what goes back to a queue does so in order
	for _, number := range numbers {
		c := d.channels[number]
		delete(d.channels, number)
		if answer != nil {
			c.failWaiting(*answer)
		}
		for c.queue.len() > 0 {
			c.pop()
		}
		c.leave(d.left, 0)
	}
	if len(d.channels) > 0 {
		d.session.host.post(d)
	}
}

func (d *dropping) resume(time.Time) { d.step(nil) }

func (d *dropping) letter() *letter[resumer] { return &d.mail }

// end drops the session as if the client had died, and tells the client.
func (s *session) end(block blockState, reason string) {
	why := cause{causeBrokerGone, reason}
	s.drop(cause{code: causeVanished}, &why)
	s.send(&message{id: msgInvalid, block: block, code: why.code, cause: []byte(why.text)})
	s.gone = true
}

// keep has a message wait that the client does not take now. It says whether that is more
// than may wait.
func (s *session) keep(frames [][]byte) (tooMuch bool) {
	kept := make([][]byte, len(frames))
	for i, f := range frames {
		kept[i] = bytes.Clone(f)
	}
	s.backlog = append(s.backlog, kept)
	s.backlogBytes += frameBytes(frames)
	return s.backlogBytes-maxBacklog > s.pipes.maxMessage || len(s.backlog) > maxBacklog/64
}

// full says that the client has to take what was sent before more is read for it.
func (s *session) full() bool { return s.stalled || len(s.backlog) > 0 }

// unload sends what has been kept, most messages of it at most, until that fails. When all is
// sent, the channels go on that have waited for it.
func (s *session) unload(most int, send func(frames [][]byte) error) error {
	for range min(most, len(s.backlog)) {
		if err := send(s.backlog[0]); err != nil {
			return err
		}
		s.backlogBytes -= frameBytes(s.backlog[0])
		s.backlog = s.backlog[1:]
	}
	if len(s.backlog) == 0 {
		s.backlog = nil
		s.resume(time.Time{})
	}
	return nil
}

// heldUp says that the client has to take what was sent before; then the channel goes on.
func (c *channel) heldUp() bool {
	s := c.session
	if s.full() && !c.held {
		c.held = true
		s.held.push(c)
	}
	return s.full()
}

// resume has channels go on that were held up: since there may be tens of thousands, in steps.
func (s *session) resume(time.Time) {
	for range dropStep {
		if s.held.len() == 0 || s.full() {
			return
		}
		c := s.held.pop()
		c.held = false
		s.host.post(c)
	}
	s.host.post(s)
}

func (s *session) letter() *letter[resumer] { return &s.mail }

func frameBytes(frames [][]byte) (n int) {
	for _, f := range frames {
		n += len(f)
	}
	return n
}

// waits says that the client can't be heard because it waits for an answer: neither text
// nor, by the letter, the base protocol has a PING with which it could show itself. Then
// its connection must do. Where nobody knows about that, text may wait all the same.
func (s *session) waits() bool {
	if s.text != nil && s.text.waiting.len() > 0 && s.presence != absent {
		return true
	}
	if s.agreed || s.presence != present {
		return false
	}
	for _, c := range s.channels {
		if w, ok := c.open.(*streamWriter); c.queue.len() > 0 || c.parting != nil || ok && w.owed.len() > 0 {
			return true
		}
		if e := c.forwards(); e != nil && e.asked.len() > 0 {
			return true
		}
	}
	return false
}

// silence is for how long the client has been silent though it need not have been.
func (s *session) silence(now time.Time) time.Duration { return now.Sub(s.excused()) }

// excused is when it last was heard or had to wait.
func (s *session) excused() time.Time {
	if s.heard.Before(s.waited) {
		return s.waited
	}
	return s.heard
}

// expire drops a client that was silent too long, and says whether it was.
func (s *session) expire(now time.Time) bool {
	if s.waits() {
		s.waited = now
	}
	switch {
	case s.silence(now) < s.expiry:
		return false
	case s.works():
		s.waited = now
		return false
	}
	why := cause{causeBrokerGone, fmt.Sprintf("the broker heard nothing from this client for %v", s.expiry)}
	s.drop(cause{code: causeVanished}, &why)
	if s.agreed {
		s.send(&message{id: msgInvalid, block: hasBlock, code: why.code, cause: []byte(why.text)})
	}
	s.gone = true
	return true
}
