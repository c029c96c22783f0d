package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// textClient kills a client of the text interface that waits.
func (g *graveyard) textClient(ctx context.Context, h *house, c *cycle, id, role string) error {
	name := c.name("text")
	k, err := c.newClerk(ctx, h, name)
	if err != nil {
		return err
	}
	defer k.close()
	p, err := greet(h.ipc(), id, textDialect)
	if err != nil {
		return err
	}
	defer p.kill()
	if role == "reader" {
		return g.textReader(ctx, h, c, k, p, id, name)
	}
	return g.textWriter(ctx, h, c, k, p, id, name)
}

// textReader kills one that waits for chunks. What is sent much later must not go to it,
// nor to who has its id.
func (g *graveyard) textReader(ctx context.Context, h *house, c *cycle, k *clerk, p *puppet, id, name string) error {
	reads := 1 + c.rand.IntN(3)
	for range reads {
		p.send(text("READ", name))
	}
	if id == "" { // else the heir's answer is behind them
		p.send(textDialect.ping())
		if err := p.expect(frame(idPingOK)); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(c.rand.IntN(5000)) * time.Microsecond)
	p.kill()
	if got := p.next(0); got != nil {
		return fmt.Errorf("READ of an empty queue was answered %q", got)
	}
	lost := 0
	var heir *puppet
	var err error
	if id != "" {
		if heir, err = g.heir(h, id); err != nil {
			return err
		}
		defer heir.kill()
	} else if c.rand.IntN(2) == 0 {
		time.Sleep(time.Second) // the system has told libzmq by then
	} else {
		lost = reads
	}
	const chunks = 20
	sender := senderName(k.seed)
	k.receive(ctx)
	k.send(ctx, chunks)
	if _, err := k.sentAll(); err != nil {
		return err
	}
	if err := k.gets(sender, chunks-lost); err != nil {
		return fmt.Errorf("to a text client that was dead, of %d READs: %w", reads, err)
	}
	if err := k.after(ctx, h, c, name, heir != nil); err != nil {
		return err
	}
	got := k.of(sender)
	if missing := chunks - len(got); missing > 0 {
		g.count("chunks lost with text READs, at once", int64(missing))
	}
	if heir == nil { // what went to the dead first has come back a moment later
		got = slices.DeleteFunc(got, func(id chunkID) bool { return id.number < int64(reads) })
	}
	if err := inOrder(got); err != nil {
		return err
	}
	return heir.quiet()
}

// textWriter kills one that waits for room.
func (g *graveyard) textWriter(ctx context.Context, h *house, c *cycle, k *clerk, p *puppet, id, name string) error {
	const chunks, size = 15, 100 << 10 // more than MaxPending
	seed := c.rand.Uint64()
	for n := range chunks {
		b := make([]byte, chunkHeader+size)
		binary.LittleEndian.PutUint64(b, seed)
		binary.LittleEndian.PutUint64(b[8:], uint64(n))
		binary.LittleEndian.PutUint64(b[16:], size)
		fill(b[chunkHeader:], seed+uint64(n), 0)
		p.send(text("WRITE", name, string(b)))
	}
	confirmed := 1 + c.rand.IntN(10)
	for range confirmed {
		if err := p.expect([]byte("OK")); err != nil {
			return err
		}
	}
	p.kill()
	for got := range p.got {
		if !bytes.Equal(got[0], []byte("OK")) {
			return fmt.Errorf("WRITE was answered %q", got)
		}
		confirmed++
	}
	// Without an heir the broker goes on with what the dead has written until it cannot
	// answer. While the next of it waits to be begun, the queue may be empty.
	var heir *puppet
	if id != "" {
		var err error
		if heir, err = g.heir(h, id); err != nil {
			return err
		}
		defer heir.kill()
	}
	sender := senderName(seed)
	k.receive(ctx)
	if err := k.gets(sender, confirmed); err != nil {
		return fmt.Errorf("of %d confirmed: %w", confirmed, err)
	}
	if err := k.after(ctx, h, c, name, false); err != nil {
		return err
	}
	for i, id := range k.of(sender) {
		if id.number != int64(i) {
			return fmt.Errorf("chunk %v came as number %d of its sender", id, i)
		}
	}
	return heir.quiet()
}

// heir is a client that has taken a dead one's id, and has got answers of its own.
func (g *graveyard) heir(h *house, id string) (*puppet, error) {
	p, err := greet(h.ipc(), id, textDialect)
	if err != nil {
		return nil, err
	}
	g.count("ids taken", 1)
	p.send(text("READ", "there is no such queue"))
	if err := p.expect([]byte("ERROR")); err != nil {
		p.kill()
		return nil, fmt.Errorf("INHERITED: %w", err)
	}
	return p, nil
}
