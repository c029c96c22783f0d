package zpipes

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"
	"unsafe"
)

// A queue with workers, and the time as it is there.
type shop struct {
	*testing.T
	*chunkQueue
	now    time.Time
	from   *sender
	roused time.Time
}

// A workman takes jobs, and knows what became of them.
type workman struct {
	senderQueue
	shop  *shop
	jobs  []*job
	lost  []uint64
	woken int
}

func (w *workman) take(j *job) {
	if j != nil {
		copied := *j
		w.shop.take(j, &w.senderQueue)
		w.jobs = append(w.jobs, &copied)
	}
}

// An opLog keeps what it is told.
type opLog struct{ ops []jobOp }

func (l *opLog) append(o jobOp)                        { l.ops = append(l.ops, o) }
func (l *opLog) next(uint64) (uint64, int, bool)       { return 0, 0, false }
func (l *opLog) read([]uint64) (map[uint64]job, error) { return nil, nil }
func (l *opLog) remove()                               {}
func (l *opLog) stats() logStats                       { return logStats{} }
func (l *opLog) load([]uint64)                         {}

func newShop(t *testing.T, room int, rules jobRules) *shop { return newShopOf(t, nil, room, rules) }

// newShopOf has a user pay for what is in the queue.
func newShopOf(t *testing.T, user *account, room int, rules jobRules) *shop {
	p := &shop{T: t, chunkQueue: roomFor(room), now: born}
	p.bill(user)
	p.tellTime(&clock{now: func() time.Time { return p.now }, stamp: func() int64 { return p.now.UnixNano() }},
		func(at time.Time) { p.roused = at })
	p.setRules(rules, p.limit)
	p.from = p.sender()
	return p
}

func (p *shop) worker() *workman {
	w := &workman{shop: p}
	w.wake = func() { w.woken++ }
	w.senderQueue.lost = func(id uint64, _ uint32) { w.lost = append(w.lost, id) }
	p.attach(&w.senderQueue)
	return w
}

// takes wants the worker to get this job now.
func (p *shop) gets(w *workman, name string, delivery uint32) *job {
	p.Helper()
	n := len(w.jobs)
	p.demand(w)
	if len(w.jobs) == n {
		p.Fatalf("the worker waits, and should get %q", name)
	}
	j := w.jobs[n]
	if j.short() != name || j.deliveries != delivery {
		p.Fatalf("the worker got %q for the %d. time, want %q for the %d.", j.short(), j.deliveries, name, delivery)
	}
	return j
}

func (p *shop) says(w *workman, j *job, do act, want bool) {
	p.Helper()
	if got := p.act(&w.senderQueue, j.id, j.deliveries, do); got != want {
		p.Fatalf("act %d of job %d: %v", do.kind, j.id, got)
	}
}

func (p *shop) counts(ready, taken, delayed, dead int) {
	p.Helper()
	s := p.chunkQueue
	got := [4]int{s.count - s.many[jobTaken] - s.many[jobDelayed] - s.many[jobDead], s.many[jobTaken], s.many[jobDelayed], s.many[jobDead]}
	if want := [4]int{ready, taken, delayed, dead}; got != want {
		p.Fatalf("ready, taken, delayed and dead are %v, want %v", got, want)
	}
}

// tends says how many jobs that concerned, when it is through; below 0: it is not.
func (p *shop) tends(what tending) (n int) {
	n = -1
	p.tend(what, func(k int) { n = k })
	return n
}

func (p *shop) later(d time.Duration) {
	p.now = p.now.Add(d)
	p.tick(p.now)
}

func TestJobsAreHeldUntilTheyAreDone(t *testing.T) {
	p := newShop(t, 2, jobRules{})
	a, b := p.worker(), p.worker()
	p.sends(p.from, "1", "2", "3")
	one, two := p.gets(a, "1", 1), p.gets(b, "2", 1)
	if p.from.settled != 2 {
		t.Fatalf("%d jobs were taken from the sender; those that are not done count", p.from.settled)
	}
	p.counts(0, 2, 0, 0)
	p.says(b, one, act{kind: actDone}, false) // it is the other's
	p.says(a, one, act{kind: actDone}, true)
	p.says(a, one, act{kind: actDone}, false)
	p.counts(1, 1, 0, 0)
	p.says(b, two, act{kind: actReturn}, true)
	p.gets(a, "2", 2)
	p.says(b, two, act{kind: actDone}, false) // an earlier delivery
	p.gets(a, "3", 1)
	if a.acts != 1 || b.acts != 1 || len(a.lost)+len(b.lost) > 0 {
		t.Errorf("told %d and %d times, %v and %v were lost", a.acts, b.acts, a.lost, b.lost)
	}
}

