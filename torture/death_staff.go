package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// A staff is hands of this process at one queue.
type staff struct {
	yard   *yard
	queue  string
	cfg    zpipes.QueueConfig
	book   *book
	most   int64                 // more jobs are not sent before others are done
	calm   chan struct{}         // closed when workers are to do just what there is
	stop   [2]context.CancelFunc // of senders and workers
	hands  [2]sync.WaitGroup
	mu     sync.Mutex // guards failed
	failed error
}

const (
	senders = iota
	workers
)

func (y *yard) newStaff(c *cycle, cfg zpipes.QueueConfig) *staff {
	return &staff{
		yard: y, queue: c.name("jobs"), cfg: cfg, book: newBook(), most: 1000, calm: make(chan struct{}),
		stop: [2]context.CancelFunc{func() {}, func() {}},
	}
}

// hire has so many work from now on, or send.
func (k *staff) hire(ctx context.Context, c *cycle, role, n int) {
	ctx, k.stop[role] = context.WithCancel(ctx)
	for i := range n {
		h := &hand{
			client: k.yard.clients[i%len(k.yard.clients)], queue: k.queue, cfg: k.cfg, seed: c.rand.Uint64(), rand: c.fork(),
			note:   func(s step) { k.book.note("staff", s) },
			enough: func() bool { return k.book.open() > k.most },
			calm:   k.calm,
		}
		act := [...]func(context.Context) error{h.send, h.work}[role]
		k.hands[role].Go(func() {
			if err := act(ctx); err != nil {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.failed = errors.Join(k.failed, err)
			}
		})
	}
}

func (k *staff) close() {
	for role, stop := range k.stop {
		stop()
		k.hands[role].Wait()
	}
}

// finish waits until all jobs are done or dead, for as long as some are done meanwhile.
func (k *staff) finish(ctx context.Context) error {
	steps, since := 0, time.Now()
	for ctx.Err() == nil {
		info, err := k.yard.pipe(k.queue)
		if err == nil && info.Chunks == info.Dead {
			return nil
		}
		if now := k.book.steps("staff"); now != steps {
			steps, since = now, time.Now()
		} else if time.Since(since) > patience {
			return fmt.Errorf("%w: %+v, %v", hangs("a queue whose jobs are being done", patience), info, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// drain has all jobs done that are left, and judges.
func (k *staff) drain(ctx context.Context, kills int) error {
	k.stop[senders]()
	if err := finish(patience, "senders that are told to stop", func() error { k.hands[senders].Wait(); return nil }); err != nil {
		return err
	}
	close(k.calm)
	if err := k.finish(ctx); err != nil {
		return err
	}
	k.close()
	if k.failed != nil || ctx.Err() != nil {
		return k.failed
	}
	dead := make(map[chunkID]zpipes.JobInfo)
	for j, err := range k.yard.clients[0].PeekJobs(ctx, k.queue) {
		if err != nil {
			return err
		}
		id, err := readChunk(j.Data)
		if err != nil || j.State != zpipes.JobDead {
			return fmt.Errorf("job %v is %s, %v", id, j.State, err)
		}
		dead[id] = j
	}
	return k.book.judge(dead, k.cfg.MaxDeliveries, kills)
}
