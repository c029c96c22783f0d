package zpipes

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A bodyLog keeps bodies, and brings them when it is told to.
type bodyLog struct {
	opLog
	shop   *shop
	wanted []uint64
}

func (l *bodyLog) load(ids []uint64) { l.wanted = ids }

func (l *bodyLog) bring() {
	bodies := make(map[uint64]job)
	for _, o := range l.ops {
		if o.kind == opPut && slices.Contains(l.wanted, o.id) {
			bodies[o.id] = job{data: o.data, sent: o.sent}
		}
	}
	l.wanted = nil
	l.shop.loaded(bodies)
}

// Who has made a durable queue pays for what it has in memory: bodies, and jobs that it has at hand.
// Beyond that, senders wait.
func TestKeptJobsCostMemory(t *testing.T) {
	user := &account{whose: "user", limits: Limits{Pending: 20 * asideJob}, post: func(resumer) {}}
	p := newShopOf(t, user, 1000, jobRules{})
	p.keepBy(&opLog{})
	for i := range 30 {
		p.pushJob(&p.from.senderQueue, &job{data: sixteen(fmt.Sprint(i)), terms: &terms{due: p.now.Add(time.Hour).UnixNano()}})
		p.committed(1, 0)
	}
	if n := p.many[jobDelayed]; n < 10 || n > 20 || p.from.settled != int64(n) {
		t.Fatalf("%d jobs are delayed, %d confirmed; there is room for some 18", n, p.from.settled)
	}
	if held := user.held.Load(); int(held) != p.costs() || held > user.limits.Pending {
		t.Errorf("the user pays for %d bytes, the queue costs %d", held, p.costs())
	}
	before := p.from.settled
	p.tends(tendPurgeDelayed)
	if p.recheck(); p.from.settled == before && p.putting.len() == 0 {
		t.Error("there is room, and nothing more is taken")
	}
	p.end(cause{code: causeDeleted}, false)
	if user.held.Load() != 0 {
		t.Errorf("the user pays for %d bytes of nothing", user.held.Load())
	}
}

