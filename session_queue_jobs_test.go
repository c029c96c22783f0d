package zpipes

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// jobsHeard is what has come about jobs on a channel, as "JOB 1.1 chunk", "SETTLED 2" and "LOST 0 1.1". A JOBS is several JOBs.
func (l *line) jobsHeard() (all []string) {
	l.heard = slices.DeleteFunc(l.heard, func(frame []byte) bool {
		m, _ := parse(frame)
		job := fmt.Sprintf("%d.%d", m.job.id, m.job.delivery)
		switch m.id {
		case msgJob:
			all = append(all, "JOB "+job+" "+string(m.chunk))
		case msgJobs:
			if !m.eachJob(func(ref wireJob, body []byte) {
				all = append(all, fmt.Sprintf("JOB %d.%d %s", ref.id, ref.delivery, body))
			}) {
				all = append(all, fmt.Sprintf("JOBS with %q", m.chunk))
			}
		case msgSettled:
			all = append(all, fmt.Sprint("SETTLED ", m.count))
		case msgLost:
			all = append(all, fmt.Sprint("LOST ", m.mode, " ", job))
		default:
			return false
		}
		return true
	})
	return all
}

// tells wants that to have come about jobs, and no more.
func (l *line) tells(want ...string) *line {
	l.stage.t.Helper()
	if got := l.jobsHeard(); !slices.Equal(got, want) {
		l.stage.t.Fatalf("heard %q, want %q", got, want)
	}
	return l
}

func (l *line) wants(n uint32) *line { return l.send(message{id: msgTake, count: n}) }

// settle says what becomes of a job of the queue.
func (l *line) settle(kind actKind, id uint64, delivery uint32) *line {
	s := l.session.channels[l.channel].open.(*queueMember).queue
	return l.send(message{id: msgSettle, mode: byte(kind), job: wireJob{incarnation: s.incarnation, id: id, delivery: delivery}})
}

// done says of jobs of the queue that they are done, each as "id.delivery".
func (l *line) done(jobs ...string) *line {
	m := message{id: msgDone, token: l.session.channels[l.channel].open.(*queueMember).queue.incarnation}
	for _, j := range jobs {
		var ref wireJob
		fmt.Sscanf(j, "%d.%d", &ref.id, &ref.delivery)
		m.chunk = appendDone(m.chunk, ref)
	}
	return l.send(m)
}

// Jobs that are there together come in one message, as far as that holds them, and are said to be done in one; the answers are
// those of as many SETTLEs.
func TestSessionJobsInLots(t *testing.T) {
	st := newStageOf(t, 1<<20, 1<<20)
	jobs := func(l *line) (n, lots int) {
		for _, frame := range l.heard {
			if m, _ := parse(frame); m.id == msgJobs {
				if lots++; len(m.chunk) > maxRecords {
					t.Errorf("a JOBS of %d bytes", len(m.chunk))
				}
			}
		}
		return len(l.jobsHeard()), lots
	}
	a := st.able().on(1).queue("q").opens(modeQueue).put("1", "2", "3").confirms(3).wants(3)
	a.settle(actDone, 2, 1).done("1.1", "2.1", "3.1", "7.1")
	a.tells("JOB 1.1 1", "JOB 2.1 2", "JOB 3.1 3", "SETTLED 1", "SETTLED 1", "LOST 1 2.1", "SETTLED 1", "LOST 1 7.1")
	a.put("4").confirms(1).wants(4)
	if n, lots := jobs(a); n != 1 || lots != 0 {
		t.Errorf("a single job: %d, in %d JOBS", n, lots)
	}
	w := st.able().on(1).queue("many").opens(modeQueue)
	const size, many = maxRecords / 4, 11 // three fit
	for range many {
		w.put(strings.Repeat("x", size))
	}
	w.wants(many)
	if n, lots := jobs(w); n != many || lots < many/4 {
		t.Errorf("%d large jobs came in %d JOBS", n, lots)
	}
	st.sawViolations(0)

	older := st.call()
	older.agreed = true
	older.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities &^ ableLots}}).gets("PING_OK")
	b := older.on(1).queue("q").opens(modeQueue).put("5", "6").confirms(2).wants(2)
	if n, lots := jobs(b); n != 2 || lots != 0 {
		t.Errorf("%d jobs, in %d JOBS for a client of an earlier version", n, lots)
	}
	b.done("5.1", "6.1")
	st.sawViolations(1)
	for _, wrong := range [][]byte{nil, []byte("no whole job"[:11]), make([]byte, doneSize*(maxQueued+1))} {
		st.able().on(1).queue("q").opens(modeQueue).send(message{id: msgDone, chunk: wrong})
		st.sawViolations(1)
	}
}