func TestJobsOfAWorkerThatLeavesComeBackInOrder(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	a, b := p.worker(), p.worker()
	p.sends(p.from, "1", "2", "3", "4")
	for _, n := range []string{"1", "2", "3"} {
		p.gets(a, n, 1)
	}
	p.detach(&a.senderQueue)
	p.counts(4, 0, 0, 0)
	p.gets(b, "1", 2)
	p.gets(b, "2", 2)
	p.gets(b, "3", 2)
	p.gets(b, "4", 1)
}

func TestJobsLeaseEnds(t *testing.T) {
	p := newShop(t, 9, jobRules{lease: time.Second})
	a, b := p.worker(), p.worker()
	p.sends(p.from, "1", "2")
	p.later(time.Hour) // a lease begins when the job is taken
	one, two := p.gets(a, "1", 1), p.gets(a, "2", 1)
	if want := p.now.Add(time.Second); !p.roused.Equal(want) {
		t.Fatalf("wants to be roused at %v, not %v", p.roused, want)
	}
	p.later(time.Second - 1)
	p.says(a, two, act{kind: actExtend, delay: 5 * time.Second}, true)
	p.demand(b)
	if len(b.jobs) > 0 || len(a.lost) > 0 {
		t.Fatal("a lease has ended early")
	}
	p.later(1)
	if len(b.jobs) != 1 || b.jobs[0].id != one.id || b.jobs[0].deliveries != 2 || len(a.lost) != 1 {
		t.Fatalf("the other worker got %v, and %v are lost", b.jobs, a.lost)
	}
	p.says(a, one, act{kind: actDone}, false)
	p.says(b, b.jobs[0], act{kind: actDone}, true)
	p.says(a, two, act{kind: actExtend}, true) // a second
	p.later(time.Second)
	p.counts(1, 0, 0, 0)
}

func TestJobsWaitUntilTheyAreDue(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	a := p.worker()
	at := func(d time.Duration) *terms { return &terms{due: p.now.Add(d).UnixNano()} }
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("late"), terms: at(2 * time.Second)})
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("soon"), terms: at(time.Second)})
	p.sends(p.from, "now", "then")
	p.counts(2, 0, 2, 0)
	p.later(time.Second - 1)
	now := p.gets(a, "now", 1)
	p.later(1)
	p.says(a, now, act{kind: actReturn, delay: time.Second}, true)
	p.gets(a, "soon", 1)
	p.gets(a, "then", 1)
	p.counts(0, 2, 2, 0)
	p.later(time.Second)
	p.gets(a, "late", 1)
	p.gets(a, "now", 2)
}

