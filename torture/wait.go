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
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(d):
		var none T
		return none, hangs(what, d)
	}
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
	for end := time.Now().Add(d); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
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
