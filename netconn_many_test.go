//go:build linux && !race && !core

package zpipes

import (
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
)

// Connections that are idle cost no thread: 10,000 of them, both sides in this process.
func TestConnManyIdle(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 connections")
	}
	overWaysInTurn(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.name != "direct" && r.name != "near" && r.name != "ipc" {
			return
		}
		const many = 10_000
		there := *r
		there.client = r.newClient(ClientConfig{})
		l := there.listen("svc")
		reads := make(chan error, many)
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
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			r.Fatal(err)
		}
		threads, _ := strconv.Atoi(regexp.MustCompile(`Threads:\s+(\d+)`).FindStringSubmatch(string(status))[1])
		if most := runtime.GOMAXPROCS(0) + 24; threads > most {
			r.Errorf("%d threads, want %d at most", threads, most)
		}
		there.client.Close()
		for range many {
			<-reads
		}
	})
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
