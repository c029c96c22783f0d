package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const library = "github.com/zpipes/zpipes"

// A suite is the library's own tests, compiled.
type suite struct {
	source string // the library's folder, where they run
	binary string
}

// newSuite compiles them, with further flags of go test.
func newSuite(ctx context.Context, flags ...string) (*suite, error) {
	source, err := command(ctx, "", "go", "list", "-f", "{{.Dir}}", library)
	if err != nil {
		return nil, fmt.Errorf("the library's tests are compiled first, with the Go tool and in its repository: %w", err)
	}
	temp, err := os.MkdirTemp("", "zpipes-torture-")
	if err != nil {
		return nil, err
	}
	s := &suite{source: source, binary: filepath.Join(temp, "zpipes.test")}
	build := append([]string{"test", "-c", "-vet=off", "-o", s.binary}, flags...)
	if _, err := command(ctx, source, "go", append(build, ".")...); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *suite) close() { os.RemoveAll(filepath.Dir(s.binary)) }

// run runs some of them, and returns what they wrote.
func (s *suite) run(ctx context.Context, args ...string) (string, error) {
	return command(ctx, s.source, s.binary, args...)
}

// command runs a program in a folder and returns what it wrote. Where that fails, the error
// has the telling part of it.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that a fuzzer ends its workers
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if err == nil {
		return text, nil
	}
	if input := failingInput.FindStringSubmatch(text); input != nil {
		err = errors.Join(err, fmt.Errorf("the input is in %s", filepath.Join(dir, input[1])))
	}
	return text, fmt.Errorf("%s %s: %w:\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(text))
}

var failingInput = regexp.MustCompile(`Failing input written to (\S+)`)

// tail is the end of an output, and where in it rapid says how to see a failure again.
func tail(text string) string {
	const most = 60
	lines := strings.Split(text, "\n")
	if len(lines) <= most {
		return text
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
