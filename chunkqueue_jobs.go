package zpipes

import (
	"bytes"
	"cmp"
	"container/list"
	"fmt"
	"math"
	"slices"
	"time"
)

// A job is a chunk in a queue.
type job struct {
	data       []byte
	rests      bool   // its bytes are on the disk alone, and when it was sent may be
	away       int    // how many bytes these are
	id         uint64 // within the queue, ascending; 0: it is not known here
	sent       int64  // when it came, in Unix nanoseconds
	deliveries uint32 // how often it was handed out; the number of the last time
	read       uint32 // how many bytes a reader of bytes has of it; they are not in data any more
	shared     bool   // a worker to whom it was lent may still read data: nobody may change that
	next       *job   // in its list
	terms      *terms // nil: none
}

// terms are what the sender of a job wants beside.
type terms struct {
	due    int64        // not before that time
	key    string       // not together with another one of that key
	handed *handedTerms // it was in another home before; nil: it was not
}

func (j *job) due() int64 {
	if j.terms == nil {
		return 0
	}
	return j.terms.due
}

func (j *job) handed() *handedTerms {
	if j.terms == nil {
		return nil
	}
	return j.terms.handed
}

func (j *job) key() string {
	if j.terms == nil {
		return ""
	}
	return j.terms.key
}

// A jobBook is what a queue knows of jobs beside those that wait in turn.
type jobBook struct {
	room   int    // what it may hold: its limit, or more
	lastID uint64 // the last job's
	// incarnation is random, and the queue's for as long as it exists: together with the id it
	// names a job for ever.
	incarnation uint64
	rules       jobRules

	aside    map[uint64]*aside    // jobs that somebody has taken, or that wait for something
	ahead    *nearest[uint64]     // of those in aside, for the next peek; nil: none is needed
	leases   schedule[*aside]     // those of them whose lease ends
	timed    schedule[*aside]     // those that are due at a time
	shelves  [jobStates]asideList // all of them but those that a worker has
	chores   fifo[*chore]
	leaving  fifo[*senderQueue] // who has left, with many jobs that have yet to come back
	many     [jobStates]int     // how many are in each state but ready; taken are also those with a Receive
	handed   int64              // deliveries
	once     onceBook
	clock    *clock
	alarm    queueAlarm         // the registry's
	rouse    func(at time.Time) // has tick called then; with mu held, must not block
	log      jobLog             // nil: the queue is in memory alone
	putting  fifo[putting]
	disk     onDisk
	noting   fifo[noted] // what follows when the other operations are committed
	notes    int64       // how many of these there were
	counting int         // jobs for demands, whose delivery is being written down
	writing  int         // bytes of these
	counted  jobList     // it is written
}

// jobRules are what a queue does with its jobs.
type jobRules struct {
	lease         time.Duration // 0: as long as the worker is there
	maxDeliveries int           // 0: no limit
}

// A jobState says where a job is.
type jobState uint8

const (
	jobReady   jobState = iota // it waits for its turn; counted as what is in no other state
	jobTaken                   // somebody has it
	jobDelayed                 // it is not due
	jobDead                    // it waits for nobody any more
	jobStates  = iota
)

// An aside is a job that does not wait for its turn.
type aside struct {
	*job
	state  jobState
	turn   uint32       // which of its holder's it is
	at     int64        // when it is due; of one that is taken, how old the queue is when the lease ends; 0: never
	place  int          // among those with a time, from 1; 0: not there
	holder *senderQueue // who has taken it; nil: nobody who is known
	reason string       // of its death

	before, behind *aside // on its shelf
}

// shelf is where it is among others, in the order in which they came there.
func (s *chunkQueue) shelf(a *aside) *asideList {
	if a.holder != nil {
		return &a.holder.has
	}
	return &s.shelves[a.state]
}

// An asideList is a list whose zero value is empty.
type asideList struct {
	first, last *aside
	n           int
}

func (q *asideList) push(a *aside) {
	q.n++
	if a.before = q.last; q.first == nil {
		q.first = a
	} else {
		q.last.behind = a
	}
	q.last = a
}

func (q *asideList) remove(a *aside) {
	q.n--
	if a.before == nil {
		q.first = a.behind
	} else {
		a.before.behind = a.behind
	}
	if a.behind == nil {
		q.last = a.before
	} else {
		a.behind.before = a.before
	}
	a.before, a.behind = nil, nil
}

