package zpipes

import (
	"container/list"
	"math"
	"slices"
	"time"
)

// A jobDesk is the part of a queueMember that takes jobs, and says what becomes of them. All
// of it is guarded by the queue's mu.
type jobDesk struct {
	member *queueMember
	wanted uint32          // how many jobs the client wants in all, the lower 32 bits
	places []*list.Element // of its demands in the queue
	jobs   jobList         // taken, and not sent yet
	size   int             // bytes of these
	lost   []wireJob       // leases that have ended, likewise

	tending int           // TENDs that are under way
	tended  []uint32      // answers to those that are not
	answers fifo[settled] // to SETTLEs, in order
	acts    int64         // of the sender's: those that SETTLEDs have counted
}

// settled is the answer to a SETTLE.
type settled struct {
	late bool // it is not the client's, or not any more
	wireJob
}

// take is called by the queue, from any goroutine.
func (d *jobDesk) take(j *job) {
	d.places = slices.Delete(d.places, 0, 1)
	e := d.member
	if j != nil {
		sent := *j // it may come back, and go to another one, before it is sent
		e.queue.take(j, &e.sender)
		d.jobs.push(&sent)
		if d.size += len(sent.data); d.size >= muchDelivered {
			e.asksAtMost(0) // until these are sent
		}
	}
	e.channel.recheck()
}

// release is told by the queue that a lease has ended.
func (d *jobDesk) release(id uint64, delivery uint32) {
	d.lost = append(d.lost, wireJob{incarnation: d.member.queue.incarnation, id: id, delivery: delivery})
	d.member.channel.recheck()
}

// handleJobs is a message about jobs; what it says false to is a violation.
func (e *queueMember) handleJobs(q *request) bool {
	c, s, d := e.channel, e.queue, &e.desk
	if c.session.able&ableJobs == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch q.id {
	case msgTake:
		s.receives(&e.sender, true)
		d.wanted = q.count
		e.asksAtMost(d.wants())
		e.serveJobs()
	case msgSettle:
		return e.settle(q)
	case msgDone:
		return c.session.able&ableLots != 0 && e.done(q.dones())
	case msgPut:
		return e.put(q)
	case msgHand:
		nothing := jobState(q.mode) == keyAlone && len(q.text) == 0
		return c.session.member != 0 && jobState(q.mode) <= keyAlone && !nothing && e.put(q)
	case msgRules:
		r := q.rules
		set := queueSettings{
			durable: r.durable == 1, lease: delayOf(r.lease, c.session.able), maxDeliveries: size(r.maxDeliveries),
			maxBytes: int(min(r.maxBytes, math.MaxInt)),
		}
		if !set.durable && s.log == nil {
			set.maxBytes = min(set.maxBytes, c.session.pipes.maxPending) // more would be nobody's account
		}
		if why := c.session.pipes.shape(s, set); why != nil {
			c.reply(msgRulesFailed, *why)
		} else {
			c.reply(msgRulesOK, cause{})
		}
	case msgTend:
		if q.mode < byte(tendPurgeReady) || q.mode > byte(tendRedrive) || d.tending >= maxQueued {
			return false
		}
		d.tending++
		s.tend(tending(q.mode), d.tells)
		e.tellJobs()
	}
	return true
}

// tells is told by the queue how many jobs a TEND has concerned; -1: the queue is over, which is the answer.
func (d *jobDesk) tells(n int) {
	d.tending--
	if n >= 0 {
		d.tended = append(d.tended, uint32(min(uint64(n), math.MaxUint32)))
	}
	d.member.channel.recheck()
}

// settle is a SETTLE.
func (e *queueMember) settle(q *request) bool {
	d, s := &e.desk, e.queue
	kind, ref := actKind(q.mode), q.job
	if kind < actDone || kind > actExtend || d.answers.len() >= maxQueued {
		return false
	}
	do := act{kind: kind, delay: delayOf(q.count, e.channel.session.able), reason: string(q.text)}
	ok := ref.incarnation == s.incarnation && s.act(&e.sender, ref.id, ref.delivery, do)
	switch {
	case kind == actExtend && !ok:
		d.lost = append(d.lost, ref)
	case ok && kind != actExtend:
		d.answers.push(settled{})
	case !ok:
		d.answers.push(settled{true, ref})
	}
	e.tellJobs()
	return true
}

// done is a DONE: as many SETTLEs.
func (e *queueMember) done(refs []wireJob) bool {
	d, s := &e.desk, e.queue
	if len(refs) == 0 || d.answers.len()+len(refs) > maxQueued {
		return false
	}
	for _, ref := range refs {
		if ref.incarnation == s.incarnation && s.act(&e.sender, ref.id, ref.delivery, act{kind: actDone}) {
			d.answers.push(settled{})
		} else {
			d.answers.push(settled{true, ref})
		}
	}
	e.tellJobs()
	return true
}

// put is a PUT: a chunk of which the sender wants more; or a HAND.
func (e *queueMember) put(q *request) bool {
	c, s := e.channel, e.queue
	if over := s.ended(&e.sender); over != nil {
		e.acknowledge()
		e.notified = true
		c.reply(msgWriteFailed, *over)
		return true
	}
	n := max(len(q.chunk), leastChunk)
	if len(q.chunk) > s.largest || e.sender.window > 0 && int64(e.sender.window+n) > c.session.mayWait() {
		return false
	}
	t := terms{key: string(q.text)}
	if q.count > 0 {
		t.due = s.after(delayOf(q.count, c.session.able))
	}
	if q.id == msgHand {
		t.handed = &handedTerms{sent: q.job.sent, deliveries: q.job.delivery, state: jobState(q.mode), reason: string(q.cause)}
	}
	s.pushJob(&e.sender, s.newJob(q.own(q.chunk, q.frame), &t))
	e.acknowledge()
	return true
}

