package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// haulKinds is what happens in a cycle.
var haulKinds = []string{
	"calm", "loss", "short cut", "short cut of a pair", "brief stop of a broker", "pause of all", "stop beside a cut",
	"long cut", "long cut of a pair", "long cut one way", "long cut twice",
	"broker killed", "broker stopped", "end killed", "end stopped",
}

// machineQueues tries queues whose senders and workers are on several hosts whose brokers are one.
func machineQueues(ctx context.Context, b *bench) (outcome, error) {
	kinds, n := haulKinds, worlds
	if b.scale < 0.01 {
		kinds, n = []string{"short cut", "end killed"}, 1 // the others take longer
	}
	g := newGraveyard(b, kinds...)
	return g.inRegions(ctx, n, linkedRegion, func(s *region, c *cycle, _ *watch) error { return g.haul(s, c) })
}

// A gang is the hands of a host that send, or work.
type gang struct {
	*child
	host  int
	roles string
	over  chan struct{} // closed when it says no more
	err   error         // then: how it ended
}

// haul is a cycle: hands send to a queue and work on it, on all hosts, while something happens.
func (g *graveyard) haul(s *region, c *cycle) error {
	fair := weather(c.rand)
	s.net.All(fair)
	book, queue := newBook(), c.name("queue")
	// What is in the memory of a broker that is killed is lost.
	cfg := zpipes.QueueConfig{Durable: c.kind == "broker killed" || c.rand.IntN(2) == 0, MaxBytes: 1 << 28}
	var gangs []*gang
	var heard sync.WaitGroup
	defer func() {
		for _, w := range gangs {
			w.signal(syscall.SIGKILL)
		}
		heard.Wait()
	}()
	hire := func(host int, role rune, n int) error {
		w := &gang{host: host, roles: strings.Repeat(string(role), n), over: make(chan struct{})}
		var err error
		w.child, err = startChildAt(s.net.Host(host), task{
			Part: "hands", Broker: s.broker(host), Pipe: queue, Seed: c.rand.Uint64(), Queue: cfg,
			Fate: fate{Roles: w.roles, Rest: time.Duration(100+c.rand.IntN(200)) * time.Millisecond},
		})
		if err != nil {
			return err
		}
		gangs = append(gangs, w)
		by := fmt.Sprintf("%s on host %d", w.roles, host)
		heard.Go(func() {
			defer close(w.over)
			w.hear(by, book)
			w.err = w.cmd.Wait()
		})
		return nil
	}
	// Somebody sends from one host at least, and works on another.
	first, second := c.rand.IntN(regionHosts), c.rand.IntN(regionHosts-1)
	if second >= first {
		second++
	}
	for i := range s.machines {
		if i == first || c.rand.IntN(2) == 0 {
			if err := hire(i, 's', 1+c.rand.IntN(2)); err != nil {
				return err
			}
		}
		if i == second || c.rand.IntN(2) == 0 {
			if err := hire(i, 'w', 1+c.rand.IntN(2)); err != nil {
				return err
			}
		}
	}
	struck := gangs[c.rand.IntN(len(gangs))]
	if c.rand.IntN(3) > 0 {
		if err := eventually(patience, "a job that is done", func() bool { return book.has() }); err != nil {
			return fmt.Errorf("%w: %s", err, book.summary())
		}
	}
	time.Sleep(time.Duration(c.rand.IntN(300)) * time.Millisecond)
	times := 1
	if strings.HasSuffix(c.kind, "twice") {
		times = 2
	}
	for range times {
		var crew []*child
		for _, w := range gangs {
			crew = append(crew, w.child)
		}
		st := s.storm(c, fair, struck.child, crew...)
		if err := st.begin(); err != nil {
			return err
		}
		time.Sleep(st.lasts)
		if err := st.end(); err != nil {
			return err
		}
		time.Sleep(time.Duration(c.rand.IntN(2500)) * time.Millisecond) // those that meet may be at it
	}
	if err := s.meet(); err != nil {
		return err
	}
	dismiss := func(role string) error {
		for _, w := range gangs {
			if !strings.HasPrefix(w.roles, role) {
				continue
			}
			w.stdin.Close()
			limit := notice + 2*regionPatience
			if !patiently(limit, book.words, func() bool { return closed(w.over) }) {
				w.signal(syscall.SIGQUIT) // where everybody is
				return fmt.Errorf("%w: %s%s", hangs(fmt.Sprintf("%s on host %d, told to end,", w.roles, w.host), limit), book.summary(), s.tells(queue))
			}
			if w.err != nil && (w != struck || c.kind != "end killed") {
				return fmt.Errorf("%s on host %d: %w", w.roles, w.host, w.err)
			}
		}
		return nil
	}
	if err := dismiss("s"); err != nil {
		return err
	}
	if struck.roles[0] == 'w' && c.kind == "end killed" {
		if err := hire(struck.host, 'w', 1); err != nil { // it may have been the only one
			return err
		}
	}
	if err := book.empties(patience); err != nil {
		return fmt.Errorf("%w%s", err, s.tells(queue))
	}
	homes, what, err := 0, "", error(nil)
	if await(patience, func() bool { homes, what, err = s.homes(queue); return homes == 1 || err != nil }); err != nil {
		return err
	} else if homes != 1 {
		return fmt.Errorf("a queue has %d homes where all brokers are linked%s", homes, what)
	}
	if err := dismiss("w"); err != nil {
		return err
	}
	g.died("queues in "+c.kind, map[bool]string{true: "durable", false: "in memory"}[cfg.Durable], 0)
	g.tally(book)
	return book.known()
}

// has says that a job is done.
func (b *book) has() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done > 0
}

// words is how many steps all have said.
func (b *book) words() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.said {
		n += k
	}
	return n
}

func (b *book) record(id chunkID) record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *b.jobs[id]
}

// undone are the jobs that were confirmed, and with which nobody has done anything.
func (b *book) undone() (all []chunkID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, r := range b.jobs {
		if r.sure && times(r.acts, "done") == 0 && times(r.acts, "reject") == 0 {
			all = append(all, id)
		}
	}
	return all
}

// empties waits until all that was confirmed has been done, for as long as somebody does something.
func (b *book) empties(patience time.Duration) error {
	left, since := -1, time.Now()
	for {
		now := b.undone()
		switch {
		case len(now) == 0:
			return b.known()
		case len(now) != left:
			left, since = len(now), time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("LOST: %d jobs were confirmed, and nobody is given them: %v %+v...; %s", len(now), now[0], b.record(now[0]), b.summary())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// known wants all jobs that somebody was given to have been sent.
func (b *book) known() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, r := range b.jobs {
		if len(r.took) > 0 && !r.sent {
			return fmt.Errorf("job %v was taken, and nobody has sent it", id)
		}
	}
	return b.wrong
}

func (b *book) summary() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d confirmed, %d done, said: %v, brokers gone: %v, %v", b.sure, b.done, b.said, b.gone, b.wrong)
}
