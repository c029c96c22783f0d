//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Addr is the address of a Listener and of both ends of its connections. It is
// a net.Addr.
type Addr struct {
	Broker string // as the client was told: a name, or an endpoint
	Name   string // where it is listened
}

// Network returns "zpipes".
func (Addr) Network() string { return "zpipes" }

// String returns BROKER/NAME.
func (a Addr) String() string { return a.Broker + "/" + a.Name }

// Dial connects to a Listener of that name. It returns once there is a
// connection, which somebody has accepted or will: as with Unix sockets, a
// listener may have BrokerConfig.Backlog connections before it accepts them.
// Beyond that Dial waits, for as long as ctx allows, whatever
// ClientConfig.Timeout says. (That is for how long it looks for a broker.)
//
// If nobody listens at the client's broker, and that belongs to a cluster, those
// who listen at others take turns.
//
// The connection's two directions are pipes, which count in all limits, but
// have no names; so the name is free for other dials.
//
// The error is a *net.OpError around
//
//   - ErrNoListener, which is syscall.ECONNREFUSED, too: nobody listens there.
//     That is so at once; Dial does not wait for a listener;
//   - ErrPipeMode: the name is a stream's or a queue's;
//   - ctx's error: the backlog was full, or there was no broker (then it is
//     ErrNoBroker, too);
//   - ErrBrokerGone: somebody listens, but at a broker of the cluster that
//     can't be reached;
//   - errors.ErrUnsupported: the broker is older than connections, or knows
//     only the base protocol;
//   - what else OpenReader returns, with net.ErrClosed in place of os.ErrClosed.
func (c *Client) Dial(ctx context.Context, name string) (*Conn, error) {
	n := c.newConn(Addr{c.broker, name})
	patient, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	var full error
	waits := func(err error) error {
		if err != nil && err == patient.Err() {
			full = fmt.Errorf("as many as the backlog has room for have not been accepted (%w)", err)
		}
		return err
	}
	err := c.reachPipe(ctx, name, func(_ context.Context, b *Broker) error {
		return waits(n.dialDirect(patient, b))
	}, func(ctx context.Context) error {
		return c.onConn(ctx, c.endpoint, func(k *conn) error {
			if err := k.needConnections(); err != nil {
				return err
			}
			return waits(k.open(patient, k.pair(n, nil)))
		})
	})
	if err == nil {
		return n, nil
	}
	if full != nil && c.closing.Err() == nil {
		err = full
	}
	return nil, n.fail("dial", err)
}

// DialContext is Dial, in the form that http.Transport and grpc want. With the
// network "zpipes" addr is a listener's name, or what its Addr says. With any
// other a port is cut off that follows the name, and counts for nothing: so in
// "http://NAME/path" a URL's host is a listener's name. For grpc it is
//
//	grpc.NewClient("passthrough:NAME", grpc.WithContextDialer(
//		func(ctx context.Context, name string) (net.Conn, error) {
//			return client.DialContext(ctx, "zpipes", name)
//		}))
func (c *Client) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	name := addr
	if network == (Addr{}).Network() {
		name = strings.TrimPrefix(addr, c.broker+"/")
	} else if host, _, err := net.SplitHostPort(addr); err == nil {
		name = host
	}
	n, err := c.Dial(ctx, name)
	if err != nil {
		return nil, err // not a *Conn that is nil
	}
	return n, nil
}

// Listen listens for connections at a name, which is a kind of its own: nobody
// can open a stream or a queue there. Several may listen at one name, also in
// different processes; those that wait in Accept take turns. The name is free
// when the last of them is closed. Listen waits as OpenReader does.
//
// A Listener is for as long as the client's connection to its broker: when
// Accept returns ErrBrokerGone, listen again.
//
// The error is a *net.OpError around the errors of Dial, ErrNoListener
// excepted.
func (c *Client) Listen(ctx context.Context, name string) (*Listener, error) {
	l := &Listener{client: c, addr: Addr{c.broker, name}}
	l.closing, l.cancel = context.WithCancel(context.Background())
	if err := c.open(ctx, l, name); err != nil {
		l.cancel()
		return nil, l.addr.fail("listen", err)
	}
	return l, nil
}

// Listener takes connections at a name. It is a net.Listener. Its methods may be
// called concurrently.
type Listener struct {
	client  *Client
	addr    Addr
	closing context.Context // done when Close begins
	cancel  context.CancelFunc
	once    sync.Once // Close

	broker *Broker   // it is in this process, or nil
	here   *listener // there
	pipe   *pipe     // the link's, through which nothing comes but its end
	link   *streamLink
}

func (l *Listener) openDirect(_ context.Context, c *Client, b *Broker, name string) error {
	_, err := l.openAtOnce(c, b, name)
	return err
}

func (l *Listener) openAtOnce(c *Client, b *Broker, name string) (done bool, err error) {
	return true, c.enter(l, func() error {
		here, why := b.pipes.listen(name, ownAccess(), time.Now())
		if why != nil {
			return why.openError()
		}
		l.broker, l.here, l.link = b, here, nil
		return nil
	})
}

