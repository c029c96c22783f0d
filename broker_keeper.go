//go:build !core

package zpipes

import (
	"cmp"
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

	quit chan struct{} // closed when the broker closes

	mu     sync.Mutex // guards what follows; a leaf
	closed bool
	dying  map[string]*keptQueue // queues that are being deleted from the disk; with those that are to be kept then, or nil
	work   sync.WaitGroup        // of goroutines that wait for the disk
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
	store, err := seglog.Open(b.cfg.Dir, seglog.Options{KeyFor: onceFor, KeyMost: onceMost})
	if err != nil {
		if errors.Is(err, seglog.ErrLocked) {
			err = fmt.Errorf("another broker keeps its queues in %s: %w", b.cfg.Dir, err)
		}
		return nil, err
	}
	k := &keeper{broker: b, store: store, quit: make(chan struct{}), dying: make(map[string]*keptQueue)}
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
			f.Err = err
		}
		b.log.warn("a queue can't be read from the disk; others are not concerned", "queue", f.Name, "dir", f.Dir, "err", f.Err)
		none := k.refused(f.Name, f.Err, time.Now())
		if b.pipes.adopt(none, nil); !errors.Is(f.Err, seglog.ErrCorrupt) {
			k.begin(func() { k.reload(none, f.Err, reloadFirst) })
		}
	}
	return k, nil
}

// refused is a queue in whose place only an error is.
func (k *keeper) refused(name string, err error, created time.Time) *chunkQueue {
	s := k.broker.pipes.newQueue(name, created)
	s.mu.Lock() // it has an alarm by then
	defer s.mu.Unlock()
	until := "now, which is tried again"
	if errors.Is(err, seglog.ErrCorrupt) {
		until = "until it is repaired"
	}
	s.end(cause{causeDenied, fmt.Sprintf("what the broker keeps of it can't be used %s: %v", until, err)}, false)
	return s
}

// load makes a queue of what is on the disk.
func (k *keeper) load(name string) (*chunkQueue, error) {
	now := time.Now()
	s := k.broker.pipes.newQueue(name, now)
	q := &keptQueue{keeper: k, queue: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	q.loads = true
	log, err := k.store.Load(name, q, q)
	if err != nil {
		return nil, err
	}
	q.loads = false
	q.log = log
	s.visit(now)
	s.identify(log.Incarnation(), log.NextID()-1)
	s.keepBy(q)
	owner, err := s.obey(log.Config())
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("%w: the configuration of queue %q: %w", seglog.ErrCorrupt, name, err)
	}
	if u, ok := parseUser(owner); ok {
		q.user = k.broker.accountOf(u)
		q.user.chargeDisk(q.charged, true)
	}
	s.bill(q.user)
	for _, key := range log.Keys() {
		s.restoreKey(key.Key, key.ID, key.Sent)
	}
	grace := now.Add(max(s.rules.lease, restartGrace)).UnixNano()
	first := uint64(0) // that waits in turn
	ready := func(id uint64) {
		if first == 0 {
			first = id
		}
	}
	log.Each(func(info *seglog.Info) {
		if info.Last == seglog.Put && info.Due == 0 { // as most are
			s.restoreResting(info.ID, info.Size)
			ready(info.ID)
			return
		}
		j := &job{id: info.ID, rests: true, away: info.Size, deliveries: info.Deliveries}
		switch {
		case info.Last == seglog.Dead:
			s.restore(j, jobDead, 0, info.Reason)
		case info.Last == seglog.Taken:
			s.restore(j, jobTaken, grace, "")
		case info.Due != 0:
			s.restore(j, jobDelayed, info.Due, "")
		default:
			s.restore(j, jobReady, 0, "")
			ready(info.ID)
		}
	})
	if jobs, err := log.Read(first); err == nil && len(jobs) > 0 { // an error is told where the job is wanted
		s.restoreSince(jobs[0].Sent)
	}
	s.identify(log.Incarnation(), log.NextID()-1)
	return s, nil
}

// keep has a queue kept from now on, in which nothing was yet. Its mu is held.
func (k *keeper) keep(s *chunkQueue) *cause {
	q := &keptQueue{keeper: k, queue: s, user: s.payer}
	if !k.awaitDeath(q) {
		if err := q.create(); err != nil {
			return &cause{causeDenied, "the broker can't keep it: " + err.Error()}
		}
	}
	s.keepBy(q)
	s.note(jobOp{kind: opConfig}, nil) // which create tells the log
	return nil
}

// awaitDeath has q created when the one of its name is deleted, if that is under way.
func (k *keeper) awaitDeath(q *keptQueue) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, dying := k.dying[q.queue.name]
	if dying {
		k.dying[q.queue.name] = q
	}
	return dying
}

