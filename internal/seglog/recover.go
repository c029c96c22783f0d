package seglog

import (
	"errors"
	"fmt"
	"path/filepath"
)

// load reads a queue from the disk, and has it go on where it ended.
func (l *Log) load() error {
	run, err := findSegments(l.fs, l.dir)
	if err != nil {
		return err
	}
	headers, run, err := l.readHeaders(run)
	if err != nil {
		return err
	}
	last := len(run) - 1
	l.incarnation, l.nextID = headers[last].incarnation, headers[last].nextID
	for i := range run {
		s := &segment{number: run[i], salt: headers[i].salt}
		l.segments = append(l.segments, s)
		if i < last {
			err = l.loadFull(s, int64(headers[i+1].previous))
		} else {
			l.config = headers[last].config
			err = l.loadTail(s, headers[i].needs)
		}
		if err != nil {
			return err
		}
	}
	for _, s := range l.segments {
		l.size += s.size
		l.account.Charge(s.charge, true)
	}
	return nil
}

// findSegments returns the numbers of the segments that follow each other up to the last.
func findSegments(fs FS, dir string) (run []uint32, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, ok := segmentNumber(name, logSuffix)
		if !ok {
			continue
		}
		if len(run) > 0 && n != run[len(run)-1]+1 {
			run = nil // what is before a gap was about to be removed
		}
		run = append(run, n)
	}
	return run, nil
}

// readHeaders reads those of the segments that are needed, and returns which these are.
func (l *Log) readHeaders(run []uint32) ([]header, []uint32, error) {
	headers := make([]header, len(run))
	first := 0
	for i := len(run) - 1; i >= first; i-- {
		h, size, ok, err := l.header(run[i])
		if err != nil {
			return nil, nil, err
		}
		headers[i] = h
		if i < len(run)-1 {
			if !ok {
				return nil, nil, l.corrupt(run[i], 0, "its header is not as it was written")
			}
			continue
		}
		if unused, err := l.neverUsed(run, h, size, ok); err != nil {
			return nil, nil, err
		} else if unused {
			if err := l.fs.Remove(segmentPath(l.dir, run[i])); err != nil {
				return nil, nil, err
			}
			run = run[:i]
			headers = headers[:i]
			continue
		}
		if !ok {
			return nil, nil, l.corrupt(run[i], 0, "its header is not as it was written")
		}
		first = max(0, i-int(h.needs)) // its batches may need less
	}
	if len(run) == 0 {
		return nil, nil, &CorruptError{l.dir, 0, "it has no segment"}
	}
	return headers[first:], run[first:], nil
}

func (l *Log) header(number uint32) (h header, size int64, ok bool, err error) {
	f, err := l.fs.Open(segmentPath(l.dir, number))
	if err != nil {
		return h, 0, false, err
	}
	defer f.Close()
	h, size, ok, err = readHeader(f)
	return h, size, ok && h.number == number, err
}

// neverUsed says whether the last segment, whose header this is, was being made when the
// process ended: it has no batch, and its header was not written, or the segment before it
// went on.
func (l *Log) neverUsed(run []uint32, h header, size int64, ok bool) (bool, error) {
	if size > headerSize {
		return false, nil
	}
	if !ok || len(run) < 2 {
		return !ok, nil
	}
	before := run[len(run)-2]
	f, err := l.fs.Open(segmentPath(l.dir, before))
	if err != nil {
		return false, err
	}
	defer f.Close()
	bh, size, ok, err := readHeader(f)
	if err != nil || !ok {
		return false, err
	}
	s, err := scanSegment(f, int64(h.previous), size, bh.salt, 0, func(int64, []byte) error { return nil })
	return s.end > int64(h.previous), err
}

func (l *Log) corrupt(number uint32, at int64, what string) error {
	return &CorruptError{segmentPath(l.dir, number), at, what}
}

// loadFull reads a full segment of this size: its index, or all of it.
func (l *Log) loadFull(s *segment, size int64) error {
	f, err := l.fs.Open(segmentPath(l.dir, s.number))
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := f.Size()
	if err != nil {
		return err
	}
	s.size, s.charge = size, size
	if there < size {
		return l.corrupt(s.number, there, "its end is missing")
	}
	found, err := l.scan(f, s, size, 0)
	if err == nil && found.end != size {
		err = l.corrupt(s.number, found.end, "a batch is not as it was written")
	}
	if err == nil && found.read {
		l.index.flush(size, found.needs)
	}
	return err
}

