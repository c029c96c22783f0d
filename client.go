//go:build !core

package zpipes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// ClientConfig holds the options of a client; a zero field means its default.
type ClientConfig struct {
	// Timeout is how long an open may take if its context allows more, and how
	// long Close of a Writer without a deadline, or of a Queue, may take to
	// deliver; default 5 s.
	Timeout time.Duration

	// Heartbeat is the interval at which the client shows a broker in another
	// process that it is alive, from 10 ms to an hour; default 500 ms, and 2 s
	// over encrypted tcp, since networks stand still now and then. Either side
	// takes the other for dead after four intervals of silence.
	Heartbeat time.Duration

	// Window is how many bytes a Writer or Queue accepts beyond what the broker
	// has room for; default 256 KiB, below 2 GiB. Between processes a Reader asks for
	// up to four times as many ahead.
	Window int

	// ReadSize is for brokers that know only the base protocol, where a READ is
	// answered with exactly as many bytes as it asks for. With the default of
	// 1, Read returns what is there, at some 70 kB/s. If the writer writes
	// records of one size, set that size.
	ReadSize int

	// TrustUIDs are the users whose brokers the client may use on this machine,
	// besides root's and those of its own user: anybody can take a name that is
	// free. In a user namespace 65534 can be anybody, as in
	// BrokerConfig.AllowUIDs.
	TrustUIDs []int

	// Key encrypts tcp (see NewClient): the client connects to brokers with the
	// same secret, whatever their address. Of a Key with several secrets each
	// is tried. It has no effect on endpoints that are not tcp, and on brokers
	// that are found by their name.
	Key Key

	// BrokerKey is for a client whose Key is its own: the public key of the
	// broker (Key.BrokerKeys of the broker's Key), or several with commas
	// between them. The broker needs to know the client's, see
	// BrokerConfig.AllowKeys.
	BrokerKey string

	// Logger gets a line when a connection comes or goes; it is called as a
	// broker's is. nil: silence.
	Logger *slog.Logger
}

const (
	defaultTimeout   = 5 * time.Second
	defaultHeartbeat = 500 * time.Millisecond
	farHeartbeat     = 2 * time.Second // over encrypted tcp, where the end of a connection is known without one
	defaultWindow    = 256 << 10
)

func (cfg ClientConfig) check() error {
	if cfg.Timeout < 0 || cfg.Heartbeat < 0 || cfg.Window < 0 || cfg.ReadSize < 0 {
		return errors.New("a negative value in ClientConfig; use zero for the default")
	}
	if cfg.Heartbeat != 0 && (cfg.Heartbeat < minBeat || cfg.Heartbeat > time.Hour) {
		return fmt.Errorf("ClientConfig.Heartbeat is %v; it must be from %v to an hour", cfg.Heartbeat, minBeat)
	}
	if cfg.Window > math.MaxInt32 || cfg.ReadSize > math.MaxInt32 {
		return errors.New("ClientConfig.Window and ReadSize must be below 2 GiB")
	}
	_, err := cfg.badges()
	return err
}

func (cfg ClientConfig) withDefaults() ClientConfig {
	cfg.TrustUIDs = slices.Clone(cfg.TrustUIDs) // what becomes of the caller's does not matter
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.Window == 0 {
		cfg.Window = defaultWindow
	}
	if cfg.ReadSize == 0 {
		cfg.ReadSize = 1
	}
	return cfg
}

// readAhead is how many bytes a Reader asks a broker elsewhere for.
func (cfg ClientConfig) readAhead() int { return 4 * min(cfg.Window, math.MaxInt32/4) }

// Client opens the ends of a broker's pipes. All ends that it opens at a broker
// of another process share one connection. Its methods may be called
// concurrently.
type Client struct {
	cfg      ClientConfig
	log      *asyncLog
	broker   string  // for messages: the name or endpoint it was made with
	endpoint string  // where to connect to
	named    bool    // look in this process first
	fixed    *Broker // the one broker it is a client of
	fellow   *fellow // the broker of the cluster that it is a client of; nil: it is none's
	// abilities are what it has there, and its connection is that tunnel's; nil: nobody's.
	abilities uint32
	tunnel    *tunnel

	closing context.Context // done when Close begins
	cancel  context.CancelFunc
	dialing *semaphore.Weighted // held while conn is being made

	surveying *semaphore.Weighted // held while the status is being read
	peeking   *semaphore.Weighted // held by each look at jobs

	mu     sync.Mutex // guards what follows; a broker's registry, and what is in there, may be locked under it
	closed bool
	ends   map[member]bool // all that is open
	conns  map[*conn]bool
	shared map[string]*conn // those that new ends share, by endpoint
	ctx    *zmqContext
	// largest is how many bytes of a chunk new connections take from the broker:
	// as much as can have been asked for.
	largest int
	reached string // where a broker was connected to last, at endpoint

	down chan struct{} // closed when Close is done
}

