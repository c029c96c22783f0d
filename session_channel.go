package zpipes

import (
	"bytes"
	"fmt"
	"time"
)

// A resumer is something in a session that goes on when what it waits for may have
// happened.
type resumer interface {
	resume(now time.Time)
	letter() *letter[resumer] // guarded by the host's mailbox
}

// A request waits its turn in a channel.
type request struct {
	message
	frame   []byte // that the message points into
	invalid string // a message that does not parse, and why
	waiting bool   // has begun and could not be answered yet
	fed     bool   // a READ that has shown what its reader has of a queue
	asked   bool   // an open that waits for the verdict, or has it
	verdict *verdict
	inquiry *inquiry // where the queue is that it opens; nil: here, or it is not asked yet
	meeting *meeting // a DIAL or ACCEPT that has begun
	called  *duplex  // of a CALL that has
}

// requests are those of one channel.
type requests struct {
	fifo[request]
	bytes int64 // of the frames
}

func (q *requests) push(r request) {
	q.fifo.push(r)
	q.bytes += int64(len(r.frame))
}

func (q *requests) pop() {
	q.bytes -= int64(len(q.fifo.pop().frame))
}

// channel is one pipe end: at most one request is being worked on, the
// others wait behind it. PING and CLOSE overtake.
type channel struct {
	session *session
	number  uint32

	open  openEnd // nil: nothing
	known bool    // the client knows that it is open
	held  bool    // it is in the session's
	// pledged: a DIAL or ACCEPT that waits is to open the writing end here.
	pledged bool
	// parting: the client has closed the writing end; its CLOSE is answered when the reader's
	// broker knows.
	parting *pipe

	queue    requests
	told     uint32    // how many bytes there was room for when a WRITE was answered the last time, behind that
	deadline time.Time // of the request that waits; zero: none
	alarm    alarm     // the host's

	mail letter[resumer] // guarded by the host's mailbox
}

// An openEnd is what a channel has open: one end of a stream or of a queue. The channel
// keeps the requests, their order and their deadlines; the end answers READs and WRITEs.
type openEnd interface {
	// show is called once the client is known to know that the end is open.
	show()
	// read and write answer a request, or say false: it must wait.
	read(q *request, now time.Time) (done bool)
	write(q *request, now time.Time) (done bool)
	// notice sends what the client has not asked for, or not now. It is called after a wake-up.
	notice()
	// resolve says that the WRITE that waits was taken in the meantime. If not, it will
	// not be.
	resolve() (took bool)
	// leave gives the end up, for that reason. unread is how many of the bytes sent last
	// the client has not used. With never set, the end was never there.
	leave(why cause, unread uint32, never bool)
}

// A channelEnd is an end that does nothing.
type channelEnd struct{ channel *channel }

func (e *channelEnd) show()         {}
func (e *channelEnd) notice()       {}
func (e *channelEnd) resolve() bool { return false }

func (e *channelEnd) read(*request, time.Time) bool {
	e.channel.reply(msgInvalid, cause{})
	return true
}

func (e *channelEnd) write(*request, time.Time) bool {
	e.channel.reply(msgInvalid, cause{})
	return true
}

func (c *channel) enqueue(q request, now time.Time) {
	if c.overloads(q) || !c.session.account.take(len(q.frame)) {
		c.session.violation("too much sent without waiting for answers")
		c.session.end(c.block(), "too much was sent without waiting for answers")
		return
	}
	c.queue.push(q)
	if c.queue.len() == 1 {
		c.run(now)
	}
	if waits := c.queue.all(); len(waits) > 0 {
		waits[len(waits)-1].keep()
	}
}

// keep has a request that waits have a frame of its own, which keeps no other memory.
func (q *request) keep() {
	if !q.lent && q.backing(q.frame)/2 <= len(q.frame) {
		return
	}
	q.frame = bytes.Clone(q.frame)
	m, _ := parse(q.frame)
	q.text, q.chunk, q.cause, q.begins = m.text, m.chunk, m.cause, m.begins
	q.body.release()
	q.lent, q.body = false, nil
}

// overloads says that one request more would be too much to hold behind another.
func (c *channel) overloads(q request) bool {
	if c.queue.len() == 0 {
		return false
	}
	behind := c.queue.bytes - int64(len(c.queue.front().frame)) + int64(len(q.frame))
	return c.queue.len() > maxQueued || behind > c.session.mayWait()+int64(c.told)
}

// pop takes off the request that has been answered.
func (c *channel) pop() {
	q := c.queue.front()
	c.session.account.add(-1, -len(q.frame))
	q.verdict.forgo()
	q.meeting.forgo()
	if q.called != nil {
		c.session.pipes.forgoCalled(q.called)
	}
	q.inquiry.forgo()
	q.body.release()
	c.queue.pop()
	c.deadline = time.Time{}
}

