package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// deadCalls kills processes that have connections to this one, and then stops some; and sees
// that nothing is left of either.
func deadCalls(ctx context.Context, b *bench) (outcome, error) {
	const warmUp = 4
	if _, err := callsEnd(ctx, b, syscall.SIGKILL, warmUp); err != nil {
		return outcome{}, err
	}
	before, err := usedAtRest()
	if err != nil {
		return outcome{}, err
	}
	h, err := newHouse(zpipes.BrokerConfig{})
	if err != nil {
		return outcome{}, err
	}
	posted, err := h.post(ctx, b.size(1<<30))
	if err = errors.Join(err, h.close()); err != nil {
		return outcome{}, err
	}
	killed, err := callsEnd(ctx, b, syscall.SIGKILL, b.size(1000))
	if err != nil {
		return outcome{}, err
	}
	stopped, err := callsEnd(ctx, b, syscall.SIGSTOP, b.size(100))
	if err != nil {
		return outcome{}, err
	}
	if err := leaked(before); err != nil {
		return outcome{}, err
	}
	now, err := usedAtRest()
	return outcome{killed.times + stopped.times, fmt.Sprintf("%s<br>killed: %s<br>stopped: %s<br>goroutines %d before and %d after, descriptors %d and %d, memory %s",
		posted, killed.found, stopped.found, before.Goroutines, now.Goroutines, before.Descriptors, now.Descriptors, signed(now.Resident-before.Resident))}, err
}

// usedAtRest is use, without memory that nobody needs any more.
func usedAtRest() (usage, error) {
	debug.FreeOSMemory()
	return use()
}

func callsEnd(ctx context.Context, b *bench, s syscall.Signal, most int64) (outcome, error) {
	g := newGraveyard(b, "talk", "echo", "web")
	g.most = max(most, int64(len(g.kinds)))
	got, err := g.inHouses(ctx, 12, func(ctx context.Context, h *house, c *cycle) error {
		f := fate{Near: c.rand.IntN(2) == 0, Listens: c.rand.IntN(2) == 0, Echo: c.kind == "echo"}
		if c.kind == "web" {
			return g.web(ctx, h, c, s, f)
		}
		return g.calls(ctx, h, c, s, f)
	})
	if err != nil {
		return got, err
	}
	for what, notices := range g.notices {
		l := notices.lap()
		slow := l.P99
		if l.Count < 100 {
			slow = l.P50 // of few, the slowest is an accident
		}
		if slow > promised {
			return got, fmt.Errorf("%s: a death was told after %v, and should be within %v", what, slow, promised)
		}
	}
	return got, nil
}

// way is under what name the times of a caller are kept.
func (f fate) way() string {
	if f.Near {
		return "near"
	}
	return "over ipc"
}

// A party has the other end of a caller's connection, in this process.
type party struct {
	client   *zpipes.Client
	name     string
	listener *zpipes.Listener // or nil: it dials
	echo     bool
	ears     *peer // it hears what the caller says
	mouth    *peer // and says what that hears

	met  chan struct{} // closed when it has a connection, or will have none
	conn *zpipes.Conn
	err  error         // why it has none
	over chan struct{} // closed when all is over
	at   time.Time     // when that was
}

// party starts the other end of a connection.
func (c *cycle) party(ctx context.Context, h *house, name string, said, heard uint64, f fate, dying <-chan struct{}) (*party, error) {
	peer := func(role rune, seed uint64) *peer {
		return &peer{role: role, seed: seed, rand: c.fork(), mood: []mood{eager, eager, slow, closer}[c.rand.IntN(4)], dying: dying}
	}
	p := &party{
		client: h.client(c.rand), name: name, echo: f.Echo,
		ears: peer('w', said), mouth: peer('r', heard),
		met: make(chan struct{}), over: make(chan struct{}),
	}
	if f.Finite {
		p.ears.mood, p.mouth.mood = eager, closer
	}
	late := false
	if !f.Listens {
		l, err := p.client.Listen(ctx, name)
		if err != nil {
			return nil, err
		}
		p.listener = l
		late = !f.Finite && c.rand.IntN(4) == 0 // it does not accept before the caller dies
	}
	wait := time.Duration(c.rand.IntN(60)) * time.Millisecond
	go func() {
		defer close(p.over)
		if late {
			<-dying
		} else {
			time.Sleep(wait)
		}
		p.conn, p.err = p.meet(ctx, dying)
		close(p.met)
		if p.err == nil {
			p.converse()
		}
		p.at = time.Now()
	}()
	return p, nil
}

