//go:build cgo

package zpipes

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// BrokerConfig holds the options of a broker; a zero field means its default.
type BrokerConfig struct {
	// Endpoints to serve beside inproc://zpipes/NAME: ipc://PATH, ipc://@NAME
	// (Linux's abstract sockets) or tcp on loopback, where the port may be *; localhost
	// is 127.0.0.1 there. PATH.lock is the broker's, too, while it serves the path.
	// nil: the one endpoint at which clients look for a broker of that name;
	// empty but not nil: inproc alone.
	Endpoints []string

	// Private serves a socket in a directory of mode 0700 that is this user's, beside
	// Endpoints, and instead of the one that nil means there: $XDG_RUNTIME_DIR/zpipes,
	// or zpipes-UID beside other temporary files. On Linux other users may connect to
	// the usual endpoint, to be refused, or take its name while it is free; they can't
	// do either here. Clients of the same user, with the same environment, find the
	// broker by its name, before they look at the usual place.
	Private bool

	// Context is where the broker's socket is made; nil: one of its own. Share
	// it to reach inproc://zpipes/NAME from ZeroMQ sockets of yours. Close does
	// not terminate it; do not do so before Close. In a context of its own the
	// broker decides who may connect before anything is received from there; in a
	// shared one, where a ZAP handler would be yours, with the first message; what
	// that leaves to strangers is in docs/RELIABILITY.md.
	Context *zmq4.Context

	// ClientTimeout is how long a client of the base protocol may be silent
	// before it is dropped; default 10 s. One that waits for an answer is not
	// silent as long as its connection is there, and where that has ended it is
	// dropped within 3 s (Linux). A client of this library is dropped after
	// missing four of its own heartbeats.
	ClientTimeout time.Duration

	// MaxPending is how many bytes a pipe holds before writes wait; default
	// 1 MiB, below 2 GiB. A message that is larger is taken when the pipe is
	// empty, and any is where the reader waits for more than there is.
	MaxPending int

	// MaxMessage is the size in bytes of the largest chunk that a client of the
	// protocol may write at once; default 16 MiB, at least 256 KiB. A larger one
	// ends its connection. A READ for more fails once so much is there.
	MaxMessage int

	// MaxPipes is how many pipes there may be, with those whose name is free
	// but that an end still holds; and how many may have queues open. Default 65536.
	// The next open is refused with ErrTooManyPipes.
	MaxPipes int

	// PerClient limits what one connection over ZeroMQ holds, and PerUser all
	// connections of one user together (all those over tcp count as one). The
	// defaults are 32768 and 49152 ends, 256 MiB and 2 GiB, 262144 and 1048576
	// requests. Clients in this process that use the broker directly have no limits.
	PerClient, PerUser Limits

	// AllowUIDs are the users who may connect over ipc, besides root and the user
	// that the broker runs as. A socket with a path is then open to all by its own
	// permissions (0666), and the broker decides. (Whoever may open a tcp endpoint of this machine may
	// connect over that.) Others are refused with fs.ErrPermission. In a user namespace,
	// as of a rootless container, the number as which all users appear who have no place
	// in it, mostly 65534, stands for all of them: it is not even this broker's own, and
	// to allow it allows them all.
	AllowUIDs []int

	// Allow is asked before a client outside of this process, or over inproc, opens
	// a pipe, deletes a queue or reads the status; an error refuses that, with
	// fs.ErrPermission and its text. It may take its time: only what it is asked about
	// waits, and what the client asked for behind that on the same pipe. It is called by
	// goroutines of the broker's, 64 at once at most and 4 for one client, others wait; and
	// it may use this broker. Where it panics, that is a refusal. What it says of a client
	// that is gone is of no account. Close waits for it, but for 0.3 s at most. nil: all is
	// allowed.
	Allow func(Access) error

	// ForgetQueues is how long a queue stays that nobody has open any more. Then it
	// is deleted, with what is in it. 0: it stays until DeleteQueue or the broker's end.
	ForgetQueues time.Duration

	// Logger gets what an operator wants to know: the broker's start and end,
	// clients that expire, break the protocol, or may not connect. Its handler is called
	// by one goroutine of its own, for which nobody waits: what is too much for it is left
	// out, and what comes too often, too, with a line that counts it. What came before
	// Close has been written when Close returns, if that takes less than 0.3 s. nil:
	// silence.
	Logger *slog.Logger
}

