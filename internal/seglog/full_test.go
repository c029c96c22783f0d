package seglog

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A counter counts what is committed.
type counter struct {
	mu            sync.Mutex
	changed       sync.Cond
	puts, others  int
	stalled, fail error
	stalls        int
}

func newCounter() *counter {
	c := &counter{}
	c.changed.L = &c.mu
	return c
}

func (*counter) Gather() {}

func (c *counter) Committed(puts, others int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.puts += puts
	c.others += others
	c.changed.Broadcast()
}

func (c *counter) Stalled(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = err
	if err != nil {
		c.stalls++
	}
	c.changed.Broadcast()
}

func (c *counter) Failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
	c.changed.Broadcast()
}

// await waits for a condition of the counter's.
func (c *counter) await(t testing.TB, what string, done func() bool) {
	t.Helper()
	late := time.AfterFunc(20*time.Second, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fail == nil {
			c.fail = errors.New("it takes too long")
		}
		c.changed.Broadcast()
	})
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !done() {
		if c.fail != nil {
			t.Fatalf("%s: %v (%d puts, %d others, stalled: %v)", what, c.fail, c.puts, c.others, c.stalled)
		}
		c.changed.Wait()
	}
}

// On a full disk acknowledgements work, Puts wait and say why, and go on when there is room.
func TestFullDisk(t *testing.T) {
	const size = 4 << 20
	t.Run("room", func(t *testing.T) {
		fs := newMemFS()
		fs.size = size
		fillsUp(t, "/d", fs, func() { fs.setSize(2 * size) })
	})
	t.Run("ballast", func(t *testing.T) {
		fs := newMemFS()
		fs.size, fs.noRoom = size, true
		fillsUp(t, "/d", fs, func() { fs.setSize(2 * size) })
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		if err := mountTmpfs(dir, size); err != nil {
			t.Skip("no tmpfs:", err)
		}
		t.Cleanup(func() { unmount(dir) })
		fillsUp(t, filepath.Join(dir, "d"), System, func() {
			if err := remountTmpfs(dir, 2*size); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func (m *memFS) setSize(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size = n
}

func fillsUp(t *testing.T, dir string, fs FS, makeRoom func()) {
	s, err := Open(dir, Options{FS: fs, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	c := newCounter()
	l, err := s.Create("q", nil, c, noAccount{})
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1000)
	last := uint64(0)
	put := func(n int) {
		for range n {
			last++
			if err := l.Append(Op{Kind: Put, ID: last, Body: body}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for c.stalled == nil {
		put(8)
		c.await(t, "filling", func() bool { return c.puts == int(last) || c.stalled != nil })
	}
	if !errors.Is(c.stalled, syscall.ENOSPC) {
		t.Fatalf("stalled: %v", c.stalled)
	}
	put(100) // these wait, too
	confirmed := c.puts
	t.Logf("%d jobs of %d B confirmed, then: %v", confirmed, len(body), c.stalled)
	if confirmed < 1500 {
		t.Errorf("only %d jobs found room", confirmed)
	}
	// Acknowledgements, each confirmed alone, of jobs all over: nothing can be dropped.
	done, others := make(map[uint64]bool), c.others
	for i := range 200 {
		id := uint64(1 + (i*37+1)%confirmed)
		if id == 1 || done[id] {
			continue
		}
		done[id] = true
		if err := l.Append(Op{Kind: Done, ID: id}); err != nil {
			t.Fatal(err)
		}
		others++
		l.tryAgain() // Puts must not take the room that is theirs
		c.await(t, fmt.Sprint("acknowledgement ", i), func() bool { return c.others == others })
	}
	if c.puts == int(last) {
		t.Error("the disk was not full")
	}
	makeRoom()
	c.await(t, "with room again", func() bool { return c.puts == int(last) && c.stalled == nil })
	put(8)
	c.await(t, "going on", func() bool { return c.puts == int(last) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{FS: fs, SegmentBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if l, err = s.Load("q", c, noAccount{}); err != nil {
		t.Fatal(err)
	}
	for id := uint64(1); id <= last; id++ {
		if info, ok := l.Next(id); done[id] == (ok && info.ID == id) {
			t.Fatalf("job %d done: %v, there: %v", id, done[id], info)
		}
	}
}

// A close on a full disk does not wait, and says what was not confirmed.
func TestFullDiskClose(t *testing.T) {
	fs := newMemFS()
	fs.size = 1 << 20
	s := must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 1 << 20}))
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	l.Append(Op{Kind: Put, ID: 1, Body: make([]byte, 2<<20)})
	c.await(t, "filling", func() bool { return c.stalled != nil })
	if err := s.Close(); !errors.Is(err, errUnconfirmed) {
		t.Errorf("closed with %v", err)
	}
	if fs.open > 0 {
		t.Errorf("%d files are open", fs.open)
	}
}

// A full account is as a full disk; it gets back what it has paid.
func TestAccount(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 1 << 20}))
	a := &limited{most: 3 << 20}
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, a))
	id := uint64(0)
	for c.stalled == nil {
		id++
		l.Append(Op{Kind: Put, ID: id, Body: make([]byte, 10_000)})
		c.await(t, "filling", func() bool { return c.puts == int(id) || c.stalled != nil })
	}
	if !errors.Is(c.stalled, ErrRefused) {
		t.Errorf("stalled: %v", c.stalled)
	}
	a.mu.Lock()
	if a.n > a.most || a.n < 2<<20 {
		t.Errorf("%d of %d bytes are paid", a.n, a.most)
	}
	a.mu.Unlock()
	for i := uint64(1); i < id; i++ {
		l.Append(Op{Kind: Done, ID: i})
	}
	c.await(t, "after acknowledgements", func() bool { return c.puts == int(id) && c.stalled == nil })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if a.n != 0 {
		t.Errorf("%d bytes are paid for a closed log", a.n)
	}
	s = must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 1 << 20}))
	defer s.Close()
	must[*Log](t)(s.Load("q", c, a))
	if a.n == 0 {
		t.Error("nothing is paid for a loaded log")
	}
}

type limited struct {
	mu      sync.Mutex
	n, most int64
}

func (a *limited) Charge(n int64, must bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > 0 && !must && a.n+n > a.most {
		return false
	}
	a.n += n
	return true
}
