//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// A broker that ends hands what is in its memory over, as it is: a job that somebody has comes back.
func TestQueueHandedOverByABrokerThatEnds(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// Who ends a broker that is just leaving its cluster ends that, too, as if it were alone: what somebody works on comes
// back after a while, and is handed over.
func TestQueuesOfABrokerThatLeavesAndEnds(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 2, 10*time.Second)
	a, b := c.at(0), c.at(1)
	q := a.queue("q")
	a.send(q, "job")
	a.flush(q)
	a.takes(q, "job", 1)
	s := c.brokers[0].pipes.queueNamed("q")
	a.ok(a.client.LeaveCluster(t.Context()))
	eventually(t, "it is ceded", s.isCeded)
	c.brokers[0].Close()
	b.takes(b.queue("q"), "job", 2)
}

// newLoggedRig is a cluster's, and what its first broker logs.
func newLoggedRig(t *testing.T, n int) (*clusterRig, *bytes.Buffer) {
	c, log := &clusterRig{T: t, testCluster: newTestCluster()}, new(bytes.Buffer)
	c.brokers = []*Broker{c.broker(t, func(cfg *BrokerConfig) { cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) })}
	for range n - 1 {
		c.brokers = append(c.brokers, c.broker(t))
	}
	c.awaitLinks(t, c.brokers...)
	return c, log
}

// A broker that ends does not wait for others that have ended, too; and says that an empty queue, which may know keys, was
// not handed over.
func TestHandOverToNobody(t *testing.T) {
	t.Parallel()
	c, log := newLoggedRig(t, 2)
	a, b := c.brokers[0], c.brokers[1]
	c.at(0).queue("q")
	s := a.pipes.queueNamed("q")
	b.pipes.beResigned(true)
	began, ended := time.Now(), make(chan struct{})
	go func() {
		a.Close()
		close(ended)
	}()
	eventually(t, "it is ceded", s.isCeded)
	b.mesh.close()
	<-ended
	if took := time.Since(began); took >= handOverTime {
		t.Errorf("Close has taken %v", took)
	}
	if said := log.String(); !strings.Contains(said, "queues were not handed over") || strings.Contains(said, "are handed over") {
		t.Errorf("the log:\n%s", said)
	}
}

// Where a broker that is linked takes no queue in time, another one does.
func TestHandOverPastABrokerThatTakesNone(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 3, 10*time.Second)
	const queues = 10
	for i := range queues {
		q := c.at(0).queue(fmt.Sprint("q", i))
		c.at(0).send(q, "x")
		c.at(0).ok(q.Close())
	}
	c.takesNoData(c.brokers[0], c.brokers[1])
	c.brokers[0].Close()
	for i := range queues {
		c.at(2).receives(c.at(2).queue(fmt.Sprint("q", i)), "x")
	}
}

// A queue that another broker has made is handed over to that one, also if the connection breaks in between: there is no
// third home.
func TestHandOverGoesOnWhereItHasBegun(t *testing.T) {
	t.Parallel()
	c, log := newLoggedRig(t, 3)
	a, b := c.at(0), c.brokers[0]
	q := a.queue("q")
	a.send(q, "job", "first")
	a.flush(q)
	a.takes(q, "job", 1)
	ended := make(chan struct{})
	go func() {
		b.Close()
		close(ended)
	}()
	at := 0
	eventually(t, "another one has the first of it", func() bool {
		at = 1 + slices.IndexFunc(c.brokers[1:], func(b *Broker) bool {
			s := b.pipes.queueNamed("q")
			if s == nil {
				return false
			}
			info, _ := s.info(time.Now())
			return info.Chunks > 0
		})
		return at > 0
	})
	b.mesh.mu.Lock()
	f := b.mesh.fellows[c.brokers[at].mesh.id]
	k := f.client
	f.client = nil
	b.mesh.mu.Unlock()
	k.abandon()
	<-ended
	if n := strings.Count(log.String(), "the queue has another home"); n != 1 {
		t.Errorf("%d homes:\n%s", n, log.String())
	}
	r := c.at(at)
	q = r.queue("q")
	r.takes(q, "job", 2)
	r.takes(q, "first", 1)
}
