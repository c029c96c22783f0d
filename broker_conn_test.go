//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A broker that serves no endpoint has a connection for those of its process who need a
// session.
func TestPeerConnServesAQueuesBytes(t *testing.T) {
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	r := &rig{T: t, broker: b.Name()}
	r.client = r.newClient(ClientConfig{})
	q, err := r.client.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	rd, w := r.reader("q"), r.writer("q")
	if _, err := w.WriteString("one"); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(rd, got); err != nil || string(got) != "one" {
		t.Errorf("read %q, %v", got, err)
	}
	if n := b.Stats().Clients; n != 1 {
		t.Errorf("%d clients", n)
	}
	done := inBackground(func() (int, error) { return rd.Read(got) })
	b.Close()
	if got := r.within(soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("a Read at a closed broker: %v", got.err)
	}
	if n := b.Stats().Clients; n != 0 {
		t.Errorf("%d clients after the end", n)
	}
}

// joined is a client's end of a connection in memory, that has said nothing yet.
func joined(t *testing.T, b *Broker) *memoryConn {
	mine, its := newMemoryConn()
	who, _ := peerOf("")
	if err := b.join(its, who, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mine.close)
	return mine
}

// says sends a message.
func (m *memoryConn) says(t *testing.T, say message) {
	t.Helper()
	if err := m.send(say.append(nil)); err != nil {
		t.Fatal(err)
	}
}

// hears returns the next message, which has to be of that kind.
func (m *memoryConn) hears(t *testing.T, id messageID) message {
	t.Helper()
	p, ok := m.wait(time.Now().Add(soon))
	if !ok {
		t.Fatalf("nothing comes, where message %d should", id)
	}
	got, err := parse(p.frame)
	if err != nil || got.id != id {
		t.Fatalf("message %d (%v), want %d", got.id, err, id)
	}
	return got
}

// ends checks that the broker has hung up.
func (m *memoryConn) ends(t *testing.T) {
	t.Helper()
	if p, ok := m.wait(time.Now().Add(2 * helloTime)); ok {
		got, _ := parse(p.frame)
		t.Fatalf("message %d, where the end should come", got.id)
	}
	if m.connected() {
		t.Fatal("still connected")
	}
}

// A client's conversation with a broker is the same over any connection.
func TestPeerConnConformance(t *testing.T) {
	t.Parallel()
	for _, path := range scriptPaths(t, "v2", "old", "hello", "fixes", "broadcast") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			scriptPlayTo(t, path, func(cfg BrokerConfig) func() (scriptConn, error) {
				cfg.Endpoints = []string{}
				b := startBroker(t, cfg)
				return func() (scriptConn, error) { return &scriptTransport{transport: joined(t, b)}, nil }
			})
		})
	}
}

// All that a user's clients may have open they may have over several connections, and no
// more than that.
func TestPeerConnsOfAUserShareItsLimit(t *testing.T) {
	const limit, conns = 20, 4
	b := startBroker(t, BrokerConfig{Endpoints: []string{}, PerUser: Limits{Pipes: limit}})
	results := make(chan int, conns)
	for i := range conns {
		r := &rig{T: t, broker: b.Endpoints()[0]}
		r.client = r.newClient(ClientConfig{})
		go func() {
			open := 0
			for n := range limit {
				q, err := r.client.OpenReader(t.Context(), fmt.Sprint(i, n))
				if err == nil {
					open++
					t.Cleanup(func() { q.Close() })
				} else if !errors.Is(err, ErrTooManyPipes) {
					t.Error(err)
				}
			}
			results <- open
		}()
	}
	sum := 0
	for range conns {
		sum += <-results
	}
	if sum != limit {
		t.Errorf("%d ends are open, of %d", sum, limit)
	}
}

// Clients that send without end take turns: else one that has something small to ask would
// wait 10 ms for each of them.
func TestPeerConnsTakeTurns(t *testing.T) {
	const conns, chunks = 6, 1000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	q, err := b.Client().OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	q.queue.mu.Lock()      // so that all is there before any of it is taken
	left := map[byte]int{} // chunks of those who have not all taken
	for i := range conns {
		left[byte('a'+i)] = chunks
		c := joined(t, b)
		c.says(t, message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 10_000}})
		c.says(t, message{id: msgInput, text: []byte("q"), mode: modeQueue, block: hasBlock, channel: 1})
		for range chunks {
			c.says(t, message{id: msgWrite, chunk: packed(string(rune('a' + i))), block: hasBlock, channel: 1})
		}
	}
	q.queue.mu.Unlock()
	last, run, most := byte(0), 0, 0
	for range conns * chunks {
		chunk, err := q.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if chunk[0] != last {
			last, run = chunk[0], 0
		}
		run++
		if left[last]--; left[last] == 0 {
			delete(left, last)
		}
		if len(left) > 1 { // else nobody else wants a turn
			most = max(most, run)
		}
	}
	if most > 4*inARow {
		t.Errorf("%d messages of one client were taken in a row", most)
	}
}

