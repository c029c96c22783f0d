//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes/internal/seglog"
)

// A keeper keeps a broker's durable queues in a directory. Nobody but its own goroutines waits
// for the disk.
type keeper struct {
	broker *Broker
	store  *seglog.Store
	disk   diskAccount

	mu     sync.Mutex // guards what follows; a leaf
	closed bool
	dying  map[string]bool // queues that are being deleted from the disk
	work   sync.WaitGroup  // of goroutines that wait for the disk
}

// A diskAccount bounds what all queues take on the disk.
type diskAccount struct {
	most int64 // 0: what there is
	used atomic.Int64
}

// Charge is for seglog.
func (a *diskAccount) Charge(n int64, must bool) bool {
	if used := a.used.Add(n); n > 0 && !must && a.most > 0 && used > a.most {
		a.used.Add(-n)
		return false
	}
	return true
}

// restartGrace is for how long a worker whose job's lease has no time of its own can still say
// what becomes of a job that it took before the broker ended.
const restartGrace = 3 * time.Second

// newKeeper brings the queues in a directory back.
func newKeeper(b *Broker) (*keeper, error) {
	store, err := seglog.Open(b.cfg.Dir, seglog.Options{KeyFor: onceFor})
	if err != nil {
		if errors.Is(err, seglog.ErrLocked) {
			err = fmt.Errorf("another broker keeps its queues in %s: %w", b.cfg.Dir, err)
		}
		return nil, err
	}
	k := &keeper{broker: b, store: store, dying: make(map[string]bool)}
	k.disk.most = b.cfg.MaxDisk
	for _, f := range store.Queues() {
		switch err := f.Err; {
		case f.Name == "":
			b.log.warn("a queue on the disk can't be read; nobody knows its name", "dir", f.Dir, "err", err)
			continue
		case err == nil:
			s, err := k.load(f.Name)
			if err == nil {
				b.pipes.adopt(s, nil)
				continue
			}
			if !errors.Is(err, seglog.ErrCorrupt) {
				store.Close()
				return nil, err
			}
			f.Err = err
		}
		b.log.warn("a queue on the disk is corrupt; others are not concerned", "queue", f.Name, "dir", f.Dir, "err", f.Err)
		b.pipes.adopt(k.refused(f.Name, f.Err), nil)
	}
	return k, nil
}

// refused is a queue in whose place only an error is.
func (k *keeper) refused(name string, err error) *chunkQueue {
	s := k.broker.pipes.newQueue(name, time.Now())
	s.end(cause{causeDenied, "what the broker keeps of it can't be used until it is repaired: " + err.Error()}, false)
	return s
}

// load makes a queue of what is on the disk.
func (k *keeper) load(name string) (*chunkQueue, error) {
	now := time.Now()
	s := k.broker.pipes.newQueue(name, now)
	q := &keptQueue{keeper: k, queue: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := k.store.Load(name, q, &k.disk)
	if err != nil {
		return nil, err
	}
	q.log = log
	s.visit(now)
	s.bill(nil)
	s.identify(log.Incarnation(), log.NextID()-1)
	s.keepBy(q)
	if err := s.obey(log.Config()); err != nil {
		log.Close()
		return nil, fmt.Errorf("%w: the configuration of queue %q: %w", seglog.ErrCorrupt, name, err)
	}
	for _, key := range log.Keys() {
		s.restoreKey(key.Key, key.ID, key.Sent)
	}
	grace := now.Add(max(s.rules.lease, restartGrace)).UnixNano()
	for info, ok := log.Next(0); ok; info, ok = log.Next(info.ID + 1) {
		if info.Last == seglog.Put && info.Due == 0 { // as most are
			s.restoreResting(info.ID, info.Size)
			continue
		}
		j := &job{id: info.ID, away: info.Size, deliveries: info.Deliveries}
		switch {
		case info.Last == seglog.Dead:
			s.restore(j, jobDead, 0, info.Reason)
		case info.Last == seglog.Taken:
			s.restore(j, jobTaken, grace, "")
		case info.Due != 0:
			s.restore(j, jobDelayed, info.Due, "")
		default:
			s.restore(j, jobReady, 0, "")
		}
	}
	s.identify(log.Incarnation(), log.NextID()-1)
	return s, nil
}

// keep has a queue kept from now on, in which nothing was yet. Its mu is held.
func (k *keeper) keep(s *chunkQueue) *cause {
	k.mu.Lock()
	dying := k.dying[s.name]
	k.mu.Unlock()
	if dying {
		return &cause{causeBusy, "a queue of that name is just being deleted from the disk"}
	}
	q := &keptQueue{keeper: k, queue: s}
	var err error
	if q.log, err = k.store.Create(s.name, s.config(), q, &k.disk); err != nil {
		return &cause{causeDenied, "the broker can't keep it: " + err.Error()}
	}
	s.identify(q.log.Incarnation(), 0)
	s.keepBy(q)
	s.note(jobOp{kind: opConfig}, nil) // which Create has told the log
	return nil
}

// begin runs f, which may wait for the disk, unless the keeper is closed.
func (k *keeper) begin(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.work.Add(1)
	go func() {
		defer k.work.Done()
		f()
	}()
}

// close lets go of the directory. What can be kept of what was sent is.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.work.Wait()
	if err := k.store.Close(); err != nil {
		k.broker.log.warn("not all that was sent is kept, and none of that was confirmed", "dir", k.broker.cfg.Dir, "err", err)
	}
}

