//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestQueueIsFull(t *testing.T) {
	const window, pending = 200_000, 300_000
	overQueueWays(t, BrokerConfig{MaxPending: pending}, ClientConfig{Window: window}, func(r *rig) {
		q := r.queue("q")
		const n = (window + pending) / 1000
		r.fillQueue(q, n)
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

func TestQueueCountsWhatIsUndelivered(t *testing.T) {
	t.Parallel()
	const window, pending = 5000, 10_000
	client := ClientConfig{Window: window, Timeout: soon / 2}
	overQueueWays(t, BrokerConfig{MaxPending: pending}, client, func(r *rig) {
		r.connected()
		q := r.queue("q")
		r.fillQueue(q, (window+pending)/1000)
		var undelivered *UndeliveredError
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Millisecond)
		err := q.Flush(ctx)
		cancel()
		if !errors.As(err, &undelivered) || undelivered.Bytes != window || !errors.Is(err, context.DeadlineExceeded) {
			r.Errorf("Flush: %v, want %d bytes undelivered", err, window)
		}
		sending := r.begin(func() (int, error) { return 0, q.Send(r.Context(), []byte("x")) })
		ctx, cancel = context.WithCancel(r.Context())
		cancelled := r.begin(func() (int, error) { return 0, q.Send(ctx, []byte("x")) })
		cancel()
		if got := r.within(soon, cancelled); !errors.Is(got.err, context.Canceled) {
			r.Errorf("a cancelled Send: %v", got.err)
		}
		flushing := r.begin(func() (int, error) { return 0, q.Flush(r.Context()) })
		start := time.Now()
		closing := inBackground(func() (int, error) { return 0, q.Close() })
		for _, call := range []<-chan result{sending, flushing} {
			if got := r.within(soon, call); !errors.Is(got.err, os.ErrClosed) {
				r.Errorf("a call that waits at Close: %v", got.err)
			}
		}
		if took := time.Since(start); took >= client.Timeout {
			r.Errorf("they waited for %v", took)
		}
		err = r.within(soon, closing).err
		if !errors.As(err, &undelivered) || undelivered.Bytes != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("Close: %v, want %d bytes undelivered", err, window)
		}
		q = r.queue("q")
		for range pending / 1000 {
			r.receives(q, string(make([]byte, 1000)))
		}
		r.receivesNothing(q, 20*time.Millisecond)
	})
}

// Each Flush returns when what was sent before it is confirmed, in any order of their ends, and also where one of
// them was given up.
func TestQueueFlushesEndByThemselves(t *testing.T) {
	t.Parallel()
	const size, room = 1000, 10
	overQueueWays(t, BrokerConfig{MaxPending: room * size}, ClientConfig{Window: room * size, Timeout: soon}, func(r *rig) {
		q := r.queue("q")
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		var ends []<-chan result
		send := func(n int) {
			for range n {
				r.send(q, string(make([]byte, size)))
			}
		}
		send(room)
		for range 3 {
			send(2)
			ends = append(ends, r.begin(func() (int, error) { return 0, q.Flush(r.Context()) }))
		}
		givenUp := r.begin(func() (int, error) { return 0, q.Flush(ctx) })
		cancel()
		if got := r.within(soon, givenUp); !errors.Is(got.err, context.Canceled) {
			r.Errorf("a Flush that was given up: %v", got.err)
		}
		receiver := r.queue("q")
		for i, end := range ends {
			for range 2 {
				r.receives(receiver, string(make([]byte, size)))
			}
			if got := r.within(soon, end); got.err != nil {
				r.Errorf("Flush %d: %v", i, got.err)
			}
		}
	})
}

// However the bounds are chosen, a chunk arrives, or Send refuses it.
func TestQueueOfLargeChunks(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	var small []int
	for range 60 {
		small = append(small, 1000)
	}
	for _, test := range []struct {
		name    string
		broker  BrokerConfig
		client  ClientConfig
		sizes   []int
		largest int // that is accepted
	}{
		{"as large as the queue", BrokerConfig{}, ClientConfig{}, []int{mega, 0, mega + 1, mega}, mega},
		{"behind small ones", BrokerConfig{}, ClientConfig{}, append(small, mega), mega},
		{"in a large queue", BrokerConfig{MaxPending: 8 * mega}, ClientConfig{}, []int{6 * mega, 1, 7 * mega}, 8 * mega},
		{"in a very large queue", BrokerConfig{MaxPending: 40 * mega, MaxMessage: 32 * mega}, ClientConfig{}, []int{1, 24 * mega, 33 * mega}, 32 * mega},
		{"in a small window", BrokerConfig{}, ClientConfig{Window: 1000}, []int{300_000, 1, 300_000}, mega},
		{"in a large window", BrokerConfig{}, ClientConfig{Window: 8 * mega}, []int{400_000, 400_000, 400_000, 400_000, 400_000, 400_000}, mega},
		{"larger than messages", BrokerConfig{MaxPending: 4 * mega, MaxMessage: mega}, ClientConfig{}, []int{mega, 1, mega + 1, 3 * mega}, mega},
		{"as large as messages", BrokerConfig{MaxMessage: mega}, ClientConfig{Window: 2 * mega}, append(small, mega), mega},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.client.Timeout, test.client.Heartbeat = patient.Timeout, patient.Heartbeat
			overBothWays(t, test.broker, test.client, func(r *rig, b *Broker) {
				r.busy()
				q := r.queue("q")
				sending := inBackground(func() (int, error) {
					for i, n := range test.sizes {
						if err := q.Send(r.Context(), noise(uint64(i), n)); (err != nil) != (n > test.largest) {
							t.Errorf("a chunk of %d bytes: %v", n, err)
						}
					}
					return 0, q.Flush(r.Context())
				})
				// A queue that is full is what tries the bounds.
				select {
				case got := <-sending:
					sending <- got
				case <-time.After(50 * time.Millisecond):
				}
				r.client = r.newClient(test.client)
				receiver := r.queue("q")
				for i, n := range test.sizes {
					if n <= test.largest {
						r.receives(receiver, string(noise(uint64(i), n)))
					}
				}
				if got := r.within(soon, sending); got.err != nil {
					t.Error(got.err)
				}
			})
		})
	}
}

func TestQueueCountsForMaxPipes(t *testing.T) {
	overBothWays(t, BrokerConfig{MaxPipes: 2}, ClientConfig{}, func(r *rig, b *Broker) {
		r.queue("a").Close()
		r.writer("b")
		if _, err := r.client.OpenQueue(r.Context(), "c"); !errors.Is(err, ErrTooManyPipes) {
			r.Errorf("a third one: %v", err)
		}
		if _, err := r.client.OpenReader(r.Context(), "c"); !errors.Is(err, ErrTooManyPipes) {
			r.Errorf("a stream after a queue: %v", err)
		}
		r.queue("a")
		if err := r.client.DeleteQueue(r.Context(), "a"); err != nil {
			r.Error(err)
		}
		r.queue("c")
	})
}

// A queue's chunk may be larger than what a client's connection is made for.
func TestQueueChunksBeyondTheUsualSize(t *testing.T) {
	const size = 20 << 20
	b := startBroker(t, BrokerConfig{MaxPending: 2 * size, MaxMessage: 2 * size})
	c, err := patient.NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "stream") // on the first connection
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	data := noise(2, size)
	if err := q.Send(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	got, err := q.Receive(t.Context())
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("received %d bytes, %v", len(got), err)
	}
	r, err := c.OpenReader(t.Context(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	r.Close()
}
