//go:build cgo && !core

package zpipes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Broker joins the writers and readers of named pipes: those in its own process
// directly, all others over ZeroMQ. Its methods may be called concurrently.
type Broker struct {
	name      string
	endpoints []string
	cfg       BrokerConfig
	log       *asyncLog
	pipes     *registry
	locks     []func() // release the endpoints' paths

	closing  chan struct{} // closed when Close begins
	closed   sync.Once
	drained  bool        // no reader was left then; guarded by closing
	stopping atomic.Bool // the loop is to end
	done     chan struct{}

	ctx    *zmqContext
	zap    *zapHandler // nil: in a context that is shared, where somebody else may be asked
	inproc inprocConns
	gate   gate
	posted mailbox[resumer]
	tokens atomic.Uint64

	started  time.Time
	refusals struct {
		mu    sync.Mutex           // guards began; under it only the asyncLog's is taken
		began map[string]time.Time // the latest try of each peer, of late
	}

	reporter reporter

	// The rest belongs to the loop.
	sock      *socket
	now       time.Time // of this round
	sessions  map[string]*session
	order     []*session       // the same, in the order of being looked at
	swept     int              // of order: the next
	users     map[int]*account // by Access.payer; -1: unknown
	alarms    alarms
	congested map[*session]bool
	relieveAt time.Time           // not before
	lost      []*session          // to be dropped before the next message
	left      []*session          // whose connections have ended, but who may have sent something before
	ended     map[string]*session // by routing id: connections that are no more, of which there may be messages
	nextSweep time.Time
	forgetAt  time.Time

	forgetNext int // where to go on looking then
}

const (
	// forgetPause is what others have between two looks at some queues.
	forgetPause = time.Millisecond
	// sweepMost is how many it looks at then. Where there are more, it looks again
	// soon, but not sooner than after sweepLeast.
	sweepMost  = 1024
	sweepLeast = 10 * time.Millisecond
	// lookAfter is how long a client is silent before the system is asked whether its
	// connection is there, and lastWords how long it takes at most, where the broker is
	// never idle, until all that it sent has been received when it is not.
	lookAfter = 500 * time.Millisecond
	lastWords = 500 * time.Millisecond
	// retryEvery is how often it tries to get rid of a backlog.
	retryEvery = 2 * time.Millisecond
	// relieveShare is how many times as long it does something else then.
	relieveShare = 5
	// maxBacklog is how many bytes of answers may wait for a client that does
	// not take them.
	maxBacklog = 4 << 20
	// oneTry is for how long a client that is turned away and comes again is still at the
	// same try: whether it is turned away, or the broker just ends, it can't tell at once.
	oneTry = 3 * time.Second
	// maxTries is how many peers are remembered for that.
	maxTries = 1024
	// maxEnded is how many connections are remembered that are no more.
	maxEnded = 4096
	// goodbyeTime is how long Close waits for clients to take their leave.
	goodbyeTime = 500 * time.Millisecond
)

// NewBroker starts a broker of that name with default settings; it is serving
// when NewBroker returns. Clients in this process and on this machine find it
// by its name, which is 1 to 64 letters, digits, '.', '_' or '-'. An empty name
// picks one that nobody else has, which is what tests want.
//
// The error is an *OpError around
//
//   - ErrBadName, also for an endpoint that can't be served, such as tcp beyond
//     loopback;
//   - ErrBrokerExists; the other broker is not disturbed;
//   - fs.ErrPermission: the directory for BrokerConfig.Private is not this
//     user's alone;
//   - fs.ErrExist: the path of an endpoint is a file that is no socket;
//   - what is wrong with the BrokerConfig, or what kept an endpoint from being
//     bound.
func NewBroker(name string) (*Broker, error) { return BrokerConfig{}.NewBroker(name) }

// NewBroker is the function NewBroker with the settings of cfg.
func (cfg BrokerConfig) NewBroker(name string) (*Broker, error) {
	if name == "" {
		name = "anonymous-" + strings.ToLower(rand.Text()[:16])
	}
	b, err := cfg.newBroker(name)
	if err != nil {
		return nil, &OpError{Op: "start broker", Broker: name, Err: err}
	}
	return b, nil
}

