package zpipes

import (
	"testing"
	"time"
)

// jobsOf is a shop with a job of each kind: "ready", "delayed", which was delivered once, "dead", and "taken".
func jobsOf(t *testing.T, log jobLog) (p *shop, w *workman, taken *job) {
	p = newShop(t, 20, jobRules{})
	p.keepBy(log)
	p.sends(p.from, "delayed", "dead", "taken", "ready")
	commit := func(puts, others int) {
		if log != nil {
			p.committed(puts, others)
		}
	}
	commit(4, 0)
	w = p.worker()
	for _, name := range []string{"delayed", "dead", "taken"} {
		p.demand(w)
		commit(0, 1)
		taken = w.jobs[len(w.jobs)-1]
		switch name {
		case "delayed":
			p.says(w, taken, act{kind: actReturn, delay: time.Minute}, true)
			commit(0, 1)
		case "dead":
			p.says(w, taken, act{kind: actReject, reason: "why"}, true)
			commit(0, 1)
		}
	}
	p.counts(1, 1, 1, 1)
	return p, w, taken
}

// What is handed over is what it was, there and, where it is put back, here; what somebody has taken goes over
// when it comes back.
func TestCedeJobsAsTheyAre(t *testing.T) {
	p, w, taken := jobsOf(t, nil)
	woken := 0
	p.cede("b@host", func() { woken++ })
	if p.over == nil {
		t.Error("who sends does not know")
	}
	l := &senderQueue{worker: worker{lost: func(uint64, uint32) { t.Error("a lease has ended") }}}
	jobs := p.lift(l, 1<<20)
	p.counts(0, 4, 0, 0)
	if len(jobs) != 3 {
		t.Fatalf("%d jobs, want 3", len(jobs))
	}
	p.unlift(l, jobs)
	p.counts(1, 1, 1, 1)
	jobs = p.lift(l, 1)
	if len(jobs) != 1 || jobs[0].short() != "ready" || jobs[0].deliveries != 0 {
		t.Fatalf("%v of one byte", jobs)
	}
	jobs = append(jobs, p.lift(l, 1<<20)...)

	to := newShop(t, 20, jobRules{})
	for _, j := range jobs {
		to.pushJob(&to.from.senderQueue, to.newJob(j.data, &terms{
			key: j.key(), due: j.at, handed: &handedTerms{sent: j.sent, deliveries: j.deliveries, state: j.state, reason: j.reason},
		}))
	}
	to.counts(1, 0, 1, 1)
	if dead := to.shelves[jobDead].first; dead.reason != "why" || dead.deliveries != 1 || dead.short() != "dead" {
		t.Errorf("dead: %+v", dead)
	}
	if delayed := to.shelves[jobDelayed].first; delayed.deliveries != 1 || delayed.at != p.now.Add(time.Minute).UnixNano() {
		t.Errorf("delayed: %+v", delayed)
	}
	p.settleLifted(l, jobs)
	p.counts(0, 1, 0, 0)
	if p.bare() {
		t.Error("nothing is left, though somebody has a job")
	}
	before := woken
	if jobs = p.lift(l, 1<<20); len(jobs) > 0 || woken != before {
		t.Errorf("%d jobs; who finds nothing is told %d times to look again", len(jobs), woken-before)
	}
	p.says(w, taken, act{kind: actReturn}, true)
	if woken == before {
		t.Error("nobody is told that a job has come back")
	}
	jobs = p.lift(l, 1<<20)
	if len(jobs) != 1 || jobs[0].deliveries != 1 {
		t.Fatalf("%v, want the job that has come back", jobs)
	}
	p.settleLifted(l, jobs)
	if !p.bare() || p.held != 0 {
		t.Errorf("%d jobs, %d bytes are left", p.count, p.held)
	}
}

