//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A way is one of those in which a client can reach a broker.
type way struct {
	name string
	base bool // the broker knows only the base protocol
	// moves: every stream moves into a ring at once
	moves bool
	// machines: readers are at another broker of a cluster
	machines bool
	// apart: the broker is another process, which goes on while this one has to wait for a
	// processor, or stands still
	apart bool
	// start starts a broker and returns what NewClient takes, and how to end the
	// broker without a word.
	start func(t testing.TB, cfg BrokerConfig) (broker string, kill func())
}

var ways = []way{
	{name: "direct", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		b := startBroker(t, cfg)
		return b.Name(), func() { b.Close() }
	}},
	{name: "memory", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		cfg.Endpoints = []string{}
		b := startBroker(t, cfg)
		return b.Endpoints()[0], func() { b.Close() }
	}},
}

func startBroker(t testing.TB, cfg BrokerConfig) *Broker {
	t.Helper()
	return startBrokerNamed(t, "", cfg)
}

func startBrokerNamed(t testing.TB, name string, cfg BrokerConfig) *Broker {
	t.Helper()
	b, err := cfg.NewBroker(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// uniqueName is a broker's name that no other test of this machine uses.
func uniqueName(t testing.TB) string {
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	b.Close()
	return b.Name()
}

// A rig is a broker and a client of it.
type rig struct {
	*testing.T
	way
	broker string
	kill   func()
	client *Client
	second string  // the name of the broker where readers are; "": the same one
	reads  *Client // its client; nil: client
}

// overAllWays runs a test for each way to reach a broker.
func overAllWays(t *testing.T, test func(r *rig)) { overWays(t, BrokerConfig{}, ClientConfig{}, test) }

// overWays runs a test for each way, all at the same time. What streams promise, they do also
// between brokers.
func overWays(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	if strings.HasPrefix(t.Name(), "TestStream") || slices.Contains(queuesBetweenBrokers, t.Name()) {
		overWaysAndMachines(t, broker, client, test)
	} else {
		overTheseWays(t, ways, broker, client, test)
	}
}

// queuesBetweenBrokers are tests of queues whose home may be another broker: those of whole chunks.
var queuesBetweenBrokers = []string{
	"TestQueueKeepsChunks", "TestQueueOutlivesItsUsers", "TestQueueIsShared", "TestQueueReceivesCancelled", "TestQueueReceiverStops",
	"TestQueueReceiverSlowsDown", "TestQueueChunksReturnInOrder", "TestQueueDeleted", "TestQueueServesCallsInTurn",
}

// overWaysAndMachines is overWays also for what is no stream and reaches across brokers.
func overWaysAndMachines(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	overTheseWays(t, append(slices.Clone(ways), way{name: "machines", machines: true}), broker, client, test)
}

func overTheseWays(t *testing.T, ways []way, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			test(w.rig(t, broker, client))
		})
	}
}

// overWaysInTurn is for tests that look at the whole process.
func overWaysInTurn(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) { test(w.rig(t, broker, client)) })
	}
}

func (w way) rig(t *testing.T, broker BrokerConfig, client ClientConfig) *rig {
	t.Helper()
	r := &rig{T: t, way: w}
	if w.machines {
		r.startMachines(broker)
		r.reads = r.newClientOf(r.second, client)
		r.queuesElsewhere("q", "jobs")
	} else {
		r.broker, r.kill = w.start(t, broker)
	}
	r.client = r.newClient(client)
	return r
}

// busy is for a test that has much to do: no other one of those runs beside it, so that each
// has as much time for it as it would have alone.
func (r *rig) busy() {
	busy.Lock()
	r.Cleanup(busy.Unlock)
}

var busy sync.Mutex

// startMachines starts two brokers that act as one.
func (r *rig) startMachines(cfg BrokerConfig) {
	r.Helper()
	c := newTestCluster()
	change := func(to *BrokerConfig) {
		*to = cfg
		to.Cluster = c
	}
	reads := c.broker(r, change)
	cfg.Dir = ""
	writes := c.broker(r, change)
	c.awaitLinks(r, writes, reads)
	r.broker, r.second = writes.Name(), reads.Name()
	r.kill = func() { writes.Close() }
}

// queuesElsewhere makes queues whose home is the second broker.
func (r *rig) queuesElsewhere(names ...string) {
	r.Helper()
	if !strings.HasPrefix(r.Name(), "TestQueue") {
		return
	}
	for _, name := range names {
		q, err := r.reads.OpenQueue(r.Context(), name)
		if err == nil {
			err = q.Close()
		}
		if err != nil {
			r.Fatal(err)
		}
	}
}

// connected has the client connect. One with a short Timeout may need to try again on a busy
// machine; its opens then find a connection.
func (r *rig) connected() {
	r.Helper()
	eventually(r, "a connection", func() bool { _, err := r.client.Ping(r.Context()); return err == nil })
}

