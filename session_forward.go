package zpipes

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A forwarded is the end of what is at another broker of the cluster: the channel's messages go
// there as they are, and so come the answers. It holds nothing and resends nothing: what is
// confirmed, or comes back, is between the client and that broker.
type forwarded struct {
	channelEnd
	tunnel *tunnel
	number uint32          // of its channel there
	opens  request         // its open
	to     memberID        // where that is
	opened bool            // the client has been told that it is
	closed bool            // a CLOSE has been passed on
	gone   bool            // the channel has it no more
	waits  bool            // it is in the tunnel's waiting
	rules  bool            // its RULES are not answered
	asked  fifo[messageID] // what a client of the base protocol waits for answers to
	why    *cause          // the tunnel is no more, and the client knows
}

// A tunnel takes what a session forwards to another broker. It is the session's alone: nobody else
// waits for a client that does not take its answers, or for a broker that takes nothing; and with
// its end that broker sees the client's.
type tunnel struct {
	session *session
	to      memberID
	ends    map[uint32]*forwarded // by the numbers of their channels there
	last    uint32                // number given out
	waiting fifo[*forwarded]      // for room
	mail    letter[resumer]       // guarded by the host's mailbox
	text    *farText              // it is for commands by text; nil: for channels

	mu      sync.Mutex // guards what follows; only leaves are taken under it
	users   int        // how many ends there are
	out, in frames     // on their way there, and back
	wake    func()     // tells the way that there is something in out, or room in in; nil: it is not there yet
	most    int        // bytes that a chunk may have there; 0: not known yet
	able    uint32     // what both are able to do, then
	closed  bool       // by the session
	over    *cause     // the way is no more
}

// frames wait for somebody.
type frames struct {
	fifo[[]byte]
	bytes int
	short bool // somebody waits for them to be fewer
}

func (f *frames) put(frame []byte) {
	f.push(frame)
	f.bytes += len(frame)
}

// take says also whether there is room again for who waits for that.
func (f *frames) take() (frame []byte, room bool) {
	frame = f.pop()
	f.bytes -= len(frame)
	room = f.short && f.bytes <= maxInTunnel/2
	f.short = f.short && !room
	return frame, room
}

func (f *frames) full() bool {
	f.short = f.bytes >= maxInTunnel
	return f.short
}

// maxInTunnel is how many bytes wait in either direction before who sends does.
const maxInTunnel = 256 << 10

// A tunneler is a host whose broker may belong to a cluster.
type tunneler interface {
	// dig makes the way of a tunnel to a member, soon: it calls begin, or end.
	dig(t *tunnel, to memberID)
}

// forward has another broker answer the open that q is, and all that follows on the channel. If that
// broker does not have it any more (causeElsewhere), q begins anew.
func (c *channel) forward(q *request, to memberID) {
	s := c.session
	t := s.tunnels[to]
	if t == nil || !t.join() {
		t = &tunnel{session: s, to: to, ends: make(map[uint32]*forwarded), users: 1}
		if s.tunnels == nil {
			s.tunnels = make(map[memberID]*tunnel)
		}
		s.tunnels[to] = t
		s.host.(tunneler).dig(t, to)
	}
	t.last++
	e := &forwarded{channelEnd: channelEnd{c}, tunnel: t, number: t.last, opens: *q, to: to}
	e.opens.frame = bytes.Clone(q.frame)
	e.opens.message, _ = parse(e.opens.frame)
	t.ends[e.number] = e
	c.open = e
	s.pipes.exchange.uses(string(q.text), to, 1, s.heard)
	e.send(&q.message)
}

// forwards is the channel's end, if that is elsewhere.
func (c *channel) forwards() *forwarded {
	e, _ := c.open.(*forwarded)
	return e
}

