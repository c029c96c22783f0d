package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// together is how close two signals of a kind are that are one: timeout(1) sends its own to a
// program, and to the group in which that is, and may be interrupted between.
const together = 250 * time.Millisecond

// withSignals returns a context that a signal ends, and whose cause says which. A
// second signal ends the process at once.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	hungUp := new(atomic.Pointer[func()])
	ctx = context.WithValue(ctx, hangUp{}, hungUp)
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup and the shell's & have it
			signal.Notify(signals, s)
		}
	}
	go func() {
		var first time.Time
		var cause syscall.Signal
		for s := range signals {
			sig := s.(syscall.Signal)
			if f := hungUp.Load(); sig == syscall.SIGHUP && f != nil {
				(*f)()
				continue
			}
			switch {
			case ctx.Err() == nil:
				first, cause = time.Now(), sig
				cancel(signalError{sig})
			case sig != cause || time.Since(first) > together:
				os.Exit(exitSignal + int(sig))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

type hangUp struct{}

// onHangUp has HUP call f, and not end ctx, which is withSignals'.
func onHangUp(ctx context.Context, f func()) {
	ctx.Value(hangUp{}).(*atomic.Pointer[func()]).Store(&f)
}

// withTimeout is --timeout; none if it is 0.
func withTimeout(parent context.Context, d time.Duration) (context.Context, func()) {
	if d == 0 {
		return context.WithCancel(parent)
	}
	return context.WithTimeoutCause(parent, d, timeoutError{d})
}

// until calls f, but does not wait longer for it than ctx lasts: a read of the standard
// input can't be interrupted.
func until(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return causeOf(ctx, err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// causeOf says why ctx ended where err says only that it has.
func causeOf(ctx context.Context, err error) error {
	var sig signalError
	if ctx.Err() == nil || err == nil {
		return err
	}
	if cause := context.Cause(ctx); errors.As(cause, &sig) || exitCode(err) == exitTimeout || errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}
