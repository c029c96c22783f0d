//go:build cgo

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"
)

func (r *rig) queue(name string) *Queue {
	r.Helper()
	q, err := r.client.OpenQueue(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { q.Close() })
	return q
}

// overQueueWays is overWays without the old protocol, which has no queues.
func overQueueWays(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	overWays(t, broker, client, func(r *rig) {
		if r.old {
			r.Skip("the old protocol has no queues")
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
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
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

func TestQueueKeepsChunks(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		chunks := []string{"one", "", "three", string(noise(1, 300_000)), "five"}
		r.send(q, chunks...)
		r.flush(q)
		r.receives(q, chunks...)
		r.receivesNothing(q, 20*time.Millisecond)
		// A cancelled Receive has lost nothing, and is not in the way.
		r.send(q, "later")
		r.receives(q, "later")
	})
}

func TestQueueOutlivesItsUsers(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		r.send(q, "a", "b", "c")
		if err := q.Close(); err != nil {
			r.Fatal(err)
		}
		q = r.queue("q")
		r.receives(q, "a")
		if err := q.Close(); err != nil {
			r.Fatal(err)
		}
		r.receives(r.queue("q"), "b", "c")
	})
}

func TestQueueIsShared(t *testing.T) {
	const senders, receivers, each = 3, 4, 2000
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		var work sync.WaitGroup
		for s := range senders {
			q := r.queue("q")
			work.Go(func() {
				for i := range each {
					r.send(q, fmt.Sprint(s, " ", i))
				}
				r.flush(q)
			})
		}
		var mu sync.Mutex
		seen := make(map[string]int)
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		for range receivers {
			q := r.queue("q")
			work.Go(func() {
				for chunk, err := range q.All(ctx) {
					if err != nil {
						return
					}
					mu.Lock()
					seen[string(chunk)]++
					if len(seen) == senders*each {
						cancel()
					}
					mu.Unlock()
				}
			})
		}
		work.Wait()
		for chunk, n := range seen {
			if n != 1 {
				r.Errorf("%q was received %d times", chunk, n)
			}
		}
		if len(seen) != senders*each {
			r.Errorf("%d chunks of %d", len(seen), senders*each)
		}
	})
}

func TestQueueDeleted(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		r.send(q, "x")
		r.flush(q)
		r.receives(q, "x")
		waits := make(chan error)
		go func() {
			_, err := q.Receive(r.Context())
			waits <- err
		}()
		if err := r.client.DeleteQueue(r.Context(), "q"); err != nil {
			r.Fatal(err)
		}
		if err := <-waits; !errors.Is(err, io.ErrClosedPipe) {
			r.Errorf("a Receive that waits: %v", err)
		}
		for err := error(nil); err == nil; {
			err = q.Send(r.Context(), []byte("y"))
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				r.Errorf("Send: %v", err)
			}
		}
		if err := r.client.DeleteQueue(r.Context(), "q"); !errors.Is(err, fs.ErrNotExist) {
			r.Errorf("deleted again: %v", err)
		}
		r.send(r.queue("q"), "a new one")
	})
}

func TestQueueIsFull(t *testing.T) {
	const window, pending = 200_000, 300_000
	overQueueWays(t, BrokerConfig{MaxPending: pending}, ClientConfig{Window: window}, func(r *rig) {
		q := r.queue("q")
		chunk := make([]byte, 1000)
		n := 0
		for {
			ctx, cancel := context.WithTimeout(r.Context(), 200*time.Millisecond)
			err := q.Send(ctx, chunk)
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					r.Error(err)
				}
				break
			}
			n++
		}
		if n != (window+pending)/1000 {
			r.Errorf("%d chunks were accepted, want %d", n, (window+pending)/1000)
		}
		var oe *OpError
		if err := q.Send(r.Context(), make([]byte, pending+1)); !errors.As(err, &oe) || oe.Op != "send" {
			r.Errorf("too large a chunk: %v", err)
		}
		for range n {
			if _, err := q.Receive(r.Context()); err != nil {
				r.Fatal(err)
			}
		}
	})
}

func TestQueueOfOneMode(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.writer("stream")
		if _, err := r.client.OpenQueue(r.Context(), "stream"); !errors.Is(err, ErrPipeMode) {
			r.Errorf("a stream as a queue: %v", err)
		}
		if err := r.client.DeleteQueue(r.Context(), "stream"); !errors.Is(err, ErrPipeMode) {
			r.Errorf("a stream deleted as a queue: %v", err)
		}
	})
}

func TestQueueReadAndWrittenAsBytes(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		r.send(q, "hello", "world", "again")
		r.flush(q)
		rd := r.reader("q")
		b := make([]byte, 7)
		if _, err := io.ReadFull(rd, b); err != nil || string(b) != "hellowo" {
			r.Fatalf("read %q, %v", b, err)
		}
		if err := rd.Close(); err != nil {
			r.Fatal(err)
		}
		r.receives(q, "rld", "again")
		w := r.writer("q")
		io.WriteString(w, "bytes")
		if err := w.Flush(); err != nil {
			r.Fatal(err)
		}
		r.receives(q, "bytes")
		if err := w.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

func TestQueueClosed(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		waits := make(chan error)
		go func() {
			_, err := q.Receive(r.Context())
			waits <- err
		}()
		time.Sleep(time.Millisecond)
		if err := q.Close(); err != nil {
			r.Error(err)
		}
		if err := <-waits; !errors.Is(err, os.ErrClosed) {
			r.Errorf("a Receive that waits: %v", err)
		}
		if err := q.Send(r.Context(), nil); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Send: %v", err)
		}
		if err := q.Close(); err != nil {
			r.Errorf("closed again: %v", err)
		}
	})
}

func TestOldBrokerHasNoQueues(t *testing.T) {
	r := &rig{T: t, broker: startOldBroker(t).endpoint}
	r.client = r.newClient(ClientConfig{})
	if _, err := r.client.OpenQueue(r.Context(), "q"); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := r.client.DeleteQueue(r.Context(), "q"); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
