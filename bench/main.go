// Bench measures zpipes beside its peers, doing the same work on the same machine
// in the same run: in one process io.Pipe, os.Pipe, Go's channels and NATS; between
// processes a FIFO, a bare Unix socket, zmq.Proxy and NATS. See docs/BENCHMARKS.md.
//
//	bench [flags]         rates, latencies, CPU time and allocations
//	bench [flags] scale   10,000 pipes at one broker
//	bench [flags] memory  how much a broker grows that is offered too much
//	bench [flags] durable queues on the disk
//
// It prints its results as Markdown, and with -docs also writes them, and charts,
// into that directory. It fails if data do not arrive as they were sent, not if
// they are slow.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	rounds  int
	quick   bool
	pace    pace
	only    *regexp.Regexp
	docs    string
	profile string
	patient bool // see Task
}

func main() {
	if os.Getenv(roleVar) != "" {
		servePart()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var s settings
	flag.IntVar(&s.rounds, "rounds", 0, "how often each measurement is repeated; 0 means 7, or 2 with -quick")
	flag.DurationVar(&s.pace.run, "time", 0, "how long a measurement takes; 0 means 300ms, or 80ms with -quick")
	flag.BoolVar(&s.quick, "quick", false, "few and short rounds, and less of all else: for a look, not for figures")
	flag.StringVar(&s.docs, "docs", "", "write results and charts into `directory`")
	flag.StringVar(&s.profile, "profile", "", "write CPU profiles of all processes into `directory`")
	only := flag.String("only", "", "measure only what matches a `pattern`, such as 'processes, stream, 64 KiB.*zpipes'")
	flag.Parse()
	err := s.run(ctx, *only, flag.Arg(0))
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (s settings) run(ctx context.Context, only, what string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if s.docs != "" {
		if s.quick || only != "" {
			return errors.New("-docs is for full results, so not with -quick or -only")
		}
		if _, err := os.Stat(filepath.Join(s.docs, docsFile)); err != nil {
			return err
		}
	}
	if s.quick {
		s.rounds, s.pace.run = cmp.Or(s.rounds, 2), cmp.Or(s.pace.run, 80*time.Millisecond)
	} else {
		s.rounds, s.pace.run = cmp.Or(s.rounds, 7), cmp.Or(s.pace.run, 300*time.Millisecond)
	}
	if what == "durable" {
		s.rounds = min(s.rounds, 3) // the disk takes its time
	}
	s.pace.warm = s.pace.run / 3
	about := s.about(os.Args[1:])
	var report report
	switch what {
	case "", "compare":
		report, err = s.compare(ctx)
	case "scale":
		report, err = s.scale(ctx)
	case "memory":
		report, err = s.memory(ctx)
	case "durable":
		report, err = s.durable(ctx)
	default:
		return fmt.Errorf("there is no %q; see -help", what)
	}
	if err != nil {
		return err
	}
	report.text = about + report.text
	fmt.Print(report.text)
	if s.docs == "" {
		return nil
	}
	return report.save(s.docs)
}
