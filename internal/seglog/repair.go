package seglog

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// A Repaired says what became of a corrupt queue.
type Repaired struct {
	Name  string
	Jobs  int            // that were saved
	Bad   []CorruptError // where something was not as it was written
	Aside string         // the directory where the queue lies as it was
}

const asideSuffix = ".broken"

// Repair saves what is left of a queue that is not open: all jobs that can still be read.
// What cannot be read may have said that a job is done, so some may come back. The queue has a new
// incarnation then, and what was there is put aside.
func (s *Store) Repair(f Found) (Repaired, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Repaired{}, ErrClosed
	}
	if q := s.queues[f.Name]; q != nil && q.open && q.Dir == f.Dir {
		return Repaired{}, fmt.Errorf("seglog: the queue %q is open", f.Name)
	}
	old := newLog(s, f.Dir, f.Name, nil, nil)
	bad, err := old.salvage()
	r := Repaired{Name: old.name, Jobs: old.jobs.count, Bad: bad, Aside: f.Dir + asideSuffix}
	if err != nil {
		return r, fmt.Errorf("seglog: repair %s: %w", f.Dir, err)
	}
	s.last++
	dir := filepath.Join(s.dir, strconv.Itoa(s.last))
	if err := old.rewrite(s, dir+newSuffix); err != nil {
		return r, fmt.Errorf("seglog: repair %s: %w", f.Dir, err)
	}
	// From now on the new one counts: it has the higher number.
	if err := s.fs.Rename(dir+newSuffix, dir); err != nil {
		return r, err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return r, err
	}
	if err := s.fs.Rename(f.Dir, r.Aside); err != nil {
		return r, err
	}
	s.queues[r.Name] = &Found{Name: r.Name, Dir: dir}
	s.forgetBroken(f.Dir)
	return r, s.fs.SyncDir(s.dir)
}

// salvage reads all that can be read.
func (l *Log) salvage() (bad []CorruptError, err error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	needed, headers := int64(0), make(map[uint32]*header)
	for i := len(names) - 1; i >= 0; i-- { // from the last one, which knows which are needed
		n, ok := segmentNumber(names[i], logSuffix)
		if !ok || int64(n) < needed {
			continue
		}
		s := &segment{number: n}
		l.segments = append([]*segment{s}, l.segments...)
		h, err := l.identify(s, &bad)
		if err != nil {
			return bad, err
		}
		if headers[n] = h; h != nil {
			needed = max(needed, int64(n)-int64(h.needs))
		}
	}
	for i, s := range l.segments {
		if i > 0 && l.segments[i-1].number+1 != s.number {
			bad = append(bad, CorruptError{l.dir, 0, fmt.Sprintf("there is no segment before %08x", s.number)})
		}
		if h := headers[s.number]; h != nil {
			l.name, l.config, l.nextID = h.name, h.config, max(l.nextID, h.nextID)
		}
		if s.salt == 0 {
			continue
		}
		if err := l.salvageSegment(s, &bad); err != nil {
			return bad, err
		}
	}
	if l.name == "" && len(bad) > 0 {
		return bad, fmt.Errorf("nothing says which queue it is: %w", ErrCorrupt)
	}
	return bad, nil
}

// identify finds out a segment's salt: from its header, which it returns, or from its first
// batch.
func (l *Log) identify(s *segment, bad *[]CorruptError) (*header, error) {
	f, err := l.fs.Open(segmentPath(l.dir, s.number))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, size, ok, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	s.size = size
	if ok {
		s.salt = h.salt
		return &h, nil
	}
	if size <= headerSize {
		return nil, nil
	}
	*bad = append(*bad, CorruptError{segmentPath(l.dir, s.number), 0, "its header is not as it was written"})
	b := make([]byte, min(size-headerSize, batchHead))
	if err := readFull(f, b, headerSize); err != nil || len(b) < batchHead {
		return nil, err
	}
	salt := le.Uint64(b[8:])
	at, _, err := nextBatch(f, headerSize, size, salt)
	if at >= 0 {
		s.salt = salt
	}
	return nil, err
}

