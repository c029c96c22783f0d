package main

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"
	"golang.org/x/term"
	"golang.org/x/time/rate"
)

// showAfter is how long a transfer stays quiet that was not asked for progress.
const showAfter = time.Second

// A gauge shows how far a transfer is. nil: it does not.
type gauge struct {
	mu    sync.Mutex // guards all below
	bar   *progressbar.ProgressBar
	paper paper
	ended bool
	begun time.Time
}

// newGauge returns a gauge for a transfer of that many bytes, -1: who knows. typed says
// that the data come from the terminal, or go there, where a bar would only spoil them.
func newGauge(cmd *cli.Command, total int64, typed bool) *gauge {
	asked := cmd.IsSet("progress")
	if asked && !cmd.Bool("progress") {
		return nil
	}
	if !asked && (typed || !isTerminal(os.Stderr)) {
		return nil
	}
	g := &gauge{begun: time.Now(), paper: paper{shown: asked}}
	g.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(&g.paper),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(24),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
	)
	return g
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func (g *gauge) add(n int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.paper.shown = g.paper.shown || time.Since(g.begun) > showAfter
	g.bar.Add(n)
}

// end leaves the last state on the screen, and a line of its own to what comes next.
func (g *gauge) end() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if !g.paper.shown {
		return
	}
	progressbar.OptionThrottle(0)(g.bar)
	g.bar.Add(0)
	g.bar.Exit()
	g.paper.Write([]byte("\n"))
}

// paper is standard error, as soon as something is to be shown. On a terminal only the job
// in the foreground writes, so that one that was started with & does not scribble into
// what is typed.
type paper struct{ shown bool }

func (p *paper) Write(b []byte) (int, error) {
	if !p.shown || background(int(os.Stderr.Fd())) {
		return len(b), nil
	}
	return os.Stderr.Write(b)
}

// A meter passes bytes to w, no faster than limit, and shows them on gauge.
type meter struct {
	ctx   context.Context
	w     io.Writer
	limit *rate.Limiter
	gauge *gauge
}

// newMeter returns w itself where there is nothing to do.
func newMeter(ctx context.Context, w io.Writer, perSecond size, g *gauge) io.Writer {
	if perSecond == 0 && g == nil {
		return w
	}
	m := &meter{ctx: ctx, w: w, gauge: g}
	if perSecond > 0 {
		burst := max(1, int(min(perSecond/20, 1<<20))) // even, not in jerks
		m.limit = rate.NewLimiter(rate.Limit(perSecond), burst)
	}
	return m
}

func (m *meter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		part := b[n:]
		if m.limit != nil {
			part = part[:min(len(part), m.limit.Burst())]
			if err := m.limit.WaitN(m.ctx, len(part)); err != nil {
				return n, context.Cause(m.ctx)
			}
		}
		k, err := m.w.Write(part)
		n += k
		m.gauge.add(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
