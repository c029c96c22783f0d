//go:build linux && !race && !core

package zpipes

import (
	"errors"
	"flag"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
)

var idleConns = flag.Int("idle.conns", 1000, "how many connections TestConnManyIdle makes")

// Connections that are idle cost no thread: many of them, both sides in this process.
func TestConnManyIdle(t *testing.T) {
	overWaysInTurn(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.name != "direct" && r.name != "near" && r.name != "ipc" {
			return
		}
		many := *idleConns
		there := *r
		there.client = r.newClient(ClientConfig{})
		l := there.listen("svc")
		reads := make(chan error, many)
		before := resident(r)
		for range many {
			n, err := r.client.Dial(r.Context(), "svc")
			if err != nil {
				r.Fatal(err)
			}
			defer n.Close()
			a, err := l.Accept()
			if err != nil {
				r.Fatal(err)
			}
			go func() {
				_, err := a.Read(make([]byte, 1))
				reads <- err
				a.Close()
			}()
		}
		threads := ofProcess(r, "Threads")
		r.Logf("%d threads; %.1f KiB for each connection, both its sides, its broker's, and a goroutine that reads", threads, float64(resident(r)-before)/float64(many))
		if most := runtime.GOMAXPROCS(0) + 24; threads > most {
			r.Errorf("%d threads, want %d at most", threads, most)
		}
		there.client.Close()
		for range many {
			<-reads
		}
	})
}

// resident is how many KiB this process has in memory, without what nobody needs any more.
func resident(t testing.TB) int {
	t.Helper()
	debug.FreeOSMemory()
	return ofProcess(t, "VmRSS")
}

// ofProcess is what Linux says of this process.
func ofProcess(t testing.TB, what string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(what + `:\s+(\d+)`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no %s in %s", what, status)
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n
}

// What a dial takes, and what is closed again, beside the round trip of a Ping.
func BenchmarkDial(b *testing.B) {
	for _, w := range ways {
		if w.base {
			continue
		}
		broker, _ := w.start(b, BrokerConfig{})
		here, err := NewClient(broker)
		if err != nil {
			b.Fatal(err)
		}
		there, err := NewClient(broker)
		if err != nil {
			b.Fatal(err)
		}
		l, err := there.Listen(b.Context(), "svc")
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				n, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(n, n); n.Close() }()
			}
		}()
		b.Run(w.name+"/ping", func(b *testing.B) {
			for b.Loop() {
				if _, err := here.Ping(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(w.name+"/refused", func(b *testing.B) {
			for b.Loop() {
				if _, err := here.Dial(b.Context(), "nobody"); !errors.Is(err, ErrNoListener) {
					b.Fatal(err)
				}
			}
		})
		b.Run(w.name+"/dial", func(b *testing.B) {
			for b.Loop() {
				n, err := here.Dial(b.Context(), "svc")
				if err != nil {
					b.Fatal(err)
				}
				n.Close()
			}
		})
		b.Run(w.name+"/echo", func(b *testing.B) {
			n, err := here.Dial(b.Context(), "svc")
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close()
			msg := make([]byte, 64)
			for b.Loop() {
				if _, err := n.Write(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(n, msg); err != nil {
					b.Fatal(err)
				}
			}
		})
		l.Close()
		here.Close()
		there.Close()
	}
}
