//go:build unix && !core

package zpipes

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// bulkOf is what a broker has for data to another one.
func bulkOf(b, other *Broker) (all []net.Conn) {
	b.mesh.mu.Lock()
	defer b.mesh.mu.Unlock()
	if c := b.mesh.fellows[other.mesh.id].client; c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for k := range c.conns {
			all = append(all, k.transport.(*far).conn)
		}
	}
	return all
}

// Over a long way a stream has more under way, over several connections, while its reader keeps
// up; directly and of a client elsewhere.
func TestStreamOverALongWay(t *testing.T) {
	t.Parallel()
	(&rig{T: t}).busy()
	c := newTestCluster()
	c.delay = 25 * time.Millisecond
	brokers := []*Broker{c.broker(t), c.broker(t, func(cfg *BrokerConfig) { cfg.Endpoints = nil })}
	c.awaitLinks(t, brokers...)
	b, a := brokers[0], brokers[1]
	eventually(t, "it is known how far they are", func() bool {
		return b.fellow(a).rtt.Load() > 0 && a.fellow(b).rtt.Load() > 0
	})
	elsewhere, err := NewClient(nearDoorOf(t, a))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	for name, client := range map[string]*Client{"directly": a.Client(), "elsewhere": elsewhere} {
		w, err := client.OpenWriter(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Client().OpenReader(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		piece := noise(7, 1<<20)
		most, stop := 0, make(chan struct{})
		done := inBackground(func() (n int, err error) {
			for err == nil {
				select {
				case <-stop:
					return n, w.Close()
				default:
				}
				var k int
				k, err = w.Write(piece)
				n += k
			}
			return n, err
		})
		read, buf, end := 0, make([]byte, len(piece)), time.Now().Add(30*time.Second)
		for stopped := false; err == nil; {
			var n int
			if n, err = io.ReadFull(r, buf); n > 0 && !bytes.Equal(buf[:n], piece[:n]) {
				t.Fatalf("%s: other bytes came behind %d", name, read)
			}
			read += n
			a.pipes.mu.Lock()
			p := a.pipes.pipes()[name]
			a.pipes.mu.Unlock()
			if p != nil && !stopped {
				p.mu.Lock()
				most = max(most, p.unconfirmed)
				p.mu.Unlock()
				if most >= 3<<20 || time.Now().After(end) {
					stopped = true
					close(stop)
				}
			}
		}
		wrote := <-done
		if err != io.EOF || wrote.err != nil || wrote.n != read {
			t.Errorf("%s: %d bytes were written, %v, and %d read, %v", name, wrote.n, wrote.err, read, err)
		}
		if most < 3<<20 { // two brokers take 2 MiB otherwise
			t.Errorf("%s: at most %d bytes were under way", name, most)
		}
		r.Close()
	}
	for _, k := range bulkOf(a, b) {
		if s, ok := k.(*braid); !ok || len(s.strands) != strandsFar {
			t.Errorf("data goes over a %T", k)
		}
	}
	for _, x := range brokers {
		eventually(t, "all room is given back", func() bool { return x.pipes.widened.bytes.Load() == 0 })
	}
}

// BenchmarkStreamOverALongWay writes to a reader at another broker that is 50 ms away.
func BenchmarkStreamOverALongWay(b *testing.B) {
	c := newTestCluster()
	c.delay = 25 * time.Millisecond
	here, there := c.broker(b), c.broker(b)
	c.awaitLinks(b, here, there)
	w, err := here.Client().OpenWriter(b.Context(), "pipe")
	if err != nil {
		b.Fatal(err)
	}
	r, err := there.Client().OpenReader(b.Context(), "pipe")
	if err != nil {
		b.Fatal(err)
	}
	done := inBackground(func() (int, error) {
		n, err := io.Copy(io.Discard, r)
		return int(n), err
	})
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		if _, err := w.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	if read := <-done; read.err != nil {
		b.Error(read.err)
	}
}