func (cfg BrokerConfig) newBroker(name string) (*Broker, error) {
	if err := checkBrokerName(name); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS == "linux" && !tellsPeers { // an abstract socket would be everybody's
		if slices.ContainsFunc(cfg.Endpoints, func(e string) bool { return strings.HasPrefix(e, "ipc://@") }) {
			return nil, errors.New("this system's C library does not tell who connects; use Private, or an ipc endpoint with a path")
		}
		cfg.Private = cfg.Private || cfg.Endpoints == nil
	}
	undo := func() {}
	if cfg.Private {
		var endpoint string
		if endpoint, undo, err = makePrivate(name); err != nil {
			return nil, err
		}
		cfg.Endpoints = append([]string{endpoint}, cfg.Endpoints...)
	} else if cfg.Endpoints == nil {
		cfg.Endpoints = []string{defaultEndpoint(name)}
	}
	b := &Broker{
		name:      name,
		cfg:       cfg,
		started:   time.Now(),
		log:       newAsyncLog(cfg.Logger, "broker", name),
		pipes:     newRegistry(cfg.MaxPipes, cfg.MaxPending, cfg.MaxMessage),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
		sessions:  make(map[string]*session),
		ended:     make(map[string]*session),
		users:     make(map[int]*account),
		congested: make(map[*session]bool),
	}
	b.gate.ask, b.gate.log = cfg.allow, b.log
	b.forgetAt = time.Now().Add(cfg.ForgetQueues)
	b.tokens.Store(mathrand.Uint64() >> 1)
	if !processBrokers.reserve(name) {
		undo()
		return nil, fmt.Errorf("%w: this process runs one of that name", ErrBrokerExists)
	}
	if err := b.bind(); err != nil {
		b.unbind()
		undo()
		processBrokers.leave(name)
		return nil, err
	}
	go b.serve()
	processBrokers.enter(b)
	b.log.info("broker up", "endpoints", b.endpoints)
	return b, nil
}

func (b *Broker) bind() error {
	var err error
	if b.ctx, err = newContext(b.cfg.Context); err != nil {
		return err
	}
	if !b.ctx.shared {
		// Before any endpoint: without a ZAP handler, libzmq lets everybody in.
		if b.zap, err = newZapHandler(b.ctx, func(address string) error {
			_, err := b.admit(address)
			return err
		}); err != nil {
			return err
		}
	}
	if b.sock, err = newRouter(b.ctx, b.cfg.MaxMessage); err != nil {
		return err
	}
	if b.zap != nil {
		if err := b.sock.useZap(); err != nil {
			return err
		}
	}
	b.sock.asks = b.asks
	if err := b.unique(); err != nil {
		return err
	}
	for _, endpoint := range append([]string{inprocEndpoint(b.name)}, b.cfg.Endpoints...) {
		if err := b.bindTo(endpoint); err != nil {
			return err
		}
	}
	return b.unique() // one that started at the same time has looked before, too
}

// unique says that clients of this user find no other broker by the name that this one
// is found by.
func (b *Broker) unique() error {
	mine := func(endpoint string) bool { return slices.Contains(b.cfg.Endpoints, endpoint) }
	at := places(b.name)
	if !slices.ContainsFunc(at, mine) {
		return nil
	}
	for _, endpoint := range at {
		if !mine(endpoint) && servesOwn(endpoint) {
			return fmt.Errorf("%s: %w: some clients would find that one, and some this", endpoint, ErrBrokerExists)
		}
	}
	return nil
}

