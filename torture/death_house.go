package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/zpipes/zpipes"
)

// A house is a broker of this process, and ways to it.
type house struct {
	broker  *zpipes.Broker
	clients []*zpipes.Client // of this process: directly, over ipc, and near
	remote  int              // how many of them the broker takes for others
}

func newHouse(cfg zpipes.BrokerConfig) (*house, error) {
	b, err := cfg.NewBroker("")
	if err != nil {
		return nil, err
	}
	h := &house{broker: b}
	for range 2 {
		h.clients = append(h.clients, b.Client())
		for _, endpoint := range []string{h.ipc(), h.near()} {
			c, err := zpipes.NewClient(endpoint)
			if err != nil {
				return nil, errors.Join(err, h.close())
			}
			h.clients = append(h.clients, c)
			h.remote++
		}
	}
	return h, nil
}

func (h *house) ipc() string  { return h.broker.Endpoints()[1] }
func (h *house) near() string { return h.broker.Endpoints()[2] }

// at is where a victim finds the broker.
func (h *house) at(f fate) string {
	if f.Near {
		return h.broker.Name()
	}
	return h.ipc()
}

func (h *house) client(r *rand.Rand) *zpipes.Client { return h.clients[r.IntN(len(h.clients))] }

func (h *house) close() error {
	for _, c := range h.clients {
		c.Close()
	}
	return h.broker.Close()
}

// settle waits until nothing is left of what was dead or closed.
func (h *house) settle() error {
	err := eventually(patience, "the broker's end of the dead", func() bool {
		s := h.broker.Stats()
		return s.Pipes == 0 && s.Clients <= h.remote
	})
	if err != nil {
		return fmt.Errorf("%w: %+v %+v", err, h.broker.Stats(), slices.Collect(h.broker.Pipes()))
	}
	return nil
}

// hears waits until the broker has come to the opens of a victim that has died, of which
// some may have no answer: each Ping of a new connection over ipc lets one of its messages
// pass.
func (h *house) hears(ctx context.Context, v *victim) error {
	if v.all((*ledger).opened) {
		return nil
	}
	endpoint := h.ipc()
	if v.fate.Near {
		endpoint = h.near() // since the name is this process's own
	}
	client, err := zpipes.NewClient(endpoint)
	if err != nil {
		return err
	}
	for range 64 {
		if _, err := client.Ping(ctx); err != nil {
			return errors.Join(err, client.Close())
		}
	}
	return client.Close()
}

// pipe is what the broker says of a pipe.
func (h *house) pipe(name string) (info zpipes.PipeInfo) {
	for p := range h.broker.Pipes() {
		if p.Name == name {
			info = p
		}
	}
	return info
}

// inHouses runs the trial at some brokers of this process.
func (g *graveyard) inHouses(ctx context.Context, atOnce int, do func(context.Context, *house, *cycle) error) (outcome, error) {
	// Who is unknown to it is forgotten soon.
	return g.inHousesOf(ctx, atOnce, zpipes.BrokerConfig{ClientTimeout: promised}, do)
}

func (g *graveyard) inHousesOf(ctx context.Context, atOnce int, cfg zpipes.BrokerConfig, do func(context.Context, *house, *cycle) error) (outcome, error) {
	var houses []*house
	defer func() {
		for _, h := range houses {
			h.close()
		}
	}()
	for range 2 {
		h, err := newHouse(cfg)
		if err != nil {
			return outcome{}, err
		}
		houses = append(houses, h)
	}
	got, err := g.run(ctx, atOnce, func(ctx context.Context, c *cycle) error {
		return do(ctx, houses[c.number%int64(len(houses))], c)
	})
	for _, h := range houses {
		if err == nil {
			err = h.settle()
		}
	}
	return got, err
}

// fresh passes new data through a pipe whose name must be free: opened by a client each
// for its writer and its reader. In the middle it calls mid.
func (c *cycle) fresh(ctx context.Context, writing, reading *zpipes.Client, name string, mid func()) error {
	readerFirst := c.rand.IntN(2) == 0
	e, err := within(patience, "an open of a name that is free", func() (e ends, err error) {
		if readerFirst {
			e.r, err = reading.OpenReader(ctx, name)
		}
		if err == nil {
			e.w, err = writing.OpenWriter(ctx, name)
		}
		if err == nil && !readerFirst {
			e.r, err = reading.OpenReader(ctx, name)
		}
		return e, err
	})
	if err != nil {
		return fmt.Errorf("the name is not free: %w", err)
	}
	if err := c.pass(e, mid); err != nil {
		return fmt.Errorf("fresh data through %q: %w", name, err)
	}
	return nil
}

type ends struct {
	w io.WriteCloser
	r io.ReadCloser
}

// pass passes new data from a writer to a reader, which must get just that.
func (c *cycle) pass(e ends, mid func()) error {
	o := oracle{seed: c.rand.Uint64()}
	b := make([]byte, 1+c.rand.IntN(256<<10))
	fill(b, o.seed, 0)
	half := c.rand.IntN(len(b))
	wrote := make(chan error, 1)
	go func() {
		_, err := e.w.Write(b[:half])
		if mid != nil {
			mid()
		}
		if err == nil {
			_, err = e.w.Write(b[half:])
		}
		wrote <- errors.Join(err, e.w.Close())
	}()
	err := finish(patience, "a reader of fresh data", func() error { return o.readAll(e.r, 64<<10) })
	if err == nil && o.off != int64(len(b)) {
		err = fmt.Errorf("a clean end behind %d bytes of %d", o.off, len(b))
	}
	if err != nil {
		err = fmt.Errorf("the reader: %w", err)
	}
	e.r.Close() // the writer need not wait for one that has failed
	if failed := <-wrote; failed != nil {
		err = errors.Join(err, fmt.Errorf("the writer: %w", failed))
	}
	return err
}
