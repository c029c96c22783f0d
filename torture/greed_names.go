package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"github.com/zpipes/zpipes"
)

// Names of every length and with every byte: the valid ones work, and are different pipes;
// the others are refused, and it is said why.

// validNames are one of each length and, alone and between others, each byte.
func validNames() (names []string) {
	for n := 2; n <= 255; n++ {
		names = append(names, "L"+strings.Repeat("x", n-1))
	}
	for c := 1; c < 256; c++ {
		b := string([]byte{byte(c)})
		names = append(names, b, "in "+b+" between")
	}
	return names
}

// invalidNames can be said in the binary protocol, and longNames in text and in Go.
var (
	invalidNames = []string{"", "\x00", "a\x00", "\x00a", "a\x00b", strings.Repeat("\x00", 255)}
	longNames    = []string{strings.Repeat("x", 256), strings.Repeat("x", 257), strings.Repeat("x", 1<<16), strings.Repeat("\xff", 256)}
)

func names(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeastOf(ctx, b, errand{Timeout: quietTimeout})
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	for _, way := range nameWays {
		e := errand{Do: "names", Kind: way.name, Count: int64(len(validNames())), Seed: b.rand.Uint64()}
		most := int64(slack)
		if way.connections {
			e.Count = max(100, b.size(e.Count))
			most += 2 * e.Count * perConnection
			f.stays = most
		}
		ways := f.ways()
		if way.text {
			ways = f.zeromq()
		}
		err := f.courses(way.name, most, ways, func(endpoint string) (tally, error) {
			e.Endpoint = endpoint
			return f.send(e)
		})
		if err != nil {
			return outcome{}, err
		}
	}
	return f.outcome()
}

func init() {
	errands["names"] = func(h *host, e errand) (t tally, err error) {
		valid := validNames()
		rand.New(rand.NewPCG(e.Seed, 0)).Shuffle(len(valid), func(i, j int) { valid[i], valid[j] = valid[j], valid[i] })
		valid = valid[:e.Count]
		var refused int
		for _, way := range nameWays {
			if way.name == e.Kind {
				refused, err = way.run(e.Endpoint, valid)
			}
		}
		t.Times = int64(len(valid) + refused)
		t.Found = fmt.Sprintf("%d names work, %d are refused", len(valid), refused)
		return t, err
	}
}

// nameWays are the ways in which a name can be said. Each has all the pipes at the same
// time, and sends every one its name. They return how many names were refused.
var nameWays = []struct {
	name        string
	connections bool // one for each end
	text        bool
	run         func(endpoint string, valid []string) (int, error)
}{
	{"streams, base protocol", true, false, oldDialect.nameStreams},
	{"streams", false, false, newDialect.nameStreams},
	{"queues", false, false, nameQueues},
	{"queues by text", false, true, nameTexts},
	{"the library's streams and queues", false, false, nameEnds},
}

