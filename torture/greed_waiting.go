package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/zpipes/zpipes"
)

// Many pipes with a waiting reader each.

func waiting(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeast(ctx, b)
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	const processes = 10
	pipes := max(400, b.size(10000))
	// An idle pipe costs 8 KiB at most.
	most := pipes*8<<10 + slack
	err = f.courses("waiting readers", most, f.ways(), func(endpoint string) (t tally, err error) {
		before, err := f.look()
		if err != nil {
			return t, err
		}
		var readers []*guest
		e := errand{Endpoint: endpoint, Count: pipes / processes}
		for i := range processes {
			g, err := f.guest()
			if err != nil {
				return t, err
			}
			readers = append(readers, g)
			e.Do, e.Pipe = "read", fmt.Sprint("waiting ", i)
			if _, err := f.ask(g, e); err != nil {
				return t, err
			}
		}
		idle, err := f.look()
		if err != nil {
			return t, err
		}
		threads := idle.Threads
		for _, g := range readers {
			u, err := g.process().usage()
			if err != nil {
				return t, err
			}
			threads = max(threads, u.Threads)
		}
		if most := int64(runtime.GOMAXPROCS(0)) + 24; threads > most {
			return t, fmt.Errorf("a process has %d threads, and may have %d", threads, most)
		}
		for i, g := range readers {
			e.Do, e.Pipe = "feed", fmt.Sprint("waiting ", i)
			fed, err := f.send(e)
			if err != nil {
				return t, err
			}
			if _, err := f.ask(g, errand{Do: "have read"}); err != nil {
				return t, err
			}
			t.add(fed)
		}
		t.Found = fmt.Sprintf("%s pipes in %d processes, %.1f KiB for each while they wait and at most %d threads in a process, and a line through each", count(t.Times), processes,
			float64(idle.Resident-before.Resident)/1024/float64(t.Times), threads)
		for i, g := range readers {
			if i%2 > 0 {
				if _, err := f.ask(g, errand{Do: "leave"}); err != nil {
					return t, err
				}
			}
			f.dismiss(g)
		}
		return t, nil
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

// A crew is readers that wait, and the client that they are of.
type crew struct {
	client *zpipes.Client
	size   int64
	read   chan error
}

func init() {
	errands["read"] = func(h *host, e errand) (t tally, err error) {
		c, err := mortalClient(e.Endpoint)
		if err != nil {
			return t, err
		}
		h.crew = &crew{c, e.Count, make(chan error, e.Count)}
		for i := range e.Count {
			name := fmt.Sprintf("%s %d", e.Pipe, i)
			r, err := c.OpenReader(background, name)
			if err != nil {
				return t, err
			}
			go func() {
				b := make([]byte, len(name))
				_, err := io.ReadFull(r, b)
				if err == nil && string(b) != name {
					err = fmt.Errorf("%q came through pipe %q", b, name)
				}
				h.crew.read <- err
				r.Read(b) // until all is over
			}()
		}
		return t, nil
	}
	errands["feed"] = func(h *host, e errand) (t tally, err error) {
		c, err := client(e.Endpoint)
		if err != nil {
			return t, err
		}
		defer c.Close()
		for ; t.Times < e.Count; t.Times++ {
			name := fmt.Sprintf("%s %d", e.Pipe, t.Times)
			w, err := c.OpenWriter(background, name)
			if err == nil {
				_, err = w.WriteString(name)
			}
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				return t, err
			}
		}
		return t, nil
	}
	errands["have read"] = func(h *host, e errand) (t tally, err error) {
		late := time.After(errandTime / 2)
		for range h.crew.size {
			select {
			case err = <-h.crew.read:
			case <-late:
				err = errors.New("a reader has not got what was confirmed")
			}
			if err != nil {
				break
			}
		}
		return t, err
	}
	errands["leave"] = func(h *host, e errand) (t tally, err error) { return t, h.crew.client.Close() }
}