// scan applies a segment's batches, as far as its index goes by that.
func (l *Log) scan(f File, s *segment, size int64, needs uint32) (scan, error) {
	l.index = newIndexer(l.fs, l.dir, s.number, s.salt)
	from, x := int64(headerSize), readIndex(l.fs, l.dir, s.number, s.salt)
	if x.upTo > size {
		return scan{}, l.corrupt(s.number, size, "its end is missing")
	}
	if x.upTo > 0 {
		if err := x.each(func(r *record, at int64) { l.apply(s, r, at) }); err != nil {
			return scan{}, err
		}
		from, needs = x.upTo, x.needs
		l.index.goOn(&x)
	}
	return scanSegment(f, from, size, s.salt, needs, func(at int64, b []byte) error {
		if !eachRecord(b, func(r *record, off int, bytes []byte) {
			l.index.add(at+int64(off), r, bytes)
			l.apply(s, r, at+int64(off))
		}) {
			return l.corrupt(s.number, at, errNonsense.Error())
		}
		if l.index.large() {
			l.index.flush(0, 0)
		}
		return nil
	})
}

// loadTail reads the last segment, and cuts off what was torn.
func (l *Log) loadTail(s *segment, needs uint32) error {
	f, err := l.fs.Open(segmentPath(l.dir, s.number))
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	found, err := l.scan(f, s, size, needs)
	if err != nil {
		return err
	}
	s.size = found.end
	if found.end < size {
		if rot, err := provesSynced(f, found.end, size, s.salt); err != nil {
			return err
		} else if rot {
			return l.corrupt(s.number, found.end, "a batch is not as it was written, though it was synced")
		}
	}
	first := int64(s.number) - int64(found.needs)
	if first < int64(l.segments[0].number) {
		return &CorruptError{l.dir, 0, fmt.Sprintf("segment %08x is missing", first)}
	}
	l.limit, l.room = l.sizes(0)
	l.room = max(l.room, s.size)
	s.charge = l.room
	if err := l.settleTail(f, found, size); err != nil {
		return err
	}
	if x := l.index; x.footless || len(x.buf) > 0 && s.size >= readAhead {
		x.flush(l.synced, l.needs) // at most an empty batch is behind
	}
	return l.removeUnneeded(uint32(first))
}

// settleTail has all that was read from the tail survive a loss of power, and nothing else.
// What no batch says is synced is written once more: if a sync of it has failed, it may
// be in memory alone, and to sync it again would do nothing.
func (l *Log) settleTail(f File, found scan, size int64) error {
	if found.end == headerSize {
		found.synced, found.data = 0, true
	}
	if found.data {
		b := make([]byte, found.end-found.synced)
		if err := readFull(f, b, found.synced); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, found.synced); err != nil {
			return err
		}
	}
	if found.end < size {
		if err := f.Truncate(found.end); err != nil {
			return err
		}
	}
	l.synced, l.claimed, l.needs = found.end, found.claimed, found.needs
	if found.data || found.end < size {
		if err := f.Sync(); err != nil {
			return err
		}
	} else {
		l.synced = found.synced
	}
	if found.end == headerSize {
		if err := l.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	// It may have its room already, or there may be none.
	if err := f.Allocate(l.room); errors.Is(err, errUnsupported) {
		l.ballast = l.room / 3
	}
	return nil
}

// removeUnneeded removes segments before this one, whose removal was not synced.
func (l *Log) removeUnneeded(first uint32) error {
	for l.segments[0].number < first {
		if l.segments[0].live > 0 {
			return l.corrupt(l.segments[0].number, 0, "it has jobs, though the log does not need it")
		}
		l.segments = l.segments[1:]
	}
	names, _ := l.fs.List(l.dir)
	for _, name := range names {
		for _, suffix := range []string{logSuffix, indexSuffix} {
			if n, ok := segmentNumber(name, suffix); ok && n < first {
				l.fs.Remove(filepath.Join(l.dir, name))
			}
		}
	}
	return nil
}
