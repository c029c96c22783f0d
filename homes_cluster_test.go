//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A clusterRig is brokers of a cluster, and clients of them, for tests of queues.
type clusterRig struct {
	*testing.T
	*testCluster
	brokers []*Broker
}

func newClusterRig(t *testing.T, n int, patience time.Duration) *clusterRig {
	c := newTestCluster()
	c.patience = patience
	return &clusterRig{t, c, c.meshed(t, n)}
}

// at is a rig for a client of one of the brokers.
func (c *clusterRig) at(i int) *rig {
	r := &rig{T: c.T, broker: c.brokers[i].Name()}
	r.client = r.newClient(ClientConfig{Timeout: soon})
	return r
}

func (s *chunkQueue) isCeded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ceded
}

// homes are the brokers at which there is a queue of that name.
func (c *clusterRig) homes(name string) (at []int) {
	for i, b := range c.brokers {
		if s := b.pipes.queueNamed(name); s != nil && !s.isCeded() {
			at = append(at, i)
		}
	}
	return at
}

// settled waits until a queue has one home, and nothing is on its way there.
func (c *clusterRig) settled(name string) (home int) {
	c.Helper()
	eventually(c, "one home", func() bool {
		n := 0
		for i, b := range c.brokers {
			if s := b.pipes.queueNamed(name); s != nil {
				home = i
				n++
			}
		}
		return n == 1
	})
	return home
}

// drains receives so many chunks, in any order.
func (r *rig) drains(q *Queue, want ...string) {
	r.Helper()
	var got []string
	for range want {
		ctx, cancel := context.WithTimeout(r.Context(), soon)
		chunk, err := q.Receive(ctx)
		cancel()
		if err != nil {
			r.Fatalf("%v, after %q of %q", err, got, want)
		}
		got = append(got, string(chunk))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.Errorf("%q, want %q", got, want)
	}
}

// Wherever it is opened, it is one queue.
func TestQueueBetweenBrokers(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 3, 10*time.Second)
	a, b, d := c.at(0), c.at(1), c.at(2)
	q := a.queue("q")
	q1, q2 := b.queue("q"), d.queue("q")
	if at := c.homes("q"); !slices.Equal(at, []int{0}) {
		t.Fatalf("homes at %v", at)
	}
	here, err := a.client.Stat(t.Context(), "q")
	if err != nil || here.HomeAt != "" || here.Users != 3 {
		t.Errorf("at the home: %+v, %v", here, err)
	}
	there, err := b.client.Stat(t.Context(), "q")
	if err != nil || there.HomeAt != c.brokers[0].mesh.name || there.Users != 1 || there.Mode != ModeQueue {
		t.Errorf("elsewhere: %+v, %v", there, err)
	}
	a.send(q, "one")
	b.send(q1, "two")
	a.flush(q)
	b.flush(q1)
	d.drains(q2, "one", "two")

	j := make(chan *Job, 1)
	go func() { j <- d.takes(q2, "work", 1) }()
	b.ok(q1.SendOnce(t.Context(), "once", []byte("work")))
	b.flush(q1)
	work := <-j
	a.ok(q.SendOnce(t.Context(), "once", []byte("work")))
	a.flush(q)
	b.peeks("q", "taken work 1")
	d.ok(work.Return(0))
	d.flush(q2)
	work = b.takes(q1, "work", 2)
	b.ok(work.Reject("no"))
	b.flush(q1)
	a.peeks("q", "dead work 2")
	if n, err := d.client.RedriveJobs(t.Context(), "q"); n != 1 || err != nil {
		t.Errorf("redriven: %d, %v", n, err)
	}
	a.ok(a.takes(q, "work", 1).Done())
	b.ok(q1.SendAfter(t.Context(), time.Hour, []byte("later")))
	b.flush(q1)
	if n, err := d.client.PurgeJobs(t.Context(), "q", JobDelayed); n != 1 || err != nil {
		t.Errorf("purged: %d, %v", n, err)
	}

	b.ok(b.client.DeleteQueue(t.Context(), "q"))
	for _, q := range []*Queue{q, q1, q2} {
		if _, err := q.Receive(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Receive from a deleted queue: %v", err)
		}
	}
	for _, r := range []*rig{a, b, d} {
		if err := r.client.DeleteQueue(t.Context(), "q"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("DeleteQueue once more: %v", err)
		}
	}
	d.queue("q")
	if at := c.homes("q"); !slices.Equal(at, []int{2}) {
		t.Errorf("homes at %v", at)
	}
}