func (l *Listener) openRemote(ctx context.Context, c *Client, endpoint, name string) error {
	return c.onConn(ctx, endpoint, func(k *conn) error {
		if err := k.needConnections(); err != nil {
			return err
		}
		l.pipe = newInbound(name, 1)
		l.pipe.attach(reader, nil)
		l.link = k.newLink(l, l.pipe, reader, modeListen)
		return k.open(ctx, l.link)
	})
}

// Accept waits for a connection, which is a *Conn. The error is a *net.OpError
// around net.ErrClosed (Close has been called), ErrBrokerGone, or, also for a
// moment only, ErrTooManyPipes, which is Temporary for http.Server.
func (l *Listener) Accept() (net.Conn, error) {
	n := l.client.newConn(l.addr)
	n.accepted = true
	var err error
	if l.here != nil {
		err = n.acceptDirect(l)
	} else if k := l.link.conn; k.alive() {
		err = k.open(l.closing, k.pair(n, l.link))
	} else {
		err = k.closeErr()
	}
	switch {
	case err == nil:
		return n, nil
	case l.closing.Err() != nil:
		err = net.ErrClosed
	}
	return nil, l.addr.fail("accept", err)
}

// Addr returns the Listener's address, an Addr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close ends the listening: Accepts that wait return net.ErrClosed. If nobody
// else listens at that name, those who have dialled and were not accepted are
// turned away. What was accepted stays open. Close waits until the name is
// free, for ClientConfig.Timeout at most, and returns nil; a second one waits
// for the first.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.cancel()
		if l.here != nil {
			l.broker.pipes.quit(l.here, listenerClosed)
		} else {
			l.pipe.mu.Lock()
			l.pipe.leave(reader, cause{})
			l.pipe.mu.Unlock()
			l.link.awaitDone(l.client.cfg.Timeout)
		}
		l.client.forget(l)
	})
	return nil
}

func (l *Listener) shutDown() error { return l.Close() }

// newConn returns a connection that is not open yet.
func (c *Client) newConn(a Addr) *Conn {
	n := &Conn{client: c, addr: a, peer: new(atomic.Pointer[Access]), down: make(chan struct{})}
	n.r.role, n.r.self = reader, &n.r
	n.w.role, n.w.self = writer, &n.w
	return n
}

// bring makes the connection's ends those of pipes of a broker in this process.
func (n *Conn) bring(b *Broker) func(in, out *pipe) {
	return func(in, out *pipe) {
		n.r.broker, n.w.broker, n.r.link, n.w.link = b, b, nil, nil
		n.r.init(n.client, in)
		n.w.init(n.client, out)
		in.mu.Lock()
		in.attach(reader, n.r.wake)
		in.mu.Unlock()
		out.mu.Lock()
		defer out.mu.Unlock()
		out.openWindow(n.client.cfg.Window)
		out.attach(writer, n.w.wake)
	}
}

// ownAccess is what there is to say of this process.
func ownAccess() Access {
	who, _ := peerOf("")
	return who
}

func (n *Conn) dialDirect(ctx context.Context, b *Broker) error {
	woken := newBell()
	d, why := b.pipes.dial(n.addr.Name, ownAccess(), woken.ring, n.bring(b), time.Now())
	if why != nil {
		return why.openError()
	}
	n.peer = &d.accepted
	err := func() error {
		for {
			switch why, done := b.pipes.dialled(d); {
			case why != nil:
				return why.openError()
			case done:
				return n.client.enter(n, func() error { return nil })
			}
			select {
			case <-woken:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}()
	if err != nil {
		n.w.finish(never)
		n.r.finish(never)
	}
	return err
}

// errWaits is between acceptDirect and what it has Client.enter do.
var errWaits = errors.New("nobody has dialled yet")

func (n *Conn) acceptDirect(l *Listener) error {
	woken, pipes := newBell(), l.broker.pipes
	a := pipes.accept(l.here, woken.ring)
	for {
		err := n.client.enter(n, func() error {
			switch d, why, done := pipes.enterAccepted(a, n.bring(l.broker)); {
			case why != nil:
				return why.openError()
			case !done:
				return errWaits
			default:
				n.peer.Store(&d.dialler)
				return nil
			}
		})
		if err == errWaits {
			select {
			case <-woken:
				continue
			case <-l.closing.Done():
			}
		}
		if err != nil {
			pipes.forgo(a)
		}
		return err
	}
}

// fail is an error of the net package's.
func (a Addr) fail(op string, err error) error {
	var ours *OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours) && error(ours) == err:
		err = ours.Err
	}
	if err == os.ErrClosed {
		err = net.ErrClosed
	}
	if _, ok := err.(interface{ Timeout() bool }); !ok {
		err = netError{err}
	}
	return &net.OpError{Op: op, Net: a.Network(), Addr: a, Err: err}
}

// A netError is what a net.OpError asks its Err for.
type netError struct{ error }

func (e netError) Unwrap() error { return e.error }

func (e netError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.error, &t) && t.Timeout()
}

// Temporary says that an Accept may succeed a moment later.
func (e netError) Temporary() bool { return errors.Is(e.error, ErrTooManyPipes) }