// die deletes a queue from the disk, and has the next one of its name begin.
func (k *keeper) die(q *keptQueue) {
	name := q.queue.name
	failed := true
	var err error
	q.once.Do(func() { failed, err = false, q.log.Delete() })
	if failed { // just before, so that end has closed the log, or is about to
		err = k.store.Remove(name)
	}
	for pause := reloadFirst; seglog.Passing(err); pause = longer(pause) {
		k.broker.log.warn("a deleted queue can't be removed from the disk now, which is tried again", "queue", name, "err", err)
		if !k.sleep(pause) {
			break
		}
		err = k.store.Remove(name)
	}
	if err != nil {
		k.broker.log.warn("a deleted queue is still on the disk, and back after a restart", "queue", name, "err", err)
	}
	k.mu.Lock()
	next := k.dying[name]
	delete(k.dying, name)
	k.mu.Unlock()
	if next == nil {
		return
	}
	s := next.queue
	s.mu.Lock()
	err = nil
	if !s.void {
		err = next.create()
	}
	s.mu.Unlock()
	if err != nil {
		k.broker.log.warn("a queue can't be kept; it is over", "queue", name, "err", err)
		k.broker.pipes.unkeep(s)
	}
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

// sleep waits, and says whether that is over before the keeper is.
func (k *keeper) sleep(d time.Duration) bool {
	select {
	case <-k.quit:
		return false
	case <-time.After(d):
		return true
	}
}

// close lets go of the directory. What can be kept of what was sent is.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	close(k.quit)
	k.work.Wait()
	if err := k.store.Close(); err != nil {
		k.broker.log.warn("not all that was sent is kept, and none of that was confirmed", "dir", k.broker.cfg.Dir, "err", err)
	}
}

// A keptQueue stands between a queue and its log, for each of which it is the other one.
type keptQueue struct {
	keeper *keeper
	queue  *chunkQueue
	user   *account    // pays for the disk; nil: nobody does
	log    *seglog.Log // nil: not yet, see awaitDeath. It is set with the queue's mu held, before anything is in it
	early  []jobOp     // what is to be appended then
	once   sync.Once   // for the end, or for its deletion
	failed error       // why, as soon as that is known; guarded by the queue's mu

	pause time.Duration // that it was to be left alone before it was read
	since time.Time     // when that was

	loads   bool  // load has it read
	charged int64 // meanwhile, when it is not known to whom
}

// create begins the log. The queue's mu is held.
func (q *keptQueue) create() (err error) {
	if q.log, err = q.keeper.store.Create(q.queue.name, q.queue.config(), q, q); err != nil {
		return err
	}
	q.queue.identify(q.log.Incarnation(), 0)
	for _, o := range q.early {
		q.append(o)
	}
	q.early = nil
	return nil
}

// Charge is for the log.
func (q *keptQueue) Charge(n int64, must bool) bool {
	if !q.user.chargeDisk(n, must) {
		return false
	}
	if !q.keeper.disk.Charge(n, must) {
		q.user.chargeDisk(-n, true)
		return false
	}
	if q.loads {
		q.charged += n
	}
	return true
}

// append is for the queue.
func (q *keptQueue) append(o jobOp) {
	switch {
	case o.kind == opConfig && o.data == nil:
		return
	case q.log == nil:
		q.early = append(q.early, o)
		return
	}
	if len(o.text) > seglog.MaxText {
		o.text = o.text[:seglog.MaxText]
	}
	err := q.log.Append(seglog.Op{
		Kind: seglog.Kind(o.kind), ID: o.id, Sent: o.sent, Due: o.due, Text: o.text, Body: o.data,
		Deliveries: min(o.deliveries, mostDeliveries), Lazy: o.lazy,
	})
	if err != nil && !errors.Is(err, seglog.ErrClosed) { // else it is deleted, or the broker closes
		q.failed = cmp.Or(q.failed, err)
		q.Failed(err)
	}
}

// mostDeliveries is as far as a log counts.
const mostDeliveries = 1<<20 - 1

func (q *keptQueue) next(id uint64) (uint64, int, bool) {
	if q.log == nil {
		return 0, 0, false
	}
	for info, ok := q.log.Next(id); ok; info, ok = q.log.Next(info.ID + 1) {
		if info.Last == seglog.Put && info.Due == 0 {
			return info.ID, info.Size, true
		}
	}
	return 0, 0, false
}