// NewClient returns a client, with default settings, of the broker of that name
// or endpoint. At every open, a name is looked for in this process, then at the
// near doors of this user's private brokers and of this machine, then at their
// ZeroMQ endpoints. An endpoint is used in the way that its scheme says: a near
// door (unix://PATH, unix://@NAME) without ZeroMQ; ipc://PATH, ipc://@NAME,
// tcp://127.0.0.1:PORT, or inproc://zpipes/NAME for a broker in this process,
// over ZeroMQ; and tcp://HOST:PORT, encrypted, with a ClientConfig.Key. There is no I/O before the first open. The error is ErrBadName,
// or says what is wrong with the ClientConfig.
//
// Close the client when it is no longer needed.
func NewClient(broker string) (*Client, error) { return ClientConfig{}.NewClient(broker) }

// NewClient is the function NewClient with the settings of cfg.
func (cfg ClientConfig) NewClient(broker string) (*Client, error) {
	err := cfg.check()
	endpoint := broker
	named := !strings.Contains(broker, "://")
	if err == nil {
		if named {
			endpoint = defaultEndpoint(broker)
			err = checkBrokerName(broker)
		} else {
			var network string
			if network, _, err = dialAddress(broker, !cfg.Key.IsZero()); err == nil && network != "" && !isNear(broker) {
				err = errNoZeroMQ
			}
			if err == nil && network == "tcp" && !cfg.Key.IsZero() {
				err = checkCurve()
				cfg.Heartbeat = cmp.Or(cfg.Heartbeat, farHeartbeat)
			}
		}
	}
	if err != nil {
		return nil, &OpError{Op: "new client", Broker: broker, Err: err}
	}
	c := newClient(cfg.withDefaults(), broker, endpoint, nil)
	c.named = named
	return c, nil
}

func newClient(cfg ClientConfig, broker, endpoint string, fixed *Broker) *Client {
	c := &Client{
		cfg: cfg, log: newAsyncLog(cfg.Logger, "broker", broker), broker: broker, endpoint: endpoint, fixed: fixed,
		dialing: semaphore.NewWeighted(1), surveying: semaphore.NewWeighted(1), peeking: semaphore.NewWeighted(maxPeeks),
		ends:    make(map[member]bool),
		conns:   make(map[*conn]bool),
		shared:  make(map[string]*conn),
		largest: max(cfg.readAhead(), cfg.ReadSize, defaultMaxMessage),
		down:    make(chan struct{}),
	}
	c.closing, c.cancel = context.WithCancel(context.Background())
	return c
}

// OpenReader opens the reading end of a pipe, which is created if it does not
// exist. The writer may come later. OpenReader waits for the broker's answer
// until ctx ends or ClientConfig.Timeout has passed, and retries while there is
// no broker. The end of ctx has no effect on the Reader that it has returned.
//
// If the name is a queue's, the Reader reads the bytes of the chunks; what it
// has not read goes back to the queue when it closes.
//
// The error is an *OpError around
//
//   - ErrBadName;
//   - ErrPipeBusy: the pipe has a reader already;
//   - ErrPipeMode: somebody listens there for connections; or, for a writer,
//     readers of a broadcast wait there for theirs;
//   - ErrTooManyPipes;
//   - ErrNoBroker, together with ctx's error if ctx ended the open, else with
//     os.ErrDeadlineExceeded;
//   - ErrBrokerGone: the broker is shutting down, or the connection was lost;
//   - fs.ErrPermission: BrokerConfig.AllowUIDs, AllowKeys or Allow refuse this
//     process, ClientConfig.TrustUIDs does not name the broker's user, or over
//     tcp broker and client have no key in common;
//   - os.ErrClosed: the client is closed;
//   - an error of the system, such as having no file descriptors left.
func (c *Client) OpenReader(ctx context.Context, pipe string) (*Reader, error) {
	r := new(Reader)
	r.role, r.self = reader, r
	if err := c.open(ctx, r, pipe); err != nil {
		return nil, c.opError("open reader", pipe, err)
	}
	return r, nil
}

// OpenWriter opens the writing end of a pipe. All else is as with OpenReader,
// the errors included. If the name is a queue's, the bytes become chunks of any
// size.
func (c *Client) OpenWriter(ctx context.Context, pipe string) (*Writer, error) {
	w := new(Writer)
	w.role, w.self = writer, w
	if err := c.open(ctx, w, pipe); err != nil {
		return nil, c.opError("open writer", pipe, err)
	}
	return w, nil
}

