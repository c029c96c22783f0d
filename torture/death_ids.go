package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"
)

// greet connects under an id and waits until the broker answers. While it still knows
// a connection of that id, libzmq lets nobody else have it.
func greet(endpoint, id string, d dialect) (*puppet, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		p, err := startPuppet(endpoint, id)
		if err != nil {
			return nil, err
		}
		ask := d.ping()
		if d.extended {
			ask = hello(patience)
		}
		p.send(ask)
		if got := p.next(time.Second); got != nil {
			if got.id() != idPingOK {
				p.kill()
				return nil, fmt.Errorf("STRAY: the first answer to a new client is %q", got)
			}
			return p, nil
		}
		p.kill()
	}
	return nil, hangs("a client with a routing id of its own choice", patience)
}

// routingIDs has clients killed whose routing ids others take.
func routingIDs(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "old reader", "old writer", "agreed reader", "agreed writer", "text reader", "text writer")
	return g.inHouses(ctx, 8, func(ctx context.Context, h *house, c *cycle) error {
		protocol, role, _ := strings.Cut(c.kind, " ")
		d := map[string]dialect{"old": oldDialect, "agreed": newDialect, "text": textDialect}[protocol]
		id := c.name("id")
		if c.rand.IntN(2) == 0 {
			id = "" // and nobody takes it
		}
		var err error
		switch {
		case d.text:
			err = g.textClient(ctx, h, c, id, role)
		case role == "reader":
			err = g.rawReader(ctx, h, c, id, d)
		default:
			err = g.rawWriter(ctx, h, c, id, d)
		}
		if err == nil {
			g.died("raw clients", c.kind, 0)
		}
		return err
	})
}

// inherits has another client take a dead one's id and ask for what only that one had:
// as a new client, or as if it were the dead one.
func (g *graveyard) inherits(h *house, c *cycle, id string, d dialect, request [][]byte) error {
	d.extended = d.extended && c.rand.IntN(2) == 0
	p, err := greet(h.ipc(), id, d)
	if err != nil {
		return err
	}
	defer p.kill()
	g.count("ids taken", 1)
	p.send(request)
	if err := p.expect(frame(idInvalid)); err != nil {
		return fmt.Errorf("INHERITED: %w", err)
	}
	return p.quiet()
}

// rawReader kills a raw client that waits in READ.
func (g *graveyard) rawReader(ctx context.Context, h *house, c *cycle, id string, d dialect) error {
	name := c.name("raw")
	p, err := greet(h.ipc(), id, d)
	if err != nil {
		return err
	}
	defer p.kill()
	p.send(d.input(1, name, modeBytes))
	if err := p.expect(frame(idInputOK)); err != nil {
		return err
	}
	w, err := h.client(c.rand).OpenWriter(ctx, name)
	if err != nil {
		return err
	}
	defer w.Close()
	for range 1 + c.rand.IntN(5) {
		p.send(d.read(1, 10, 0))
	}
	if c.rand.IntN(2) == 0 { // one READ has its answer
		if _, err := w.WriteString("0123456789"); err != nil {
			return err
		}
		if err := p.expect(frame(idReadOK, long([]byte("0123456789")))); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(c.rand.IntN(3000)) * time.Microsecond)
	p.kill()
	died := time.Now()
	idle := c.rand.IntN(2) == 0 // the broker finds out by itself, after its ClientTimeout
	if id != "" {
		if err := g.inherits(h, c, id, d, d.read(1, 10, 0)); err != nil {
			return err
		}
		idle = false // it has found out
	}
	_, err = within(2*notice, "a writer whose reader was a raw client", func() (int, error) {
		for {
			if !idle {
				if _, err := w.WriteString("x"); err != nil {
					return 0, err
				}
			}
			if err := w.Flush(); err != nil {
				return 0, err
			}
			time.Sleep(time.Millisecond)
		}
	})
	if class(err) != "left" {
		return fmt.Errorf("the reader died, but the writer has %w", err)
	}
	g.took("ClientTimeout of 3 s", time.Since(died))
	return c.fresh(ctx, h.client(c.rand), h.client(c.rand), name, nil)
}

// rawWriter kills a raw client that writes.
func (g *graveyard) rawWriter(ctx context.Context, h *house, c *cycle, id string, d dialect) error {
	name := c.name("raw")
	p, err := greet(h.ipc(), id, d)
	if err != nil {
		return err
	}
	defer p.kill()
	p.send(d.output(1, name))
	if err := p.expect(frame(idOutputOK)); err != nil {
		return err
	}
	r, err := h.client(c.rand).OpenReader(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	seed, sent, sizes := c.rand.Uint64(), 0, []int{}
	b := make([]byte, 64<<10)
	fill(b, seed, 0)
	for range c.rand.IntN(20) {
		n := 1 + c.rand.IntN(3000)
		p.send(d.write(1, b[sent:sent+n]))
		sizes, sent = append(sizes, n), sent+n
	}
	time.Sleep(time.Duration(c.rand.IntN(5000)) * time.Microsecond)
	p.kill()
	died := time.Now()
	confirmed := int64(0)
	for got := range p.got {
		if !bytes.HasPrefix(got[0], frame(idWriteOK)) {
			return fmt.Errorf("a WRITE was answered %q", got)
		}
		confirmed += int64(sizes[0])
		sizes = sizes[1:]
	}
	if id != "" {
		if err := g.inherits(h, c, id, d, d.write(1, []byte("INHERITED"))); err != nil {
			return err
		}
	}
	o := oracle{seed: seed}
	err = finish(2*notice, "a reader whose writer was a raw client", func() error { return o.readAll(r, 4<<10) })
	if class(err) != "torn" {
		return fmt.Errorf("the writer died, but the reader has %w", err)
	}
	if o.off < confirmed {
		return fmt.Errorf("LOST: %d bytes read of %d confirmed", o.off, confirmed)
	}
	g.took("ClientTimeout of 3 s", time.Since(died))
	return c.fresh(ctx, h.client(c.rand), h.client(c.rand), name, nil)
}
