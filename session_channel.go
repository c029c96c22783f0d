package zpipes

import (
	"fmt"
	"math"
	"time"
)

// A resumer is something in a session that goes on when what it waits for may have
// happened.
type resumer interface {
	resume(now time.Time)
	flag() *bool // guarded by the host's mailbox
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

	pipe     *pipe         // nil: nothing is open, or something of a queue
	end      *queueChannel // nil: nothing of a queue is open
	role     role
	here     bool // it knows that it is open
	notified bool // it knows why the other end has left

	unread uint32 // while a CLOSE is worked on: its count

	queue    requests
	deadline time.Time // of the request that waits; zero: none
	alarm    alarm     // the host's

	posted bool // guarded by the host's mailbox
}

func (c *channel) enqueue(q request, now time.Time) {
	if c.overloads(q) {
		c.session.violation("too much sent without waiting for answers")
		c.session.end(c.block(), "too much was sent without waiting for answers")
		return
	}
	c.session.account.add(1, len(q.frame))
	c.queue.push(q)
	if c.queue.len() == 1 {
		c.run(now)
	}
}

// overloads says that one request more would be too much to hold.
func (c *channel) overloads(q request) bool {
	s := c.session
	if s.account.overloads(len(q.frame)) {
		return true
	}
	if c.queue.len() == 0 {
		return false
	}
	behind := c.queue.bytes - int64(len(c.queue.front().frame)) + int64(len(q.frame))
	return c.queue.len() > maxQueued || behind > s.mayWait()
}

// pop takes off the request that has been answered.
func (c *channel) pop() {
	q := c.queue.front()
	c.session.account.add(-1, -len(q.frame))
	q.verdict.forgo()
	c.queue.pop()
	c.deadline = time.Time{}
}

// resume goes on after a wake-up or at the deadline.
func (c *channel) resume(now time.Time) {
	c.run(now)
	c.notice()
	if c.end != nil {
		c.end.serve()
	}
	c.tidy()
}

func (c *channel) flag() *bool { return &c.posted }

// recheck is for what waits for room of the account.
func (c *channel) recheck() { c.session.host.post(c) }

// opened says that there is an end to be closed.
func (c *channel) opened() bool { return c.pipe != nil || c.end != nil }

// run works off the queue until a request must wait.
func (c *channel) run(now time.Time) {
	for c.queue.len() > 0 && c.step(c.queue.front(), now) {
		c.pop()
	}
}

// notice tells an idle writer at once that its pipe is dead, which the base
// protocol has no way to say.
func (c *channel) notice() {
	if c.pipe == nil || c.role != writer || c.notified || !c.session.agreed {
		return
	}
	c.pipe.mu.Lock()
	defer c.pipe.mu.Unlock()
	if why, dead := c.pipe.deadFor(writer); dead {
		c.notified = true
		c.reply(msgWriteFailed, why)
	}
}

func (c *channel) tidy() {
	if talks := c.session.channels; !c.opened() && c.queue.len() == 0 && talks[c.number] == c {
		delete(talks, c.number)
	}
}

// step answers the request if it can be answered now.
func (c *channel) step(q *request, now time.Time) bool {
	if q.invalid != "" {
		c.violate(q.invalid)
		return true
	}
	if c.opened() && (q.id == msgRead || q.id == msgWrite) {
		c.show()
		if q.flags&readHere != 0 && c.session.able&ableHere != 0 {
			return true
		}
	}
	switch q.id {
	case msgInput:
		return c.open(q, reader, msgInputOK, msgInputFailed, now)
	case msgOutput:
		return c.open(q, writer, msgOutputOK, msgOutputFailed, now)
	case msgRead:
		return c.read(q, now)
	case msgWrite:
		return c.write(q, now)
	default:
		c.violate(fmt.Sprintf("message %d is not a client's", q.id))
	}
	return true
}

// open is an INPUT or OUTPUT; false: whether the client may do that is not clear yet.
func (c *channel) open(q *request, r role, ok, failed messageID, now time.Time) bool {
	if c.opened() {
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
	case !given:
		return false
	case why != nil:
		c.reply(failed, *why)
	default:
		c.openAllowed(q, name, op, r, ok, failed, now)
	}
	return true
}

