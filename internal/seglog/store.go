package seglog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options are of a Store. The zero value is good.
type Options struct {
	FS           FS            // nil: System
	SegmentBytes int64         // the most that a segment has, but for a single job that is larger; 0: 64 MiB
	KeyFor       time.Duration // for how long after a job was sent its key is kept, though the job may be gone
	KeyMost      int           // of how many jobs at most, the latest; 0: of any number
}

// A Store is a directory with queues.
type Store struct {
	fs      FS
	dir     string
	most    int64
	keyFor  time.Duration
	keyMost int
	rest    time.Duration // after so long a log that is not used closes its file
	lock    io.Closer

	mu     sync.Mutex
	queues map[string]*Found // by name
	broken []Found
	last   int // the highest number of a queue's directory
	closed bool
	open   map[*Log]bool
}

// Found is a queue on the disk.
type Found struct {
	Name string // "": nothing says it any more
	Dir  string
	Err  error // why it can't be opened

	open bool
}

// Open takes a directory, which it makes if needed, for this process: ErrLocked if
// another one has it. It looks which queues are there, and removes what is left of some that
// were being made or deleted.
func Open(dir string, o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = System
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	s := &Store{fs: o.FS, dir: dir, most: o.SegmentBytes, keyFor: o.KeyFor, keyMost: o.KeyMost, rest: restAfter,
		queues: make(map[string]*Found), open: make(map[*Log]bool)}
	if err := s.fs.Mkdir(dir); err != nil {
		return nil, err
	}
	if err := s.fs.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	var err error
	if s.lock, err = s.fs.Lock(filepath.Join(dir, lockName)); err != nil {
		return nil, fmt.Errorf("seglog: %s: %w", dir, err)
	}
	if err := s.look(); err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

const (
	lockName   = "lock"
	goneSuffix = ".gone" // of a queue that was deleted
	newSuffix  = ".new"  // of one that is being repaired
)

// look finds the queues.
func (s *Store) look() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, _, _ := strings.Cut(name, ".")
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != digits {
			continue // it is somebody else's
		}
		s.last = max(s.last, int(n))
		dir := filepath.Join(s.dir, name)
		switch name[len(digits):] {
		case "":
			err = s.lookAt(dir)
		case goneSuffix:
			_ = removeFiles(s.fs, dir) // nobody's: the next Open tries again
		case newSuffix:
			err = removeFiles(s.fs, dir)
		}
		if err != nil && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("seglog: %s: %w", dir, err)
		}
	}
	return nil
}

// lookAt finds out whose directory this is.
func (s *Store) lookAt(dir string) error {
	name, ok, err := queueName(s.fs, dir)
	switch {
	case err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, syscall.EISDIR): // a queue of that name must not be made anew beside it
		return err
	case err != nil:
		s.broken = append(s.broken, Found{Dir: dir, Err: err})
	case !ok:
		return removeUnmade(s.fs, dir)
	case s.queues[name] != nil: // it was being repaired, and the later one counts
		earlier := s.queues[name]
		if number(earlier.Dir) > number(dir) {
			earlier, dir = &Found{Dir: dir}, earlier.Dir
		}
		s.queues[name] = &Found{Name: name, Dir: dir}
		return s.fs.Rename(earlier.Dir, earlier.Dir+asideSuffix)
	default:
		s.queues[name] = &Found{Name: name, Dir: dir}
	}
	return nil
}

// number is that of a queue's directory.
func number(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(dir))
	return n
}

// queueName reads the name of a queue from any of its segments. Without an error it says
// whether there is one at all: it is there with its first batch.
func queueName(fs FS, dir string) (name string, ok bool, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", false, err
	}
	var segments []string
	for _, n := range names {
		if _, ok := segmentNumber(n, logSuffix); ok {
			segments = append(segments, filepath.Join(dir, n))
		}
	}
	var broken error
	for i := len(segments) - 1; i >= 0; i-- {
		f, err := fs.Open(segments[i])
		if err != nil {
			return "", false, err
		}
		h, size, ok, err := readHeader(f)
		f.Close()
		if err != nil {
			return "", false, err
		}
		if ok && (size > headerSize || len(segments) > 1) {
			return h.name, true, nil
		}
		if size > headerSize {
			broken = &CorruptError{segments[i], 0, "its header is not as it was written"}
		}
	}
	return "", false, broken
}

