// Torture breaks zpipes on purpose: it kills and stops processes at bad moments, asks
// for too much, uses up what the system has, and sends what nobody should, for as long
// as one likes. It prints what it did and what it found as a Markdown table; a promise
// that was not kept is an error. See docs/RELIABILITY.md.
//
//	torture [-duration 10m] [-only pattern] [-seed N] [-docs directory]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A trial breaks the library in one way.
type trial struct {
	name  string // for -only
	fault string // what goes wrong
	how   string // how it is provoked
	share int    // of the time that the trials have together; it may take less
	run   func(ctx context.Context, b *bench) (outcome, error)
}

// An outcome is what a trial has to tell when every promise was kept.
type outcome struct {
	times int64  // how often it was provoked
	found string // the figures
}

// A bench is what a trial works on.
type bench struct {
	// until is when a trial that can be repeated at will stops; one that does a certain
	// amount of work does size of it.
	until time.Time
	scale float64
	rand  *rand.Rand // the trial's own; it may have given a part to its children
}

// size is how much of an amount to do: all of it where the trials have 10 minutes or more.
func (b *bench) size(full int64) int64 { return max(1, int64(float64(full)*b.scale)) }

// more says that there is time for another round.
func (b *bench) more() bool { return time.Now().Before(b.until) }

// trials, in the order in which they are run.
func trials() []trial {
	var all []trial
	all = append(all, fuzzTrial, lifecycleTrial, signalsTrial, descriptorsTrial)
	all = append(all, greed()...)
	all = append(all, deathTrials()...)
	all = append(all, simulations(), histories())
	return all
}

const fullDuration = 10 * time.Minute

type settings struct {
	duration time.Duration
	only     *regexp.Regexp
	seed     uint64
	out      io.Writer
}

func main() {
	if os.Getenv(partVar) != "" {
		os.Exit(playPart())
	}
	s := settings{out: os.Stdout}
	flag.DurationVar(&s.duration, "duration", fullDuration, "how long all trials together may take, about")
	flag.Uint64Var(&s.seed, "seed", 0, "what chance begins with; 0: something new")
	only := flag.String("only", "", "run only the trials whose name matches a `pattern`")
	docs := flag.String("docs", "", "write the table into RELIABILITY.md in `directory`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.main(ctx, *only, *docs); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func (s *settings) main(ctx context.Context, only, docs string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if docs != "" && (only != "" || s.duration < fullDuration) {
		return errors.New("-docs is for full results, so not with -only or less than 10 minutes")
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	table, err := s.run(ctx, trials())
	fmt.Fprint(s.out, table)
	if err != nil || docs == "" {
		return err
	}
	return save(filepath.Join(docs, "RELIABILITY.md"), table)
}

// run runs the trials one after the other, and all of them even when one fails.
func (s *settings) run(ctx context.Context, trials []trial) (table string, err error) {
	var chosen []trial
	shares := 0
	for _, t := range trials {
		if s.only.MatchString(t.name) {
			chosen = append(chosen, t)
			shares += t.share
		}
	}
	var rows strings.Builder
	for _, t := range chosen {
		began := time.Now()
		fmt.Fprintf(os.Stderr, "%s %s ...\n", began.Format(time.TimeOnly), t.name)
		h := fnv.New64a()
		io.WriteString(h, t.name)
		got, failed := t.run(ctx, &bench{
			until: began.Add(s.duration * time.Duration(t.share) / time.Duration(max(1, shares))),
			scale: min(1, s.duration.Minutes()/fullDuration.Minutes()),
			rand:  rand.New(rand.NewPCG(s.seed, h.Sum64())),
		})
		if ctx.Err() != nil {
			return rows.String(), context.Cause(ctx)
		}
		if failed != nil {
			failed = fmt.Errorf("%s: %w (-seed %d)", t.name, failed, s.seed)
			fmt.Fprintln(os.Stderr, "FAILED", failed)
			err = errors.Join(err, failed)
			got.found = "**FAILED**"
		}
		fmt.Fprintf(&rows, "| %s | %s | %d | %s | %.0f s |\n", t.fault, t.how, got.times, got.found, time.Since(began).Seconds())
	}
	header := "| fault | how it is provoked | times | found | took |\n|---|---|---|---|---|\n"
	return about(s) + header + rows.String(), err
}
