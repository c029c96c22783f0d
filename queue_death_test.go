//go:build unix && !core

package zpipes

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Receivers die while chunks flow. What Receive has returned to one just then, and it has
// not told us, may be lost with it; all else is received.
func TestQueueReceiversKilled(t *testing.T) {
	t.Parallel()
	const receivers = 4
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	var mu sync.Mutex
	seen := make(map[int]bool)
	saw := func(chunk string) {
		n, err := strconv.Atoi(chunk)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		seen[n] = true
		mu.Unlock()
	}

	var dying sync.WaitGroup
	for range receivers {
		c := startChild(t, childTask{Part: "receiver", Broker: b.Name(), Pipe: "q", Forever: true}).ready()
		dying.Go(func() {
			left := 1 + rand.IntN(3000)
			for line := range c.lines {
				saw(line)
				if left--; left == 0 {
					time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
					c.signal(syscall.SIGKILL)
				}
			}
		})
	}

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	survivor := r.queue("q")
	receiving := inBackground(func() (int, error) {
		for chunk, err := range survivor.All(ctx) {
			if err != nil {
				return 0, err
			}
			saw(string(chunk))
		}
		return 0, nil
	})
	stop := make(chan struct{})
	sender := r.queue("q")
	sending := inBackground(func() (n int, err error) {
		for {
			select {
			case <-stop:
				return n, sender.Flush(r.Context())
			default:
			}
			if err := sender.Send(r.Context(), strconv.AppendInt(nil, int64(n), 10)); err != nil {
				return n, err
			}
			n++
		}
	})
	dying.Wait()
	close(stop)
	sent := r.within(20*time.Second, sending)
	if sent.err != nil {
		t.Fatal(sent.err)
	}
	eventuallyWithin(t, 20*time.Second, "no chunk stays in the queue", func() bool { return r.queued(b) == 0 })
	cancel()
	if got := r.within(soon, receiving); !errors.Is(got.err, context.Canceled) {
		t.Error(got.err)
	}
	mu.Lock()
	defer mu.Unlock()
	if missing := sent.n - len(seen); missing > receivers {
		t.Errorf("%d chunks of %d are lost", missing, sent.n)
	}
}

// What a receiver that was killed had not got goes before all that is behind it, and
// what it had got comes no more, or once.
func TestQueueChunksOfTheDeadComeFirst(t *testing.T) {
	const chunks = 3000
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	if _, err := r.client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts := []int{1, 2, 10, 300, 2000}
	for round, n := range counts {
		name := strconv.Itoa(round)
		r.numbers(r.queue(name), chunks)
		c := startChild(t, childTask{Part: "receiver", Broker: b.Name(), Pipe: name, Count: n}).ready()
		if round%2 == 0 {
			c.pause() // else it may give back all by itself
		}
		c.kill()
	}
	r.awaitClients(b, 1)
	for round, n := range counts {
		q := r.queue(strconv.Itoa(round))
		chunk, err := q.Receive(t.Context())
		first, _ := strconv.Atoi(string(chunk))
		if err != nil || first > n {
			t.Fatalf("the first chunk after %d is %q, %v", n, chunk, err)
		}
		r.receivesRange(q, first+1, chunks)
	}
}

func TestQueueWaitingReceiverKilled(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	q := r.queue("q")
	c := startChild(t, childTask{Part: "receiver", Broker: b.Name(), Pipe: "q", Forever: true}).ready()
	r.awaitReceivers(b, "q", 1)
	c.kill()
	got := newTally(3)
	work := inBackground(func() (int, error) {
		for range 3 {
			chunk, err := q.Receive(t.Context())
			if err != nil {
				return 0, err
			}
			got.add(string(chunk))
		}
		return 0, nil
	})
	r.numbers(q, 3)
	if got := r.within(dead+soon, work); got.err != nil {
		t.Error(got.err)
	}
	got.once(r)
}

func TestQueueSenderKilled(t *testing.T) {
	const flushed = 5000
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	q := r.queue("q")
	for _, forever := range []bool{false, true} {
		c := startChild(t, childTask{Part: "sender", Broker: b.Name(), Pipe: "q", Count: flushed, Forever: forever}).ready()
		if forever {
			eventually(t, "a chunk that is not flushed", func() bool { return r.queued(b) > flushed })
		}
		c.kill()
		r.receivesRange(q, 0, flushed)
		r.awaitClients(b, 1)
		// Of what was not flushed, any part may have come, but no chunk without those before it.
		for i, chunk := range r.drain(b, q) {
			if chunk != strconv.Itoa(flushed+i) {
				t.Fatalf("received %q, want %d", chunk, flushed+i)
			}
		}
	}
}

