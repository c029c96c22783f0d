package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A spread is what a figure was over all rounds.
type spread struct {
	least, lower, median, upper, most float64
}

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 {
		if len(v) == 0 {
			return 0
		}
		x := q * float64(len(v)-1)
		i := int(x)
		j := min(i+1, len(v)-1)
		return v[i] + (x-float64(i))*(v[j]-v[i])
	}
	return spread{at(0), at(.25), at(.5), at(.75), at(1)}
}

// margin is half the distance of the quartiles, in per cent of the median.
func (s spread) margin() string {
	if s.median == 0 {
		return ""
	}
	return fmt.Sprintf(" ±%.0f %%", 50*(s.upper-s.lower)/s.median)
}

// text is the range, written in that way.
func (s spread) text(write func(float64) string) string {
	least, most := write(s.least), write(s.most)
	if least == most {
		return least
	}
	return least + " to " + most
}

// A figure takes one number out of an outcome, and says how to write it.
type figure struct {
	name string
	of   func(outcome) float64
	text func(float64) string
}

var (
	rate    = figure{"rate", func(o outcome) float64 { return o.rate }, rateText}
	p50     = figure{"p50", func(o outcome) float64 { return float64(o.p50) }, timeText}
	p99     = figure{"p99", func(o outcome) float64 { return float64(o.p99) }, timeText}
	mallocs = figure{"allocations", func(o outcome) float64 { return o.mallocs }, countText}
	cpu     = figure{"CPU seconds", func(o outcome) float64 { return o.cpu }, digits}
)

// over returns the figure's spread over all rounds.
func (f figure) over(rounds []outcome) spread {
	values := make([]float64, len(rounds))
	for i, o := range rounds {
		values[i] = f.of(o)
	}
	return spreadOf(values)
}

// ratio compares two contenders round by round, so that a machine that is slow
// for a while is slow for both.
func (f figure) ratio(of, to []outcome) spread {
	values := make([]float64, len(of))
	for i := range of {
		values[i] = f.of(of[i]) / f.of(to[i])
	}
	return spreadOf(values)
}

// digits writes x with three significant digits or so.
func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func rateText(x float64) string {
	if x >= 1e9 {
		return digits(x/1e9) + " GB/s"
	}
	return digits(x/1e6) + " MB/s"
}

func timeText(ns float64) string {
	if ns >= float64(time.Second) {
		return digits(ns/1e9) + " s"
	}
	if ns >= float64(time.Millisecond) {
		return digits(ns/1e6) + " ms"
	}
	if ns >= float64(time.Microsecond) {
		return digits(ns/1e3) + " µs"
	}
	return fmt.Sprintf("%.0f ns", ns)
}

func countText(x float64) string { return fmt.Sprintf("%.2f", x) }
func wholeText(x float64) string { return fmt.Sprintf("%.0f", x) }
func ratioText(x float64) string { return digits(x) + "x" }

// sizeText writes a number of bytes.
func sizeText(n float64) string {
	unit := "B"
	for _, larger := range []string{"KiB", "MiB", "GiB"} {
		if n < 1<<10 {
			break
		}
		n, unit = n/(1<<10), larger
	}
	if n == math.Trunc(n) {
		return fmt.Sprintf("%.0f %s", n, unit)
	}
	return digits(n) + " " + unit
}
