package seglog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SEGLOG_CHILD"); dir != "" {
		if err := child(dir, os.Getenv("SEGLOG_SEED")); err != nil {
			fmt.Println("E", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const childSegment = 16 << 10

func childHistory(seed string) *history {
	n, _ := strconv.ParseUint(seed, 10, 64)
	return newHistory(rand.New(rand.NewPCG(n, 7)))
}

// child appends groups of operations until it is killed. It says before each that it does, and
// after each that all of it is committed.
func child(dir, seed string) error {
	s, err := Open(dir, Options{SegmentBytes: childSegment, KeyFor: math.MaxInt64})
	if err != nil {
		return err
	}
	h := childHistory(seed)
	if len(s.Queues()) == 0 {
		if err := h.begin(s, "q"); err != nil {
			return err
		}
	} else {
		if h.log, err = s.Load("q", h, noAccount{}); err != nil {
			return err
		}
		if h.now, err = read(h.log); err != nil {
			return err
		}
	}
	for {
		fmt.Println("A")
		if err := h.append(h.group()); err != nil {
			return err
		}
		fmt.Println("C")
	}
}

// A process that is killed leaves what was confirmed, at any moment.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	last := newSnapshot()
	last.config = "first"
	commits := 0
	kills := effort(t, 15)
	for seed := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SEGLOG_CHILD="+dir, "SEGLOG_SEED="+strconv.Itoa(seed))
		cmd.Stderr = os.Stderr
		out := must[io.ReadCloser](t)(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h := childHistory(strconv.Itoa(seed))
		h.now = last.clone()
		states := []snapshot{h.now.clone()}
		begun := seed > 0
		lines := bufio.NewScanner(out)
		var killer *time.Timer
		for lines.Scan() {
			if killer == nil {
				killer = time.AfterFunc(time.Duration(rand.IntN(30_000))*time.Microsecond, func() { cmd.Process.Kill() })
			}
			begun = true
			switch lines.Text() {
			case "A":
				for _, o := range h.group() {
					h.now.apply(o)
				}
				states = append(states, h.now.clone())
			case "C":
				states = states[len(states)-1:]
				commits++
			default:
				t.Error(lines.Text())
			}
		}
		cmd.Wait()
		if !begun {
			t.Fatal("it did nothing")
		}
		s := must[*Store](t)(Open(dir, Options{SegmentBytes: childSegment, KeyFor: math.MaxInt64}))
		l := must[*Log](t)(s.Load("q", newHistory(nil), noAccount{}))
		if _, err := expected(l, states); err != nil {
			t.Fatalf("kill %d: %v", seed, err)
		}
		last = must[snapshot](t)(read(l))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d commits", kills, commits)
}

// One process has a directory.
func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	s := must[*Store](t)(Open(dir, Options{}))
	if _, err := Open(dir, Options{}); err == nil || !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SEGLOG_CHILD="+dir)
	if out, err := cmd.Output(); err == nil {
		t.Errorf("another process opened it, too: %s", out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(Open(dir, Options{}))
	s.Close()
}
