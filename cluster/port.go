package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// A port is where a broker and the others of its cluster connect. Who comes is a stranger until
// the handshake has shown that he has the secret.
type port struct {
	cfg      Config
	host     zpipes.ClusterHost
	listener net.Listener
	stop     chan struct{} // closed when Close begins
	once     sync.Once
	running  sync.WaitGroup

	mu        sync.Mutex // guards what follows; no other lock is taken under it
	keys      *keys
	strangers map[net.Conn]bool
	conns     map[*conn]bool // encrypted
	closed    bool
}

// A conn is an encrypted connection.
type conn struct {
	*tls.Conn
	port *port
	key  *memberKey
}

const (
	// handshakeTime is how long a stranger may stay one.
	handshakeTime = 5 * time.Second
	// reconnectEvery is when another socket is tried.
	reconnectEvery = 500 * time.Millisecond
	// rereadEvery is how often the key file is looked at.
	rereadEvery = 2 * time.Second
	// Who can't be let in for want of descriptors waits so long, and then longer.
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
)

var (
	errOtherSecret = errors.New("it has another secret than this cluster; compare what zpipes key --public FILE prints on both machines")
	errStalled     = fmt.Errorf("it took more than %v to show that it has the secret", handshakeTime)
	errNotTLS      = errors.New("it does not speak the cluster's protocol, which is TLS")
)

func newPort(cfg Config, host zpipes.ClusterHost, l net.Listener, k *keys) *port {
	return &port{
		cfg: cfg, host: host, listener: l, stop: make(chan struct{}), keys: k,
		strangers: make(map[net.Conn]bool), conns: make(map[*conn]bool),
	}
}

func (p *port) start() {
	p.running.Go(p.accept)
	p.running.Go(p.watch)
}

func (p *port) Address() string         { return p.cfg.Advertise }
func (p *port) Join() []string          { return p.cfg.Join }
func (p *port) Patience() time.Duration { return p.cfg.Patience }

// Close lets nobody in any more. Connections that were made stay.
func (p *port) Close() (err error) {
	p.once.Do(func() {
		close(p.stop)
		err = p.listener.Close()
		p.mu.Lock()
		p.closed = true
		for c := range p.strangers {
			c.Close()
		}
		p.mu.Unlock()
	})
	p.running.Wait()
	return err
}

// accept lets others in, until Close.
func (p *port) accept() {
	for pause := leastPause; ; {
		c, err := p.listener.Accept()
		switch {
		case err == nil:
			pause = leastPause
			p.knock(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			p.host.Log("a broker has to wait at the cluster's port", "why", err)
			select {
			case <-p.stop:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, mostPause)
		}
	}
}

// knock has a stranger looked at, if there are not too many.
func (p *port) knock(c net.Conn) {
	leave, err := p.host.Enter(c)
	if err != nil {
		p.host.Refused(hostOf(c), err)
		c.Close()
		return
	}
	if !p.enter(c) {
		leave()
		c.Close()
		return
	}
	p.running.Go(func() {
		defer leave()
		k, err := p.welcome(c)
		if p.leave(c); err != nil {
			c.Close()
			if why := explain(err); why != nil {
				p.host.Refused(hostOf(c), why)
			}
			return
		}
		p.host.Accept(k)
	})
}

func (p *port) enter(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.strangers[c] = true
	}
	return !p.closed
}

func (p *port) leave(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.strangers, c)
}

func (p *port) allKeys() *keys {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys
}

// welcome has a stranger show that he has a secret.
func (p *port) welcome(c net.Conn) (*conn, error) {
	c.SetDeadline(time.Now().Add(handshakeTime))
	k := p.allKeys()
	t := tls.Server(c, &tls.Config{GetConfigForClient: k.choose, MinVersion: tls.VersionTLS13})
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	for _, m := range k.all {
		if m.name == t.ConnectionState().ServerName {
			return p.made(t, m)
		}
	}
	return nil, errOtherSecret
}

// made has a connection ready.
func (p *port) made(t *tls.Conn, m *memberKey) (*conn, error) {
	c := &conn{t, p, m}
	c.SetDeadline(time.Time{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.keys.has(m) {
		return nil, errOtherSecret
	}
	p.conns[c] = true
	return c, nil
}

// Close sends no alert: it could have to wait, and what is said inside says when it is over.
func (c *conn) Close() error {
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	return c.NetConn().Close()
}

// Dial connects to a broker, with the secret that is in use, or one after the other.
func (p *port) Dial(ctx context.Context, address string) (net.Conn, error) {
	var first error
	for _, m := range p.allKeys().all {
		c, err := p.dial(ctx, address, m)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, errOtherSecret) {
			break
		}
	}
	return nil, fmt.Errorf("%s: %w", address, first)
}

func (p *port) dial(ctx context.Context, address string, m *memberKey) (net.Conn, error) {
	c, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, m.config)
	if err = t.HandshakeContext(ctx); err == nil {
		var k *conn
		if k, err = p.made(t, m); err == nil {
			return k, nil
		}
	}
	c.Close()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" {
		err = errOtherSecret
	}
	if why := explain(err); why != nil {
		err = why
	}
	return nil, err
}

// connect is as DialContext, with another socket each reconnectEvery: the system waits ever longer
// before it tries again, and what was cut for some seconds would be tried seconds after it is whole.
func connect(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		c   net.Conn
		err error
	}
	results := make(chan result)
	trying := 0
	try := func() {
		trying++
		go func() {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			select {
			case results <- result{c, err}:
			case <-ctx.Done():
				if err == nil {
					c.Close()
				}
			}
		}()
	}
	again := time.NewTicker(reconnectEvery)
	defer again.Stop()
	for try(); ; {
		select {
		case r := <-results:
			if trying--; r.err == nil || trying == 0 {
				return r.c, r.err
			}
		case <-again.C:
			try()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// explain is what people need to know of a handshake that has failed; nil: it has just ended.
func explain(err error) error {
	var header tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.Is(err, io.EOF): // also who only looks whether the port is there
		return nil
	case errors.As(err, &header):
		return errNotTLS
	case errors.Is(err, errOtherSecret):
		return errOtherSecret
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errStalled
	case errors.As(err, &alert) && alert.Op == "remote error":
		return errOtherSecret
	case errors.As(err, &alert):
		return nil
	}
	return err
}

func hostOf(c net.Conn) string {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return host
}

// watch reads the key file again when it has changed.
func (p *port) watch() {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	tried := p.allKeys().at
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		at := stateOf(p.cfg.KeyFile)
		if at == tried {
			continue
		}
		tried = at
		k, err := readKeys(p.cfg.KeyFile)
		if err != nil {
			p.host.Log("the cluster's key file can't be used, and all stays as it was", "why", err)
			continue
		}
		p.replace(k)
		p.host.Log("the cluster's keys changed", "secrets", len(k.all))
	}
}

// replace has other keys count from now on.
func (p *port) replace(k *keys) {
	p.mu.Lock()
	p.keys = k
	var gone []*conn
	for c := range p.conns {
		if !k.has(c.key) {
			gone = append(gone, c)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		c.Close()
	}
}