const (
	defaultClientTimeout = 10 * time.Second
	defaultMaxPending    = 1 << 20
	defaultMaxMessage    = 16 << 20
	leastMaxMessage      = frameSegment
	defaultMaxPipes      = 65536
)

func (cfg BrokerConfig) withDefaults() (BrokerConfig, error) {
	if cfg.ClientTimeout < 0 || cfg.MaxPending < 0 || cfg.MaxMessage < 0 || cfg.MaxPipes < 0 || cfg.ForgetQueues < 0 {
		return cfg, errors.New("a negative value in BrokerConfig; use zero for the default")
	}
	if cfg.ClientTimeout == 0 {
		cfg.ClientTimeout = defaultClientTimeout
	}
	if cfg.MaxPending > math.MaxInt32 {
		return cfg, fmt.Errorf("BrokerConfig.MaxPending is %d; it must be below 2 GiB", cfg.MaxPending)
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	if cfg.MaxMessage < leastMaxMessage || cfg.MaxMessage > math.MaxInt32 {
		return cfg, fmt.Errorf("BrokerConfig.MaxMessage is %d; it must be from %d to %d", cfg.MaxMessage, leastMaxMessage, math.MaxInt32)
	}
	if cfg.MaxPipes == 0 {
		cfg.MaxPipes = defaultMaxPipes
	}
	var err error
	if cfg.PerClient, err = cfg.PerClient.withDefaults(defaultPerClient); err != nil {
		return cfg, err
	}
	if cfg.PerUser, err = cfg.PerUser.withDefaults(defaultPerUser); err != nil {
		return cfg, err
	}
	return cfg, nil
}

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

	ctx    *zmq4.Context
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
	// sweepEvery is how often it looks for clients that are silent too long.
	sweepEvery = 100 * time.Millisecond
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
	// farewellTime is how long Close waits for clients to take their leave.
	goodbyeTime = 500 * time.Millisecond
)

// NewBroker starts a broker of that name with default settings; it is serving
// when NewBroker returns. Clients of this process find it by its name, and so
// do those of this machine. A name is 1 to 64 letters, digits, '.', '_' or '-';
// an empty one picks a name that nobody else has, which is what tests want.
//
// The errors are ErrBadName (also for an endpoint that is not served, such as tcp
// beyond loopback), ErrBrokerExists (the other broker is not disturbed), what is
// wrong with a BrokerConfig, or what kept an endpoint from being bound.
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

// here lists the brokers of this process.
var processBrokers brokerTable

type brokerTable struct {
	mu      sync.Mutex         // guards brokers
	brokers map[string]*Broker // nil: the name is reserved for one that starts
}

func (l *brokerTable) reserve(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.brokers[name]; taken {
		return false
	}
	if l.brokers == nil {
		l.brokers = make(map[string]*Broker)
	}
	l.brokers[name] = nil
	return true
}

func (l *brokerTable) enter(b *Broker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.brokers[b.name] = b
}

func (l *brokerTable) leave(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.brokers, name)
}

// find returns the serving broker of that name, or nil.
func (l *brokerTable) find(name string) *Broker {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.brokers[name]; b != nil && b.serving() {
		return b
	}
	return nil
}

func (b *Broker) serving() bool {
	select {
	case <-b.closing:
		return false
	default:
		return true
	}
}

