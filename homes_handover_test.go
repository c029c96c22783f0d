//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A broker that ends hands what is in its memory over, as it is: a job that somebody has comes back.
func TestQueueHandedOverByABrokerThatEnds(t *testing.T) {
	c := newClusterRig(t, 2, 10*time.Second)
	a, b := c.at(0), c.at(1)
	qa := a.configured("q", QueueConfig{MaxDeliveries: 2})
	qb := b.queue("q")
	a.ok(qa.SendOnce(t.Context(), "done", []byte("done")))
	a.flush(qa)
	b.ok(b.takes(qb, "done", 1).Done())
	b.flush(qb)
	a.send(qa, "worn", "ready")
	a.ok(qa.SendAfter(t.Context(), time.Hour, []byte("later")))
	a.flush(qa)
	b.ok(b.takes(qb, "worn", 1).Return(0))
	b.flush(qb)
	taken := b.takes(qb, "worn", 2)
	c.brokers[0].Close()
	if err := errors.Join(taken.Done(), qb.Flush(t.Context())); err == nil {
		t.Error("a job that has come back is done")
	}
	if _, err := qb.Receive(t.Context()); !errors.Is(err, ErrBrokerGone) {
		t.Errorf("Receive at the home that has ended: %v", err)
	}
	if at := c.homes("q"); len(at) != 1 || at[0] != 1 {
		t.Errorf("homes at %v", at)
	}
	qb = b.queue("q")
	b.peeks("q", "ready ready 0", "delayed later 0", "dead worn 2")
	b.ok(qb.SendOnce(t.Context(), "done", []byte("done")))
	b.flush(qb)
	b.receives(qb, "ready")
	b.receivesNothing(qb, 20*time.Millisecond)
	b.send(qb, "once more")
	b.flush(qb)
	b.ok(b.takes(qb, "once more", 1).Return(0))
	b.ok(b.takes(qb, "once more", 2).Return(0)) // and is dead
	b.flush(qb)
	b.takesNothing(qb, 20*time.Millisecond)
}

// When all brokers are started again, one after the other, nothing that waits is lost.
func TestQueuesOutliveARollingRestart(t *testing.T) {
	c := newClusterRig(t, 2, 10*time.Second)
	const queues = 100
	for i := range queues {
		q := c.at(i % 2).queue(fmt.Sprint("q", i))
		c.at(0).send(q, "x")
		c.at(0).ok(q.Close())
	}
	for i := range c.brokers {
		c.brokers[i].Close()
		c.brokers[i] = c.broker(t)
		c.awaitLinks(t, c.brokers...)
	}
	r := c.at(0)
	for i := range queues {
		q := r.queue(fmt.Sprint("q", i))
		r.receives(q, "x")
		r.ok(q.Close())
	}
}

// A broker that leaves its cluster leaves to it what it has in memory; what somebody works on is here until that is done.
func TestQueuesOfABrokerThatLeaves(t *testing.T) {
	c := newClusterRig(t, 2, 10*time.Second)
	a, b := c.at(0), c.at(1)
	qa, work := a.queue("q"), a.queue("work")
	a.send(qa, "x")
	a.send(work, "job")
	a.flush(qa)
	a.flush(work)
	j := a.takes(work, "job", 1)
	a.ok(a.client.LeaveCluster(t.Context()))
	eventually(t, "it has left", func() bool { return len(c.brokers[0].members()) == 1 })
	b.receives(b.queue("q"), "x")
	a.ok(j.Return(0))
	a.receives(a.queue("work"), "job")
	a.receivesNothing(a.queue("q"), 20*time.Millisecond)
}
