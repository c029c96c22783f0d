package zpipes

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A jobsWorld is a chunkQueue with workers, and at times with a log. What a log was told is
// what is there: that is how the model knows.
type jobsWorld struct {
	*sim
	s       *chunkQueue
	rules   jobRules
	keeps   bool // there is a log
	senders []*sender
	workers []*jobsWorker
	told    map[uint64]*jobOp // by the log: what was last said of each job
	bodies  map[uint64]job    // that the log has
	wanted  []uint64          // of them
	puts    int               // that are not committed
	others  int
	noted   int                // others that were appended, ever
	tends   int                // that are under way
	counted map[uint64]int     // which of them was the last delivery of a job
	sent    int                // numbers the jobs
	by      map[string]*sender // who has sent them
	newest  map[*sender]uint64 // of its jobs that are sent at once: the last that was handed out
	keys    map[string]uint64  // of jobs that were sent of late: their ids
	open    map[uint64]bool    // committed
	out     []*job             // with a Receive
	user    *account           // pays for the memory
	count   map[string]int
}

type jobsWorker struct {
	senderQueue
	w     *jobsWorld
	has   map[uint64]job // and is not told that they are lost
	past  []job          // that it had
	waits bool
	acted int64
}

func newJobsWorld(s *sim, count map[string]int) *jobsWorld {
	w := &jobsWorld{sim: s, told: make(map[uint64]*jobOp), bodies: make(map[uint64]job), by: make(map[string]*sender), newest: make(map[*sender]uint64), keys: make(map[string]uint64), counted: make(map[uint64]int), open: make(map[uint64]bool), count: count}
	memory := []int{2, 5, 20}[w.r.IntN(3)]
	w.s = newChunkQueue("q", memory*leastChunk, jobsRoom, w.now)
	w.s.tellTime(&clock{now: func() time.Time { return w.now }, stamp: func() int64 { return w.now.UnixNano() }}, nil)
	if w.r.IntN(3) > 0 {
		w.rules = jobRules{lease: time.Duration(w.r.IntN(3)) * 10 * time.Millisecond, maxDeliveries: w.r.IntN(4)}
	}
	w.s.setRules(w.rules, jobsRoom)
	w.user = &account{whose: "user", limits: defaultPerUser, post: w.post}
	w.s.bill(w.user)
	w.keeps = w.r.IntN(2) > 0
	w.s.keepBy(w) // and says at once that it is committed, if there is none
	return w
}

// append is the log's.
func (w *jobsWorld) append(o jobOp) {
	last := w.told[o.id]
	w.check((o.kind == opPut) == (last == nil), "the log was told %d of job %d", o.kind, o.id)
	switch o.kind {
	case opPut:
		w.puts++
	case opTaken:
		w.check(w.open[o.id], "job %d was handed out, and its put is not committed", o.id)
		w.check(last.kind != opTaken && o.deliveries == last.deliveries+1, "delivery %d of job %d after %d", o.deliveries, o.id, last.deliveries)
		if l := w.by[string(w.bodies[o.id].data)]; last.kind == opPut && last.due == 0 {
			w.check(o.id > w.newest[l], "job %d comes behind job %d of the same sender", o.id, w.newest[l])
			w.newest[l] = o.id
			for id, o := range w.told {
				w.check(o.kind != opReturned || o.due > w.now.UnixNano(), "job %d has come back, and a new one goes before", id)
			}
		}
		w.check(w.rules.maxDeliveries == 0 || int(o.deliveries) <= w.rules.maxDeliveries, "delivery %d of job %d", o.deliveries, o.id)
		w.others++
	default:
		w.others++
	}
	if o.kind == opDone {
		w.count["done"]++
	}
	if o.kind == opPut {
		w.bodies[o.id] = job{data: o.data, sent: o.sent}
	}
	o.data = nil
	w.told[o.id] = &o
	if o.kind != opPut {
		w.noted++
	}
	if o.kind == opTaken {
		w.counted[o.id] = w.noted
	}
}

const jobsRoom = 20 * leastChunk

func (w *jobsWorld) next(id uint64) (uint64, int, bool) {
	for ; id <= w.s.lastID; id++ {
		if o := w.told[id]; o != nil && o.kind == opPut && o.due == 0 && w.open[id] {
			return id, len(w.bodies[id].data), true
		}
	}
	return 0, 0, false
}

