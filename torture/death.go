package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// What the trials of death have in common: cycles, each of which kills or stops a
// process at some moment and then looks whether all others know the truth.

const (
	// promised is how soon a death is known with default heartbeats, and notice adds
	// what a busy machine takes for itself. A broker that has missed it would notice
	// after its general timeout, 10 s.
	promised = 3 * time.Second
	notice   = promised + 5*time.Second
)

// A cycle is one death.
type cycle struct {
	number int64
	kind   string
	seed   uint64
	rand   *rand.Rand
	still  time.Duration // for how long this process stood still in it, see watch
}

// name is a name that no other cycle has.
func (c *cycle) name(what string) string { return fmt.Sprintf("%s-%d", what, c.number) }

// fork is chance for a goroutine of its own.
func (c *cycle) fork() *rand.Rand { return rand.New(rand.NewPCG(c.rand.Uint64(), c.rand.Uint64())) }

// fate is that of a victim whose ends are what the cycle's kind says. Its way to the broker
// and its heartbeat are by chance. Those that are not the default are not so short that a
// busy machine often looks like death; see judgeDead.
func (c *cycle) fate() fate {
	return fate{
		Roles:     c.kind,
		Near:      c.rand.IntN(2) == 0,
		Heartbeat: []time.Duration{0, 250 * time.Millisecond}[c.rand.IntN(2)],
	}
}

// A graveyard runs cycles and keeps the record of them.
type graveyard struct {
	b     *bench
	kinds []string
	most  int64 // cycles; 0: as many as there is time for

	mu        sync.Mutex // guards all below
	number    int64
	counts    map[string]int64
	dead      map[string]map[string]int64 // what died, and when
	confirmed int64                       // bytes
	notices   map[string]laps
}

func newGraveyard(b *bench, kinds ...string) *graveyard {
	return &graveyard{b: b, kinds: kinds, counts: make(map[string]int64), dead: make(map[string]map[string]int64), notices: make(map[string]laps)}
}

// run repeats cycles, many at once, each kind at least once, until the time is over or
// something is wrong.
func (g *graveyard) run(ctx context.Context, atOnce int, do func(context.Context, *cycle) error) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for c := g.next(); c != nil && ctx.Err() == nil; c = g.next() {
				began := time.Now()
				err := do(ctx, c)
				g.tell(c, time.Since(began), err)
				if err != nil {
					cancel(fmt.Errorf("cycle %d, %s, seed %#x: %w", c.number, c.kind, c.seed, err))
				}
			}
		})
	}
	all.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return outcome{g.number, g.found()}, context.Cause(ctx)
}

// tell says what became of a cycle.
func (g *graveyard) tell(c *cycle, took time.Duration, err error) {
	if g.b.each == nil {
		return
	}
	what := "good"
	if err != nil {
		what = "bad"
	}
	fmt.Fprintf(g.b.each, "cycle %s %d %s, %.1f s, still %.1f s, seed %#x: %s\n", g.b.name, c.number, what, took.Seconds(), c.still.Seconds(), c.seed, c.kind)
}

func (g *graveyard) next() *cycle {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind := g.kinds[g.b.rand.IntN(len(g.kinds))]
	if g.number < int64(len(g.kinds)) {
		kind = g.kinds[g.number]
	} else if g.most > 0 && g.number >= g.most || g.most == 0 && !g.b.more() {
		return nil
	}
	g.number++
	seed := g.b.rand.Uint64()
	return &cycle{number: g.number, kind: kind, seed: seed, rand: rand.New(rand.NewPCG(seed, seed))}
}

// count notes that something happened n times.
func (g *graveyard) count(what string, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[what] += n
}

// died notes the death of an end, of which so many bytes were confirmed.
func (g *graveyard) died(what, moment string, confirmed int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead[what] == nil {
		g.dead[what] = make(map[string]int64)
	}
	g.dead[what][moment]++
	g.confirmed += confirmed
}

// took notes how long somebody took to learn something.
func (g *graveyard) took(what string, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.notices[what] = append(g.notices[what], d)
}

// found is the figures: of the dead what they were doing, the other counts, and the worst
// times.
func (g *graveyard) found() string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(g.dead)) {
		var when []string
		all := int64(0)
		for _, moment := range slices.Sorted(maps.Keys(g.dead[what])) {
			n := g.dead[what][moment]
			when, all = append(when, fmt.Sprintf("%s %d", moment, n)), all+n
		}
		parts = append(parts, fmt.Sprintf("%d %s (%s)", all, what, strings.Join(when, ", ")))
	}
	for _, what := range slices.Sorted(maps.Keys(g.counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", g.counts[what], what))
	}
	var notices []string
	for _, what := range slices.Sorted(maps.Keys(g.notices)) {
		l := g.notices[what].lap()
		notices = append(notices, fmt.Sprintf("%s p50 %v, p99 %v, at worst %v", what, brief(l.P50), brief(l.P99), brief(l.Most)))
	}
	if len(notices) > 0 {
		parts = append(parts, "noticed after: "+strings.Join(notices, "; "))
	}
	if g.confirmed > 0 {
		parts = append(parts, fmt.Sprintf("0 bytes lost of %.1f GiB confirmed", float64(g.confirmed)/(1<<30)))
	}
	return strings.Join(parts, "; ")
}

// classes are what errors are told apart by, across processes too.
var classes = []struct {
	name string
	err  error
}{
	{"gone", zpipes.ErrBrokerGone},
	{"none", zpipes.ErrNoBroker},
	{"nobody", zpipes.ErrNoListener},
	{"busy", zpipes.ErrPipeBusy},
	{"mode", zpipes.ErrPipeMode},
	{"left", io.ErrClosedPipe},
	{"torn", io.ErrUnexpectedEOF},
	{"slow", zpipes.ErrTooSlow},
	{"late", os.ErrDeadlineExceeded},
	{"closed", os.ErrClosed},
	{"end", io.EOF},
}

// classOf is the class of the error that a victim has told.
func classOf(failed string) string {
	name, _, _ := strings.Cut(failed, " ")
	return name
}

// class is the class of an error; each has one at most.
func class(err error) string {
	var names []string
	for _, c := range classes {
		if errors.Is(err, c.err) {
			names = append(names, c.name)
		}
	}
	if len(names) == 0 {
		return "other"
	}
	return strings.Join(names, "+")
}
