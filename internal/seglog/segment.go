package seglog

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment is a file of the log. All but the last one, the tail, are full: nothing is
// written to them any more.
type segment struct {
	number uint32
	salt   uint64
	size   int64 // where its last batch ends
	charge int64 // what the account pays for it

	live      int    // jobs whose record here counts
	liveBytes int64  // of these records
	low, high uint64 // ids of all jobs that have had a record here lie between them
}

// holds counts the record of a job.
func (s *segment) holds(id uint64, e *entry) {
	if s.high == 0 {
		s.low = id
	}
	s.low, s.high = min(s.low, id), max(s.high, id)
	s.live++
	s.liveBytes += e.length()
}

func (s *segment) letsGo(e *entry) {
	s.live--
	s.liveBytes -= e.length()
}

const (
	lastSegment = 1 << 31

	logSuffix   = ".log"
	indexSuffix = ".idx"
)

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x", number)+logSuffix)
}

func indexPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x", number)+indexSuffix)
}

// segmentNumber reads a file's name, with one of the suffixes.
func segmentNumber(name, suffix string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), ok && err == nil && len(digits) == 8 && n > 0 && n <= lastSegment
}

// readHeader says whether a file begins with a segment's header, and how large it is.
func readHeader(f File) (h header, size int64, ok bool, err error) {
	if size, err = f.Size(); err != nil || size < headerSize {
		return h, size, false, err
	}
	b := make([]byte, headerSize)
	if _, err = f.ReadAt(b, 0); err != nil {
		return h, size, false, err
	}
	h, ok = parseHeader(b)
	return h, size, ok, nil
}

// A scan is what was found in a segment.
type scan struct {
	end     int64 // of the last good batch
	read    bool  // there was one
	synced  int64 // so much was, and for claimed good batches say so
	claimed int64
	needs   uint32 // as the last batch says
	data    bool   // behind synced is more than a batch that only says so
}

// scanSegment reads a segment of this size from an offset up to the first batch that is not
// good. It hands on each batch: where it begins, and its bytes.
func scanSegment(f File, from, size int64, salt uint64, needs uint32, visit func(at int64, b []byte) error) (
	s scan, err error) {
	r := reader{f: f, at: from, size: size}
	s = scan{end: from, synced: from, claimed: headerSize, needs: needs}
	for {
		b, err := r.peek(batchHead)
		if b == nil {
			return s, err
		}
		h, ok := parseBatch(b, salt, s.end)
		if !ok {
			return s, nil
		}
		b, err = r.peek(batchHead + int64(h.length))
		if b == nil {
			return s, err
		}
		if !soundBatch(b) {
			return s, nil
		}
		if err := visit(s.end, b); err != nil {
			return s, err
		}
		r.skip(len(b))
		if int64(h.synced) > s.synced {
			s.synced, s.data = int64(h.synced), false
		}
		s.claimed = max(s.claimed, int64(h.synced))
		s.read = true
		s.end += int64(len(b))
		s.data = s.data || h.length > 0 || h.needs != s.needs
		s.needs = h.needs
	}
}

// eachRecord hands on the records of a batch, each with its bytes and where it is in b. It
// says whether they are all of it.
func eachRecord(b []byte, visit func(r *record, at int, bytes []byte)) bool {
	r := new(record) // one for all: a million takes time
	for at := batchHead; at < len(b); {
		n := 0
		if *r, n = parseRecord(b[at:], true); n == 0 {
			return false
		}
		visit(r, at, b[at:at+n])
		at += n
	}
	return true
}

// A reader reads a file from one end to the other.
type reader struct {
	f        File
	at, size int64 // of what is not in buf yet
	buf      []byte
	first    int
}

const readAhead = 1 << 20

// peek is the next n bytes, or nil if there are not as many.
func (r *reader) peek(n int64) ([]byte, error) {
	have := int64(len(r.buf) - r.first)
	if n > have+r.size-r.at {
		return nil, nil
	}
	if n > have {
		more := min(max(n-have, readAhead), r.size-r.at)
		if int64(cap(r.buf)) < have+more {
			r.buf = append(make([]byte, 0, have+more), r.buf[r.first:]...)
		} else {
			r.buf = r.buf[:copy(r.buf[:cap(r.buf)], r.buf[r.first:])]
		}
		r.first = 0
		b := r.buf[have : have+more]
		if err := readFull(r.f, b, r.at); err != nil {
			return nil, err
		}
		r.buf = r.buf[:have+more]
		r.at += more
	}
	return r.buf[r.first : int64(r.first)+n], nil
}

func (r *reader) skip(n int) { r.first += n }

// provesSynced looks behind the end of what is good for a batch that says that more was
// synced: then the bad one there was no torn write.
func provesSynced(f File, end, size int64, salt uint64) (bool, error) {
	for from := end; ; {
		at, h, err := nextBatch(f, from, size, salt)
		if at < 0 || err != nil || int64(h.synced) > end {
			return at >= 0, err
		}
		from = at + batchHead + int64(h.length)
	}
}

// nextBatch looks for the first good batch from an offset on, wherever it begins; -1: there
// is none.
func nextBatch(f File, at, size int64, salt uint64) (int64, batch, error) {
	const saltAt, least, most = 8, 4 << 10, 1 << 20
	want := le.AppendUint64(nil, salt)
	for n := int64(least); at+batchHead <= size; n = min(2*n, most) {
		window := make([]byte, min(n, size-at))
		if err := readFull(f, window, at); err != nil {
			return -1, batch{}, err
		}
		i := bytes.Index(window[saltAt:], want)
		if i < 0 {
			at += int64(len(window) - batchHead + 1)
			continue
		}
		if at += int64(i); at+batchHead > size {
			break
		}
		b := make([]byte, batchHead)
		if err := readFull(f, b, at); err != nil {
			return -1, batch{}, err
		}
		h, ok := parseBatch(b, salt, at)
		if length := batchHead + int64(h.length); ok && length <= size-at {
			b = make([]byte, length)
			if err := readFull(f, b, at); err != nil {
				return -1, batch{}, err
			}
			if soundBatch(b) {
				return at, h, nil
			}
		}
		at++
	}
	return -1, batch{}, nil
}

// readFull reads all of b, which is known to be there.
func readFull(f File, b []byte, at int64) error {
	if _, err := f.ReadAt(b, at); err != nil && err != io.EOF {
		return err
	}
	return nil
}
