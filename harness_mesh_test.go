//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A testCluster connects brokers of this process over loopback, unencrypted, and can keep
// bytes from passing between any two of them. (Encryption is tested in the module cluster.)
type testCluster struct {
	mu    sync.Mutex // guards what follows
	ports []*testPort
	cuts  map[[2]int]chan struct{} // from, to: closed at heal
	conns map[*testConn]bool

	patience time.Duration // set before there are brokers
	delay    time.Duration // of what is sent, likewise
	slow     int           // bytes that a connection takes in a twentieth of a second, likewise; 0: any number
	hostless bool          // brokers say at which port they are, and not at which host; likewise
}

func newTestCluster() *testCluster {
	return &testCluster{patience: 10 * time.Second, cuts: make(map[[2]int]chan struct{}), conns: make(map[*testConn]bool)}
}

// broker starts another broker, which joins those there are already.
func (c *testCluster) broker(t testing.TB, change ...func(*BrokerConfig)) *Broker {
	t.Helper()
	cfg := BrokerConfig{Endpoints: []string{}, Cluster: c}
	for _, f := range change {
		f(&cfg)
	}
	b, err := cfg.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// meshed starts so many brokers, and waits until all are linked.
func (c *testCluster) meshed(t testing.TB, n int) []*Broker {
	t.Helper()
	var brokers []*Broker
	for range n {
		brokers = append(brokers, c.broker(t))
	}
	c.awaitLinks(t, brokers...)
	return brokers
}

// awaitLinks waits until each of them is linked with all others.
func (c *testCluster) awaitLinks(t testing.TB, brokers ...*Broker) {
	t.Helper()
	eventually(t, "all are linked", func() bool {
		for _, b := range brokers {
			for _, other := range brokers {
				if b != other && !b.linkedWith(other) {
					return false
				}
			}
		}
		return true
	})
}

func (b *Broker) linkedWith(other *Broker) bool {
	for m := range b.Members() {
		if m.ID == other.mesh.id.String() {
			return m.State == MemberLinked
		}
	}
	return false
}

// between calls f with both directions between two brokers.
func (c *testCluster) between(a, b *Broker, f func(way [2]int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, y := a.mesh.port.(*testPort).number, b.mesh.port.(*testPort).number
	f([2]int{x, y})
	f([2]int{y, x})
}

// cut lets nothing pass any more, without a word.
func (c *testCluster) cut(a, b *Broker) {
	c.between(a, b, func(way [2]int) {
		if c.cuts[way] == nil {
			c.cuts[way] = make(chan struct{})
		}
	})
}

// cutFrom is cut for what comes from a alone.
func (c *testCluster) cutFrom(a, b *Broker) {
	first := true
	c.between(a, b, func(way [2]int) {
		if first && c.cuts[way] == nil {
			c.cuts[way] = make(chan struct{})
		}
		first = false
	})
}

// heal ends cut.
func (c *testCluster) heal(a, b *Broker) {
	c.between(a, b, func(way [2]int) {
		if healed := c.cuts[way]; healed != nil {
			close(healed)
			delete(c.cuts, way)
		}
	})
}

// sever ends the connections that there are.
func (c *testCluster) sever(a, b *Broker) {
	var conns []*testConn
	c.between(a, b, func(way [2]int) {
		for k := range c.conns {
			if k.way == way {
				conns = append(conns, k)
			}
		}
	})
	for _, k := range conns {
		if tcp, ok := k.Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		k.Close()
	}
}

// takesNoData keeps a, which stays linked with b, from connections to it for data.
func (c *testCluster) takesNoData(a, b *Broker) {
	b.mesh.port.(*testPort).listener.Close()
	a.mesh.mu.Lock()
	f := a.mesh.fellows[b.mesh.id]
	client := f.bulkClient()
	f.client = nil
	a.mesh.mu.Unlock()
	client.abandon()
}

// severAgain is sever once much has come to b since the last time: on a busy machine it takes a
// while until they are connected again, and they must be for anything to go on.
func (c *testCluster) severAgain(a, b *Broker, came *int64) bool {
	now := b.Stats().BytesIn
	if now < *came+1<<20 {
		return false
	}
	*came = now
	c.sever(a, b)
	return true
}

// healed is closed when bytes pass; nil: they do.
func (c *testCluster) healed(way [2]int) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts[way]
}

// Open is Cluster's.
func (c *testCluster) Open(host ClusterHost) (ClusterPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &testPort{cluster: c, number: len(c.ports), listener: l}
	for _, other := range c.ports {
		p.join = append(p.join, other.reached())
	}
	c.ports = append(c.ports, p)
	p.serving.Go(func() { p.serve(host) })
	return p, nil
}

type testPort struct {
	cluster  *testCluster
	number   int
	listener net.Listener
	join     []string
	serving  sync.WaitGroup
}

func (p *testPort) serve(host ClusterHost) {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() {
			leave, err := host.Enter(c)
			if err != nil {
				c.Close()
				return
			}
			defer leave()
			var from [1]byte
			c.SetDeadline(time.Now().Add(time.Second))
			if _, err := io.ReadFull(c, from[:]); err != nil {
				c.Close()
				return
			}
			c.SetDeadline(time.Time{})
			host.Accept(p.cluster.conn(c, [2]int{int(from[0]), p.number}))
		})
	}
}

