package seglog

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// An Owner is whom a log serves. The log calls it from the committer, with nothing locked.
// What it is told it may only note and pass on: it must not block, and not call Close or Delete.
type Owner interface {
	// Gather is called before a commit, and returns when nobody is in the middle of appending several operations: they
	// are to be committed together. Append may be called while what it waits for is locked.
	Gather()

	// Committed says that so many more Puts, and other operations, survive a loss of power, both in
	// the order in which they were appended. The two overtake each other on a full disk.
	Committed(puts, others int)

	// Stalled says that Puts wait for room on the disk, and why; nil: they go on. Other operations
	// go on meanwhile.
	Stalled(err error)

	// Failed says that nothing more will be committed. The log has to be closed, and can be
	// opened again.
	Failed(err error)
}

// An Account pays for disk.
type Account interface {
	// Charge pays for n bytes more, or says that it does not; it must if must is set.
	// With n below 0 it gets something back.
	Charge(n int64, must bool) bool
}

// A Log is a queue on the disk. All methods can be called from any goroutine; only Read, Close
// and Delete wait for the disk.
type Log struct {
	fs        FS
	dir       string
	name      string
	most      int64 // bytes of a segment
	restAfter time.Duration
	keyFor    time.Duration
	keyMost   int
	owner     Owner
	account   Account
	leave     func(gone bool) // tells the store that the log is closed

	mu          sync.Mutex // guards all below; nobody waits for the disk with it
	puts        []Op       // to be committed
	others      []Op       // likewise
	lazy        int        // how many of these are
	late        bool       // it is time for them, too
	lateTimer   *time.Timer
	lateSet     bool      // lateTimer is running
	spare       [2][]Op   // arrays to use again
	busy        bool      // there is a committer
	quiet       sync.Cond // there is none any more
	expected    int       // how many operations the last commit had, and came meanwhile
	err         error     // nothing is committed any more
	stalled     error     // Puts wait for room
	retry       bool      // and try again
	retryAfter  time.Duration
	retryTimer  *time.Timer
	restTimer   *time.Timer
	resting     bool // nothing has happened for a while
	closing     bool
	incarnation uint64

	// What is on the disk. Only the committer changes it, with mu locked.
	jobs      table
	due       map[uint64]int64
	reasons   map[uint64]string
	keys      map[uint64]keyed // of jobs that came with one, for a while after they are gone
	fewKeys   int              // there were so many when they were last looked through
	config    []byte
	nextID    uint64
	segments  []*segment // without gaps
	size      int64      // of all segments
	liveBytes int64      // of the records that count
	syncs     int64
	syncTime  time.Duration
	syncSince time.Time // since when one is under way; zero: none is

	committer
}

