package zpipes

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
	p.purge(jobDelayed)
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
	p.redrive()
	log.bring()
	checkChunks(t, p.takes(1), "abcdefghijklmnopqrstuvwxyz")
	if p.held != 0 || p.bytes != 0 || p.count != 0 || p.in != p.out {
		t.Errorf("%d bytes are held, %d there, %d jobs; %d came and %d went", p.held, p.bytes, p.count, p.in, p.out)
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
