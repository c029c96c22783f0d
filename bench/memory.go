package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// memory measures how much a broker grows that is offered more than anybody
// reads.
func (s settings) memory(ctx context.Context) (report, error) {
	offer := int64(10 << 30)
	if s.quick {
		offer = 1 << 30
	}
	t := newTable("offered", "by", "taken", "clients", "dropped", "the broker grows by", "and stays at", "at most", "aim", "reached")
	for _, way := range []struct {
		text, method string
		size, atOnce int
		judged       bool
	}{
		{"Writes of 64 MiB with deadlines", "Offer", 64 << 20, 1, true},
		{"bare clients, WRITEs of 64 KiB", "Flood", 64 << 10, 1, true},
		{"bare clients, WRITEs of 1 MiB", "Flood", 1 << 20, 1, true},
		{"bare clients, WRITEs of 16 MiB, the most that is allowed", "Flood", 16 << 20, 1, false},
		{"bare clients, 8 at once, WRITEs of 1 MiB", "Flood", 1 << 20, 8, false},
	} {
		got, grown, kept, err := offered(ctx, way.method, Offering{Task: Task{Transport: "zpipes", Size: way.size}, Bytes: offer, AtOnce: way.atOnce})
		if err != nil {
			return report{}, fmt.Errorf("%s: %w", way.text, err)
		}
		cells := []string{sizeText(float64(got.Bytes)), way.text, sizeText(float64(got.Taken)),
			fmt.Sprint(got.Clients), fmt.Sprint(got.Dropped), "**" + sizeText(float64(grown)) + "**", sizeText(float64(kept)), "", "", ""}
		if way.judged {
			g := bounds{most: true, least: 16 << 20, aim: 1 << 20}
			copy(cells[7:], []string{sizeText(g.least), sizeText(g.aim), g.mark(float64(grown))})
		}
		t.row(cells...)
	}
	var b strings.Builder
	b.WriteString("A reader is attached and never reads. What counts is the broker's resident memory (VmHWM, VmRSS), " +
		"less what it was in the beginning. Here all processes have Go's default GOGC of 100.\n\n" + t.String())
	b.WriteString("\nThe same with a broadcast, whose readers are there in the beginning and never read: its bytes are there once.\n\n")
	t = newTable("readers", "offered", "taken", "the broker grows by", "and stays at")
	for _, readers := range []int{1, 16, 256, 1000} {
		o := Offering{Task: Task{Transport: "zpipes", Size: 64 << 20}, Bytes: offer, Readers: readers}
		got, grown, kept, err := offered(ctx, "Offer", o)
		if err != nil {
			return report{}, fmt.Errorf("a broadcast to %d readers: %w", readers, err)
		}
		t.row(fmt.Sprint(readers), sizeText(float64(got.Bytes)), sizeText(float64(got.Taken)), "**"+sizeText(float64(grown))+"**", sizeText(float64(kept)))
	}
	b.WriteString(t.String())
	return report{"memory", b.String(), nil}, nil
}

// offered makes an offer to a new broker, and returns what came of it, how much
// the broker had grown at most, and how much when all had settled.
func offered(ctx context.Context, method string, o Offering) (got Offered, grown, kept int64, err error) {
	fail := func(err error) (Offered, int64, int64, error) { return Offered{}, 0, 0, err }
	c := new(cast)
	defer func() { c.end() }()
	for _, role := range []struct {
		name string
		p    **process
	}{{"server", &c.server}, {"reader", &c.reader}, {"writer", &c.writer}} {
		if *role.p, err = start(ctx, role.name, defaultGOGC); err != nil {
			return fail(err)
		}
	}
	if err := c.server.call(ctx, "Serve", o.Task, &o.Address); err != nil {
		return fail(err)
	}
	if err := c.server.call(ctx, "Endpoint", struct{}{}, &o.Endpoint); err != nil {
		return fail(err)
	}
	if o.Readers > 0 {
		if err := c.writer.call(ctx, "Broadcast", o, nil); err != nil {
			return fail(err)
		}
	}
	if err := c.reader.call(ctx, "Ignore", Span{Task: o.Task, Count: o.Readers}, nil); err != nil {
		return fail(err)
	}
	before, err := c.server.resident()
	if err != nil {
		return fail(err)
	}
	if err := c.server.forgetPeak(); err != nil {
		return fail(err)
	}
	if err := c.writer.call(ctx, method, o, &got); err != nil {
		return fail(err)
	}
	peak, err := c.server.peak()
	if err != nil {
		return fail(err)
	}
	time.Sleep(settling)
	after, err := c.server.resident()
	if err != nil {
		return fail(err)
	}
	return got, peak - before, after - before, nil
}
