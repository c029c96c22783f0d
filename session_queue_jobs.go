package zpipes

import (
	"cmp"
	"container/list"
	"math"
	"slices"
	"time"
)

// A jobDesk is the part of a queueMember that takes jobs, and says what becomes of them. All
// of it is guarded by the queue's mu.
type jobDesk struct {
	member *queueMember
	wanted uint32        // how many jobs the client wants in all, the lower 32 bits
	place  *list.Element // of its demand in the queue; nil: there is none
	jobs   jobList       // taken, and not sent yet
	lost   []wireJob     // leases that have ended, likewise

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
	d.place = nil
	e := d.member
	if j != nil {
		e.queue.take(j, &e.sender)
		sent := *j // it may come back, and go to another one, before it is sent
		d.jobs.push(&sent)
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
		if !d.wants() {
			e.asksNoMore()
		}
		e.serveJobs()
	case msgSettle:
		return e.settle(q)
	case msgPut:
		return e.put(q)
	case msgRules:
		r := q.rules
		set := queueSettings{
			durable: r.durable == 1, lease: time.Duration(r.lease) * time.Millisecond, maxDeliveries: size(r.maxDeliveries),
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
		if q.mode < byte(tendPurgeReady) || q.mode > byte(tendRedrive) {
			return false
		}
		n := s.tend(tending(q.mode))
		c.session.send(&message{id: msgTended, block: c.block(), channel: c.number, count: uint32(min(uint64(n), math.MaxUint32))})
	}
	return true
}

// settle is a SETTLE.
func (e *queueMember) settle(q *request) bool {
	d, s := &e.desk, e.queue
	kind, ref := actKind(q.mode), q.job
	if kind < actDone || kind > actExtend || d.answers.len() >= maxQueued {
		return false
	}
	do := act{kind: kind, delay: time.Duration(q.count) * time.Millisecond, reason: string(q.text)}
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

// put is a PUT: a chunk of which the sender wants more.
func (e *queueMember) put(q *request) bool {
	c, s := e.channel, e.queue
	if s.over != nil {
		e.acknowledge()
		e.notified = true
		c.reply(msgWriteFailed, *s.over)
		return true
	}
	n := max(len(q.chunk), leastChunk)
	if len(q.chunk) > s.largest || e.sender.window > 0 && int64(e.sender.window+n) > c.session.mayWait() {
		return false
	}
	t := terms{key: string(q.text)}
	if q.count > 0 {
		t.due = s.after(time.Duration(q.count) * time.Millisecond)
	}
	s.pushJob(&e.sender, s.newJob(q.own(q.chunk, q.frame), &t))
	e.acknowledge()
	return true
}

// serveJobs asks for the jobs that the client wants, and sends those that are there. The queue's
// mu is held.
func (e *queueMember) serveJobs() {
	d, s := &e.desk, e.queue
	for n := 0; d.place == nil && d.wants() && (s.over == nil || s.available()); n++ {
		if e.channel.heldUp() {
			break
		}
		if n == maxBurst {
			e.channel.recheck()
			break
		}
		d.place = s.ask(d)
		s.settle()
	}
	e.tellJobs()
}

// wants says that the client wants more jobs than it was given.
func (d *jobDesk) wants() bool { return int32(d.wanted-d.member.sender.taken) > 0 }

// asksNoMore withdraws the demand. The queue's mu is held.
func (e *queueMember) asksNoMore() {
	if d := &e.desk; d.place != nil {
		e.queue.cancel(d.place)
		d.place = nil
	}
}

// tellJobs sends what there is to be said. The queue's mu is held.
func (e *queueMember) tellJobs() {
	c, d := e.channel, &e.desk
	m := message{block: c.block(), channel: c.number}
	for d.jobs.len() > 0 {
		j := d.jobs.pop()
		m.id, m.chunk = msgJob, j.data
		m.job = wireJob{e.queue.incarnation, j.id, j.deliveries, j.sent}
		c.session.send(&m)
	}
	m.chunk = nil
	for _, ref := range d.lost {
		m.id, m.mode, m.job = msgLost, 0, ref
		c.session.send(&m)
	}
	d.lost = nil
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

// returnUnseen returns the jobs that the client has not seen: they were not sent, or came when it had
// given up asking. The queue's mu is held.
func (e *queueMember) returnUnseen() {
	d, s := &e.desk, e.queue
	seen := e.sender.taken - uint32(d.jobs.len())
	if int32(seen-d.wanted) > 0 {
		seen = d.wanted
	}
	var unseen []*aside
	for _, a := range e.sender.has {
		if int32(a.turn-seen) > 0 {
			unseen = append(unseen, a)
		}
	}
	d.jobs = jobList{}
	slices.SortFunc(unseen, func(a, b *aside) int { return cmp.Compare(int32(b.turn-a.turn), 0) })
	for _, a := range unseen { // each goes before all others
		s.act(&e.sender, a.id, a.deliveries, act{kind: actUnseen})
	}
}
