package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

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
	instrumentFrom = 30 * time.Second
)

// fuzz begins with a storm, which is without guidance and so much faster.
func fuzz(ctx context.Context, b *bench) (outcome, error) {
	s, err := newSuite(ctx)
	if err != nil {
		return outcome{}, err
	}
	defer s.close()
	frames := b.size(100_000_000)
	out, err := s.run(ctx, "-test.run=^TestCodecStorm$", "-test.v", fmt.Sprint("-storm=", frames))
	if err != nil {
		return outcome{}, err
	}
	if !strings.Contains(out, "--- PASS: TestCodecStorm") {
		return outcome{}, fmt.Errorf("TestCodecStorm did nothing:\n%s", tail(out))
	}
	targets := fuzzTargets[2:3]
	if time.Until(b.until) >= instrumentFrom {
		targets = fuzzTargets
		guided, err := newSuite(ctx, "-fuzz=.")
		if err != nil {
			return outcome{}, err
		}
		defer guided.close()
		s = guided
	}
	cache, err := command(ctx, "", "go", "env", "GOCACHE")
	if err != nil {
		return outcome{}, err
	}
	inputs := int64(0)
	var found []string
	for i, target := range targets {
		took := max(leastFuzz, time.Until(b.until)/time.Duration(len(targets)-i)).Round(time.Second)
		out, err := s.run(ctx,
			"-test.run=^$", "-test.fuzz=^"+target.name+"$", "-test.fuzztime="+took.String(),
			"-test.fuzzcachedir="+filepath.Join(cache, "fuzz", library), "-test.fuzzminimizetime=1x",
			fmt.Sprint("-test.parallel=", target.parallel*runtime.NumCPU()))
		if err != nil && !late.MatchString(out) {
			return outcome{}, err
		}
		n := executions(out)
		if n == 0 {
			return outcome{}, fmt.Errorf("%s: nothing was tried: %s", target.name, tail(out))
		}
		inputs += n
		found = append(found, fmt.Sprintf("%s %.0f/s", strings.TrimPrefix(target.name, "Fuzz"), float64(n)/took.Seconds()))
	}
	return outcome{
		times: frames + inputs,
		found: fmt.Sprintf("%s frames of a storm, and %s inputs of the fuzzer: none that fails (%s)", count(frames), count(inputs), strings.Join(found, ", ")),
	}, nil
}

var (
	executed = regexp.MustCompile(`execs: (\d+)`)
	// The fuzzer now and then takes the end of its own time for a failure.
	late = regexp.MustCompile(`--- FAIL: \w+ \(\S+\)\n\s+context deadline exceeded\nFAIL$`)
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