// pass passes a request on; false: not now.
func (e *forwarded) pass(q *request) bool {
	c, t := e.channel, e.tunnel
	switch q.id {
	case msgRead, msgWrite, msgTake, msgSettle, msgDone, msgPut, msgRules, msgTend, msgClose:
	default:
		c.violate(fmt.Sprintf("message %d on a channel that has something open", q.id))
		return true
	}
	if e.why != nil {
		e.refuse(&q.message)
		return true
	}
	t.mu.Lock()
	most, able, full := t.most, t.able, t.out.full()
	t.mu.Unlock()
	if full {
		if !e.waits {
			e.waits = true
			t.waiting.push(e)
		}
		return false
	}
	if n := len(q.chunk); most > 0 && n > max(most+recordHead, maxRecords) {
		c.reply(msgWriteFailed, *tooLarge(q.chunk, most))
		return true
	}
	e.closed = e.closed || q.id == msgClose
	e.rules = e.rules || q.id == msgRules
	if q.id == msgDone && able&ableLots == 0 {
		e.sendOneByOne(q.dones())
		return true
	}
	m := q.message
	m.retell(c.session.able, able)
	e.send(&m)
	return true
}

// sendOneByOne says of jobs that they are done, to a broker that does not know DONE.
func (e *forwarded) sendOneByOne(done []wireJob) {
	if e.channel.session.able&ableLots == 0 || len(done) == 0 || len(done) > maxQueued {
		e.channel.violate("a DONE that was not agreed on, or is of no job or of too many")
		return
	}
	for _, ref := range done {
		e.send(&message{id: msgSettle, mode: byte(actDone), job: ref})
	}
}

// send sends a message of the client's.
func (e *forwarded) send(m *message) {
	if !e.channel.session.agreed {
		e.asked.push(m.id)
	}
	passed := *m
	passed.block, passed.channel = hasBlock, e.number
	e.tunnel.send(&passed)
}

func (t *tunnel) send(m *message) {
	frame := m.append(nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over == nil && !t.closed {
		t.out.put(frame)
		t.ring()
	}
}

// ring tells the way. mu is held.
func (t *tunnel) ring() {
	if t.wake != nil {
		t.wake()
	}
}

// join counts an end more, if the way is not over.
func (t *tunnel) join() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil || t.closed {
		return false
	}
	t.users++
	return true
}

// forget is for an end of which nothing is heard any more.
func (t *tunnel) forget(e *forwarded) {
	if t.ends[e.number] != e {
		return
	}
	delete(t.ends, e.number)
	t.leaves()
}

// leaves is for a user less.
func (t *tunnel) leaves() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
}

// close ends the tunnel: to the other broker, the client is gone.
func (t *tunnel) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.ring()
}

func (t *tunnel) post() { t.session.host.post(t) }

// What the way calls follows; from any goroutine.

// begin says that the way is there, how large chunks may be, and what the other broker is able to do.
func (t *tunnel) begin(most int, able uint32, wake func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text != nil && able&ableText == 0 && t.over == nil {
		t.over = &cause{causeMode, "the queue is at another broker of the cluster, of an earlier version, which takes commands by text of its own clients alone"}
		t.closed = true
		t.post()
		return
	}
	t.most, t.able, t.wake = most, able, wake
	t.ring()
}

// next is what is to be sent, or nil; closed: nothing is, ever again.
func (t *tunnel) next() (frame []byte, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.out.len() == 0 {
		return nil, t.closed
	}
	frame, room := t.out.take()
	if room {
		t.post()
	}
	return frame, false
}

// arrived takes a frame that has come, which is the tunnel's from now on.
func (t *tunnel) arrived(frame []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in.put(frame); t.in.len() == 1 {
		t.post()
	}
}

// sated says that much of what has come has not been taken; the way is told when it has.
func (t *tunnel) sated() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.in.full()
}

// busy says that the way is in use.
func (t *tunnel) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.users > 0
}

// rest ends a way that nobody uses; who comes next has another one. False: somebody uses it.
func (t *tunnel) rest() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users > 0 {
		return false
	}
	if t.over == nil {
		t.over = &cause{causeBrokerGone, "the way was not used"}
		t.post()
	}
	return true
}

// end says that the way is no more, and why.
func (t *tunnel) end(why cause) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over == nil {
		t.over = &why
		t.post()
	}
}

// What is the session's again follows.

func (t *tunnel) letter() *letter[resumer] { return &t.mail }

