package zpipes

import (
	"math"
	"time"
)

// A jobOp is what has happened to a job, for a log that keeps the queue.
type jobOp struct {
	kind       jobOpKind
	id         uint64 // of the job; those of puts ascend
	sent, due  int64  // Unix time in nanoseconds; no due: at once
	deliveries uint32
	text       string // of a put the key, of a death the reason
	data       []byte
	lazy       bool // of a delivery: nobody waits until it is written
}

type jobOpKind uint8

const (
	opPut      jobOpKind = iota + 1 // a job has come: sent, due, text, data
	opTaken                         // somebody has it: deliveries
	opReturned                      // it waits again: deliveries, due
	opDead                          // it waits no more, and stays: deliveries, text
	opDone                          // it is gone; with a text, so is its key
	opConfig                        // the queue has other rules
	opGone                          // a job that was elsewhere is gone, and had this key: sent, text
)

// A clock tells the time to a queue; stamp does so cheaply, and may be some milliseconds late.
type clock struct {
	now   func() time.Time
	stamp func() int64 // in Unix nanoseconds
}

// time is now, if somebody tells it.
func (s *chunkQueue) time() time.Time {
	if s.clock == nil {
		return s.created
	}
	return s.clock.now()
}

// after is the time when so long has passed from now.
func (s *chunkQueue) after(d time.Duration) int64 { return nanosAfter(s.time(), d) }

// nanosAfter is that time in Unix nanoseconds, or the last that these can tell.
func nanosAfter(t time.Time, d time.Duration) int64 {
	now := t.UnixNano()
	return now + min(int64(d), math.MaxInt64-max(0, now))
}

// timeUntil is how long it is from a time until another one, in Unix nanoseconds, or the longest that can be told.
func timeUntil(now time.Time, at int64) time.Duration {
	return time.Unix(0, at).Sub(now)
}

func (s *chunkQueue) stamp() int64 {
	if s.clock == nil {
		return s.created.UnixNano()
	}
	return s.clock.stamp()
}

// A putting is a put that is not committed yet. What is sent again under a key that is known
// is none itself, and waits for those before it.
type putting struct {
	*job
	from  *senderQueue
	again bool
}

// put takes a chunk from a sender's window. It is in the queue once it is committed, which
// without a log it is at once.
func (s *chunkQueue) put(l *senderQueue, j *job) {
	p := putting{job: j, from: l}
	handed := j.handed()
	if p.again = s.known(j); !p.again && handed != nil && handed.state == keyAlone {
		p.again = true
		s.rememberGone(l, p.key(), handed.sent)
	}
	if !p.again {
		s.lastID++
		p.id, p.sent = s.lastID, s.stamp()
		if handed != nil {
			s.moved = true
			p.sent, p.deliveries = handed.sent, handed.deliveries
		}
		s.hold(p.job)
		s.passed(int64(len(j.data)), 0)
		s.remember(p.job)
	}
	if s.log == nil || p.again && s.putting.len() == 0 {
		s.arrived(&p)
		return
	}
	l.unkept++
	if s.putting.push(p); !p.again {
		s.disk.unsure += p.size()
		s.pay()
		s.log.append(jobOp{kind: opPut, id: p.id, sent: p.sent, due: p.due(), text: p.key(), data: p.data})
	}
}

// arrived has a job that is committed wait for who wants it, and tells its sender.
func (s *chunkQueue) arrived(p *putting) {
	n := p.length()
	switch {
	case p.again, s.receiveHanded(p):
	case p.due() > 0 && p.due() > s.time().UnixNano():
		s.part(p.job)
		s.setAside(&aside{job: p.job, state: jobDelayed, at: p.due()})
	case !s.crowded():
		s.stay(p.size())
		s.lineUp(p.from, p.job)
	case p.due() > 0: // the log does not find it as it finds the others
		s.part(p.job)
		s.soon(p.job)
	default:
		s.spill(p.id, p.sent)
	}
	if l := p.from; l.handing > 0 {
		l.arrived.push(n)
	} else if !l.left {
		s.confirm(l, n)
	}
}

