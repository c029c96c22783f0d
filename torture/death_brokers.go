package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

func init() { parts["broker"] = playBroker }

func playBroker(t task) error {
	b, err := zpipes.BrokerConfig{Dir: t.Dir, MaxDisk: t.MaxDisk}.NewBroker(t.Broker)
	if err != nil {
		return err
	}
	say("up")
	io.Copy(io.Discard, os.Stdin)
	return b.Close()
}

func startBroker(t task) (*child, error) {
	c, err := startChild(t)
	if err != nil {
		return nil, err
	}
	line, err := within(patience, "a broker that starts", c.line)
	if line != "up" {
		c.kill()
		return nil, fmt.Errorf("the broker said %q, %v", line, err)
	}
	return c, nil
}

// restart kills brokers, which come back under the same name at once, and stops others,
// which go on when nobody believes in them any more.
func restart(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, "killed", "stopped", "killed under raw clients")
	return g.run(ctx, 8, func(ctx context.Context, c *cycle) error { return g.brokers(ctx, c) })
}

// customers are the clients of a broker that dies.
type customers struct {
	broker  string
	clients []*zpipes.Client
	fate    fate // only their way and heartbeat matter
}

func (u *customers) ipc() string { return "ipc://@/zpipes/" + u.broker }

func (u *customers) client(r *rand.Rand) *zpipes.Client { return u.clients[r.IntN(len(u.clients))] }

func (g *graveyard) brokers(ctx context.Context, c *cycle) error {
	u := &customers{
		broker: fmt.Sprintf("torture-%d-%d", os.Getpid(), c.number),
		fate:   c.fate(),
	}
	at := u.broker
	if !u.fate.Near {
		at = u.ipc()
	}
	for range 2 {
		client, err := zpipes.ClientConfig{Heartbeat: u.fate.Heartbeat}.NewClient(at)
		if err != nil {
			return err
		}
		defer client.Close()
		u.clients = append(u.clients, client)
	}
	broker, err := startBroker(task{Part: "broker", Broker: u.broker})
	for generation := 0; generation < 2 && err == nil; generation++ {
		broker, err = g.generation(ctx, u, c, broker, generation)
	}
	if broker != nil {
		broker.kill()
	}
	if err != nil && u.fate.Heartbeat != 0 && strings.Contains(class(err), "gone") {
		g.count(cutOff, 1)
		return nil
	}
	return err
}

// generation has a broker die or stand still that is in use, and returns the one that
// runs afterwards.
func (g *graveyard) generation(ctx context.Context, u *customers, c *cycle, broker *child, number int) (*child, error) {
	var raws *strangers
	if strings.Contains(c.kind, "raw") {
		raws = newStrangers()
		defer raws.close()
		if err := raws.come(ctx, u, c); err != nil {
			return broker, err
		}
	}
	couples, err := u.couples(ctx, c, number)
	if err != nil {
		return broker, err
	}
	time.Sleep(time.Duration(c.rand.IntN(1<<c.rand.IntN(18))) * time.Microsecond)
	died := time.Now()
	if c.kind == "stopped" {
		broker.signal(syscall.SIGSTOP)
	} else {
		broker.kill()
		if broker, err = startBroker(task{Part: "broker", Broker: u.broker}); err != nil {
			return nil, err
		}
	}
	for _, p := range couples {
		took, err := p.bereaved(died)
		if err != nil {
			return broker, fmt.Errorf("generation %d, %q: %w", number, p.name, err)
		}
		g.took("broker "+c.kind+", "+u.fate.clock(), took)
		g.died("pipes", c.kind, 0) // and what was in them
	}
	if c.kind == "stopped" {
		time.AfterFunc(time.Duration(c.rand.IntN(1000))*time.Millisecond, func() { broker.signal(syscall.SIGCONT) })
	}
	if err := u.anew(ctx, c, number, raws); err != nil {
		return broker, fmt.Errorf("generation %d: %w", number, err)
	}
	if raws != nil {
		g.count("stale messages refused", raws.close())
	}
	g.died("brokers", c.kind, 0)
	return broker, nil
}

// A couple is both ends of a stream, or of a queue, whose broker dies.
type couple struct {
	name     string
	wrote    int64 // bytes that Write has accepted; known with writeErr
	read     int64 // known with readErr
	at       [2]time.Time
	writeErr error
	readErr  error
	both     sync.WaitGroup
}

