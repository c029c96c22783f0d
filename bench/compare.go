package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Results has the outcomes of a contest: for each of its contenders, one of each
// round.
type results struct {
	contest
	rounds map[string][]outcome
}

func (r *results) name(c contender) string { return r.title() + ", " + c.name }

// compare holds all contests in turn, and that as often as there are rounds. In
// each round another contender begins.
func (s settings) compare(ctx context.Context) (report, error) {
	var all []*results
	for _, c := range contests() {
		r := &results{c, make(map[string][]outcome)}
		r.contenders = nil
		for _, entrant := range c.contenders {
			if s.only.MatchString(r.name(entrant)) {
				r.contenders = append(r.contenders, entrant)
			}
		}
		if len(r.contenders) > 0 {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return report{}, fmt.Errorf("no measurement matches %q", s.only)
	}
	for round := range s.rounds {
		began := time.Now()
		for _, r := range all {
			for i := range r.contenders {
				c := r.contenders[(i+round)%len(r.contenders)]
				o, err := s.measure(ctx, r, c)
				if err != nil {
					return report{}, fmt.Errorf("%s: %w", r.name(c), err)
				}
				r.rounds[c.name] = append(r.rounds[c.name], o)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d took %v\n", round+1, s.rounds, time.Since(began).Round(time.Second))
	}
	return compared(all), nil
}

// measure measures one contender once, in processes of its own.
func (s settings) measure(ctx context.Context, r *results, c contender) (outcome, error) {
	dir, err := os.MkdirTemp("", "zpipes-bench-")
	if err != nil {
		return outcome{}, err
	}
	defer os.RemoveAll(dir)
	cast, err := newCast(ctx, c.processes)
	if err != nil {
		return outcome{}, err
	}
	defer cast.end()
	if r.busy {
		p, err := start(ctx, "busy", gogc)
		if err != nil {
			return outcome{}, err
		}
		defer p.end()
		if err := p.call(ctx, "Spin", struct{}{}, nil); err != nil {
			return outcome{}, err
		}
	}
	t := Task{Job: c.job, Transport: c.transport, Size: r.size, Streams: r.streams, Dir: dir, Patient: s.patient}
	if s.profile != "" {
		t.Profile = filepath.Join(s.profile, strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(r.name(c)))
	}
	return cast.perform(ctx, t, s.pace)
}
