package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a durable queue takes up: on the disk, in memory, and of time when its broker starts.

// Leave has a job of so many left where it is, when all others are done.
type Leave struct {
	Keeping
	Every int // 0: none
}

// Empty does the jobs of a queue, but for those.
func (p *Part) Empty(l Leave, _ *struct{}) error {
	q, err := p.keeper.(*keptQueue).open()
	if err != nil {
		return err
	}
	for i := range l.Fill {
		j, err := q.Take(context.Background())
		if err != nil {
			return err
		}
		if l.Every > 0 && i%l.Every == 0 {
			continue
		}
		if err := j.Done(); err != nil {
			return err
		}
	}
	return q.Flush(context.Background())
}

// Shut closes the broker.
func (p *Part) Shut(struct{}, *struct{}) error {
	q := p.keeper.(*keptQueue)
	p.keeper = nil
	return q.broker.Close()
}

// Reopened is what it takes to start a broker with a queue.
type Reopened struct {
	Took time.Duration
	Heap int64
}

// Reopen starts it.
func (p *Part) Reopen(k Keeping, got *Reopened) error {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, start := heap(), time.Now()
	q := keepers["zpipes"](k.Task).(*keptQueue)
	p.keeper = q
	if _, err := q.serve(); err != nil {
		return err
	}
	got.Took = time.Since(start)
	got.Heap = heap() - before
	for info := range q.broker.Pipes() {
		if info.Chunks != k.Fill {
			return fmt.Errorf("%d jobs are there of %d", info.Chunks, k.Fill)
		}
	}
	return nil
}

// keptRoom measures these.
func (s settings) keptRoom(ctx context.Context, b *strings.Builder) error {
	jobs := 1_000_000
	if s.quick {
		jobs = 50_000
	}
	took, heap, disk, err := s.reopened(ctx, jobs, keptSmall)
	if err != nil {
		return err
	}
	t := newTable("what", "at most", "aim", "", "reached")
	what := fmt.Sprintf("%d jobs of %s", jobs, sizeText(keptSmall))
	g := bounds{1e9, .5e9, true}
	t.row("a broker starts with "+what+" ("+sizeText(float64(disk))+" on the disk), nothing of it in the system's memory",
		timeText(g.least), timeText(g.aim), "**"+timeText(float64(took))+"**", g.mark(float64(took)))
	each := float64(heap) / float64(jobs)
	g = bounds{32, 16, true}
	t.row("memory for each of "+what+" that waits, and what else the broker has", sizeText(g.least), sizeText(g.aim),
		"**"+digits(each)+" B**", g.mark(each))
	for _, every := range []int{0, 5000} {
		const jobs, size = 100_000, 1 << 10
		disk, err := s.drained(ctx, jobs, size, every)
		if err != nil {
			return err
		}
		what, least := "when all are done", float64(2*segmentRoom)
		if every > 0 {
			what, least = fmt.Sprintf("when all are done but one of %d", every), float64(2*jobs/every*size+4*segmentRoom)
		}
		g := bounds{least, least, true}
		t.row(fmt.Sprintf("what %d jobs of %s leave on the disk %s", jobs, sizeText(size), what), sizeText(least), "", "**"+sizeText(float64(disk))+"**", g.mark(float64(disk)))
	}
	fmt.Fprintf(b, "\n### Room and starts\n\n%s", t)
	return nil
}

// segmentRoom is what a segment of a queue takes in which little is.
const segmentRoom = 6 << 20

// filled has a process with a broker whose queue has so many jobs.
func (s settings) filled(ctx context.Context, dir string, jobs, size int) (*process, Keeping, error) {
	p, err := start(ctx, "broker", defaultGOGC)
	if err != nil {
		return nil, Keeping{}, err
	}
	k := Keeping{Task: Task{Transport: "zpipes", Size: size, Streams: 1, Dir: dir}, Fill: jobs, Does: puts}
	if err = p.call(ctx, "Keep", k, &k.Address); err == nil {
		err = p.call(ctx, "Confirm", k, &Kept{})
	}
	if err != nil {
		p.end()
	}
	return p, k, err
}

// reopened is how long a broker takes to start with such a queue, and what memory it has then.
func (s settings) reopened(ctx context.Context, jobs, size int) (took time.Duration, heap, disk int64, err error) {
	dir, err := os.MkdirTemp("", "zpipes-bench-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.RemoveAll(dir)
	p, k, err := s.filled(ctx, dir, jobs, size)
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.end()
	if err := p.call(ctx, "Shut", struct{}{}, nil); err != nil {
		return 0, 0, 0, err
	}
	if disk, err = cool(dir); err != nil {
		return 0, 0, 0, err
	}
	again, err := start(ctx, "broker", defaultGOGC)
	if err != nil {
		return 0, 0, 0, err
	}
	defer again.end()
	var got Reopened
	err = again.call(ctx, "Reopen", k, &got)
	return got.Took, got.Heap, disk, err
}

// drained is what is left on the disk of such a queue.
func (s settings) drained(ctx context.Context, jobs, size, every int) (int64, error) {
	dir, err := os.MkdirTemp("", "zpipes-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p, k, err := s.filled(ctx, dir, jobs, size)
	if err != nil {
		return 0, err
	}
	defer p.end()
	if err := p.call(ctx, "Empty", Leave{k, every}, nil); err != nil {
		return 0, err
	}
	time.Sleep(2 * settling)
	return onDisk(dir)
}

// onDisk is what a directory's files take.
func onDisk(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return n, err
}

// cool drops a directory's files from the system's memory, and says what they take.
func cool(dir string) (int64, error) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		return 0, err
	}
	return onDisk(dir)
}