// A keptQueue stands between a queue and its log, for each of which it is the other one. log is set
// before anybody else can have the queue's mu.
type keptQueue struct {
	keeper *keeper
	queue  *chunkQueue
	log    *seglog.Log
	once   sync.Once // for the end
}

// append is for the queue.
func (q *keptQueue) append(o jobOp) {
	if o.kind == opConfig && o.data == nil {
		return
	}
	if len(o.text) > seglog.MaxText {
		o.text = o.text[:seglog.MaxText]
	}
	// What fails is told as Failed, or the broker closes.
	_ = q.log.Append(seglog.Op{
		Kind: seglog.Kind(o.kind), ID: o.id, Sent: o.sent, Due: o.due, Text: o.text, Body: o.data,
		Deliveries: min(o.deliveries, mostDeliveries),
	})
}

// mostDeliveries is as far as a log counts.
const mostDeliveries = 1<<20 - 1

func (q *keptQueue) next(id uint64) (uint64, int, bool) {
	for info, ok := q.log.Next(id); ok; info, ok = q.log.Next(info.ID + 1) {
		if info.Last == seglog.Put && info.Due == 0 {
			return info.ID, info.Size, true
		}
	}
	return 0, 0, false
}

func (q *keptQueue) load(ids []uint64) {
	q.keeper.begin(func() {
		bodies, err := q.read(ids)
		if err != nil {
			q.end(err)
			return
		}
		q.queue.mu.Lock()
		missing := q.queue.loaded(bodies)
		q.queue.mu.Unlock()
		if missing != 0 {
			q.end(fmt.Errorf("%w: job %d is not there", seglog.ErrCorrupt, missing))
		}
	})
}

func (q *keptQueue) read(ids []uint64) (map[uint64]job, error) {
	jobs, err := q.log.Read(ids...)
	bodies := make(map[uint64]job, len(jobs))
	for _, j := range jobs {
		bodies[j.ID] = job{data: j.Body, sent: j.Sent}
	}
	return bodies, err
}

func (q *keptQueue) stats() logStats {
	s := q.log.Stats()
	return logStats{s.Size, s.Syncs, s.SyncTime}
}

func (q *keptQueue) remove() {
	k := q.keeper
	k.mu.Lock()
	k.dying[q.queue.name] = true
	k.mu.Unlock()
	k.begin(func() {
		if err := q.log.Delete(); err != nil {
			k.broker.log.warn("a deleted queue is still on the disk, and back after a restart", "queue", q.queue.name, "err", err)
		}
		k.mu.Lock()
		delete(k.dying, q.queue.name)
		k.mu.Unlock()
	})
}

// Committed is for the log, as all that follows.
func (q *keptQueue) Committed(puts, others int) {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	q.queue.committed(puts, others)
}

func (q *keptQueue) Stalled(err error) {
	if err != nil {
		q.keeper.broker.log.warn("a queue has no room on the disk; what is sent waits", "queue", q.queue.name, "err", err)
	} else {
		q.keeper.broker.log.info("a queue has room on the disk again", "queue", q.queue.name)
	}
}

func (q *keptQueue) Failed(err error) {
	q.keeper.begin(func() { q.end(err) })
}

// end ends a queue whose log has failed, and makes another one of what is on the disk.
func (q *keptQueue) end(err error) {
	q.once.Do(func() {
		k, old := q.keeper, q.queue
		k.broker.log.warn("what is kept of a queue can't be written or read; it is read again from the disk", "queue", old.name, "err", err)
		old.mu.Lock()
		old.end(cause{causeBrokerGone, "the broker can't keep it: " + err.Error()}, false)
		old.mu.Unlock()
		_ = q.log.Close() // it has failed already
		fresh, err := k.load(old.name)
		if err != nil {
			k.broker.log.warn("a queue can't be read from the disk", "queue", old.name, "err", err)
			fresh = k.refused(old.name, err)
		}
		k.broker.pipes.adopt(fresh, old)
	})
}