func (q *keptQueue) load(ids []uint64) {
	q.keeper.begin(func() {
		bodies, err := q.readPatiently(ids)
		if seglog.Passing(err) {
			return
		}
		q.queue.mu.Lock()
		void := q.queue.void // it was deleted, or has failed otherwise
		if err == nil && !void {
			if missing := q.queue.loaded(bodies); missing != 0 {
				err = fmt.Errorf("%w: job %d is not there", seglog.ErrCorrupt, missing)
			}
		}
		q.queue.mu.Unlock()
		if err != nil && !void {
			q.end(err)
		}
	})
}

// readPatiently is read, but that who wants these jobs waits while there is no descriptor, or the like. Where that is the
// error, the queue or the keeper is over meanwhile.
func (q *keptQueue) readPatiently(ids []uint64) (bodies map[uint64]job, err error) {
	log, name := q.keeper.broker.log, q.queue.name
	for pause := time.Duration(0); ; {
		if bodies, err = q.read(ids); !seglog.Passing(err) {
			if pause > 0 && err == nil {
				log.info("jobs of a queue can be read from the disk again", "queue", name)
			}
			return bodies, err
		}
		if pause == 0 {
			log.warn("jobs of a queue can't be read from the disk now; who wants them waits", "queue", name, "err", err)
		}
		if pause = min(longer(pause), readMost); !q.keeper.sleep(pause) || q.isVoid() {
			return nil, err
		}
	}
}

// readMost is the longest pause before the next attempt.
const readMost = time.Second

func (q *keptQueue) isVoid() bool {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	return q.queue.void
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
	if q.log == nil {
		return logStats{}
	}
	s := q.log.Stats()
	return logStats{s.Size, s.Syncs, s.SyncTime}
}

func (q *keptQueue) remove() {
	k := q.keeper
	k.mu.Lock()
	if q.log != nil || k.dying[q.queue.name] == q { // nor does q wait for its turn any more
		k.dying[q.queue.name] = nil
	}
	k.mu.Unlock()
	if q.log != nil {
		k.begin(func() { k.die(q) })
	}
}

// Gather is for the log, as all that follows. Whoever says something of several jobs holds mu.
func (q *keptQueue) Gather() {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
}

func (q *keptQueue) Committed(puts, others int) {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	if q.failed == nil { // else nobody knows any more which ones these are
		q.queue.committed(puts, others)
	}
}

func (q *keptQueue) Stalled(err error) {
	if errors.Is(err, seglog.ErrRefused) {
		err = fmt.Errorf("%w; BrokerConfig.MaxDisk, or PerUser.Disk, is used up", err)
	}
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
		q.failed = err
		old.end(cause{causeBrokerGone, "the broker can't keep it: " + err.Error()}, false)
		pause := time.Duration(0)
		if time.Since(q.since) < reloadMost { // it has failed just before, too
			pause = longer(q.pause)
		}
		old.mu.Unlock()
		_ = q.log.Close() // it has failed already
		k.reload(old, err, pause)
	})
}

// failure is why it has ended, if it has.
func (q *keptQueue) failure() error {
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	return q.failed
}

// A queue that can't be read, or fails as soon as it is, is read again after a while, and then after longer ones.
const (
	reloadFirst = 100 * time.Millisecond
	reloadMost  = 10 * time.Second
)

func longer(pause time.Duration) time.Duration { return min(max(2*pause, reloadFirst), reloadMost) }

// reload puts what is on the disk, after a pause, in the place of a queue that is over because of an error, unless
// that has been deleted. As long as it can't be used, the error is in its place: for good if that is for Repair.
func (k *keeper) reload(old *chunkQueue, why error, pause time.Duration) {
	pipes := k.broker.pipes
	for {
		if corrupt := errors.Is(why, seglog.ErrCorrupt); corrupt || pause > 0 {
			none := k.refused(old.name, why, old.created)
			if !pipes.adopt(none, old) || corrupt {
				return
			}
			old = none
			if !k.sleep(pause) {
				return
			}
		}
		fresh, err := k.load(old.name)
		if err == nil {
			q := fresh.log.(*keptQueue)
			fresh.mu.Lock()
			q.pause, q.since = pause, time.Now()
			fresh.mu.Unlock()
			if !pipes.adopt(fresh, old) { // it is nobody's
				fresh.mu.Lock()
				fresh.end(cause{code: causeClosed}, false)
				fresh.mu.Unlock()
				_ = q.log.Close()
				return
			}
			if err = q.failure(); err == nil {
				return
			}
			old = fresh // nor has end found it there
		}
		if errors.Is(err, seglog.ErrNone) { // its first operation has failed
			pipes.unkeep(old)
			return
		}
		k.broker.log.warn("a queue can't be read from the disk", "queue", old.name, "err", err)
		why, pause = err, longer(pause)
	}
}