// A log has what the jobs were before, until they are gone; and at the other home what they are.
func TestCedeJobsThatAreKept(t *testing.T) {
	log := new(opLog)
	p, _, _ := jobsOf(t, log)
	p.cede("b@host", func() {})
	n := len(log.ops)
	l := &senderQueue{worker: worker{lost: func(uint64, uint32) {}}}
	jobs := p.lift(l, 1<<20)
	p.unlift(l, jobs)
	jobs = p.lift(l, 1<<20)
	if len(log.ops) != n {
		t.Errorf("the log was told %v", log.ops[n:])
	}
	p.settleLifted(l, jobs)
	for _, o := range log.ops[n:] {
		if o.kind != opDone {
			t.Errorf("the log was told %v", o)
		}
	}

	there := new(opLog)
	to := newShop(t, 20, jobRules{})
	to.keepBy(there)
	for i, state := range []jobState{jobReady, jobReady, jobDelayed, jobDead} {
		j := handedTerms{sent: 7, deliveries: uint32(i), state: state}
		due := int64(0)
		if state == jobDelayed {
			due = to.now.Add(time.Minute).UnixNano()
		}
		to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{due: due, handed: &j}))
	}
	to.committed(4, 0)
	if to.counts(2, 0, 1, 1); to.from.settled != 1 {
		t.Errorf("%d are confirmed, before the log has written what the others were", to.from.settled)
	}
	if to.committed(0, 2); to.from.settled != 1 {
		t.Errorf("%d are confirmed, with one of three notes not written", to.from.settled)
	}
	if to.committed(0, 1); to.from.settled != 4 || to.from.window != 0 {
		t.Errorf("%d of 4 are confirmed in the end", to.from.settled)
	}
	last := make(map[uint64]jobOp)
	for _, o := range there.ops {
		if o.kind == opPut && o.sent != 7 {
			t.Errorf("sent at %d", o.sent)
		}
		last[o.id] = o
	}
	for id, want := range map[uint64]jobOp{
		1: {kind: opPut}, 2: {kind: opReturned, deliveries: 1}, 3: {kind: opReturned, deliveries: 2}, 4: {kind: opDead, deliveries: 3},
	} {
		if o := last[id]; o.kind != want.kind || o.deliveries != want.deliveries {
			t.Errorf("of job %d the log knows %v", id, o)
		}
	}
}

// Keys go over, too, of jobs that are gone; and a queue that is the home again is what it was.
func TestCedeKeysAndKeep(t *testing.T) {
	p := newShop(t, 20, jobRules{})
	p.pushJob(&p.from.senderQueue, p.newJob([]byte("x"), &terms{key: "k"}))
	p.cede("b@host", func() {})
	p.keepOn()
	p.sends(p.from, "after")
	p.counts(2, 0, 0, 0)
	p.takes(2)
	p.cede("b@host", func() {})
	keys := p.goneKeys()
	if !p.bare() || len(keys) != 1 || keys[0].key() != "k" || keys[0].state != keyAlone {
		t.Fatalf("%v", keys)
	}
	to := newShop(t, 20, jobRules{})
	for range 2 {
		to.pushJob(&to.from.senderQueue, to.newJob(nil, &terms{key: "k", handed: &handedTerms{sent: keys[0].sent, state: keyAlone}}))
		to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: "k"}))
	}
	to.counts(0, 0, 0, 0)
	if to.from.settled != 4 {
		t.Errorf("%d of 4 are confirmed", to.from.settled)
	}
	to.later(onceFor + time.Second)
	to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: "k"}))
	to.counts(1, 0, 0, 0)
}

// A key that is handed over is confirmed when it is kept; and whoever reads the log knows it.
func TestCedeKeysThatAreKept(t *testing.T) {
	log := new(opLog)
	to := newShop(t, 20, jobRules{})
	to.keepBy(log)
	to.pushJob(&to.from.senderQueue, to.newJob(nil, &terms{key: "k", handed: &handedTerms{sent: to.now.UnixNano(), state: keyAlone}}))
	to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: "k"}))
	if len(log.ops) != 1 || log.ops[0].kind != opGone || log.ops[0].text != "k" || log.ops[0].id != to.lastID || to.from.settled > 0 {
		t.Fatalf("the log was told %v, and %d are confirmed", log.ops, to.from.settled)
	}
	if to.committed(0, 1); to.from.settled != 2 {
		t.Errorf("%d of 2 are confirmed", to.from.settled)
	}
	to.counts(0, 0, 0, 0)
}

