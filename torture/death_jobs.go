package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// jobs kills and stops those who send and do jobs, and brokers.
func jobs(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "workers killed", "workers stopped", "workers that hang", "senders killed", "brokers killed", "brokers killed with workers")
	const atOnce = 4
	yards := make(chan *yard, atOnce)
	for i := range atOnce {
		y, err := newYard(int64(i))
		if err != nil {
			return outcome{}, err
		}
		defer y.end()
		yards <- y
	}
	got, err := g.run(ctx, atOnce, func(ctx context.Context, c *cycle) error {
		y := <-yards
		defer func() { yards <- y }()
		return g.jobs(ctx, y, c)
	})
	for range atOnce {
		y := <-yards
		if err == nil {
			err = y.settle()
		}
	}
	return got, err
}

func (g *graveyard) jobs(ctx context.Context, y *yard, c *cycle) error {
	broker := strings.HasPrefix(c.kind, "brokers")
	cfg := zpipes.QueueConfig{
		Durable: broker || c.rand.IntN(3) > 0, MaxDeliveries: []int{0, 3, 20}[c.rand.IntN(3)], MaxBytes: 1 << 30,
	}
	steps := 1 + c.rand.IntN(1<<c.rand.IntN(8))
	f := c.fate()
	f.Roles = "ww"
	switch c.kind {
	case "workers that hang":
		f.Roles, cfg.Lease = "h", time.Duration(200+c.rand.IntN(400))*time.Millisecond
		steps = min(steps, 8)
	case "senders killed":
		f.Roles = "ss"
	}
	k := y.newStaff(c, cfg)
	defer k.close()
	k.hire(ctx, c, senders, 1)
	k.hire(ctx, c, workers, 2)
	v, err := startChild(task{Part: "hands", Broker: y.at(f), Pipe: k.queue, Seed: c.rand.Uint64(), Fate: f, Queue: cfg})
	if err != nil {
		return err
	}
	defer v.kill()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		v.hear("victim", k.book)
	}()
	if err := eventually(patience, "a victim that does something", func() bool { return k.book.steps("victim") >= steps }); err != nil {
		return err
	}
	time.Sleep(time.Duration(c.rand.IntN(4000)) * time.Microsecond)
	lost := bereavement{by: "victim"}
	struck := time.Now()
	lost.since = func(step) time.Time { return struck }
	kills := 0
	if broker {
		kills = 1
		y.broker.signal(syscall.SIGKILL)
	}
	switch c.kind {
	case "workers killed", "senders killed", "brokers killed with workers":
		v.signal(syscall.SIGKILL)
		<-heard
		lost.until = time.Now()
	case "workers stopped":
		if err := v.pause(); err != nil {
			return err
		}
		lost.until = time.Now()
		if err := eventually(notice, "a worker that stands still", func() bool {
			s, err := y.clients[0].Status(ctx)
			return err == nil && s.Stats.Clients <= len(y.clients)
		}); err != nil {
			return err
		}
		v.signal(syscall.SIGCONT)
	case "workers that hang":
		lost.since = func(took step) time.Time { return took.At.Add(cfg.Lease) }
	}
	if broker {
		y.broker.kill()
		if err := y.start(); err != nil {
			return err
		}
	}
	v.stdin.Close()
	if err := finish(patience, "a victim that is told to end", func() error { <-heard; return nil }); err != nil {
		return err
	}
	if c.kind == "workers that hang" {
		lost.until = time.Now()
	}
	if err := k.drain(ctx, kills); err != nil {
		return err
	}
	waits, err := k.book.waits(lost, cfg.MaxDeliveries)
	if err != nil {
		return err
	}
	for _, w := range waits {
		if w > notice || c.kind == "workers that hang" && w < -lateness && k.book.gone["victim"] == 0 {
			return fmt.Errorf("others had a job after %v", w)
		}
	}
	if len(waits) > 0 {
		g.took(c.kind+", "+f.clock(), slices.Max(waits))
	}
	g.died("cycles", c.kind, 0)
	g.tally(k.book)
	return y.client(c.rand).DeleteQueue(ctx, k.queue)
}

// tally counts what was done with a queue's jobs.
func (g *graveyard) tally(b *book) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g.count("jobs confirmed", b.sure)
	g.count("done and confirmed", b.done)
	g.count("leases lost", b.lost)
}

// durable kills brokers under load, time and again, and looks at what their queue has in the end.
func durable(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "working")
	got, err := g.run(ctx, 3, func(ctx context.Context, c *cycle) error { return g.deaths(ctx, c, int(b.size(40))) })
	g.mu.Lock()
	defer g.mu.Unlock()
	got.times = 0
	for _, n := range g.dead["brokers"] {
		got.times += n
	}
	return got, err
}

// deaths kills the broker of one directory so often.
func (g *graveyard) deaths(ctx context.Context, c *cycle, kills int) error {
	y, err := newYard(c.number)
	if err != nil {
		return err
	}
	defer func() { y.end() }()
	cfg := zpipes.QueueConfig{Durable: true, MaxDeliveries: []int{0, 100}[c.rand.IntN(2)]}
	k := y.newStaff(c, cfg)
	defer k.close()
	k.hire(ctx, c, senders, 2)
	k.hire(ctx, c, workers, 2)
	for range kills {
		moment := "starting"
		if c.rand.IntN(5) > 0 {
			moment = "working"
			steps := k.book.steps("staff") + 1 + c.rand.IntN(1<<c.rand.IntN(12))
			if err := eventually(patience, "hands at a broker that was started again", func() bool { return k.book.steps("staff") >= steps }); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(c.rand.IntN(1<<c.rand.IntN(17))) * time.Microsecond)
		y.broker.kill()
		g.died("brokers", moment, 0)
		if ctx.Err() != nil {
			return nil
		}
		if y.broker, err = startChild(y.task()); err != nil {
			return err
		}
	}
	if line, err := within(patience, "a broker that starts", y.broker.line); line != "up" {
		return fmt.Errorf("the broker said %q, %v", line, err)
	}
	if err := k.drain(ctx, kills); err != nil {
		return err
	}
	g.tally(k.book)
	return nil
}
