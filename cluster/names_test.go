package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zpipes/zpipes"
)

// A nameServer says that every name is that of the same hosts, in the same order.
type nameServer struct {
	mu    sync.Mutex // guards what follows
	hosts []net.IP
	asked int
}

func (s *nameServer) set(hosts ...net.IP) (asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = hosts
	return s.asked
}

func (s *nameServer) wasAsked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// answer answers a question of the DNS (RFC 1035).
func (s *nameServer) answer(question []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	const head, typeA = 12, 1
	end := head + bytes.IndexByte(question[head:], 0) + 5
	said := append(slices.Clone(question[:2]), 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	said = append(said, question[head:end]...)
	if question[end-3] != typeA {
		return said
	}
	s.asked++
	said[7] = byte(len(s.hosts))
	for _, ip := range s.hosts {
		said = append(append(said, 0xc0, head, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4), ip.To4()...)
	}
	return said
}

// askedAt is where a nameServer is; nil: there is none.
var askedAt atomic.Pointer[string]

// dialNameServer is for net.DefaultResolver, which is set once, since dials of earlier tests may still use it.
func dialNameServer(ctx context.Context, network, address string) (net.Conn, error) {
	if at := askedAt.Load(); at != nil {
		network, address = "udp", *at
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// serveNames has one asked for all names until the test ends.
func serveNames(t *testing.T) *nameServer {
	s := new(nameServer)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := c.LocalAddr().String()
	askedAt.Store(&at)
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(s.answer(b[:n]), from)
		}
	})
	t.Cleanup(func() {
		askedAt.Store(nil)
		c.Close()
		serving.Wait()
	})
	return s
}

// Brokers meet that know of each other by one name for all their hosts alone, though each of them finds itself there first.
func TestBrokersJoinByOneName(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux all of 127.0.0.0/8 is this machine")
	}
	names := serveNames(t)
	_, port, _ := net.SplitHostPort(freeAddress(t))
	file := keyFile(t, zpipes.NewKey())
	hosts := []net.IP{net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3), net.IPv4(127, 0, 0, 4)}
	var brokers []*zpipes.Broker
	for i := range hosts {
		asked := names.set(append(slices.Clone(hosts[i:]), hosts[:i]...)...)
		b, _ := start(t, Config{KeyFile: file, Listen: fmt.Sprint(hosts[i], ":", port), Join: []string{"all.zpipes.test.:" + port}})
		brokers = append(brokers, b)
		eventually(t, "it has looked the name up", func() bool { return names.wasAsked() > asked })
	}
	eventually(t, "all are linked, and nobody is missed", func() bool {
		return !slices.ContainsFunc(brokers, func(b *zpipes.Broker) bool {
			return len(linked(b)) != len(hosts)-1 || len(slices.Collect(b.Members())) != len(hosts)
		})
	})
}