func (p *party) meet(ctx context.Context, dying <-chan struct{}) (*zpipes.Conn, error) {
	if p.listener != nil {
		n, err := p.listener.Accept()
		if err != nil {
			return nil, err
		}
		return n.(*zpipes.Conn), nil
	}
	for {
		n, err := p.client.Dial(ctx, p.name)
		if !errors.Is(err, zpipes.ErrNoListener) || closed(dying) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *party) converse() {
	defer p.conn.Close()
	if p.echo {
		p.ears.n, p.ears.err = io.Copy(p.conn, p.conn)
		if p.ears.err == nil {
			p.ears.err = p.conn.CloseWrite()
		}
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.ears.err = p.ears.drink(inward{p.conn}) })
	both.Go(func() { p.mouth.err = p.mouth.pour(outward{p.conn}) })
	both.Wait()
}

// learns waits until it knows of the death, or that nobody will come any more.
func (p *party) learns(h *house) error {
	err := eventually(notice, fmt.Sprintf("who meets %q (accepts: %v)", p.name, p.listener != nil), func() bool {
		return closed(p.met) || p.listener != nil && h.pipe(p.name).Connections == 0
	})
	if err != nil {
		return err
	}
	if p.listener != nil {
		p.listener.Close() // which ends its Accept
	}
	return eventually(notice, fmt.Sprintf("who has met %q (%s and %s)", p.name, p.ears.mood, p.mouth.mood), func() bool { return closed(p.over) })
}

// judge compares what it knows with what the caller has said of what it wrote and read.
func (p *party) judge(wrote, read *ledger) error {
	switch {
	case p.err == nil && p.echo:
		return p.judgeEcho(wrote, read)
	case p.err == nil:
		return errors.Join(p.ears.judge(wrote), p.mouth.judge(read))
	case wrote.confirmed+read.read > 0:
		return fmt.Errorf("LOST: %d bytes were confirmed and %d read, but nobody had met the caller: %w", wrote.confirmed, read.read, p.err)
	case errors.Is(p.err, zpipes.ErrNoListener), errors.Is(p.err, net.ErrClosed):
		return nil
	}
	return p.err
}

// judgeEcho is for one that has sent back what came.
func (p *party) judgeEcho(wrote, read *ledger) error {
	n, err := p.ears.n, p.ears.err
	switch {
	case wrote.wrong+read.wrong != "":
		return errors.New("the caller: " + wrote.wrong + read.wrong)
	case read.read > n:
		return fmt.Errorf("%d bytes came back of %d", read.read, n)
	case err == nil && n != wrote.closing:
		return fmt.Errorf("the caller died (%s), but there was a clean end behind %d bytes", wrote.state, n)
	case read.end >= 0 && read.end != wrote.closing:
		return fmt.Errorf("the caller had a clean end behind %d bytes, and wrote %d", read.end, wrote.closing)
	case err != nil && class(err) != "torn" && class(err) != "left":
		return fmt.Errorf("the caller died, but the other end has %w", err)
	case class(err) == "torn" && n < wrote.confirmed:
		return fmt.Errorf("LOST: %d bytes were read and %d confirmed", n, wrote.confirmed)
	}
	return nil
}

// calls has a caller use some connections, kills or stops it, and judges.
func (g *graveyard) calls(ctx context.Context, h *house, c *cycle, s syscall.Signal, f fate) error {
	name, seed := c.name("call"), c.rand.Uint64()
	f.Roles = strings.Repeat("wr", 1+c.rand.IntN(3))
	dying := make(chan struct{})
	parties, err := c.parties(ctx, h, name, seed, f, dying)
	if err != nil {
		return err
	}
	v, err := startVictim("caller", h.at(f), name, seed, f)
	if err != nil {
		return err
	}
	defer v.kill()
	died, err := v.strike(s, c.rand)
	close(dying)
	if err == nil {
		err = h.hears(ctx, v)
	}
	for i, p := range parties {
		if err == nil {
			err = p.learns(h)
		}
		if err != nil {
			return fmt.Errorf("%w; %s", err, v.states())
		}
		if p.err == nil && p.at.After(died) {
			g.took(f.way(), p.at.Sub(died))
		}
		v.mu.Lock()
		wrote, read := v.ledgers[2*i], v.ledgers[2*i+1]
		err = p.judge(wrote, read)
		for _, l := range []*ledger{wrote, read} {
			if err == nil && s == syscall.SIGKILL {
				err = g.judgeDead(l, f)
			}
		}
		g.died(f.role(), wrote.moment(), 0)
		g.count("KiB arrived, none of them wrong", (p.ears.n+read.read)>>10)
		v.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%q (%s and %s): %w", p.name, p.ears.mood, p.mouth.mood, err)
		}
	}
	var resume func()
	if s == syscall.SIGSTOP {
		resume = func() { v.signal(syscall.SIGCONT) }
	}
	for _, p := range parties {
		if err := c.anotherCall(ctx, h, p.name, resume); err != nil {
			return err
		}
	}
	if s == syscall.SIGSTOP {
		return g.callsAgain(ctx, h, c, v)
	}
	return nil
}

