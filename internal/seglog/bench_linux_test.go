package seglog

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A benchOwner wakes those who wait for their Put.
type benchOwner struct {
	testing.TB
	mu      sync.Mutex
	waiting []chan struct{} // in the order in which they have appended
}

func (*benchOwner) Gather() {}

func (o *benchOwner) Committed(puts, others int) {
	o.mu.Lock()
	n := min(puts+others, len(o.waiting))
	for _, w := range o.waiting[:n] {
		w <- struct{}{}
	}
	o.waiting = append(o.waiting[:0:0], o.waiting[n:]...)
	o.mu.Unlock()
}

func (o *benchOwner) Stalled(err error) { o.Error(err) }
func (o *benchOwner) Failed(err error)  { o.Error(err) }

// countFS counts the writes to segments, and the syncs.
type countFS struct {
	FS
	writes, syncs atomic.Int64
}

func (c *countFS) Open(name string) (File, error)   { return c.count(c.FS.Open(name)) }
func (c *countFS) Create(name string) (File, error) { return c.count(c.FS.Create(name)) }

func (c *countFS) count(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return countFile{f, c}, nil
}

type countFile struct {
	File
	c *countFS
}

func (f countFile) WriteAt(b []byte, at int64) (int, error) {
	if len(b) >= batchHead && int64(le.Uint32(b[16:])) == at { // a batch
		f.c.writes.Add(1)
	}
	return f.File.WriteAt(b, at)
}

func (f countFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

// confirmed measures how many jobs a second so many senders put, each waiting for the last one.
func confirmed(tb testing.TB, senders, size int, d time.Duration) (rate, perCommit, syncs float64) {
	fs := &countFS{FS: System}
	s, err := Open(filepath.Join(tb.TempDir(), "d"), Options{FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	o := &benchOwner{TB: tb}
	made := make(chan struct{}, 1)
	o.waiting = append(o.waiting, made)
	l, err := s.Create("bench", nil, o, noAccount{})
	if err != nil {
		tb.Fatal(err)
	}
	<-made
	body := make([]byte, size)
	var next atomic.Uint64
	var id uint64
	var all sync.WaitGroup
	writes, synced := fs.writes.Load(), fs.syncs.Load()
	start := time.Now()
	for range senders {
		all.Go(func() {
			done := make(chan struct{}, 1)
			for time.Since(start) < d {
				o.mu.Lock()
				id++
				o.waiting = append(o.waiting, done)
				l.Append(Op{Kind: Put, ID: id, Body: body})
				o.mu.Unlock()
				<-done
				next.Add(1)
			}
		})
	}
	all.Wait()
	n := float64(next.Load())
	commits := float64(fs.writes.Load() - writes)
	return n / time.Since(start).Seconds(), n / commits, float64(fs.syncs.Load()-synced) / commits
}

// floor measures one write of what all senders have, and one fdatasync, again and again.
func floor(tb testing.TB, senders, size int, d time.Duration) float64 {
	f, err := os.Create(filepath.Join(tb.TempDir(), "floor"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, senders*size)
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		if _, err := f.Write(b); err != nil {
			tb.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			tb.Fatal(err)
		}
		n++
	}
	return float64(n*senders) / time.Since(start).Seconds()
}

// The log beside the floor, in turns: medians of the ratios.
func BenchmarkConfirmed(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, senders := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%dB/%d", size, senders), func(b *testing.B) {
				var ratios, rates, commits, syncs []float64
				for b.Loop() {
					f := floor(b, senders, size, 200*time.Millisecond)
					r, c, s := confirmed(b, senders, size, 200*time.Millisecond)
					ratios, rates, commits, syncs = append(ratios, r/f), append(rates, r), append(commits, c), append(syncs, s)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(ratios), "of-floor")
				b.ReportMetric(median(rates), "jobs/s")
				b.ReportMetric(median(commits), "jobs/commit")
				b.ReportMetric(median(syncs), "syncs/commit")
			})
		}
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// A cold start: nothing of the log is in the system's cache. SEGLOG_LARGE adds 10 GB.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct{ jobs, size int }{{1_000_000, 100}, {10_000_000, 1000}} {
		if c.jobs*c.size > 1<<30 && os.Getenv("SEGLOG_LARGE") == "" {
			continue
		}
		b.Run(fmt.Sprintf("%dx%dB", c.jobs, c.size), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "d")
			s := must[*Store](b)(Open(dir, Options{}))
			filled(b, s, "q", c.jobs, c.size)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			var size int64
			for b.Loop() {
				b.StopTimer()
				size = cool(b, dir)
				b.StartTimer()
				s := must[*Store](b)(Open(dir, Options{}))
				l := must[*Log](b)(s.Load("q", newCounter(), noAccount{}))
				b.StopTimer()
				if n := l.Stats().Jobs; n != c.jobs {
					b.Fatalf("%d jobs", n)
				}
				before := heap()
				runtime.KeepAlive(l)
				s.Close()
				l = nil
				b.ReportMetric(float64(before-heap())/float64(c.jobs), "B/job")
				b.StartTimer()
			}
			b.ReportMetric(float64(size)/1e9, "GB")
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// cool drops a directory's files from the system's cache, and returns how large they are.
func cool(tb testing.TB, dir string) (size int64) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, name := range files {
		f := must[*os.File](tb)(os.Open(name))
		info := must[os.FileInfo](tb)(f.Stat())
		size += info.Size()
		f.Sync()
		const dontNeed = 4
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
			tb.Fatal(errno)
		}
		f.Close()
	}
	return size
}
