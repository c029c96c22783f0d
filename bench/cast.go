package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// roleVar makes this program a process of a measurement: it serves a Part on its
// standard input and output, and ends with its input.
const roleVar = "ZPIPES_BENCH_ROLE"

func servePart() {
	s := rpc.NewServer()
	if err := s.Register(new(Part)); err != nil {
		panic(err)
	}
	s.ServeConn(duplex{lifeline{os.Stdin}, os.Stdout})
}

// A lifeline ends this process, whatever is going on, when it cannot be read any
// more: the process that measures has gone, or wants it so.
type lifeline struct{ io.Reader }

func (l lifeline) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	if err != nil {
		os.Exit(0)
	}
	return n, err
}

type duplex struct {
	io.Reader
	io.WriteCloser
}

// A process is another one of this program.
type process struct {
	role string
	cmd  *exec.Cmd
	part *rpc.Client
}

// Garbage collection targets. Go's default has a process that holds next to
// nothing collect every 4 MiB; a program with a heap of its own does not do that,
// so what is measured for speed gets another one, peers included.
const (
	gogc        = 400
	defaultGOGC = 100
)

// start starts a process, which ends with ctx, or with this one.
func start(ctx context.Context, role string, gogc int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleVar+"="+role,
		fmt.Sprint("GOGC=", gogc), fmt.Sprint("GOMAXPROCS=", runtime.GOMAXPROCS(0)))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{role, cmd, rpc.NewClient(duplex{out, in})}, nil
}

func (p *process) end() {
	p.part.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// callTime is more than any call takes, unless something is stuck.
const callTime = 2 * time.Minute

// call calls a method of the process's Part.
func (p *process) call(ctx context.Context, method string, args, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	select {
	case c := <-p.part.Go("Part."+method, args, reply, make(chan *rpc.Call, 1)).Done:
		if c.Error != nil {
			return fmt.Errorf("the %s, told to %s: %w", p.role, strings.ToLower(method), c.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the %s does not %s: %w", p.role, strings.ToLower(method), ctx.Err())
	}
}

// A cast is the processes of one measurement. One may have several roles.
type cast struct {
	server, reader, writer *process
}

// newCast starts 1 to 3 processes. Where there are two, nothing stands between
// them.
func newCast(ctx context.Context, processes int) (c *cast, err error) {
	c = new(cast)
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	for _, role := range []struct {
		name    string
		process **process
		own     bool // or that of the role before
	}{
		{"server", &c.server, true},
		{"reader", &c.reader, processes == 3},
		{"writer", &c.writer, processes >= 2},
	} {
		if !role.own {
			continue
		}
		if *role.process, err = start(ctx, role.name, gogc); err != nil {
			return nil, err
		}
	}
	if c.reader == nil {
		c.reader = c.server
	}
	if c.writer == nil {
		c.writer = c.reader
	}
	return c, nil
}

// processes returns each process once.
func (c *cast) processes() []*process {
	var all []*process
	for _, p := range []*process{c.writer, c.reader, c.server} {
		if p != nil && (len(all) == 0 || all[len(all)-1] != p) {
			all = append(all, p)
		}
	}
	return all
}

func (c *cast) end() {
	for _, p := range c.processes() {
		p.end()
	}
}

// A pace is how long a measurement takes.
type pace struct {
	warm, run time.Duration
}

// An outcome is what one measurement has shown.
type outcome struct {
	rate     float64       // bytes read each second
	mallocs  float64       // in all processes, for each message of a stream
	cpu      float64       // seconds, in all processes, for each GB
	calls    int           // that were timed
	p50, p99 time.Duration // of a call
}

// perform carries a task out and measures it. Where the task has an address, that
// is served already.
func (c *cast) perform(ctx context.Context, t Task, pace pace) (o outcome, err error) {
	all := c.processes()
	defer func() {
		if err != nil { // the cause may be elsewhere
			err = errors.Join(err, each(all, func(_ int, p *process) error { return p.call(ctx, "Report", struct{}{}, nil) }))
		}
	}()
	if t.Address == "" {
		if err := c.server.call(ctx, "Serve", t, &t.Address); err != nil {
			return o, err
		}
	}
	if err := c.reader.call(ctx, "Listen", t, nil); err != nil {
		return o, err
	}
	if err := c.writer.call(ctx, "Dial", t, nil); err != nil {
		return o, err
	}
	time.Sleep(pace.warm)
	if err := each(all, func(_ int, p *process) error { return p.call(ctx, "Begin", struct{}{}, nil) }); err != nil {
		return o, err
	}
	time.Sleep(pace.run)
	if err := c.awaitArrival(ctx); err != nil {
		return o, err
	}
	samples := make([]Sample, len(all))
	if err := each(all, func(i int, p *process) error { return p.call(ctx, "End", struct{}{}, &samples[i]) }); err != nil {
		return o, err
	}
	var stopped Stopped
	if err := c.writer.call(ctx, "Stop", struct{}{}, &stopped); err != nil {
		return o, err
	}
	var timed Timed
	if err := c.reader.call(ctx, "Drain", stopped.Written, &timed); err != nil {
		return o, err
	}
	if timed.Calls == 0 {
		timed = stopped.Timed
	}
	o.calls, o.p50, o.p99 = timed.Calls, timed.P50, timed.P99
	var bytes, mallocs, cpu float64
	for i, p := range all {
		if p == c.reader {
			bytes = float64(samples[i].Bytes)
			o.rate = bytes / samples[i].Elapsed.Seconds()
		}
		mallocs += float64(samples[i].Mallocs)
		cpu += samples[i].CPU.Seconds()
	}
	if bytes == 0 && o.calls == 0 {
		return o, errors.New("nothing arrived while it was measured")
	}
	if bytes > 0 {
		o.mallocs = mallocs / (bytes / float64(t.Size))
		o.cpu = cpu / (bytes / 1e9)
	}
	return o, nil
}

// awaitArrival waits until there is anything to be measured, which on a machine that
// is busy otherwise may take longer than the measurement should.
func (c *cast) awaitArrival(ctx context.Context) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, p := range c.processes() {
			var n int64
			if err := p.call(ctx, "Arrived", struct{}{}, &n); err != nil || n > 0 {
				return err
			}
		}
	}
	return nil
}

// each calls f for all processes at the same time.
func each(all []*process, f func(i int, p *process) error) error {
	var g errgroup.Group
	for i, p := range all {
		g.Go(func() error { return f(i, p) })
	}
	return g.Wait()
}