// A noted is what follows when an operation is committed.
type noted struct {
	by      *senderQueue // is told; nil: nobody is
	counted *job         // is handed out
	then    func()       // is called, likewise
}

// note tells the log what has happened, and l, if it is not nil, when that is committed.
func (s *chunkQueue) note(o jobOp, l *senderQueue) {
	if s.log == nil {
		s.tell(l)
		return
	}
	s.noteThen(o, noted{by: l})
}

func (s *chunkQueue) noteThen(o jobOp, then noted) {
	s.noting.push(then)
	s.notes++
	s.log.append(o)
}

// committedNotes is how many of those operations are committed.
func (s *chunkQueue) committedNotes() int64 { return s.notes - int64(s.noting.len()) }

// committing says that of what the sender has pushed something is being committed: it can't be
// withdrawn.
func (s *chunkQueue) committing(l *senderQueue) bool { return l.unkept > 0 }

// tell tells a worker that one thing more that it did with a job is committed.
func (s *chunkQueue) tell(l *senderQueue) { s.tellAll(l, 1) }

func (s *chunkQueue) tellAll(l *senderQueue, n int64) {
	if l != nil && !l.left && n > 0 {
		l.acts += n
		l.wake()
	}
}

// owe is for an act of a worker's that nobody waits for.
func (s *chunkQueue) owe(l *senderQueue) { l.acts-- }

// committed says that so many more puts, and other operations, survive, both in the order in
// which they were appended.
func (s *chunkQueue) committed(puts, others int) {
	if s.void {
		return // nobody waits any more
	}
	for s.putting.len() > 0 && (puts > 0 || s.putting.front().again) {
		p := s.putting.pop()
		p.from.unkept--
		if !p.again {
			s.disk.unsure -= p.size()
			s.pay()
			puts--
		}
		s.arrived(&p)
	}
	by, acts := (*senderQueue)(nil), int64(0)
	for range others {
		n := s.noting.pop()
		if n.by != nil {
			if n.by != by {
				s.tellAll(by, acts)
				by, acts = n.by, 0
			}
			acts++
		}
		if n.counted != nil {
			s.counting--
			s.writing -= n.counted.size()
			s.counted.push(n.counted)
		}
		if n.then != nil {
			n.then()
		}
	}
	s.tellAll(by, acts)
	s.settle()
}

// uncommitted is how many operations are not committed.
func (s *chunkQueue) uncommitted() int { return s.putting.len() + s.noting.len() }

// popUncommitted takes one of them out, and says who waits for it; nil: nobody.
func (s *chunkQueue) popUncommitted() *senderQueue {
	if s.putting.len() == 0 {
		return s.noting.pop().by
	}
	l := s.putting.pop().from
	l.unkept--
	return l
}

// keepBy has a log keep the queue from now on, in which nothing is yet.
func (s *chunkQueue) keepBy(l jobLog) { s.log = l }

// restore puts a job in that a log has kept, in the order of the ids; its body may be away. One
// that was taken is its worker's until the time at: whoever that was can still say what becomes
// of it.
func (s *chunkQueue) restore(j *job, state jobState, at int64, reason string) {
	s.lastID = j.id
	s.hold(j)
	s.passed(int64(j.length()), 0)
	if state == jobReady {
		s.soon(j)
		return
	}
	if state == jobTaken {
		at = s.leaseOf(time.Duration(at - s.time().UnixNano()))
	}
	s.setAside(&aside{job: j, state: state, at: at, reason: reason})
}

// restoreResting is restore for a job that next knows, of which no more is in memory.
func (s *chunkQueue) restoreResting(id uint64, length int) {
	s.lastID = id
	s.hold(&job{away: length})
	s.passed(int64(length), 0)
	s.spill(id, 0)
}