// resume goes on after a wake-up or at the deadline.
func (c *channel) resume(now time.Time) {
	if c.session.channels[c.number] != c {
		return // it has been dropped, and may have yet to leave
	}
	c.run(now)
	if c.open != nil {
		c.open.notice()
	}
	c.tidy()
}

func (c *channel) letter() *letter[resumer] { return &c.mail }

// recheck is for what waits for room of the account.
func (c *channel) recheck() { c.session.host.post(c) }

// run works off the queue until a request must wait; where many need not, some of it, and
// the rest after others.
func (c *channel) run(now time.Time) {
	for range maxBurst {
		if c.parting != nil && !c.part() || c.queue.len() == 0 || !c.step(c.queue.front(), now) {
			return
		}
		c.pop()
	}
	if c.queue.len() > 0 {
		c.session.host.post(c)
	}
}

func (c *channel) tidy() {
	if channels := c.session.channels; c.open == nil && !c.pledged && c.parting == nil && c.queue.len() == 0 && channels[c.number] == c {
		delete(channels, c.number)
	}
}

// step answers the request if it can be answered now.
func (c *channel) step(q *request, now time.Time) bool {
	if q.invalid != "" {
		c.violate(q.invalid)
		return true
	}
	if e := c.forwards(); e != nil {
		return e.pass(q)
	}
	if q.id == msgRead || q.id == msgWrite {
		return c.use(q, now)
	}
	switch q.id {
	case msgInput:
		return c.answerOpen(q, reader, msgInputOK, msgInputFailed, now)
	case msgOutput:
		return c.answerOpen(q, writer, msgOutputOK, msgOutputFailed, now)
	case msgDial, msgAccept:
		if c.session.able&ableConnections != 0 {
			return c.meet(q, now)
		}
		c.violate("a DIAL or ACCEPT where that was not agreed on")
	case msgAttach:
		if c.session.able&ablePeers != 0 {
			c.attachFar(q, nil, now)
			break
		}
		c.violate("an ATTACH that is not another broker's")
	case msgFeed:
		if c.session.able&ableFeeds != 0 && q.mode == modeBroadcast {
			c.attachFar(q, &q.cast, now)
			break
		}
		c.violate("a FEED that is not another broker's")
	case msgHeld:
		e, ok := c.open.(*streamWriter)
		switch {
		case c.session.able&ableFeeds == 0 || ok && e.far == nil || !ok && c.open != nil:
			c.violate("a HELD that is not another broker's, or not of a feed")
		case ok:
			e.heldUp(q.token)
		default: // a CLOSE has overtaken it
			c.reply(msgInvalid, cause{})
		}
	case msgCall:
		if c.session.able&ablePeers != 0 {
			return c.call(q, now)
		}
		c.violate("a CALL that is not another broker's")
	case msgMove:
		e, ok := c.open.(*streamWriter)
		switch {
		case c.session.able&ableRings == 0 || !ok && c.open != nil:
			c.violate("a MOVE that is not a client's, or not now")
		case ok:
			e.move(q)
		default: // a CLOSE has overtaken it, or the offer
			c.reply(msgInvalid, cause{})
		}
	case msgTake, msgSettle, msgDone, msgPut, msgRules, msgTend, msgHand:
		e, ok := c.open.(*queueMember)
		switch {
		case c.open == nil && c.session.able&ableJobs != 0: // a CLOSE has overtaken it
			c.reply(msgInvalid, cause{})
		case !ok || !e.handleJobs(q):
			c.violate("a message about jobs that is not a client's, or not now")
		}
	case msgClose: // of what was elsewhere, and is over
		c.reply(msgInvalid, cause{})
	default:
		c.violate(fmt.Sprintf("message %d is not a client's", q.id))
	}
	return true
}

// reads says that the reader of a stream is open, who may answer an offer at any time.
func (c *channel) reads() bool {
	_, ok := c.open.(*streamReader)
	return ok
}

func (c *channel) answered(m *message) {
	if !c.open.(*streamReader).answer(m) {
		c.violate("an answer to no offer")
	}
}

// use is a READ or WRITE; false: it must wait.
func (c *channel) use(q *request, now time.Time) bool {
	switch {
	case c.open == nil:
		c.reply(msgInvalid, cause{})
		return true
	case !c.known:
		c.show()
	}
	switch {
	case q.flags&readHere != 0 && c.session.able&ableHere != 0:
		return true
	case q.id == msgRead:
		return c.open.read(q, now)
	}
	return c.open.write(q, now)
}

