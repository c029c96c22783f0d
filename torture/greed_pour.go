package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// Clients that pour requests out and do not wait for answers: one of each kind, and a
// hundred of all kinds at once.

// A habit is what such a client does.
type habit struct {
	extended bool
	deaf     bool // it takes no answers
	text     bool // and it opens a queue, which is to be deleted
	begin    func(c *rawClient, name string) error
	next     func(c *rawClient, name string, i int64) [][]byte
}

var habits = map[string]habit{
	"READs": {
		begin: func(c *rawClient, name string) error { return c.opened(idInputOK, c.input(1, name, modeBytes)) },
		next:  func(c *rawClient, _ string, i int64) [][]byte { return c.read(1, 1, 0) },
	},
	"READs on 64 channels": {
		extended: true,
		begin: func(c *rawClient, name string) error {
			for i := range uint32(64) {
				if err := c.opened(idInputOK, c.input(1+i, fmt.Sprint(name, i), modeBytes)); err != nil {
					return err
				}
			}
			return nil
		},
		next: func(c *rawClient, _ string, i int64) [][]byte { return c.read(1+uint32(i%64), 1, readAny) },
	},
	"WRITEs of 8 B": {
		begin: func(c *rawClient, name string) error { return c.opened(idOutputOK, c.output(1, name)) },
		next:  func(c *rawClient, _ string, i int64) [][]byte { return c.write(1, make([]byte, 8)) },
	},
	"WRITEs of 16 KiB": {
		extended: true,
		begin:    func(c *rawClient, name string) error { return c.opened(idOutputOK, c.output(1, name)) },
		next:     func(c *rawClient, _ string, i int64) [][]byte { return c.write(1, make([]byte, 16<<10)) },
	},
	"opens of a hundred pipes": {
		extended: true,
		next: func(c *rawClient, name string, i int64) [][]byte {
			return c.input(1+uint32(i%100), fmt.Sprintf("%s %d", name, i%100), modeBytes)
		},
	},
	"PINGs": {
		next: func(c *rawClient, _ string, i int64) [][]byte { return c.ping() },
	},
	"PINGs whose answers are not taken": {
		deaf: true,
		next: func(c *rawClient, _ string, i int64) [][]byte { return c.ping() },
	},
	"READs by text": {
		text:  true,
		begin: func(c *rawClient, name string) error { return c.opened(0, text("OPEN", name)) },
		next:  func(c *rawClient, name string, i int64) [][]byte { return text("READ", name) },
	},
	"WRITEs by text": {
		text:  true,
		begin: func(c *rawClient, name string) error { return c.opened(0, text("OPEN", name)) },
		next: func(c *rawClient, name string, i int64) [][]byte {
			return text("WRITE", name, string(binary.BigEndian.AppendUint64(nil, uint64(i))))
		},
	},
}

// opened asks, and wants that answer.
func (c *rawClient) opened(id byte, m [][]byte) error {
	_, err := c.ask(id, m)
	return err
}

// What a client can have at the broker, by its design and limits (docs/PROTOCOL.md, section 4).
const (
	// Everything has some of libc's and the collector's slack on top.
	slack = 16 << 20
	// A request that waits is less than half a kibibyte, and the list of them may have
	// just been copied to a larger one.
	perRequest = 1 << 10
	perChannel = 4096 * perRequest
	// A pipe with one end, the conversation around it, and the collector's share.
	perPipe = 2 << 10
	// So many ends may a client have open, and all clients of a user together.
	clientEnds, userEnds = 32 << 10, 48 << 10
	// What is kept for a client that takes no answers is 65536 of them.
	perAnswer = 256
	// All channels of a client together may have so many requests waiting.
	perSession = 1 << 18 * perRequest
	// libzmq needs about 30 KiB for a connection, and what it gives back has holes.
	perConnection = 64 << 10
)

