package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/zpipes/zpipes"
)

// Queues that outlive what stands in the middle. What is measured is how many jobs are confirmed
// while so many callers each wait for theirs.

// A keeper is such a queue.
type keeper interface {
	serve() (address string, err error)
	// sender returns what puts a chunk into the queue, and returns when that is confirmed; worker
	// what takes a job, and returns when it is confirmed that it is done.
	sender() (func(chunk []byte) error, error)
	worker() (func() error, error)
	// fill puts so many jobs into the queue, in any way.
	fill(n int) error
}

// keepers by name.
var keepers = map[string]func(Task) keeper{
	"zpipes":                     func(t Task) keeper { return &keptQueue{queues: queues{pipes{Task: t}}} },
	"zpipes over ipc":            func(t Task) keeper { return &keptQueue{queues: queues{pipes{Task: t, overIPC: true}}} },
	"JetStream, SyncAlways":      func(t Task) keeper { return &keptStream{workQueue: workQueue{nats{Task: t}}, always: true} },
	"JetStream, without syncing": func(t Task) keeper { return &keptStream{workQueue: workQueue{nats{Task: t}}} },
}

// Keeping is what Confirm is to do.
type Keeping struct {
	Task // Streams is how many callers wait at once
	Does string
	Fill int
	Time time.Duration
}

const (
	puts  = "Send and Flush"
	dones = "Take, Done and Flush"
)

// Kept is what came of it.
type Kept struct {
	Jobs  int64
	Took  time.Duration
	Syncs int64 // of zpipes
}

// Keep starts what stands in the middle.
func (p *Part) Keep(k Keeping, address *string) (err error) {
	p.keeper = keepers[k.Transport](k.Task)
	*address, err = p.keeper.serve()
	return err
}

// Confirm measures.
func (p *Part) Confirm(k Keeping, got *Kept) error {
	if p.keeper == nil {
		p.keeper = keepers[k.Transport](k.Task)
	}
	if err := p.keeper.fill(k.Fill); err != nil {
		return err
	}
	call, err := p.caller(k)
	if err != nil {
		return err
	}
	before, err := p.syncs()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var jobs, claimed atomic.Int64
	start := time.Now()
	for range k.Streams {
		all.Go(func() {
			for time.Since(start) < k.Time && (k.Fill == 0 || claimed.Add(1) <= int64(k.Fill)) {
				if err := call(); err != nil {
					p.fail(err)
					return
				}
				jobs.Add(1)
			}
		})
	}
	all.Wait()
	*got = Kept{Jobs: jobs.Load(), Took: time.Since(start)}
	after, err := p.syncs()
	got.Syncs = after - before
	return errors.Join(err, p.Report(struct{}{}, nil))
}

// syncs is how often a queue of zpipes was synced.
func (p *Part) syncs() (n int64, err error) {
	q, ok := p.keeper.(*keptQueue)
	if !ok {
		return 0, nil
	}
	c, err := q.client()
	if err != nil {
		return 0, err
	}
	s, err := c.Status(context.Background())
	for _, info := range s.Pipes {
		n += info.Syncs
	}
	return n, err
}

func (p *Part) caller(k Keeping) (func() error, error) {
	if k.Does == dones {
		return p.keeper.worker()
	}
	send, err := p.keeper.sender()
	chunk := newRecord(k.Size)
	return func() error { return send(chunk) }, err
}

// Floor measures what any such queue has to do: one write of what all callers have, and one fdatasync.
func (p *Part) Floor(k Keeping, got *Kept) error {
	f, err := os.Create(filepath.Join(k.Dir, "floor"))
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, k.Streams*k.Size)
	for start := time.Now(); got.Took < k.Time; got.Took = time.Since(start) {
		if _, err := f.Write(b); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		got.Jobs += int64(k.Streams)
	}
	return nil
}

// keptQueue is zpipes: all callers of a process share a Queue.
type keptQueue struct {
	queues
	end *zpipes.Queue
}

func (q *keptQueue) serve() (string, error) {
	b, err := zpipes.BrokerConfig{Dir: filepath.Join(q.Dir, "queues")}.NewBroker("")
	if err != nil {
		return "", err
	}
	return q.servedBy(b)
}

func (q *keptQueue) open() (_ *zpipes.Queue, err error) {
	if q.end == nil {
		// What all callers wait for is to have room in the window.
		var c *zpipes.Client
		if c, err = (zpipes.ClientConfig{Window: max(256<<10, 2*q.Streams*q.Size)}).NewClient(q.Address); err == nil {
			q.end, err = zpipes.QueueConfig{Durable: true, MaxBytes: 64 << 30}.OpenQueue(context.Background(), c, "queue")
		}
	}
	return q.end, err
}

func (q *keptQueue) sender() (func([]byte) error, error) {
	queue, err := q.open()
	ctx := context.Background()
	return func(chunk []byte) error { return errors.Join(queue.Send(ctx, chunk), queue.Flush(ctx)) }, err
}

func (q *keptQueue) worker() (func() error, error) {
	queue, err := q.open()
	ctx := context.Background()
	return func() error {
		j, err := queue.Take(ctx)
		if err != nil {
			return err
		}
		return errors.Join(j.Done(), queue.Flush(ctx))
	}, err
}

func (q *keptQueue) fill(n int) error {
	queue, err := q.open()
	if err != nil {
		return err
	}
	chunk := newRecord(q.Size)
	for range n {
		if err := queue.Send(context.Background(), chunk); err != nil {
			return err
		}
	}
	return queue.Flush(context.Background())
}

// keptStream is JetStream with a work queue in files. All callers of a process share a connection.
type keptStream struct {
	workQueue
	always bool // it syncs each message, and not every two minutes
}

func (n *keptStream) options() *server.Options {
	return &server.Options{JetStream: true, StoreDir: filepath.Join(n.Dir, "jetstream"), SyncAlways: n.always}
}

func (n *keptStream) serve() (string, error) {
	address, err := n.start(n.options())
	if err != nil {
		return "", err
	}
	return address, n.create(jetstream.FileStorage)
}

func (n *keptStream) sender() (func([]byte) error, error) {
	js, err := n.jetStream()
	return func(chunk []byte) error {
		_, err := js.Publish(context.Background(), "queue", chunk)
		return err
	}, err
}

func (n *keptStream) worker() (func() error, error) {
	m, err := n.messages(workBatch)
	return func() error {
		msg, err := m.Next()
		if err != nil {
			return err
		}
		return msg.DoubleAck(context.Background())
	}, err
}

func (n *keptStream) fill(jobs int) error {
	if jobs == 0 {
		return nil
	}
	js, err := n.jetStream(jetstream.WithPublishAsyncMaxPending(workPending))
	if err != nil {
		return err
	}
	chunk := newRecord(n.Size)
	for range jobs {
		for {
			if _, err := js.PublishAsync("queue", chunk); err == nil {
				break
			} else if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
				return err
			}
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%d jobs are not confirmed within %v", jobs, patience)
	}
}
