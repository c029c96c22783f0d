//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

var (
	// errUnserved: nobody serves the endpoint, now.
	errUnserved = errors.New("nobody serves it")
	// errTurnedAway: the broker of another user has hung up at once.
	errTurnedAway = fmt.Errorf("%w: the broker turns user %d away; its BrokerConfig.AllowUIDs can allow it", fs.ErrPermission, os.Geteuid())
	// errSilent: the same may be the case. libzmq 4.3.4 forgets now and then to say that
	// a connection was turned away.
	errSilent = errors.New("no answer")
	// errHere: the broker has come up in this very process.
	errHere = errors.New("the broker is in this process")
)

// dial connects and finds out what the broker can do. It retries while nobody
// serves the endpoint, until ctx ends, or the client does.
func dial(ctx context.Context, c *Client, endpoint string) (*conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	k, err := redial(ctx, c, endpoint)
	switch {
	case err == nil || c.closing.Err() == nil:
		return k, err
	case c.fellow != nil:
		return nil, errHasLeft
	}
	return nil, os.ErrClosed
}

func redial(ctx context.Context, c *Client, endpoint string) (*conn, error) {
	turned := 0    // away, one after the other
	var told error // why a try failed that had its time
	for pause := redialAfter; ; pause = min(2*pause, redialAtMost) {
		k, err := dialBadges(ctx, c, endpoint)
		if told != nil && ctx.Err() != nil && (err == ctx.Err() || errors.Is(err, errUnserved)) {
			err = told
		}
		told = err
		away := err == errTurnedAway || errors.Is(err, errWrongBroker)
		switch {
		case away:
			turned++
		case err != errSilent:
			turned = 0
		}
		retry := away || err == errSilent || errors.Is(err, errUnserved) || errors.Is(err, ErrBrokerGone)
		if err == nil || turned == enoughTurns || !retry {
			return k, err
		}
		for again := time.Now().Add(pause); time.Now().Before(again); {
			if endpoint == c.endpoint && c.local() != nil {
				return nil, errHere
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
			case <-time.After(min(pause, lookAgain)):
			}
		}
	}
}

func dialOnce(ctx context.Context, c *Client, endpoint string, b *badge) (*conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	k := &conn{
		client: c, endpoint: endpoint, at: endpoint, badge: b, largest: c.largestChunk(),
		done:      make(chan struct{}),
		abilities: abilities &^ ableRings,
		links:     make(map[uint32]channelLink),
		watched:   make(map[*queueLink]bool),
		held:      make(map[channelLink]bool),
	}
	if c.tunnel != nil {
		k.tunnel = &tunnelLink{conn: k, tunnel: c.tunnel}
	}
	if err := k.connect(ctx); err != nil {
		return nil, err
	}
	if !c.track(k) {
		k.finish("the client was closed")
		return nil, os.ErrClosed
	}
	patience := ctx
	if k.otherUser {
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, answerTime)
		defer cancel()
	}
	stop := context.AfterFunc(patience, func() { k.kill("no answer") })
	reason := k.meet()
	impatient := !stop()
	switch {
	case reason == "" && !impatient:
		k.shared = k.agreed()
		go k.run()
		return k, nil
	case reason == "":
		reason = "no answer"
	}
	k.finish(reason)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case impatient:
		return nil, errSilent
	}
	return nil, k.dialErr()
}

// dialErr is why a connection has ended before it was of any use.
func (k *conn) dialErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	why := k.denied
	if why == nil && k.lost && !k.greeted && k.otherUser {
		why = errTurnedAway
	}
	if why == nil {
		why = k.err
	}
	return why
}

// connect makes the transport, if somebody serves the endpoint: at ZeroMQ one that finds
// nobody never says so.
func (k *conn) connect(ctx context.Context) (err error) {
	if f := k.client.fellow; f != nil {
		k.abilities = k.client.abilities | peerAbilities
		k.transport, err = f.dialBulk(ctx, k.largest)
		return err
	}
	network, name, _ := strings.Cut(k.endpoint, "://zpipes/")
	if network == "inproc" || network == "memory" {
		b := processBrokers.find(name)
		if b == nil {
			return fmt.Errorf("%w in this process", errUnserved)
		}
		if network == "inproc" && b.zeromq != nil {
			k.closed = func() { b.zeromq.inproc.left(k) }
			return b.zeromq.inproc.admit(k, func() error { return k.dealer(b.zeromq.ctx) })
		}
		mine, its := newMemoryConn()
		who, _ := peerOf("")
		k.transport = mine
		return b.join(its, who, "")
	}
	return k.find(ctx)
}

