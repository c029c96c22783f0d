package seglog

import (
	"fmt"
	"os"
	"path/filepath"
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
	f.c.writes.Add(1)
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
