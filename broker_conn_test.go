//go:build !core

package zpipes

import (
	"errors"
	"io"
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
	for _, path := range scriptPaths(t, "v2", "old", "fixes") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			script := scriptRead(t, path)
			cfg := scriptConfig(t, script)
			cfg.Endpoints = []string{}
			b := startBroker(t, cfg)
			scriptPlay(t, func() (scriptConn, error) { return &scriptTransport{transport: joined(t, b)}, nil }, path, script)
		})
	}
}