func (b *Broker) bind() error {
	var err error
	if b.ctx = b.cfg.Context; b.ctx == nil {
		if b.ctx, err = newContext(); err != nil {
			return err
		}
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
		// Without a domain, libzmq asks nobody.
		if err := b.sock.zmq.SetZapDomain("zpipes"); err != nil {
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
	release, err := claim(network, address, func() error {
		err := retryEINTR(func() error { return b.sock.zmq.Bind(endpoint) })
		if err == zmq4.Errno(syscall.EADDRINUSE) {
			err = errTaken
		}
		return err
	})
	if release != nil {
		b.locks = append(b.locks, release)
	}
	if err == nil && len(b.cfg.AllowUIDs) > 0 && tellsPeers && isPath(network, address) {
		err = admitAll(address)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	if endpoint, err = b.sock.zmq.GetLastEndpoint(); err != nil {
		return err
	}
	endpoint = strings.Replace(endpoint, "[::ffff:127.0.0.1]", "127.0.0.1", 1) // what one would write
	b.endpoints = append(b.endpoints, strings.TrimRight(endpoint, "\x00"))
	return nil
}

func (b *Broker) unbind() {
	if b.sock != nil {
		for _, endpoint := range b.endpoints {
			retryEINTR(func() error { return b.sock.zmq.Unbind(endpoint) })
		}
		b.sock.close()
	}
	if b.zap != nil {
		b.zap.close()
	}
	if b.ctx != nil && b.cfg.Context == nil {
		b.ctx.Term()
	} else {
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

// Endpoints returns where the broker is served, inproc://zpipes/NAME first. A
// wildcard port is resolved.
func (b *Broker) Endpoints() []string { return slices.Clone(b.endpoints) }

// Client returns a client of this very broker, with default settings; for others
// use ClientConfig.NewClient with the broker's name. It holds nothing but what it
// opens.
func (b *Broker) Client() *Client {
	return newClient(ClientConfig{}.withDefaults(), b.name, "", b)
}

// Stats returns the broker's counters. It is cheap enough for once a second.
func (b *Broker) Stats() BrokerStats { return b.pipes.stats() }

// Pipes yields the pipes that existed when it was called, by name; of those that came or
// went while it looked, some. It holds up nobody, however many they are.
func (b *Broker) Pipes() iter.Seq[PipeInfo] {
	infos := b.pipes.list(time.Now())
	sortPipes(infos)
	return slices.Values(infos)
}

func sortPipes(pipes []PipeInfo) {
	slices.SortFunc(pipes, func(x, y PipeInfo) int { return strings.Compare(x.Name, y.Name) })
}

// Shutdown ends the broker in good order: it refuses opens and fails writes
// with ErrBrokerGone, waits until every reader has read what was confirmed and
// is closed or has met the end, and closes. When ctx ends first, it closes at
// once and returns ctx.Err(). It is os.ErrClosed if Close, or another Shutdown, has ended
// it before.
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

// Close ends the broker now: every call that is blocked on it returns with
// ErrBrokerGone, in this process and in others. It returns when the names of its
// endpoints are free again: NewBroker can have them at once, and others where no
// program is just being started by this process. Closing again waits
// for that, too, and returns nil.
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

func (b *Broker) dispatch(p *packet, now time.Time) {
	s := b.sessions[string(p.id)]
	connection, address := b.connection(p)
	if p.about == nil { // it was not asked for, since the session is sure
		connection = s.connection
	}
	if old := b.ended[string(p.id)]; old != nil && b.owns(old, connection) {
		return // something before it was dropped with the session, so it must not be taken
	}
	if s != nil && !b.owns(s, connection) {
		// Another connection has taken this routing id; it inherits nothing.
		b.forget(s)
		s = nil
	}
	if s == nil {
		who, err := b.admit(address)
		if err != nil {
			b.refuse(p, err)
			return
		}
		s = newSession(b, b.pipes, p.id, b.cfg.ClientTimeout, now)
		s.connection, s.peer, s.who = connection, address, who
		s.account.limits, s.account.above = b.cfg.PerClient, b.user(who.payer())
		b.sessions[string(p.id)] = s
		s.place = len(b.order)
		b.order = append(b.order, s)
		b.pipes.clients.Add(1)
	}
	if fd, told := p.about[descriptor]; told && s.socket == nil {
		n := findSocket(fd, s.who)
		s.socket = &n
		b.see(s)
	} else if connection == "" {
		s.presence = present // in this process
	} else if s.agreed && s.socket != nil {
		s.sure = true // it says more only when it has our answer to its first PING
	}
	if p.more != nil {
		s.handleText(append([][]byte{p.frame}, p.more...), now)
	} else {
		s.handle(p.frame, now)
	}
	if s.gone {
		b.forget(s)
	}
	b.dropLost()
}

// see asks the system whether a client's connection is there.
func (b *Broker) see(s *session) liveness {
	if p := s.socket.presence(); p == absent {
		b.leaves(s)
	} else {
		s.presence = p
	}
	return s.presence
}

// leaves notes that a client's connection is no more.
func (b *Broker) leaves(s *session) {
	if s.presence != absent && len(b.left) < maxEnded {
		b.left = append(b.left, s)
	}
	s.presence = absent
}

// asks says what to find out about a message from that routing id, so that it is known
// whose it is.
func (b *Broker) asks(id []byte) []string {
	s := b.sessions[string(id)]
	switch {
	case s != nil && s.sure && s.socket.presence() == present:
		return nil // nobody can have taken it
	case b.zap == nil:
		return []string{peerAddress, descriptor}
	case s != nil && (s.socket != nil || s.connection == ""):
		return []string{userID}
	}
	return []string{userID, descriptor}
}

// connection returns the name of the connection that a message came over, and the
// address of who is at the other end. In a context where the ZAP handler is not ours, the name
// is one that may come again.
func (b *Broker) connection(p *packet) (name, address string) {
	if b.zap != nil {
		name = p.about[userID]
		_, address, _ = strings.Cut(name, " ")
		return name, address
	}
	address = p.about[peerAddress]
	if fd, told := p.about[descriptor]; told {
		if address == "" { // it is not over inproc
			address = localPeer
		}
		name = fd + " " + address
	}
	return name, address
}

// owns says that a session is that connection's.
func (b *Broker) owns(s *session, connection string) bool {
	return s.connection == connection && (b.zap != nil || s.socket == nil || !s.socket.taken())
}

func (b *Broker) user(uid int) *account {
	a := b.users[uid]
	if a == nil {
		a = &account{whose: "user", limits: b.cfg.PerUser, post: b.post}
		b.users[uid] = a
	}
	return a
}

// admit says who a client is, and why it may not connect. It may be called from any
// goroutine.
func (b *Broker) admit(address string) (Access, error) {
	who, err := b.cfg.admit(address)
	if err == nil {
		return who, nil
	}
	now := time.Now()
	b.refusals.mu.Lock()
	defer b.refusals.mu.Unlock()
	if began, known := b.refusals.began[address]; !known || now.Sub(began) >= oneTry {
		if b.refusals.began == nil || len(b.refusals.began) >= maxTries {
			b.refusals.began = make(map[string]time.Time)
		}
		b.refusals.began[address] = now
		b.pipes.denied.Add(1)
	}
	b.log.warn("client refused", "why", err, "peer", address, "refusals", b.pipes.denied.Load())
	return who, err
}

// refuse answers a client that may not connect, if there is no ZAP handler.
func (b *Broker) refuse(p *packet, why error) {
	if p.more != nil {
		b.sock.send(p.id, []byte(textError), []byte(why.Error()))
		return
	}
	m, _ := parse(p.frame)
	answer := message{id: msgInvalid, block: m.block, code: causeDenied, cause: []byte(why.Error())}
	b.sock.send(p.id, answer.append(nil))
}

// forget drops what a session holds, and the session.
func (b *Broker) forget(s *session) {
	s.drop(cause{code: causeVanished}, nil)
	s.gone = true
	if b.sessions[string(s.id)] == s {
		delete(b.sessions, string(s.id))
		last := len(b.order) - 1
		b.order[s.place] = b.order[last]
		b.order[s.place].place = s.place
		b.order[last] = nil
		b.order = b.order[:last]
		b.pipes.clients.Add(-1)
	}
	delete(b.congested, s)
}

func (b *Broker) resumePosted(now time.Time) {
	for _, c := range b.posted.fetch(resumer.flag) {
		c.resume(now)
	}
}

// sweep looks for clients that are gone, or silent too long. However many they are, it
// takes little time.
func (b *Broker) sweep(now time.Time) {
	if now.Before(b.nextSweep) {
		return
	}
	if due := b.nextSweep; now.Sub(due) > minBeat {
		b.excuse(due, now)
	}
	all := len(b.order)
	b.nextSweep = now.Add(sweepEvery)
	if all > sweepMost {
		b.nextSweep = now.Add(max(sweepLeast, sweepEvery*sweepMost/time.Duration(all)))
	}
	for range min(all, sweepMost) {
		if b.swept >= len(b.order) {
			b.swept = 0
		}
		if s := b.order[b.swept]; b.look(s, now) {
			b.swept++
		} else {
			b.forget(s)
		}
	}
}

// excuse is for a broker that looks later than was due: what came meanwhile has yet to be
// received.
func (b *Broker) excuse(due, now time.Time) {
	for _, s := range b.order {
		beat := s.expiry / missedBeats
		s.heard = creditSilence(s.heard, due, now, beat)
		s.waited = creditSilence(s.waited, due, now, beat)
		s.lostAt = creditSilence(s.lostAt, due, now, minBeat)
	}
}

// look says whether a client may stay. One that has missed a beat gets a message unasked,
// since that finds out whether its connection is still there.
func (b *Broker) look(s *session, now time.Time) (stays bool) {
	ends, silent := len(s.channels), now.Sub(s.heard)
	if s.socket != nil && silent > min(lookAfter, s.expiry/missedBeats) {
		b.see(s)
	}
	if s.presence == absent {
		if s.lostAt.Before(s.heard) {
			s.lostAt = now
		}
		if now.Sub(s.lostAt) < lastWords {
			return true
		}
		b.expired(s, ends, "connection lost")
		return false
	}
	if s.expire(now) {
		b.expired(s, ends, "silent for "+silent.Round(time.Millisecond).String())
		return false
	}
	if s.agreed && silent > min(s.expiry/(missedBeats/2), b.cfg.ClientTimeout) {
		s.send(&message{id: msgPingOK, block: hasBlock}) // no version: unasked
	}
	return true
}

func (b *Broker) forgetQueues(now time.Time) {
	after := b.cfg.ForgetQueues
	if after == 0 || now.Before(b.forgetAt) {
		return
	}
	names, next := b.pipes.forget(b.forgetNext, after, now)
	for _, name := range names {
		b.log.info("abandoned queue deleted", "queue", name, "after", after)
	}
	if b.forgetNext = next; next == 0 {
		b.forgetAt = now.Add(max(after/8, sweepEvery))
	} else {
		b.forgetAt = now.Add(forgetPause)
	}
}

// expired records the loss of a client that had something open. One that had
// not has just gone.
func (b *Broker) expired(s *session, ends int, why string) {
	if ends > 0 {
		b.pipes.expired.Add(1)
		b.log.warn("client expired", "why", why, "ends", ends, "peer", s.peer)
	}
}

func (b *Broker) dropLost() {
	for _, s := range b.lost {
		b.expired(s, len(s.channels), "connection lost")
		b.forget(s)
	}
	b.lost = b.lost[:0]
}

// relieve tries to send what waits for clients that did not take more. However many
// they are, it leaves most of the time to the others.
func (b *Broker) relieve(now time.Time) {
	if len(b.congested) == 0 || now.Before(b.relieveAt) {
		return
	}
	began := time.Now()
	defer func() { b.relieveAt = now.Add(min(relieveShare*time.Since(began), sweepEvery)) }()
	for s := range b.congested {
		for len(s.backlog) > 0 {
			err := b.send(s, s.backlog[0])
			if err == errFull {
				break
			}
			if err != nil {
				b.end(s)
				break
			}
			s.backlogBytes -= frameBytes(s.backlog[0])
			s.backlog = s.backlog[1:]
		}
		if len(s.backlog) == 0 {
			s.backlog = nil
			delete(b.congested, s)
			for _, c := range s.channels {
				b.post(c)
			}
		}
	}
}

// What sessions need of the broker; see host.

func (b *Broker) reply(s *session, frames ...[]byte) bool {
	if s.gone {
		return false
	}
	if len(s.backlog) == 0 {
		switch b.send(s, frames) {
		case nil:
			return true
		case errFull:
			b.congested[s] = true
		default: // what it had sent before is still to be taken
			b.leaves(s)
			return false
		}
	}
	kept := make([][]byte, len(frames))
	for i, f := range frames {
		kept[i] = bytes.Clone(f)
	}
	s.backlog = append(s.backlog, kept)
	if s.backlogBytes += frameBytes(frames); s.backlogBytes-maxBacklog > b.cfg.MaxMessage || len(s.backlog) > maxBacklog/64 {
		b.violated(s, "the client does not take its answers")
		b.lost = append(b.lost, s)
	}
	return true
}

// end notes that a session's connection is no more.
func (b *Broker) end(s *session) {
	if len(b.ended) == maxEnded {
		clear(b.ended)
	}
	b.lost = append(b.lost, s)
	b.ended[string(s.id)] = s
}

func (b *Broker) send(s *session, frames [][]byte) error {
	looked := s.sure && s.heard.Equal(b.now) // in this round
	if s.socket != nil && !looked && b.see(s) == absent {
		return errGone // who has its routing id now is somebody else
	}
	if len(frames) == 1 {
		return b.sock.send(s.id, frames[0])
	}
	return b.sock.send(append([][]byte{s.id}, frames...)...)
}

func frameBytes(frames [][]byte) (n int) {
	for _, f := range frames {
		n += len(f)
	}
	return n
}

func (b *Broker) post(t resumer) {
	if b.posted.put(t, t.flag()) {
		b.sock.wake()
	}
}

func (b *Broker) alarm(c *channel) { b.alarms.set(c) }

func (b *Broker) violated(s *session, what string) {
	b.pipes.violations.Add(1)
	b.log.warn("protocol violation", "what", what, "peer", s.peer)
}

func (b *Broker) allow(s *session, pipe, op string, t resumer) *verdict {
	if b.cfg.Allow == nil {
		return nil
	}
	q := question{who: s.who, verdict: new(verdict)}
	q.who.Pipe, q.who.Op = pipe, op
	q.then = func() { b.judged(s.peer, q); b.post(t) }
	q.verdict.withdraw = b.gate.put(s, q)
	return q.verdict
}

// judged records a refusal.
func (b *Broker) judged(peer string, q question) {
	if why, _ := q.verdict.get(); why != nil {
		b.pipes.denied.Add(1)
		b.log.warn("request refused", "why", why.text, "op", q.who.Op, "pipe", q.who.Pipe, "peer", peer)
	}
}

func (b *Broker) newToken() uint64 { return b.tokens.Add(1) }

// inproc connections are the connections of this process's clients over inproc: they live
// in the broker's context, which cannot end before they do.
type inprocConns struct {
	mu     sync.Mutex // guards conns and closed; no other lock is taken under it
	conns  map[*conn]bool
	closed bool
}

// admit has a inproc connection make its socket, unless the broker is closing.
func (g *inprocConns) admit(k *conn, connect func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errUnserved
	}
	if err := connect(); err != nil {
		return err
	}
	if g.conns == nil {
		g.conns = make(map[*conn]bool)
	}
	g.conns[k] = true
	return nil
}

func (g *inprocConns) left(k *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, k)
}

func (g *inprocConns) closeAll() {
	g.mu.Lock()
	g.closed = true
	conns := make([]*conn, 0, len(g.conns))
	for k := range g.conns {
		conns = append(conns, k)
	}
	g.mu.Unlock()
	for _, k := range conns {
		k.kill("it was closed")
		<-k.done
	}
}
