//go:build unix && !core

package zpipes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Whenever a broker is killed: what was flushed is there afterwards, and what was done and
// flushed is not.
func TestKeptQueueWhoseBrokerIsKilled(t *testing.T) {
	t.Parallel()
	name, dir := uniqueName(t), t.TempDir()
	sent, confirmed, said, settled := 0, make(map[string]bool), make(map[string]bool), make(map[string]bool)
	start := func() (*child, *Queue) {
		b := startChild(t, childTask{Part: "broker", Broker: name, Dir: dir, MaxPending: 4000}).ready()
		c, err := NewClient(name)
		check(t, err)
		t.Cleanup(func() { c.Close() })
		q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), c, "jobs")
		check(t, err)
		return b, q
	}
	for range 8 {
		b, q := start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rand.IntN(200))*time.Millisecond)
		t.Cleanup(cancel)
		done := make(chan struct{})
		go func() { // a worker, who may lose its last words
			defer close(done)
			var last []string
			for j, err := range q.Jobs(ctx) {
				if err != nil {
					return
				}
				said[string(j.Data)] = true // the broker may hear it and die
				if j.Done() != nil {
					return
				}
				if last = append(last, string(j.Data)); len(last) == 10 {
					if q.Flush(ctx) != nil {
						return
					}
					for _, d := range last {
						settled[d] = true
					}
					last = nil
				}
			}
		}()
		var last []string
		for ctx.Err() == nil {
			last = append(last, fmt.Sprintf("%100d", sent))
			if sent++; q.Send(ctx, []byte(last[len(last)-1])) != nil {
				break
			}
			if len(last) == 20 {
				if q.Flush(ctx) != nil {
					break
				}
				for _, s := range last {
					confirmed[s] = true
				}
				last = nil
			}
		}
		b.kill()
		<-done
	}
	_, q := start()
	there := make(map[string]bool)
	for s := range said {
		delete(confirmed, s)
	}
	for len(confirmed) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
		got, err := q.Receive(ctx)
		cancel()
		if err != nil {
			break
		}
		there[string(got)] = true
		if settled[string(got)] {
			t.Errorf("%.120s is back, which was done", got)
		}
		delete(confirmed, string(got))
	}
	t.Logf("%d sent, %d done, %d found in the end", sent, len(settled), len(there))
	if len(confirmed) > 0 || len(settled) == 0 || len(there) == 0 {
		t.Errorf("%d are lost that were confirmed", len(confirmed))
	}
}
