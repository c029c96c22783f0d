package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// Part is what a process of a measurement does. The process that measures calls
// its exported methods over net/rpc, in the order in which they stand here: Serve
// in the server's process, Listen in the reader's, Dial in the writer's, and the
// others wherever they matter. One process may have all these roles.
type Part struct {
	task      Task
	transport transport
	tallies   []*tally         // one for each stream that is read here
	idle      []*zpipes.Writer // for Number
	keeper    keeper           // for Confirm
	offers    *zpipes.Writer   // for Offer; nil: it opens one

	stop    atomic.Bool
	work    sync.WaitGroup // what ends after stop
	mu      sync.Mutex     // guards written and err
	written Total
	err     error

	recording atomic.Bool
	timings   histogram    // belongs to the caller's goroutine while recording
	delays    histogram    // of chunks, or of what goes to Task.Beside; belongs to who receives it until all has arrived
	calls     atomic.Int64 // how many are in these
	start     time.Time
	before    Sample // counters at the start
	profile   *os.File
}

// play gets the task, which is the same in every process of a measurement.
func (p *Part) play(t Task) error {
	p.task = t
	if p.transport != nil {
		return nil // of another role of this process
	}
	build, ok := transports[t.Transport]
	if !ok {
		return fmt.Errorf("no transport %q", t.Transport)
	}
	p.transport = build(t)
	return nil
}

// Serve starts what stands in the middle.
func (p *Part) Serve(t Task, address *string) (err error) {
	if err := p.play(t); err != nil {
		return err
	}
	*address, err = p.transport.serve()
	return err
}

// Listen opens the readers, and has them read.
func (p *Part) Listen(t Task, _ *struct{}) error {
	if err := p.play(t); err != nil {
		return err
	}
	return jobs[t.Job].listen(p)
}

// Dial opens the writers, and has them write.
func (p *Part) Dial(t Task, _ *struct{}) error {
	if err := p.play(t); err != nil {
		return err
	}
	return jobs[t.Job].dial(p)
}

// Sample is what one process has seen between Begin and End.
type Sample struct {
	Elapsed time.Duration
	Bytes   int64  // read in this process
	Mallocs uint64 // by all of it
	CPU     time.Duration
}

func (p *Part) counters() Sample {
	s := Sample{Elapsed: time.Since(p.start)}
	for _, t := range p.tallies {
		s.Bytes += t.bytes.Load()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Mallocs = m.Mallocs
	s.CPU = cpuTime()
	return s
}

// cpuTime is how long this process has used a CPU, the kernel on its behalf included.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// CPU is cpuTime, of a process that measures nothing.
func (p *Part) CPU(_ struct{}, used *time.Duration) error {
	*used = cpuTime()
	return nil
}

// Spin uses a core from now on.
func (p *Part) Spin(struct{}, *struct{}) error {
	go func() {
		for spins := uint64(0); ; spins++ {
		}
	}()
	return nil
}

// Begin begins the measurement, when all has warmed up.
func (p *Part) Begin(struct{}, *struct{}) error {
	if name := p.task.Profile; name != "" {
		f, err := os.Create(name + "-" + os.Getenv(roleVar) + ".pprof")
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		p.profile = f
	}
	p.start = time.Now()
	p.before = p.counters()
	p.recording.Store(true)
	return nil
}

// End ends it. What is going goes on.
func (p *Part) End(_ struct{}, s *Sample) error {
	p.recording.Store(false)
	*s = p.counters()
	s.Elapsed -= p.before.Elapsed
	s.Bytes -= p.before.Bytes
	s.Mallocs -= p.before.Mallocs
	s.CPU -= p.before.CPU
	if p.profile != nil {
		pprof.StopCPUProfile()
		return p.profile.Close()
	}
	return nil
}

// Arrived returns how many bytes have been read since Begin, or calls timed.
func (p *Part) Arrived(_ struct{}, n *int64) error {
	if jobs[p.task.Job].timed {
		*n = p.calls.Load()
	} else {
		*n = p.counters().Bytes - p.before.Bytes
	}
	return nil
}

// Stop has the writers end, and returns what they have written.
func (p *Part) Stop(_ struct{}, s *Stopped) error {
	p.stop.Store(true)
	p.work.Wait()
	s.Timed, s.Beside = timed(&p.timings), timed(&p.delays)
	p.mu.Lock()
	s.Written = p.written
	p.mu.Unlock()
	return p.Report(struct{}{}, nil)
}

// Stopped is what Stop returns.
type Stopped struct {
	Written Total
	Timed   Timed
	Beside  Timed // of what went to Task.Beside
}

// Timed is what was timed between Begin and End.
type Timed struct {
	Calls    int
	P50, P99 time.Duration
	Most     time.Duration
}

func timed(h *histogram) Timed {
	return Timed{h.n, h.quantile(.5), h.quantile(.99), h.quantile(1 - 1e-9)}
}

// patience is how long what was written may take to arrive.
const patience = 30 * time.Second

// Drain waits until as much has been read as was written, and fails unless it is
// the same. It returns what was timed where it arrived.
func (p *Part) Drain(written Total, t *Timed) error {
	var got Total
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got = Total{}
		for _, t := range p.tallies {
			got = got.plus(t.total())
		}
		if got.Bytes >= written.Bytes || time.Now().After(end) {
			break
		}
	}
	err := p.Report(struct{}{}, nil)
	if got != written {
		return errors.Join(fmt.Errorf("%w: written %+v, read %+v", errWrong, written, got), err)
	}
	*t = timed(&p.delays)
	return err
}

// Report returns, once, what has gone wrong here meanwhile.
func (p *Part) Report(struct{}, *struct{}) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.err
	p.err = nil
	return err
}

// errWrong: what has arrived is not what was sent.
var errWrong = errors.New("wrong data")

func (p *Part) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// read reads a stream into a tally of its own.
func (p *Part) read(s source) {
	t := &tally{size: p.task.Size}
	p.tallies = append(p.tallies, t)
	go func() {
		if err := drink(s, t); err != io.EOF {
			p.fail(err)
		}
	}()
}

// write writes to a stream until Stop, as that sender, and closes it where it has an
// end. So many get what it writes.
func (p *Part) write(w io.Writer, sender, readers int) {
	p.work.Go(func() {
		total, err := pump(w, p.task.Size, sender, &p.stop)
		if c, ok := w.(io.Closer); ok && err == nil {
			err = c.Close()
		}
		p.fail(err)
		for range readers {
			p.wrote(total)
		}
	})
}

func (p *Part) wrote(t Total) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written = p.written.plus(t)
}

// A call does once what is to be timed, and says how long that took.
type call func() (time.Duration, error)

// repeat makes calls until Stop.
func (p *Part) repeat(c call) {
	p.work.Go(func() {
		for !p.stop.Load() {
			d, err := c()
			if err != nil {
				p.fail(err)
				return
			}
			if p.recording.Load() {
				p.timings.add(d)
				p.calls.Add(1)
			}
		}
	})
}