func TestJobsDie(t *testing.T) {
	p := newShop(t, 9, jobRules{maxDeliveries: 2, lease: time.Second})
	a := p.worker()
	p.sends(p.from, "1", "2", "3", "4")
	p.says(a, p.gets(a, "1", 1), act{kind: actReturn}, true)
	p.says(a, p.gets(a, "1", 2), act{kind: actReturn, delay: time.Second}, true)
	p.counts(3, 0, 0, 1)
	p.gets(a, "2", 1)
	p.later(time.Second)
	p.gets(a, "2", 2)
	p.later(time.Second)
	p.counts(2, 0, 0, 2)
	p.says(a, p.gets(a, "3", 1), act{kind: actReject, reason: "no such file"}, true)
	p.says(a, p.gets(a, "4", 1), act{kind: actUnseen}, true)
	p.says(a, p.gets(a, "4", 1), act{kind: actUnseen}, true)
	p.counts(1, 0, 0, 3)
	reasons := make(map[string]string)
	for _, j := range p.peek(0, 1<<20) {
		if j.state == jobDead {
			reasons[j.short()] = j.reason
		}
	}
	if reasons["3"] != "no such file" || reasons["1"] == "" || reasons["2"] != reasons["1"] {
		t.Errorf("they died for %q", reasons)
	}
	// A chunk that was only received may have ended its receiver, too.
	for range 2 {
		p.putBack([]*job{p.next()}, 1)
	}
	p.counts(0, 0, 0, 4)
	if p.remaining() != 0 || p.held != 4*leastChunk {
		t.Errorf("%d remain, %d bytes are held", p.remaining(), p.held)
	}
	if n := p.tends(tendRedrive); n != 4 {
		t.Errorf("%d are driven again", n)
	}
	for _, n := range []string{"1", "2", "3", "4"} {
		p.gets(a, n, 1)
	}
	p.detach(&a.senderQueue)
	if n := p.tends(tendPurgeReady); n != 4 || p.held != 0 || p.count != 0 || p.in != p.out {
		t.Errorf("%d are purged; %d bytes are held, %d jobs", n, p.held, p.count)
	}
}

func TestJobsAreSentOnce(t *testing.T) {
	p := newShop(t, 2, jobRules{})
	once := func(key, name string) {
		p.pushJob(&p.from.senderQueue, &job{data: sixteen(name), terms: &terms{key: key}})
	}
	once("k", "1")
	once("k", "2")
	once("l", "3")
	if p.from.settled != 3 || p.count != 2 {
		t.Fatalf("%d are confirmed, and %d are there", p.from.settled, p.count)
	}
	checkChunks(t, p.takes(9), "1", "3")
	once("k", "4") // though it is gone
	p.counts(0, 0, 0, 0)
	p.now = p.now.Add(onceFor + 1)
	once("m", "5")
	once("k", "6")
	checkChunks(t, p.takes(9), "5", "6")
	if n := len(p.once.ids); n != 2 {
		t.Errorf("%d keys are kept, want 2", n)
	}
}

// Of a job that was dead when a look began, and is received before that ends, nothing is seen that is
// somebody else's by then.
func TestJobsThatGoWhileTheyArePeekedAt(t *testing.T) {
	const many = 4 * settleMost
	p := newShop(t, 4*many, jobRules{})
	fill := func() {
		for range many {
			p.pushJob(&p.from.senderQueue, &job{data: binary.BigEndian.AppendUint64(nil, p.lastID+1)})
			p.many[jobTaken]--
			p.die(p.next(), "bad", nil)
		}
	}
	empty := func() {
		p.tends(tendRedrive)
		for j := p.next(); j != nil; j = p.next() {
			clear(j.data)
			p.release(j)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fill()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			p.mu.Lock()
			empty()
			fill()
			p.mu.Unlock()
		}
	}()
	for looks := 0; ; looks++ {
		for _, j := range p.peek(0, noLimit) {
			if len(j.data) != 8 || binary.BigEndian.Uint64(j.data) != j.id || j.state != jobDead {
				t.Fatalf("look %d: job %d in state %d is seen with %x", looks, j.id, j.state, j.data)
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// A key that came, was forgotten for many others, and came again counts from then on, also where a log
// tells of both.
func TestJobKeyThatCameAgain(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	again := p.now.Add(onceFor / 2)
	p.restoreKey("k", 1, p.now.UnixNano())
	p.restoreKey("k", 2, again.UnixNano())
	p.identify(1, 2)
	p.now = p.now.Add(onceFor + 1)
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("1"), terms: &terms{key: "k"}})
	if p.count != 0 || p.from.settled != 1 {
		t.Errorf("%d are there, %d are confirmed", p.count, p.from.settled)
	}
	p.now = again.Add(onceFor + 1)
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("2"), terms: &terms{key: "k"}})
	checkChunks(t, p.takes(9), "2")
	for id := range uint64(onceMost) {
		p.restoreKey(fmt.Sprint(id), 9+id, p.now.UnixNano())
	}
	if n := p.once.order.len(); n != onceMost || len(p.once.ids) != n {
		t.Errorf("%d and %d keys are kept", n, len(p.once.ids))
	}
}

