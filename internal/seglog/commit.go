package seglog

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"time"
)

// A committer is the part of a Log that only the goroutine uses that commits.
type committer struct {
	file    File   // the tail's; nil: not open
	buf     []byte // a batch
	synced  int64  // how much of the tail survives a loss of power
	claimed int64  // how much of it a batch says is synced
	limit   int64  // where Puts end in it
	room    int64  // where all ends
	needs   uint32 // how many segments before it count, as its last batch says
	index   *indexer
	ballast int64 // how much ballast is missing before there may be more Puts
	renews  bool  // the tail takes the place of those before it, as the account pays for no more
}

// tail is the segment that is written to; nil: there is none yet.
func (l *Log) tail() *segment {
	if len(l.segments) == 0 {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// commit writes a batch and syncs it, once each. What was not committed, with an error, is
// as if it had not been tried.
func (l *Log) commit(w *work) error {
	if l.tail() != nil {
		if err := l.openTail(); err != nil {
			return err
		}
	}
	if l.ballast > 0 && len(w.puts) > 0 {
		if err := l.makeBallast(l.ballast); err != nil {
			return err
		}
	}
	b, first, sync, err := l.encode(w)
	if err != nil {
		return err
	}
	if err := l.place(int64(len(b)), w.spare); err != nil {
		return err
	}
	at, err := l.write(b, first, w.spare)
	if err != nil {
		return err
	}
	if sync {
		if err := l.sync(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.replay(b, at)
	if sync {
		l.synced = l.tail().size
	}
	dropped := l.drop(first)
	l.renews = l.renews && len(l.segments) > 1
	l.retry = l.retry || len(dropped) > 0
	l.mu.Unlock()
	if len(w.puts)+len(w.others) > 0 {
		l.owner.Committed(len(w.puts), len(w.others))
	}
	for _, s := range dropped {
		l.account.Charge(-s.charge, true)
		l.fs.Remove(indexPath(l.dir, s.number))
		l.fs.Remove(segmentPath(l.dir, s.number))
	}
	if l.index.large() {
		l.flushIndex(0)
	}
	return nil
}

// sync syncs the tail, and counts how long that takes.
func (l *Log) sync() error {
	l.mu.Lock()
	l.syncSince = time.Now()
	l.mu.Unlock()
	err := l.file.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncTime += time.Since(l.syncSince)
	l.syncSince = time.Time{}
	if err != nil {
		return syncError{err}
	}
	l.syncs++
	return nil
}

// encode returns a batch, but for its head; the first segment that is needed after it; and
// whether it is to be synced. What is carried forward comes first, since others may settle it.
func (l *Log) encode(w *work) (b []byte, first uint32, sync bool, err error) {
	b, first = append(l.buf[:0], make([]byte, batchHead)...), w.first
	if w.carries {
		if b, first, err = l.carry(b, first); err != nil {
			return nil, 0, false, err
		}
	}
	if first > w.first || w.drops {
		b = l.carryKeys(b, first)
	}
	sync = len(w.puts) > 0 || len(b) > batchHead || w.drops
	for i := range w.puts {
		b = appendRecord(b, &w.puts[i])
	}
	for i := range w.others {
		sync = sync || w.others[i].Kind != Taken
		b = appendRecord(b, &w.others[i])
	}
	l.buf = b
	return b, first, sync, nil
}

func (l *Log) openTail() (err error) {
	if l.file == nil {
		l.file, err = l.fs.Open(segmentPath(l.dir, l.tail().number))
	}
	return err
}

// write puts a batch behind the last one. One that fails leaves bytes there that the next one
// overwrites, and that are no batch: the next one is not theirs to follow.
func (l *Log) write(b []byte, first uint32, spare bool) (at int64, err error) {
	tail := l.tail()
	at = tail.size
	batch{salt: tail.salt, at: uint32(at), synced: uint32(l.synced), needs: tail.number - first}.seal(b)
	_, err = l.file.WriteAt(b, at)
	if err != nil && noRoom(err) && spare && l.dropBallast() {
		_, err = l.file.WriteAt(b, at)
	}
	if err == nil {
		l.claimed, l.needs = l.synced, tail.number-first
	}
	return at, err
}

// flushIndex writes what there is of the tail's index, which goes as far as the tail if that has so
// many bytes.
func (l *Log) flushIndex(least int64) {
	upTo := l.synced
	if size := l.tail().size; upTo < size || size < least {
		upTo = 0
	}
	l.index.flush(upTo, l.needs)
}

// replay applies the batch that was written. It lets go of mu now and then, but not between
// records of one job.
func (l *Log) replay(b []byte, at int64) {
	const most = 512
	tail, n, last := l.tail(), 0, uint64(0)
	l.grow(tail, int64(len(b)))
	eachRecord(b, func(r *record, off int, bytes []byte) {
		if n++; n >= most && r.ID != last {
			n = 0
			l.mu.Unlock()
			runtime.Gosched()
			l.mu.Lock()
		}
		last = r.ID
		l.index.add(at+int64(off), r, bytes)
		l.apply(tail, r, at+int64(off))
	})
}

func (l *Log) grow(s *segment, n int64) {
	s.size += n
	l.size += n
}

// apply does what a record says. It is at this offset of the segment.
func (l *Log) apply(s *segment, r *record, at int64) {
	switch r.Kind {
	case Put:
		l.settle(r.ID) // it may be a copy
		e := entry{s.number, uint32(at), uint32(r.size), newMark(Put, r.head, 0)}
		l.jobs.put(r.ID, e)
		s.holds(r.ID, &e)
		l.liveBytes += e.length()
		if r.Due != 0 {
			l.due[r.ID] = r.Due
		}
		l.nextID = max(l.nextID, r.ID+1)
		l.remember(s, r)
	case Taken, Returned, Dead:
		e := l.jobs.get(r.ID)
		if e == nil {
			return
		}
		l.forget(r.ID)
		e.mark = newMark(r.Kind, e.mark.head(), r.Deliveries)
		if r.Due != 0 {
			l.due[r.ID] = r.Due
		}
		if r.Text != "" {
			l.reasons[r.ID] = r.Text
		}
	case Done:
		if l.settle(r.ID); r.Text != "" {
			delete(l.keys, r.ID)
		}
	case Config:
		l.config = slices.Clone(r.Body)
	case Gone:
		l.nextID = max(l.nextID, r.ID+1)
		l.remember(s, r)
	}
}

// settle removes a job, if it is there.
func (l *Log) settle(id uint64) {
	e := l.jobs.get(id)
	if e == nil {
		return
	}
	if s := l.segment(e.segment); s != nil {
		s.letsGo(e)
	}
	l.liveBytes -= e.length()
	l.forget(id)
	l.jobs.remove(id)
}

// forget drops what was said of a job beside its mark.
func (l *Log) forget(id uint64) {
	if len(l.due) > 0 {
		delete(l.due, id)
	}
	if len(l.reasons) > 0 {
		delete(l.reasons, id)
	}
}

// segment is the one with this number; nil: it is not there any more. None are missing, but in
// a queue that is repaired.
func (l *Log) segment(number uint32) *segment {
	if len(l.segments) == 0 {
		return nil
	}
	i := int(number - l.segments[0].number)
	if i >= len(l.segments) || l.segments[i].number != number {
		i = sort.Search(len(l.segments), func(i int) bool { return l.segments[i].number >= number })
	}
	if i < len(l.segments) && l.segments[i].number == number {
		return l.segments[i]
	}
	return nil
}

// place sees to it that the tail has room for n bytes. With spare set these may be
// where there is none for Puts.
func (l *Log) place(n int64, spare bool) error {
	tail := l.tail()
	if tail != nil && tail.size+n <= l.limit {
		return nil
	}
	fits := spare && tail != nil && tail.size+n <= l.room
	if fits && l.stalled != nil {
		return nil
	}
	err := l.roll(n)
	if fits && Passing(err) {
		return nil
	}
	return err
}

// roll begins a new tail, with room for n bytes at least.
func (l *Log) roll(n int64) error {
	limit, room := l.sizes(n)
	old, number := l.tail(), uint32(1)
	if old != nil {
		number = old.number + 1
	} else if err := l.fs.Mkdir(l.dir); err != nil {
		return err
	}
	if !l.charge(limit, room) {
		return ErrRefused
	}
	s := &segment{number: number, salt: rand.Uint64(), charge: room}
	f, err := l.begin(s, room)
	if err != nil {
		l.account.Charge(-room, true)
		return err
	}
	if old != nil {
		l.account.Charge(old.size-old.charge, true)
		old.charge = old.size
		if old.live > 0 {
			l.flushIndex(0)
		} else {
			l.index.drop()
		}
		l.file.Close()
	}
	l.file, l.limit, l.room = f, limit, room
	l.synced, l.claimed = headerSize, headerSize
	l.index = newIndexer(l.fs, l.dir, number, s.salt)
	if l.needs = 0; old != nil {
		l.needs = number - l.segments[0].number
	}
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.grow(s, headerSize)
	l.mu.Unlock()
	return nil
}

// charge has the account pay for a new tail. If it does not, and what there is pays for as much, the tail takes the place
// of that: the little that lives is carried into it at once. Logs that share an account might else have all of it, with
// next to nothing in them, and none of them go on.
func (l *Log) charge(limit, room int64) bool {
	if l.account.Charge(room, false) {
		return true
	}
	paid := int64(0)
	for _, s := range l.segments {
		paid += s.charge
	}
	if l.renews = paid >= room && 2*l.liveBytes <= limit; l.renews {
		l.account.Charge(room, true)
	}
	return l.renews
}

// sizes are those of a new segment that has room for n bytes: as much as what lives takes, so
// that a queue with little in it needs little disk, and twice what the keys of the segments before do, which come into it
// when these go. For all but Puts there is half as much, and once more for keys.
func (l *Log) sizes(n int64) (limit, room int64) {
	keys := l.keyBytes()
	n += keys + 4*batchHead // so that to drop the segments before takes no other one
	limit = headerSize + max(n, min(max(l.liveBytes+2*keys, l.most/leastPart), l.most))
	return limit, limit + limit/2 + keys
}

// begin makes a segment's file.
func (l *Log) begin(s *segment, room int64) (File, error) {
	path := segmentPath(l.dir, s.number)
	l.fs.Remove(path) // one may be left of an attempt that failed
	f, err := l.fs.Create(path)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(f, s, room); err != nil {
		f.Close()
		l.fs.Remove(path)
		if l.file != nil {
			l.file.Allocate(l.room)
		}
		return nil, err
	}
	return f, nil
}

// prepare sees to it that the tail is complete and the file that follows it there, also after
// a loss of power. Only when that one has its room does the tail give up what it has too much.
func (l *Log) prepare(f File, s *segment, room int64) error {
	err := f.Allocate(room)
	if errors.Is(err, errUnsupported) {
		err = l.makeBallast(room / 3)
	}
	if err != nil {
		return err
	}
	h := header{number: s.number, salt: s.salt, incarnation: l.incarnation, nextID: l.nextID, name: l.name,
		config: l.config}
	if old := l.tail(); old != nil {
		h.previous, h.needs = uint32(old.size), s.number-l.segments[0].number
		if err := l.file.Truncate(old.size); err != nil {
			return err
		}
		if l.synced < old.size {
			if err := l.sync(); err != nil {
				return err
			}
			l.synced = old.size
		}
	}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return syncError{err}
	}
	if err := l.fs.SyncDir(l.dir); err != nil || s.number > 1 {
		return err
	}
	return l.fs.SyncDir(filepath.Dir(l.dir))
}

// rest is for when nothing happens: everything is synced, a last batch says so, and the
// file is closed.
func (l *Log) rest() error {
	tail := l.tail()
	if l.synced < tail.size {
		if err := l.sync(); err != nil {
			return err
		}
		l.synced = tail.size
	}
	l.flushIndex(readAhead) // what is smaller is read in no time, and so looked at
	if l.claimed < tail.size && tail.size+batchHead <= l.room {
		b := make([]byte, batchHead)
		if _, err := l.write(b, l.segments[0].number, false); err == nil {
			l.mu.Lock()
			l.grow(tail, batchHead)
			l.mu.Unlock()
		}
	}
	err := l.file.Close()
	l.file, l.buf = nil, nil
	return err
}
