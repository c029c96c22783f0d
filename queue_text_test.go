//go:build cgo && !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestQueueAndText(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		x.does("OPEN", "q")
		q := r.queue("q")
		chunks := []string{"one", "", string(noise(1, 300_000))}
		for _, c := range chunks {
			x.does("WRITE", "q", c)
		}
		r.receives(q, chunks...)
		if err := q.Close(); err != nil {
			r.Fatal(err)
		}
		q = r.queue("q")
		r.send(q, chunks...)
		for _, c := range chunks {
			x.say("READ", "q")
			x.hears(c)
		}

		// Both wait in turn.
		x.say("READ", "q")
		r.awaitReceivers(b, "q", 1)
		receiving := inBackground(func() (int, error) {
			chunk, err := q.Receive(r.Context())
			return len(chunk), err
		})
		r.awaitReceivers(b, "q", 2)
		y := r.texter(b)
		y.does("WRITE", "q", "1")
		y.does("WRITE", "q", "22")
		x.hears("1")
		if got := r.within(soon, receiving); got.n != 2 || got.err != nil {
			r.Errorf("received %d bytes, %v", got.n, got.err)
		}
	})
}

func TestQueueSharedWithText(t *testing.T) {
	const each = 1000
	overBothWays(t, BrokerConfig{MaxPending: 2000}, ClientConfig{}, func(r *rig, b *Broker) {
		x, y := r.texter(b), r.texter(b)
		x.does("OPEN", "q")
		got := newTally(2 * each)
		var work sync.WaitGroup
		sender, receiver := r.queue("q"), r.queue("q")
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		work.Go(func() {
			for i := range each {
				r.send(sender, fmt.Sprint("go ", i))
			}
		})
		work.Go(func() {
			for i := range each {
				x.does("WRITE", "q", fmt.Sprint("text ", i))
			}
		})
		work.Go(func() {
			for chunk, err := range receiver.All(ctx) {
				if err == nil {
					got.add(string(chunk))
				}
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				y.say("READ", "q")
				chunk, err := wireReceive(y.socket, soon)
				switch {
				case err != nil && ctx.Err() == nil:
					t.Error(err)
					return
				case err == nil:
					got.add(string(chunk[0]))
				}
			}
		})
		got.await(r)
		cancel()
		work.Wait()
		got.once(r)
	})
}

func TestQueueClosedByText(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x, y := r.texter(b), r.texter(b)
		x.does("OPEN", "q")
		y.does("OPEN", "q")
		y.say("READ", "q")
		r.awaitReceivers(b, "q", 1)
		x.does("CLOSE", "q")
		y.hearsNothing() // who has it open itself
		x.does("CLOSE", "q")
		y.hears("ERROR")
		y.say("READ", "q")
		y.hears("ERROR")

		// A Queue keeps it, and has it afterwards.
		q := r.queue("q")
		x.does("OPEN", "q")
		x.does("WRITE", "q", "kept")
		x.does("CLOSE", "q")
		x.say("CLOSE", "q")
		x.hears("ERROR")
		r.receives(q, "kept")
		if err := q.Close(); err != nil {
			r.Error(err)
		}

		// With the last one the chunks go.
		x.does("OPEN", "q")
		x.does("WRITE", "q", "gone")
		x.does("CLOSE", "q")
		r.receivesNothing(r.queue("q"), 20*time.Millisecond)
	})
}

func TestQueueTextAtAStream(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		rd, w := r.pipe("p")
		x := r.texter(b)
		for _, command := range [][]string{{"OPEN", "p"}, {"WRITE", "p", "x"}, {"READ", "p"}, {"CLOSE", "p"}} {
			x.say(command...)
			x.hears("ERROR")
		}
		if _, err := r.client.OpenQueue(r.Context(), "p"); !errors.Is(err, ErrPipeMode) {
			r.Errorf("OpenQueue: %v", err)
		}
		go func() { w.WriteString("undisturbed"); w.Close() }()
		if got, err := io.ReadAll(rd); string(got) != "undisturbed" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
		x.does("OPEN", "p") // the stream is over
	})
}

func TestQueueTextCountsForMaxPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPipes: 1})
	x := (&rig{T: t}).texter(b)
	x.does("OPEN", "a")
	x.say("OPEN", "b")
	x.hears("ERROR")
	x.does("CLOSE", "a")
	x.does("OPEN", "b")
}

// A text client that dies takes along at most what its READs waited for.
func TestQueueTextReaderDies(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		q := r.queue("q")
		const reads = 5
		for range reads {
			x.say("READ", "q")
		}
		r.awaitReceivers(b, "q", reads)
		x.socket.Close()
		r.numbers(q, 100)
		chunks := r.drain(b, q)
		slices.Sort(chunks)
		if n := len(chunks); n < 100-reads || n != len(slices.Compact(chunks)) {
			r.Errorf("received %q", chunks)
		}
	})
}