// Of large jobs whose deliveries are written down before, no more than is much is on its way to a client at once, and
// none while it takes nothing: the others stay in the queue. That a job is lost it is told when it has got that.
func TestSessionLargeJobsThatAreCounted(t *testing.T) {
	const size, lot, many = muchDelivered / 4, 4, 19
	st := newStageOf(t, 2*many*size, size)
	w := st.able().on(1).queue("q").opens(modeQueue)
	s, log := st.pipes.queues()["q"], &opLog{}
	s.keepBy(log)
	s.setRules(jobRules{lease: time.Second, maxDeliveries: 3}, 2*many*size)
	commits := func(puts, others int) {
		s.mu.Lock()
		s.committed(puts, others)
		s.mu.Unlock()
		st.settle()
	}
	for range many {
		w.put(strings.Repeat("x", size))
		commits(1, 0)
		w.confirms(1)
	}
	log.ops = nil
	delivered := func(want int) {
		t.Helper()
		if n := len(log.ops); n != want || slices.ContainsFunc(log.ops, func(o jobOp) bool { return o.kind != opTaken }) {
			t.Fatalf("the log was told %d things, want %d deliveries", n, want)
		}
	}
	got := 0
	gets := func(want int) {
		t.Helper()
		if jobs := w.jobsHeard(); len(jobs) != want {
			t.Fatalf("%d jobs came, want %d", len(jobs), want)
		}
		got += want
	}
	w.wants(many)
	for delivered(lot); got < 2*lot; gets(lot) {
		commits(0, lot)
		delivered(got + 2*lot)
	}
	w.congested = true
	commits(0, lot)
	gets(0)
	delivered(got + lot)
	if n := len(w.session.backlog); n != 1 {
		t.Errorf("%d jobs are kept for a client that takes nothing", n)
	}
	w.relieve()
	gets(lot)
	for delivered(got + lot); got+lot < many; gets(lot) {
		commits(0, lot)
		delivered(min(got+2*lot, many))
	}
	w.congested = true
	commits(0, many-got)
	st.pass(time.Second)
	w.relieve()
	heard := w.jobsHeard()
	if len(heard) != 2*many-got {
		t.Errorf("heard %d things, want %d", len(heard), 2*many-got)
	}
	for i, said := range heard {
		want := fmt.Sprintf("JOB %d.1 ", got+i+1)
		if got+i >= many {
			want = fmt.Sprintf("LOST 0 %d.1", got+i+1-many)
		}
		if !strings.HasPrefix(said, want) {
			t.Errorf("heard %.20q, want %q", said, want)
		}
	}
}

// Answers to SETTLEs keep their order, whatever it is that they were for.
func TestSessionJobsAreSettledInOrder(t *testing.T) {
	st := newStage(t)
	a := st.able().on(1).queue("q").opens(modeQueue).put("1", "2").confirms(2).wants(2).tells("JOB 1.1 1", "JOB 2.1 2")
	a.settle(actDone, 0, 0).tells("LOST 1 0.0")
	a.settle(actDone, 1, 1).tells("SETTLED 1").settle(actDone, 1, 1).tells("LOST 1 1.1")
	a.settle(actExtend, 0, 7).tells("LOST 0 0.7").settle(actExtend, 2, 1).tells()
	for _, kind := range []actKind{actReturn, actUnseen, actReject} {
		a.settle(kind, 0, 1).settle(kind, 3, 1).settle(kind, 2, 2).tells("LOST 1 0.1", "LOST 1 3.1", "LOST 1 2.2")
	}

	// Those that a log has yet to keep hold up what is behind them.
	s := st.pipes.queues()["q"]
	s.keepBy(&opLog{})
	a.settle(actDone, 2, 1).settle(actDone, 0, 0).settle(actDone, 9, 9).tells()
	s.committed(0, 1)
	st.settle()
	a.tells("SETTLED 1", "LOST 1 0.0", "LOST 1 9.9")
	st.sawViolations(0)
	a.settle(0, 1, 1)
	st.sawViolations(1)
}