func (c *channel) openAllowed(q *request, name, op string, r role, ok, failed messageID, now time.Time) {
	if why := c.session.account.refusal(); why != nil && op != "delete" && op != "status" {
		c.answerOpen(ok, failed, q.mode, c.session.pipes.counted(why))
		return
	}
	switch {
	case !c.session.agreed || r == writer || q.mode == modeStream:
	case q.mode == modeDelete:
		c.answerOpen(ok, failed, q.mode, c.session.pipes.delete(name, now))
		return
	case q.mode == modeQueue:
		c.answerOpen(ok, failed, modeQueue, c.enter(name, r, true, now))
		return
	case q.mode == modeStatus:
		c.answerOpen(ok, failed, q.mode, c.openStatus())
		return
	default:
		c.answerOpen(ok, failed, q.mode, &cause{causeMode, fmt.Sprintf("there is no mode %d", q.mode)})
		return
	}
	p, why := c.session.pipes.propose(name, r, func() { c.session.host.post(c) }, now)
	if why != nil && why.code == causeMode {
		c.answerOpen(ok, failed, modeQueue, c.enter(name, r, false, now))
		return
	}
	if why == nil {
		c.pipe, c.role, c.notified = p, r, false
		if r == writer {
			p.mu.Lock()
			p.bill(&c.session.account)
			p.mu.Unlock()
		}
	}
	c.answerOpen(ok, failed, modeStream, why)
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
	}
	return "queue"
}

// openStatus opens a pipe of the channel's own, with the status in it.
func (c *channel) openStatus() *cause {
	s := c.session
	if s.status != nil && !s.status.reader.left {
		return &cause{causeBusy, "this client reads the status already"}
	}
	s.status = c.openOwn("status", reportPiece)
	s.host.report(s.status)
	return nil
}

// reportPiece is how many bytes of a status may wait to be read before more is added.
const reportPiece = 64 << 10

// openOwn gives a reader a pipe that nobody else knows of.
func (c *channel) openOwn(name string, limit int) *pipe {
	c.pipe = newPipe(name, limit, time.Time{})
	c.role, c.notified = reader, false
	c.pipe.attach(reader, func() { c.session.host.post(c) })
	return c.pipe
}

func (c *channel) answerOpen(ok, failed messageID, mode byte, why *cause) {
	if why != nil {
		c.reply(failed, *why)
		return
	}
	if c.opened() {
		c.session.account.addEnds(1)
		if c.here = false; c.session.able&ableHere == 0 {
			c.show() // nothing else will
		}
	}
	c.session.send(&message{id: ok, block: c.block(), channel: c.number, mode: mode})
}

// show records that the client knows that its end is open.
func (c *channel) show() {
	if c.here {
		return
	}
	if c.here = true; c.pipe != nil {
		c.pipe.mu.Lock()
		c.pipe.show(c.role)
		c.pipe.mu.Unlock()
	}
}

func (c *channel) read(q *request, now time.Time) bool {
	if c.end != nil && c.end.whole {
		if wrong := c.end.read(q); wrong != "" {
			c.violate(wrong)
		} else {
			c.end.serve()
		}
		return true
	}
	if c.pipe == nil || c.role != reader {
		c.reply(msgInvalid, cause{})
		return true
	}
	if q.size == 0 {
		c.reply(msgReadEnd, cause{})
		return true
	}
	if c.end != nil {
		c.end.feed(q)
	}
	for range maxBurst {
		if c.end != nil && q.flags&readStream != 0 && c.end.lentOut() {
			c.end.rest()
			c.reply(msgReadTimeout, cause{})
			return true
		}
		ch, done := c.readSegment(q, now)
		if c.end != nil && (ch != nil || done) {
			c.end.rest()
		}
		if ch == nil {
			return done
		}
		c.session.reply(ch.frame(msgReadOK, c.block(), c.number))
		q.size -= uint32(ch.w - ch.r)
		ch.release()
		if q.flags&readStream == 0 || q.size == 0 {
			return true
		}
	}
	c.session.host.post(c)
	return false
}