// answerOpen is for an INPUT or OUTPUT; false: whether the client may do that is not clear yet.
func (c *channel) answerOpen(q *request, r role, ok, failed messageID, now time.Time) bool {
	if c.open != nil || c.pledged {
		c.violate("a second open on an open connection")
		return true
	}
	name, op := string(q.text), r.op()
	if c.session.agreed && r == reader {
		op = modeOp(q.mode)
	}
	if !q.asked {
		q.asked, q.verdict = true, c.session.host.allow(c.session, name, op, c)
	}
	why, given := q.verdict.get()
	switch {
	case !given || q.inquiry != nil && !q.inquiry.given.Load():
		return false
	case why != nil:
		c.reply(failed, *why)
		return true
	}
	return c.openAllowed(q, name, op, r, ok, failed, now)
}

func (c *channel) openAllowed(q *request, name, op string, r role, ok, failed messageID, now time.Time) bool {
	s, mode := c.session, q.mode
	if !s.agreed || r == writer && (mode != modeBroadcast || s.able&ableBroadcast == 0) {
		mode = modeStream
	}
	whole := s.account.whole()
	whole.opening.Lock()
	defer whole.opening.Unlock()
	why := s.account.refusal(1)
	switch {
	case why != nil && op != "delete" && op != "status" && op != "peek" && op != "leave":
		s.pipes.counted(why)
	case mode == modeStream && s.member != 0: // the bytes of a queue, unless it is a stream
		mode = modeQueue
		if why = c.openQueue(name, r, false, false, now); why == &causeIsStream {
			mode = modeStream
			why = c.openStream(name, r, now)
		}
	case mode == modeStream && q.inquiry == nil && s.pipes.mayBeAway(name, now): // whose bytes it reads or writes
		q.inquiry = s.pipes.exchange.inquireBytes(name, c.recheck)
		return false
	case mode == modeStream && q.inquiry != nil && q.inquiry.at != 0:
		why = &causeIsAway
	case mode == modeStream:
		mode, why = c.openBytes(name, r, now)
	case mode == modeQueue:
		why = c.openQueue(name, r, true, true, now)
	case mode == modeKnown && s.able&ableJobs != 0:
		why = c.openQueue(name, r, true, false, now)
	case mode == modeResigned && s.member != 0:
		if why = s.pipes.beginQueue(name, now); why == nil {
			s.pipes.exchange.succeeds(name, s.member)
			why = c.openQueue(name, r, true, false, now)
		}
	case mode == modePeek && s.able&ableJobs != 0:
		why = c.openPeek(name)
	case mode == modeDelete:
		why = s.pipes.delete(name, now)
	case mode == modeBroadcast && r == writer:
		why = c.openBroadcast(name, q.cast, now)
	case mode == modeLeave:
		if h, ok := s.host.(leaver); ok {
			h.leaveCluster()
		} else {
			why = &cause{causeMode, "this broker is in no cluster"}
		}
	case mode == modeStatus:
		why = c.openStatus()
	case mode == modeListen && s.able&ableConnections != 0:
		why = c.openListener(name, now)
	default:
		why = &cause{causeMode, fmt.Sprintf("there is no mode %d", mode)}
	}
	if why == &causeResigned && s.member != 0 && mode != modeResigned {
		why = &causeIsAway // for that broker's client: it will be elsewhere in a moment
	}
	if why == &causeIsAway {
		return c.elsewhere(q, name, mode == modeQueue && op == "queue", failed)
	}
	if why != nil {
		c.reply(failed, *why)
		return true
	}
	if c.open != nil {
		s.account.addEnds(1)
		c.told = 0
		if c.known = false; s.able&ableHere == 0 {
			c.show() // nothing else will
		}
	}
	s.send(&message{id: ok, block: c.block(), channel: c.number, mode: mode})
	return true
}

// openBytes opens an end of a stream, or of the bytes of a queue if the name is one's, and says which.
func (c *channel) openBytes(name string, r role, now time.Time) (mode byte, why *cause) {
	for range maxBurst { // the queue may be deleted in between, and another one made
		mode, why = modeStream, c.openStream(name, r, now)
		if why != nil && why.code == causeMode {
			mode, why = modeQueue, c.openQueue(name, r, false, false, now)
		}
		if why == nil || why.code != causeNoQueue {
			break
		}
	}
	return mode, why
}

// show records that the client knows that its end is open.
func (c *channel) show() {
	c.known = true
	c.open.show()
}

// op and modeOp are how Access names what an open is for.
func (r role) op() string {
	if r == reader {
		return "read"
	}
	return "write"
}

func modeOp(mode byte) string {
	switch mode {
	case modeStream:
		return "read"
	case modeDelete:
		return "delete"
	case modeStatus:
		return "status"
	case modeLeave:
		return "leave"
	case modeListen:
		return "listen"
	case modePeek:
		return "peek"
	}
	return "queue"
}

