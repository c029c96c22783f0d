package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/pprof"
	"syscall"
	"time"
)

// The trials of lifecycle_* run in processes of their own, each for as long as its
// standard input is open, so that an abort is seen as what becomes of them.

// run has another process play a part until the trial's time is over, and takes the
// last line that it says for what it found. With meanwhile set, the process first says
// that it is ready; then that is called in another goroutine, and must return when done
// is closed.
func (b *bench) run(t task, found any, meanwhile func(c *child, done <-chan struct{})) error {
	t.Seed = b.rand.Uint64()
	c, err := startChild(t)
	if err != nil {
		return err
	}
	defer c.kill()
	over := time.AfterFunc(time.Until(b.until), func() { c.stdin.Close() })
	defer over.Stop()
	stuck := time.AfterFunc(time.Until(b.until)+2*patience, func() { c.signal(syscall.SIGQUIT) })
	defer stuck.Stop()
	done, idle := make(chan struct{}), make(chan struct{})
	var last string
	if meanwhile != nil {
		last, err = c.line()
	}
	ready := err == nil
	go func() {
		defer close(idle)
		if meanwhile != nil && ready {
			meanwhile(c, done)
		}
	}()
	for err == nil {
		var line string
		if line, err = c.line(); err == nil {
			last = line
		}
	}
	close(done)
	<-idle
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w, having said %q", t.Part, err, last)
	}
	return json.Unmarshal([]byte(last), found)
}

// leaked is what is left that was not there before. What ends by itself is waited for.
// Go's own threads stay, and so does some memory.
func leaked(before usage) error {
	const threads, memory = 32, 128 << 20
	var now usage
	var err error
	if !await(patience, func() bool {
		now, err = use()
		return err != nil || now.Goroutines <= before.Goroutines && now.Descriptors <= before.Descriptors && now.Threads <= before.Threads+threads
	}) {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		return fmt.Errorf("left are %+v, where there were %+v", now, before)
	}
	if err != nil {
		return err
	}
	if now.Resident > before.Resident+memory {
		return fmt.Errorf("memory has grown from %d to %d MiB", before.Resident>>20, now.Resident>>20)
	}
	return nil
}