// A reader of bytes that has the beginning of a job, and leaves, leaves the rest, which is no more and no
// less though the disk has all of it.
func TestKeptJobOfWhichTheBeginningIsRead(t *testing.T) {
	p := newShop(t, 1000, jobRules{maxDeliveries: 1})
	log := &bodyLog{shop: p}
	p.keepBy(log)
	p.push(&p.from.senderQueue, []byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	p.committed(1, 0)
	j := p.next()
	p.lend(j)
	p.reclaim([]*job{j}, 10)
	p.putBack([]*job{j}, 1) // which was its last delivery
	p.counts(0, 0, 0, 1)
	if p.held != 26 || p.bytes != 26 {
		t.Fatalf("%d bytes are held, %d there", p.held, p.bytes)
	}
	p.tends(tendRedrive)
	log.bring()
	checkChunks(t, p.takes(1), "abcdefghijklmnopqrstuvwxyz")
	if p.held != 0 || p.bytes != 0 || p.count != 0 || p.in != p.out {
		t.Errorf("%d bytes are held, %d there, %d jobs; %d came and %d went", p.held, p.bytes, p.count, p.in, p.out)
	}
}

// A job that comes back goes before all others, though its body is on the disk and theirs are not; so does
// one that is due, or driven again, before those that were not handed out yet.
func TestKeptJobsComeBackInOrder(t *testing.T) {
	p := newShop(t, 9, jobRules{})
	log := &bodyLog{shop: p}
	p.keepBy(log)
	a, b := p.worker(), p.worker()
	p.sends(p.from, "1", "2", "3", "4", "5")
	p.committed(5, 0)
	one, two, three := p.gets(a, "1", 1), p.gets(a, "2", 1), p.gets(a, "3", 1)
	p.says(a, three, act{kind: actReject}, true)
	p.says(a, two, act{kind: actReturn, delay: time.Second}, true)
	p.tends(tendRedrive)
	p.later(time.Second)
	p.says(a, one, act{kind: actReturn}, true)
	for _, want := range []struct {
		name     string
		delivery uint32
	}{{"1", 2}, {"3", 1}, {"2", 2}} {
		n := len(b.jobs)
		p.demand(b)
		for len(b.jobs) == n && log.wanted != nil {
			log.bring()
		}
		if len(b.jobs) == n || b.jobs[n].short() != want.name || b.jobs[n].deliveries != want.delivery {
			t.Fatalf("%d jobs came of %d, want %q next", len(b.jobs), n+1, want.name)
		}
	}
	p.gets(b, "4", 1)
	p.sends(p.from, "6")
	p.committed(1, 0)
	p.detach(&b.senderQueue) // with 1, 3, 2 and 4
	for log.wanted != nil {
		log.bring()
	}
	for _, name := range []string{"1", "2", "3", "4", "5", "6"} {
		n := len(a.jobs)
		if p.demand(a); len(a.jobs) == n || a.jobs[n].short() != name {
			t.Fatalf("%d jobs came, want %q next", len(a.jobs), name)
		}
	}
	if d := &p.disk; d.missing != 0 || d.wanted.len() != 0 || d.waiting != 0 {
		t.Errorf("%d and %d are missing, %d bytes are in memory", d.missing, d.wanted.len(), d.waiting)
	}
}

// Jobs whose time has passed when they are committed are no more in memory than others.
func TestKeptJobsPastDueDoNotFillTheMemory(t *testing.T) {
	p := newShop(t, 4, jobRules{})
	p.setRules(jobRules{}, 100*leastChunk)
	log := &bodyLog{shop: p}
	p.keepBy(log)
	for i := range 50 {
		p.pushJob(&p.from.senderQueue, &job{data: sixteen(fmt.Sprint(i)), terms: &terms{due: p.now.Add(time.Second).UnixNano()}})
		p.now = p.now.Add(2 * time.Second)
		p.committed(1, 0)
		if p.disk.waiting > p.limit {
			t.Fatalf("%d bytes of %d jobs are in memory", p.disk.waiting, i+1)
		}
	}
	seen := make(map[string]bool)
	for range 50 {
		for !p.available() && log.wanted != nil {
			log.bring()
		}
		seen[fmt.Sprint(p.takes(1))] = true
	}
	if len(seen) != 50 || p.count != 0 || p.disk.waiting != 0 {
		t.Errorf("%d of 50 came out; %d are left, with %d bytes in memory", len(seen), p.count, p.disk.waiting)
	}
}

// With MaxDeliveries, a Take gets a job when it is written down that it does; one that was given up
// meanwhile has had no delivery.
func TestKeptJobsAreCountedBeforeTheyAreTaken(t *testing.T) {
	p := newShop(t, 9, jobRules{maxDeliveries: 2})
	log := &opLog{}
	p.keepBy(log)
	a, b := p.worker(), p.worker()
	p.sends(p.from, "1", "2", "3")
	p.committed(3, 0)
	given := p.askJob(a)
	p.askJob(b)
	p.settle()
	if len(a.jobs)+len(b.jobs) > 0 || len(log.ops) != 5 || log.ops[3].kind != opTaken || log.ops[4].kind != opTaken {
		t.Fatalf("%d and %d jobs are taken; the log was told %+v", len(a.jobs), len(b.jobs), log.ops)
	}
	p.cancel(given)
	p.settle()
	p.counts(1, 2, 0, 0)
	p.committed(0, 2)
	if len(a.jobs) != 0 || len(b.jobs) != 1 || b.jobs[0].short() != "1" || b.jobs[0].deliveries != 1 {
		t.Fatalf("%d and %d jobs are taken", len(a.jobs), len(b.jobs))
	}
	if last := log.ops[len(log.ops)-1]; last.kind != opReturned || last.id != 2 || last.deliveries != 0 {
		t.Errorf("the log was told %+v of what nobody has got", last)
	}
	p.counts(2, 1, 0, 0)
	p.askJob(a)
	p.askJob(a)
	p.settle()
	p.committed(0, p.noting.len())
	if len(a.jobs) != 2 || a.jobs[0].short() != "2" || a.jobs[0].deliveries != 1 || a.jobs[1].short() != "3" {
		t.Fatalf("%d jobs are taken", len(a.jobs))
	}
	p.askJob(b)
	p.settle()
	p.end(cause{code: causeDeleted}, false)
	p.committed(0, 0)
	if p.counting != 0 || p.demands.Len() != 0 {
		t.Errorf("%d are being counted, %d wait", p.counting, p.demands.Len())
	}
}

func TestJobsKeysAreForgottenInTime(t *testing.T) {
	user := &account{whose: "user", limits: defaultPerUser, post: func(resumer) {}}
	p := newShopOf(t, user, 9, jobRules{})
	for i := range 3 {
		p.pushJob(&p.from.senderQueue, &job{data: sixteen(fmt.Sprint(i)), terms: &terms{key: fmt.Sprint(i)}})
		p.now = p.now.Add(time.Minute)
	}
	p.takes(3)
	if p.roused.IsZero() || user.held.Load() == 0 {
		t.Fatalf("nobody is to look after the keys (%v), which cost %d bytes", p.roused, user.held.Load())
	}
	for n := 3; n > 0; n-- {
		if len(p.once.ids) != n {
			t.Fatalf("%d keys are kept, want %d", len(p.once.ids), n)
		}
		p.now = p.roused
		p.roused = p.tick(p.now)
	}
	if !p.roused.IsZero() || user.held.Load() != 0 || len(p.once.ids) != 0 {
		t.Errorf("in the end %d keys are kept, and cost %d bytes", len(p.once.ids), user.held.Load())
	}
}

// So does one at very many that wait for something, without going over all of them for each piece; and those that are
// taken meanwhile are seen, too.
func TestVeryManyJobsArePeekedAt(t *testing.T) {
	const many = 4 * asideAhead
	p := newShop(t, many, jobRules{})
	a := p.worker()
	for i := range many {
		j := &job{data: sixteen(fmt.Sprint(i))}
		if i%4 > 0 {
			j.terms = &terms{due: p.now.Add(time.Hour).UnixNano()}
		}
		p.pushJob(&p.from.senderQueue, j)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	looks, ahead := 0, p.ahead
	for last := uint64(0); last < many; {
		all := p.peek(last, 1000*leastChunk)
		for _, j := range all {
			if j.id != last+1 {
				t.Fatalf("job %d comes behind %d", j.id, last)
			}
			last = j.id
		}
		if p.ahead != nil && p.ahead != ahead {
			ahead = p.ahead
			looks++
		}
		for range 500 { // which go from the line to the worker, some of them ahead
			p.demand(a)
		}
	}
	if looks > 4 {
		t.Errorf("all were looked at %d times", looks)
	}
	if p.ahead != nil || len(a.jobs) == 0 {
		t.Errorf("in the end it is known what comes next, or none was taken of %d", len(a.jobs))
	}
}

// A look at many jobs comes in pieces, in order, and each job is in one.
func TestJobsArePeekedAtInOrder(t *testing.T) {
	const many = 3000
	p := newShop(t, many, jobRules{})
	a := p.worker()
	for i := range many {
		j := &job{data: sixteen(fmt.Sprint(i))}
		if rand.IntN(3) == 0 {
			j.terms = &terms{due: p.now.Add(time.Hour).UnixNano()}
		}
		p.pushJob(&p.from.senderQueue, j)
	}
	for range many / 5 {
		p.demand(a)
	}
	for i, j := range a.jobs {
		p.says(a, j, act{kind: []actKind{actReject, actReturn, actExtend}[i%3]}, true)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, last := 0, uint64(0)
	for {
		all := p.peek(last, 100*leastChunk)
		if len(all) == 0 {
			break
		}
		if len(all) > 100 {
			t.Fatalf("%d jobs at once", len(all))
		}
		for _, j := range all {
			if j.id != last+1 {
				t.Fatalf("job %d comes behind %d", j.id, last)
			}
			last = j.id
			n++
		}
	}
	if n != many {
		t.Errorf("%d jobs are seen of %d", n, many)
	}
}

// While the disk stands still nothing is handed out without end, though it would come back each time, nor are rules
// written down as often as they change; all of it goes on when the disk does.
func TestKeptQueueBoundsWhatIsUnwritten(t *testing.T) {
	p := newShop(t, 1000, jobRules{})
	log := &bodyLog{shop: p}
	p.keepBy(log)
	p.sends(p.from, "x")
	p.committed(1, 0)
	for n := range 100 {
		p.configure(queueSettings{lease: time.Second + time.Duration(n)*time.Second})
	}
	if p.noting.len() != 1 {
		t.Errorf("rules that change are written down %d times", p.noting.len())
	}
	for range 2 * mostUnwritten {
		if j := p.next(); j != nil {
			p.putBack([]*job{j}, 0)
		}
	}
	if n := p.noting.len(); n < mostUnwritten || n > mostUnwritten+2 {
		t.Errorf("%d operations wait", n)
	}
	w := p.worker()
	p.demand(w)
	if p.many[jobTaken] != 0 {
		t.Error("one more is handed out")
	}
	p.committed(0, p.noting.len())
	if len(w.jobs) != 1 {
		t.Error("whoever waits gets nothing now")
	}
	p.committed(0, p.noting.len())
	if last := log.ops[len(log.ops)-1]; last.kind == opConfig {
		t.Fatal("the rules are written down for ever")
	}
	for i := len(log.ops) - 1; ; i-- {
		if log.ops[i].kind == opConfig {
			if !strings.Contains(string(log.ops[i].data), fmt.Sprint(100*int64(time.Second))) {
				t.Errorf("the rules are kept as %s", log.ops[i].data)
			}
			break
		}
	}
}