func pipelining(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeast(ctx, b)
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	for _, way := range []struct {
		kind string
		most int64
	}{
		{"READs", perChannel + slack},
		{"READs on 64 channels", perSession + slack},
		{"WRITEs of 8 B", perChannel + slack},
		{"PINGs", slack},
		{"PINGs whose answers are not taken", 65536*perAnswer + slack},
		{"READs by text", perChannel + slack},
		// The queue has 65536 chunks, since one counts for 16 bytes at least.
		{"WRITEs by text", perChannel + 65536*128 + slack},
	} {
		ways := f.ways()
		if habits[way.kind].text {
			ways = f.zeromq()
		}
		err := f.courses(way.kind, way.most, ways, func(endpoint string) (tally, error) {
			most := max(5000, b.size(1e6)/int64(len(ways)))
			return f.send(errand{Do: "pour", Endpoint: endpoint, Kind: way.kind, Pipe: "poured", Count: most, AtOnce: 1})
		})
		if err != nil {
			return outcome{}, err
		}
	}
	f.stays = userEnds * perPipe
	err = f.courses("opens, each on a channel of its own", userEnds*perPipe+slack, f.ways(), func(endpoint string) (tally, error) {
		return f.send(errand{Do: "open too many", Endpoint: endpoint, Pipe: "too many", Count: max(userEnds, b.size(1e6)/2)})
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

const crowdSize = 100

// crowdHabits are those of the crowd, those by text last. Clients that open as many pipes as
// there may be would leave the others nothing.
var crowdHabits = []string{
	"READs", "WRITEs of 8 B", "WRITEs of 16 KiB", "opens of a hundred pipes", "PINGs",
	"PINGs whose answers are not taken", "READs by text", "WRITEs by text",
}

func crowd(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeast(ctx, b)
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	var errands []errand
	for i := range 10 {
		errands = append(errands, errand{
			Do: "pour", Endpoint: f.ways()[i%2].endpoint, Pipe: fmt.Sprint("crowd ", i),
			Count: max(300, b.size(5000)), AtOnce: crowdSize / 10, Seed: b.rand.Uint64(),
		})
	}
	// At most a fifth of them is of the same kind. Four kinds may have a full channel, and
	// one a full pipe: of chunks of 16 KiB it is 1 MiB in the pipe, 1 MiB that waits, and 16
	// of them in libzmq, with as much garbage again.
	const most = crowdSize/5*(4*perChannel+2*(2<<20+16*16<<10)) + slack
	e := errand{Do: "be deaf", AtOnce: int(max(100, b.size(1000))), Count: 1000}
	// What libc keeps of the connections. A second thousand would use the same again.
	f.stays = 2*int64(e.AtOnce)*perConnection + staysUsually
	err = f.course(fmt.Sprintf("%d clients", crowdSize), most, func() (t tally, err error) {
		t, err = f.all(errands...)
		t.Found = t.poured()
		return t, err
	})
	if err != nil {
		return outcome{}, err
	}
	deaf := int64(e.AtOnce) * (perConnection + e.Count*perAnswer)
	err = f.courses(fmt.Sprintf("%s clients that take no answers", count(int64(e.AtOnce))), deaf+slack, f.ways(), func(endpoint string) (t tally, err error) {
		g, err := f.guest()
		if err != nil {
			return t, err
		}
		defer f.dismiss(g)
		e.Endpoint = endpoint
		if t, err = f.ask(g, e); err == nil {
			err = f.wait(time.Second)
		}
		return t, err
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

func init() {
	errands["pour"] = pour
	errands["be deaf"] = beDeaf
}

// beDeaf has so many clients send so many PINGs each and take no answer, which they stay
// with. That is too much for libzmq, and not enough to be dropped for.
func beDeaf(h *host, e errand) (t tally, err error) {
	habit := habits["PINGs whose answers are not taken"]
	for range e.AtOnce {
		c, err := rawConfig{deaf: true}.connect(e.Endpoint)
		if err != nil {
			return t, err
		}
		h.kept = append(h.kept, c)
		sent, _, err := c.pour(e.Count, func(i int64) [][]byte { return habit.next(c, "", i) }, nil)
		if err != nil {
			return t, err
		}
		t.Times += sent
	}
	t.Found = count(t.Times) + " PINGs"
	return t, nil
}

// pour has so many clients pour out so many messages each.
func pour(h *host, e errand) (t tally, err error) {
	library, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer library.Close()
	tallies, errs := make([]tally, e.AtOnce), make([]error, e.AtOnce)
	var wg sync.WaitGroup
	for i := range e.AtOnce {
		kind := e.Kind
		if kind == "" {
			kinds := crowdHabits
			if isNear(e.Endpoint) {
				kinds = kinds[:len(kinds)-2]
			}
			kind = kinds[(e.Seed+uint64(i))%uint64(len(kinds))]
		}
		p := pouring{library, e.Endpoint, fmt.Sprintf("%s %d", e.Pipe, i), kind, habits[kind]}
		wg.Go(func() { tallies[i], errs[i] = p.run(e.Count) })
	}
	wg.Wait()
	for _, u := range tallies {
		t.add(u)
	}
	t.Found = t.poured()
	return t, errors.Join(errs...)
}

func (t *tally) poured() string {
	return fmt.Sprintf("%s sent, %s times dropped", count(t.Times), count(t.Dropped))
}

// A pouring is one client's; who is dropped comes again.
type pouring struct {
	library  *zpipes.Client
	endpoint string
	name     string
	kind     string
	habit
}

func (p *pouring) run(most int64) (t tally, err error) {
	for round := 0; t.Times < most; round++ {
		sent, dropped, err := p.round(fmt.Sprintf("%s %d", p.name, round), most-t.Times)
		if err != nil {
			return t, fmt.Errorf("%s: %w", p.kind, err)
		}
		t.Times += sent
		if dropped {
			t.Dropped++
		}
	}
	return t, nil
}

func (p *pouring) round(name string, most int64) (sent int64, dropped bool, err error) {
	got := func(answer) {}
	if p.deaf {
		got = nil
	}
	c, err := rawConfig{deaf: p.deaf}.connect(p.endpoint)
	if err == nil && p.extended {
		c, err = c.agree(rarely)
	}
	if err != nil {
		return 0, false, err
	}
	defer c.close()
	if p.begin != nil {
		if err := p.begin(c, name); err != nil {
			return 0, false, err
		}
	}
	sent, dropped, err = c.pour(most, func(i int64) [][]byte { return p.next(c, name, i) }, got)
	if p.text && err == nil {
		err = p.library.DeleteQueue(background, name)
	}
	return sent, dropped, err
}