// Who had a queue open that was ceded is told so for good, also where it is here again before all have heard of it;
// others find it as it was.
func TestCedeEndsWhoHadItOpen(t *testing.T) {
	p := newShop(t, 1, jobRules{})
	p.takeTurns(func(resumer) {})
	p.sends(p.from, "first")
	var told []*senderQueue
	for range 2 * settleMost {
		l := p.worker()
		p.push(&l.senderQueue, []byte("waits"))
		told = append(told, &l.senderQueue)
	}
	p.cede("b@host", func() {})
	p.keepOn()
	for i, l := range told {
		if p.ended(l) == nil || l.chunks.len() > 0 {
			t.Fatalf("sender %d of a queue that was ceded: %v, %d chunks", i, p.ended(l), l.chunks.len())
		}
	}
	p.takes(1)
	l := p.worker()
	p.push(&l.senderQueue, []byte("after"))
	if p.ended(&l.senderQueue) != nil || l.settled != 1 {
		t.Errorf("a new sender: %v, %d taken", p.ended(&l.senderQueue), l.settled)
	}
	p.renew(told[0])
	if p.ended(told[0]) != nil || !told[0].empty() {
		t.Error("it is not as new")
	}
}

// Two jobs of one key that were sent long after each other are two, in whichever order they are handed over.
func TestCedeOldJobOfTheSameKey(t *testing.T) {
	for _, newFirst := range []bool{false, true} {
		to := newShop(t, 20, jobRules{})
		sent := []int64{to.now.Add(-onceFor - time.Minute).UnixNano(), to.now.UnixNano()}
		if newFirst {
			sent[0], sent[1] = sent[1], sent[0]
		}
		for range 2 {
			for _, at := range sent {
				to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: "k", handed: &handedTerms{sent: at, deliveries: 1}}))
			}
		}
		to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: "k"}))
		// The later one once, and the earlier one, which nobody remembers, each time.
		if to.count != 3 || to.from.settled != 5 {
			t.Errorf("%d jobs, %d of 5 confirmed", to.count, to.from.settled)
		}
	}
}

// Ten minutes after it was sent, a key that was handed over is free again, also where it came behind younger ones.
func TestCedeKeyBehindYoungerOnes(t *testing.T) {
	to := newShop(t, 20, jobRules{})
	sends := func(key string, handed *handedTerms) {
		to.pushJob(&to.from.senderQueue, to.newJob([]byte("x"), &terms{key: key, handed: handed}))
	}
	sends("younger", nil)
	sends("k", &handedTerms{sent: to.now.Add(-onceFor + time.Minute).UnixNano()})
	to.later(time.Minute)
	sends("k", nil)
	to.counts(2, 0, 0, 0)
	to.later(1)
	sends("k", nil)
	sends("k", nil) // and it is remembered
	to.counts(3, 0, 0, 0)
	if to.later(onceFor + 1); len(to.once.ids) != 0 || to.once.held != 0 {
		t.Errorf("%d keys are left, which cost %d bytes", len(to.once.ids), to.once.held)
	}
}

// A queue that can't be read is what it was when it is at home again.
func TestKeepOnOfWhatCannotBeRead(t *testing.T) {
	s := roomFor(100)
	s.end(cause{causeBrokerGone, "the disk is bad"}, false)
	s.cede("b@host", func() {})
	s.keepOn()
	if why := s.away(); s.ceded || s.homeAt != "" || why == nil || why.text != "the disk is bad" {
		t.Errorf("it is at %q, and away: %v", s.homeAt, why)
	}
}