// restoreSince says when the first of the jobs was sent that wait in turn.
func (s *chunkQueue) restoreSince(sent int64) { s.disk.since = sent }

// identify says what the queue is called in all ids of its jobs; those that it gives out are above last.
func (s *chunkQueue) identify(incarnation, last uint64) {
	s.incarnation, s.lastID = incarnation, max(s.lastID, last)
}

// tellTime has the queue ask for the time, and for tick at a time.
func (s *chunkQueue) tellTime(c *clock, rouse func(at time.Time)) { s.clock, s.rouse = c, rouse }

// A onceBook knows the keys of jobs that were sent of late, so that one which is sent again
// is not there twice. It is bounded in time, in number, and by what the payer may hold.
type onceBook struct {
	ids   map[string]onceKey // the last of each
	order fifo[onceKey]
	held  int // what the payer is charged for them
}

type onceKey struct {
	key  string
	id   uint64
	sent int64
	gone bool // in ids: the job is known to have gone; others may have, too
}

const (
	onceFor  = 10 * time.Minute // after it was sent
	onceMost = 1 << 16
	// onceBeside is what a key counts for beside its bytes.
	onceBeside = 64
)

// known says that the job's key is that of a job that was sent of late. Of one that was in another home, it counts when
// that was. Keys are forgotten in the order in which they have come, so one from there may be older than it looks.
func (s *chunkQueue) known(j *job) bool {
	if j.key() == "" {
		return false
	}
	now := s.stamp()
	s.forgetOld(now, settleMost)
	k, known := s.once.ids[j.key()]
	if t := j.handed(); t != nil {
		return known && max(k.sent-t.sent, t.sent-k.sent) <= int64(onceFor)
	}
	return known && now-k.sent <= int64(onceFor)
}

func (s *chunkQueue) remember(j *job) {
	if j.key() == "" {
		return
	}
	s.restoreKey(j.key(), j.id, j.sent)
}

// restoreKey remembers a key, also one that a log has kept.
func (s *chunkQueue) restoreKey(key string, id uint64, sent int64) {
	if now, known := s.once.ids[key]; known && now.sent > sent { // of one that came from another home
		return
	}
	for b := &s.once; b.order.len() >= onceMost; {
		s.forgetKey()
	}
	if s.once.ids == nil {
		s.once.ids = make(map[string]onceKey)
	}
	k := onceKey{key: key, id: id, sent: sent}
	s.once.ids[key] = k
	s.once.order.push(k)
	s.once.charge(s.payer, len(key)+onceBeside)
	if s.once.order.len() == 1 && s.rouse != nil {
		now := s.time()
		s.rouse(now.Add(timeUntil(now, s.once.until())))
	}
}

// until is when the first one is forgotten.
func (b *onceBook) until() int64 { return b.order.front().sent + int64(onceFor) + 1 }

// forgetOld forgets keys whose time is over, so many at most. It says when that of the next one is; 0:
// there is none.
func (s *chunkQueue) forgetOld(now int64, most int) (next int64) {
	b := &s.once
	for ; b.order.len() > 0 && b.until() <= now && most > 0; most-- {
		s.forgetKey()
	}
	if b.order.len() == 0 {
		return 0
	}
	return b.until()
}

func (s *chunkQueue) forgetKey() {
	k := s.once.order.pop()
	if s.once.ids[k.key].id == k.id { // else it has come again since
		delete(s.once.ids, k.key)
	}
	s.once.charge(s.payer, -len(k.key)-onceBeside)
}

func (b *onceBook) charge(payer *account, n int) {
	b.held += n
	payer.charge(n)
}

// forgetOnce forgets keys until the payer has room for n bytes, and says whether it has.
func (s *chunkQueue) forgetOnce(n int) bool {
	for s.once.order.len() > 0 {
		if s.forgetKey(); n <= s.payer.room() {
			return true
		}
	}
	return false
}
