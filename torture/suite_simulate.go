package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// The library's simulated worlds, and histories that several clients made, with new seeds.
// A failure says how to see it again.

func simulate(ctx context.Context, b *bench) (outcome, error) {
	s, err := newSuite(ctx)
	if err != nil {
		return outcome{}, err
	}
	defer s.close()
	steps, worlds := int64(0), int64(0)
	for checks := 20; steps < b.size(10_000_000) || b.more(); checks = min(2*checks, 400) {
		if err := s.check(ctx, b, "TestSimulat", checks, simulated, &steps, &worlds); err != nil {
			return outcome{}, err
		}
	}
	return outcome{steps, fmt.Sprintf("%.1f million steps in %s worlds, 0 violations", float64(steps)/1e6, count(worlds))}, nil
}

func linearize(ctx context.Context, b *bench) (outcome, error) {
	s, err := newSuite(ctx)
	if err != nil {
		return outcome{}, err
	}
	defer s.close()
	histories, operations := int64(0), int64(0)
	for checks := 20; histories == 0 || b.more(); checks = min(2*checks, 500) {
		if err := s.check(ctx, b, "TestLineariz", checks, linearized, &histories, &operations); err != nil {
			return outcome{}, err
		}
	}
	return outcome{histories, fmt.Sprintf("%s histories of %s operations, 0 violations", count(histories), count(operations))}, nil
}

// What the tests log.
var (
	simulated  = regexp.MustCompile(`simulated (\d+) steps in (\d+) worlds`)
	linearized = regexp.MustCompile(`checked (\d+) histories of (\d+) operations`)
)

// check runs tests once, each with so many random cases, and adds up what they log.
func (s *suite) check(ctx context.Context, b *bench, tests string, checks int, log *regexp.Regexp, sums ...*int64) error {
	seed := b.rand.Uint64() | 1
	out, err := s.run(ctx, "-test.run="+tests, "-test.v",
		"-rapid.nofailfile", fmt.Sprint("-rapid.checks=", checks), fmt.Sprint("-rapid.seed=", seed))
	if err != nil {
		return err
	}
	found := log.FindAllStringSubmatch(out, -1)
	if found == nil {
		return fmt.Errorf("%s did nothing:\n%s", tests, tail(out))
	}
	for _, m := range found {
		for i, sum := range sums {
			n, err := strconv.ParseInt(m[i+1], 10, 64)
			if err != nil {
				return err
			}
			*sum += n
		}
	}
	return nil
}
