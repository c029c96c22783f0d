package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/zpipes/zpipes"
)

// READs of 4 GiB, which no pipe can ever have.

func hugeReads(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeastOf(ctx, b, errand{Timeout: quietTimeout})
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	reads := max(100, b.size(2000))
	for _, kind := range hugeKinds {
		e := errand{Do: "read 4 GiB", Pipe: "huge", Kind: kind.name, Count: reads / 2}
		most := e.Count*perPipe + slack
		if !kind.extended {
			e.Count = min(e.Count, 250)
			most += e.Count * perConnection
		}
		err := f.courses(kind.name, most, f.ways(), func(endpoint string) (tally, error) {
			e.Endpoint = endpoint
			return f.send(e)
		})
		if err != nil {
			return outcome{}, err
		}
	}
	// The pipe has 16 MiB then, in frames as they came, which come while others are garbage.
	err = f.courses("one that gets something", 3*16<<20+slack, f.ways(), func(endpoint string) (tally, error) {
		return f.send(errand{Do: "give too much", Endpoint: endpoint, Pipe: "much", Size: 24 << 20})
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

const huge = 1<<32 - 1

// hugeKinds are the ways to read 4 GiB.
var hugeKinds = []struct {
	name     string
	extended bool
	flags    byte
	queue    bool // of a queue's name
	mode     byte
}{
	{"exact, base protocol", false, 0, false, modeBytes},
	{"exact", true, 0, false, modeBytes},
	{"any", true, readAny, false, modeBytes},
	{"stream", true, readStream, false, modeBytes},
	{"exact, of a queue's bytes", true, 0, true, modeBytes},
	{"any, of a queue's bytes", true, readAny, true, modeBytes},
	{"stream, of a queue's bytes", true, readStream, true, modeBytes},
	{"of a queue's chunks", true, 0, true, modeQueue},
}

// readTooMuch has many readers ask for 4 GiB, and then gives each a little.
func readTooMuch(h *host, e errand) (t tally, err error) {
	i := 0
	for hugeKinds[i].name != e.Kind {
		i++
	}
	kind := hugeKinds[i]
	c, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer c.Close()
	names := make([]string, e.Count)
	readers := make([]*rawClient, e.Count)
	for n := range names {
		names[n] = fmt.Sprintf("%s, %s %d", e.Pipe, kind.name, n)
		if kind.queue {
			if _, err := c.OpenQueue(background, names[n]); err != nil {
				return t, err
			}
			defer c.DeleteQueue(background, names[n])
		}
		r := readers[0]
		if r == nil || !kind.extended {
			if r, err = connect(e.Endpoint, dialect{extended: kind.extended}); err != nil {
				return t, err
			}
			defer r.leave()
		}
		readers[n] = r
		channel := uint32(n + 1)
		if _, err := r.ask(idInputOK, r.input(channel, names[n], kind.mode)); err != nil {
			return t, err
		}
		if err := r.send(r.read(channel, huge, kind.flags)); err != nil {
			return t, err
		}
	}
	answered := int64(0)
	for n, name := range names {
		if err := sendLine(c, name, kind.queue); err != nil {
			return t, err
		}
		if kind.queue && kind.flags == 0 && kind.mode == modeBytes {
			continue // it goes on waiting, since a queue has no end
		}
		if err := gotLine(readers[n], uint32(n+1), name); err != nil {
			return t, fmt.Errorf("%s: %w", kind.name, err)
		}
		answered++
	}
	t.Found = fmt.Sprintf("%s READs, %s answered", count(e.Count), count(answered))
	t.Times = e.Count
	return t, nil
}

// sendLine sends a pipe its own name, and if it is a stream, that this is all.
func sendLine(c *zpipes.Client, name string, queue bool) error {
	if queue {
		q, err := c.OpenQueue(background, name)
		if err == nil {
			err = q.Send(background, []byte(name))
		}
		if err == nil {
			err = q.Close()
		}
		return err
	}
	w, err := c.OpenWriter(background, name)
	if err == nil {
		_, err = w.WriteString(name)
	}
	if err == nil {
		err = w.Close()
	}
	return err
}

// gotLine waits for that line.
func gotLine(r *rawClient, channel uint32, name string) error {
	for {
		a, err := r.next()
		if err != nil {
			return err
		}
		if a.id() == idReadEnd {
			continue // of a READ that was answered before
		}
		if on, _ := a.block(); a.id() != idReadOK || r.extended && on != channel || !bytes.HasSuffix(a.chunk(), []byte(name)) {
			return fmt.Errorf("got %.80q, where %q should come on channel %d", a, name, channel)
		}
		return nil
	}
}

// giveTooMuch writes more into a pipe than is sent at once, while a READ waits for 4 GiB:
// that fails, and the bytes are there for smaller ones.
func giveTooMuch(h *host, e errand) (t tally, err error) {
	c, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer c.Close()
	w, err := c.OpenWriter(background, e.Pipe)
	if err != nil {
		return t, err
	}
	r, err := connect(e.Endpoint, newDialect)
	if err != nil {
		return t, err
	}
	defer r.leave()
	if _, err := r.ask(idInputOK, r.input(1, e.Pipe, modeBytes)); err != nil {
		return t, err
	}
	if err := r.send(r.read(1, huge, 0)); err != nil {
		return t, err
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), int(e.Size)/16)
	written := make(chan error, 1)
	go func() {
		_, err := w.Write(data)
		if err == nil {
			err = w.Close()
		}
		written <- err
	}()
	if a, err := r.next(); err != nil || a.id() != idReadFailed {
		return t, fmt.Errorf("a READ of 4 GiB was answered with %.80q (%v)", a, err)
	}
	const each = 1 << 20
	for rest := data; len(rest) > 0; rest = rest[each:] {
		a, err := r.ask(idReadOK, r.read(1, each, 0))
		if err != nil {
			return t, err
		}
		if !bytes.Equal(a.chunk(), rest[:each]) {
			return t, fmt.Errorf("other bytes came than were written, %d before the end", len(rest))
		}
	}
	if _, err := r.ask(idReadEnd, r.read(1, each, 0)); err != nil {
		return t, err
	}
	if _, err := r.ask(idCloseOK, r.closing(1)); err != nil {
		return t, err
	}
	t.Times = 1
	t.Found = mebibytes(e.Size)
	return t, <-written
}

func init() {
	errands["read 4 GiB"] = readTooMuch
	errands["give too much"] = giveTooMuch
}