func TestJobsAreHandedOutWhenTheirPutIsCommitted(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	var log opLog
	p.keepBy(&log)
	a := p.worker()
	p.sends(p.from, "1")
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("2"), terms: &terms{key: "k"}})
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("2"), terms: &terms{key: "k"}})
	p.demand(a)
	if len(a.jobs) > 0 || p.from.settled > 0 || len(log.ops) != 2 || p.count != 2 {
		t.Fatalf("%d jobs are handed out and %d confirmed before the log has them; it was told %d", len(a.jobs), p.from.settled, len(log.ops))
	}
	p.committed(1, 0)
	if len(a.jobs) != 1 || p.from.settled != 1 {
		t.Fatalf("%d jobs are handed out, %d confirmed", len(a.jobs), p.from.settled)
	}
	p.committed(1, 0)
	if p.from.settled != 3 { // what was sent again is confirmed with the first
		t.Fatalf("%d are confirmed", p.from.settled)
	}
	p.says(a, a.jobs[0], act{kind: actDone}, true)
	if a.acts > 0 {
		t.Error("done before the log knows")
	}
	p.committed(0, 1) // taken
	if a.acts > 0 {
		t.Error("done before the log knows")
	}
	if p.committed(0, 1); a.acts != 1 || p.noting.len() != 0 {
		t.Errorf("told %d times, and %d wait", a.acts, p.noting.len())
	}
	p.sends(p.from, "3")
	p.detach(&p.from.senderQueue) // which leaves what it has in the log
	p.committed(1, 0)
	p.says(a, p.gets(a, "2", 1), act{kind: actReject, reason: "r"}, true)
	p.gets(a, "3", 1)
	last := log.ops[len(log.ops)-2]
	if last.kind != opDead || last.id != 2 || last.text != "r" || last.deliveries != 1 {
		t.Errorf("the log was told %+v", last)
	}
}

// Whoever had a job when the broker ended can still say what becomes of it.
func TestJobsOfALog(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	p.identify(77, 12)
	a, b := p.worker(), p.worker()
	j := func(id uint64, deliveries uint32) *job {
		return &job{id: id, data: sixteen(string('0' + rune(id))), deliveries: deliveries}
	}
	soon := p.now.Add(time.Second).UnixNano()
	p.restore(j(1, 1), jobTaken, soon, "")
	p.restore(j(2, 3), jobTaken, soon, "")
	p.restore(j(3, 0), jobDelayed, soon, "")
	p.restore(j(4, 2), jobDead, 0, "r")
	p.restore(j(5, 2), jobReady, 0, "")
	p.identify(77, 12)
	p.counts(1, 2, 1, 1)
	p.says(a, j(1, 1), act{kind: actDone}, true)
	p.says(a, j(2, 2), act{kind: actDone}, false)
	p.gets(b, "5", 3)
	p.later(time.Second)
	p.gets(b, "2", 4)
	p.gets(b, "3", 1)
	p.sends(p.from, "x")
	if x := p.gets(b, "x", 1); x.id != 13 {
		t.Errorf("the next id is %d", x.id)
	}
}

func TestJobsOfADeletedQueue(t *testing.T) {
	p := newShop(t, 9, jobRules{lease: time.Second})
	a := p.worker()
	p.sends(p.from, "1", "2")
	one := p.gets(a, "1", 1)
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("3"), terms: &terms{due: p.now.Add(time.Hour).UnixNano(), key: "k"}})
	p.end(cause{code: causeDeleted}, false)
	if len(a.lost) != 1 || p.held != 0 || len(p.aside) > 0 || p.leases.len()+p.timed.len() > 0 || len(p.once.ids) > 0 {
		t.Errorf("%v are lost, %d bytes held, %d aside", a.lost, p.held, len(p.aside))
	}
	p.says(a, one, act{kind: actDone}, false)
	p.detach(&a.senderQueue)
}