// readSegment takes what answers the READ from the pipe. Without a segment, either
// the READ has been answered otherwise (done), or it must wait.
func (c *channel) readSegment(q *request, now time.Time) (ch *segment, done bool) {
	p, most := c.pipe, int64(c.session.pipes.maxMessage)
	p.mu.Lock()
	defer p.mu.Unlock()
	partial := q.flags&(readAny|readStream) != 0
	need := int64(q.size)
	if partial {
		need = 1
	}
	n := min(int64(q.size), most, int64(p.readable()))
	why, dead := p.deadFor(reader)
	switch {
	case len(c.session.backlog) > 0:
		return nil, c.wait(q, now)
	case n >= need || n > 0 && p.writer.left:
		return p.slice(int(n), partial), true
	case dead && (c.notified || why.code == causeClosed):
		c.reply(msgReadEnd, cause{})
	case dead:
		c.notified = true
		c.reply(msgReadFailed, why)
	case n == most:
		c.reply(msgReadFailed, cause{text: fmt.Sprintf("no READ is answered with more than %d bytes", most)})
	case !c.wait(q, now):
		p.await(reader, int(min(need, most)))
		return nil, false
	}
	return nil, true
}

func (c *channel) write(q *request, now time.Time) bool {
	if c.end != nil && c.end.whole {
		if wrong := c.end.push(q); wrong != "" {
			c.violate(wrong)
		}
		return true
	}
	if c.end != nil && c.role == writer {
		return c.end.write(q, now)
	}
	if c.pipe == nil || c.role != writer {
		c.reply(msgInvalid, cause{})
		return true
	}
	p, n := c.pipe, len(q.chunk)
	p.mu.Lock()
	defer p.mu.Unlock()
	why, dead := p.deadFor(writer)
	switch {
	case dead:
		c.notified = true
		c.reply(msgWriteFailed, why)
	case p.accepts(n):
		p.take(q.frame, &q.message)
		c.session.send(&message{
			id: msgWriteOK, block: c.block(), channel: c.number,
			count: uint32(min(p.room(), math.MaxInt32)),
		})
	case !c.wait(q, now):
		p.await(writer, max(n, 1))
		return false
	}
	return true
}

// wait says false where the request has time left, and sees to it that it is
// tried again at its end; else it answers that the time is over, and says true.
// The pipe's mu is held.
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
	if c.pipe != nil {
		c.pipe.expect(c.role, 0)
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
	if !c.opened() && c.queue.len() == 0 { // else there is an open that waits
		c.reply(msgInvalid, cause{})
		return
	}
	why := cause{m.code, string(m.cause)}
	if why.code > causeUndelivered && (why.code != causeNever || c.here) {
		why.code = causeAborted
	}
	c.failWaiting(cause{text: "the pipe was closed"})
	c.unread = m.count
	c.leave(why)
	c.unread = 0
	c.reply(msgCloseOK, cause{})
	c.run(now)
}

// failWaiting answers the request that is being worked on.
func (c *channel) failWaiting(why cause) {
	if c.queue.len() == 0 {
		return
	}
	switch c.queue.front().id {
	case msgInput:
		c.reply(msgInputFailed, why)
	case msgOutput:
		c.reply(msgOutputFailed, why)
	case msgRead:
		c.reply(msgReadFailed, why)
	case msgWrite:
		if c.took() {
			c.reply(msgWriteOK, cause{})
		} else {
			c.reply(msgWriteFailed, why)
		}
	}
	c.pop()
}

// took says that the WRITE that waits was taken by a queue in the meantime. If not, it
// will not be.
func (c *channel) took() bool { return c.end != nil && c.end.resolve() }

// leave gives the pipe back. An end whose open was given up, or that has not shown that
// it knows of it, was never there.
func (c *channel) leave(why cause) {
	if c.opened() {
		c.session.account.addEnds(-1)
	}
	never := !c.here && (why.code == causeNever || why.code == causeVanished)
	if c.end != nil {
		c.end.leave(why, c.unread, never)
		c.end, c.pipe = nil, nil
		c.deadline = time.Time{}
		c.session.host.alarm(c)
	}
	p := c.pipe
	if p == nil {
		return
	}
	c.pipe = nil
	c.deadline = time.Time{}
	c.session.host.alarm(c)
	p.mu.Lock()
	p.mute(c.role)
	if !never {
		p.leave(c.role, why)
	}
	p.mu.Unlock()
	if never {
		c.session.pipes.withdraw(p, c.role, why)
	} else {
		c.session.pipes.release(p)
	}
}

// violate ends the channel as if the client had died.
func (c *channel) violate(what string) {
	c.session.violation(what)
	c.leave(cause{code: causeVanished})
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
