//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patient is for what shows nothing about time: nobody is missed on a busy machine.
var patient = ClientConfig{Timeout: 4 * soon, Heartbeat: soon}

func (r *rig) queue(name string) (q *Queue) {
	r.Helper()
	r.opens(func() (err error) { q, err = r.client.OpenQueue(r.Context(), name); return err })
	r.Cleanup(func() { q.Close() })
	return q
}

// overQueueWays is overWays without the base protocol, which has no queues.
func overQueueWays(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	overWays(t, broker, client, func(r *rig) {
		if r.base {
			r.Skip("the base protocol has no queues")
		}
		test(r)
	})
}

func (r *rig) send(q *Queue, chunks ...string) {
	r.Helper()
	for _, c := range chunks {
		if err := q.Send(r.Context(), []byte(c)); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) flush(q *Queue) {
	r.Helper()
	if err := q.Flush(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) receives(q *Queue, want ...string) {
	r.Helper()
	for _, w := range want {
		ctx, cancel := context.WithTimeout(r.Context(), 4*soon)
		got, err := q.Receive(ctx)
		cancel()
		if err != nil || string(got) != w {
			r.Fatalf("received %.40q, %v; want %.40q", got, err, w)
		}
	}
}

func (r *rig) receivesNothing(q *Queue, wait time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if got, err := q.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		r.Fatalf("received %q, %v; want nothing", got, err)
	}
}

// A tally counts how often each chunk was received.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
	want int
	all  chan struct{} // closed when so many different ones were
}

func newTally(want int) *tally {
	return &tally{seen: make(map[string]int), want: want, all: make(chan struct{})}
}

func (c *tally) add(chunk string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[chunk]++; c.seen[chunk] == 1 && len(c.seen) == c.want {
		close(c.all)
	}
}

// await waits until all have been received. However long that takes, some must come all
// the time.
func (c *tally) await(r *rig) {
	r.Helper()
	for before := -1; ; {
		select {
		case <-c.all:
			return
		case <-time.After(4 * soon):
		}
		c.mu.Lock()
		now := len(c.seen)
		c.mu.Unlock()
		if now == before {
			r.Fatalf("%d chunks of %d were received", now, c.want)
		}
		before = now
	}
}

// once checks that none was received twice.
func (c *tally) once(r *rig) {
	r.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for chunk, n := range c.seen {
		if n != 1 {
			r.Errorf("%q was received %d times", chunk, n)
		}
	}
	if len(c.seen) != c.want {
		r.Errorf("%d chunks were received, want %d", len(c.seen), c.want)
	}
}

// awaitCalls waits until so many Receives wait.
func (q *Queue) awaitCalls(n int) {
	for waiting := -1; waiting < n; runtime.Gosched() {
		q.queue.mu.Lock()
		waiting = q.queue.demands.Len()
		q.queue.mu.Unlock()
	}
}

// numbers sends the numbers below n, and flushes.
func (r *rig) numbers(q *Queue, n int) {
	r.Helper()
	for i := range n {
		r.send(q, strconv.Itoa(i))
	}
	r.flush(q)
}

// receivesRange receives the numbers from first to the one before end, in order.
func (r *rig) receivesRange(q *Queue, first, end int) {
	r.Helper()
	for i := first; i < end; i++ {
		r.receives(q, strconv.Itoa(i))
	}
}

// home waits until nothing is on its way to a Queue, or back.
func (r *rig) home(q *Queue) {
	r.Helper()
	eventually(r, "no chunk stays with a Queue that does not receive", func() bool {
		q.queue.mu.Lock()
		defer q.queue.mu.Unlock()
		return q.link == nil || q.queue.count == 0 && q.link.asked == 0 && !q.link.returning && !q.link.asks()
	})
}

// overBothWays runs a test with a broker of this process, directly and over ipc.
func overBothWays(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig, b *Broker)) {
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, broker)
		r := &rig{T: t, broker: b.Name()}
		r.client = r.newClient(client)
		test(r, b)
	})
	t.Run("ipc", func(t *testing.T) {
		t.Parallel()
		r, b := overWire(t, broker, client)
		test(r, b)
	})
}

// awaitReceivers waits until so many wait for a chunk of the queue.
func (r *rig) awaitReceivers(b *Broker, queue string, n int) {
	r.Helper()
	eventually(r, fmt.Sprintf("%d wait for a chunk", n), func() bool {
		b.pipes.mu.Lock()
		s := b.pipes.queues()[queue]
		b.pipes.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.demands.Len() == n
	})
}

// fillQueue sends so many chunks of 1000 bytes, which must be all that there is room for.
func (r *rig) fillQueue(q *Queue, n int) {
	r.Helper()
	for range n {
		r.send(q, string(make([]byte, 1000)))
	}
	ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
	defer cancel()
	if err := q.Send(ctx, make([]byte, 1000)); !errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("one chunk more than %d: %v", n, err)
	}
}

// awaitClients waits until the broker has dropped all but so many clients.
func (r *rig) awaitClients(b *Broker, n int) {
	r.Helper()
	eventuallyWithin(r, dead+soon, fmt.Sprintf("the broker has %d clients", n), func() bool { return b.Stats().Clients <= n })
}

// queued is how many chunks are in a broker's only queue.
func (r *rig) queued(b *Broker) int {
	r.Helper()
	pipes := slices.Collect(b.Pipes())
	if len(pipes) != 1 {
		r.Fatalf("the pipes are %+v", pipes)
	}
	return pipes[0].Chunks
}

// drain receives from a broker's only queue until it is empty.
func (r *rig) drain(b *Broker, q *Queue) (chunks []string) {
	r.Helper()
	for end := time.Now().Add(dead + soon); r.queued(b) > 0; {
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Millisecond)
		chunk, err := q.Receive(ctx)
		cancel()
		if err == nil {
			chunks = append(chunks, string(chunk))
		} else if !errors.Is(err, context.DeadlineExceeded) || time.Now().After(end) {
			r.Fatalf("%d chunks are in the queue, and Receive: %v", r.queued(b), err)
		}
	}
	return chunks
}