// Queues lists what is on the disk and not open, by name.
func (s *Store) Queues() []Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Found
	for _, f := range s.queues {
		if !f.open {
			all = append(all, *f)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return append(all, s.broken...)
}

// Load opens a queue that is on the disk, and reads what there is of it: ErrCorrupt if it was changed
// behind the log's back.
func (s *Store) Load(name string, owner Owner, account Account) (*Log, error) {
	s.mu.Lock()
	f := s.queues[name]
	if s.closed || f == nil || f.open {
		defer s.mu.Unlock()
		switch {
		case s.closed:
			return nil, ErrClosed
		case f == nil:
			return nil, fmt.Errorf("seglog: a queue %q in %s: %w", name, s.dir, ErrNone)
		}
		return nil, fmt.Errorf("seglog: the queue %q is open already", name)
	}
	f.open = true
	s.mu.Unlock()
	l := newLog(s, f.Dir, name, owner, account)
	err := l.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && err == nil {
		l.release()
		err = ErrClosed
	}
	if err != nil {
		f.open = false
		return nil, fmt.Errorf("seglog: the queue %q: %w", name, err)
	}
	s.open[l] = true
	return l, nil
}

// Create begins a queue. It waits for nothing: the queue is there once its first operation, the
// Config, is Committed.
func (s *Store) Create(name string, config []byte, owner Owner, account Account) (*Log, error) {
	if len(name) > maxName {
		return nil, fmt.Errorf("seglog: a name of %d bytes; it may have %d", len(name), maxName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.queues[name] != nil {
		return nil, fmt.Errorf("seglog: there is a queue %q already", name)
	}
	s.last++
	f := &Found{Name: name, Dir: filepath.Join(s.dir, strconv.Itoa(s.last)), open: true}
	l := newLog(s, f.Dir, name, owner, account)
	l.incarnation = randomUint64()
	l.config = append([]byte(nil), config...)
	if err := l.Append(Op{Kind: Config, Text: name, Body: l.config}); err != nil {
		return nil, err
	}
	s.queues[name], s.open[l] = f, true
	return l, nil
}

// Remove is Log.Delete for a queue that is not open, corrupt or not. There need not be one.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.queues[name]
	switch {
	case s.closed:
		return ErrClosed
	case f == nil:
		return nil
	case f.open:
		return fmt.Errorf("seglog: the queue %q is open", name)
	}
	err := removeQueue(s.fs, f.Dir)
	if err == nil {
		delete(s.queues, name)
	}
	return err
}

func (s *Store) forgetBroken(dir string) {
	s.broken = slices.DeleteFunc(s.broken, func(f Found) bool { return f.Dir == dir })
}

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// left is told by a log that it is closed, and whether the queue is gone.
func (s *Store) left(l *Log, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, l)
	s.queues[l.name].open = false
	if gone {
		delete(s.queues, l.name)
	}
}

// Close closes all logs, and gives the directory back.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	var open []*Log
	for l := range s.open {
		open = append(open, l)
	}
	s.mu.Unlock()
	var first error
	for _, l := range open {
		if err := l.Close(); err != nil && first == nil {
			first = err
		}
	}
	s.lock.Close()
	return first
}

// removeQueue removes a queue's directory: all of it, or after a loss of power perhaps
// nothing. With a nil error it is gone for good, though some of it may be there until the next Open.
func removeQueue(fs FS, dir string) error {
	if err := fs.Rename(dir, dir+goneSuffix); err != nil && !errors.Is(err, os.ErrNotExist) { // which an attempt has done that failed then
		return err
	}
	if err := fs.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	_ = removeFiles(fs, dir+goneSuffix)
	return nil
}

// removeFiles removes a directory, and what is a queue's in it. Where there is something
// else, that stays.
func removeFiles(fs FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	others := false
	for _, name := range names {
		if !isOurs(name) {
			others = true
		} else if err := fs.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if others {
		return nil
	}
	return fs.Remove(dir)
}

// isOurs says that a file in a queue's directory is its own.
func isOurs(name string) bool {
	_, log := segmentNumber(name, logSuffix)
	_, index := segmentNumber(name, indexSuffix)
	return log || index || name == ballastName
}

// removeUnmade removes a queue that was being made when power was lost. Any other directory
// is somebody else's.
func removeUnmade(fs FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if n, _ := segmentNumber(name, logSuffix); n > 1 || !isOurs(name) {
			return nil
		}
	}
	return removeFiles(fs, dir)
}

// IsStore says whether a Store was ever opened in a directory.
func IsStore(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, lockName))
	return err
}
