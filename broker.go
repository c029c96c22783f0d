//go:build !core

package zpipes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"
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
// directly, others through near doors or over ZeroMQ. Its methods may be called
// concurrently.
type Broker struct {
	name      string
	endpoints []string
	cfg       BrokerConfig
	log       *asyncLog
	pipes     *registry
	locks     []func() // release the endpoints' paths

	closing chan struct{} // closed when Close begins
	closed  sync.Once
	ending  sync.Once     // endsHandingOver
	drained bool          // no reader was left then; guarded by closing
	done    chan struct{} // closed when the loop has ended

	keys   atomic.Pointer[keyring]
	rekey  sync.Mutex // held while the keys change; no other lock but leaves is taken under it
	zeromq *zmqHost   // nil: it has nothing of ZeroMQ
	doors  []*nearDoor
	peers  members[*peerConn] // its connections that are not ZeroMQ's
	mesh   *mesh              // nil: it is alone
	meets  *meetingHost       // likewise
	gate   gate
	posted mailbox[resumer] // for the loop
	bell   bell             // for the loop, to look around
	tokens atomic.Uint64

	keeper *keeper // nil: no queue is durable
	clock  coarseClock
	rings  brokerRings
	users  struct {
		mu       sync.Mutex // guards accounts; no other lock is taken under it
		accounts map[user]*account
	}

	started  time.Time
	refusals struct {
		mu    sync.Mutex           // guards began; under it only the asyncLog's is taken
		began map[string]time.Time // the latest try of each peer, and why it was refused, of late
	}

	reporter reporter

	// The rest belongs to the loop.
	forgetAt   time.Time
	forgetNext int // where to go on looking then
}

const (
	// forgetPause is what others have between two looks at some queues.
	forgetPause = time.Millisecond
	// oneTry is for how long a client that is turned away and comes again is still at the
	// same try: whether it is turned away, or the broker just ends, it can't tell at once.
	oneTry = 3 * time.Second
	// maxTries is how many peers are remembered for that.
	maxTries = 1024
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
	keys, err := newKeyring(cfg.Key, cfg.AllowKeys)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS == "linux" && haveZeroMQ && !tellsPeers { // an abstract socket would be everybody's
		if slices.ContainsFunc(cfg.Endpoints, func(e string) bool { return strings.HasPrefix(e, "ipc://@") }) {
			return nil, errors.New("this system's C library does not tell who connects; use Private, or an ipc endpoint with a path")
		}
		cfg.Private = cfg.Private || cfg.Endpoints == nil
	}
	undo := func() {}
	var usual []string
	if cfg.Private {
		var endpoint string
		if endpoint, undo, err = makePrivate(name); err != nil {
			return nil, err
		}
		usual = []string{endpoint}
	} else if cfg.Endpoints == nil {
		usual = []string{defaultEndpoint(name)}
	}
	if !haveZeroMQ {
		usual, _ = nearDoors(usual)
	}
	cfg.Endpoints = append(usual, cfg.Endpoints...)
	b := &Broker{
		name:    name,
		cfg:     cfg,
		started: time.Now(),
		log:     newAsyncLog(cfg.Logger, "broker", name),
		pipes:   newRegistry(cfg.MaxPipes, cfg.MaxPending, cfg.MaxMessage),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		bell:    newBell(),
	}
	b.keys.Store(keys)
	b.pipes.backlog, b.pipes.post = cfg.Backlog, b.post
	b.pipes.later = func(d time.Duration, f func()) func() {
		t := time.AfterFunc(d, f)
		return func() { t.Stop() }
	}
	b.gate.ask, b.gate.log = cfg.allow, b.log
	b.pipes.tellTime(&clock{now: time.Now, stamp: b.clock.stamp}, b.bell.ring)
	b.forgetAt = time.Now().Add(cfg.ForgetQueues)
	b.tokens.Store(mathrand.Uint64() >> 1)
	if !processBrokers.reserve(name) {
		undo()
		return nil, fmt.Errorf("%w: this process runs one of that name", ErrBrokerExists)
	}
	if cfg.Cluster != nil {
		b.meets = newMeetingHost(b)
	}
	if cfg.Dir != "" {
		if b.keeper, err = newKeeper(b); err != nil {
			undo()
			processBrokers.leave(name)
			return nil, err
		}
		b.pipes.keepBy(b.keeper.keep)
	}
	err = b.bind()
	if err == nil && cfg.Cluster != nil {
		b.mesh, err = newMesh(b, cfg.Cluster, b.meets.id, b.meets.exchange)
	}
	if err != nil {
		b.unbind()
		if b.keeper != nil {
			b.keeper.close()
		}
		undo()
		processBrokers.leave(name)
		return nil, err
	}
	go b.serve()
	if b.meets != nil {
		go b.meets.serve()
	}
	if b.zeromq != nil {
		go b.zeromq.serve()
		b.zeromq.door.serve()
	}
	for _, d := range b.doors {
		go d.serve()
	}
	processBrokers.enter(b)
	b.log.info("broker up", "endpoints", b.endpoints)
	return b, nil
}

