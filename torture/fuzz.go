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
	"runtime"
	"strconv"
	"strings"
	"time"
)

const library = "github.com/zpipes/zpipes"

var fuzzTrial = trial{
	name:  "fuzz",
	fault: "messages that nobody should send",
	how:   "Go's fuzzer: to the codec, the broker's core, a whole broker, and clients of a lying one",
	share: 2,
	run:   fuzz,
}

// fuzzTargets are the library's, and how many inputs are tried at once for each core:
// those of a whole broker or client mostly wait.
var fuzzTargets = []struct {
	name     string
	parallel int
}{
	{"FuzzCodec", 1}, {"FuzzRoundTrip", 1}, {"FuzzBroker", 1}, {"FuzzText", 1}, {"FuzzWire", 3}, {"FuzzClient", 3},
}

const (
	// leastFuzz is how long a target is fuzzed at least, and without instrumentation.
	leastFuzz = time.Second
	// instrumentFrom is from how much time on the library is built so that the fuzzer
	// sees what an input reaches, which takes longer.
	instrumentFrom = time.Minute
)

func fuzz(ctx context.Context, b *bench) (outcome, error) {
	began, targets := time.Now(), fuzzTargets
	build := []string{"test", "-c"}
	if time.Until(b.until) >= instrumentFrom {
		build = append(build, "-fuzz=.")
	} else {
		targets = targets[2:3]
	}
	source, err := outputOf(ctx, "", "go", "list", "-f", "{{.Dir}}", library)
	if err != nil {
		return outcome{}, err
	}
	cache, err := outputOf(ctx, "", "go", "env", "GOCACHE")
	if err != nil {
		return outcome{}, err
	}
	dir, err := os.MkdirTemp("", "zpipes-fuzz-")
	if err != nil {
		return outcome{}, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "fuzz.test")
	if _, err := outputOf(ctx, source, "go", append(build, "-o", program, ".")...); err != nil {
		return outcome{}, err
	}
	var total int64
	var found []string
	for i, target := range targets {
		took := max(leastFuzz, time.Until(b.until)/time.Duration(len(targets)-i)).Round(time.Second)
		out, err := outputOf(ctx, source, program,
			"-test.run=^$", "-test.fuzz=^"+target.name+"$", "-test.fuzztime="+took.String(),
			"-test.fuzzcachedir="+filepath.Join(cache, "fuzz", library), "-test.fuzzminimizetime=1x",
			"-test.parallel="+strconv.Itoa(target.parallel*runtime.NumCPU()))
		if err != nil {
			return outcome{}, fmt.Errorf("%s: %w", target.name, err)
		}
		n := executions(out)
		if n == 0 {
			return outcome{}, fmt.Errorf("%s: nothing was tried: %s", target.name, ending(out))
		}
		total += n
		found = append(found, fmt.Sprintf("%s %.0f/s", strings.TrimPrefix(target.name, "Fuzz"), float64(n)/took.Seconds()))
	}
	return outcome{
		times: total,
		found: fmt.Sprintf("no input that fails; %s (%v)", strings.Join(found, ", "), time.Since(began).Round(time.Second)),
	}, nil
}

// outputOf runs a program; where that fails, the error has where the failing input is, if
// there is one, and the end of what the program wrote.
func outputOf(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it ends its workers
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if err != nil {
		if input := failingInput.FindStringSubmatch(text); input != nil {
			err = errors.Join(err, fmt.Errorf("the input is in %s", filepath.Join(dir, input[1])))
		}
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, ending(text))
	}
	return text, nil
}

var (
	failingInput = regexp.MustCompile(`Failing input written to (\S+)`)
	executed     = regexp.MustCompile(`execs: (\d+)`)
)

// executions is how many inputs the fuzzer says it has tried.
func executions(out string) int64 {
	all := executed.FindAllStringSubmatch(out, -1)
	if all == nil {
		return 0
	}
	n, _ := strconv.ParseInt(all[len(all)-1][1], 10, 64)
	return n
}

func ending(text string) string {
	const most = 2000
	if len(text) > most {
		return "... " + text[len(text)-most:]
	}
	return text
}
