package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// patience is for all that must end but has no time of its own.
const patience = 30 * time.Second

var background = context.Background()

// An allowance is how long something may take. Time in which this process stood still does not
// count: others may have stood still, too, and the wire between hosts is this process.
type allowance struct {
	left   time.Duration
	looked time.Time
}

// lookEvery is how often an allowance is looked at, at least, by a process that does not stand still.
const lookEvery = 10 * time.Millisecond

func allow(d time.Duration) *allowance { return &allowance{d, time.Now()} }

func (a *allowance) usedUp() bool {
	now := time.Now()
	a.left -= min(now.Sub(a.looked), 4*lookEvery)
	a.looked = now
	return a.left < 0
}

// within calls f, which must not take longer than that.
func within[T any](d time.Duration, what string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for a := allow(d); !a.usedUp(); {
		select {
		case r := <-done:
			return r.value, r.err
		case <-look.C:
		}
	}
	var none T
	return none, hangs(what, d)
}

// finish is within for what returns an error alone.
func finish(d time.Duration, what string, f func() error) error {
	_, err := within(d, what, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

var dump sync.Once

// hangs is the error of what should have ended. The first time it shows where
// everybody is.
func hangs(what string, after time.Duration) error {
	dump.Do(func() {
		stacks := make([]byte, 4<<20)
		os.Stderr.Write(stacks[:runtime.Stack(stacks, true)])
	})
	return fmt.Errorf("%s still waits after %v", what, after)
}

// await waits until f is true, but not longer than that, and says whether it is.
func await(d time.Duration, f func() bool) bool {
	for a := allow(d); !f(); time.Sleep(time.Millisecond) {
		if a.usedUp() {
			return false
		}
	}
	return true
}

// patiently is await where the time counts from the last change of what said returns.
func patiently(d time.Duration, said func() int, f func() bool) bool {
	for {
		n, so := said(), false
		if !await(d, func() bool { so = f(); return so || said() != n }) {
			return false
		}
		if so {
			return true
		}
	}
}

// eventually waits until f is true, which must not take longer than that.
func eventually(d time.Duration, what string, f func() bool) error {
	if !await(d, f) {
		return hangs(what, d)
	}
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A watch notes when this process stood still, as it does where the machine has too much to do,
// or somebody stops it.
type watch struct {
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex // guards what follows
	stills []still
}

type still struct {
	until time.Time
	took  time.Duration
}

const (
	watchEvery = 20 * time.Millisecond
	// stoodStill is what is worth a note.
	stoodStill = 300 * time.Millisecond
)

func newWatch() *watch {
	w := &watch{stop: make(chan struct{}), done: make(chan struct{})}
	go w.look()
	return w
}

func (w *watch) end() {
	close(w.stop)
	<-w.done
}

func (w *watch) look() {
	defer close(w.done)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		if took := now.Sub(last); took > stoodStill {
			w.mu.Lock()
			w.stills = append(w.stills, still{now, took})
			w.mu.Unlock()
		}
		last = now
	}
}

// worst is for how long at most this process has stood still since then; 0: never for long.
func (w *watch) worst(since time.Time) (d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stills {
		if s.until.After(since) {
			d = max(d, s.took)
		}
	}
	return d
}
