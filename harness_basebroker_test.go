//go:build cgo && !core

package zpipes

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// A baseBroker stands in for zbroker 0.0.2: a broker that knows only the base protocol, and has that one's faults.
// It shows what our client meets where such a broker still runs. Each place where it is wrong says "fault".
type baseBroker struct {
	endpoint      string
	clientTimeout time.Duration // who is silent for so long is dropped; set it in an option of startBaseBroker
	crashed       atomic.Bool   // it met a fault of its own that ends it, and answers nobody any more

	mu       sync.Mutex
	breaches []string // guarded by mu; see violations

	// The rest belongs to the goroutine that serves.
	router  *zmq4.Socket
	clients map[string]*baseBrokerClient // by routing id
	pipes   map[string]*baseBrokerPipe   // by name; a pipe that either end has left is not among them

	closing sync.Once
	stop    chan struct{}
	done    chan struct{}
}

type baseBrokerPipe struct {
	name           string
	reader, writer *baseBrokerClient
}

type baseBrokerClient struct {
	id       string          // the routing id
	role     string          // the message that opened its end: INPUT or OUTPUT; none
	opened   bool            // it has opened an end, now or earlier
	pipe     *baseBrokerPipe // nil also when the other end has left
	waiting  *wireMessage    // the READ or WRITE that is not answered yet
	replaced bool            // a PING has taken its place
	deadline time.Time       // for waiting; zero: none
	queue    []wireMessage   // what came behind waiting
	expires  time.Time

	// What was written and not yet read. Fault: it is the client's rather than the pipe's, has no bound, and is
	// still there when the client opens its next pipe.
	data []byte
}

var baseBrokers atomic.Int64

// startBaseBroker starts a baseBroker that ends with the test.
func startBaseBroker(t testing.TB, options ...func(*baseBroker)) *baseBroker {
	t.Helper()
	b := &baseBroker{
		endpoint:      fmt.Sprintf("ipc://@/zpipes/base-%d-%d", os.Getpid(), baseBrokers.Add(1)),
		clientTimeout: 10 * time.Second,
		clients:       make(map[string]*baseBrokerClient),
		pipes:         make(map[string]*baseBrokerPipe),
		stop:          make(chan struct{}),
		done:          make(chan struct{}),
	}
	for _, option := range options {
		option(b)
	}
	context := wireContext(t)
	router, err := context.NewSocket(zmq4.ROUTER)
	if err != nil {
		t.Fatal(err)
	}
	unbounded := errors.Join(router.SetSndhwm(0), router.SetRcvhwm(0)) // fault
	if err := errors.Join(unbounded, router.SetLinger(0), retryEINTR(func() error { return router.Bind(b.endpoint) })); err != nil {
		t.Fatal(err)
	}
	b.router = router
	go b.serve(context)
	t.Cleanup(b.Close)
	return b
}

// Close ends the broker as a killed process would end.
func (b *baseBroker) Close() {
	b.closing.Do(func() { close(b.stop) })
	<-b.done
}

// violations lists what clients did that they must never do to such a broker.
func (b *baseBroker) violations() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.breaches)
}

func (b *baseBroker) violated(breach string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaches = append(b.breaches, breach)
}

func (b *baseBroker) serve(context *zmq4.Context) {
	defer close(b.done)
	defer wireTerm(context)
	defer b.router.Close()
	for !b.crashed.Load() {
		select {
		case <-b.stop:
			return
		default:
		}
		b.receive()
		b.expire(time.Now())
	}
}

// receive handles what has arrived; the wait for it is the tick of the broker's clock. It takes all that is there
// before it handles any: what came together was sent without waiting for answers.
func (b *baseBroker) receive() {
	var batch [][][]byte
	for frames, err := wireReceive(b.router, 5*time.Millisecond); err == nil; frames, err = wireReceive(b.router, 0) {
		batch = append(batch, frames)
	}
	writing := make(map[string]bool) // whose WRITE is in this batch
	for _, frames := range batch {
		if b.crashed.Load() {
			return
		}
		if len(frames) != 2 {
			b.violated(fmt.Sprintf("a message of several frames: %.100q", frames[1:]))
			b.crashed.Store(true) // fault: it goes deaf
			return
		}
		m, rest, ok := wireDecode(frames[1])
		if !ok {
			b.violated(fmt.Sprintf("a malformed frame: %.100x", frames[1]))
			b.crashed.Store(true) // fault
			return
		}
		if len(rest) > 0 && m.name != "PING" { // they are ignored, so whoever counts on them is wrong
			b.violated("bytes behind the last field of " + m.name)
		}
		id := string(frames[0])
		c := b.clients[id]
		if c == nil {
			c = &baseBrokerClient{id: id}
			b.clients[id] = c
		}
		c.expires = time.Now().Add(b.clientTimeout)
		unanswered := writing[id] || c.waiting != nil && c.waiting.name == "WRITE"
		if m.name == "CLOSE" && unanswered {
			b.violated("a CLOSE while a WRITE is not answered")
		}
		writing[id] = writing[id] || m.name == "WRITE"
		c.queue = append(c.queue, m)
		b.proceed(c)
	}
}

// expire answers the requests whose time is up and drops the clients that were silent.
func (b *baseBroker) expire(now time.Time) {
	for _, c := range b.clients {
		switch {
		case now.After(c.expires):
			b.leave(c) // fault: the other end takes this for a clean end
			b.drop(c)  // fault: the request that waits is never answered
		case c.waiting != nil && !c.deadline.IsZero() && now.After(c.deadline):
			b.finish(c, wireMessage{name: c.waiting.name + "_TIMEOUT"})
		}
	}
}

