package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	scalePipes   = 10_000
	scaleClients = 10
	quickPipes   = 1_000

	// settling is a while after which nothing is left to be done but heartbeats.
	settling = 1500 * time.Millisecond
)

// A crowd is a broker and the processes that have idle pipes there: each reads
// from its share, and writes to the share of the next.
type crowd struct {
	pipes   int
	broker  *process
	clients []*process
	spans   []Span // that each reads
}

func newCrowd(ctx context.Context, pipes int) (*crowd, error) {
	c := &crowd{pipes: pipes}
	var err error
	if c.broker, err = start(ctx, "broker", gogc); err != nil {
		return nil, err
	}
	t := Task{Transport: "zpipes", Size: stampBytes}
	err = c.broker.call(ctx, "Serve", t, &t.Address)
	for i := range scaleClients {
		if err != nil {
			break
		}
		var p *process
		if p, err = start(ctx, fmt.Sprint("client ", i), gogc); err == nil {
			c.clients = append(c.clients, p)
			c.spans = append(c.spans, Span{t, i * pipes / scaleClients, pipes / scaleClients})
		}
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (c *crowd) end() {
	for _, p := range c.clients {
		p.end()
	}
	c.broker.end()
}

func (c *crowd) next(i int) int    { return (i + 1) % len(c.spans) }
func (c *crowd) reads(i int) Span  { return c.spans[i] }
func (c *crowd) writes(i int) Span { return c.spans[c.next(i)] }

// A weight is what the broker takes up.
type weight struct{ resident, heap int64 }

// weigh returns what the system has given to the broker, garbage included, and
// what of it is in use. trim begins with as little as possible.
func (c *crowd) weigh(ctx context.Context, trim bool) (w weight, err error) {
	if trim {
		if err := c.broker.call(ctx, "Heap", true, &w.heap); err != nil {
			return w, err
		}
	}
	time.Sleep(settling)
	if w.resident, err = c.broker.resident(); err == nil {
		err = c.broker.call(ctx, "Heap", false, &w.heap)
	}
	return w, err
}

// idleCPU is which part of one core the broker, and all clients together, use
// while nothing passes.
func (c *crowd) idleCPU(ctx context.Context) (broker, clients float64, err error) {
	all := append(slices.Clone(c.clients), c.broker)
	before, after := make([]time.Duration, len(all)), make([]time.Duration, len(all))
	look := func(used []time.Duration) error {
		return each(all, func(i int, p *process) error { return p.call(ctx, "CPU", struct{}{}, &used[i]) })
	}
	began := time.Now()
	if err := look(before); err != nil {
		return 0, 0, err
	}
	time.Sleep(3 * time.Second)
	if err := look(after); err != nil {
		return 0, 0, err
	}
	for i, p := range all {
		part := float64(after[i]-before[i]) / float64(time.Since(began))
		if p == c.broker {
			broker = part
		} else {
			clients += part
		}
	}
	return broker, clients, nil
}

// scale measures a broker with many idle pipes.
func (s settings) scale(ctx context.Context) (report, error) {
	pipes, many := scalePipes, manyPipes
	if s.quick {
		pipes, many = quickPipes, quickManyPipes
	}
	c, err := newCrowd(ctx, pipes)
	if err != nil {
		return report{}, err
	}
	defer c.end()
	var b strings.Builder
	for _, step := range []func(context.Context, *crowd, *strings.Builder) error{
		openCrowd, s.busyAmong, numberCrowd, limits,
	} {
		if err := step(ctx, c, &b); err != nil {
			return report{}, err
		}
	}
	c.end()
	if err := s.many(ctx, many, &b); err != nil {
		return report{}, err
	}
	return report{"scale", b.String(), nil}, nil
}

// openCrowd opens all ends, and weighs the broker before and after.
func openCrowd(ctx context.Context, c *crowd, b *strings.Builder) error {
	before, err := c.weigh(ctx, true)
	if err != nil {
		return err
	}
	t := newTable("", "opened in", "for each", "broker's RSS", "its heap", "RSS for each pipe", "heap for each pipe", "at most", "aim", "reached")
	g := bounds{most: true, least: 4 << 10, aim: 1 << 10}
	for _, step := range []struct {
		ends   string
		method string
		spans  func(int) Span
	}{
		{"readers", "OpenReaders", c.reads},
		{"and writers", "OpenWriters", c.writes},
	} {
		took := make([]time.Duration, len(c.clients))
		err := each(c.clients, func(i int, p *process) error { return p.call(ctx, step.method, step.spans(i), &took[i]) })
		if err != nil {
			return err
		}
		now, err := c.weigh(ctx, false)
		if err != nil {
			return err
		}
		slowest := slices.Max(took)
		resident := float64(now.resident-before.resident) / float64(c.pipes)
		heap := float64(now.heap-before.heap) / float64(c.pipes)
		t.row(fmt.Sprint(c.pipes, " ", step.ends), slowest.Round(time.Millisecond).String(), timeText(float64(slowest)/float64(c.pipes)),
			sizeText(float64(now.resident)), sizeText(float64(now.heap)), "**"+sizeText(resident)+"**", sizeText(heap),
			sizeText(g.least), sizeText(g.aim), g.mark(resident))
	}
	fmt.Fprintf(b, "%d clients open their shares at the same time, each one end after the other. A goroutine blocks in Read of each reader. "+
		"Before that the broker's RSS is %s and its heap %s.\n\n%s\n", len(c.clients), sizeText(float64(before.resident)), sizeText(float64(before.heap)), t)

	broker, clients, err := c.idleCPU(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "While nothing passes, the broker uses %.1f %% of a core, and the %d clients together %.1f %%.\n\n",
		100*broker, len(c.clients), 100*clients)
	return nil
}

// busyAmong compares one busy pipe at the crowd's broker with the same at a
// broker that has no other.
func (s settings) busyAmong(ctx context.Context, c *crowd, b *strings.Builder) error {
	alone, err := start(ctx, "empty broker", gogc)
	if err != nil {
		return err
	}
	defer alone.end()
	var address string
	if err := alone.call(ctx, "Serve", Task{Transport: "zpipes"}, &address); err != nil {
		return err
	}
	t := newTable("one busy pipe", fmt.Sprintf("among %d idle ones", c.pipes), "alone, at another broker", "ratio", "range", "at least", "aim", "reached")
	g := bounds{least: .95, aim: 1}
	for _, size := range []int{64, 64 << 10} {
		var crowded, empty []outcome
		for range s.rounds {
			with, err := s.busyPipe(ctx, c.broker, c.spans[0].Address, size)
			if err != nil {
				return err
			}
			without, err := s.busyPipe(ctx, alone, address, size)
			if err != nil {
				return err
			}
			crowded, empty = append(crowded, with), append(empty, without)
		}
		r := rate.ratio(crowded, empty)
		t.row("writes of "+sizeText(float64(size)), rateText(rate.over(crowded).median), rateText(rate.over(empty).median),
			"**"+ratioText(r.median)+"**", r.text(ratioText), ratioText(g.least), ratioText(g.aim), g.mark(r.median))
	}
	b.WriteString(t.String() + "\n")
	return nil
}

// busyPipe measures one pipe at a broker that serves already, between processes
// of its own.
func (s settings) busyPipe(ctx context.Context, broker *process, address string, size int) (o outcome, err error) {
	reader, err := start(ctx, "reader", gogc)
	if err != nil {
		return o, err
	}
	defer reader.end()
	writer, err := start(ctx, "writer", gogc)
	if err != nil {
		return o, err
	}
	defer writer.end()
	t := Task{Job: "stream", Transport: "zpipes", Size: size, Streams: 1, Address: address}
	// The broker may not have noticed yet that the processes of the last one died.
	t.Prefix = fmt.Sprint(writer.cmd.Process.Pid, " ")
	return (&cast{broker, reader, writer}).perform(ctx, t, s.pace)
}

// numberCrowd sends a number through each pipe, and checks what arrives.
func numberCrowd(ctx context.Context, c *crowd, b *strings.Builder) error {
	began := time.Now()
	written := make([]Total, len(c.clients))
	err := each(c.clients, func(i int, p *process) error { return p.call(ctx, "Number", c.writes(i), &written[c.next(i)]) })
	if err == nil {
		err = each(c.clients, func(i int, p *process) error { return p.call(ctx, "Drain", written[i], nil) })
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "After that a number goes through each of the %d pipes and wakes its reader. All have arrived, within %v.\n\n",
		c.pipes, time.Since(began).Round(time.Millisecond))
	return nil
}

// limits says what each process takes up, and what runs out first.
func limits(_ context.Context, c *crowd, b *strings.Builder) error {
	t := newTable("process", "OS threads", "RSS", "descriptors", "at most", "aim", "reached")
	g := bounds{most: true, least: float64(runtime.GOMAXPROCS(0) + 24), aim: float64(runtime.GOMAXPROCS(0) + 8)}
	for _, group := range []struct {
		name      string
		processes []*process
	}{{"broker", []*process{c.broker}}, {fmt.Sprintf("%d clients", len(c.clients)), c.clients}} {
		threads, err1 := rangeOf(group.processes, (*process).threads)
		resident, err2 := rangeOf(group.processes, (*process).resident)
		descriptors, err3 := rangeOf(group.processes, (*process).descriptors)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		t.row(group.name, "**"+threads.text(wholeText)+"**", resident.text(sizeText), descriptors.text(wholeText),
			wholeText(g.least)+" threads", wholeText(g.aim), g.mark(threads.most))
	}
	descriptors, err := c.broker.descriptors()
	if err != nil {
		return err
	}
	most, err := c.broker.descriptorLimit()
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "%s\nThe limit that pipes meet first is BrokerConfig.MaxPipes, 65536 by default. Descriptors go to connections, "+
		"not to pipes: the broker has %d here, and may have %d (RLIMIT_NOFILE, which Go raises to its hard limit by itself).\n",
		t, descriptors, most)
	return nil
}

// rangeOf asks each process.
func rangeOf(processes []*process, ask func(*process) (int64, error)) (spread, error) {
	values := make([]float64, len(processes))
	for i, p := range processes {
		n, err := ask(p)
		if err != nil {
			return spread{}, err
		}
		values[i] = float64(n)
	}
	return spreadOf(values), nil
}
