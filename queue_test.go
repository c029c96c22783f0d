//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestQueueKeepsChunks(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	const senders, receivers, each = 3, 4, 2000
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
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
		got := newTally(senders * each)
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		// Each takes a chunk before any takes a second one.
		var first sync.WaitGroup
		first.Add(receivers)
		for range receivers {
			q := r.queue("q")
			work.Go(func() {
				n := 0
				for chunk, err := range q.All(ctx) {
					if err != nil {
						return
					}
					got.add(string(chunk))
					if n++; n == 1 {
						first.Done()
						first.Wait()
					}
				}
			})
		}
		got.await(r)
		cancel()
		work.Wait()
		r.receivesNothing(r.queue("q"), 50*time.Millisecond)
		got.once(r)
	})
}

func TestQueueReceivesCancelled(t *testing.T) {
	t.Parallel()
	const clients, queues, calls, senders = 3, 2, 4, 2
	each := effort(2000)
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		r.busy()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		got := newTally(senders * each)
		var work sync.WaitGroup
		receive := func(q *Queue) {
			for ctx.Err() == nil {
				tiny, stop := context.WithTimeout(ctx, time.Duration(rand.IntN(300))*time.Microsecond)
				chunk, err := q.Receive(tiny)
				stop()
				if err == nil {
					got.add(string(chunk))
				} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
					t.Error(err)
					return
				}
			}
		}
		for range clients {
			r.client = r.newClient(patient)
			for range queues {
				q := r.queue("q")
				for range calls {
					work.Go(func() { receive(q) })
				}
			}
		}
		for s := range senders {
			q := r.queue("q")
			work.Go(func() {
				for i := range each {
					r.send(q, fmt.Sprint(s, " ", i))
				}
				r.flush(q)
			})
		}
		got.await(r)
		cancel()
		work.Wait()
		r.receivesNothing(r.queue("q"), 50*time.Millisecond)
		got.once(r)
	})
}

// A Receive that is cancelled as its chunk comes either returns it or leaves it.
func TestQueueReceiveCancelledAsAChunkComes(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
		q, sender := r.queue("q"), r.queue("q")
		for i := range 300 {
			ctx, cancel := context.WithCancel(r.Context())
			received := inBackground(func() (int, error) {
				chunk, err := q.Receive(ctx)
				if err != nil {
					return 0, err
				}
				return strconv.Atoi(string(chunk))
			})
			q.awaitCalls(1)
			// In front of the lock, both are there at once.
			q.queue.mu.Lock()
			sent := inBackground(func() (int, error) { return 0, sender.Send(r.Context(), []byte(strconv.Itoa(i))) })
			time.Sleep(time.Duration(i%10) * 50 * time.Microsecond)
			cancel()
			time.Sleep(time.Duration(i%3) * 50 * time.Microsecond)
			q.queue.mu.Unlock()
			switch got := r.within(soon, received); {
			case errors.Is(got.err, context.Canceled):
				r.receives(q, strconv.Itoa(i))
			case got.err != nil || got.n != i:
				r.Fatalf("received %d, %v, want %d", got.n, got.err, i)
			}
			if got := r.within(soon, sent); got.err != nil {
				r.Fatal(got.err)
			}
		}
	})
}

// What a receiver was sent ahead and does not want any more is for others, soon.
func TestQueueReceiverStops(t *testing.T) {
	t.Parallel()
	const chunks, taken = 2000, 500
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
		first := r.queue("q")
		r.client = r.newClient(ClientConfig{})
		second := r.queue("q")
		for range 3 {
			r.numbers(first, chunks)
			r.receivesRange(first, 0, taken)
			// Chunks from behind may overtake those that are on their way back, once.
			rest := newTally(chunks - taken)
			received := inBackground(func() (back int, err error) {
				last := -1
				for range chunks - taken {
					chunk, err := second.Receive(r.Context())
					if err != nil {
						return back, err
					}
					n, _ := strconv.Atoi(string(chunk))
					if n < last {
						back++
					}
					last = n
					rest.add(string(chunk))
				}
				return back, nil
			})
			got := r.within(8*soon, received)
			if rest.once(r); got.n > 1 || got.err != nil {
				r.Errorf("%d times a chunk came after a later one, %v", got.n, got.err)
			}
			r.home(second)
		}
	})
}

// A receiver that was fast and has become slow does not keep from others what it was
// sent ahead.
func TestQueueReceiverSlowsDown(t *testing.T) {
	t.Parallel()
	const chunks, taken = 20_000, 15_000
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		r.busy()
		slow := r.queue("q")
		r.client = r.newClient(patient)
		other := r.queue("q")
		r.numbers(slow, chunks)
		r.receivesRange(slow, 0, taken)
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		got := newTally(chunks - taken)
		var work sync.WaitGroup
		for q, pause := range map[*Queue]time.Duration{slow: 20 * time.Millisecond, other: 0} {
			work.Go(func() {
				for chunk, err := range q.All(ctx) {
					if err == nil {
						got.add(string(chunk))
						time.Sleep(pause)
					}
				}
			})
		}
		eventually(r, "all chunks are received", func() bool { // what it was sent is enough for longer
			select {
			case <-got.all:
				return true
			default:
				return false
			}
		})
		cancel()
		work.Wait()
		got.once(r)
	})
}

func TestQueueChunksReturnInOrder(t *testing.T) {
	t.Parallel()
	const chunks, taken = 2000, 500
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
		first := r.queue("q")
		r.numbers(first, chunks)
		r.receivesRange(first, 0, taken)
		r.home(first)
		r.client = r.newClient(ClientConfig{})
		r.receivesRange(r.queue("q"), taken, chunks)
	})
}

