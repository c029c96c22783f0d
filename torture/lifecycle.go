package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// The trials of this file's name run in processes of their own, each for as long as its
// standard input is open, so that an abort is seen as what becomes of them.

// stuckAfter is for what must not hang.
const stuckAfter = 30 * time.Second

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
	stuck := time.AfterFunc(time.Until(b.until)+2*stuckAfter, func() { c.signal(syscall.SIGQUIT) })
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

// told says what a part has found.
func told(found any) error {
	text, err := json.Marshal(found)
	if err == nil {
		say("%s", text)
	}
	return err
}

// untilToldTo returns what is closed when this process's standard input ends.
func untilToldTo() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, os.Stdin)
	}()
	return done
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// inTime calls f, and ends this process with all stacks where it hangs.
func inTime(what string, f func()) time.Duration {
	began := time.Now()
	timer := time.AfterFunc(stuckAfter, func() {
		fmt.Fprintf(os.Stderr, "torture: %s hangs\n", what)
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(3)
	})
	defer timer.Stop()
	f()
	return time.Since(began)
}

// usage is what this process has.
type usage struct {
	Goroutines, Descriptors, Threads int
	Resident                         int64 // bytes
}

func use() usage {
	u := usage{Goroutines: runtime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.Descriptors = len(fds)
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "Threads:"); ok {
			fmt.Sscan(n, &u.Threads)
		}
		if n, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(n, &u.Resident)
			u.Resident <<= 10
		}
	}
	return u
}

// leaked is what is left that was not there before. What ends by itself is waited for.
// Go's own threads stay, and so does some memory.
func leaked(before usage) error {
	const threads, memory = 32, 128 << 20
	var now usage
	for end := time.Now().Add(stuckAfter); ; time.Sleep(10 * time.Millisecond) {
		now = use()
		if now.Goroutines <= before.Goroutines && now.Descriptors <= before.Descriptors && now.Threads <= before.Threads+threads {
			break
		}
		if time.Now().After(end) {
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			return fmt.Errorf("left are %+v, where there were %+v", now, before)
		}
	}
	if now.Resident > before.Resident+memory {
		return fmt.Errorf("memory has grown from %d to %d MiB", before.Resident>>20, now.Resident>>20)
	}
	return nil
}

// pattern fills b with what stands in a stream from that position on; check says
// whether that is there.
func pattern(b []byte, at int64) []byte {
	for i := range b {
		b[i] = byte((at + int64(i)) % 251)
	}
	return b
}

func isPattern(b []byte, at int64) bool {
	for i := range b {
		if b[i] != byte((at+int64(i))%251) {
			return false
		}
	}
	return true
}

var errPattern = errors.New("other bytes came than were written")