// Who waits for an answer before the next question steps aside for nobody: beside goroutines
// that compute, each time would take 10 ms or more.
func TestPeerConnThatWaitsStepsAsideForNobody(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	const messages, turns = 100 * inARow, 100
	for _, waited := range []bool{false, true} {
		s := &pinging{left: messages, waited: waited, closed: make(chan struct{})}
		var got atomic.Int64 // turns of somebody else
		go func() {
			for s.connected() {
				got.Add(1)
				runtime.Gosched()
			}
		}()
		if err := b.join(s, unknownAccess, ""); err != nil {
			t.Fatal(err)
		}
		<-s.closed
		if n := got.Load(); waited == (n > turns/2) {
			t.Errorf("with waiting %v, others had %d turns while %d messages were taken", waited, n, messages)
		}
	}
}

// pinging is a transport on which somebody asks PINGs, one after the other or all at once,
// and then hangs up.
type pinging struct {
	left   int
	waited bool
	over   atomic.Bool
	closed chan struct{}
}

func (s *pinging) wait(time.Time) (packet, bool) {
	if s.left == 0 {
		s.over.Store(true)
		return packet{}, false
	}
	s.left--
	return packet{frame: (&message{id: msgPing}).append(nil), waited: s.waited}, true
}

func (s *pinging) send(...[]byte) error { return nil }
func (s *pinging) stalled() bool        { return false }
func (s *pinging) connected() bool      { return !s.over.Load() }
func (s *pinging) wake()                {}
func (s *pinging) linger(time.Duration) {}
func (s *pinging) close()               { close(s.closed) }

func TestMemoryConnSaysWhetherItWaited(t *testing.T) {
	mine, its := newMemoryConn()
	saysWhetherItWaited(t, mine, its)
}

// saysWhetherItWaited tries what a transport's owner is told of that.
func saysWhetherItWaited(t *testing.T, from, to transport) {
	if p, ok := to.wait(time.Now().Add(soon / 50)); ok || !p.waited {
		t.Errorf("a message %v, waited %v, where nothing comes", ok, p.waited)
	}
	for range 2 {
		from.send([]byte("x"))
	}
	from.wait(time.Unix(1, 0)) // so that it leaves
	for range 2 {
		if p, ok := to.wait(time.Now().Add(soon)); !ok || p.waited {
			t.Errorf("a message %v, waited %v, where one is there", ok, p.waited)
		}
	}
	to.wake()
	if p, ok := to.wait(time.Time{}); ok || p.waited {
		t.Errorf("a message %v, waited %v, where it was woken before", ok, p.waited)
	}
}

// Nonsense over connections in memory ends these, and nothing else.
func FuzzPeerConn(f *testing.F) {
	hi := (&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 500, able: abilities}}).append(nil)
	var all []byte
	for _, m := range everyMessage() {
		m.channel = 1
		frame := m.append(nil)
		all = append(append(all, byte(len(frame))), frame...)
		f.Add(true, append([]byte{byte(len(frame))}, frame...))
	}
	f.Add(true, all)
	f.Add(false, all)
	f.Fuzz(func(t *testing.T, agreed bool, data []byte) {
		b := startBroker(t, BrokerConfig{Endpoints: []string{}, MaxPending: 10_000, MaxPipes: 20})
		r := &rig{T: t, broker: b.Endpoints()[0]}
		r.client = r.newClient(ClientConfig{})
		rd, w := r.pipe("neighbour")
		c := joined(t, b)
		if agreed {
			c.send(hi)
		}
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			if c.send(data[1:1+n]) != nil {
				break
			}
			data = data[1+n:]
		}
		c.send((&message{id: msgPing}).append(nil)) // always answered, or the end
		for c.connected() {
			if p, ok := c.wait(time.Now().Add(soon)); ok {
				m, err := parse(p.frame)
				if err != nil {
					t.Fatalf("%x: %v", p.frame, err)
				}
				if m.id == msgPingOK && m.block == noBlock {
					break
				}
			} else if c.connected() {
				t.Fatal("no answer any more")
			}
		}
		c.close()
		if _, err := w.WriteString("x"); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(rd); err != nil || string(got) != "x" {
			t.Errorf("the neighbour got %q, %v", got, err)
		}
		eventuallyWithin(t, soon, "only the neighbour is left", func() bool { return b.Stats().Clients == 1 })
	})
}