// A job that nobody has seen was not delivered: it was not sent, or its worker had given up asking.
func TestSessionJobsThatNobodyHasSeen(t *testing.T) {
	for name, leave := range map[string]func(l *line){
		"closed":   func(l *line) { l.close() },
		"vanished": func(l *line) { l.gone() },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			w := st.member("q").put("1", "2", "3", "4").confirms(4)
			a := st.able().on(1).queue("q").opens(modeQueue).wants(3).tells("JOB 1.1 1", "JOB 2.1 2", "JOB 3.1 3")
			a.wants(1) // as if the others had been on their way
			leave(a)
			b := st.able().on(1).queue("q").opens(modeQueue).wants(4).tells("JOB 1.2 1", "JOB 2.1 2", "JOB 3.1 3", "JOB 4.1 4")
			st.held = true
			b.wants(6)
			w.put("5", "6")
			leave(b)
			st.held = false
			st.resume()
			c := st.able().on(1).queue("q").opens(modeQueue).wants(6)
			want := "JOB 1.3 1,JOB 2.2 2,JOB 3.2 3,JOB 4.2 4,JOB 5.1 5,JOB 6.1 6"
			if got := strings.Join(c.jobsHeard(), ","); got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
			st.leavesNothing()
		})
	}
}

// Who leaves while it waits for a job gets none, and what it has goes to others.
func TestSessionJobsOfAWorkerThatVanishes(t *testing.T) {
	st := newStage(t)
	a := st.able().on(1).queue("q").opens(modeQueue)
	b := st.able().on(1).queue("q").opens(modeQueue)
	a.send(message{id: msgTake, count: 2})
	b.send(message{id: msgTake, count: 1})
	a.put("1")
	s := st.pipes.names.find(st.pipes.keyOf("q"), "q").queue
	if s.many[jobTaken] != 1 || s.demands.Len() != 2 || b.session.channels[1].open.(*queueMember).sender.has.n > 0 {
		t.Fatalf("%d are taken, %d wait", s.many[jobTaken], s.demands.Len())
	}
	a.session.drop(cause{code: causeVanished}, nil)
	if s.many[jobTaken] != 1 || s.demands.Len() != 0 {
		t.Fatalf("%d are taken, %d wait", s.many[jobTaken], s.demands.Len())
	}
	for _, x := range s.aside {
		if x.holder == nil || x.deliveries != 2 || x.holder.has.n != 1 || x.holder.left {
			t.Errorf("the job is %+v", x)
		}
	}
}

// A delay is told as it is, up to 68 years; to who does not know that, up to 49 days.
func TestDelaysOnTheWire(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct{ d, known, unknown time.Duration }{
		{-1, 0, 0}, {0, 0, 0}, {1, time.Millisecond, time.Millisecond}, {time.Second, time.Second, time.Second},
		{delaySeconds*time.Millisecond - 1, delaySeconds * time.Millisecond, delaySeconds * time.Millisecond},
		{30*day + 1, 30*day + time.Second, 30*day + time.Millisecond},
		{1000 * day, 1000 * day, math.MaxUint32 * time.Millisecond},
		{math.MaxInt64, (delaySeconds - 1) * time.Second, math.MaxUint32 * time.Millisecond},
	} {
		if got := delayOf(wireDelay(c.d, abilities), abilities); got-c.known >= time.Second || got < c.known {
			t.Errorf("%v is told as %v, want %v", c.d, got, c.known)
		}
		if got := delayOf(wireDelay(c.d, 0), 0); got != c.unknown {
			t.Errorf("%v is told as %v, want %v", c.d, got, c.unknown)
		}
	}
}

// Who was told that nothing comes any more gets nothing that comes back later.
func TestSessionQueueWhatComesBackBehindTheEnd(t *testing.T) {
	st := newStage(t)
	w := st.able().on(1).queue("q").opens(modeQueue).put("x").confirms(1).wants(1).tells("JOB 1.1 x")
	m := st.able().on(1).queue("q").opens(modeQueue).ask(1, 0).waits()
	st.pipes.queues()["q"].end(cause{causeBrokerGone, "over"}, true)
	st.settle()
	m.gets("WRITE_FAILED broker gone", "READ_FAILED broker gone")
	w.gone()
	m.session.channels[1].recheck()
	st.settle()
	m.waits()
	st.checkQueued("q", "x")
	st.leavesNothing()
}
