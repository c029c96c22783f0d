package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes"
)

// Many pipes that were busy once, so that as many of them as may be went through rings; and
// rings that work while others say nothing.

func manyRings(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeast(ctx, b)
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	pipes := max(400, b.size(10000))
	// An idle pipe costs 4 KiB at most.
	err = f.course("pipes that were busy once", pipes*4<<10+64<<20, func() (tally, error) { return f.busyOnce(pipes) })
	if err != nil {
		return outcome{}, err
	}
	err = f.course("connections that say nothing beside rings", 1000*perDoor+slack, func() (tally, error) {
		return f.busyBeside(errand{Do: "say nothing", Endpoint: f.near(), Count: 1000})
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

const (
	// ringProcesses is over how many the ends are spread: each reads its share of the pipes,
	// and writes to the next one's.
	ringProcesses = 10
	// busyBytes is what each pipe carries, and more than makes it busy.
	busyBytes = 512 << 10
	// givenBack is when all rings must have been given back that were used for a moment: 5
	// seconds, and a look each second.
	givenBack = 6*time.Second + settling
)

// busyOnce has so many pipes carry something, and looks what is left of that.
func (f *feast) busyOnce(pipes int64) (t tally, err error) {
	var all []*guest
	for range ringProcesses {
		g, err := f.guest()
		if err != nil {
			return t, err
		}
		all = append(all, g)
	}
	e := errand{Endpoint: f.near(), Count: pipes / ringProcesses, Size: busyBytes}
	each := func(do string, of func(i int) int) error {
		errs := make([]error, len(all))
		var wg sync.WaitGroup
		for i, g := range all {
			e := e
			e.Do, e.Pipe, e.Seed = do, fmt.Sprint("once ", of(i)), uint64(of(i))
			wg.Go(func() { _, errs[i] = f.ask(g, e) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	own := func(i int) int { return i }
	next := func(i int) int { return (i + 1) % len(all) }
	if err := each("take part in rings", own); err != nil {
		return t, err
	}
	if err := each("open rings' writers", next); err != nil {
		return t, err
	}
	everybody := append([]*guest{f.broker}, all...)
	before := make([]usage, len(everybody))
	for i, g := range everybody {
		if before[i], err = f.use(g); err != nil {
			return t, err
		}
	}
	var worst usage
	rings := 0
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for !closed(stop) {
			for _, g := range everybody {
				u, err := g.process().usage()
				if err == nil {
					worst.Threads, worst.Descriptors = max(worst.Threads, u.Threads), max(worst.Descriptors, u.Descriptors)
				}
			}
			rings = max(rings, len(f.broker.process().rings()))
			time.Sleep(10 * tick)
		}
	})
	began := time.Now()
	err = each("be busy once", next)
	busy := time.Since(began)
	if err == nil {
		err = each("have read all", own)
	}
	close(stop)
	watching.Wait()
	if err != nil {
		return t, err
	}
	if most := int64(runtime.GOMAXPROCS(0)) + 24; worst.Threads > most {
		return t, fmt.Errorf("a process has %d threads, and may have %d", worst.Threads, most)
	}
	if rings == 0 {
		return t, errors.New("no pipe went through a ring")
	}
	// The neighbour's has one, too.
	left := func(g *guest) bool {
		return len(g.process().rings()) > 0 && (g != f.broker || len(g.process().rings()) > 1)
	}
	began = time.Now()
	err = eventually(givenBack, "a ring that nobody uses", func() bool {
		time.Sleep(10 * tick)
		for _, g := range everybody {
			if left(g) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return t, err
	}
	back := time.Since(began)
	var grown [2]int64 // the broker, and the most of the others
	for i, g := range everybody {
		u, err := f.use(g)
		if err != nil {
			return t, err
		}
		k := min(i, 1)
		grown[k] = max(grown[k], u.Resident-before[i].Resident)
		if u.Descriptors > before[i].Descriptors+moreDescriptors {
			return t, fmt.Errorf("process %d has %d descriptors, where there were %d before its pipes were busy", i, u.Descriptors, before[i].Descriptors)
		}
		if u.Goroutines > before[i].Goroutines {
			return t, fmt.Errorf("process %d has %d goroutines, where there were %d before its pipes were busy", i, u.Goroutines, before[i].Goroutines)
		}
		if more := u.Resident - before[i].Resident; more > staysUsually && !raceDetector {
			return t, fmt.Errorf("process %d has %s more than before its pipes were busy", i, mebibytes(more))
		}
	}
	t.Times = e.Count * ringProcesses
	t.Found = fmt.Sprintf("%s pipes of %d processes carried %s each within %.1f s, %d at once through rings; at most %d threads and %d descriptors in a process; "+
		"%.1f s later all rings were given back, and then the broker had %s, the others %s at most",
		count(t.Times), ringProcesses, mebibytes(busyBytes), busy.Seconds(), rings, worst.Threads, worst.Descriptors, back.Seconds(), signed(grown[0]), signed(grown[1]))
	for _, g := range all {
		f.dismiss(g)
	}
	return t, nil
}

// use is what a guest has, once it has given back what memory it can.
func (f *feast) use(g *guest) (u usage, err error) {
	got, err := f.ask(g, errand{Do: "tidy"})
	if err != nil {
		return u, err
	}
	u, err = g.process().usage()
	u.Goroutines = got.Times
	return u, err
}

// busyBeside has a stream go through a ring while somebody is about an errand.
func (f *feast) busyBeside(e errand) (t tally, err error) {
	c := &cycle{rand: rand.New(rand.NewPCG(f.seed, 0))}
	s, err := c.newPassage(f.name, f.broker.child, fate{Near: true, Heartbeat: ringBeat})
	if err != nil {
		return t, err
	}
	defer s.end()
	if err := s.begin(); err != nil {
		return t, err
	}
	if err := s.reach(inRing, nil); err != nil {
		return t, err
	}
	if t, err = f.send(e); err != nil {
		return t, err
	}
	if s.where(inRing) != inRing {
		return t, errors.New("the stream does not go through a ring any more")
	}
	if err := s.endsWell(); err != nil {
		return t, fmt.Errorf("%w; %s; %s", err, s.w.states(), s.r.states())
	}
	t.Found += ", while " + mebibytes(s.w.ledgers[0].closing) + " went through a ring"
	return t, s.clean()
}

// A part in rings is a process's: it reads from some pipes, and writes to others.
type partInRings struct {
	client  *zpipes.Client
	writers []*zpipes.Writer
	read    atomic.Int64
	failed  chan error
}

// counting counts what is read.
type counting struct {
	io.Reader
	n *atomic.Int64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func init() {
	errands["take part in rings"] = func(h *host, e errand) (t tally, err error) {
		c, err := mortalClient(e.Endpoint)
		if err != nil {
			return t, err
		}
		p := &partInRings{client: c, failed: make(chan error, e.Count)}
		h.rings = p
		for i := range e.Count {
			r, err := c.OpenReader(background, fmt.Sprintf("%s %d", e.Pipe, i))
			if err != nil {
				return t, err
			}
			go func() {
				o := oracle{seed: e.Seed + uint64(i)<<32}
				p.failed <- o.readAll(counting{r, &p.read}, 4<<10) // since that stays
			}()
		}
		return t, nil
	}
	errands["open rings' writers"] = func(h *host, e errand) (t tally, err error) {
		for i := range e.Count {
			w, err := h.rings.client.OpenWriter(background, fmt.Sprintf("%s %d", e.Pipe, i))
			if err != nil {
				return t, err
			}
			h.rings.writers = append(h.rings.writers, w)
		}
		return t, nil
	}
	errands["be busy once"] = func(h *host, e errand) (t tally, err error) {
		b := make([]byte, e.Size)
		for i, w := range h.rings.writers {
			fill(b, e.Seed+uint64(i)<<32, 0)
			for rest := b; len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
				if _, err := w.Write(rest[:min(len(rest), 16<<10)]); err != nil {
					return t, err
				}
			}
			if err := w.Flush(); err != nil {
				return t, err
			}
		}
		return t, nil
	}
	errands["have read all"] = func(h *host, e errand) (t tally, err error) {
		err = eventually(errandTime/2, "a reader of what was confirmed", func() bool {
			return h.rings.read.Load() == e.Count*e.Size || len(h.rings.failed) > 0
		})
		if len(h.rings.failed) > 0 {
			err = fmt.Errorf("a stream that is still open has ended: %w", <-h.rings.failed)
		}
		if err != nil {
			err = fmt.Errorf("%w: %d bytes were read of %d", err, h.rings.read.Load(), e.Count*e.Size)
		}
		return t, err
	}
}
