//go:build !core

package zpipes

import (
	"container/list"
	"math"
	"time"
)

// A jobLink is the part of a queueLink that takes jobs. All of it is guarded by the queue's mu.
type jobLink struct {
	takes  list.List     // of *delivery: Takes that wait, in order
	wanted uint32        // how many jobs the broker was asked for in all, and
	given  uint32        // how many have come; the lower 32 bits of both
	acts   fifo[message] // SETTLEs to be sent
	unseen fifo[wireJob] // likewise for jobs that nobody here has got, as soon as there is room in said
	said   fifo[bool]    // those that were sent, and are not answered: whether it is of a job that nobody here has got
	heard  int64         // how many acts there were, and Takes
	rules  queueSettings // that the queue is to have
	tends  tending       // to be sent; 0: nothing is
	tended func(n int)   // is told the answer
	lose   func(id uint64, delivery uint32)
	late   func()       // a SETTLE came too late
	end    func()       // no lease holds any more
	woken  func() int64 // says how many Flushes and Takes have returned since it was asked
}

// demand has a Take wait for its turn. The queue's mu is held, as for all that follow.
func (l *queueLink) demand(d *delivery) *list.Element {
	place := l.takes.PushBack(d)
	l.heard++
	if l.queue.over != nil {
		l.endTakes()
	}
	return place
}

func (l *queueLink) cancel(place *list.Element) { l.takes.Remove(place) }

// act has a SETTLE sent.
func (l *queueLink) act(ref jobRef, do act) {
	l.acts.push(message{
		id: msgSettle, text: []byte(do.reason), mode: byte(do.kind), count: wireDelay(do.delay, l.conn.able),
		job: wireJob{incarnation: ref.incarnation, id: ref.id, delivery: ref.delivery},
	})
	l.heard++
	l.conn.post(l)
}

func (l *queueLink) tend(what tending, tended func(n int)) {
	l.tends, l.tended = what, tended
	l.conn.post(l)
}

// wants is how many jobs there should be in all.
func (l *queueLink) wants() uint32 {
	if l.queue.over != nil {
		return l.wanted
	}
	return l.given + uint32(l.takes.Len())
}

// talks says that there is something to be said of jobs.
func (l *queueLink) talks() bool { return l.acts.len() > 0 || l.tends != 0 || l.wants() != l.wanted }

func (l *queueLink) talk() {
	for l.acts.len() > 0 {
		if l.sayDone() {
			continue
		}
		m := l.acts.pop()
		if actKind(m.mode) != actExtend {
			l.said.push(false)
		}
		l.send(&m)
	}
	for l.unseen.len() > 0 && l.said.len() < maxActs { // else the broker takes them for too many
		l.said.push(true)
		l.send(&message{id: msgSettle, mode: byte(actUnseen), job: l.unseen.pop()})
	}
	if w := l.wants(); w != l.wanted {
		l.wanted = w
		l.send(&message{id: msgTake, count: w})
	}
	if l.tends != 0 {
		l.send(&message{id: msgTend, mode: byte(l.tends)})
		l.tends = 0
	}
}

// sayDone says of several jobs at once that they are done, if that is what is next to be said.
func (l *queueLink) sayDone() bool {
	acts := l.acts.all()
	n := 0
	for n < len(acts) && actKind(acts[n].mode) == actDone && acts[n].job.incarnation == acts[0].job.incarnation {
		n++
	}
	if n < 2 || l.conn.able&ableLots == 0 {
		return false
	}
	incarnation, frame := acts[0].job.incarnation, beginLot(l.conn.scratch, msgDone)
	for range n {
		frame = appendDone(frame, l.acts.pop().job)
		l.said.push(false)
	}
	l.conn.scratch = endLot(frame, l.channel, incarnation)
	l.conn.sendFrame(l.conn.scratch)
	return true
}

// put sends a chunk that has terms.
func (l *queueLink) put(j *job) {
	m := message{id: msgPut, text: []byte(j.terms.key), chunk: j.data}
	if j.terms.due > 0 {
		m.count = max(1, wireDelay(time.Until(time.Unix(0, j.terms.due)), l.conn.able))
	}
	if t := j.handed(); t != nil {
		m.id, m.mode, m.cause = msgHand, byte(t.state), []byte(t.reason)
		m.job.sent, m.job.delivery = t.sent, t.deliveries
	}
	l.send(&m)
}

// rule sends what the queue is to be, and says whether that is anything.
func (l *queueLink) rule() bool {
	set := l.rules
	if (set == queueSettings{}) {
		return false
	}
	m := message{id: msgRules, rules: wireRules{
		lease: wireDelay(set.lease, l.conn.able), maxDeliveries: uint32(min(set.maxDeliveries, math.MaxInt32)), maxBytes: uint64(set.maxBytes),
	}}
	if set.durable {
		m.rules.durable = 1
	}
	l.send(&m)
	return true
}

// endTakes tells the Takes that wait that none will come.
func (l *queueLink) endTakes() {
	for first := l.takes.Front(); first != nil; first = l.takes.Front() {
		l.takes.Remove(first)
		first.Value.(*delivery).take(nil)
	}
}

// expectsJobs is expects for messages about jobs.
func (l *queueLink) expectsJobs(m *message) bool {
	opened := l.conn.able&ableJobs != 0 && (l.state == linkOpen || l.state == linkClosing)
	switch m.id {
	case msgJob, msgLost:
		return opened && (m.mode == 0 || l.said.len() > 0)
	case msgJobs:
		return opened && l.conn.able&ableLots != 0
	case msgSettled:
		return opened && m.count > 0 && int64(m.count) <= int64(l.said.len())
	case msgTended:
		return opened && l.tended != nil
	case msgRulesOK, msgRulesFailed:
		return opened && !l.answered
	}
	return false
}

// handleJobs takes a message about jobs.
func (l *queueLink) handleJobs(m *message) {
	s := l.queue
	switch m.id {
	case msgJob:
		l.arrives(m.job, append(make([]byte, 0, len(m.chunk)), m.chunk...))
	case msgJobs:
		if !m.eachJob(l.arrives) {
			l.conn.fail("the broker broke the protocol: a JOBS that is no sequence of jobs")
		}
	case msgSettled:
		for range m.count {
			l.said.pop()
			s.tell(l.sender)
		}
	case msgLost:
		if m.mode == 1 {
			if unseen := l.said.pop(); !unseen {
				l.late()
			}
			s.tell(l.sender)
		}
		l.lose(m.job.id, m.job.delivery)
	case msgTended:
		l.tended(size(m.count))
		l.tended = nil
	}
}

// arrives has a Take get a job.
func (l *queueLink) arrives(ref wireJob, body []byte) {
	l.given++
	first := l.takes.Front()
	switch {
	case l.state != linkOpen:
	case first == nil: // it was asked for by a Take that has been cancelled
		l.unseen.push(ref)
		l.queue.owe(l.sender)
	default:
		l.takes.Remove(first)
		l.queue.identify(ref.incarnation, 0)
		first.Value.(*delivery).take(&job{data: body, id: ref.id, deliveries: ref.delivery, sent: ref.sent})
	}
}
