package seglog

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
)

// Segments go from the front only, and only once a synced batch says that they are not
// needed: what a later one says of a job counts as long as the job's record is there.

// firstNeeded is the first segment that has jobs, or the tail.
func (l *Log) firstNeeded() uint32 {
	for i, s := range l.segments {
		if s.live > 0 || i == len(l.segments)-1 {
			return s.number
		}
	}
	return 1
}

// carryDue says that the log is so much larger than what lives in it that the jobs of its
// first segment should be put at its end, or has to make do with its tail.
func (l *Log) carryDue() bool {
	return !l.closing && (l.renews || l.size > 2*l.liveBytes+2*l.limit) && l.firstNeeded() != l.tail().number
}

// shrinkDue says that the tail has much more room than what lives would need. After a busy time that
// would stay so.
func (l *Log) shrinkDue() bool {
	limit, _ := l.sizes(0)
	return l.limit > 2*limit
}

// shrink begins a smaller tail; the steps that follow drop those before it. On a full disk there is
// none.
func (l *Log) shrink() error {
	if err := l.roll(0); err != nil && !Passing(err) {
		return err
	}
	return nil
}

// carry appends jobs of the segment to a batch as they are, each with what was last said of
// it. It returns the first segment that is needed then.
func (l *Log) carry(b []byte, number uint32) ([]byte, uint32, error) {
	s := l.segment(number)
	f, err := l.fs.Open(segmentPath(l.dir, number))
	if err != nil {
		return b, number, err
	}
	defer f.Close()
	left, start := s.live, len(b)
	for id, e := l.jobs.next(s.low); e != nil && id <= s.high && left > 0; id, e = l.jobs.next(id + 1) {
		if e.segment != number {
			continue
		}
		if len(b)-start >= carryMost {
			return b, number, nil
		}
		at := len(b)
		b = append(b, make([]byte, e.length())...)
		if _, err := l.readRecord(f, b[at:], id, e); err != nil {
			return b, number, err
		}
		if last := e.mark.last(); last != Put {
			b = appendRecord(b, &Op{Kind: last, ID: id, Deliveries: e.mark.deliveries(), Due: l.due[id], Text: l.reasons[id]})
		}
		left--
	}
	for number++; number < l.tail().number && l.segment(number).live == 0; number++ {
	}
	return b, number, nil
}

// drop takes the segments before the first one that is needed out of the log.
func (l *Log) drop(first uint32) []*segment {
	n := 0
	for ; l.segments[n].number < first; n++ {
		l.size -= l.segments[n].size
	}
	dropped := l.segments[:n:n]
	l.segments = append([]*segment(nil), l.segments[n:]...)
	return dropped
}

// On a file system that can't promise room, a file of ballast is thrown away to make some. There
// are no Puts then until there is ballast again.

const ballastName = "ballast"

func (l *Log) ballastPath() string { return filepath.Join(l.dir, ballastName) }

func (l *Log) makeBallast(n int64) error {
	f, err := l.fs.Create(l.ballastPath())
	if errors.Is(err, fs.ErrExist) {
		f, err = l.fs.Open(l.ballastPath())
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err == nil && size < n {
		b := make([]byte, n)
		rand.NewChaCha8([32]byte{}).Read(b) // what can't be compressed
		if _, err = f.WriteAt(b, 0); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		l.fs.Remove(l.ballastPath())
		return err
	}
	l.ballast = 0
	return nil
}

// dropBallast says whether there was any.
func (l *Log) dropBallast() bool {
	if l.fs.Remove(l.ballastPath()) != nil {
		return false
	}
	l.ballast = l.room / 3
	return true
}
