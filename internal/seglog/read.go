package seglog

import (
	"cmp"
	"errors"
	"io/fs"
	"time"
)

// Info is what a log has in memory of a job.
type Info struct {
	ID         uint64
	Size       int    // of its body
	Last       Kind   // what was last said of it: Put, Taken, Returned or Dead
	Deliveries uint32 // as last said
	Due        int64  // with Put or Returned
	Reason     string // with Dead
}

// A Job is what a log has on the disk of a job.
type Job struct {
	Info
	Sent int64
	Key  string
	Body []byte
}

// Next is the first job from this id on. Those that are only about to be committed are not
// there yet.
func (l *Log) Next(id uint64) (Info, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, e := l.jobs.next(id)
	if e == nil {
		return Info{}, false
	}
	return l.info(id, e), true
}

// Each hands on all jobs, in the order of their ids. It has the log locked.
func (l *Log) Each(visit func(*Info)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info := new(Info) // one for all: a million takes time
	l.jobs.each(func(id uint64, e *entry) {
		*info = l.info(id, e)
		visit(info)
	})
}

func (l *Log) info(id uint64, e *entry) Info {
	i := Info{ID: id, Size: int(e.size), Last: e.mark.last(), Deliveries: e.mark.deliveries()}
	if len(l.due) > 0 {
		i.Due = l.due[id]
	}
	if len(l.reasons) > 0 {
		i.Reason = l.reasons[id]
	}
	return i
}

// Config is the queue's configuration, as committed.
func (l *Log) Config() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.config
}

// NextID is larger than the id of any job that was ever committed.
func (l *Log) NextID() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextID
}

// Incarnation is a random number that the queue has for as long as it exists.
func (l *Log) Incarnation() uint64 { return l.incarnation }

// Stats are a log's numbers.
type Stats struct {
	Jobs      int
	LiveBytes int64 // on the disk, of these jobs
	Size      int64 // of all segments
	Segments  int
	Stalled   error         // why Puts wait for room
	Syncs     int64         // how often the log was synced
	SyncTime  time.Duration // how long these syncs took, and for how long one has been under way
}

// Stats says how large the log is.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := l.syncTime
	if !l.syncSince.IsZero() { // a disk that stands still shows while it does
		took += time.Since(l.syncSince)
	}
	return Stats{l.jobs.count, l.liveBytes, l.size, len(l.segments), l.stalled, l.syncs, took}
}

// readAtOnce is how much of a segment is read together, where jobs follow each other.
const readAtOnce = 256 << 10

// Read reads jobs from the disk. Those that are gone are left out; the others come in the order
// of their ids as given. With ErrCorrupt, which is of the first that is so, those are left out, too. It waits for the disk.
func (l *Log) Read(ids ...uint64) ([]Job, error) {
	r := bodyReader{l: l}
	defer r.close()
	jobs, corrupt := make([]Job, 0, len(ids)), error(nil)
	for i, id := range ids {
		job, ok, err := r.read(id, ids[i+1:])
		switch {
		case errors.Is(err, ErrCorrupt):
			corrupt = cmp.Or(corrupt, err)
		case err != nil:
			return jobs, err
		case ok:
			jobs = append(jobs, job)
		}
	}
	return jobs, corrupt
}

// A bodyReader reads one job after the other.
type bodyReader struct {
	l       *Log
	f       File
	segment uint32 // f's
	buf     []byte // of f
	at      int64
}

func (r *bodyReader) close() {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.buf = nil, nil
}

// has says that the job that is there was read with another one.
func (r *bodyReader) has(e *entry) bool {
	at := int64(e.offset)
	return r.f != nil && r.segment == e.segment && at >= r.at && at+e.length() <= r.at+int64(len(r.buf))
}

// read reads a job, and as much behind it as the next ones want.
func (r *bodyReader) read(id uint64, next []uint64) (job Job, ok bool, err error) {
	for {
		r.l.mu.Lock()
		p := r.l.jobs.get(id)
		if p == nil {
			r.l.mu.Unlock()
			return job, false, nil
		}
		e := *p
		job.Info = r.l.info(id, p)
		wanted := int64(0)
		if !r.has(&e) {
			wanted = r.l.span(e, next)
		}
		r.l.mu.Unlock()
		if r.f == nil || r.segment != e.segment {
			r.close()
			r.f, err = r.l.fs.Open(segmentPath(r.l.dir, e.segment))
			if errors.Is(err, fs.ErrNotExist) && r.l.moved(id, e) {
				continue // its segment was dropped meanwhile
			}
			if err != nil {
				r.f = nil
				return job, false, err
			}
			r.segment = e.segment
		}
		at := int64(e.offset)
		if wanted > 0 {
			r.at, r.buf = at, make([]byte, wanted)
			if err := readFull(r.f, r.buf, at); err != nil {
				return job, false, err
			}
		}
		b := r.buf[at-r.at:][:e.length()]
		rec, err := r.l.readRecord(nil, b, id, &e)
		job.Sent, job.Key, job.Body = rec.Sent, rec.Text, append([]byte{}, rec.Body...)
		return job, err == nil, err
	}
}

// span is how much to read for this job and those of the next ones that lie behind it.
func (l *Log) span(first entry, next []uint64) int64 {
	n := first.length()
	for _, id := range next {
		e := l.jobs.get(id)
		if e == nil {
			continue
		}
		end := int64(e.offset) + e.length() - int64(first.offset)
		if e.segment != first.segment || end < n || end > readAtOnce {
			break
		}
		n = end
	}
	return n
}

// moved says that a job is elsewhere than at e, or gone.
func (l *Log) moved(id uint64, e entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.jobs.get(id)
	return now == nil || now.segment != e.segment
}

// readRecord reads a job's record into b, from f unless it is there already, and looks whether it
// is as it was written.
func (l *Log) readRecord(f File, b []byte, id uint64, e *entry) (record, error) {
	if f != nil {
		if err := readFull(f, b, int64(e.offset)); err != nil {
			return record{}, err
		}
	}
	r, n := parseRecord(b, true)
	if n != len(b) || r.Kind != Put || r.ID != id || !r.sound(b) {
		return r, &CorruptError{segmentPath(l.dir, e.segment), int64(e.offset), "a job is not as it was written"}
	}
	return r, nil
}