// proceed handles a client's queue: all of it, or while a request waits only what may overtake that.
func (b *baseBroker) proceed(c *baseBrokerClient) {
	for {
		next := slices.IndexFunc(c.queue, func(m wireMessage) bool {
			return c.waiting == nil || m.name == "PING" || m.name == "CLOSE"
		})
		if next < 0 {
			return
		}
		m := c.queue[next]
		c.queue = slices.Delete(c.queue, next, next+1)
		b.handle(c, m)
	}
}

func (b *baseBroker) handle(c *baseBrokerClient, m wireMessage) {
	switch {
	case m.name == "PING":
		c.deadline = time.Time{}      // fault: the request that waits has no timeout any more
		c.replaced = c.waiting != nil // fault: it is forgotten, though not that one waits
		if c.replaced && c.waiting.name == "WRITE" {
			b.violated("a PING behind a WRITE that waits")
		}
		b.reply(c, wireMessage{name: "PING_OK"})
	case (m.name == "INPUT" || m.name == "OUTPUT") && c.role == "":
		b.open(c, m)
	case m.name == "READ" && c.role == "INPUT", m.name == "WRITE" && c.role == "OUTPUT":
		c.waiting, c.deadline = &m, time.Time{}
		if m.timeout > 0 && len(c.data) == 0 { // fault: no timeout when part of it is there
			c.deadline = time.Now().Add(time.Duration(m.timeout) * time.Millisecond)
		}
		b.try(c)
	case m.name == "CLOSE" && c.role != "":
		if c.waiting != nil {
			b.reply(c, wireMessage{name: c.waiting.name + "_FAILED"})
			c.waiting = nil
		}
		b.leave(c)
		c.role = ""
		b.reply(c, wireMessage{name: "CLOSE_OK"})
	case (m.name == "READ" || m.name == "WRITE") && c.role != "":
		b.reply(c, wireMessage{name: "INVALID"}) // the wrong role changes nothing
	default:
		b.reply(c, wireMessage{name: "INVALID"})
		b.drop(c) // fault: without leave, so the pipe keeps an end that nobody holds
	}
}

func (b *baseBroker) open(c *baseBrokerClient, m wireMessage) {
	p := b.pipes[m.text]
	if p == nil {
		p = &baseBrokerPipe{name: m.text}
		b.pipes[p.name] = p
	}
	end, other := &p.reader, p.writer
	if m.name == "OUTPUT" {
		end, other = &p.writer, p.reader
	}
	if *end != nil {
		b.reply(c, wireMessage{name: m.name + "_FAILED"})
		b.drop(c)
		return
	}
	if c.opened {
		b.violated("a second pipe on one connection") // it would begin with the first one's leftovers
	}
	*end = c
	c.role, c.pipe, c.opened = m.name, p, true
	if other != nil && other.waiting != nil {
		if other.role == "INPUT" || other.replaced {
			b.crashed.Store(true) // fault: a writer that opens under a waiting READ; a WRITE that is a PING now
			return
		}
		b.try(other)
	}
	b.reply(c, wireMessage{name: m.name + "_OK"})
}

// try answers the READ or WRITE that waits, if it can be.
func (b *baseBroker) try(c *baseBrokerClient) {
	size := int(c.waiting.size)
	switch {
	case c.role == "INPUT" && (size == 0 || c.pipe == nil && len(c.data) == 0):
		b.finish(c, wireMessage{name: "READ_END"})
	case c.role == "INPUT" && c.replaced:
		b.finish(c, wireMessage{name: "READ_OK"}) // fault: a PING asks for no bytes
	case c.role == "INPUT" && (size <= len(c.data) || c.pipe == nil):
		size = min(size, len(c.data))
		chunk := string(c.data[:size])
		c.data = c.data[size:]
		b.finish(c, wireMessage{name: "READ_OK", text: chunk})
	case c.role == "OUTPUT" && c.pipe == nil:
		b.finish(c, wireMessage{name: "WRITE_FAILED"})
	case c.role == "OUTPUT" && c.pipe.reader != nil:
		reader := c.pipe.reader
		reader.data = append(reader.data, c.waiting.text...)
		reader.deadline = time.Time{} // fault: no timeout any more, although it may still have to wait
		if reader.waiting != nil {
			b.try(reader)
		}
		b.finish(c, wireMessage{name: "WRITE_OK"})
	}
}

// finish answers the request that waits, and goes on to those behind it.
func (b *baseBroker) finish(c *baseBrokerClient, answer wireMessage) {
	c.waiting, c.replaced = nil, false
	b.reply(c, answer)
	b.proceed(c)
}

// leave detaches a client from its pipe, which is over with that.
func (b *baseBroker) leave(c *baseBrokerClient) {
	p := c.pipe
	if p == nil {
		return
	}
	delete(b.pipes, p.name)
	for _, end := range []*baseBrokerClient{p.reader, p.writer} {
		if end != nil {
			end.pipe = nil
		}
	}
	if p.reader != nil && p.reader != c && p.reader.waiting != nil {
		b.try(p.reader) // fault: nothing tells the reader why the writer has left
	}
}

// drop forgets a client. Fault: nothing that is still queued is answered.
func (b *baseBroker) drop(c *baseBrokerClient) {
	delete(b.clients, c.id)
	c.waiting, c.queue = nil, nil
}

func (b *baseBroker) reply(c *baseBrokerClient, m wireMessage) {
	if !b.crashed.Load() {
		wireSend(b.router, []byte(c.id), m.encode()) // who has gone gets nothing
	}
}
