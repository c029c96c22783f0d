package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// filled is a log on the disk with jobs of this size.
func filled(tb testing.TB, s *Store, name string, jobs, size int) (*Log, *counter) {
	c := newCounter()
	l := must[*Log](tb)(s.Create(name, []byte("config"), c, noAccount{}))
	body := make([]byte, size)
	const some = 1000
	for id := 1; id <= jobs; {
		var ops []Op
		for ; id <= jobs && len(ops) < some; id++ {
			ops = append(ops, Op{Kind: Put, ID: uint64(id), Sent: int64(id), Body: body})
		}
		if err := l.Append(ops...); err != nil {
			tb.Fatal(err)
		}
		c.await(tb, "filling", func() bool { return c.puts >= id-1-20*some })
	}
	c.await(tb, "filling", func() bool { return c.puts == jobs })
	return l, c
}

// settle has jobs done, all that keep does not keep.
func settle(tb testing.TB, l *Log, c *counter, first, last int, keep func(id int) bool) {
	c.mu.Lock()
	others := c.others
	c.mu.Unlock()
	for id := first; id <= last; id++ {
		if keep == nil || !keep(id) {
			l.Append(Op{Kind: Done, ID: uint64(id)})
			others++
		}
	}
	c.await(tb, "settling", func() bool { return c.others == others })
}

// onDisk is what a directory takes.
func onDisk(tb testing.TB, dir string) (n int64) {
	filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			n += allocated(info)
		}
		return nil
	})
	return n
}

