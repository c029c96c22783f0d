//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// line waits until so many Sends wait, and says how many chunks were sent before.
func (q *Queue) line(t *testing.T, n int) (pushed int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d Sends wait", n), func() bool {
		q.queue.mu.Lock()
		defer q.queue.mu.Unlock()
		pushed = q.sender.pushed
		return q.senders.Len() == n
	})
	return pushed
}

// Goroutines that share a Queue have their turns in order, also one with a larger chunk;
// and one that gives up leaves its turn to the others.
func TestQueueSendsTakeTurns(t *testing.T) {
	t.Parallel()
	const window, small, large, others = 4096, 1000, 3000, 4
	overQueueWays(t, BrokerConfig{MaxPending: window}, ClientConfig{Window: window}, func(r *rig) {
		q, ctx := r.queue("q"), r.Context()
		busy, stop := context.WithCancel(ctx)
		var senders sync.WaitGroup
		for range others {
			senders.Go(func() {
				for q.Send(busy, make([]byte, small)) == nil {
				}
			})
		}
		q.line(r.T, others)

		given, giveUp := context.WithCancel(ctx)
		senders.Go(func() {
			if err := q.Send(given, make([]byte, large)); !errors.Is(err, context.Canceled) {
				r.Errorf("a Send that was given up: %v", err)
			}
		})
		q.line(r.T, others+1)
		sent := make(chan error, 1)
		go func() { sent <- q.Send(ctx, make([]byte, large)) }()
		before := q.line(r.T, others+2)
		giveUp()
		q.line(r.T, others+1)

		for n := int64(1); ; n++ {
			chunk, err := q.Receive(ctx)
			if err != nil {
				r.Fatal(err)
			}
			if len(chunk) == large {
				if n > before+others+1 {
					r.Errorf("%d Sends had their turn before one for which %d waited", n-1-before, others)
				}
				break
			}
		}
		if err := <-sent; err != nil {
			r.Error(err)
		}
		stop()
		senders.Wait()
		q.line(r.T, 0)
	})
}

// Close ends all that wait.
func TestQueueCloseEndsAllSends(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{MaxPending: 1000}, ClientConfig{Window: 1000, Timeout: soon / 4}, func(r *rig) {
		q := r.queue("q")
		var senders sync.WaitGroup
		for range 10 {
			senders.Go(func() {
				for q.Send(r.Context(), make([]byte, 500)) == nil {
				}
			})
		}
		q.line(r.T, 10)
		q.Close()
		senders.Wait()
	})
}
