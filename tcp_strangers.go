//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// strangers counts connections by tcp of whom it is not known yet whether they may come in.
// A network that has many leaves room for the others.
type strangers struct {
	mu  sync.Mutex // guards what follows; no other lock is taken under it
	all int
	of  map[netip.Prefix]int
}

const (
	maxStrangers     = 1024
	maxStrangersEach = 128
)

// enter counts one more, unless they are too many. leave takes it off.
func (g *strangers) enter(c net.Conn) (leave func(), err error) {
	from, left := networkOf(c.RemoteAddr()), math.MaxInt
	if s, ok := c.(syscall.Conn); ok {
		_, left = descriptorsLeft(s)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	// Another one is libzmq's, and one leads there; each of the others may be about to
	// need as many.
	case left <= 2*(g.all+1):
		return nil, errors.New("the broker's process has no more file descriptors for connections")
	case g.of[from] >= maxStrangersEach:
		return nil, fmt.Errorf("%d others from there have not said yet who they are", g.of[from])
	case g.all >= maxStrangers:
		return nil, fmt.Errorf("%d others have not said yet who they are", g.all)
	}
	if g.of == nil {
		g.of = make(map[netip.Prefix]int)
	}
	g.all++
	g.of[from]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.of[from]--; g.of[from] == 0 {
			delete(g.of, from)
		}
	}, nil
}

// networkOf is what somebody has who has an address: for IPv6, 64 bits of it are theirs.
func networkOf(a net.Addr) netip.Prefix {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}