// A member is what a client has open: a Reader, Writer, Queue, Listener or Conn.
type member interface {
	// shutDown is Close, but says also to who comes second what became of it.
	shutDown() error
}

// An opener is one that has a name, and can be opened in both ways.
type opener interface {
	member
	// openAtOnce opens it at a broker of this process, if that takes no time.
	openAtOnce(c *Client, b *Broker, name string) (done bool, err error)
	openDirect(ctx context.Context, c *Client, b *Broker, name string) error
	openRemote(ctx context.Context, c *Client, endpoint, name string) error
}

func (c *Client) open(ctx context.Context, o opener, name string) error {
	if b := c.local(); b != nil && ctx.Err() == nil && checkPipeName(name) == nil {
		// Most often that is all, and then a clock and a context would cost more than the open.
		if done, err := o.openAtOnce(c, b, name); done {
			return err
		}
	}
	return c.reachPipe(ctx, name, func(ctx context.Context, b *Broker) error {
		return o.openDirect(ctx, c, b, name)
	}, func(ctx context.Context) error {
		return o.openRemote(ctx, c, c.endpoint, name)
	})
}

// enter makes o one of the client's ends at the moment at which open succeeds: before
// it, nobody has o, and from then on Close sees to it.
func (c *Client) enter(o member, open func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	if err := open(); err != nil {
		return err
	}
	if o != nil {
		c.ends[o] = true
	}
	return nil
}

// reachPipe does something with a pipe at the broker, in this process or elsewhere.
func (c *Client) reachPipe(ctx context.Context, pipe string, here func(context.Context, *Broker) error, elsewhere func(context.Context) error) error {
	if err := checkPipeName(pipe); err != nil {
		return err
	}
	return c.reach(ctx, here, elsewhere)
}

// reach does something at the broker, in this process or elsewhere.
func (c *Client) reach(ctx context.Context, here func(context.Context, *Broker) error, elsewhere func(context.Context) error) error {
	return c.wait(ctx, func(ctx context.Context) error {
		for {
			var err error
			if b := c.local(); b != nil {
				err = here(ctx, b)
			} else {
				err = elsewhere(ctx)
			}
			if err != errHere {
				return err
			}
		}
	})
}

// local returns the broker to reach directly, or nil.
func (c *Client) local() *Broker {
	if c.fixed != nil || !c.named {
		return c.fixed
	}
	return processBrokers.find(c.broker)
}

// wait calls f with a context that ends with ctx, the Timeout, or Close, and
// makes its error say which it was.
func (c *Client) wait(ctx context.Context, f func(context.Context) error) error {
	if c.closing.Err() != nil {
		return os.ErrClosed
	}
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	err := ctx.Err()
	if err == nil {
		err = f(limited)
	}
	switch {
	case err == nil:
		return nil
	case c.closing.Err() != nil:
		return os.ErrClosed
	case limited.Err() == nil || !errors.Is(err, limited.Err()):
		return err
	}
	over := ctx.Err()
	if over == nil {
		over = os.ErrDeadlineExceeded
	}
	switch {
	case c.local() != nil:
		return fmt.Errorf("%w answered in time, though %q is in this process (%w; %v)", ErrNoBroker, c.broker, over, err)
	case c.connected(c.endpoint) != nil:
		return fmt.Errorf("%w answered in time, though one is at %s (%w; %v); if it belongs to a cluster, zpipes cluster status says who is out of reach", ErrNoBroker, c.endpoint, over, err)
	case err == limited.Err():
		return fmt.Errorf("%w answered at %s; is one running? (%w)", ErrNoBroker, c.endpoint, over)
	}
	return fmt.Errorf("%w answered at %s; is one running? (%w; %v)", ErrNoBroker, c.endpoint, over, err)
}

// onConn calls f with a connection, and again with another one where that one turns
// out to have been lost unnoticed. What f had opened on the lost one may be in its own
// way then, until the broker has missed that.
func (c *Client) onConn(ctx context.Context, endpoint string, f func(*conn) error) error {
	var missed time.Time
	for {
		k, err := c.connect(ctx, endpoint)
		if err != nil {
			return err
		}
		err = f(k)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, ErrBrokerGone) && !k.alive():
			missed = time.Now().Add((missedBeats+1)*c.cfg.Heartbeat + 2*sweepEvery)
		case errors.Is(err, ErrPipeBusy) && time.Now().Before(missed):
			select {
			case <-ctx.Done():
				return err
			case <-time.After(redialAtMost):
			}
		default:
			return err
		}
	}
}

