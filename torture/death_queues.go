package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"
)

func killQueues(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "s", "g", "sg", "ggg", "ss")
	return g.inHouses(ctx, 12, func(ctx context.Context, h *house, c *cycle) error {
		return g.queues(ctx, h, c, syscall.SIGKILL, c.fate())
	})
}

// queues has a victim send to a queue and receive from it, kills or stops it, and judges.
func (g *graveyard) queues(ctx context.Context, h *house, c *cycle, s syscall.Signal, f fate) error {
	name, seed := c.name("queue"), c.rand.Uint64()
	k, err := c.newClerk(ctx, h, name)
	if err != nil {
		return err
	}
	defer k.close()
	v, err := startVictim("victim", h.at(f), name, seed, f)
	if err != nil {
		return err
	}
	defer v.kill()
	eager := c.rand.IntN(2) == 0
	if eager {
		k.receive(ctx)
	}
	go k.send(ctx, math.MaxInt64)
	died, err := v.strike(s, c.rand)
	if !eager {
		k.receive(ctx)
	}
	close(k.enough)
	if err == nil {
		err = h.hears(ctx, v)
	}
	if err != nil {
		return err
	}
	if err := eventually(notice, "a queue that the dead had open", func() bool { return h.pipe(name).Users == users }); err != nil {
		return fmt.Errorf("%w: %+v; %s", err, h.pipe(name), v.states())
	}
	g.took(f.clock(), time.Since(died))
	n, err := k.sentAll()
	if err != nil {
		return err
	}
	if s == syscall.SIGSTOP {
		v.signal(syscall.SIGCONT)
		if err := g.awakeQueue(ctx, h, c, v); err != nil {
			return err
		}
	}
	if err := eventually(patience, "a queue that is received from", func() bool { return h.pipe(name).Chunks == 0 }); err != nil {
		return fmt.Errorf("%w: %+v", err, h.pipe(name))
	}
	if err := k.catchUp(ctx, c); err != nil {
		return err
	}
	if err := g.judgeQueue(k, n, v.witnesses(), f, s == syscall.SIGKILL); err != nil {
		return err
	}
	return k.after(ctx, h, c, name, true)
}

// judgeQueue looks at all that was received from an empty queue.
func (g *graveyard) judgeQueue(k *clerk, sent int64, all []witness, f fate, dead bool) error {
	sure := map[string]int64{senderName(k.seed): sent}
	receivers := 0
	for _, w := range all {
		if w.role == 's' {
			sure[senderName(w.seed)] = w.confirmed
		} else {
			receivers++
		}
		if dead {
			if err := g.judgeDead(w.ledger, f); err != nil {
				return err
			}
		}
	}
	own := k.list()
	again, err := judgeChunks(own, all, sure, dead)
	if err == nil && receivers == 0 {
		err = inOrder(own)
	}
	if err != nil {
		return err
	}
	g.count("chunks received again", again)
	g.count("chunks received", int64(len(own)))
	for _, w := range all {
		g.died(roles[w.role], w.moment(), 0)
	}
	return nil
}

// after sends through the queue once more, now that the dead are gone, and deletes it. With
// alone set, nothing else can come out of it any more.
func (k *clerk) after(ctx context.Context, h *house, c *cycle, name string, alone bool) error {
	before := len(k.list())
	q, err := h.client(c.rand).OpenQueue(ctx, name)
	if err != nil {
		return err
	}
	const chunks = 100
	seed := c.rand.Uint64()
	for n := range int64(chunks) {
		if err := q.Send(ctx, newChunk(c.rand, seed, n)); err != nil {
			return err
		}
	}
	if err := finish(patience, "Close of a queue", q.Close); err != nil {
		return err
	}
	if err := k.gets(senderName(seed), chunks); err != nil {
		return err
	}
	if err := h.client(c.rand).DeleteQueue(ctx, name); err != nil {
		return err
	}
	if err := eventually(patience, "a receiver of a deleted queue", func() bool { return closed(k.received) }); err != nil {
		return err
	}
	if class(k.err) != "left" {
		return fmt.Errorf("a receiver of a deleted queue: %w", k.err)
	}
	got := k.list()
	if _, err := once(got); err != nil {
		return err
	}
	if got = got[before:]; !alone {
		got = k.of(senderName(seed))
	}
	for i, id := range got {
		if id != (chunkID{senderName(seed), int64(i)}) {
			return fmt.Errorf("chunk %v came as number %d of %d others", id, i, chunks)
		}
	}
	return nil
}

// awakeQueue looks what a victim does that goes on after the broker took it for dead:
// each end learns the truth, and the client can use another queue.
func (g *graveyard) awakeQueue(ctx context.Context, h *house, c *cycle, v *victim) error {
	if err := g.learns(v); err != nil {
		return err
	}
	name := againName(v.pipe)
	k, err := c.newClerk(ctx, h, name)
	if err != nil {
		return err
	}
	defer k.close()
	go k.send(ctx, finiteChunks*int64(strings.Count(v.fate.Roles, "g")))
	if _, err := v.stdin.Write([]byte("again")); err != nil {
		return err
	}
	n, err := k.sentAll()
	if err != nil {
		return err
	}
	// Its senders may need more room than the queue has, but what its receivers are to get
	// must not go to the clerk.
	if err := eventually(patience, "a victim that receives again", func() bool {
		return v.ask(func() bool {
			for i, l := range v.ledgers {
				if v.fate.Roles[i] == 'g' && (l.second == nil || !l.second.over()) {
					return false
				}
			}
			return true
		})
	}); err != nil {
		return fmt.Errorf("%w: %s; %+v", err, v.states(), h.pipe(name))
	}
	k.receive(ctx)
	if err := eventually(patience, "a victim that does it again", func() bool {
		return v.all(func(l *ledger) bool { return l.second != nil && l.second.over() })
	}); err != nil {
		return fmt.Errorf("%w: %s; %+v", err, v.states(), h.pipe(name))
	}
	if err := eventually(patience, "a queue", func() bool { return h.pipe(name).Chunks == 0 }); err != nil {
		return err
	}
	if err := k.catchUp(ctx, c); err != nil {
		return err
	}
	second := v.witnesses()
	for i, w := range second {
		second[i] = witness{w.role, ^w.seed, w.second}
		if w.second.failed != "" {
			return fmt.Errorf("the victim, when it went on: end %d: %s", i, w.second.failed)
		}
	}
	if err := g.judgeQueue(k, n, second, v.fate, false); err != nil {
		return err
	}
	return h.client(c.rand).DeleteQueue(ctx, name)
}