// A worker is the part of a sender queue's owner that takes jobs.
type worker struct {
	// lost tells that a job which was taken is somebody else's, or gone. It is called
	// with the queue's mu held and must not block.
	lost  func(id uint64, delivery uint32)
	has   asideList // what it has taken
	taken uint32    // how often it has taken something; the lower 32 bits
	acts  int64     // how many of its dones, returns and rejections are committed
}

// setRules changes the queue's rules, and how much it holds.
func (s *chunkQueue) setRules(r jobRules, room int) {
	s.rules, s.room = r, room
	s.settle()
}

// queueSettings are what somebody who opens a queue wants it to be; zero ones are left as they are.
type queueSettings struct {
	durable       bool
	lease         time.Duration
	maxDeliveries int
	maxBytes      int
}

// configure makes the queue so, but for whether it is durable.
func (s *chunkQueue) configure(c queueSettings) {
	rules, room := s.rules, s.room
	if c.lease > 0 {
		rules.lease = c.lease
	}
	if c.maxDeliveries > 0 {
		rules.maxDeliveries = c.maxDeliveries
	}
	if c.maxBytes > 0 {
		room = c.maxBytes
	}
	if rules == s.rules && room == s.room {
		return
	}
	if s.setRules(rules, room); s.log != nil {
		s.writeConfig()
	}
}

// deliver counts that a job is handed out.
func (s *chunkQueue) deliver(j *job, then noted) *job {
	j.deliveries++
	s.handed++
	s.many[jobTaken]++
	if s.log != nil {
		s.noteThen(jobOp{kind: opTaken, id: j.id, deliveries: j.deliveries, lazy: then.counted == nil}, then)
		s.refill()
	}
	return j
}

// A jobDemand is the demand of a Take.
type jobDemand struct{ receiver }

// askJob is ask for a Take.
func (s *chunkQueue) askJob(r receiver) *list.Element { return s.demands.PushBack(jobDemand{r}) }

// counts says that a Take gets a job when it is written down that it does, and no sooner: a job at which
// the broker's process ends each time would be delivered for ever.
func (s *chunkQueue) counts() bool {
	return s.log != nil && s.rules.maxDeliveries > 0 && s.over == nil
}

// muchDelivered is how many bytes of jobs are much between a queue and who wants them: the rest
// stays in it until these have gone on.
const muchDelivered = 1 << 20

// countNext has it written down that the next job is delivered, where more wait for one.
func (s *chunkQueue) countNext() bool {
	if !s.available() || s.counting >= s.demands.Len() || s.writing >= muchDelivered {
		return false
	}
	j := s.popInMemory()
	s.counting++
	s.writing += j.size()
	s.deliver(j, noted{counted: j})
	return true
}

// uncount is for jobs for which nobody waits any more.
func (s *chunkQueue) uncount() bool {
	if s.counted.len() == 0 {
		return false
	}
	jobs := s.counted.all()
	s.counted = jobList{}
	s.again(s.comeBack(jobs, 0)...)
	return true
}

// take gives a job that is being handed out to a worker, who has it until it says what
// becomes of it, leaves, or its lease ends; and who has looked at it: where there is a log, the body is not kept.
func (s *chunkQueue) take(j *job, l *senderQueue) {
	s.part(j)
	j.shared = s.log == nil
	l.taken++
	a := &aside{job: j, state: jobTaken, holder: l, turn: l.taken}
	if s.rules.lease > 0 {
		a.at = s.leaseOf(s.rules.lease)
	}
	s.many[jobTaken]--
	s.setAside(a)
}

func (s *chunkQueue) setAside(a *aside) {
	if s.aside == nil {
		s.aside = make(map[uint64]*aside)
	}
	s.aside[a.id] = a
	if s.ahead != nil {
		s.ahead.add(a.id)
	}
	s.many[a.state]++
	s.shelf(a).push(a)
	s.setTime(a, a.at)
	s.pay()
}

// setTime has tick look at a job then; 0: never.
func (s *chunkQueue) setTime(a *aside, at int64) {
	times := &s.timed
	if a.state == jobTaken {
		times = &s.leases
	}
	if a.at = at; at > 0 {
		times.set(a)
	} else {
		times.remove(a)
	}
	if at > 0 && a.place == 1 && s.rouse != nil {
		s.rouse(s.timeOf(a, s.time()))
	}
}

// lookAtDue is how long a job that is due is left alone at most, when the clock is set.
const lookAtDue = time.Minute