// connect returns a connection to open an end on: the shared one, or where the
// broker knows only the base protocol, a new one each time.
func (c *Client) connect(ctx context.Context, endpoint string) (*conn, error) {
	if err := c.dialing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.dialing.Release(1)
	if k := c.connected(endpoint); k != nil {
		return k, nil
	}
	k, err := dial(ctx, c, endpoint)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.shared {
		c.shared[endpoint] = k
	}
	if endpoint == c.endpoint {
		c.reached = k.at
	}
	return k, nil
}

// connectAlone returns a connection that nothing else uses; who has it retires it.
func (c *Client) connectAlone(ctx context.Context, endpoint string) (*conn, error) {
	if err := c.dialing.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.dialing.Release(1)
	return dial(ctx, c, endpoint)
}

// connected is the connection to an endpoint that is there, or nil.
func (c *Client) connected(endpoint string) *conn {
	c.mu.Lock()
	k := c.shared[endpoint]
	c.mu.Unlock()
	if k == nil || !k.alive() {
		return nil
	}
	return k
}

// track records a connection that is being made; false if the client is closed.
func (c *Client) track(k *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conns[k] = true
	}
	return !c.closed
}

func (c *Client) largestChunk() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.largest
}

// enlarge has new connections take as large chunks as the broker of k has, and no new
// ends use k.
func (c *Client) enlarge(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.largest = max(c.largest, k.pending)
	if c.shared[k.endpoint] == k {
		delete(c.shared, k.endpoint)
	}
}

func (c *Client) untrack(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, k)
	if c.shared[k.endpoint] == k {
		delete(c.shared, k.endpoint)
	}
}

// context returns the client's own ZeroMQ context.
func (c *Client) context() (*zmqContext, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil && !c.closed {
		ctx, err := newContext(nil)
		if err != nil {
			return nil, err
		}
		c.ctx = ctx
	}
	if c.closed {
		return nil, os.ErrClosed
	}
	return c.ctx, nil
}

func (c *Client) forget(e member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, e)
}

func (c *Client) opError(op, pipe string, err error) error {
	return &OpError{Op: op, Broker: c.broker, Pipe: pipe, Err: err}
}

// Ping asks the broker for an answer and returns how long that took. It
// connects if need be, and waits until ctx ends or ClientConfig.Timeout has
// passed. The errors are ErrNoBroker, ErrBrokerGone, fs.ErrPermission,
// os.ErrClosed and the system's, as with OpenReader.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	var took time.Duration
	start := time.Now()
	err := c.reach(ctx, func(_ context.Context, b *Broker) error {
		defer func() { took = time.Since(start) }()
		return b.pipes.refusal()
	}, func(ctx context.Context) error {
		return c.onConn(ctx, c.endpoint, func(k *conn) error {
			var err error
			if took = k.took; k.began.Before(start) { // else this connection has been made just now
				start := time.Now()
				err = k.ping(ctx)
				took = time.Since(start)
			}
			if !k.shared {
				k.retire()
			}
			return err
		})
	})
	if err != nil {
		return 0, c.opError("ping", "", err)
	}
	return took, nil
}

// Endpoint returns at which of the broker's endpoints the client has reached it
// last, and so by which way: inproc://zpipes/NAME where a broker of its name is
// in this process, unix:// for a near door, or an endpoint of ZeroMQ. It is
// empty before the first open or Ping.
func (c *Client) Endpoint() string {
	if b := c.local(); b != nil {
		return inprocEndpoint(b.name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reached
}

// Close closes all that the client has opened, at the same time and as their
// own Close does: Writers and Queues deliver what they hold, or give up at
// their deadline or after ClientConfig.Timeout. Opens that wait return
// os.ErrClosed. The error joins what went wrong, also for ends that were being
// closed already. A second Close waits for the first one, and returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.down
		return nil
	}
	defer close(c.down)
	c.closed = true
	c.cancel()
	ends := c.ends
	c.ends = nil // nobody comes any more
	c.mu.Unlock()

	var wg sync.WaitGroup
	errs := make([]error, 0, len(ends))
	results := make(chan error, len(ends))
	for o := range ends {
		wg.Go(func() { results <- o.shutDown() })
	}
	wg.Wait()
	close(results)
	for err := range results {
		errs = append(errs, err)
	}

	c.mu.Lock()
	conns := make([]*conn, 0, len(c.conns))
	for k := range c.conns {
		conns = append(conns, k)
	}
	c.mu.Unlock()
	for _, k := range conns {
		k.retire()
	}
	for _, k := range conns {
		<-k.done
	}
	c.dialing.Acquire(context.Background(), 1) // what still dials uses the context
	if c.ctx != nil {
		c.ctx.close()
	}
	c.log.close()
	return errors.Join(errs...)
}
