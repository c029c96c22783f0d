package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/zpipes/zpipes"
)

// diskSize is that of a file system which a queue fills.
const diskSize = 20 << 20

// fullDisk has senders fill a disk, and looks what works on it.
func fullDisk(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "disk")
	return g.run(ctx, 1, g.fillDisk)
}

func (g *graveyard) fillDisk(ctx context.Context, c *cycle) error {
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	y, err := newYardAt(dir, c.number)
	if err != nil {
		return err
	}
	defer y.end()
	what := "a file system"
	if err := mountTmpfs(dir, diskSize); err == nil {
		defer unmount(dir)
	} else {
		what, y.maxDisk = "MaxDisk", diskSize
	}
	if err := y.start(); err != nil {
		return err
	}
	k := y.newStaff(c, zpipes.QueueConfig{Durable: true})
	defer k.close()
	k.most = 1 << 30
	k.hire(ctx, c, senders, 4)
	if err := k.waits(); err != nil {
		return err
	}
	for kills := range 2 {
		if kills > 0 {
			y.broker.kill()
			if err := y.start(); err != nil {
				return fmt.Errorf("a broker on a full disk: %w", err)
			}
		}
		slowest, err := k.acknowledge(ctx, 30)
		if err != nil {
			return fmt.Errorf("an acknowledgement on a full disk: %w", err)
		}
		g.took("an acknowledgement", slowest)
	}
	if y.maxDisk == 0 {
		before := k.book.open()
		if err := remountTmpfs(dir, 4*diskSize); err != nil {
			return err
		}
		if err := eventually(patience, "a sender on a disk that has room again", func() bool { return k.book.open() > before }); err != nil {
			return err
		}
	}
	k.hire(ctx, c, workers, 2)
	if err := k.drain(ctx, 1); err != nil {
		return err
	}
	g.died("bounds", what, 0)
	g.tally(k.book)
	return nil
}

// waits returns when nothing was confirmed for a second.
func (k *staff) waits() error {
	sure, since := int64(0), time.Now()
	return eventually(2*patience, "a disk that is filled", func() bool {
		if now := k.book.open(); now != sure {
			sure, since = now, time.Now()
		}
		return sure > 0 && time.Since(since) > time.Second
	})
}

// acknowledge takes so many jobs and one more, which it gives back in the end, so that nothing before
// it can be dropped, and has each of the others confirmed as done.
func (k *staff) acknowledge(ctx context.Context, jobs int) (slowest time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	note := func(s step) { k.book.note("clerk", s) }
	h := &hand{client: k.yard.clients[0], queue: k.queue, cfg: k.cfg, note: note, calm: k.calm}
	q, err := h.open()
	if err != nil {
		return 0, err
	}
	defer q.Close()
	s := shift{hand: h, queue: q}
	for i := range jobs + 1 {
		j, err := s.take(ctx)
		if err != nil {
			return 0, err
		}
		if s.took(j); i == 0 {
			continue
		}
		start := time.Now()
		if err := s.done(j); err != nil {
			return 0, err
		}
		if err := s.confirmed(q.Flush(ctx)); err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(start))
	}
	return slowest, nil
}