func (d dialect) nameStreams(endpoint string, valid []string) (refused int, err error) {
	ends, closeAll := d.connections(endpoint)
	defer closeAll()
	var readers, writers []*rawClient
	for i, name := range valid {
		for _, open := range []struct {
			list *[]*rawClient
			ok   byte
			m    func(c *rawClient) [][]byte
		}{
			{&readers, idInputOK, func(c *rawClient) [][]byte { return c.input(uint32(2*i+1), name, modeBytes) }},
			{&writers, idOutputOK, func(c *rawClient) [][]byte { return c.output(uint32(2*i+2), name) }},
		} {
			c, err := ends()
			if err != nil {
				return 0, err
			}
			if _, err := c.ask(open.ok, open.m(c)); err != nil {
				return 0, err
			}
			*open.list = append(*open.list, c)
		}
	}
	for i, name := range valid {
		if _, err := writers[i].ask(idWriteOK, writers[i].write(uint32(2*i+2), []byte(name))); err != nil {
			return 0, fmt.Errorf("%q: %w", name, err)
		}
	}
	for i, name := range valid {
		a, err := readers[i].ask(idReadOK, readers[i].read(uint32(2*i+1), uint32(len(name)), 0))
		if err == nil && string(a.chunk()) != name {
			err = fmt.Errorf("%q came out", a.chunk())
		}
		if err != nil {
			return 0, fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, name := range invalidNames {
		c, err := ends()
		if err != nil {
			return 0, err
		}
		const channel = 1 << 30
		if err := c.refuses(idInputFailed, c.input(channel, name, modeBytes)); err != nil {
			return 0, err
		}
		if err := c.refuses(idOutputFailed, c.output(channel, name)); err != nil {
			return 0, err
		}
	}
	return len(invalidNames), nil
}

// connections returns a function that returns a client: always the same, or for the old
// protocol, where it can have one end only, another one each time.
func (d dialect) connections(endpoint string) (next func() (*rawClient, error), closeAll func()) {
	var all []*rawClient
	next = func() (*rawClient, error) {
		if d.extended && len(all) > 0 {
			return all[0], nil
		}
		c, err := connect(endpoint, d)
		if err == nil {
			all = append(all, c)
		}
		return c, err
	}
	return next, func() {
		for _, c := range all {
			c.leave()
		}
	}
}

// refuses wants an open refused for its name, and a reason.
func (c *rawClient) refuses(id byte, m [][]byte) error {
	a, err := c.ask(id, m)
	if err != nil {
		return err
	}
	if !a.failedFor(causeBadName, c.dialect) {
		return fmt.Errorf("%q was refused by %q", m, a)
	}
	return nil
}

func nameQueues(endpoint string, valid []string) (refused int, err error) {
	c, err := connect(endpoint, newDialect)
	if err != nil {
		return 0, err
	}
	defer c.leave()
	for i, name := range valid {
		if _, err := c.ask(idInputOK, c.input(uint32(i+1), name, modeQueue)); err != nil {
			return 0, fmt.Errorf("%q: %w", name, err)
		}
	}
	for i, name := range valid {
		if _, err := c.ask(idWriteOK, c.write(uint32(i+1), long([]byte(name)))); err != nil {
			return 0, fmt.Errorf("%q: %w", name, err)
		}
	}
	for i, name := range valid {
		a, err := c.ask(idReadOK, c.read(uint32(i+1), 1, 0))
		if err == nil && string(a.chunk()[4:]) != name {
			err = fmt.Errorf("%q came out", a.chunk())
		}
		if err == nil {
			_, err = c.ask(idInputOK, c.input(1<<30, name, modeDelete))
		}
		if err != nil {
			return 0, fmt.Errorf("%q: %w", name, err)
		}
		// The queue's end is told on its channel.
		for range 2 {
			if a, err := c.next(); err != nil || a.id() != idWriteFailed && a.id() != idReadFailed {
				return 0, fmt.Errorf("%q: %.80q (%v)", name, a, err)
			}
		}
	}
	for _, name := range invalidNames {
		for _, mode := range []byte{modeQueue, modeDelete} {
			if err := c.refuses(idInputFailed, c.input(1<<30, name, mode)); err != nil {
				return 0, err
			}
		}
	}
	return len(invalidNames), nil
}

func nameTexts(endpoint string, valid []string) (refused int, err error) {
	c, err := connect(endpoint, oldDialect)
	if err != nil {
		return 0, err
	}
	defer c.leave()
	for _, step := range []struct {
		verb  string
		chunk bool
	}{{"OPEN", false}, {"WRITE", true}, {"READ", false}, {"CLOSE", false}} {
		for _, name := range valid {
			m, want := text(step.verb, name), "OK"
			if step.chunk {
				m = append(m, []byte(name))
			}
			if step.verb == "READ" {
				want = name
			}
			if a, err := c.ask(0, m); err != nil || len(a) != 1 || string(a[0]) != want {
				return 0, fmt.Errorf("%q was answered with %q (%v)", m, a, err)
			}
		}
	}
	wrong := append(append([]string{}, invalidNames...), longNames...)
	for _, name := range wrong {
		for _, m := range [][][]byte{text("OPEN", name), text("WRITE", name, "x"), text("READ", name), text("CLOSE", name)} {
			if a, err := c.ask(0, m); err != nil || !a.refused() || !strings.Contains(string(a[1]), "bad name") {
				return 0, fmt.Errorf("%.80q was answered with %q (%v)", m, a, err)
			}
		}
	}
	return len(wrong), nil
}

func nameEnds(endpoint string, valid []string) (refused int, err error) {
	c, err := client(endpoint)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := nameReadersAndWriters(c, valid); err != nil {
		return 0, err
	}
	var queues []*zpipes.Queue
	for _, name := range valid {
		q, err := c.OpenQueue(background, name)
		if err == nil {
			err = q.Send(background, []byte(name))
		}
		if err != nil {
			return 0, err
		}
		queues = append(queues, q)
	}
	for i, name := range valid {
		b, err := queues[i].Receive(background)
		if err == nil && string(b) != name {
			err = fmt.Errorf("%q came out of %q", b, name)
		}
		if err == nil {
			err = c.DeleteQueue(background, name)
		}
		if err != nil {
			return 0, err
		}
	}
	wrong := append(append([]string{}, invalidNames...), longNames...)
	for _, name := range wrong {
		_, asReader := c.OpenReader(background, name)
		_, asWriter := c.OpenWriter(background, name)
		_, asQueue := c.OpenQueue(background, name)
		for _, err := range []error{asReader, asWriter, asQueue, c.DeleteQueue(background, name)} {
			if !errors.Is(err, zpipes.ErrBadName) {
				return 0, fmt.Errorf("the name %.80q was answered with %v", name, err)
			}
		}
	}
	return len(wrong), nil
}

func nameReadersAndWriters(c *zpipes.Client, valid []string) error {
	var readers []*zpipes.Reader
	for _, name := range valid {
		r, err := c.OpenReader(background, name)
		if err != nil {
			return err
		}
		readers = append(readers, r)
		w, err := c.OpenWriter(background, name)
		if err == nil {
			_, err = w.WriteString(name)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return err
		}
	}
	for i, name := range valid {
		b, err := io.ReadAll(readers[i])
		if err == nil && string(b) != name {
			err = fmt.Errorf("%q came out of %q", b, name)
		}
		if err == nil {
			err = readers[i].Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