// What is drained gives its disk back, and a few jobs that stay do not hold it.
func TestDiskIsGivenBack(t *testing.T) {
	const segment = 1 << 20
	dir := filepath.Join(t.TempDir(), "d")
	s := must[*Store](t)(Open(dir, Options{SegmentBytes: segment}))
	defer s.Close()
	l, c := filled(t, s, "q", 20_000, 1000)
	full := onDisk(t, dir)
	settle(t, l, c, 1, 20_000, nil)
	eventually(t, func() error {
		if n := onDisk(t, dir); n > 2*segment {
			return fmt.Errorf("a drained queue of %d bytes takes %d", full, n)
		}
		return nil
	})
	rests := func(what string) {
		t.Helper()
		eventually(t, func() error {
			if n := onDisk(t, dir); n > segment/4 {
				return fmt.Errorf("%s takes %d when nothing happens any more", what, n)
			}
			return nil
		})
	}
	rests("a drained queue")
	// Every 5,000th job stays for ever.
	most, live := int64(0), 0
	body := make([]byte, 1000)
	for id := 20_001; id <= 50_000; id += 200 {
		var ops []Op
		for i := range 200 {
			ops = append(ops, Op{Kind: Put, ID: uint64(id + i), Body: body})
		}
		l.Append(ops...)
		c.await(t, "passing", func() bool { return c.puts == id+199 })
		settle(t, l, c, id, id+199, func(id int) bool { return id%5000 == 0 })
		if id%2000 == 1 {
			most = max(most, onDisk(t, dir))
		}
	}
	stats := l.Stats()
	if live = stats.Jobs; live != 6 {
		t.Fatalf("%d jobs are there", live)
	}
	if most > 2*stats.LiveBytes+4*segment {
		t.Errorf("6 jobs of 30,000 hold %d bytes", most)
	}
	rests("a queue of 6 jobs")
	s.Close()
	s2 := must[*Store](t)(Open(dir, Options{SegmentBytes: segment}))
	defer s2.Close()
	l = must[*Log](t)(s2.Load("q", c, noAccount{}))
	for id := uint64(25_000); id <= 50_000; id += 5000 {
		jobs, err := l.Read(id)
		if err != nil || len(jobs) != 1 || !bytes.Equal(jobs[0].Body, body) {
			t.Fatalf("job %d: %v, %v", id, jobs, err)
		}
	}
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// A queue that is not used costs no descriptor and no goroutine.
func TestIdle(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	defer s.Close()
	s.rest = time.Millisecond
	before := runtime.NumGoroutine()
	for i := range 50 {
		filled(t, s, fmt.Sprint("q", i), 10, 10)
	}
	eventually(t, func() error {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if n := runtime.NumGoroutine() - before; n > 0 || fs.open > 0 {
			return fmt.Errorf("%d goroutines and %d files", n, fs.open)
		}
		return nil
	})
}

// Names are any bytes, and a queue that is deleted is gone.
// What is not a queue's stays as it is, whatever it is called.
func TestOthersFilesStay(t *testing.T) {
	dir := t.TempDir()
	others := []string{
		"2024/photo.jpg", "2024/20240101.log", "1/00000001.log/x", "7", "9.", "9./x", "08/00000001.log", "-1/00000001.log",
		"key.new", "etc.new/x", "etc.gone/x", "3.new/x", "4.gone/x", "99999999999999999999/00000001.log",
	}
	for _, name := range others {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		os.WriteFile(path, []byte(name), 0o600) // fails for what is a directory already
	}
	var want []string
	stays := func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			want = append(want, path)
		}
		return nil
	}
	filepath.Walk(dir, stays)
	for range 2 {
		s := must[*Store](t)(Open(dir, Options{}))
		filled(t, s, "ours", 3, 10)
		s.Close()
		s = must[*Store](t)(Open(dir, Options{}))
		if err := s.Remove("ours"); err != nil {
			t.Error(err)
		}
		s.Close()
		for _, path := range want {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNames(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	names := []string{"", "/", "..", "a\x00b", "\xff\xfe", strings.Repeat("\x80", 255), "same"}
	for _, n := range names {
		filled(t, s, n, 3, 10)
	}
	if _, err := s.Create("same", nil, newCounter(), noAccount{}); err == nil {
		t.Error("two have the same name")
	}
	if _, err := s.Create(strings.Repeat("x", 256), nil, newCounter(), noAccount{}); err == nil {
		t.Error("a name is too long")
	}
	s.Close()
	s = must[*Store](t)(Open("/d", Options{FS: fs.crash(survivesNothing, nil)}))
	found := s.Queues()
	if len(found) != len(names) {
		t.Fatalf("found %v", found)
	}
	for _, n := range names {
		l := must[*Log](t)(s.Load(n, newCounter(), noAccount{}))
		if got := l.Stats().Jobs; got != 3 || string(l.Config()) != "config" {
			t.Errorf("%q has %d jobs", n, got)
		}
		if _, err := s.Load(n, newCounter(), noAccount{}); err == nil {
			t.Errorf("%q was loaded twice", n)
		}
		if n != "same" {
			continue
		}
		if err := l.Delete(); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(Op{Kind: Done, ID: 1}); !errors.Is(err, ErrClosed) {
			t.Errorf("append to a deleted queue: %v", err)
		}
		if _, err := s.Load(n, newCounter(), noAccount{}); err == nil {
			t.Error("a deleted queue was loaded")
		}
		filled(t, s, n, 1, 1)
	}
	s.Close()
	s = must[*Store](t)(Open("/d", Options{FS: s.fs}))
	for _, f := range s.Queues() {
		if err := s.Remove(f.Name); err != nil {
			t.Error(err)
		}
	}
	s.Close()
	s = must[*Store](t)(Open("/d", Options{FS: s.fs.(*memFS).crash(survivesNothing, nil)}))
	if left := s.Queues(); len(left) > 0 {
		t.Errorf("%v were removed", left)
	}
	s.Close()
}

// While the disk takes its time, nobody waits; and what comes meanwhile is one commit: one write and
// one sync.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	defer s.Close()
	l, c := filled(t, s, "q", 1, 1)
	var ops []opKind
	syncing, goOn := make(chan struct{}), make(chan struct{})
	fs.setFault(func(_ int, what opKind) error {
		if ops = append(ops, what); len(ops) == 2 {
			close(syncing)
			<-goOn
		}
		return nil
	})
	const jobs = 1000
	l.Append(Op{Kind: Put, ID: 2})
	<-syncing
	stood := l.Stats()
	for id := uint64(3); id <= jobs; id++ {
		l.Append(Op{Kind: Put, ID: id, Body: make([]byte, 1000)})
	}
	if stands := l.Stats(); stands.Syncs != stood.Syncs || stands.SyncTime <= stood.SyncTime {
		t.Errorf("%+v, then %+v: the time of a sync shows while it lasts", stood, stands)
	}
	l.Append(Op{Kind: Taken, ID: 1}, Op{Kind: Done, ID: 1})
	if info, ok := l.Next(0); !ok || info.ID != 1 || l.Stats().Jobs != 1 {
		t.Errorf("%+v is there", info)
	}
	close(goOn)
	c.await(t, "the second commit", func() bool { return c.puts == jobs && c.others == 3 })
	if want := []opKind{opWrite, opSync, opWrite, opSync}; !slices.Equal(ops, want) {
		t.Errorf("operations %v, expected %v", ops, want)
	}
	l.Append(Op{Kind: Taken, ID: 2})
	c.await(t, "taken", func() bool { return c.others == 4 })
	if n := len(ops); n != 5 || ops[4] != opWrite {
		t.Errorf("operations %v: that a job is taken is written, and not synced", ops)
	}
}

// Senders that each wait for the last job to be confirmed share commits: half of them at least.
func TestSendersShareCommits(t *testing.T) {
	fs := newMemFS()
	commits := 0
	fs.setFault(func(_ int, what opKind) error {
		if what == opSync {
			commits++
			time.Sleep(time.Millisecond) // a disk takes its time
		}
		return nil
	})
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	const senders, jobs = 16, 50
	var all sync.WaitGroup
	var mu sync.Mutex
	id := 0
	for range senders {
		all.Go(func() {
			for range jobs {
				mu.Lock()
				id++
				mine := id
				l.Append(Op{Kind: Put, ID: uint64(mine)})
				mu.Unlock()
				c.await(t, "a job", func() bool { return c.puts >= mine })
			}
		})
	}
	all.Wait()
	s.Close()
	if each := float64(senders*jobs) / float64(commits); each < senders/2 {
		t.Errorf("%.1f jobs a commit, of %d senders", each, senders)
	}
}

// What can't be written is refused as a whole.
func TestAppendRefuses(t *testing.T) {
	s := must[*Store](t)(Open("/d", Options{FS: newMemFS()}))
	defer s.Close()
	l, c := filled(t, s, "q", 1, 1)
	for _, bad := range []Op{
		{}, {Kind: Gone}, {Kind: 9}, {Kind: Put, ID: noID},
		{Kind: Put, ID: 3, Text: strings.Repeat("x", MaxText+1)},
		{Kind: Config, Body: make([]byte, MaxConfig+1)},
	} {
		if err := l.Append(Op{Kind: Put, ID: 2}, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	settle(t, l, c, 1, 1, nil)
	if n := l.Stats().Jobs; n != 0 || c.puts != 1 {
		t.Errorf("%d jobs, %d confirmed", n, c.puts)
	}
}

// Jobs are read while others are put and settled, and segments come and go.
func TestReadMeanwhile(t *testing.T) {
	s := must[*Store](t)(Open("/d", Options{FS: newMemFS(), SegmentBytes: 64 << 10}))
	defer s.Close()
	l, c := filled(t, s, "q", 100, 1000)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			var ids []uint64
			for info, ok := l.Next(0); ok && len(ids) < 50; info, ok = l.Next(info.ID + 1) {
				ids = append(ids, info.ID)
			}
			if jobs, err := l.Read(ids...); err != nil || len(jobs) > len(ids) {
				stopped <- fmt.Errorf("%d of %d jobs: %w", len(jobs), len(ids), err)
				return
			}
		}
	}()
	body := make([]byte, 1000)
	for id := 101; id < 4000; id++ {
		l.Append(Op{Kind: Put, ID: uint64(id), Body: body})
		c.await(t, "putting", func() bool { return c.puts == id })
		if id%97 != 0 {
			l.Append(Op{Kind: Done, ID: uint64(id - 100)})
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Of a full segment the index is enough, and one that is not good is made anew.
func TestIndex(t *testing.T) {
	fs := newMemFS()
	open := func() *Store { return must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 4 << 20})) }
	s := open()
	filled(t, s, "q", 60_000, 100)
	s.Close()
	reads := func() (n int) {
		fs.mu.Lock()
		for name, f := range fs.dirs["/d/1"].now {
			if strings.HasSuffix(name, indexSuffix) && len(f.now) > 0 {
				n++
			}
		}
		fs.mu.Unlock()
		return n
	}
	load := func() (bytes int64) {
		counting := &readFS{FS: fs}
		s := must[*Store](t)(Open("/d", Options{FS: counting, SegmentBytes: 4 << 20}))
		defer s.Close()
		l := must[*Log](t)(s.Load("q", newCounter(), noAccount{}))
		if n := l.Stats().Jobs; n != 60_000 {
			t.Errorf("%d jobs", n)
		}
		return counting.n
	}
	indexes := reads()
	if indexes < 2 {
		t.Fatalf("%d indexes", indexes)
	}
	with := load()
	for name, f := range fs.dirs["/d/1"].now {
		if strings.HasSuffix(name, indexSuffix) {
			f.now[len(f.now)/2] ^= 1
		}
	}
	without := load()
	again := load()
	t.Logf("reads %d bytes with %d indexes, %d without", with, indexes, without)
	if with > without*2/3 || again > with+with/10 {
		t.Errorf("%d bytes with indexes, %d without, %d when they are made anew", with, without, again)
	}
}

// An index that is not good is made anew at once, also that of a tail which is as small as has one.
func TestIndexOfATailIsMadeAnew(t *testing.T) {
	const jobs, size = 8700, 100
	fs := newMemFS()
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	filled(t, s, "q", jobs, size)
	s.Close()
	name := filepath.Base(indexPath("/d/1", 1))
	f := fs.dirs["/d/1"].now[name]
	if n := jobs * (4 + 25); f == nil || len(f.now) < n || n >= indexPiece || jobs*(size+25) < readAhead {
		t.Fatalf("the index is %+v; its jobs have %d bytes in it", f, n)
	}
	f.now[len(f.now)/2] ^= 1
	load := func() int64 {
		counting := &readFS{FS: fs}
		s := must[*Store](t)(Open("/d", Options{FS: counting}))
		defer s.Close()
		if n := must[*Log](t)(s.Load("q", newCounter(), noAccount{})).Stats().Jobs; n != jobs {
			t.Errorf("%d jobs", n)
		}
		return counting.n
	}
	if without, with := load(), load(); without < jobs*size || with > without/2 {
		t.Errorf("%d bytes are read without the index, and then %d", without, with)
	}
}

// A large tail is read by its index, as far as that goes, and the rest as it is: after a clean end, after
// more was put behind that, and after a kill.
func TestIndexOfTheTail(t *testing.T) {
	const first, more, size = 30_000, 2000, 100
	for _, clean := range []bool{true, false} {
		fs := newMemFS()
		s := must[*Store](t)(Open("/d", Options{FS: fs}))
		filled(t, s, "q", first, size)
		s.Close()
		load := func(jobs int) (bytes int64) {
			t.Helper()
			counting := &readFS{FS: fs}
			s := must[*Store](t)(Open("/d", Options{FS: counting}))
			c := newCounter()
			l := must[*Log](t)(s.Load("q", c, noAccount{}))
			bytes = counting.n
			if n := l.Stats().Jobs; n != jobs || string(l.Config()) != "config" {
				t.Fatalf("%d jobs of %d, and the configuration is %q", n, jobs, l.Config())
			}
			for id := jobs + 1; id <= jobs+more; id++ {
				l.Append(Op{Kind: Put, ID: uint64(id), Body: make([]byte, size)})
			}
			c.await(t, "more", func() bool { return c.puts == more })
			if clean {
				s.Close()
			} else {
				fs = fs.crash(survivesKill, nil)
			}
			return bytes
		}
		for i := range 4 {
			// Behind the index is what one round has put; it has pieces of some 9,000 jobs.
			got, index, behind := load(first+i*more), (first+i*more)*(4+25), size+25
			if most := index + 9000*behind + readAhead; int(got) > most || !clean && i > 0 && int(got) < index {
				t.Errorf("clean %v, round %d: %d bytes are read; the index has %d", clean, i, got, index)
			}
		}
	}
}

// A readFS counts the bytes that are read.
type readFS struct {
	FS
	n int64
}

func (r *readFS) Open(name string) (File, error) {
	f, err := r.FS.Open(name)
	return readFile{f, r}, err
}

type readFile struct {
	File
	r *readFS
}

func (f readFile) ReadAt(b []byte, at int64) (int, error) {
	f.r.n += int64(len(b))
	return f.File.ReadAt(b, at)
}

// However many jobs with keys come and go, few keys are kept: the latest.
func TestLogKeepsFewKeys(t *testing.T) {
	const most, all = 500, 10000
	dir := t.TempDir()
	o := Options{KeyFor: time.Hour, KeyMost: most}
	s := must[*Store](t)(Open(dir, o))
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	look := func(l *Log) {
		t.Helper()
		l.mu.Lock()
		kept := len(l.keys)
		l.mu.Unlock()
		keys := l.Keys()
		if kept > 2*most+1000+1 || len(keys) != most || keys[0].ID != all-most+1 || keys[most-1].Key != fmt.Sprint("key ", all) {
			t.Errorf("%d are kept; %d from %v on", kept, len(keys), keys[0])
		}
	}
	for id := uint64(1); id <= all; id++ {
		if err := l.Append(Op{Kind: Put, ID: id, Sent: time.Now().UnixNano(), Text: fmt.Sprint("key ", id)}, Op{Kind: Done, ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, "putting", func() bool { return c.puts == all })
	look(l)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(dir, o))
	look(must[*Log](t)(s.Load("q", newCounter(), noAccount{})))
	s.Close()
}

// What has gone with its key leaves none behind, before a restart and after it.
func TestKeysThatGoWithTheirJobs(t *testing.T) {
	dir, o := t.TempDir(), Options{KeyFor: time.Hour, KeyMost: 100}
	s := must[*Store](t)(Open(dir, o))
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	now := time.Now().UnixNano()
	for id := uint64(1); id <= 2; id++ {
		if err := l.Append(Op{Kind: Put, ID: id, Sent: now, Text: fmt.Sprint("key ", id)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(Op{Kind: Done, ID: 1}, Op{Kind: Done, ID: 2, Text: "elsewhere"}); err != nil {
		t.Fatal(err)
	}
	c.await(t, "putting", func() bool { return c.puts == 2 && c.others == 3 }) // its configuration is one
	look := func(l *Log) {
		t.Helper()
		if keys := l.Keys(); len(keys) != 1 || keys[0].Key != "key 1" {
			t.Errorf("keys %v", keys)
		}
	}
	look(l)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(dir, o))
	look(must[*Log](t)(s.Load("q", newCounter(), noAccount{})))
	s.Close()
}