func (w *jobsWorld) load(ids []uint64) {
	w.check(len(w.wanted) == 0, "asked for more before the last were brought")
	w.wanted = ids
}

func (w *jobsWorld) bringAll() {
	for len(w.wanted) > 0 {
		w.bring()
	}
}

// bring brings what was asked for.
func (w *jobsWorld) bring() {
	found := make(map[uint64]job)
	for _, id := range w.wanted {
		found[id] = w.bodies[id]
		w.count["loaded"]++
	}
	if w.wanted = nil; len(found) > 0 {
		w.s.loaded(found)
	}
}

func (w *jobsWorld) remove() {}

func (w *jobsWorld) stats() logStats { return logStats{} }

func (w *jobsWorld) read([]uint64) (map[uint64]job, error) { return nil, nil }

func (w *jobsWorld) commit(puts, others int) {
	for id, n := w.s.lastID-uint64(w.puts)+1, puts; n > 0; id, n = id+1, n-1 {
		w.open[id] = true
	}
	w.puts, w.others = w.puts-puts, w.others-others
	w.s.committed(puts, others)
}

// tend has told called when so many jobs were concerned, but not before that is committed.
func (w *jobsWorld) tend(what tending, told func(n int)) {
	first, before, upTo := w.s.chores.len() == 0, w.noted, 0
	w.tends++
	w.s.tend(what, func(n int) {
		w.check(n == 0 || w.noted-w.others >= upTo, "%d jobs are said to be dealt with, and that is not committed", n)
		w.tends--
		told(n)
	})
	if first {
		upTo = w.noted
		w.check(w.tends > 0 || upTo == before, "jobs are said to be dealt with at once, and that is not committed")
	}
}

func (k *jobsWorker) take(j *job) {
	w := k.w
	k.waits = false
	w.check(j != nil, "told of an end that is none")
	w.check(w.told[j.id].kind == opTaken, "job %d is taken, and the log knows nothing", j.id)
	w.check(w.rules.maxDeliveries == 0 || w.counted[j.id] <= w.noted-w.others, "job %d is taken, and that is not committed", j.id)
	w.s.take(j, &k.senderQueue)
	k.has[j.id] = *j
	w.count["taken"]++
}

func (w *jobsWorld) step() {
	defer w.holds()
	r, s := w.r, w.s
	switch n := r.IntN(100); {
	case len(w.workers) == 0 || n < 2 && len(w.workers) < 4:
		k := &jobsWorker{w: w, has: make(map[uint64]job)}
		k.wake = func() {}
		k.lost = func(id uint64, delivery uint32) {
			j, ok := k.has[id]
			w.check(ok && j.deliveries == delivery, "lost job %d, which it did not have", id)
			delete(k.has, id)
			k.past = append(k.past, j)
			w.count["lost"]++
		}
		s.attach(&k.senderQueue)
		w.workers = append(w.workers, k)
	case len(w.senders) == 0 || n < 4 && len(w.senders) < 3:
		w.senders = append(w.senders, s.sender())
	case n < 25:
		w.send(w.senders[r.IntN(len(w.senders))])
	case n < 26:
		i := r.IntN(len(w.senders))
		s.detach(&w.senders[i].senderQueue)
		w.senders = slices.Delete(w.senders, i, i+1)
	case n < 45:
		if k := w.workers[r.IntN(len(w.workers))]; !k.waits {
			k.waits = true
			s.askJob(k)
			s.settle()
		}
	case n < 70:
		w.acts(w.workers[r.IntN(len(w.workers))])
	case n < 72:
		i := r.IntN(len(w.workers))
		k := w.workers[i]
		for d := s.demands.Front(); d != nil; d = d.Next() {
			if d.Value == (jobDemand{k}) {
				s.cancel(d)
				break
			}
		}
		w.workers = slices.Delete(w.workers, i, i+1)
		s.detach(&k.senderQueue)
		w.count["left"]++
	case n < 76:
		if s.demands.Len() == 0 && s.available() {
			w.out = append(w.out, s.next())
		}
	case n < 80:
		w.receives()
	case n < 82:
		what := tendPurgeReady + tending(r.IntN(3))
		state := map[tending]jobState{tendPurgeReady: jobReady, tendPurgeDelayed: jobDelayed, tendPurgeDead: jobDead}[what]
		want := 0
		for _, j := range s.peek(0, 1<<20) {
			if j.state == state {
				want++
			}
		}
		if s.chores.len() > 0 || len(w.wanted) > 0 { // by then there may be others
			want = -1
		}
		w.tend(what, func(n int) {
			w.check(n == want || want < 0, "%d jobs are purged, want %d", n, want)
			w.count["purged"] += n
		})
	case n < 83:
		w.tend(tendRedrive, func(n int) { w.count["redriven"] += n })
	case n < 92:
		w.now = w.now.Add(time.Duration(r.IntN(12)) * time.Millisecond)
		next := s.tick(w.now)
		w.check(next.IsZero() || next.After(w.now), "wants to be called at a time that has passed")
	default:
		if w.keeps {
			w.commit(r.IntN(w.puts+1), r.IntN(w.others+1))
		}
		w.bring()
	}
	for !w.keeps && w.puts+w.others+len(w.wanted) > 0 {
		w.commit(w.puts, w.others)
		w.bring()
	}
}

