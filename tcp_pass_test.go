//go:build unix && !core

package zpipes

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// netPair returns both ends of a connection.
func netPair(t *testing.T, network, address string) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err == nil {
		far, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// passedOn has a door pass on what a client and libzmq say, until done is closed.
func passedOn(t *testing.T, d *tcpDoor) (client, inner net.Conn, done chan struct{}) {
	t.Helper()
	client, here := netPair(t, "tcp", "127.0.0.1:0")
	there, inner := netPair(t, "unix", filepath.Join(t.TempDir(), "s"))
	done = make(chan struct{})
	go func() {
		defer close(done)
		d.pass(here, there, new(lifeSign))
		here.Close()
		there.Close()
	}()
	return client, inner, done
}

// All that travels comes whole and in order, both ways at once, be it moved or copied.
func TestPass(t *testing.T) {
	for what, s := range map[string]sluices{"moved": newSluices(), "copied": *new(sluices)} {
		t.Run(what, func(t *testing.T) {
			d := &tcpDoor{broker: new(Broker), sluices: s}
			client, inner, done := passedOn(t, d)
			var all sync.WaitGroup
			for i, way := range [][2]net.Conn{{client, inner}, {inner, client}} {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				sent := make([]byte, 8<<20)
				for i := range sent {
					sent[i] = byte(random.Uint32())
				}
				all.Go(func() {
					for rest := sent; len(rest) > 0; {
						n := min(len(rest), 1<<random.IntN(19))
						if _, err := way[0].Write(rest[:n]); err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
					}
				})
				all.Go(func() {
					got := make([]byte, len(sent))
					if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, sent) {
						t.Error("what came is not what was sent: ", err)
					}
				})
			}
			all.Wait()
			client.(*net.TCPConn).CloseWrite()
			if n, err := inner.Read(make([]byte, 1)); err != io.EOF {
				t.Error(n, err)
			}
			inner.Close()
			if n, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Error(n, err)
			}
			<-done
		})
	}
}