func (b *Broker) bindTo(endpoint string) error {
	endpoint, network, address, err := bindAddress(endpoint)
	if err != nil {
		return err
	}
	release, err := claim(network, address, func() error { return b.sock.bind(endpoint) })
	if release != nil {
		b.locks = append(b.locks, release)
	}
	if err == nil && len(b.cfg.AllowUIDs) > 0 && tellsPeers && isPath(network, address) {
		err = admitAll(address)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	if endpoint, err = b.sock.bound(); err != nil {
		return err
	}
	endpoint = strings.Replace(endpoint, "[::ffff:127.0.0.1]", "127.0.0.1", 1) // what one would write
	b.endpoints = append(b.endpoints, endpoint)
	return nil
}

func (b *Broker) unbind() {
	if b.sock != nil {
		for _, endpoint := range b.endpoints {
			b.sock.unbind(endpoint)
		}
		b.sock.close()
	}
	if b.zap != nil {
		b.zap.close()
	}
	if b.ctx == nil {
		return // no endpoint was bound
	}
	if b.ctx.close(); b.ctx.shared {
		// In a context that lives on, libzmq gives the names free when it
		// comes to it.
		for _, endpoint := range b.endpoints {
			awaitUnbound(endpoint)
		}
	}
	for _, unlock := range b.locks {
		unlock()
	}
}

// Name returns the broker's name.
func (b *Broker) Name() string { return b.name }

// Endpoints returns where the broker is served, inproc://zpipes/NAME first. In
// place of a wildcard port it has the port that was bound.
func (b *Broker) Endpoints() []string { return slices.Clone(b.endpoints) }

// Client returns a client of this very broker, with default settings; for other
// settings use ClientConfig.NewClient with the broker's name. It holds nothing
// but what it opens.
func (b *Broker) Client() *Client {
	return newClient(ClientConfig{}.withDefaults(), b.name, "", b)
}

// Stats returns the broker's counters. It is cheap enough for once a second.
func (b *Broker) Stats() BrokerStats { return b.pipes.stats() }

// Pipes yields the pipes that existed when it was called, ordered by name; of
// those that came or went while it looked, it yields some. It holds up nobody,
// however many pipes there are.
func (b *Broker) Pipes() iter.Seq[PipeInfo] {
	infos := b.pipes.list(time.Now())
	sortPipes(infos)
	return slices.Values(infos)
}

func sortPipes(pipes []PipeInfo) {
	slices.SortFunc(pipes, func(x, y PipeInfo) int { return strings.Compare(x.Name, y.Name) })
}

// Shutdown ends the broker in good order: it refuses opens and fails writes
// with ErrBrokerGone, waits until every reader has read what was confirmed, and
// closes. If ctx ends first, it closes at once and returns ctx.Err(). If Close,
// or another Shutdown, cuts it short, the error is an *OpError around
// os.ErrClosed. On a closed broker it returns nil.
func (b *Broker) Shutdown(ctx context.Context) error {
	if !b.serving() {
		return b.Close()
	}
	b.pipes.close(cause{causeBrokerGone, "it is shutting down"}, false)
	var err error
	select {
	case <-b.pipes.empty:
	case <-b.closing:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.Close()
	if err == nil && !b.drained {
		err = &OpError{Op: "shut down", Broker: b.name, Err: os.ErrClosed}
	}
	return err
}

// Close ends the broker now: every call that is blocked on it returns
// ErrBrokerGone, in this process and in others. Close returns nil when the
// endpoints are free again. NewBroker can have them at once; so can other
// processes, unless this process is just starting a program. A second Close
// waits for the first one.
func (b *Broker) Close() error {
	b.closed.Do(func() {
		select {
		case <-b.pipes.empty:
			b.drained = true
		default:
		}
		close(b.closing)
		b.pipes.close(cause{causeBrokerGone, "it was closed"}, true)
		b.inproc.closeAll()
		b.stopping.Store(true)
		b.sock.wake()
		<-b.done
		b.gate.close()
		b.reporter.close()
		b.unbind()
		processBrokers.leave(b.name)
		b.log.info("broker down")
		b.log.close()
	})
	return nil
}

// serve is the loop, the only goroutine that touches the socket and the
// sessions.
func (b *Broker) serve() {
	defer close(b.done)
	now := time.Now()
	for !b.stopping.Load() {
		p, ok := b.sock.wait(b.nextLook(now))
		now = time.Now()
		b.now = now
		if ok {
			b.dispatch(&p, now)
		} else {
			// All that they had sent has been received.
			clear(b.ended)
			b.lost = append(b.lost, b.left...)
			clear(b.left)
			b.left = b.left[:0]
		}
		b.resumePosted(now)
		for c := b.alarms.due(now); c != nil; c = b.alarms.due(now) {
			c.resume(now)
		}
		b.relieve(now)
		b.sweep(now)
		b.forgetQueues(now)
		b.dropLost()
	}
	b.resumePosted(time.Now())
	b.goodbye()
}

// goodbye tells the clients, and waits a little until they have hung up: what is
// on its way to them when the connection ends is lost.
func (b *Broker) goodbye() {
	for id, s := range b.sessions {
		if s.agreed {
			s.end(hasBlock, "it was closed")
		} else {
			delete(b.sessions, id)
		}
	}
	probe := (&message{id: msgPingOK, block: hasBlock}).append(nil)
	for end := time.Now().Add(goodbyeTime); len(b.sessions) > 0 && time.Now().Before(end); {
		for id, s := range b.sessions {
			if b.sock.send(s.id, probe) == errGone {
				delete(b.sessions, id)
			}
		}
		for more := true; more && time.Now().Before(end); { // some never stop
			_, more = b.sock.wait(time.Now().Add(time.Millisecond))
		}
	}
}

func (b *Broker) nextLook(now time.Time) time.Time {
	var t time.Time
	if len(b.sessions) > 0 {
		t = b.nextSweep
	}
	if len(b.alarms) > 0 && (t.IsZero() || b.alarms[0].alarm.at.Before(t)) {
		t = b.alarms[0].alarm.at
	}
	if b.cfg.ForgetQueues > 0 && (t.IsZero() || b.forgetAt.Before(t)) {
		t = b.forgetAt
	}
	if len(b.congested) > 0 {
		next := now.Add(retryEvery)
		if next.Before(b.relieveAt) {
			next = b.relieveAt
		}
		if t.IsZero() || next.Before(t) {
			t = next
		}
	}
	return t
}
