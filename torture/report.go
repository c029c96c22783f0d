package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/pebbe/zmq4"
)

// about says where and how the table was made.
func about(s *settings) string {
	major, minor, patch := zmq4.Version()
	return fmt.Sprintf("%s, `torture -duration %v -seed %d`; %d cores, %s/%s, %s, libzmq %d.%d.%d.\n\n",
		time.Now().UTC().Format(time.DateOnly), s.duration, s.seed,
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), major, minor, patch)
}

const (
	tableBegin = "<!-- torture: begin -->"
	tableEnd   = "<!-- torture: end -->"
)

// save puts the table between the markers in a file, where all else is written by hand.
func save(name, table string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), tableBegin)
	_, after, closed := strings.Cut(rest, tableEnd)
	if !ok || !closed {
		return fmt.Errorf("%s has no lines %s and %s", name, tableBegin, tableEnd)
	}
	return os.WriteFile(name, []byte(before+tableBegin+"\n\n"+table+"\n"+tableEnd+after), 0o644)
}

// count is a number as people write it.
func count(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
func signed(n int64) string    { return fmt.Sprintf("%+.1f MiB", float64(n)/(1<<20)) }

// brief is a time of which only the first figures matter.
func brief(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