// timeOf is when to look at a job with a time. The Times that now leads to come at their time, though the clock be set
// meanwhile.
func (s *chunkQueue) timeOf(a *aside, now time.Time) time.Time {
	if a.state == jobTaken {
		return now.Add(time.Duration(a.at - s.age(now)))
	}
	return now.Add(min(lookAtDue, timeUntil(now, a.at)))
}

// age is how old the queue is, in nanoseconds; whether the clock has been set does not matter. A lease is
// for so long, while a job is due at a time that the clock shows, and that outlives the broker.
func (s *chunkQueue) age(now time.Time) int64 { return int64(now.Sub(s.created)) }

// leaseOf is when a lease ends that ends so long from now.
func (s *chunkQueue) leaseOf(d time.Duration) int64 {
	age := s.age(s.time())
	return age + min(int64(d), math.MaxInt64-max(0, age))
}

// takeUp takes a job out of those aside.
func (s *chunkQueue) takeUp(a *aside) *job {
	delete(s.aside, a.id)
	s.many[a.state]--
	s.shelf(a).remove(a)
	s.setTime(a, 0)
	s.pay()
	return a.job
}

// tick has those go on whose time has come, some of them. It says when to call it again; a zero
// time: it need not be.
func (s *chunkQueue) tick(now time.Time) (next time.Time) {
	for n := 0; n < settleMost; n++ {
		if s.leases.len() > 0 && s.leases.first().at <= s.age(now) {
			a := s.leases.first()
			s.lose(a)
			s.back(a, 0, nil)
		} else if s.timed.len() > 0 && s.timed.first().at <= now.UnixNano() {
			s.soon(s.takeUp(s.timed.first()))
		} else {
			break
		}
	}
	if at := s.forgetOld(now.UnixNano(), settleMost); at > 0 {
		next = now.Add(timeUntil(now, at))
	}
	s.settle()
	for _, times := range []*schedule[*aside]{&s.leases, &s.timed} {
		if times.len() == 0 {
			continue
		}
		if at := s.timeOf(times.first(), now); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// has says that a worker has taken something.
func (s *chunkQueue) has(l *senderQueue) bool { return l.has.n > 0 }

// lose tells a worker that it does not have the job any more.
func (s *chunkQueue) lose(a *aside) {
	if a.holder != nil && !a.holder.left {
		a.holder.lost(a.id, a.deliveries)
	}
}

// taken is the job that a worker means; nil: it does not have it any more.
func (s *chunkQueue) taken(l *senderQueue, id uint64, delivery uint32) *aside {
	a := s.aside[id]
	if a == nil || a.state != jobTaken || a.deliveries != delivery || a.holder != nil && a.holder != l {
		return nil
	}
	return a
}

// An act is what a worker says of a job that it has taken.
type act struct {
	kind   actKind
	delay  time.Duration // of actReturn: 0: it is next; of actExtend: 0: as long as a lease is
	reason string        // of actReject
}

type actKind uint8

const (
	actDone   actKind = iota + 1
	actReturn         // it is for others, after the delay
	actUnseen         // likewise; the worker has not begun, so that this delivery does not count
	actReject         // it is dead
	actExtend         // the lease ends so long from now
)

// act does what a worker says, unless it does not have the job any more. The worker is told
// when it is committed, but for actExtend, which nobody waits for.
func (s *chunkQueue) act(l *senderQueue, id uint64, delivery uint32, do act) (ok bool) {
	a := s.taken(l, id, delivery)
	if a == nil {
		return false
	}
	switch do.kind {
	case actDone:
		j := s.takeUp(a)
		s.letGo(j)
		s.note(jobOp{kind: opDone, id: j.id}, l)
	case actReturn:
		at := int64(0)
		if do.delay > 0 {
			at = s.after(do.delay)
		}
		s.back(a, at, l)
	case actUnseen:
		a.deliveries--
		s.handed--
		s.back(a, 0, l)
	case actReject:
		s.die(s.takeUp(a), do.reason, l)
	case actExtend:
		if do.delay == 0 {
			do.delay = s.rules.lease
		}
		if s.rules.lease > 0 {
			s.setTime(a, s.leaseOf(do.delay))
		}
	}
	s.settle()
	return true
}

// letGo counts that a job is gone.
func (s *chunkQueue) letGo(j *job) {
	s.drop(j)
	s.passed(0, int64(j.length()))
	s.received++
	if k := s.once.ids[j.key()]; k.id == j.id && k.key != "" {
		k.gone = true
		s.once.ids[k.key] = k
	}
}

// back has a taken job wait again: from that time on, or if it is 0, as the next one.
func (s *chunkQueue) back(a *aside, at int64, l *senderQueue) {
	switch j := s.takeUp(a); {
	case s.worn(j):
		s.die(j, s.wornOut(), l)
	case at > 0:
		s.note(jobOp{kind: opReturned, id: j.id, deliveries: j.deliveries, due: at}, l)
		s.setAside(&aside{job: j, state: jobDelayed, at: at})
	default:
		s.note(jobOp{kind: opReturned, id: j.id, deliveries: j.deliveries}, l)
		s.again(j)
	}
}

// worn says that a job was delivered as often as it may be.
func (s *chunkQueue) worn(j *job) bool {
	return s.rules.maxDeliveries > 0 && int(j.deliveries) >= s.rules.maxDeliveries
}

func (s *chunkQueue) wornOut() string {
	return fmt.Sprintf("delivered %d times, and not done", s.rules.maxDeliveries)
}

func (s *chunkQueue) die(j *job, reason string, l *senderQueue) {
	s.note(jobOp{kind: opDead, id: j.id, deliveries: j.deliveries, text: reason}, l)
	s.part(j)
	s.setAside(&aside{job: j, state: jobDead, reason: reason})
}

// comeBack is what of some jobs that were handed out goes back to the front; see putBack.
func (s *chunkQueue) comeBack(jobs []*job, seen int) []*job {
	s.many[jobTaken] -= len(jobs)
	back := jobs[:0]
	for i, j := range jobs {
		if i < seen && s.worn(j) {
			s.die(j, s.wornOut(), nil)
			continue
		}
		if i >= seen {
			j.deliveries--
			s.handed--
		}
		if s.log != nil {
			s.note(jobOp{kind: opReturned, id: j.id, deliveries: j.deliveries}, nil)
		}
		back = append(back, j)
	}
	return back
}

// leaveJobs returns what a worker that leaves has taken, the last first, so that it waits in order in
// the end: so much of it now, and the rest by and by.
func (s *chunkQueue) leaveJobs(l *senderQueue, most int) {
	if s.void || l.has.n == 0 {
		return
	}
	jobs := make([]*job, 0, min(l.has.n, most))
	for l.has.last != nil && len(jobs) < most {
		s.many[jobTaken]++
		jobs = append(jobs, s.takeUp(l.has.last))
	}
	slices.SortFunc(jobs, byID)
	s.again(s.comeBack(jobs, len(jobs))...)
	if l.has.n > 0 {
		s.leaving.push(l)
	}
}

func byID(a, b *job) int { return cmp.Compare(a.id, b.id) }

// loseJobs drops all that is aside; loseSome tells the workers.
func (s *chunkQueue) loseJobs() {
	s.aside, s.ahead, s.leases, s.timed = nil, nil, schedule[*aside]{}, schedule[*aside]{}
	s.shelves = [jobStates]asideList{}
	s.many = [jobStates]int{}
	if s.rouse != nil {
		s.rouse(s.time()) // once more, and then never
	}
	s.payer.charge(-s.once.held)
	s.once = onceBook{}
}

// loseSome tells a worker that it has lost some of its jobs, since the queue is gone. It says
// whether it had any.
func (s *chunkQueue) loseSome(l *senderQueue) bool {
	some := l.has.n > 0
	for range min(l.has.n, settleMost) {
		a := l.has.first
		l.lost(a.id, a.deliveries)
		l.has.remove(a)
	}
	return some
}

// remaining is how many chunks there are that somebody may still get, or has.
func (s *chunkQueue) remaining() int {
	return s.count + s.lent - s.many[jobDelayed] - s.many[jobDead]
}

// A seenJob is a job as peek sees it.
type seenJob struct {
	job
	state  jobState
	at     int64 // when its lease ends, or it is due; 0: never
	reason string
}

// see is how others see it.
func (s *chunkQueue) see(a *aside) seenJob {
	j := seenJob{*a.job, a.state, a.at, a.reason}
	if a.state == jobTaken && a.at > 0 {
		now := s.time()
		j.at = nanosAfter(now, time.Duration(a.at-s.age(now)))
	}
	return j
}

// peek is the next jobs behind that id, in the order of their ids, but for those that somebody is
// receiving: as many as have so many bytes, and one at least. mu is held, but not all the time.
func (s *chunkQueue) peek(after uint64, most int) (all []seenJob) {
	next := nearest[seenJob]{after: after, most: most/leastChunk + 1, id: func(j *seenJob) uint64 { return j.id }}
	for _, a := range s.asideBehind(after, next.most) {
		next.add(seenJob{*a.job, a.state, a.at, a.reason})
	}
	for _, j := range s.resting(after, most) {
		next.add(seenJob{job: *j})
	}
	s.eachInLine(func(j *job) {
		if next.wants(j.id) {
			next.add(seenJob{job: *j})
		}
	})
	next.cut()
	for _, j := range next.found {
		if j.state != jobReady { // and it may have gone since, to one whose data that is
			a := s.aside[j.id]
			if a == nil {
				continue
			}
			j = s.see(a)
		}
		if most -= j.size(); most < 0 && len(all) > 0 {
			break
		}
		j.data = bytes.Clone(j.data) // who receives it may change it
		all = append(all, j)
	}
	return all
}

// asideAhead is how many jobs aside one look at all of them finds.
const asideAhead = 16 << 10

// asideBehind are those behind that id, in the order of their ids, but not more than that. mu is held, but not all the time.
func (s *chunkQueue) asideBehind(after uint64, most int) (all []*aside) {
	next := func(ids []uint64) bool {
		all = nil
		for i, _ := slices.BinarySearch(ids, after+1); i < len(ids) && len(all) < most; i++ {
			if a := s.aside[ids[i]]; a != nil {
				all = append(all, a)
			}
		}
		return len(all) == most
	}
	if k := s.ahead; k != nil && k.after <= after && next(k.cut()) {
		return all
	}
	for {
		k := &nearest[uint64]{after: after, most: max(most, asideAhead), id: func(id *uint64) uint64 { return *id }}
		s.ahead = k
		n := 0
		for id := range s.aside {
			k.add(id)
			if n++; n%settleMost == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
		}
		enough := next(k.cut())
		if s.ahead == k && !k.full {
			s.ahead = nil // they are soon looked at again
		}
		if enough || !k.full {
			return all
		}
	}
}

// nearest are the first of many behind an id.
type nearest[T any] struct {
	after uint64
	most  int
	id    func(*T) uint64
	found []T
	full  bool // there are as many before the last one
	added bool // since cut
}

func (k *nearest[T]) wants(id uint64) bool {
	return id > k.after && !(k.full && id > k.id(&k.found[k.most-1]))
}

func (k *nearest[T]) add(x T) {
	if !k.wants(k.id(&x)) {
		return
	}
	k.added = true
	if k.found = append(k.found, x); len(k.found) >= 2*k.most {
		k.cut()
	}
}

// cut drops those that are too many, and says which there are, in order. Of one that was seen twice, because it has
// moved, the later sight counts.
func (k *nearest[T]) cut() []T {
	if !k.added {
		return k.found
	}
	slices.SortStableFunc(k.found, func(a, b T) int { return cmp.Compare(k.id(&a), k.id(&b)) })
	kept := k.found[:0]
	for i := range k.found {
		if i+1 == len(k.found) || k.id(&k.found[i+1]) != k.id(&k.found[i]) {
			kept = append(kept, k.found[i])
		}
	}
	if k.full = len(kept) >= k.most; k.full {
		kept = kept[:k.most]
	}
	k.found, k.added = kept, false
	return kept
}

// eachInLine calls f with the jobs in memory that wait for their turn.
func (s *chunkQueue) eachInLine(f func(*job)) {
	each := func(q *jobList) {
		for j := q.first; j != nil; j = j.next {
			f(j)
		}
	}
	each(&s.front)
	for _, l := range s.ready.all() {
		each(&l.line)
	}
	each(&s.disk.line)
}

// oldest is when that of the jobs was sent that wait for their turn, and have done so for
// longest; 0: there is none.
func (s *chunkQueue) oldest() (sent int64) {
	look := func(q *jobList) {
		if q.len() > 0 && q.front().sent > 0 && (sent == 0 || q.front().sent < sent) {
			sent = q.front().sent
		}
	}
	look(&s.front)
	for _, l := range s.ready.all() {
		look(&l.line)
	}
	look(&s.disk.line)
	if d := &s.disk; sent == 0 && d.jobs+d.missing+d.wanted.len() > 0 {
		return d.since
	}
	return sent
}

func (s *chunkQueue) oldestAge(now time.Time) time.Duration {
	if sent := s.oldest(); sent != 0 {
		return max(0, time.Duration(now.UnixNano()-sent))
	}
	return 0
}

func (a *aside) earlier(than *aside) bool { return a.at < than.at || a.at == than.at && a.id < than.id }
func (a *aside) seat() *int               { return &a.place }
