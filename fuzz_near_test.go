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
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
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
	var talk []byte
	for i, say := range ringTalk {
		if i != 1 { // both ends are one client's
			talk = append(talk, framed(say.append(nil))...)
			f.Add(talk, uint16(0), byte(i*31), false)
		}
	}
	talk = nil
	for i, say := range castTalk {
		if i != 1 {
			talk = append(talk, framed(say.append(nil))...)
			f.Add(talk, uint16(0), byte(i*31), false)
		}
	}
	rings(f)
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
		eventually(t, "nothing is left of it", func() bool { return hasOnlyQueues(broker) })
	})
}

// hasOnlyQueues says that a broker holds nothing but queues, which outlive who made them.
func hasOnlyQueues(b *Broker) bool {
	s := b.Stats()
	queues := 0
	for q := range b.Pipes() {
		if q.Mode == ModeQueue {
			queues++
		}
	}
	b.rings.mu.Lock()
	defer b.rings.mu.Unlock()
	return s.Clients == 0 && s.Pipes == queues && len(b.rings.of) == 0
}

// How the broker of FuzzNearClient behaves.
const (
	nearAgrees = 1 << iota // to the extension
	nearReads              // it is asked for a reader, not a writer
	nearGives              // what it says first comes with a ring
	nearPaced              // it says a piece when it has heard something, or a little later
)

// Whatever a broker says at its near door, cut anywhere, and whatever it writes where a ring's
// header should be: opens come to an end, and so does the client.
func FuzzNearClient(f *testing.F) {
	const window, pending = 4 << 10, 8 << 10
	for i, b := range nearSeeds() {
		f.Add(b, uint16(i%3*5000), byte(i*31), byte(i%2), []byte(nil))
	}
	for how := range byte(2) {
		opened := [...]messageID{msgOutputOK, msgInputOK}[how]
		var talk []byte
		for i, m := range []message{
			{id: opened},
			{id: msgOffer, size: window + pending, count: pending},
			{id: msgReadOK, chunk: []byte("some")},
			{id: msgMoved, mode: moveInto},
			{id: msgOffer},
			{id: msgMoved, mode: moveOut, count: 20},
			{id: msgReadEnd},
			{id: msgCloseOK},
		} {
			if m.id == msgReadOK && how == 0 {
				continue
			}
			m.block, m.channel = hasBlock, 1
			talk = append(talk, framed(m.append(nil))...)
			how := nearAgrees | nearReads*how | nearGives
			f.Add(talk, uint16(0), byte(20+i), how, []byte(nil))
			f.Add(talk, uint16(0), byte(20+i), how|nearPaced, []byte{0, 20, 0, 0, 0, 0, 0, 0, 0, byte(i), 1, 1, 1, 1, 1, 1, 1, 1})
		}
	}
	dir, n := f.TempDir(), 0
	f.Fuzz(func(t *testing.T, b []byte, more uint16, cut, how byte, spoils []byte) {
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
			if hi, err := readFramed(c); err == nil && how&nearAgrees != 0 {
				m, _ := parse(hi)
				m.id, m.hello.session, m.hello.number, m.hello.pending, m.hello.total = msgPingOK, 7, 1<<20, 1<<20, 1<<20
				c.Write(framed(m.append(nil)))
			}
			b := b
			if how&nearGives != 0 && len(b) > 0 {
				mem := giveRing(t, c, b[:1], window+pending)
				defer mem.Release()
				b = b[1:]
				defer spoilRing(mem.Bytes(), spoils)
			}
			var to net.Conn = c
			if how&nearPaced != 0 {
				to = pacedConn{c}
			}
			writeCut(to, b, more, cut)
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}()
		c, err := ClientConfig{Window: window}.NewClient(nearScheme + path)
		if err != nil {
			t.Fatal(err)
		}
		done := inBackground(func() (int, error) {
			if how&nearReads == 0 {
				if w, err := c.OpenWriter(ctx, "p"); err == nil {
					w.Write(make([]byte, 1000))
					w.Write(make([]byte, 10))
					w.Close()
				}
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

// A pacedConn waits before each Write a moment for something to have come.
type pacedConn struct{ *net.UnixConn }

func (c pacedConn) Write(b []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	c.Read(make([]byte, 1000))
	c.SetReadDeadline(time.Time{})
	return c.UnixConn.Write(b)
}

// giveRing sends b, and with it what belongs to an offer of a ring, whose memory it returns.
func giveRing(t *testing.T, c *net.UnixConn, b []byte, size int) *ring.Mapping {
	memory, err := ring.Make(size)
	if err != nil {
		t.Error(err)
	}
	one, other, err := ring.MakeBell()
	if err != nil {
		t.Error(err)
	}
	defer closeDescriptors([]int{memory, one, other})
	m, err := ring.Map(memory, size)
	if err != nil {
		t.Error(err)
	}
	c.WriteMsgUnix(b, syscall.UnixRights(memory, one), nil)
	return m
}

// spoilRing writes into a ring's memory: each time a place, and 8 bytes.
func spoilRing(mem, what []byte) {
	for ; len(what) > 8; what = what[9:] {
		at := ringPlaces[int(what[0])%len(ringPlaces)]
		(*atomic.Uint64)(unsafe.Pointer(&mem[at])).Store(binary.NativeEndian.Uint64(what[1:]))
	}
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
