package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/zpipes/zpipes"
)

// So many pipes that whatever looks at all of them takes a time that is felt.
const (
	manyPipes      = 1_000_000
	quickManyPipes = 50_000
)

// broker is the one that this process serves.
func (p *Part) broker() (*zpipes.Broker, error) {
	if t, ok := p.transport.(*pipes); ok && t.broker != nil {
		return t.broker, nil
	}
	return nil, errors.New("no broker here")
}

// Status has the broker tell its status, and returns how long that took.
func (p *Part) Status(_ Span, took *time.Duration) error {
	b, err := p.broker()
	if err != nil {
		return err
	}
	start := time.Now()
	b.Status()
	*took = time.Since(start)
	return nil
}

// CloseBroker closes the broker, and returns how long that took.
func (p *Part) CloseBroker(_ Span, took *time.Duration) error {
	b, err := p.broker()
	if err != nil {
		return err
	}
	start := time.Now()
	err = b.Close()
	*took = time.Since(start)
	return err
}

// Say has this process say everything back on a Unix socket. What that waits for has nothing to
// do with zpipes: it is Go's scheduler, its collector, and the machine.
func (p *Part) Say(_ struct{}, address *string) error {
	l, err := net.Listen("unix", "")
	if err != nil {
		return err
	}
	go serveEcho(l)
	*address = l.Addr().String()
	return nil
}

// many measures how long things take at a broker with up to so many pipes, and what
// becomes of others meanwhile: another process pings it.
func (s settings) many(ctx context.Context, most int, b *strings.Builder) error {
	table := newTable("pipes", "", "took", "at most", "aim", "reached", "a ping took meanwhile", "at most", "aim", "reached", "and an echo of that process")
	for _, count := range []int{most / 100, most / 10, most} {
		if err := manyAt(ctx, count, table); err != nil {
			return err
		}
	}
	b.WriteString("\nMany pipes of one broker, whose process has Go's default GOGC of 100. " +
		"Pings come from another process, over a connection that stays; and by turns with them the *echo*, which a goroutine of " +
		"the broker's process that has nothing to do with zpipes says back on a Unix socket.\n\n" + table.String())
	return nil
}

func manyAt(ctx context.Context, count int, table *table) error {
	broker, err := start(ctx, "broker", defaultGOGC)
	if err != nil {
		return err
	}
	defer broker.end()
	t := Task{Job: "ping", Transport: "zpipes", Size: stampBytes, MaxPipes: count + 10, Patient: true}
	if err := broker.call(ctx, "Serve", t, &t.Address); err != nil {
		return err
	}
	if err := broker.call(ctx, "Say", struct{}{}, &t.Beside); err != nil {
		return err
	}
	stop := bounds{10e6, 1e6, true}
	for _, step := range []struct {
		text, method string
		each         int
		bounds
	}{
		{"opening a writer of each in the broker's process, for each", "OpenWriters", count, bounds{25e3, 10e3, true}},
		{"`Broker.Status`", "Status", 1, bounds{2e9, 1e9, true}},
		{"`Broker.Close`", "CloseBroker", 1, bounds{2e9, 1e9, true}},
	} {
		var took time.Duration
		run := func() error { return broker.call(ctx, step.method, Span{t, 0, count}, &took) }
		cells := []string{"", "", "", "", ""}
		if step.method == "CloseBroker" {
			err = run()
		} else {
			var got Stopped
			if got, err = pinged(ctx, t, run); err == nil {
				worst := float64(got.Timed.Most)
				cells = []string{mostText(got.Timed), timeText(stop.least), timeText(stop.aim), stop.mark(worst), mostText(got.Beside)}
			}
		}
		if err != nil {
			return err
		}
		each := float64(took) / float64(step.each)
		row := []string{fmt.Sprint(count), step.text, "**" + timeText(each) + "**", timeText(step.least), timeText(step.aim), step.mark(each)}
		table.row(append(row, cells...)...)
	}
	return nil
}

func mostText(t Timed) string {
	return timeText(float64(t.P50)) + ", and **" + timeText(float64(t.Most)) + "** once"
}

// pinged pings while run runs.
func pinged(ctx context.Context, t Task, run func() error) (got Stopped, err error) {
	p, err := start(ctx, "pinger", gogc)
	if err != nil {
		return got, err
	}
	defer p.end()
	if err := p.call(ctx, "Dial", t, nil); err != nil {
		return got, err
	}
	if err := p.call(ctx, "Begin", struct{}{}, nil); err != nil {
		return got, err
	}
	if err := run(); err != nil {
		return got, err
	}
	if err := p.call(ctx, "End", struct{}{}, new(Sample)); err != nil {
		return got, err
	}
	err = p.call(ctx, "Stop", struct{}{}, &got)
	return got, err
}