func (u *customers) couples(ctx context.Context, c *cycle, generation int) ([]*couple, error) {
	var all []*couple
	for i := range 1 + c.rand.IntN(3) {
		p := &couple{name: fmt.Sprintf("p%d", i)}
		w, err := u.client(c.rand).OpenWriter(ctx, p.name)
		if err != nil {
			return nil, err
		}
		r, err := u.client(c.rand).OpenReader(ctx, p.name)
		if err != nil {
			return nil, err
		}
		seed, chance := c.rand.Uint64(), c.fork()
		p.both.Go(func() {
			p.writeErr = p.write(w, seed, chance)
			p.at[0] = time.Now()
			w.Close()
		})
		p.both.Go(func() {
			o := oracle{seed: seed}
			p.readErr = o.readAll(r, 64<<10)
			p.read = o.off
			p.at[1] = time.Now()
			r.Close()
		})
		all = append(all, p)
	}
	p := &couple{name: fmt.Sprintf("q%d", generation)}
	if c.kind != "stopped" {
		p.name = "q" // and what was in it is no more
	}
	to, err := u.client(c.rand).OpenQueue(ctx, p.name)
	if err != nil {
		return nil, err
	}
	from, err := u.client(c.rand).OpenQueue(ctx, p.name)
	if err != nil {
		return nil, err
	}
	seed, chance := c.rand.Uint64(), c.fork()
	p.both.Go(func() {
		for n := int64(0); p.writeErr == nil; n++ {
			if p.writeErr = to.Send(ctx, newChunk(chance, seed, n)); p.writeErr == nil && chance.IntN(20) == 0 {
				p.writeErr = to.Flush(ctx)
			}
		}
		p.at[0] = time.Now()
		to.Close()
	})
	p.both.Go(func() {
		for n := int64(0); p.readErr == nil; n++ {
			var b []byte
			var id chunkID
			if b, p.readErr = from.Receive(ctx); p.readErr == nil {
				id, p.readErr = readChunk(b)
			}
			if p.readErr == nil && id != (chunkID{senderName(seed), n}) {
				p.readErr = wrongBytes{fmt.Errorf("chunk %v instead of number %d", id, n)}
			}
		}
		p.at[1] = time.Now()
		from.Close()
	})
	return append(all, p), nil
}

func (p *couple) write(w *zpipes.Writer, seed uint64, r *rand.Rand) error {
	b := make([]byte, 512<<10)
	for target := int64(1) << (12 + r.IntN(20)); p.wrote < target; {
		n := someSize(r)
		fill(b[:n], seed, p.wrote)
		n, err := w.Write(b[:n])
		if p.wrote += int64(n); err != nil {
			return err
		}
		if r.IntN(6) == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return w.Close()
}

// bereaved waits until both ends know that the broker is gone, and judges.
func (p *couple) bereaved(died time.Time) (time.Duration, error) {
	if err := finish(notice, "an end whose broker is gone", func() error { p.both.Wait(); return nil }); err != nil {
		return 0, err
	}
	var wrong wrongBytes
	switch {
	case errors.As(p.readErr, &wrong), errors.As(p.writeErr, &wrong):
		return 0, wrong
	case p.readErr != nil && class(p.readErr) != "gone":
		return 0, fmt.Errorf("the broker is gone, but the reader has %w", p.readErr)
	case p.writeErr != nil && class(p.writeErr) != "gone":
		return 0, fmt.Errorf("the broker is gone, but the writer has %w", p.writeErr)
	case p.read > p.wrote && !strings.HasPrefix(p.name, "q"):
		return 0, fmt.Errorf("%d bytes read of %d written", p.read, p.wrote)
	case p.readErr == nil && p.read != p.wrote:
		return 0, fmt.Errorf("a clean end behind %d bytes of %d", p.read, p.wrote)
	}
	last := p.at[0]
	if p.at[1].After(last) {
		last = p.at[1]
	}
	return last.Sub(died), nil
}

// anew uses all names again, at the new broker or at the one that went on.
func (u *customers) anew(ctx context.Context, c *cycle, generation int, raws *strangers) error {
	names := []string{"p0", "p1", "p2"}
	if raws != nil {
		names = append(names, strangersPipes...)
	}
	for _, name := range names {
		w, err := retryBusy(func() (*zpipes.Writer, error) { return u.client(c.rand).OpenWriter(ctx, name) })
		if err != nil {
			return err
		}
		r, err := retryBusy(func() (*zpipes.Reader, error) { return u.client(c.rand).OpenReader(ctx, name) })
		if err != nil {
			return err
		}
		if err := c.pass(ends{w, r}, nil); err != nil {
			return fmt.Errorf("%q, anew: %w", name, err)
		}
	}
	if c.kind == "stopped" {
		err := u.client(c.rand).DeleteQueue(ctx, fmt.Sprintf("q%d", generation))
		if errors.Is(err, fs.ErrNotExist) { // it went with its users, since nothing had come to it
			return nil
		}
		return err
	}
	k, err := c.newClerk(ctx, u, "q")
	if err != nil {
		return err
	}
	defer k.close()
	k.receive(ctx)
	k.send(ctx, 100)
	if n, err := k.sentAll(); n != 100 || err != nil {
		return fmt.Errorf("%d chunks sent, %w", n, err)
	}
	if err := k.catchUp(ctx, c); err != nil {
		return err
	}
	got := k.list()
	for i, id := range got[:len(got)-1] {
		if id != (chunkID{senderName(k.seed), int64(i)}) {
			return fmt.Errorf("chunk %v in a queue that is new", id)
		}
	}
	if len(got) != 101 {
		return fmt.Errorf("%d chunks of 101", len(got))
	}
	return u.client(c.rand).DeleteQueue(ctx, "q")
}