// A broker that shuts down waits for jobs that somebody has, and not for those that nobody
// can get now.
func TestJobsInAShutdown(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	a := p.worker()
	p.receives(&a.senderQueue, true)
	emptied := false
	p.tellEmpty(func() { emptied = true })
	p.pushJob(&p.from.senderQueue, &job{data: sixteen("1"), terms: &terms{due: p.now.Add(time.Hour).UnixNano()}})
	p.sends(p.from, "2", "3")
	two := p.gets(a, "2", 1)
	p.end(cause{code: causeBrokerGone}, true)
	three := p.gets(a, "3", 1)
	p.says(a, three, act{kind: actReject}, true)
	if emptied || p.drained() {
		t.Fatal("over, though a worker has a job")
	}
	if p.says(a, two, act{kind: actDone}, true); !emptied || !p.drained() {
		t.Error("not over")
	}
}

func TestJobsKeyIsForgottenThoughNoOtherComes(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	for _, name := range []string{"1", "2"} {
		p.pushJob(&p.from.senderQueue, &job{data: sixteen(name), terms: &terms{key: "k"}})
		checkChunks(t, p.takes(9), name)
		p.now = p.now.Add(onceFor + 1)
	}
}

func TestJobsExtendIsNoActThatIsCommitted(t *testing.T) {
	p := newShop(t, 9, jobRules{lease: time.Second})
	p.sends(p.from, "1")
	a := p.worker()
	one := p.gets(a, "1", 1)
	p.keepBy(&opLog{})
	p.says(a, one, act{kind: actExtend}, true)
	if p.says(a, one, act{kind: actDone}, true); a.acts != 0 {
		t.Errorf("told of %d acts before any is committed", a.acts)
	}
}

func TestJobsWaitForAbsurdlyLong(t *testing.T) {
	p := newShop(t, 9, jobRules{lease: time.Second})
	a := p.worker()
	p.sends(p.from, "1", "2")
	one, two := p.gets(a, "1", 1), p.gets(a, "2", 1)
	p.says(a, one, act{kind: actReturn, delay: math.MaxInt64}, true)
	p.says(a, two, act{kind: actExtend, delay: math.MaxInt64}, true)
	p.later(time.Hour)
	p.counts(0, 1, 1, 0)
	if len(a.lost) > 0 {
		t.Errorf("%v were lost", a.lost)
	}
}

// setClock is what a clock shows at that moment that was set meanwhile.
func setClock(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	set := now
	(*struct{ wall uint64 })(unsafe.Pointer(&set)).wall += uint64(by/time.Second) << 30
	if set.UnixNano()-now.UnixNano() != int64(by) || set.Sub(now) != 0 {
		t.Skipf("a time.Time is not what it was: %v for %v", set, now)
	}
	return set
}

// A lease is as long as it is; a job is due when the clock says so.
func TestJobsWhenTheClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		p := newShop(t, 9, jobRules{lease: 10 * time.Second})
		p.created = time.Now()
		p.now = p.created
		a := p.worker()
		p.sends(p.from, "1")
		one := p.gets(a, "1", 1)
		p.pushJob(&p.from.senderQueue, &job{data: sixteen("2"), terms: &terms{due: p.now.Add(time.Hour).UnixNano()}})
		p.now = setClock(t, p.now.Add(time.Second), by)
		next := p.tick(p.now)
		if wait := next.Sub(p.now); len(a.lost) > 0 || wait != 9*time.Second {
			t.Errorf("the clock set by %v: %d leases are lost, and the next is looked at after %v", by, len(a.lost), wait)
		}
		if until := p.peek(0, 1)[0].at; until != p.now.Add(9*time.Second).UnixNano() {
			t.Errorf("the clock set by %v: the lease ends at %v", by, time.Unix(0, until))
		}
		p.says(a, one, act{kind: actExtend, delay: 5 * time.Second}, true)
		if p.later(5*time.Second - 1); len(a.lost) > 0 {
			t.Errorf("the clock set by %v: a lease has ended early", by)
		}
		if p.later(1); len(a.lost) != 1 {
			t.Errorf("the clock set by %v: a lease has not ended", by)
		}
		if by < 0 {
			next := p.tick(p.now)
			if p.counts(1, 0, 1, 0); next.Sub(p.now) > lookAtDue {
				t.Errorf("the clock set by %v: what is due is looked at after %v", by, next.Sub(p.now))
			}
			p.later(time.Hour - by)
		}
		p.counts(2, 0, 0, 0)
	}
}