// salvageSegment applies the good batches of a segment, and the jobs of bad ones.
func (l *Log) salvageSegment(s *segment, bad *[]CorruptError) error {
	f, err := l.fs.Open(segmentPath(l.dir, s.number))
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(headerSize); at < s.size; {
		found, err := scanSegment(f, at, s.size, s.salt, 0, func(at int64, b []byte) error {
			eachRecord(b, func(r *record, off int, _ []byte) {
				if r.Kind == Config && r.Text != "" {
					l.name = r.Text
				}
				l.apply(s, r, at+int64(off))
			})
			return nil
		})
		if err != nil || found.end == s.size {
			return err
		}
		*bad = append(*bad, CorruptError{segmentPath(l.dir, s.number), found.end, "a batch is not as it was written"})
		next, _, err := nextBatch(f, found.end, s.size, s.salt)
		if err != nil {
			return err
		}
		if next < 0 {
			next = s.size
		}
		if err := l.salvageBatch(f, s, found.end, next); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// salvageBatch applies those jobs between two offsets that are as they were written. Other
// records have no sum of their own, so that nothing of theirs is believed. What follows a bad job is
// only believed if all lengths fit: else it may be the inside of a job.
func (l *Log) salvageBatch(f File, s *segment, from, to int64) error {
	if to-from <= batchHead {
		return nil
	}
	b := make([]byte, to-from)
	if err := readFull(f, b, from); err != nil {
		return err
	}
	believe := true
	fits := eachRecord(b, func(*record, int, []byte) {})
	eachRecord(b, func(r *record, off int, bytes []byte) {
		if r.Kind != Put {
			return
		}
		if sound := r.sound(bytes); sound && believe {
			l.apply(s, r, from+int64(off))
		} else if !sound {
			believe = fits
		}
	})
	return nil
}

// rewrite writes all jobs to a new log.
func (l *Log) rewrite(s *Store, dir string) error {
	if err := removeFiles(l.fs, dir); err != nil && !os.IsNotExist(err) {
		return err
	}
	o := &rewriter{done: make(chan error, 1)}
	n := newLog(s, dir, l.name, o, o)
	n.incarnation, n.nextID = randomUint64(), l.nextID
	n.config = l.config
	write := func(ops ...Op) error {
		o.left = len(ops)
		if err := n.Append(ops...); err != nil {
			return err
		}
		return <-o.done
	}
	err := write(Op{Kind: Config, Text: n.name, Body: n.config})
	const some, most = 1000, 4 << 20
	for next := uint64(0); err == nil; {
		var ids []uint64
		size := 0
		for info, ok := l.Next(next); ok && len(ids) < some && size < most; info, ok = l.Next(next) {
			ids, next, size = append(ids, info.ID), info.ID+1, size+info.Size
		}
		if len(ids) == 0 {
			break
		}
		var jobs []Job
		if jobs, err = l.Read(ids...); err == nil {
			err = write(putsOf(jobs)...)
		}
		if notes := notesOf(jobs); err == nil && len(notes) > 0 {
			err = write(notes...)
		}
	}
	if _, stopped := n.stop(true); err == nil {
		err = stopped
	}
	return err
}

// putsOf are the operations that put jobs again, and notesOf those that say what was last said of
// them.
func putsOf(jobs []Job) (ops []Op) {
	for _, j := range jobs {
		o := Op{Kind: Put, ID: j.ID, Sent: j.Sent, Text: j.Key, Body: j.Body}
		if j.Last == Put {
			o.Due = j.Due
		}
		ops = append(ops, o)
	}
	return ops
}

func notesOf(jobs []Job) (ops []Op) {
	for _, j := range jobs {
		if j.Last != Put {
			ops = append(ops, Op{Kind: j.Last, ID: j.ID, Deliveries: j.Deliveries, Due: j.Due, Text: j.Reason})
		}
	}
	return ops
}

// A rewriter waits for one group of operations after the other. It has no limit.
type rewriter struct {
	left int
	done chan error
}

func (*rewriter) Charge(int64, bool) bool { return true }

func (*rewriter) Gather() {}

func (r *rewriter) Committed(puts, others int) {
	if r.left -= puts + others; r.left == 0 {
		r.done <- nil
	}
}

func (r *rewriter) Failed(err error) { r.done <- err }

func (r *rewriter) Stalled(err error) {
	if err != nil {
		r.done <- err
	}
}