// role is what a caller is.
func (f fate) role() string {
	if f.Listens {
		return "who accept"
	}
	return "who dial"
}

// parties are the other ends of all connections of a caller; with f.Finite set, of those that
// it has when it goes on.
func (c *cycle) parties(ctx context.Context, h *house, name string, seed uint64, f fate, dying <-chan struct{}) (all []*party, err error) {
	for i := 0; i < len(f.Roles) && err == nil; i += 2 {
		name, said, heard := endName(name, i/2), seed+uint64(i), seed+uint64(i+1)
		if f.Finite {
			name, said, heard = againName(name), ^said, ^heard
		}
		var p *party
		p, err = c.party(ctx, h, name, said, heard, f, dying)
		all = append(all, p)
	}
	return all, err
}

// anotherCall makes a connection at a name where the dead do not listen any more, and passes
// data in both directions. In the middle it calls mid.
func (c *cycle) anotherCall(ctx context.Context, h *house, name string, mid func()) error {
	if err := eventually(notice, "the end of a dead listener", func() bool { return h.pipe(name).Listeners == 0 }); err != nil {
		return err
	}
	l, err := h.client(c.rand).Listen(ctx, name)
	if err != nil {
		return err
	}
	defer l.Close()
	dialled, err := h.client(c.rand).Dial(ctx, name)
	if err != nil {
		return err
	}
	defer dialled.Close()
	n, err := within(patience, "an Accept of who has dialled", l.Accept)
	if err != nil {
		return err
	}
	defer n.Close()
	accepted := n.(*zpipes.Conn)
	if err := c.pass(ends{outward{dialled}, inward{accepted}}, mid); err != nil {
		return fmt.Errorf("from who dials %q again: %w", name, err)
	}
	if err := c.pass(ends{outward{accepted}, inward{dialled}}, nil); err != nil {
		return fmt.Errorf("to who dials %q again: %w", name, err)
	}
	return nil
}

// callsAgain looks what a caller does that goes on after all others took it for dead: it
// learns the truth, and the same client can have other connections.
func (g *graveyard) callsAgain(ctx context.Context, h *house, c *cycle, v *victim) error {
	if err := g.learns(v); err != nil {
		return err
	}
	f := v.fate
	f.Finite = true
	parties, err := c.parties(ctx, h, v.pipe, v.seed, f, nil)
	if err != nil {
		return err
	}
	if _, err := v.stdin.Write([]byte("again")); err != nil {
		return err
	}
	for i, p := range parties {
		second := func(i int) *ledger { return v.ledgers[i].second }
		err := eventually(patience, "a connection that nobody disturbs", func() bool {
			return closed(p.over) && v.all(func(l *ledger) bool { return l.second != nil && l.second.over() })
		})
		if err == nil {
			err = p.judgeWhole(second(2*i), second(2*i+1))
		}
		if err != nil {
			return fmt.Errorf("%q: %w; %s", p.name, err, v.states())
		}
		if p.listener != nil {
			p.listener.Close()
		}
	}
	return nil
}

// judgeWhole is for a connection whose ends both lived until it was over.
func (p *party) judgeWhole(wrote, read *ledger) error {
	switch {
	case p.err != nil:
		return p.err
	case !p.echo:
		return errors.Join(p.ears.judgeWhole(wrote), p.mouth.judgeWhole(read))
	case p.ears.err != nil:
		return p.ears.err
	case wrote.failed+read.failed+read.wrong != "" || p.ears.n != wrote.closing || read.end != wrote.closing:
		return fmt.Errorf("%d bytes were written, %d passed on, %d came back: %s%s%s", wrote.closing, p.ears.n, read.end, wrote.failed, read.failed, read.wrong)
	}
	return nil
}