const (
	batchMost  = 16 << 20 // bytes of jobs in a batch, where it has several
	carryMost  = 1 << 20  // bytes of jobs that are carried forward in a batch
	leastPart  = 16       // a segment has at least this part of the most that it may have
	restAfter  = time.Second
	lazyAfter  = time.Millisecond
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

func newLog(s *Store, dir, name string, owner Owner, account Account) *Log {
	l := &Log{fs: s.fs, dir: dir, name: name, most: s.most, keyFor: s.keyFor, keyMost: s.keyMost, restAfter: s.rest,
		owner: owner, account: account, nextID: 1,
		due: make(map[uint64]int64), reasons: make(map[uint64]string), keys: make(map[uint64]keyed)}
	l.quiet.L = &l.mu
	l.leave = func(gone bool) { s.left(l, gone) }
	return l
}

// Append has operations committed, all of them or, with an error, none. It waits for nothing. Of a
// job whose Put was not Committed, nothing else may be appended: on a full disk it would overtake
// the Put, and count for nothing.
func (l *Log) Append(ops ...Op) error {
	for i := range ops {
		if err := ops[i].check(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.closing {
		return ErrClosed
	}
	for i := range ops {
		if ops[i].Kind == Put {
			l.puts = append(l.puts, ops[i])
		} else {
			l.others = append(l.others, ops[i])
			if ops[i].Lazy {
				l.lazy++
			}
		}
	}
	if l.stalled == nil && len(l.puts) > 0 || len(l.others) > l.lazy {
		l.wake()
	} else if l.lazy > 0 {
		l.wakeLate()
	}
	return nil
}

// tryAgain has Puts that wait for room try again.
func (l *Log) tryAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stalled != nil && !l.closing {
		l.retry = true
		l.wake()
	}
}

// wake sees to it that there is a committer.
func (l *Log) wake() {
	if !l.busy {
		l.busy = true
		go l.run()
	}
}

// wakeLate does so in a moment, if that is for lazy ones.
func (l *Log) wakeLate() {
	switch {
	case l.lateSet || l.busy: // run looks in the end
		return
	case l.lateTimer == nil:
		l.lateTimer = time.AfterFunc(lazyAfter, l.beLate)
	default:
		l.lateTimer.Reset(lazyAfter)
	}
	l.lateSet = true
}

func (l *Log) beLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lateSet = false; l.lazy > 0 && !l.closing {
		l.late = true
		l.wake()
	}
}

// run is the committer. It is there as long as there is something to do.
func (l *Log) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.step() {
	}
	for (l.resting || l.closing) && l.file != nil {
		l.resting = false
		shrinks := !l.closing && l.shrinkDue()
		l.mu.Unlock()
		var err error
		if shrinks {
			err = l.shrink()
		}
		if err == nil {
			err = l.rest()
		}
		l.mu.Lock()
		if err != nil {
			l.fail(err)
		}
		for !l.closing && l.step() {
		}
	}
	l.busy = false
	if l.lazy > 0 && l.err == nil {
		l.wakeLate()
	}
	l.quiet.Broadcast()
	if l.file != nil {
		if l.restTimer == nil {
			l.restTimer = time.AfterFunc(l.restAfter, l.beIdle)
		} else {
			l.restTimer.Reset(l.restAfter)
		}
	}
}

func (l *Log) beIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.resting = true
		l.wake()
	}
}

// work is what a commit has to do.
type work struct {
	puts, others []Op
	first        uint32 // the first segment that is needed
	drops        bool   // there are others before it
	carries      bool   // jobs of the first one are carried forward
	spare        bool   // it may use the room that is kept for all but Puts
}

// step commits once, and says whether to call it again. mu is locked, but not while it
// waits.
func (l *Log) step() bool {
	if l.err != nil {
		return false
	}
	if len(l.puts)+len(l.others) > l.lazy && !l.closing {
		l.mu.Unlock()
		l.owner.Gather()
		l.mu.Lock()
		l.gather()
	}
	w, ok := l.take()
	if !ok {
		return false
	}
	l.mu.Unlock()
	err := l.commit(&w)
	stalled, puts := err, w.puts
	if Passing(err) && !w.spare && (len(w.others) > 0 || w.drops) {
		w.puts, w.carries, w.spare = nil, false, true
		err = l.commit(&w)
	}
	l.mu.Lock()
	switch {
	case err != nil && !Passing(err):
		l.fail(err)
		return false
	case err != nil:
		l.others = append(w.others, l.others...)
		stalled = err
	default:
		l.resting = false
		l.expected = len(w.puts) + len(w.others) + len(l.puts) + len(l.others)
		l.recycle(w.others)
	}
	switch {
	case stalled != nil:
		l.puts = append(puts, l.puts...)
		l.stall(stalled)
		return err == nil
	case !w.spare:
		l.recycle(puts)
		l.stall(nil)
	}
	return true
}

// gather waits for those whom the last commit has woken, and who are about to come again: a few
// turns at most, and not longer than somebody comes. To wait for some time for those in other processes was tried, and cost
// more than it gained.
func (l *Log) gather() {
	const turns, patience = 16, 3
	before, left := 0, patience
	for range turns {
		n := len(l.puts) + len(l.others)
		if n > before {
			before, left = n, patience
		}
		if left--; n == l.lazy || n >= l.expected || left < 0 {
			return
		}
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
	}
}