// resume gives the client what has come, and has those go on who have waited for room.
func (t *tunnel) resume(time.Time) {
	for range maxBurst {
		t.mu.Lock()
		if t.in.len() == 0 || t.closed {
			t.mu.Unlock()
			t.goOn()
			return
		}
		m, _ := parse(*t.in.front())
		t.mu.Unlock()
		e := t.ends[m.channel]
		if e != nil && !e.gone && e.channel.heldUp() {
			return // until notice, or leave
		}
		t.mu.Lock()
		if _, room := t.in.take(); room {
			t.ring()
		}
		t.mu.Unlock()
		switch {
		case t.text != nil:
			t.text.answered(&m)
		case e != nil:
			e.answered(&m)
		}
	}
	t.post()
}

// goOn has those go on who have waited for room, or tells all that the way is no more.
func (t *tunnel) goOn() {
	t.mu.Lock()
	over, full := t.over, t.out.full()
	t.mu.Unlock()
	for !full && t.waiting.len() > 0 {
		e := t.waiting.pop()
		e.waits = false
		e.recheck()
	}
	if over == nil {
		return
	}
	if t.text != nil {
		t.text.lost(*over)
		return
	}
	if s := t.session; s.tunnels[t.to] == t {
		delete(s.tunnels, t.to)
	}
	n := 0
	for _, e := range t.ends {
		if n++; n > dropStep {
			t.post()
			return
		}
		e.lost(*over)
	}
}

// recheck has the end's channel go on.
func (e *forwarded) recheck() { e.channel.recheck() }

// notice is called also when the client takes its answers again.
func (e *forwarded) notice() { e.tunnel.resume(time.Time{}) }

// leastTaken is how large a message any client takes that knows queues.
const leastTaken = 16 << 20

// answered passes an answer on.
func (e *forwarded) answered(m *message) {
	c, s := e.channel, e.channel.session
	ends := false
	switch m.id {
	case msgInputOK, msgOutputOK:
		e.opened = true
		ends = m.mode == modeDelete // nothing is open
	case msgInputFailed, msgOutputFailed, msgInvalid:
		ends = true
	case msgCloseOK, msgCloseFailed:
		ends = e.closed
	case msgRulesOK, msgRulesFailed:
		e.rules = false
	case msgWriteOK:
		c.told = max(c.told, m.count) // what an earlier one has allowed may be on its way
	}
	if ends {
		e.tunnel.forget(e)
	}
	if e.gone {
		return
	}
	if ends && m.code == causeElsewhere && !e.opened {
		if e.closing() {
			e.refused(cause{text: "the pipe was closed"})
		} else {
			e.again()
		}
		return
	}
	most := max(s.pipes.maxMessage, maxRecords)
	if e.whole() { // else the client has said how much it takes
		most = min(most, max(s.pipes.largest(), leastTaken))
	}
	if n := len(m.chunk); n > most {
		e.send(&message{id: msgClose, code: causeAborted})
		e.lost(cause{causeBrokerGone, fmt.Sprintf("a chunk of %d bytes came from another broker of the cluster, and it takes %d here (BrokerConfig.MaxPending, MaxMessage)", n, most)})
		return
	}
	if s.agreed || e.asked.len() > 0 && answersTo(*e.asked.front(), m.id) {
		if !s.agreed {
			e.asked.pop()
		}
		m.block, m.channel = c.block(), c.number
		s.send(m)
	}
	if ends {
		if e.closed && !answersTo(msgClose, m.id) {
			c.reply(msgCloseOK, cause{})
		}
		e.quit()
	}
}

// answersTo says that the one message is an answer to the other.
func answersTo(asked, m messageID) bool {
	switch asked {
	case msgInput:
		return m == msgInputOK || m == msgInputFailed || m == msgInvalid
	case msgOutput:
		return m == msgOutputOK || m == msgOutputFailed || m == msgInvalid
	case msgRead:
		return m >= msgReadOK && m <= msgReadFailed || m == msgInvalid
	case msgWrite:
		return m >= msgWriteOK && m <= msgWriteFailed || m == msgInvalid
	}
	return m == msgCloseOK || m == msgCloseFailed || m == msgInvalid
}