// maxLot is how many jobs a client is given before others have their turn. Its workers share the syncs of what they have got
// together.
const maxLot = 256

// serveJobs asks for the jobs that the client wants, and sends those that are there. The queue's
// mu is held.
func (e *queueMember) serveJobs() {
	d, s := &e.desk, e.queue
	for n := 0; d.asksMore() && (s.ended(&e.sender) == nil || s.available()); n++ {
		if d.size >= maxRecords {
			e.tellJobs()
		}
		if e.channel.heldUp() {
			break
		}
		if n == maxLot {
			e.channel.recheck()
			break
		}
		d.places = append(d.places, s.askJob(d))
		s.settle()
	}
	e.tellJobs()
}

// wants is how many jobs more the client wants than it was given.
func (d *jobDesk) wants() int { return max(0, int(int32(d.wanted-d.member.sender.taken))) }

// asksMore says that there should be another demand: of those that are served at once one is enough.
func (d *jobDesk) asksMore() bool {
	n := len(d.places)
	return n < d.wants() && (n == 0 || n < maxLot && d.member.queue.counts())
}

// asksAtMost withdraws the demands beyond so many. The queue's mu is held.
func (e *queueMember) asksAtMost(n int) {
	for d := &e.desk; len(d.places) > n; {
		last := len(d.places) - 1
		e.queue.cancel(d.places[last])
		d.places = d.places[:last]
	}
}

// tellJobs sends what there is to be said; jobs as far as the client takes them, and of lost ones only when it has got
// those. The queue's mu is held.
func (e *queueMember) tellJobs() {
	c, d := e.channel, &e.desk
	m := message{block: c.block(), channel: c.number}
	for d.jobs.len() > 0 && !c.heldUp() {
		e.sendJobs()
	}
	if d.jobs.len() == 0 {
		for _, ref := range d.lost {
			m.id, m.mode, m.job = msgLost, 0, ref
			c.session.send(&m)
		}
		d.lost = nil
	}
	for _, n := range d.tended {
		c.session.send(&message{id: msgTended, block: c.block(), channel: c.number, count: n})
	}
	d.tended = nil
	count := func(n uint32) {
		if n > 0 {
			c.session.send(&message{id: msgSettled, block: c.block(), channel: c.number, count: n})
		}
	}
	n := uint32(0)
	for d.answers.len() > 0 {
		switch a := *d.answers.front(); {
		case a.late:
			count(n)
			n = 0
			m.id, m.mode, m.job = msgLost, 1, a.wireJob
			c.session.send(&m)
		case d.acts < e.sender.acts:
			d.acts++
			n++
		default:
			count(n)
			return
		}
		d.answers.pop()
	}
	count(n)
}

// sendJobs sends the next jobs, as many as make a message.
func (e *queueMember) sendJobs() {
	c, jobs, incarnation := e.channel, &e.desk.jobs, e.queue.incarnation
	pop := func() *job {
		j := jobs.pop()
		e.desk.size -= len(j.data)
		return j
	}
	j := pop()
	if c.session.able&ableLots == 0 || jobs.len() == 0 || !fitsLot(chunkOffset+recordHead+jobHead+len(j.data), jobs.front()) {
		c.session.send(&message{
			id: msgJob, block: c.block(), channel: c.number, chunk: j.data,
			job: wireJob{incarnation, j.id, j.deliveries, j.sent},
		})
		return
	}
	frame := appendJob(beginLot(c.session.scratch, msgJobs), j)
	for jobs.len() > 0 && fitsLot(len(frame), jobs.front()) {
		frame = appendJob(frame, pop())
	}
	c.session.scratch = endLot(frame, c.number, incarnation)
	c.session.reply(c.session.scratch)
}

// returnUnseen returns the jobs that the client has not seen: they were not sent, or came when it had
// given up asking. The queue's mu is held.
func (e *queueMember) returnUnseen() {
	d, s := &e.desk, e.queue
	seen := e.sender.taken - uint32(d.jobs.len())
	if int32(seen-d.wanted) > 0 {
		seen = d.wanted
	}
	d.jobs, d.size = jobList{}, 0
	for a := e.sender.has.last; a != nil && int32(a.turn-seen) > 0; a = e.sender.has.last { // each goes before all others
		if !s.act(&e.sender, a.id, a.deliveries, act{kind: actUnseen}) {
			break // all are lost
		}
	}
}

// Delays of jobs travel as milliseconds; with the ability, numbers from here on are seconds.
const delaySeconds = 1 << 31

// wireDelay is how a delay is told: no shorter than it is, but for the longest that can be told.
func wireDelay(d time.Duration, able uint32) uint32 {
	units := func(unit time.Duration) int64 {
		n := int64(max(0, d) / unit)
		if d > 0 && d%unit != 0 {
			n++
		}
		return n
	}
	ms := units(time.Millisecond)
	if able&ableDelays == 0 || ms < delaySeconds {
		return uint32(min(ms, math.MaxUint32))
	}
	return uint32(delaySeconds + min(units(time.Second), delaySeconds-1))
}

// retell has the delays in a message be told as one with those abilities understands them.
func (m *message) retell(told, able uint32) {
	switch m.id {
	case msgPut, msgSettle:
		m.count = wireDelay(delayOf(m.count, told), able)
	case msgRules:
		m.rules.lease = wireDelay(delayOf(m.rules.lease, told), able)
	}
}

// delayOf is the delay that was told so.
func delayOf(count, able uint32) time.Duration {
	if able&ableDelays != 0 && count >= delaySeconds {
		return time.Duration(count-delaySeconds) * time.Second
	}
	return time.Duration(count) * time.Millisecond
}