// find connects to the endpoint, or to the first of a name's places that is served.
func (k *conn) find(ctx context.Context) (err error) {
	at := []string{k.endpoint}
	if c := k.client; c.named && k.endpoint == c.endpoint {
		at = places(c.broker)
	}
	for _, k.at = range at {
		if err = k.connectTo(ctx, k.at); !isUnserved(err) {
			break
		}
	}
	if err == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || outOfDescriptors(err) || isPermanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnserved, err)
}

// connectTo connects, if whoever serves the endpoint may have this client's data.
func (k *conn) connectTo(ctx context.Context, endpoint string) error {
	network, address, err := dialAddress(endpoint, k.badge != nil)
	if err != nil {
		return err
	}
	if isNear(endpoint) {
		return k.connectNear(ctx, endpoint, address)
	}
	dialer := new(net.Dialer)
	if network == "tcp" {
		dialer.Timeout = dialTime
	}
	c, err := dialer.DialContext(ctx, network, address)
	if errors.Is(err, syscall.EACCES) {
		return closedPath(endpoint, address)
	}
	if err != nil {
		return err
	}
	var who Access
	told := false
	if u, ok := c.(*net.UnixConn); ok {
		if who, told = peerCredentials(u); told {
			err = k.client.cfg.trust(who.UID, endpoint)
		}
	}
	c.Close()
	if err != nil {
		return err
	}
	if network == "tcp" {
		k.at = "tcp://" + c.RemoteAddr().String() // of all that localhost may mean
	}
	k.otherUser = told && !ownUser(who.UID) && !rootHere()
	zctx, err := k.client.context()
	if err == nil {
		err = k.dealer(zctx)
	}
	return err
}

// connectNear is connectTo a near door.
func (k *conn) connectNear(ctx context.Context, endpoint, address string) error {
	c, err := dialDoor(ctx, address)
	if errors.Is(err, syscall.EACCES) {
		return closedPath(endpoint, address)
	}
	if err != nil {
		return err
	}
	if who, told := peerCredentials(c); told {
		err = k.client.cfg.trust(who.UID, endpoint)
	}
	if err == nil {
		k.transport, err = newNear(c, k.largest+messageOverhead, math.MaxInt)
	}
	if err != nil {
		c.Close()
		return err
	}
	if g, ok := k.transport.(giver); ok && g.wantDescriptors() {
		k.abilities = abilities
	}
	return nil
}

// closedPath says what keeps this process from a socket.
func closedPath(endpoint, path string) error {
	if _, there := os.Lstat(path); there != nil {
		return fmt.Errorf("%w: a directory of %s keeps user %d out", fs.ErrPermission, endpoint, os.Geteuid())
	}
	return fmt.Errorf("%w: the socket %s is closed to user %d; its BrokerConfig.AllowUIDs can allow it", fs.ErrPermission, endpoint, os.Geteuid())
}

// dealer makes the transport, over ZeroMQ.
func (k *conn) dealer(ctx *zmqContext) error {
	s, err := newDealer(ctx, k.at, k.largest, k.badge)
	if err != nil {
		return err
	}
	s.asks = func([]byte) (string, []string) {
		if k.greeted {
			return "", nil
		}
		return "", []string{peerAddress}
	}
	k.verify = func(p *packet) error { return k.client.cfg.checkServer(p.about[peerAddress], k.at) }
	k.transport = s
	s.watchHandshake(k.notLetIn)
	return nil
}

// checkServer is why a client should not send its data to who answers at an endpoint.
func (cfg *ClientConfig) checkServer(address, endpoint string) error {
	who, ok := peerOf(address)
	switch {
	case !ok:
		return fmt.Errorf("%w: the system does not say who serves %s (%q)", fs.ErrPermission, endpoint, address)
	case who.UID >= 0:
		return cfg.trust(who.UID, endpoint)
	}
	return nil
}

func (cfg *ClientConfig) trust(uid int, endpoint string) error {
	if trusted(uid, cfg.TrustUIDs) {
		return nil
	}
	return fmt.Errorf("%w: %s is served by %s, who is neither this process's own nor root; ClientConfig.TrustUIDs can allow it",
		fs.ErrPermission, endpoint, whose(uid))
}

// outOfDescriptors says that an error is for want of descriptors.
func outOfDescriptors(err error) bool { return isOneOf(err, syscall.EMFILE, syscall.ENFILE) }