// bind begins to serve the endpoints. What it has bound is for unbind.
func (b *Broker) bind() (err error) {
	if err := b.unique(); err != nil {
		return err
	}
	b.endpoints = []string{inprocEndpoint(b.name)}
	near, without := nearDoors(b.cfg.Endpoints)
	for _, endpoint := range without {
		b.log.warn("no near door: the path is too long", "endpoint", endpoint)
	}
	if zmq := slices.DeleteFunc(slices.Clone(b.cfg.Endpoints), isNear); len(zmq) > 0 || b.cfg.Context != nil {
		if b.zeromq, err = newZmqHost(b, append(b.endpoints, zmq...)); err != nil {
			return err
		}
		b.endpoints = b.zeromq.bound
	}
	for _, endpoint := range near {
		if err := b.openDoor(endpoint); err != nil {
			return err
		}
		b.endpoints = append(b.endpoints, endpoint)
	}
	return b.unique() // one that started at the same time has looked before, too
}

func (b *Broker) unbind() {
	for _, d := range b.doors {
		d.close()
	}
	if b.zeromq != nil {
		b.zeromq.unbind()
	}
	for _, unlock := range b.locks {
		unlock()
	}
}

// unique says that clients of this user find no other broker by the name that this one
// is found by.
func (b *Broker) unique() error {
	near, _ := nearDoors(b.cfg.Endpoints)
	served := append(near, b.cfg.Endpoints...)
	mine := func(endpoint string) bool { return slices.Contains(served, endpoint) }
	at := places(b.name)
	if !slices.ContainsFunc(at, mine) {
		return nil
	}
	for _, endpoint := range at {
		if !mine(endpoint) && servesOwn(endpoint, helloAt(endpoint)) {
			return fmt.Errorf("%s: %w: some clients would find that one, and some this", endpoint, ErrBrokerExists)
		}
	}
	return nil
}

// Name returns the broker's name.
func (b *Broker) Name() string { return b.name }

// Endpoints returns where the broker is served: inproc://zpipes/NAME, ZeroMQ's
// endpoints, and the near doors. In place of a wildcard port it has the port that was
// bound.
func (b *Broker) Endpoints() []string { return slices.Clone(b.endpoints) }

// Client returns a client of this very broker, with default settings; for other
// settings use ClientConfig.NewClient with the broker's name. It holds nothing
// but what it opens.
func (b *Broker) Client() *Client {
	return newClient(ClientConfig{}.withDefaults(), b.name, "", b)
}

// Stats returns the broker's counters. It is cheap enough for once a second.
func (b *Broker) Stats() BrokerStats {
	b.rings.count(false)
	return b.pipes.stats()
}

// Pipes yields the pipes that existed when it was called, ordered by name; of
// those that came or went while it looked, it yields some. It holds up nobody,
// however many pipes there are.
func (b *Broker) Pipes() iter.Seq[PipeInfo] {
	return slices.Values(b.list())
}

// Shutdown ends the broker in good order: it refuses opens and fails writes
// with ErrBrokerGone, waits until every reader has read what was confirmed, and
// closes. In a cluster it first hands over to another broker, for up to 3 s, the
// queues that it has in memory alone. If ctx ends first, it closes at once and returns ctx.Err(). If Close,
// or another Shutdown, cuts it short, the error is an *OpError around
// os.ErrClosed. On a closed broker it returns nil.
func (b *Broker) Shutdown(ctx context.Context) error {
	if !b.serving() {
		return b.Close()
	}
	b.endsHandingOver(ctx)
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
// processes, unless this process is just starting a program. A broker of a cluster
// hands queues over before, as Shutdown does. A second Close
// waits for the first one.
func (b *Broker) Close() error {
	b.closed.Do(func() {
		b.endsHandingOver(context.Background())
		select {
		case <-b.pipes.empty:
			b.drained = true
		default:
		}
		close(b.closing)
		b.pipes.close(cause{causeBrokerGone, "it was closed"}, true)
		for _, d := range b.doors {
			d.close()
			<-d.done
		}
		if b.zeromq != nil {
			b.zeromq.door.stop()
		}
		if b.mesh != nil {
			b.mesh.close()
			<-b.meets.done
			b.meets.movers.running.Wait()
		}
		peers := b.peers.close()
		for _, k := range peers {
			k.end()
		}
		if b.zeromq != nil {
			b.zeromq.stop()
		}
		for _, k := range peers {
			<-k.done
		}
		<-b.done
		for b.posted.len() > 0 { // a queue that was deleted just before has some left to tell
			b.posted.take().resume(time.Now())
		}
		b.gate.close()
		b.reporter.close()
		if b.keeper != nil {
			b.keeper.close()
		}
		b.unbind()
		processBrokers.leave(b.name)
		b.log.info("broker down")
		b.log.close()
	})
	return nil
}

// serve is the loop: it does what is no connection's.
func (b *Broker) serve() {
	defer close(b.done)
	forget := time.NewTimer(time.Until(b.forgetAt))
	defer forget.Stop()
	if b.cfg.ForgetQueues == 0 {
		forget.Stop()
	}
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for {
		if next := b.pipes.alarms.next(); next.IsZero() {
			tick.Stop()
		} else {
			tick.Reset(time.Until(next))
		}
		select {
		case <-b.closing:
			return
		case <-b.bell:
			b.posted.each(math.MaxInt, func(t resumer) { t.resume(time.Now()) })
		case now := <-tick.C:
			b.pipes.tick(now)
		case now := <-forget.C:
			b.forgetQueues(now)
			forget.Reset(time.Until(b.forgetAt))
		}
	}
}

// post has the loop resume t.
func (b *Broker) post(t resumer) {
	if b.posted.put(t) {
		b.bell.ring()
	}
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