// Where brokers that see each other open it at the same time, it has one home all the same, and nobody notices.
func TestQueueOpenedEverywhereAtOnce(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 3, 10*time.Second)
	const names = 20
	var all sync.WaitGroup
	for i := range c.brokers {
		r := c.at(i)
		for n := range names {
			all.Go(func() {
				q, err := r.client.OpenQueue(t.Context(), fmt.Sprint("q", n))
				if err == nil {
					err = errors.Join(q.Send(t.Context(), []byte("x")), q.Close())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	r := c.at(0)
	for n := range names {
		name := fmt.Sprint("q", n)
		if at := c.homes(name); len(at) != 1 {
			t.Errorf("homes of %s at %v", name, at)
		}
		r.receives(r.queue(name), "x", "x", "x")
	}
}

// Where its home is out of reach, it gets another one after the patience; when both meet again, one of them
// hands over all that it has, as it is.
func TestQueueHomesMerge(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 2, time.Second)
	a, b := c.at(0), c.at(1)
	qa, qb := a.queue("q"), b.queue("q")
	a.send(qa, "before")
	a.flush(qa)
	c.cut(c.brokers[0], c.brokers[1])
	if _, err := qb.Receive(t.Context()); !errors.Is(err, ErrBrokerGone) {
		t.Fatalf("Receive without the home: %v", err)
	}
	qb = b.queue("q") // waits
	if at := c.homes("q"); !slices.Equal(at, []int{0, 1}) {
		t.Fatalf("homes at %v", at)
	}
	for _, x := range []struct {
		*rig
		q *Queue
	}{{a, qa}, {b, qb}} {
		here := fmt.Sprint(" at ", x.broker)
		x.ok(x.q.SendOnce(t.Context(), "twice", []byte("twice")))
		x.ok(x.q.SendOnce(t.Context(), "done"+here, []byte("done")))
		x.ok(x.q.SendOnce(t.Context(), "dead"+here, []byte("dead")))
		x.ok(x.q.SendAfter(t.Context(), time.Hour, []byte("later")))
		x.send(x.q, "again", "ready")
		x.flush(x.q)
		for taken := 0; taken < 3; {
			j, err := x.q.Take(t.Context())
			x.ok(err)
			switch taken++; string(j.Data) {
			case "done":
				x.ok(j.Done())
			case "dead":
				x.ok(j.Reject("for a reason"))
			case "again":
				x.ok(j.Return(0))
				x.flush(x.q)
				j, err = x.q.Take(t.Context())
				x.ok(err)
				x.ok(j.Return(time.Hour))
			default:
				x.ok(j.Return(time.Hour))
				taken--
			}
		}
		x.flush(x.q)
	}
	c.heal(c.brokers[0], c.brokers[1])
	home := c.settled("q")
	other := c.at(1 - home)
	var got []string
	for j, err := range other.client.PeekJobs(t.Context(), "q") {
		other.ok(err)
		got = append(got, fmt.Sprint(j.State, " ", string(j.Data), " ", j.Deliveries, " ", j.Reason))
	}
	slices.Sort(got)
	want := []string{
		"dead dead 1 for a reason", "dead dead 1 for a reason",
		"delayed again 2 ", "delayed again 2 ", "delayed before 1 ",
		"delayed later 0 ", "delayed later 0 ", "delayed twice 1 ",
		"ready ready 0 ", "ready ready 0 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("after the merge:\n%q, want\n%q", got, want)
	}
	q := other.queue("q")
	for _, r := range c.brokers {
		other.ok(q.SendOnce(t.Context(), "done at "+r.Name(), []byte("done")))
	}
	other.flush(q)
	other.drains(q, "ready", "ready")
	other.receivesNothing(q, 20*time.Millisecond)
}

// A durable queue is at home again when its broker is back: what another home has got meanwhile goes there.
func TestQueueDurableHomeComesBack(t *testing.T) {
	t.Parallel()
	c := &clusterRig{T: t, testCluster: newTestCluster()}
	dir := t.TempDir()
	keeps := func(cfg *BrokerConfig) { cfg.Dir = dir }
	c.brokers = []*Broker{c.broker(t, keeps), c.broker(t)}
	c.awaitLinks(t, c.brokers...)
	a, b := c.at(0), c.at(1)
	qa := a.configured("q", QueueConfig{Durable: true, MaxDeliveries: 3})
	qb := b.configured("q", QueueConfig{Durable: true})
	b.send(qb, "kept")
	b.flush(qb)
	a.ok(qa.Close())
	c.brokers[0].Close()
	if _, err := qb.Receive(t.Context()); !errors.Is(err, ErrBrokerGone) {
		t.Fatalf("Receive without the home: %v", err)
	}
	qb = b.queue("q")
	b.send(qb, "meanwhile")
	b.flush(qb)
	c.brokers[0] = c.broker(t, keeps)
	if home := c.settled("q"); home != 0 {
		t.Errorf("the home is at broker %d", home)
	}
	qb = b.queue("q")
	b.drains(qb, "kept", "meanwhile")
	if info, err := c.at(0).client.Stat(t.Context(), "q"); err != nil || !info.Durable {
		t.Errorf("%+v, %v", info, err)
	}
}

// Who works on a job at a home that hands over can say what becomes of it; and what comes back goes over, too.
func TestQueueWorkersAtAHomeThatMerges(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 2, time.Second)
	c.cut(c.brokers[0], c.brokers[1])
	rigs := []*rig{c.at(0), c.at(1)}
	var queues []*Queue
	var jobs []*Job
	for i, r := range rigs {
		q := r.queue("q")
		r.send(q, fmt.Sprint("done ", i), fmt.Sprint("returned ", i))
		r.flush(q)
		jobs = append(jobs, r.takes(q, fmt.Sprint("done ", i), 1), r.takes(q, fmt.Sprint("returned ", i), 1))
		queues = append(queues, q)
	}
	c.heal(c.brokers[0], c.brokers[1])
	eventually(t, "one of them cedes", func() bool { return len(c.homes("q")) == 1 })
	home := c.homes("q")[0]
	if err := queues[1-home].Send(t.Context(), []byte("x")); !errors.Is(err, ErrBrokerGone) {
		t.Errorf("Send where the home is not any more: %v", err)
	}
	for i, r := range rigs {
		r.ok(jobs[2*i].Done())
		r.ok(jobs[2*i+1].Return(0))
	}
	if at := c.settled("q"); at != home {
		t.Errorf("the home has moved from %d to %d", home, at)
	}
	q := rigs[1-home].queue("q")
	rigs[1-home].drains(q, "returned 0", "returned 1")
	rigs[1-home].receivesNothing(q, 20*time.Millisecond)
	if _, err := queues[1-home].Take(t.Context()); !errors.Is(err, ErrBrokerGone) {
		t.Errorf("Take where nothing is left: %v", err)
	}
}

// durableAt is a rig of two brokers that don't see each other, each with a queue "q"; what is at the second
// one is durable, so that the first one cedes when they do.
func durableAt(t *testing.T) (c *clusterRig, a *rig, qa *Queue) {
	c = &clusterRig{T: t, testCluster: newTestCluster()}
	c.patience = time.Second
	c.brokers = []*Broker{
		c.broker(t, func(cfg *BrokerConfig) { cfg.Private = true }),
		c.broker(t, func(cfg *BrokerConfig) { cfg.Dir = t.TempDir() }),
	}
	c.awaitLinks(t, c.brokers...)
	c.cut(c.brokers[0], c.brokers[1])
	a = c.at(0)
	qa = a.queue("q")
	c.at(1).configured("q", QueueConfig{Durable: true})
	return c, a, qa
}

// A queue that was to be handed over is here again when its broker has left the cluster.
func TestQueueOfABrokerThatLeavesWhileItMerges(t *testing.T) {
	t.Parallel()
	c, a, qa := durableAt(t)
	a.send(qa, "x")
	a.flush(qa)
	j := a.takes(qa, "x", 1)
	s := c.brokers[0].pipes.queueNamed("q")
	c.heal(c.brokers[0], c.brokers[1])
	eventually(t, "it is ceded", s.isCeded)
	a.ok(a.client.LeaveCluster(t.Context()))
	eventually(t, "it has left", func() bool { return len(c.brokers[0].members()) == 1 })
	q := a.queue("q")
	if err := qa.Send(t.Context(), []byte("y")); !errors.Is(err, ErrBrokerGone) {
		t.Errorf("Send by one who had it open: %v", err)
	}
	a.ok(j.Return(0))
	a.drains(q, "x")
}

// A job that is rotten on the disk, and that nobody wants, stays where it is when its queue is handed over; the others go.
func TestQueueOfWhichAJobIsRottenMerges(t *testing.T) {
	t.Parallel()
	c := &clusterRig{T: t, testCluster: newTestCluster()}
	c.patience = time.Second
	var dirs []string
	for range 2 {
		dir := t.TempDir()
		dirs = append(dirs, dir)
		c.brokers = append(c.brokers, c.broker(t, func(cfg *BrokerConfig) { cfg.Dir = dir }))
	}
	c.awaitLinks(t, c.brokers...)
	c.cut(c.brokers[0], c.brokers[1])
	for i := range c.brokers {
		r := c.at(i)
		q := r.configured("q", QueueConfig{Durable: true})
		r.send(q, "dead, and rotten", "dead", "ready")
		for _, body := range []string{"dead, and rotten", "dead"} {
			r.ok(r.takes(q, body, 1).Reject("for the test"))
		}
		r.flush(q)
		r.ok(q.Close())
		segments, err := filepath.Glob(filepath.Join(dirs[i], "*", "*.log"))
		r.ok(err)
		rot(t, segments, "dead, and rotten")
	}
	queues := []*chunkQueue{c.brokers[0].pipes.queueNamed("q"), c.brokers[1].pipes.queueNamed("q")}
	info := func(i int) PipeInfo {
		info, _ := queues[i].info(time.Now())
		return info
	}
	c.heal(c.brokers[0], c.brokers[1])
	eventually(t, "one of them cedes", func() bool { return len(c.homes("q")) == 1 })
	home := c.homes("q")[0]
	eventually(t, "all that can be read is there", func() bool { return info(home).Dead == 3 && info(1-home).Chunks == 1 })
	r := c.at(1 - home)
	r.drains(r.queue("q"), "ready", "ready")
}

// What can't be read now is not taken for deleted when it is to be handed over.
func TestQueueThatIsVoidWhileItMerges(t *testing.T) {
	t.Parallel()
	c, _, _ := durableAt(t)
	h := c.brokers[0].meets
	s := c.brokers[0].pipes.queueNamed("q")
	s.mu.Lock()
	s.end(cause{causeBrokerGone, "it can't be read"}, false)
	s.mu.Unlock()
	c.heal(c.brokers[0], c.brokers[1])
	eventually(t, "it is ceded", s.isCeded)
	eventually(t, "its mover ends", func() bool {
		n := make(chan int)
		h.exchange.do(func(time.Time) { n <- len(h.movers.of) })
		return <-n == 0
	})
	if c.brokers[0].pipes.queueNamed("q") != s {
		t.Error("it is gone")
	}
}

type stillCarrier struct{}

func (stillCarrier) changed() {}

// What was not passed on in time does not leave any more: it is put back, and who gets it then may change it.
func TestMoveWayThatEnds(t *testing.T) {
	w := &moveWay{queue: newChunkQueue("q", noLimit, 100, time.Time{}), news: make(chan struct{}, 1)}
	w.sender.wake = func() {}
	w.queue.attach(&w.sender)
	w.queue.carryBy(stillCarrier{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	data := []byte("first")
	done := make(chan error)
	go func() {
		_, err := w.pass(ctx, []seenJob{{job: job{data: data}}, {job: job{data: []byte("second")}}})
		done <- err
	}()
	var first *job
	eventually(t, "it is passed on", func() bool {
		w.queue.mu.Lock()
		defer w.queue.mu.Unlock()
		if w.sender.chunks.len() == 2 {
			first = w.queue.carry(&w.sender)
		}
		return first != nil
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	clear(data)
	if string(first.data) != "first" || w.sender.chunks.len() > 0 {
		t.Errorf("%q is on its way, and %d more", first.data, w.sender.chunks.len())
	}
}

// Who reads or writes bytes finds a queue that is elsewhere, too; what has not been read is there again.
func TestQueueOfBytesElsewhere(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 3, 10*time.Second)
	home, direct := c.at(0), c.at(1)
	memory := &rig{T: t, broker: c.brokers[2].Endpoints()[0]}
	memory.client = memory.newClient(ClientConfig{Timeout: soon})
	q := home.queue("q")
	for _, r := range []*rig{direct, memory} {
		w := r.writer("q")
		if _, err := w.Write([]byte("written")); err != nil {
			t.Fatal(err)
		}
		r.ok(w.Close())
		home.receives(q, "written")
		home.send(q, "some", "bytes")
		home.flush(q)
		rd := r.reader("q")
		r.gets(rd, "some")
		r.ok(rd.Close())
		home.receives(q, "bytes")
	}
	if at := c.homes("q"); len(at) != 1 {
		t.Errorf("homes at %v", at)
	}
	// What is no queue is a stream.
	rd, w := direct.reader("p"), memory.writer("p")
	if _, err := w.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	direct.gets(rd, "some")
}

// A broker that can't say in time where a queue is, since its home is out of reach, is not taken for none.
func TestQueueWhoseHomeIsOutOfReach(t *testing.T) {
	t.Parallel()
	c := newClusterRig(t, 2, time.Minute)
	c.at(0).queue("q")
	c.cut(c.brokers[0], c.brokers[1])
	client := newClient(ClientConfig{Timeout: soon}.withDefaults(), "elsewhere", memoryEndpoint(c.brokers[1].Name()), nil)
	defer client.Close()
	_, err := client.Ping(t.Context())
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.OpenQueue(ctx, "q"); !errors.Is(err, ErrNoBroker) || !strings.Contains(err.Error(), "zpipes cluster status") {
		t.Errorf("opening it: %v", err)
	}
}
