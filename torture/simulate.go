package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The trials of this file are the library's own tests, with new seeds: simulated worlds,
// and histories that several clients made. A failure says how to see it again.

func simulations() trial {
	return trial{
		name:  "simulate",
		fault: "anything a client may do, in any order: bad and late messages, timeouts, silence, deaths, congestion, shutdowns",
		how:   "simulated brokers with clients of all kinds, compared with a model after every step",
		share: 2,
		run: func(ctx context.Context, b *bench) (outcome, error) {
			s, err := newSuite(ctx, "TestSimulat")
			if err != nil {
				return outcome{}, err
			}
			defer s.close()
			full := b.size(10_000_000)
			for checks := 20; s.steps < full || b.more(); checks = min(2*checks, 400) {
				if err := s.run(ctx, checks, b.rand.Uint64()); err != nil {
					return outcome{}, err
				}
			}
			return outcome{s.steps, fmt.Sprintf("%.1f million steps in %s worlds, 0 violations", float64(s.steps)/1e6, grouped(s.worlds))}, nil
		},
	}
}

func histories() trial {
	return trial{
		name:  "linearize",
		fault: "several clients at the same time",
		how:   "recorded histories of names, queues and streams, simulated and real, given to a linearizability checker",
		share: 1,
		run: func(ctx context.Context, b *bench) (outcome, error) {
			s, err := newSuite(ctx, "TestLineariz")
			if err != nil {
				return outcome{}, err
			}
			defer s.close()
			for checks := 20; s.histories == 0 || b.more(); checks = min(2*checks, 500) {
				if err := s.run(ctx, checks, b.rand.Uint64()); err != nil {
					return outcome{}, err
				}
			}
			return outcome{s.histories, fmt.Sprintf("%s histories of %s operations, 0 violations", grouped(s.histories), grouped(s.operations))}, nil
		},
	}
}

// A suite is some of the library's tests, compiled.
type suite struct {
	tests  string // a pattern
	dir    string // of the library, where they run
	binary string

	steps, worlds         int64
	histories, operations int64
}

func newSuite(ctx context.Context, tests string) (*suite, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return nil, fmt.Errorf("the library's tests are compiled first, and the Go tool is not there: %w", err)
	}
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/zpipes/zpipes")
	dir, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("the library's source is not found from here; run this in its repository: %w", explained(err))
	}
	temp, err := os.MkdirTemp("", "zpipes-torture-")
	if err != nil {
		return nil, err
	}
	s := &suite{tests: tests, dir: strings.TrimSpace(string(dir)), binary: filepath.Join(temp, "zpipes.test")}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-o", s.binary, ".")
	build.Dir = s.dir
	if out, err := build.CombinedOutput(); err != nil {
		s.close()
		return nil, fmt.Errorf("compiling the library's tests: %w\n%s", err, tail(out))
	}
	return s, nil
}

func (s *suite) close() { os.RemoveAll(filepath.Dir(s.binary)) }

// run runs the tests once, and adds up what they did.
func (s *suite) run(ctx context.Context, checks int, seed uint64) error {
	cmd := exec.CommandContext(ctx, s.binary, "-test.run", s.tests, "-test.v", "-test.timeout", "1h",
		"-rapid.nofailfile", "-rapid.checks", strconv.Itoa(checks), "-rapid.seed", strconv.FormatUint(seed|1, 10))
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w, with %d worlds from seed %d:\n%s", err, checks, seed|1, tail(out))
	}
	found := false
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		for pattern, sums := range map[*regexp.Regexp][2]*int64{
			simulated: {&s.steps, &s.worlds},
			checked:   {&s.histories, &s.operations},
		} {
			if m := pattern.FindStringSubmatch(lines.Text()); m != nil {
				found = true
				for i, sum := range sums {
					n, err := strconv.ParseInt(m[i+1], 10, 64)
					if err != nil {
						return err
					}
					*sum += n
				}
			}
		}
	}
	if !found {
		return fmt.Errorf("the tests did nothing:\n%s", tail(out))
	}
	return nil
}

// What the tests log.
var (
	simulated = regexp.MustCompile(`simulated (\d+) steps in (\d+) worlds`)
	checked   = regexp.MustCompile(`checked (\d+) histories of (\d+) operations`)
)

// tail is the end of an output, and where in it rapid says how to see a failure again.
func tail(out []byte) string {
	const most = 60
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) <= most {
		return strings.Join(lines, "\n")
	}
	var kept []string
	for _, l := range lines[:len(lines)-most] {
		if strings.Contains(l, "[rapid] failed") || strings.Contains(l, "[rapid] panic") || strings.Contains(l, "-rapid.seed") {
			kept = append(kept, l)
		}
	}
	kept = append(kept, "...")
	return strings.Join(append(kept, lines[len(lines)-most:]...), "\n")
}

// explained adds what a command said to its error.
func explained(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, tail(exit.Stderr))
	}
	return err
}

// grouped writes a number with commas.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
