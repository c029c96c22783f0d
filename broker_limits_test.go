//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"testing"
)

// "No limit", said with the largest numbers.
func TestBrokerLargestLimits(t *testing.T) {
	most := Limits{Pipes: math.MaxInt, Pending: math.MaxInt64, Requests: math.MaxInt}
	overQueueWays(t, BrokerConfig{
		PerClient: most, PerUser: most, MaxPipes: math.MaxInt, MaxPending: math.MaxInt32, MaxMessage: math.MaxInt32,
		ClientTimeout: math.MaxInt64, ForgetQueues: math.MaxInt64,
	}, ClientConfig{Timeout: math.MaxInt64, Window: math.MaxInt32, ReadSize: math.MaxInt32}, func(r *rig) {
		var waiting sync.WaitGroup
		for i := range 3 {
			rd := r.reader(fmt.Sprint("waiting ", i))
			q := r.queue(fmt.Sprint("queue ", i))
			waiting.Go(func() {
				if n, err := rd.Read(make([]byte, 10)); n != 5 {
					t.Errorf("read %d bytes, %v", n, err)
				}
			})
			waiting.Go(func() {
				if chunk, err := q.Receive(r.Context()); string(chunk) != "chunk" {
					t.Errorf("received %q, %v", chunk, err)
				}
			})
		}
		eventually(r, "all of them wait", func() bool {
			s, err := r.client.Status(r.Context())
			if err != nil {
				r.Fatal(err)
			}
			return !slices.ContainsFunc(s.Pipes, func(p PipeInfo) bool { return !p.Reads })
		})
		for i := range 3 {
			w := r.writer(fmt.Sprint("waiting ", i))
			if _, err := w.WriteString("bytes"); err != nil {
				t.Error(err)
			}
			if err := w.Flush(); err != nil {
				t.Error(err)
			}
			r.send(r.queue(fmt.Sprint("queue ", i)), "chunk")
		}
		waiting.Wait()
		if s, err := r.client.Status(r.Context()); err != nil || s.Stats.Violations > 0 || s.Stats.Expired > 0 || s.Stats.Pipes < 6 {
			t.Errorf("the status is %+v, %v", s.Stats, err)
		}
	})
}

// A client keeps to the limit by itself, however many writers it has whose readers
// do not read; and another pipe is not held up by them.
func TestBrokerLimitsWritersThatNobodyReads(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	r, b := overWire(t, BrokerConfig{MaxPending: 16 << 10, PerClient: Limits{Pending: limit}}, ClientConfig{})
	var writers sync.WaitGroup
	for i := range 40 {
		w, _ := r.writer(fmt.Sprint(i)), r.reader(fmt.Sprint(i))
		writers.Go(func() {
			for range 1000 { // until the reader has gone
				if _, err := w.Write(make([]byte, 4<<10)); err != nil {
					if !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, ErrBrokerGone) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	rd, w := r.pipe("neighbour")
	for range 3 {
		data := noise(1, limit)
		go func() { w.Write(data); w.Flush() }()
		if _, err := io.ReadFull(rd, make([]byte, limit)); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Stats(); s.Violations > 0 || s.Clients != 1 {
		t.Errorf("the client was dropped: %+v", s)
	}
	b.Close()
	writers.Wait()
}

// The same where they come one after the other, and with chunks, which can't be cut.
func TestBrokerLimitsManyThatNobodyReads(t *testing.T) {
	t.Parallel()
	const limit, many = 4 << 20, 1000
	r, b := overWire(t, BrokerConfig{PerUser: Limits{Pending: limit}}, ClientConfig{})
	var senders sync.WaitGroup
	for i := range many {
		w := r.writer(fmt.Sprint(i))
		if _, err := w.Write(make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		q := r.queue(fmt.Sprint("queue ", i))
		senders.Go(func() {
			for q.Send(t.Context(), make([]byte, 40<<10)) == nil {
			}
		})
	}
	for i := range 10 {
		if _, err := io.ReadFull(r.reader(fmt.Sprint(i)), make([]byte, 32<<10)); err != nil {
			t.Error(err)
		}
		if _, err := r.queue(fmt.Sprint("queue ", i)).Receive(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if s := b.Stats(); s.Violations > 0 || s.Clients != 1 {
		t.Errorf("the client was dropped: %+v", s)
	}
	r.client.Close()
	senders.Wait()
}

func TestBrokerLimitsTooManyPipesOfAClient(t *testing.T) {
	r, _ := overWire(t, BrokerConfig{PerClient: Limits{Pipes: 1}}, ClientConfig{})
	r.reader("p")
	if _, err := r.client.OpenWriter(t.Context(), "p"); !errors.Is(err, ErrTooManyPipes) {
		t.Errorf("the second open: %v", err)
	}
}