func TestQueueReaderKilledWithinAChunk(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	q := r.queue("q")
	r.send(q, "hello", "world", "again")
	r.flush(q)
	c := startChild(t, childTask{Part: "reader", Broker: b.Name(), Pipe: "q", Count: 7}).ready()
	c.kill()
	r.awaitClients(b, 1)
	r.receives(q, "world", "again")
}

func TestQueueBrokerGone(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{MaxPending: 10_000}, ClientConfig{Window: 10_000}, func(r *rig) {
		full, empty := r.queue("full"), r.queue("empty")
		const n = 20
		r.fillQueue(full, n)
		calls := map[string]<-chan result{
			"Send":    r.begin(func() (int, error) { return 0, full.Send(r.Context(), []byte("x")) }),
			"Flush":   r.begin(func() (int, error) { return 0, full.Flush(r.Context()) }),
			"Receive": r.begin(func() (int, error) { _, err := empty.Receive(r.Context()); return 0, err }),
		}
		r.kill()
		var undelivered *UndeliveredError
		for name, call := range calls {
			got := r.within(dead+soon, call)
			if !errors.Is(got.err, ErrBrokerGone) {
				r.Errorf("%s: %v", name, got.err)
			}
			if errors.As(got.err, &undelivered) != (name == "Flush") {
				r.Errorf("%s: %v", name, got.err)
			}
		}
		if undelivered == nil || undelivered.Bytes <= 0 || undelivered.Bytes > int64(n*1000) {
			r.Errorf("undelivered: %v", undelivered)
		}
		for _, q := range []*Queue{full, empty} {
			if err := q.Send(r.Context(), nil); !errors.Is(err, ErrBrokerGone) {
				r.Errorf("Send: %v", err)
			}
			if _, err := q.Receive(r.Context()); !errors.Is(err, ErrBrokerGone) {
				r.Errorf("Receive: %v", err)
			}
			err := q.Flush(r.Context())
			if q == full && !errors.Is(err, ErrBrokerGone) || q == empty && err != nil {
				r.Errorf("Flush: %v", err)
			}
			err = r.within(soon, inBackground(func() (int, error) { return 0, q.Close() })).err
			if q == full && (!errors.Is(err, ErrBrokerGone) || !errors.As(err, &undelivered)) || q == empty && err != nil {
				r.Errorf("Close: %v", err)
			}
			if err := q.Close(); err != nil {
				r.Errorf("closed again: %v", err)
			}
		}
	})
}

func TestQueueClientCloses(t *testing.T) {
	t.Parallel()
	client := ClientConfig{Window: 10_000, Timeout: 500 * time.Millisecond}
	overQueueWays(t, BrokerConfig{MaxPending: 10_000}, client, func(r *rig) {
		r.connected()
		full, empty := r.queue("full"), r.queue("empty")
		r.fillQueue(full, 20)
		calls := []<-chan result{
			r.begin(func() (int, error) { return 0, full.Send(r.Context(), []byte("x")) }),
			r.begin(func() (int, error) { _, err := empty.Receive(r.Context()); return 0, err }),
		}
		var undelivered *UndeliveredError
		err := r.within(soon, inBackground(func() (int, error) { return 0, r.client.Close() })).err
		if !errors.As(err, &undelivered) || undelivered.Bytes != 10_000 {
			r.Errorf("Close: %v", err)
		}
		for _, call := range calls {
			if got := r.within(soon, call); !errors.Is(got.err, os.ErrClosed) {
				r.Errorf("a call that waited: %v", got.err)
			}
		}
		if _, err := r.client.OpenQueue(r.Context(), "q"); !errors.Is(err, os.ErrClosed) {
			r.Errorf("OpenQueue: %v", err)
		}
		if err := r.client.DeleteQueue(r.Context(), "q"); !errors.Is(err, os.ErrClosed) {
			r.Errorf("DeleteQueue: %v", err)
		}
		// The queue is there still, with what it had taken.
		r.client = r.newClient(ClientConfig{})
		q := r.queue("full")
		for range 10 {
			r.receives(q, string(make([]byte, 1000)))
		}
		r.receivesNothing(q, 20*time.Millisecond)
	})
}