// A Queue that has received fast and does not receive any more is no detour for what
// is sent later.
func TestQueueThatIsIdleTakesNothing(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		idle := r.queue("q")
		for range 10 {
			r.numbers(idle, 3)
			r.receivesRange(idle, 0, 3)
			r.home(idle)
			sender := r.queue("q")
			r.numbers(sender, 100)
			r.receivesRange(sender, 0, 100)
		}
	})
}

func TestQueueServesReceiversInTurn(t *testing.T) {
	const receivers = 5
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		var queues []*Queue
		for i := range receivers {
			if i%2 == 1 {
				r.client = r.newClient(ClientConfig{})
			}
			queues = append(queues, r.queue("q"))
		}
		sender := r.queue("q")
		for round := range 20 {
			for _, q := range queues {
				r.home(q)
			}
			var done []<-chan result
			for i := range queues {
				q := queues[(i+round)%receivers]
				done = append(done, inBackground(func() (int, error) {
					chunk, err := q.Receive(r.Context())
					n, _ := strconv.Atoi(string(chunk))
					return n, err
				}))
				r.awaitReceivers(b, "q", i+1)
			}
			r.numbers(sender, receivers)
			for i := range done {
				if got := r.within(soon, done[i]); got.n != i || got.err != nil {
					r.Errorf("round %d: receiver %d got %d, %v", round, i, got.n, got.err)
				}
			}
		}
	})
}

func TestQueueServesCallsInTurn(t *testing.T) {
	t.Parallel()
	const calls = 5
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		sender := r.queue("q")
		for range 20 {
			var done []<-chan result
			for i := range calls {
				done = append(done, inBackground(func() (int, error) {
					chunk, err := q.Receive(r.Context())
					n, _ := strconv.Atoi(string(chunk))
					return n, err
				}))
				q.awaitCalls(i + 1)
			}
			r.numbers(sender, calls)
			for i := range done {
				if got := r.within(soon, done[i]); got.n != i || got.err != nil {
					r.Errorf("call %d got %d, %v", i, got.n, got.err)
				}
			}
		}
	})
}

func TestQueueDeleted(t *testing.T) {
	t.Parallel()
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

// What a reader gives back to a queue that was deleted meanwhile is gone, too.
func TestQueueDeletedUnderAReader(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		r.send(q, "hello", "world")
		r.flush(q)
		rd := r.reader("q")
		if _, err := io.ReadFull(rd, make([]byte, 2)); err != nil {
			r.Fatal(err)
		}
		if err := r.client.DeleteQueue(r.Context(), "q"); err != nil {
			r.Fatal(err)
		}
		if err := rd.Close(); err != nil {
			r.Fatal(err)
		}
		if chunk, err := q.Receive(r.Context()); !errors.Is(err, io.ErrClosedPipe) {
			r.Errorf("received %q, %v", chunk, err)
		}
	})
}

func TestQueueStatsAndPipes(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		// info waits until the broker says so, since it learns of some things later.
		info := func(want PipeInfo) {
			r.Helper()
			eventually(r, fmt.Sprintf("the queue is %+v", want), func() bool {
				pipes := slices.Collect(b.Pipes())
				if len(pipes) != 1 || pipes[0].Age <= 0 || pipes[0].Age > time.Minute {
					r.Fatalf("the pipes are %+v", pipes)
				}
				got := pipes[0]
				if (got.Oldest > 0) != (got.Chunks > got.Taken) || got.Oldest > time.Minute {
					return false
				}
				got.Age, got.Idle, got.Oldest, got.Handed = 0, 0, 0, 0
				return got == want
			})
		}
		before := b.Stats()
		q, other := r.queue("q"), r.queue("q")
		r.send(q, "hello", "", "you")
		r.flush(q)
		info(PipeInfo{Name: "q", Mode: ModeQueue, Users: 2, Chunks: 3, Queued: 8, BytesIn: 8})
		r.receives(other, "hello")
		info(PipeInfo{Name: "q", Mode: ModeQueue, Users: 2, Chunks: 2, Queued: 3, BytesIn: 8, BytesOut: 5})
		if err := other.Close(); err != nil {
			r.Error(err)
		}
		r.receives(q, "")
		info(PipeInfo{Name: "q", Mode: ModeQueue, Users: 1, Chunks: 1, Queued: 3, BytesIn: 8, BytesOut: 5})
		if err := r.client.DeleteQueue(r.Context(), "q"); err != nil {
			r.Error(err)
		}
		got := b.Stats().Sub(before)
		now := b.Stats()
		want := BrokerStats{Clients: now.Clients, Near: now.Near, Opened: 2, BytesIn: 8, BytesOut: 5}
		if got != want {
			r.Errorf("stats are %+v, want %+v", got, want)
		}
		if pipes := slices.Collect(b.Pipes()); len(pipes) > 0 {
			r.Errorf("the pipes are %+v", pipes)
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

func TestQueueWhoClosesSecondWaits(t *testing.T) {
	r, b := overWire(t, BrokerConfig{MaxPending: 100}, ClientConfig{})
	c := r.newClient(ClientConfig{})
	q, err := c.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one waits until there is room
		if err := q.Send(t.Context(), make([]byte, 90)); err != nil {
			t.Fatal(err)
		}
	}
	first := r.begin(func() (int, error) { return 0, q.Close() })
	second := r.begin(func() (int, error) { return 0, q.Close() })
	all := r.begin(func() (int, error) { return 0, c.Close() })
	receiver, err := b.Client().OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	for range 2 {
		if _, err := receiver.Receive(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, done := range []<-chan result{first, second, all} {
		if got := r.within(soon, done); got.err != nil {
			t.Error(got.err)
		}
	}
}
