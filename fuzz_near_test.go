//go:build linux && !core

package zpipes

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// nearSeeds are streams of bytes as they may come over a Unix socket.
func nearSeeds() [][]byte {
	m := func(m message) []byte { m.block, m.channel = hasBlock, 1; return framed(m.append(nil)) }
	open := m(message{id: msgOutput, text: []byte("p")})
	write := m(message{id: msgWrite, chunk: make([]byte, 30)})
	return [][]byte{
		nil, {0}, {0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0, 0x10, 0, 0, 0xaa, 0xa0, 12},
		open, append(open, write...), append(open, write[:len(write)-7]...), append(nearHello(), open...),
		append(m(message{id: msgInput, text: []byte("q"), mode: modeQueue}), m(message{id: msgRead, size: 5})...),
		framed((&message{id: msgPing}).append(nil)), []byte("GET / HTTP/1.1\r\n\r\n"),
		m(message{id: msgPingOK}), m(message{id: msgInvalid, code: causeDenied}), m(message{id: msgReadOK, chunk: make([]byte, 100)}),
		m(message{id: msgOutputOK}), m(message{id: msgWriteOK, count: 1 << 31}),
	}
}

// writeCut writes b, and so many zeroes behind it, since only what is short is soon made
// shorter by the fuzzer. Pieces of it are of that size at first.
func writeCut(c net.Conn, b []byte, more uint16, cut byte) {
	b = append(slices.Clone(b), make([]byte, more)...)
	c.SetWriteDeadline(time.Now().Add(soon))
	for size := int(cut) + 1; len(b) > 0; size += size / 8 {
		k, err := c.Write(b[:min(size, len(b))])
		if err != nil {
			return
		}
		b = b[k:]
	}
}

// Whatever bytes come to a near door, cut anywhere: the broker goes on, and when the connection
// has ended it holds nothing of it.
func FuzzNearDoor(f *testing.F) {
	for i, b := range nearSeeds() {
		f.Add(b, uint16(i%3*5000), byte(i*31), i%2 == 0)
	}
	broker, err := BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { broker.Close() })
	f.Fuzz(func(t *testing.T, b []byte, more uint16, cut byte, agrees bool) {
		p, _ := joinNear(t, broker)
		if agrees {
			p.agree(t)
		}
		writeCut(p, b, more, cut)
		p.CloseWrite()
		p.SetReadDeadline(time.Now().Add(2 * soon))
		if _, err := io.Copy(io.Discard, p); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the broker does not hang up")
		}
		eventually(t, "nothing is left of it", func() bool {
			s := broker.Stats()
			queues := 0
			for q := range broker.Pipes() {
				if q.Mode == ModeQueue {
					queues++ // they outlive who made them
				}
			}
			return s.Clients == 0 && s.Pipes == queues
		})
	})
}

// Whatever a broker says at its near door, cut anywhere: opens come to an end, and so does the
// client.
func FuzzNearClient(f *testing.F) {
	for i, b := range nearSeeds() {
		f.Add(b, uint16(i%3*5000), byte(i*31), i%2 == 0)
	}
	dir, n := f.TempDir(), 0
	f.Fuzz(func(t *testing.T, b []byte, more uint16, cut byte, agrees bool) {
		n++
		path := filepath.Join(dir, strconv.Itoa(n))
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			defer cancel() // it has met its broker
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			defer c.Close()
			if hi, err := readFramed(c); err == nil && agrees {
				m, _ := parse(hi)
				m.id, m.hello.session, m.hello.number, m.hello.pending, m.hello.total = msgPingOK, 7, 1<<20, 1<<20, 1<<20
				c.Write(framed(m.append(nil)))
			}
			writeCut(c, b, more, cut)
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}()
		c, err := NewClient(nearScheme + path)
		if err != nil {
			t.Fatal(err)
		}
		done := inBackground(func() (int, error) {
			if w, err := c.OpenWriter(ctx, "p"); err == nil {
				w.Write(make([]byte, 1000))
				w.Close()
			}
			if r, err := c.OpenReader(ctx, "p"); err == nil {
				io.Copy(io.Discard, r)
				r.Close()
			}
			return 0, c.Close()
		})
		select {
		case <-done:
		case <-time.After(4 * soon):
			t.Fatal("the client does not end")
		}
	})
}

// Both ends of a name meet, whichever way each came.
func TestNearAndOtherWaysMeet(t *testing.T) {
	endpoints := []string{"unix://" + filepath.Join(t.TempDir(), "s")}
	if haveZeroMQ {
		endpoints = append(endpoints, "ipc://"+filepath.Join(t.TempDir(), "z"), "tcp://127.0.0.1:*")
	}
	b := startBroker(t, BrokerConfig{Endpoints: endpoints})
	var clients []*Client
	for _, at := range append(b.Endpoints(), b.Name()) {
		c, err := NewClient(at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Ping(t.Context()); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if got := c.Endpoint(); at != b.Name() && got != at || at == b.Name() && got != b.Endpoints()[0] {
			t.Errorf("a client of %s was at %s", at, got)
		}
		clients = append(clients, c)
	}
	if n := b.Stats(); n.Near == 0 || n.Near > n.Clients {
		t.Errorf("%d of %d clients are near", n.Near, n.Clients)
	}
	for i, from := range clients {
		for j, to := range clients {
			name := string(binary.AppendUvarint(nil, uint64(65+len(clients)*i+j)))
			w, err := from.OpenWriter(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := to.OpenReader(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteString("met"); err != nil {
				t.Error(err)
			}
			done := inBackground(func() (int, error) { return 0, w.Close() })
			if got, err := io.ReadAll(r); string(got) != "met" || err != nil {
				t.Errorf("from %s to %s: %q, %v", from.broker, to.broker, got, err)
			}
			if got := <-done; got.err != nil {
				t.Error(got.err)
			}
			r.Close()
			q, err := from.OpenQueue(t.Context(), "q"+name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := to.OpenQueue(t.Context(), "q"+name)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.Send(t.Context(), []byte("met")); err != nil {
				t.Error(err)
			}
			if got, err := p.Receive(t.Context()); string(got) != "met" || err != nil {
				t.Errorf("by a queue from %s to %s: %q, %v", from.broker, to.broker, got, err)
			}
			q.Close()
			p.Close()
		}
	}
}
