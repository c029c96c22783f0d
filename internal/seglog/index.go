package seglog

import "hash/crc32"

// An indexer collects what a segment's index has, and writes it piece by piece. Each piece ends with a
// foot, which says how far the index goes, and which the next piece overwrites. Where there is no index,
// or an end without a foot, the segment is read at the next start.
type indexer struct {
	fs       FS
	path     string
	buf      []byte
	sum      uint32
	written  int64 // but for the foot
	footless bool  // it ends without one
	failed   bool
}

const (
	indexMagic = "zpidx\x00\x00\x02"
	indexPiece = 256 << 10
	indexHead  = 8 + 8
	indexFoot  = 4 + 4 + 4
)

func newIndexer(fs FS, dir string, number uint32, salt uint64) *indexer {
	x := &indexer{fs: fs, path: indexPath(dir, number)}
	x.buf = le.AppendUint64(append(x.buf, indexMagic...), salt)
	return x
}

// add is for the record at this offset, whose bytes are given.
func (x *indexer) add(at int64, r *record, b []byte) {
	if !r.indexed() {
		b = b[:r.head]
	}
	if !x.failed {
		x.buf = append(le.AppendUint32(x.buf, uint32(at)), b...)
	}
}

// large says that much has come together.
func (x *indexer) large() bool { return len(x.buf) >= indexPiece }

// flush writes what has come together. It is all that the segment has up to there, which is synced, and
// at that point so many segments before it are needed; 0: it is more than what is synced.
func (x *indexer) flush(upTo int64, needs uint32) {
	if x.failed || upTo == 0 && len(x.buf) == 0 {
		return
	}
	x.sum = crc32.Update(x.sum, castagnoli, x.buf)
	n := int64(len(x.buf))
	if upTo > 0 {
		foot := le.AppendUint32(le.AppendUint32(nil, needs), uint32(upTo))
		x.buf = append(x.buf, le.AppendUint32(foot, crc32.Update(x.sum, castagnoli, foot))...)
	}
	if err := x.write(); err != nil {
		x.drop()
		return
	}
	x.written += n
	x.buf, x.footless = nil, upTo == 0
}

func (x *indexer) write() error {
	if x.written == 0 {
		x.fs.Remove(x.path)
	}
	open := x.fs.Create
	if x.written > 0 {
		open = x.fs.Open
	}
	f, err := open(x.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(x.buf, x.written)
	return err
}

// drop is for a segment that needs no index.
func (x *indexer) drop() {
	x.fs.Remove(x.path)
	x.buf, x.failed = nil, true
}

// An index is what was read of one.
type index struct {
	entries []byte
	upTo    int64  // it has all that the segment has up to there
	needs   uint32 // as the last batch before that says
	sum     uint32 // of all but the foot
}

// readIndex reads a segment's index; without a good one its upTo is 0.
func readIndex(fs FS, dir string, number uint32, salt uint64) (x index) {
	f, err := fs.Open(indexPath(dir, number))
	if err != nil {
		return x
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil || n < indexHead+indexFoot {
		return x
	}
	b := make([]byte, n)
	if readFull(f, b, 0) != nil {
		return x
	}
	all, foot := b[:n-indexFoot], b[n-indexFoot:]
	sum := crc32.Checksum(all, castagnoli)
	if string(b[:8]) != indexMagic || le.Uint64(b[8:]) != salt || le.Uint32(foot[8:]) != crc32.Update(sum, castagnoli, foot[:8]) {
		return x
	}
	if upTo := int64(le.Uint32(foot[4:])); upTo >= headerSize {
		x = index{all[indexHead:], upTo, le.Uint32(foot), sum}
	}
	return x
}

// each hands on the records, without the bodies of jobs.
func (x *index) each(visit func(r *record, at int64)) error {
	r := new(record)
	for b := x.entries; len(b) > 0; {
		n := 0
		if len(b) > 4 {
			*r, n = parseRecord(b[4:], false)
		}
		if n == 0 {
			return errNonsense
		}
		visit(r, int64(le.Uint32(b)))
		b = b[4+n:]
	}
	return nil
}

// goOn has the indexer add to what was read.
func (x *indexer) goOn(from *index) {
	x.buf, x.sum, x.written = nil, from.sum, indexHead+int64(len(from.entries))
}
