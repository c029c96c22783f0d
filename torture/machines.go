package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes/torture/netrig"
)

// What happens in a cycle is its kind. What streams must survive: the time of a cut is shorter
// than the region's patience.
var (
	machineKinds = []string{
		"calm", "loss", "slow link", "short cut", "short cut one way", "short cut of a pair", "brief stop of a broker",
		"pause of all", "stop beside a cut", "long cut", "long cut one way", "broker killed", "host started again", "broker stopped", "end killed", "end stopped",
	}
	farKinds    = []string{"calm", "loss", "slow link", "short cut", "long cut", "end killed", "end stopped"}
	hiddenKinds = []string{"host started again", "calm", "broker killed", "loss", "short cut", "short cut of a pair", "long cut", "broker stopped", "end killed"}
	// A moment of either of the first two has these alone; the others take longer.
	briefKinds = []string{"calm", "loss", "short cut", "end killed"}
)

const (
	regionHosts = 3
	// worlds are as many regions at once, since a cycle mostly waits.
	worlds = 3
	// Streams that a cycle has at once.
	passengers = 4
	// beyond is how long something lasts of which all have been told then.
	beyond = regionPatience + promised
	// slowRate is a slow link's, in bytes a second, and slowTime how long it is one.
	slowRate = 50_000
	slowTime = 4 * time.Second
)

// machines tries streams between hosts whose brokers are one.
func machines(ctx context.Context, b *bench) (outcome, error) {
	return inRegion(ctx, b, linkedRegion, machineKinds, briefKinds)
}

// farClients tries streams at the broker of one host, whose ends are on all.
func farClients(ctx context.Context, b *bench) (outcome, error) {
	return inRegion(ctx, b, func() (*region, error) { return newRegion(regionHosts, false) }, farKinds, briefKinds)
}

// hiddenMachines tries the same where hosts are reached at another address than they have.
func hiddenMachines(ctx context.Context, b *bench) (outcome, error) {
	return inRegion(ctx, b, hiddenRegion, hiddenKinds, hiddenKinds[:2])
}

func inRegion(ctx context.Context, b *bench, builds func() (*region, error), kinds, brief []string) (outcome, error) {
	n := worlds
	if b.scale < 0.01 {
		kinds, n = brief, 1
	}
	g := newGraveyard(b, kinds...)
	return g.inRegions(ctx, n, builds, func(s *region, c *cycle, w *watch) error {
		s.net.Grep([]byte("stream-")) // which pipes' names begin with
		err := g.voyage(s, c, w)
		if err == nil && s.net.Found() > 0 {
			err = fmt.Errorf("%d packets had plain text", s.net.Found())
		}
		return err
	})
}

// inRegions runs cycles in n regions at once.
func (g *graveyard) inRegions(ctx context.Context, n int, builds func() (*region, error), do func(*region, *cycle, *watch) error) (outcome, error) {
	w := newWatch()
	defer w.end()
	free := make(chan *region, n)
	for range n {
		s, err := builds()
		if errors.Is(err, errNoRegion) {
			return outcome{found: err.Error()}, nil
		}
		if err != nil {
			return outcome{}, err
		}
		defer s.end()
		free <- s
	}
	return g.run(ctx, n, func(ctx context.Context, c *cycle) error {
		s := <-free
		defer func() { free <- s }()
		start := time.Now()
		defer func() { c.still = w.worst(start) }()
		return do(s, c, w)
	})
}

// A storm is what a kind of cycle does.
type storm struct {
	begin, end func() error
	lasts      time.Duration
	survived   bool           // by all streams
	hits       func(int) bool // which hosts are concerned, where it is not
}