func (p *testPort) Dial(ctx context.Context, address string) (net.Conn, error) {
	p.cluster.mu.Lock()
	to := slices.IndexFunc(p.cluster.ports, func(x *testPort) bool { return x.reached() == address })
	p.cluster.mu.Unlock()
	if to < 0 {
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	for _, way := range [][2]int{{p.number, to}, {to, p.number}} {
		if healed := p.cluster.healed(way); healed != nil {
			select {
			case <-healed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{byte(p.number)}); err != nil {
		c.Close()
		return nil, err
	}
	return p.cluster.conn(c, [2]int{to, p.number}), nil
}

// reached is where others reach it.
func (p *testPort) reached() string { return p.listener.Addr().String() }

func (p *testPort) Address() string {
	if p.cluster.hostless {
		return strings.TrimPrefix(p.reached(), "127.0.0.1")
	}
	return p.reached()
}

func (p *testPort) Join() []string          { return p.join }
func (p *testPort) Patience() time.Duration { return p.cluster.patience }

func (p *testPort) Close() error {
	err := p.listener.Close()
	p.serving.Wait()
	return err
}

// A testConn is one end of a connection. What comes to it while its way is cut, comes when that is healed.
type testConn struct {
	net.Conn
	cluster *testCluster
	way     [2]int // from, to
	closed  chan struct{}
	once    sync.Once

	mu       sync.Mutex // guards deadline
	deadline time.Time
}

func (c *testCluster) conn(conn net.Conn, way [2]int) *testConn {
	k := &testConn{Conn: conn, cluster: c, way: way, closed: make(chan struct{})}
	if c.delay > 0 {
		k.Conn = newLateConn(conn, c.delay)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[k] = true
	return k
}

// A lateConn is a connection on which what comes, comes later.
type lateConn struct {
	net.Conn
	coming chan lateBytes
	closed chan struct{}
	lateBytes
}

type lateBytes struct {
	b   []byte
	err error
	due time.Time
}

func newLateConn(c net.Conn, delay time.Duration) *lateConn {
	k := &lateConn{Conn: c, coming: make(chan lateBytes, 1<<12), closed: make(chan struct{})} // more than comes in that time
	go func() {
		for {
			b := make([]byte, 64<<10)
			n, err := c.Read(b)
			select {
			case k.coming <- lateBytes{b[:n], err, time.Now().Add(delay)}:
			case <-k.closed:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return k
}

func (k *lateConn) Close() error {
	close(k.closed) // once: it is a testConn's
	return k.Conn.Close()
}

func (k *lateConn) Read(b []byte) (int, error) {
	if len(k.b) == 0 && k.err == nil {
		select {
		case k.lateBytes = <-k.coming:
		case <-k.closed:
			return 0, net.ErrClosed
		}
		time.Sleep(time.Until(k.due))
	}
	n := copy(b, k.b)
	if k.b = k.b[n:]; n > 0 {
		return n, nil
	}
	return 0, k.err
}

func (k *testConn) Read(b []byte) (int, error) {
	n, err := k.Conn.Read(b)
	for {
		healed := k.cluster.healed(k.way)
		if healed == nil {
			return n, err
		}
		k.mu.Lock()
		deadline := k.deadline
		k.mu.Unlock()
		var over <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-healed:
		case <-k.closed:
			return 0, net.ErrClosed
		case <-over:
			return 0, os.ErrDeadlineExceeded // nobody goes on behind it
		}
	}
}

func (k *testConn) Write(b []byte) (n int, err error) {
	slow := k.cluster.slow
	if slow == 0 {
		return k.Conn.Write(b)
	}
	for n < len(b) && err == nil {
		var m int
		m, err = k.Conn.Write(b[n:min(len(b), n+slow)])
		n += m
		select {
		case <-time.After(time.Duration(m) * time.Second / time.Duration(20*slow)):
		case <-k.closed:
		}
	}
	return n, err
}

func (k *testConn) SetDeadline(t time.Time) error {
	k.mu.Lock()
	k.deadline = t
	k.mu.Unlock()
	return k.Conn.SetDeadline(t)
}

func (k *testConn) Close() error {
	err := errors.New("closed twice")
	k.once.Do(func() {
		close(k.closed)
		k.cluster.mu.Lock()
		delete(k.cluster.conns, k)
		k.cluster.mu.Unlock()
		err = k.Conn.Close()
	})
	return err
}