func (w *jobsWorld) send(l *sender) {
	if l.chunks.len() > 5 {
		return
	}
	w.sent++
	j := &job{data: sixteen(fmt.Sprint(w.sent))}
	switch w.r.IntN(6) {
	case 0:
		j.terms = &terms{due: w.now.Add(time.Duration(w.r.IntN(30)-3) * time.Millisecond).UnixNano()}
		w.count["delayed"]++
	case 1:
		j.terms = &terms{key: fmt.Sprint("key", w.r.IntN(20))}
	}
	w.by[string(j.data)] = l
	w.s.pushJob(&l.senderQueue, j)
}

// acts has a worker say something of a job that it has, or had.
func (w *jobsWorld) acts(k *jobsWorker) {
	var j job
	has := len(k.has) > 0 && w.r.IntN(5) > 0
	switch {
	case has:
		ids := make([]uint64, 0, len(k.has))
		for id := range k.has {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		j = k.has[ids[w.r.IntN(len(ids))]]
	case len(k.past) > 0:
		j = k.past[w.r.IntN(len(k.past))]
		now, again := k.has[j.id]
		has = again && now.deliveries == j.deliveries // after a redrive, or unseen
		w.count["said too late"]++
	default:
		return
	}
	do := act{kind: actKind(1 + w.r.IntN(5)), reason: "rejected"}
	if w.r.IntN(2) == 0 {
		do.delay = time.Duration(1+w.r.IntN(20)) * time.Millisecond
	}
	if has && do.kind != actExtend {
		delete(k.has, j.id)
		k.past = append(k.past, j)
	}
	ok := w.s.act(&k.senderQueue, j.id, j.deliveries, do)
	w.check(ok == has, "act %d on job %d: %v", do.kind, j.id, ok)
	if ok && do.kind != actExtend {
		k.acted++
	}
}

// receives has a chunk that was received be let go, or come back.
func (w *jobsWorld) receives() {
	if len(w.out) == 0 {
		return
	}
	jobs := w.out
	w.out = nil
	switch w.r.IntN(3) {
	case 0:
		for _, j := range jobs {
			w.s.release(j)
		}
		w.s.settle()
	case 1:
		w.s.putBack(jobs, w.r.IntN(len(jobs)+1))
	default:
		w.out = jobs
	}
}

// holds checks what is true after each step: what the log was told is what is there.
func (w *jobsWorld) holds() {
	s := w.s
	seen := make(map[uint64]bool)
	see := func(j *job, kinds ...jobOpKind) {
		o := w.told[j.id]
		w.check(o != nil && slices.Contains(kinds, o.kind) && !seen[j.id], "job %d is in a state that the log does not know, or in two", j.id)
		w.check(o.kind == opPut || o.deliveries == j.deliveries, "job %d was handed out %d times, the log says %d", j.id, j.deliveries, o.deliveries)
		seen[j.id] = true
	}
	for _, j := range s.front.all() {
		see(j, opReturned, opPut)
	}
	for _, l := range s.ready.all() {
		for _, j := range l.line.all() {
			see(j, opPut)
		}
	}
	for _, j := range s.disk.line.all() {
		see(j, opPut)
	}
	for _, j := range s.resting(0, math.MaxInt) {
		see(j, opPut, opReturned)
	}
	for _, j := range w.out {
		see(j, opTaken)
	}
	for _, p := range s.putting.all() {
		if !p.again {
			see(p.job, opPut)
		}
	}
	many := [jobStates]int{jobTaken: len(w.out) + s.counting}
	for _, n := range s.noting.all() {
		if n.counted != nil {
			see(n.counted, opTaken)
		}
	}
	for _, a := range s.aside {
		many[a.state]++
		switch a.state {
		case jobTaken:
			see(a.job, opTaken)
		case jobDelayed:
			see(a.job, opPut, opReturned)
		case jobDead:
			see(a.job, opDead)
		}
		w.check(a.at == 0 || s.see(a).at > w.now.UnixNano(), "job %d has a time that has passed", a.id)
		w.check((a.at > 0) == (a.place > 0), "job %d has the time %d and the place %d", a.id, a.at, a.place)
	}
	w.check(many == s.many, "the states are counted as %v, should be %v", s.many, many)
	there := 0
	for id, o := range w.told {
		if o.kind == opDone {
			w.check(!seen[id], "job %d is done, and there", id)
			continue
		}
		there++
		w.check(seen[id], "job %d is nowhere; the log was last told %d", id, o.kind)
	}
	w.check(s.count == there && s.held == there*leastChunk, "%d jobs and %d bytes are counted, should be %d", s.count, s.held, there)
	w.check(s.held <= jobsRoom, "%d bytes are held", s.held)
	w.check(int(w.user.held.Load()) == s.costs()+s.once.held && s.paid == s.costs(), "the user pays for %d bytes, the queue costs %d and %d", w.user.held.Load(), s.costs(), s.once.held)
	inMemory := s.disk.line.len() + s.front.len() - s.disk.missing
	for _, l := range s.ready.all() {
		inMemory += l.line.len()
	}
	w.check(s.disk.waiting == inMemory*leastChunk && s.disk.unsure == w.puts*leastChunk, "%d bytes are in memory, %d unsure; %d jobs are", s.disk.waiting, s.disk.unsure, inMemory)
	w.check(s.disk.unsure <= max(s.limit, leastChunk), "%d bytes are in memory and not committed", s.disk.unsure)
	w.check(len(w.wanted) > 0 || s.available() || s.disk.jobs+s.disk.missing+s.disk.wanted.len() == 0, "what is on the disk is not loaded")
	w.check(s.demands.Len() == 0 || !s.available() || s.counts() && (s.counting >= s.demands.Len() || s.writing >= muchDelivered), "somebody waits for what is there")
	for _, k := range w.workers {
		w.check(len(k.has) == k.senderQueue.has.n, "a worker has %d jobs, and %d by its own count", k.senderQueue.has.n, len(k.has))
		w.check(k.acts <= k.acted && (w.others > 0 || k.acts == k.acted), "a worker was told of %d acts of %d", k.acts, k.acted)
	}
}

// end has all leave; what is not done is there, and comes out once.
func (w *jobsWorld) end() {
	w.s.demands.Init()
	for _, k := range w.workers {
		w.s.detach(&k.senderQueue)
	}
	for _, l := range w.senders {
		w.s.detach(&l.senderQueue)
	}
	w.workers, w.senders = nil, nil
	w.s.putBack(w.out, 0)
	w.out = nil
	for w.puts+w.others > 0 {
		w.commit(w.puts, w.others)
	}
	w.holds()
	w.s.tick(w.now.Add(time.Hour))
	w.tend(tendRedrive, func(int) {})
	w.s.setRules(jobRules{}, jobsRoom)
	w.rules = jobRules{}
	w.bringAll()
	for w.s.available() || w.puts+w.others > 0 {
		if w.s.available() {
			w.s.release(w.s.next())
			w.s.settle()
		} else {
			w.commit(w.puts, w.others)
		}
		w.bringAll()
	}
	w.holds()
	w.check(w.tends == 0, "%d purges and redrives have no end", w.tends)
	w.check(w.s.count == 0 && w.s.in == w.s.out && len(w.s.aside) == 0, "%d jobs are left, %d bytes in and %d out, %v", w.s.count, w.s.in, w.s.out, w.s.many)
}