// wait says false where the request has time left, and sees to it that it is
// tried again at its end; else it answers that the time is over, and says true.
func (c *channel) wait(q *request, now time.Time) bool {
	if !q.waiting {
		q.waiting = true
		if q.timeout > 0 {
			c.deadline = now.Add(time.Duration(q.timeout) * time.Millisecond)
			c.session.host.alarm(c)
		}
	}
	if c.deadline.IsZero() || now.Before(c.deadline) {
		return false
	}
	if q.id == msgRead {
		c.reply(msgReadTimeout, cause{})
	} else {
		c.reply(msgWriteTimeout, cause{})
	}
	return true
}

// close overtakes what waits: that fails, the CLOSE is answered, and what was
// queued is handled as if it had just come.
func (c *channel) close(m *message, now time.Time) {
	if c.open == nil && c.queue.len() == 0 { // else there is an open that waits
		c.reply(msgInvalid, cause{})
		return
	}
	why := m.why()
	w, _ := c.open.(*streamWriter)
	far := w != nil && w.far != nil
	if why.code > causeUndelivered && (why.code != causeNever || c.known) && (why.code != causeTooSlow || !far) {
		why.code = causeAborted
	}
	c.failWaiting(cause{text: "the pipe was closed"})
	if r, ok := c.open.(*streamReader); ok && r.side != nil && why.code == causeNever {
		r.never()
	}
	if far {
		if w.overtaken() { // the writer comes again, and says so there
			c.run(now)
			return
		}
		w.far.closes = true
	}
	if c.leave(why, m.count); !w.relays() {
		c.reply(msgCloseOK, cause{})
	} else {
		c.parting = w.pipe
		w.pipe.mu.Lock()
		w.pipe.rouse(writer, c.recheck)
		w.pipe.mu.Unlock()
	}
	c.run(now)
}

// part answers a CLOSE as soon as the reader's broker knows that the writer has left, or can't be
// reached, and says whether it has.
func (c *channel) part() bool {
	p := c.parting
	p.mu.Lock()
	left, why := p.reader.left, p.reader.cause
	if left {
		p.mute(writer)
	}
	p.mu.Unlock()
	switch {
	case !left:
		return false
	case why.code != causeUnreachable:
		c.reply(msgCloseOK, cause{})
	case c.session.agreed:
		c.reply(msgWriteFailed, why)
		c.reply(msgCloseOK, cause{})
	default:
		c.reply(msgCloseFailed, why)
	}
	c.parting = nil
	return true
}

// failWaiting answers the request that is being worked on.
func (c *channel) failWaiting(why cause) {
	if c.queue.len() == 0 {
		return
	}
	switch c.queue.front().id {
	case msgInput:
		c.reply(msgInputFailed, why)
	case msgOutput, msgAttach, msgFeed:
		c.reply(msgOutputFailed, why)
	case msgDial:
		c.reply(msgDialFailed, why)
	case msgAccept:
		c.reply(msgAcceptFailed, why)
	case msgCall:
		c.reply(msgCallFailed, why)
	case msgRead:
		c.reply(msgReadFailed, why)
	case msgWrite:
		if c.open != nil && c.open.resolve() {
			c.reply(msgWriteOK, cause{})
		} else {
			c.reply(msgWriteFailed, why)
		}
	}
	c.pop()
}

// leave gives up what is open. An end whose open was given up, or of which the client has
// not shown that it knows, was never there.
func (c *channel) leave(why cause, unread uint32) {
	if c.open == nil {
		return
	}
	c.session.account.addEnds(-1)
	e := c.open
	c.open = nil // it may have others leave, too
	e.leave(why, unread, !c.known && (why.code == causeNever || why.code == causeVanished))
	c.deadline = time.Time{}
	c.session.host.alarm(c)
}

// violate ends the channel as if the client had died.
func (c *channel) violate(what string) {
	c.session.violation(what)
	c.leave(cause{code: causeVanished}, 0)
	c.reply(msgInvalid, cause{})
}

func (c *channel) block() blockState {
	if c.session.agreed {
		return hasBlock
	}
	return noBlock
}

// reply sends an answer that has no chunk. why goes into the fields that the
// message has for it.
func (c *channel) reply(id messageID, why cause) {
	text := why.text
	if text == "" && layouts[id]&hasText != 0 {
		text = why.reason(id)
	}
	m := message{
		id: id, text: []byte(text),
		block: c.block(), channel: c.number, code: why.code, cause: []byte(why.text),
	}
	c.session.send(&m)
}

// reason is what a *_FAILED says where the cause has no text of its own.
func (c cause) reason(id messageID) string {
	switch {
	case c.code == causeVanished:
		return "the other end vanished"
	case c.code == causeUndelivered:
		return "the writer gave up before all was delivered"
	case id == msgWriteFailed:
		return "the reader has left"
	}
	return "the pipe was closed"
}