// take is what there is to do, if anything.
func (l *Log) take() (w work, ok bool) {
	w.spare = l.stalled != nil && !l.retry
	l.retry = false
	if !w.spare {
		w.puts = l.takePuts()
		w.carries = l.carryDue()
	}
	if len(l.others) > l.lazy || len(l.others) > 0 && (len(w.puts) > 0 || l.late || l.closing) {
		w.others, l.others = l.others, l.array()
		l.lazy, l.late = 0, false
	}
	w.first = l.firstNeeded()
	w.drops = len(l.segments) > 0 && w.first > l.segments[0].number
	return w, len(w.puts) > 0 || len(w.others) > 0 || w.drops || w.carries
}

// takePuts takes as many as go into a batch.
func (l *Log) takePuts() []Op {
	if len(l.puts) == 0 {
		return nil
	}
	const beside = 32 // bytes of a record, at least
	n := 0
	for size := 0; n < len(l.puts) && (n == 0 || size+len(l.puts[n].Body) <= batchMost); n++ {
		size += len(l.puts[n].Body) + beside
	}
	puts := l.puts
	l.puts = append(l.array(), puts[n:]...)
	clear(puts[n:])
	return puts[:n]
}

// array is an empty one that was used before, and recycle keeps one for it.
func (l *Log) array() []Op {
	for i, a := range l.spare {
		if a != nil {
			l.spare[i] = nil
			return a
		}
	}
	return nil
}

func (l *Log) recycle(ops []Op) {
	const most = 4096
	clear(ops)
	for i, a := range l.spare {
		if a == nil && cap(ops) > 0 && cap(ops) <= most {
			l.spare[i] = ops[:0]
			return
		}
	}
}

// stall tells the owner why Puts wait for room, or that they go on.
func (l *Log) stall(why error) {
	if (l.stalled == nil) != (why == nil) {
		l.retryAfter = retryFirst
		l.stalled = why
		l.mu.Unlock()
		l.owner.Stalled(why)
		l.mu.Lock()
	}
	if l.stalled = why; why == nil {
		return
	}
	if l.retryTimer == nil {
		l.retryTimer = time.AfterFunc(l.retryAfter, l.tryAgain)
	} else {
		l.retryTimer.Reset(l.retryAfter)
	}
	l.retryAfter = min(2*l.retryAfter, retryMost)
}

// fail gives up.
func (l *Log) fail(err error) {
	l.err = fmt.Errorf("seglog: %s: %w", l.dir, err)
	l.puts, l.others, l.lazy = nil, nil, 0
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	l.mu.Unlock()
	l.owner.Failed(l.err)
	l.mu.Lock()
}

// Close commits what there is room for, and lets go of the queue. What could not be committed is
// an error; it may be there at the next start or not.
func (l *Log) Close() error {
	left, err := l.stop(true)
	if errors.Is(err, ErrClosed) {
		return err
	}
	l.leave(l.tail() == nil)
	if err == nil && left > 0 {
		err = fmt.Errorf("seglog: %s: %w: %d operations", l.dir, errUnconfirmed, left)
	}
	return err
}

// Delete lets go of the queue, and removes all of it from the disk. With a nil error it is gone
// for good.
func (l *Log) Delete() error {
	if _, err := l.stop(false); errors.Is(err, ErrClosed) {
		return err
	}
	var err error
	if l.tail() != nil {
		err = removeQueue(l.fs, l.dir)
	}
	l.leave(err == nil)
	return err
}

// stop ends the committer, with all committed or not. It returns how much was not.
func (l *Log) stop(finish bool) (left int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return 0, ErrClosed
	}
	l.closing, l.retry = true, true
	if !finish {
		l.puts, l.others, l.lazy = nil, nil, 0
	}
	l.wake()
	for l.busy {
		l.quiet.Wait()
	}
	for _, t := range []*time.Timer{l.retryTimer, l.restTimer, l.lateTimer} {
		if t != nil {
			t.Stop()
		}
	}
	l.release()
	return len(l.puts) + len(l.others), l.err
}

// release gives back what the account has paid.
func (l *Log) release() {
	for _, s := range l.segments {
		l.account.Charge(-s.charge, true)
	}
}