// again has the channel begin the open anew, before all that waits there.
func (e *forwarded) again() {
	c, q := e.channel, e.opens
	q.inquiry.again()
	e.quit()
	c.session.account.add(1, len(q.frame))
	c.queue.unshift([]request{q})
	c.queue.bytes += int64(len(q.frame))
}

// closing says that the client has closed it: the CLOSE is passed on, or waits.
func (e *forwarded) closing() bool {
	return e.closed || slices.ContainsFunc(e.channel.queue.all(), func(q request) bool { return q.id == msgClose })
}

// refused tells the client that the open has failed. A CLOSE behind that is answered here, since it
// is passed on no more, or nobody hears the answer.
func (e *forwarded) refused(why cause) {
	failed := msgInputFailed
	if e.opens.id == msgOutput {
		failed = msgOutputFailed
	}
	e.channel.reply(failed, why)
	if e.closed {
		e.channel.reply(msgCloseOK, cause{})
	}
	e.quit()
}

// quit takes the end off its channel, of which the client has been told.
func (e *forwarded) quit() {
	e.gone = true
	e.channel.leave(cause{}, 0)
	e.recheck()
}

// lost tells the client that the end is over.
func (e *forwarded) lost(why cause) {
	c, s := e.channel, e.channel.session
	e.tunnel.forget(e)
	if e.gone {
		return
	}
	e.why = &why
	e.tunnel.mu.Lock()
	done := e.opens.mode == modeDelete && e.tunnel.most > 0 // perhaps, and then there is no such queue any more
	e.tunnel.mu.Unlock()
	switch {
	case !e.opened && e.opens.inquiry != nil && !e.closing() && !done: // it may have another home by now
		e.why = nil
		e.again()
		return
	case !e.opened:
		e.refused(why)
		return
	case !s.agreed:
		for e.asked.len() > 0 && !e.gone {
			e.refuse(&message{id: e.asked.pop()})
		}
		e.recheck() // more may have waited for room
		return
	case e.closed:
		e.refuse(&message{id: msgClose})
		return
	}
	if e.rules {
		c.reply(msgRulesFailed, why)
	}
	if e.opens.id == msgOutput || e.whole() {
		c.reply(msgWriteFailed, why)
	}
	if e.opens.id == msgInput {
		c.reply(msgReadFailed, why)
	}
	e.recheck()
}

// whole says that it has whole chunks, in both directions.
func (e *forwarded) whole() bool { return e.opens.mode == modeQueue || e.opens.mode == modeKnown }

// refuse answers what is asked of an end that is over.
func (e *forwarded) refuse(m *message) {
	c := e.channel
	switch m.id {
	case msgRead:
		if !e.whole() && m.flags&readHere == 0 {
			c.reply(msgReadFailed, *e.why)
		}
	case msgWrite, msgPut, msgTend:
		c.reply(msgWriteFailed, *e.why)
	case msgRules:
		c.reply(msgRulesFailed, *e.why)
	case msgSettle:
		lost := message{id: msgLost, job: m.job, block: c.block(), channel: c.number}
		if actKind(m.mode) != actExtend {
			lost.mode = 1
		}
		c.session.send(&lost)
	case msgDone:
		for _, ref := range m.dones() {
			c.session.send(&message{id: msgLost, mode: 1, job: ref, block: c.block(), channel: c.number})
		}
	case msgClose:
		c.reply(msgCloseOK, cause{})
		e.quit()
	}
}

func (e *forwarded) read(q *request, _ time.Time) bool { return e.pass(q) }

func (e *forwarded) write(q *request, _ time.Time) bool { return e.pass(q) }

// leave has the other broker close it. Where the client is gone, the end of the tunnel says so.
func (e *forwarded) leave(why cause, unread uint32, _ bool) {
	told := e.gone || e.closed || e.why != nil
	e.channel.session.pipes.exchange.uses(string(e.opens.text), e.to, -1, time.Time{})
	e.gone = true
	e.tunnel.post() // it may have held the others up
	if told {
		return
	}
	if why.code == causeVanished {
		why.code = causeAborted
	}
	e.closed = true
	e.send(&message{id: msgClose, code: why.code, cause: []byte(why.text), count: unread})
}
