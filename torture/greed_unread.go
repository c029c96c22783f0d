package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A reader that never reads, and what it is offered nevertheless.

const mostUnread = 16 << 20 // bytes by which the broker may grow for it

func unread(ctx context.Context, b *bench) (outcome, error) {
	pending := max(32<<20, b.size(256<<20)) // by default it is 256 MiB
	f, err := newFeastOf(ctx, b, errand{Size: pending})
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	offer := max(64<<20, b.size(10<<30))
	for _, way := range []struct {
		what string
		most int64
		e    errand
	}{
		{"Writes with deadlines", mostUnread, errand{Do: "offer", Size: 16 << 20}},
		{"WRITEs of 64 KiB without waiting", mostUnread, errand{Do: "flood", Size: 64 << 10}},
		// libzmq holds 16 messages of a client that the broker has not come to, and one that
		// it receives, and the client before it may not be quite over; the pipe has one, what
		// waits is another and a bit; and Go's collector lets as much again become garbage,
		// but 4 MiB at least, and more while it is at work.
		{"WRITEs of 1 MiB without waiting", (2*17 + 2*3 + 8) << 20, errand{Do: "flood", Size: 1 << 20}},
	} {
		err := f.courses(way.what, way.most, f.ways(), func(endpoint string) (tally, error) {
			way.e.Endpoint, way.e.Pipe, way.e.Count = endpoint, "unread", offer
			if way.e.Do == "flood" {
				way.e.Count /= 2
			}
			return f.send(way.e)
		})
		if err != nil {
			return outcome{}, err
		}
	}
	// The pipes hold what one client's may, and the WRITEs beyond that wait.
	e := errand{Do: "fill", Pipe: "filled", Count: pending>>20 + 16, Size: 1 << 20, AtOnce: int(pending >> 20)}
	err = f.courses("WRITEs of 1 MiB into many pipes of one client", e.Count*e.Size*5/4+slack, f.ways(), func(endpoint string) (tally, error) {
		e.Endpoint = endpoint
		return f.send(e)
	})
	if err != nil {
		return outcome{}, err
	}
	// It asks for 4 GiB and takes none of it: libzmq holds 128 messages for a client, and
	// these have up to 256 KiB each; the pipe has 1 MiB, what is kept for the client 4 MiB.
	const most = 128*256<<10 + 16<<20
	err = f.courses("Writes to a client that asks for 4 GiB and takes nothing", most, f.ways(), func(endpoint string) (t tally, err error) {
		g, err := f.guest()
		if err != nil {
			return t, err
		}
		defer f.dismiss(g)
		e := errand{Do: "gulp", Endpoint: endpoint, Pipe: "gulped"}
		if _, err := f.ask(g, e); err != nil {
			return t, err
		}
		e.Do, e.Count, e.Size, e.Kind = "offer", offer, 16<<20, "write only"
		return f.send(e)
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

func init() {
	errands["offer"] = offer
	errands["flood"] = flood
	errands["fill"] = fillPipes
	errands["gulp"] = gulp
}

// offer offers by Writes with deadlines.
func offer(h *host, e errand) (t tally, err error) {
	const each = 5 * time.Millisecond
	c, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer c.Close()
	if e.Kind != "write only" {
		if _, err := c.OpenReader(background, e.Pipe); err != nil {
			return t, err
		}
	}
	w, err := c.OpenWriter(background, e.Pipe)
	if err != nil {
		return t, err
	}
	for b := make([]byte, e.Size); t.Offered < e.Count; t.Offered += e.Size {
		if err := w.SetWriteDeadline(time.Now().Add(each)); err != nil {
			return t, err
		}
		n, err := w.Write(b)
		t.Taken += int64(n)
		t.Times++
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return t, err
		}
	}
	t.Found = fmt.Sprintf("%s offered, %s taken", mebibytes(t.Offered), mebibytes(t.Taken))
	return t, w.CloseWithError(errors.New("enough"))
}

// flood offers by bare clients who do not wait for answers. When the broker has dropped
// one, another takes its place.
func flood(h *host, e errand) (t tally, err error) {
	c, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer c.Close()
	clients := 0
	for ; t.Offered < e.Count; clients++ {
		name := fmt.Sprintf("%s %d", e.Pipe, clients)
		r, err := c.OpenReader(background, name)
		if err != nil {
			return t, err
		}
		w, err := connect(e.Endpoint, dialect{extended: clients%2 > 0})
		if err != nil {
			return t, err
		}
		if _, err := w.ask(idOutputOK, w.output(1, name)); err != nil {
			return t, err
		}
		m := w.write(1, make([]byte, e.Size))
		sent, dropped, err := w.pour((e.Count-t.Offered+e.Size-1)/e.Size, func(int64) [][]byte { return m }, func(a answer) {
			if a.id() == idWriteOK {
				t.Taken += e.Size
			}
		})
		if err != nil {
			return t, err
		}
		t.Offered += sent * e.Size
		t.Times += sent
		if dropped {
			t.Dropped++
		}
		w.close()
		r.Close()
	}
	t.Found = fmt.Sprintf("%s offered, %s taken, %s clients dropped", mebibytes(t.Offered), mebibytes(t.Taken), count(t.Dropped))
	return t, nil
}

// fillPipes writes into so many pipes that nobody reads from. Of the WRITEs at most e.AtOnce
// are taken, which is as much as the client may have pending.
func fillPipes(h *host, e errand) (t tally, err error) {
	c, err := connect(e.Endpoint, newDialect)
	if err != nil {
		return t, err
	}
	defer c.close()
	open := func(i int64) [][]byte {
		name := fmt.Sprintf("%s %d", e.Pipe, i/2)
		if i%2 > 0 {
			return c.input(1+uint32(e.Count+i/2), name, modeBytes)
		}
		return c.output(1+uint32(i/2), name)
	}
	if err := c.exchange(2*e.Count, open, map[byte]int64{idOutputOK: e.Count, idInputOK: e.Count}); err != nil {
		return t, err
	}
	chunk := make([]byte, e.Size)
	write := func(i int64) [][]byte { return c.write(1+uint32(i), chunk) }
	if err := c.exchange(e.Count, write, map[byte]int64{idWriteOK: int64(e.AtOnce)}); err != nil {
		return t, err
	}
	if _, err := c.ask(idPingOK, c.ping()); err != nil { // behind all answers that there are
		return t, err
	}
	t.Times, t.Offered, t.Taken = e.Count, e.Count*e.Size, int64(e.AtOnce)*e.Size
	t.Found = fmt.Sprintf("%s offered, %s taken", mebibytes(t.Offered), mebibytes(t.Taken))
	return t, nil
}

// gulp asks for 4 GiB and receives nothing.
func gulp(h *host, e errand) (t tally, err error) {
	c, err := rawConfig{deaf: true}.connect(e.Endpoint)
	if err == nil {
		c, err = c.agree(rarely)
	}
	if err != nil {
		return t, err
	}
	h.kept = append(h.kept, c)
	if _, err := c.ask(idInputOK, c.input(1, e.Pipe, modeBytes)); err != nil {
		return t, err
	}
	return t, c.send(c.read(1, 1<<32-1, readStream))
}