// opens calls f, which opens something, and again if a client with a short Timeout had too little
// time for it.
func (r *rig) opens(f func() error) {
	r.Helper()
	end := time.Now().Add(soon)
	err := f()
	for errors.Is(err, ErrNoBroker) && errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end) {
		err = f()
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) newClient(cfg ClientConfig) *Client { return r.newClientOf(r.broker, cfg) }

func (r *rig) newClientOf(broker string, cfg ClientConfig) *Client {
	r.Helper()
	if r.apart && cfg.Heartbeat == 0 {
		cfg.Heartbeat = patient.Heartbeat
	}
	c, err := cfg.NewClient(broker)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		c.mu.Lock()
		ends := maps.Clone(c.ends)
		c.mu.Unlock()
		for o := range ends {
			if w, ok := o.(*Writer); ok {
				w.SetWriteDeadline(time.Unix(1, 0)) // nobody waits for readers any more
			}
		}
		c.Close()
	})
	return c
}

func (r *rig) readers() *Client {
	if r.reads != nil {
		return r.reads
	}
	return r.client
}

func (r *rig) reader(pipe string) (rd *Reader) {
	r.Helper()
	r.opens(func() (err error) { rd, err = r.readers().OpenReader(r.Context(), pipe); return err })
	r.Cleanup(func() { rd.Close() })
	return rd
}

func (r *rig) writer(pipe string) (w *Writer) {
	r.Helper()
	r.opens(func() (err error) { w, err = r.client.OpenWriter(r.Context(), pipe); return err })
	// What a test leaves undelivered is not worth waiting for.
	r.Cleanup(func() { w.SetWriteDeadline(time.Unix(1, 0)); w.Close() })
	return w
}

// hasRing says that the stream's bytes go through a ring, or soon will.
func (e *end) hasRing() bool {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	return e.pipe.ring != nil
}

// pipe opens both ends; the writer first, since a C broker wants it so.
func (r *rig) pipe(name string) (*Reader, *Writer) {
	r.Helper()
	w := r.writer(name)
	rd := r.reader(name)
	if r.machines {
		eventually(r, "they have met", func() bool {
			w.pipe.mu.Lock()
			defer w.pipe.mu.Unlock()
			return w.pipe.use == relayed && w.pipe.reader.sure
		})
	}
	return rd, w
}

// begin calls f in another goroutine, and makes sure that it blocks first.
func (r *rig) begin(f func() (int, error)) <-chan result {
	done := inBackground(f)
	select {
	case got := <-done:
		r.Helper()
		r.Errorf("a call that should block returned %d, %v", got.n, got.err)
		done <- got
	case <-time.After(50 * time.Millisecond):
	}
	return done
}

// within waits for a result for at most d.
func (r *rig) within(d time.Duration, done <-chan result) result {
	r.Helper()
	var got result
	eventuallyWithin(r, d, "a result", func() bool {
		select {
		case got = <-done:
			return true
		default:
			return false
		}
	})
	return got
}

// bulk is how much a test moves; the base protocol moves it byte by byte.
func (r *rig) bulk(n int) int {
	if r.base {
		return min(n, 20_000)
	}
	return n
}

// writeUntilError writes single bytes until that fails.
func (r *rig) writeUntilError(w *Writer) error {
	r.Helper()
	for end := time.Now().Add(soon); time.Now().Before(end); {
		if _, err := w.WriteString("x"); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	r.Fatal("no Write failed")
	return nil
}

// fills writes so many bytes, which must be all that there is room for.
func (r *rig) fills(w *Writer, n int) {
	r.Helper()
	w.SetWriteDeadline(time.Time{})
	if _, err := w.Write(make([]byte, n)); err != nil {
		r.Errorf("a Write of %d bytes: %v", n, err)
	}
	w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := w.Write(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		r.Errorf("one byte more: %d, %v", n, err)
	}
}

// fill writes until there is no room left, or seems to be, and returns how much went in.
func fill(w *Writer) (total int) {
	b := make([]byte, 1000)
	for {
		w.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := w.Write(b)
		total += n
		if err != nil {
			return total
		}
	}
}

// overWire runs a test against a broker in this process that is reached over ipc.
func overWire(t *testing.T, broker BrokerConfig, client ClientConfig) (*rig, *Broker) {
	b := startBroker(t, broker)
	r := &rig{T: t, broker: b.Endpoints()[1], kill: func() { b.Close() }}
	r.client = r.newClient(client)
	return r, b
}

// newReader opens a reader that the test does not close.
func (r *rig) newReader(pipe string) *Reader {
	rd, err := r.readers().OpenReader(context.Background(), pipe)
	if err != nil {
		r.Error(err)
	}
	return rd
}

// logLines is a slog handler's output.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// freePort is one that stays free: it is below those that the system gives to who asks for any.
func freePort(t *testing.T) int {
	for {
		port := 20_000 + rand.IntN(10_000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			l.Close()
			return port
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}