func TestQueueShutdownLetsSendersDrain(t *testing.T) {
	const chunks = 5000
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		r.busy()
		q := r.queue("q")
		r.numbers(q, chunks)
		r.receivesRange(q, 0, 100)
		r.queue("nobody receives from it").Send(r.Context(), []byte("x"))
		r.queue("empty")
		down := r.begin(func() (int, error) { return 0, b.Shutdown(context.Background()) })
		if err := q.Send(r.Context(), nil); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Send: %v", err)
		}
		if _, err := r.client.OpenQueue(r.Context(), "q"); err == nil {
			r.Error("an open was not refused")
		}
		r.receivesRange(q, 100, chunks)
		if _, err := q.Receive(r.Context()); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Receive: %v", err)
		}
		if got := r.within(soon, down); got.err != nil {
			r.Errorf("Shutdown: %v", got.err)
		}
	})
}

// Several receive fast while the broker shuts down; they get all there is.
func TestQueueShutdownUnderReceivers(t *testing.T) {
	const receivers, chunks = 3, 20_000
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		r.busy()
		r.numbers(r.queue("q"), chunks)
		got := newTally(chunks)
		var work sync.WaitGroup
		started := make(chan struct{}, receivers)
		for range receivers {
			r.client = r.newClient(ClientConfig{})
			q := r.queue("q")
			work.Go(func() {
				for chunk, err := range q.All(r.Context()) {
					if err != nil {
						if !errors.Is(err, ErrBrokerGone) {
							t.Error(err)
						}
						return
					}
					got.add(string(chunk))
					select {
					case started <- struct{}{}:
					default:
					}
				}
			})
		}
		<-started
		down := inBackground(func() (int, error) { return 0, b.Shutdown(r.Context()) })
		got.await(r)
		if got := r.within(dead+soon, down); got.err != nil {
			r.Errorf("Shutdown: %v", got.err)
		}
		work.Wait()
		got.once(r)
	})
}

func TestQueueShutdownLetsReadersDrain(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		q := r.queue("q")
		data := string(noise(1, 500_000))
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 30_000):] {
			r.send(q, rest[:min(len(rest), 30_000)])
		}
		r.flush(q)
		rd := r.reader("q")
		head := make([]byte, 10)
		if _, err := io.ReadFull(rd, head); err != nil {
			r.Fatal(err)
		}
		down := r.begin(func() (int, error) { return 0, b.Shutdown(context.Background()) })
		rest, err := io.ReadAll(rd)
		if string(head)+string(rest) != data || err == nil || errors.Is(err, io.EOF) {
			r.Errorf("%d bytes of %d were read, %v", len(head)+len(rest), len(data), err)
		}
		if got := r.within(soon, down); got.err != nil {
			r.Errorf("Shutdown: %v", got.err)
		}
	})
}

func TestQueueShutdownGivesUp(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		q := r.queue("q")
		r.numbers(q, 10)
		r.receives(q, "0")
		ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
		defer cancel()
		if err := b.Shutdown(ctx); err != context.DeadlineExceeded {
			r.Errorf("Shutdown: %v", err)
		}
		if _, err := q.Receive(r.Context()); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Receive: %v", err)
		}
		if err := q.Close(); err != nil {
			r.Errorf("Close: %v", err)
		}
	})
}

// What waits at a queue that is deleted is told, whatever it is.
func TestQueueDeletedTellsReadersAndWriters(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{MaxPending: 1000}, ClientConfig{Window: 1000}, func(r *rig) {
		r.queue("a")
		r.queue("b")
		rd, w := r.reader("a"), r.writer("b")
		fill(w)
		w.SetWriteDeadline(time.Time{})
		reading := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
		writing := r.begin(func() (int, error) { return w.WriteString("x") })
		for _, name := range []string{"a", "b"} {
			if err := r.client.DeleteQueue(r.Context(), name); err != nil {
				r.Fatal(err)
			}
		}
		if got := r.within(soon, reading); got.err == nil || errors.Is(got.err, io.EOF) {
			r.Errorf("Read: %v", got.err)
		}
		if got := r.within(soon, writing); !errors.Is(got.err, io.ErrClosedPipe) {
			r.Errorf("Write: %v", got.err)
		}
		r.receivesNothing(r.queue("b"), 20*time.Millisecond)
	})
}