// voyage is a cycle.
func (g *graveyard) voyage(s *region, c *cycle, w *watch) error {
	start := time.Now()
	fair := weather(c.rand)
	s.net.All(fair)
	var hosts []int
	for i := range s.machines {
		hosts = append(hosts, i)
	}
	var all []*passenger
	defer func() {
		for _, p := range all {
			p.end()
		}
	}()
	for k := range passengers {
		p, err := s.board(c, k, hosts)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	struck, v := all[0], all[0].ends[c.rand.IntN(2)]
	if c.rand.IntN(3) > 0 {
		if err := eventually(patience, "an open", func() bool { return v.all((*ledger).opened) }); err != nil {
			return fmt.Errorf("%w: %s", err, struck.states())
		}
	}
	time.Sleep(time.Duration(c.rand.IntN(300)) * time.Millisecond)
	var crew []*child // of all that lives
	for _, p := range all {
		crew = append(crew, p.ends[0].child, p.ends[1].child)
	}
	st := s.storm(c, fair, v.child, crew...)
	if err := st.begin(); err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(st.lasts)
	if err := st.end(); err != nil {
		return err
	}
	var told time.Time // when the last one was, before anybody was waited for in vain
	met := true
	for _, p := range all {
		limit := notice + regionPatience
		if st.survived {
			limit = patience
		}
		switch {
		case patiently(limit, p.said, p.over):
			if met {
				told = time.Now()
			}
		case (!st.survived || w.worst(start) > 0) && p.apart():
			met = false
			g.count("streams whose ends did not meet before", 1)
		default:
			return fmt.Errorf("%w: %s%s", hangs("an end", limit), p.states(), s.tells(endName(p.pipe, 0)))
		}
	}
	if c.kind == "end killed" && !told.IsZero() {
		g.took(c.kind, told.Sub(began))
	}
	busy := w.worst(start)
	if busy > 0 {
		g.count("cycles in which the machine was too busy for promises of time", 1)
	}
	for _, p := range all {
		whole := st.survived || p != struck && strings.HasPrefix(c.kind, "end ") ||
			st.hits != nil && !st.hits(p.at[0]) && !st.hits(p.at[1])
		for _, e := range p.ends {
			e.mu.Lock()
		}
		err := p.judge(whole && busy == 0)
		confirmed, moment := p.ends[0].ledgers[0].confirmed, p.ends[0].ledgers[0].moment()
		for _, e := range p.ends {
			e.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("%w: %s%s", err, p.states(), s.tells(endName(p.pipe, 0)))
		}
		g.died("streams in "+c.kind, moment, confirmed)
	}
	return s.meet()
}

// storm makes what the cycle's kind is.
func (s *region) storm(c *cycle, fair netrig.Conditions, v *child, crew ...*child) storm {
	nothing := func() error { return nil }
	fine := func() error { s.net.All(fair); return nil }
	kind := c.kind
	switch kind {
	case "calm":
		return storm{begin: nothing, end: nothing, survived: true}
	case "loss":
		bad := fair
		bad.Loss, bad.Twice = 0.03, 0.02
		return storm{begin: func() error { s.net.All(bad); return nil }, end: fine, lasts: 2 * time.Second, survived: true}
	case "slow link":
		bad := fair
		bad.Rate, bad.Queue = slowRate, slowRate
		return storm{begin: func() error { s.net.All(bad); return nil }, end: fine, lasts: slowTime, survived: true}
	case "end killed", "end stopped":
		if kind == "end killed" {
			return storm{begin: func() error { v.signal(syscall.SIGKILL); return nil }, end: nothing}
		}
		return storm{
			begin: func() error { v.signal(syscall.SIGSTOP); return nil },
			end:   func() error { v.signal(syscall.SIGCONT); return nil },
			lasts: promised + time.Second,
		}
	case "pause of all": // as of the machine
		stop := storm{lasts: time.Duration(c.rand.Int64N(int64(regionPatience))), survived: true}
		signal := func(what syscall.Signal) {
			for _, m := range slices.Concat(s.machines, crew) {
				m.signal(what)
			}
		}
		cut := fair
		cut.Cut = true
		stop.begin = func() error { s.net.All(cut); signal(syscall.SIGSTOP); return nil }
		stop.end = func() error { signal(syscall.SIGCONT); return fine() }
		return stop
	}
	one := c.rand.IntN(len(s.machines))
	if !s.linked {
		one = 1 + c.rand.IntN(len(s.machines)-1)
	}
	hits := func(i int) bool { return i == one }
	switch kind {
	case "broker killed":
		return storm{begin: func() error { s.machines[one].kill(); return nil }, end: func() error { return s.boot(one) }, lasts: regionPatience, hits: hits}
	case "host started again": // before others have missed it: its last words get lost
		cut := fair
		cut.Cut = true
		return storm{
			begin: func() error { s.net.All(cut); s.machines[one].kill(); return nil },
			end:   func() error { return errors.Join(fine(), s.boot(one)) },
			lasts: time.Duration(c.rand.IntN(1000)) * time.Millisecond, hits: hits,
		}
	case "broker stopped", "brief stop of a broker", "stop beside a cut":
		st := storm{
			begin: func() error { s.machines[one].signal(syscall.SIGSTOP); return nil },
			end:   func() error { s.machines[one].signal(syscall.SIGCONT); return nil },
			lasts: beyond, hits: hits,
		}
		switch kind {
		case "stop beside a cut":
			a, b := (one+1)%regionHosts, (one+2)%regionHosts
			cut, stop, cont := fair, st.begin, st.end
			cut.Cut = true
			st.begin = func() error { s.net.Lane(a, b).Set(cut); s.net.Lane(b, a).Set(cut); return stop() }
			st.end = func() error { return errors.Join(cont(), fine()) }
			st.lasts = time.Duration(c.rand.Int64N(int64(regionPatience * 3 / 4)))
		case "brief stop of a broker":
			st.lasts, st.survived = time.Duration(c.rand.IntN(800))*time.Millisecond, true // a broker may be silent for 2 s
		}
		return st
	}
	// Cuts: of a host from all others, or of a pair.
	others := slices.DeleteFunc([]int{0, 1, 2}, hits)
	if strings.HasSuffix(kind, "pair") {
		others = others[:1]
	}
	st := storm{end: fine, lasts: beyond, hits: hits}
	if strings.HasPrefix(kind, "short") {
		st.lasts, st.survived = time.Duration(c.rand.Int64N(int64(regionPatience/2))), true
		if !s.linked {
			st.lasts /= 10 // a client's broker hears of it after 2 s
		}
	}
	cut := fair
	cut.Cut = true
	st.begin = func() error {
		for _, i := range others {
			s.net.Lane(one, i).Set(cut)
			if !strings.Contains(kind, "one way") {
				s.net.Lane(i, one).Set(cut)
			}
		}
		return nil
	}
	return st
}
