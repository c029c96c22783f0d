package zpipes

import (
	"fmt"
	"testing"
	"time"
)

// A stepShop is a shop whose queue does what is much in steps.
type stepShop struct {
	*shop
	posted []resumer
}

func newStepShop(t *testing.T, room int) *stepShop {
	p := &stepShop{shop: newShop(t, room, jobRules{})}
	p.takeTurns(func(x resumer) { p.posted = append(p.posted, x) })
	return p
}

// finish has it do all steps. In none of them may much happen, which is what changes far.
func (p *stepShop) finish(far func() int) {
	p.Helper()
	for len(p.posted) > 0 {
		p.posted = p.posted[1:]
		before := far()
		p.resume(p.now)
		if n := far() - before; n > settleMost+1 || n < -settleMost-1 {
			p.Errorf("%d in one step", n)
		}
	}
}

// fill puts so many jobs in, each of which is in that state then.
func (p *stepShop) fill(n int, state jobState) {
	p.Helper()
	w := p.worker()
	for i := range n {
		j := &job{data: sixteen(fmt.Sprint(i))}
		if state == jobDelayed {
			j.terms = &terms{due: p.now.Add(time.Hour).UnixNano()}
		}
		p.pushJob(&p.from.senderQueue, j)
		if state == jobDead {
			p.says(w, p.gets(w, fmt.Sprint(i), 1), act{kind: actReject}, true)
		}
	}
}

// Very many jobs are purged, and driven again, in steps. What was dealt with once is not again.
func TestJobsAreTendedInSteps(t *testing.T) {
	const all = 5*settleMost + 1
	for name, c := range map[string]struct {
		what  tending
		state jobState
	}{
		"purge ready": {tendPurgeReady, jobReady}, "purge delayed": {tendPurgeDelayed, jobDelayed},
		"purge dead": {tendPurgeDead, jobDead}, "redrive": {tendRedrive, jobDead},
	} {
		t.Run(name, func(t *testing.T) {
			p := newStepShop(t, 2*all)
			p.fill(all, c.state)
			p.finish(func() int { return 0 })
			var n []int
			done := func(k int) { n = append(n, k) }
			p.tend(c.what, done)
			p.tend(c.what, done)
			if len(n) > 0 {
				t.Fatal("there was one step")
			}
			p.finish(func() int { return p.count - p.many[jobDead] })
			if len(n) != 2 || n[0] != all || n[1] != 0 {
				t.Fatalf("%v of %d jobs were dealt with", n, all)
			}
			if p.many[jobDelayed]+p.many[jobDead] > 0 || c.what != tendRedrive && (p.count != 0 || p.held != 0) {
				t.Errorf("%d are left, in %v", p.count, p.many)
			}
			if c.what == tendRedrive {
				w := p.worker()
				for i := range all {
					p.gets(w, fmt.Sprint(i), 1)
				}
			}
		})
	}
}

// What is purged of a queue on the disk goes with what can be committed: the log is not told of millions
// at once.
func TestKeptJobsArePurgedAsTheLogFollows(t *testing.T) {
	const all = 2*mostNoted + 1
	p := newShop(t, all, jobRules{})
	log := &opLog{}
	p.keepBy(log)
	for i := range all {
		p.sends(p.from, fmt.Sprint(i))
	}
	p.committed(all, 0)
	n := -1
	p.tend(tendPurgeReady, func(k int) { n = k })
	turns := 0
	for ; p.noting.len() > 0; turns++ {
		if p.noting.len() > mostNoted {
			t.Fatalf("the log was told of %d at once", p.noting.len())
		}
		if n >= 0 {
			t.Fatalf("%d are purged, though %d are not committed", n, p.noting.len())
		}
		p.committed(0, p.noting.len())
	}
	if turns < all/mostNoted || n != all || p.count != 0 || p.held != 0 || p.costs() != 0 {
		t.Errorf("%d of %d were purged; %d are left, with %d bytes", n, all, p.count, p.costs())
	}
}

// A queue that is gone while it is being purged, or before that is committed, does not say that it is purged: it
// may be back.
func TestPurgedQueueIsDeleted(t *testing.T) {
	const all = 5*settleMost + 1
	p := newStepShop(t, all)
	p.fill(all, jobReady)
	p.finish(func() int { return 0 })
	n := -1
	p.tend(tendPurgeReady, func(k int) { n = k })
	p.end(cause{code: causeDeleted}, false)
	p.finish(func() int { return 0 })
	if n >= 0 {
		t.Errorf("%d were purged", n)
	}

	kept := newShop(t, all, jobRules{})
	kept.keepBy(&opLog{})
	kept.sends(kept.from, "x")
	kept.committed(1, 0)
	told := 0
	kept.tend(tendPurgeReady, func(k int) { n, told = k, told+1 })
	if told > 0 || kept.count > 0 {
		t.Fatalf("it was told %d times, and %d are left", told, kept.count)
	}
	kept.end(cause{code: causeBrokerGone}, false)
	if n >= 0 || told != 1 {
		t.Errorf("it was told %d times, lastly that %d were purged", told, n)
	}
}

// What is purged does not hold up what comes then, though it is not committed yet.
func TestKeptQueueGoesOnBehindAPurge(t *testing.T) {
	p := newShop(t, 100, jobRules{})
	p.keepBy(&opLog{})
	p.sends(p.from, "x")
	p.committed(1, 0)
	var n []int
	done := func(k int) { n = append(n, k) }
	p.tend(tendPurgeReady, done)
	p.tend(tendPurgeDead, done) // which concerns nothing, and is answered in its turn
	p.sends(p.from, "y")
	p.committed(1, 0)
	a := p.worker()
	p.gets(a, "y", 1) // and so there is always something that is not committed
	if len(n) > 0 {
		t.Fatalf("%v were purged, and nothing is committed", n)
	}
	p.committed(0, 1)
	if len(n) != 2 || n[0] != 1 || n[1] != 0 {
		t.Errorf("%v were purged", n)
	}
}

// What a worker leaves comes back in steps, and in order.
func TestJobsOfAWorkerWithManyComeBackInSteps(t *testing.T) {
	const all = 5*settleMost + 1
	p := newStepShop(t, all)
	p.fill(all, jobReady)
	p.finish(func() int { return 0 })
	a := p.worker()
	for i := range all {
		p.gets(a, fmt.Sprint(i), 1)
	}
	p.detach(&a.senderQueue)
	if p.many[jobTaken] == 0 {
		t.Fatal("there was one step")
	}
	p.says(p.worker(), a.jobs[0], act{kind: actDone}, false)
	p.finish(func() int { return p.many[jobTaken] })
	p.counts(all, 0, 0, 0)
	b := p.worker()
	for i := range all {
		p.gets(b, fmt.Sprint(i), 2)
	}
}
