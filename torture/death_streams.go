package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"
)

func killStreams(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "w", "r", "ww", "rr", "wrwr")
	return g.inHouses(ctx, 12, func(ctx context.Context, h *house, c *cycle) error {
		return g.streams(ctx, h, c, syscall.SIGKILL, c.fate())
	})
}

// stopEnds stops victims for longer than their broker waits for them; and "brief" ones
// for less, which nobody must notice.
func stopEnds(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "w", "r", "wwrr", "s", "g", "sg", "brief")
	return g.inHouses(ctx, 12, func(ctx context.Context, h *house, c *cycle) error {
		if c.kind == "brief" {
			return g.brief(ctx, h, c)
		}
		f := c.fate()
		if strings.ContainsAny(c.kind, "sg") {
			return g.queues(ctx, h, c, syscall.SIGSTOP, f)
		}
		return g.streams(ctx, h, c, syscall.SIGSTOP, f)
	})
}

// cast starts a victim and its peers.
func (c *cycle) cast(ctx context.Context, h *house, f fate, dying <-chan struct{}) (*victim, []*peer, error) {
	name, seed := c.name("stream"), c.rand.Uint64()
	v, err := startVictim("victim", h.at(f), name, seed, f)
	if err != nil {
		return nil, nil, err
	}
	var peers []*peer
	for i, role := range f.Roles {
		p := peer{
			client: h.client(c.rand), pipe: endName(name, i), role: role, seed: seed + uint64(i),
			rand: c.fork(), mood: []mood{eager, eager, slow, closer}[c.rand.IntN(4)], dying: dying,
		}
		if f.Finite {
			p.mood = closer
		}
		peers = append(peers, startPeer(ctx, p, time.Duration(c.rand.IntN(60))*time.Millisecond))
	}
	return v, peers, nil
}

// streams has a victim use some streams, kills or stops it, and judges.
func (g *graveyard) streams(ctx context.Context, h *house, c *cycle, s syscall.Signal, f fate) error {
	dying := make(chan struct{})
	v, peers, err := c.cast(ctx, h, f, dying)
	if err != nil {
		return err
	}
	defer v.kill()
	died, err := v.strike(s, c.rand)
	close(dying)
	if err == nil {
		err = h.hears(ctx, v)
	}
	if err != nil {
		return err
	}
	for _, p := range peers {
		alone, err := p.alone(h)
		if err == nil && alone {
			err = p.standIn(ctx, h, h.client(c.rand))
		}
		if err == nil {
			err = eventually(notice, "a peer", p.over)
		}
		if err != nil {
			return err
		}
		if !p.stoodIn {
			g.took(f.clock(), p.at.Sub(died))
		}
	}
	var resume func()
	if s == syscall.SIGSTOP {
		resume = func() { v.signal(syscall.SIGCONT) }
	}
	for _, p := range peers {
		if err := c.fresh(ctx, h.client(c.rand), h.client(c.rand), p.pipe, resume); err != nil {
			return err
		}
	}
	if s == syscall.SIGSTOP {
		if err := g.awake(ctx, h, c, v); err != nil {
			return err
		}
	}
	return g.judge(peers, v, s == syscall.SIGKILL)
}

// clock is under what name the times of a victim are kept.
func (f fate) clock() string {
	way, beat := "ipc", "default"
	if f.Near {
		way = "near"
	}
	if f.Heartbeat != 0 {
		beat = "faster"
	}
	return way + ", " + beat + " heartbeat"
}

func (g *graveyard) judge(peers []*peer, v *victim, killed bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, p := range peers {
		l := v.ledgers[i]
		err := p.judge(l)
		if err == nil && killed {
			err = g.judgeDead(l, v.fate)
		}
		if err != nil {
			return fmt.Errorf("%q, a %c with a peer (%s): %w", p.pipe, p.role, p.mood, err)
		}
		g.died(roles[p.role], l.moment(), max(p.confirmed, l.confirmed))
	}
	return nil
}

// awake looks what a victim does that goes on after all others took it for dead: each
// end learns the truth, and the client can open another one.
func (g *graveyard) awake(ctx context.Context, h *house, c *cycle, v *victim) error {
	if err := g.learns(v); err != nil {
		return err
	}
	var peers []*peer
	for i, role := range v.fate.Roles {
		peers = append(peers, startPeer(ctx, peer{
			client: h.client(c.rand), pipe: againName(endName(v.pipe, i)), role: role, seed: ^(v.seed + uint64(i)),
			rand: c.fork(), mood: closer,
		}, 0))
	}
	if _, err := v.stdin.Write([]byte("again")); err != nil {
		return err
	}
	return v.whole(peers, func(i int) *ledger { return v.ledgers[i].second })
}

// brief stops a victim for less than it may be silent.
func (g *graveyard) brief(ctx context.Context, h *house, c *cycle) error {
	v, peers, err := c.cast(ctx, h, fate{Roles: "wrw", Near: c.rand.IntN(2) == 0, Finite: true}, make(chan struct{}))
	if err != nil {
		return err
	}
	defer v.kill()
	if _, err := v.strike(syscall.SIGSTOP, c.rand); err != nil {
		return err
	}
	time.Sleep(time.Duration(c.rand.IntN(1000)) * time.Millisecond) // the limit is 2 s
	v.signal(syscall.SIGCONT)
	g.count("brief stops", 1)
	return v.whole(peers, func(i int) *ledger { return v.ledgers[i] })
}

// whole waits for the end of streams that nobody disturbs any more.
func (v *victim) whole(peers []*peer, of func(int) *ledger) error {
	for i, p := range peers {
		err := eventually(patience, "a stream that nobody disturbs", func() bool {
			return p.over() && v.ask(func() bool { return of(i) != nil && of(i).over() })
		})
		if err == nil {
			err = p.judgeWhole(of(i))
		}
		if err != nil {
			return fmt.Errorf("%q, a %c: %w; %s", p.pipe, p.role, err, v.states())
		}
	}
	return nil
}
