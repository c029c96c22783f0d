package zpipes

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// An oldBroker stands in for zbroker 0.0.2: a broker that knows only the base protocol, and has that one's faults.
// It shows what our client meets where such a broker still runs. Each place where it is wrong says "fault".
type oldBroker struct {
	endpoint      string
	clientTimeout time.Duration // who is silent for so long is dropped; set it in an option of startOldBroker
	crashed       atomic.Bool   // it met a fault of its own that ends it, and answers nobody any more

	mu       sync.Mutex
	breaches []string // guarded by mu; see violations

	// The rest belongs to the goroutine that serves.
	router  *zmq4.Socket
	clients map[string]*oldBrokerClient // by routing id
	pipes   map[string]*oldBrokerPipe   // by name; a pipe that either end has left is not among them

	closing sync.Once
	stop    chan struct{}
	done    chan struct{}
}

type oldBrokerPipe struct {
	name           string
	reader, writer *oldBrokerClient
}

type oldBrokerClient struct {
	id       string         // the routing id
	role     string         // the message that opened its end: INPUT or OUTPUT; none
	opened   bool           // it has opened an end, now or earlier
	pipe     *oldBrokerPipe // nil also when the other end has left
	waiting  *wireMessage   // the READ or WRITE that is not answered yet
	replaced bool           // a PING has taken its place
	deadline time.Time      // for waiting; zero: none
	queue    []wireMessage  // what came behind waiting
	expires  time.Time

	// What was written and not yet read. Fault: it is the client's rather than the pipe's, has no bound, and is
	// still there when the client opens its next pipe.
	data []byte
}

var oldBrokers atomic.Int64

// startOldBroker starts an oldBroker that ends with the test.
func startOldBroker(t testing.TB, options ...func(*oldBroker)) *oldBroker {
	t.Helper()
	b := &oldBroker{
		endpoint:      fmt.Sprintf("ipc://@/zpipes/old-%d-%d", os.Getpid(), oldBrokers.Add(1)),
		clientTimeout: 10 * time.Second,
		clients:       make(map[string]*oldBrokerClient),
		pipes:         make(map[string]*oldBrokerPipe),
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
func (b *oldBroker) Close() {
	b.closing.Do(func() { close(b.stop) })
	<-b.done
}

// violations lists what clients did that they must never do to such a broker.
func (b *oldBroker) violations() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.breaches)
}

func (b *oldBroker) violated(breach string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaches = append(b.breaches, breach)
}

func (b *oldBroker) serve(context *zmq4.Context) {
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
func (b *oldBroker) receive() {
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
			c = &oldBrokerClient{id: id}
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
func (b *oldBroker) expire(now time.Time) {
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
func (b *oldBroker) proceed(c *oldBrokerClient) {
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

func (b *oldBroker) handle(c *oldBrokerClient, m wireMessage) {
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

func (b *oldBroker) open(c *oldBrokerClient, m wireMessage) {
	p := b.pipes[m.text]
	if p == nil {
		p = &oldBrokerPipe{name: m.text}
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
func (b *oldBroker) try(c *oldBrokerClient) {
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
func (b *oldBroker) finish(c *oldBrokerClient, answer wireMessage) {
	c.waiting, c.replaced = nil, false
	b.reply(c, answer)
	b.proceed(c)
}

// leave detaches a client from its pipe, which is over with that.
func (b *oldBroker) leave(c *oldBrokerClient) {
	p := c.pipe
	if p == nil {
		return
	}
	delete(b.pipes, p.name)
	for _, end := range []*oldBrokerClient{p.reader, p.writer} {
		if end != nil {
			end.pipe = nil
		}
	}
	if p.reader != nil && p.reader != c && p.reader.waiting != nil {
		b.try(p.reader) // fault: nothing tells the reader why the writer has left
	}
}

// drop forgets a client. Fault: nothing that is still queued is answered.
func (b *oldBroker) drop(c *oldBrokerClient) {
	delete(b.clients, c.id)
	c.waiting, c.queue = nil, nil
}

func (b *oldBroker) reply(c *oldBrokerClient, m wireMessage) {
	if !b.crashed.Load() {
		wireSend(b.router, []byte(c.id), m.encode()) // who has gone gets nothing
	}
}

// What the recorded channels of the real one hold is what makes this a stand-in.
func TestOldBroker(t *testing.T) {
	for _, path := range scriptPaths(t, "v2") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			scriptPlay(t, startOldBroker(t).endpoint, path, scriptRead(t, path))
		})
	}
}

// What holds on our broker, and not on the real one.
func TestOldBrokerFaultsOfRecord(t *testing.T) {
	for name, want := range map[string]struct {
		line       int
		got        string
		crashed    bool
		violations []string
	}{
		"old/01-ping-behind-a-waiting-write": {7, "none: no message in time", true, []string{"a PING behind a WRITE that waits"}},
		"old/02-ping-behind-a-waiting-read":  {10, `READ_OK ""`, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startOldBroker(t)
			steps, err := scriptParse(scriptRead(t, filepath.Join("testdata", "conformance", name+".txt")))
			if err != nil {
				t.Fatal(err)
			}
			p := newScriptPlayer(t, b.endpoint)
			defer p.close()
			line, got := 0, ""
			for i := 0; i < len(steps) && got == ""; i++ {
				line, got = steps[i].line, p.try(steps[i])
			}
			if line != want.line || got != want.got || b.crashed.Load() != want.crashed || !slices.Equal(b.violations(), want.violations) {
				t.Errorf("line %d: %s; crashed: %v; %q\nwant %+v", line, got, b.crashed.Load(), b.violations(), want)
			}
		})
	}
	if n := len(scriptPaths(t, "old")); n != 2 {
		t.Errorf("there are %d scripts of old brokers", n)
	}
}

// Its faults are there on purpose, so that a client can be shown to live with them.
func TestOldBrokerFaults(t *testing.T) {
	const open = `
r > INPUT "p"
r < INPUT_OK
w > OUTPUT "p"
w < OUTPUT_OK
`
	for name, test := range map[string]struct {
		script        string
		clientTimeout time.Duration // zero: the default
		crashed       bool
		violations    []string
	}{
		"no timeout with part of it there": {script: open + `
w > WRITE "abc" 0
w < WRITE_OK
r > READ 10 50
r < nothing 200ms
w > CLOSE
w < CLOSE_OK
r < READ_OK "abc"`},
		"no timeout once part of it has come": {script: open + `
r > READ 10 300
w > WRITE "abc" 0
w < WRITE_OK
r < nothing 500ms`},
		"no timeout after a PING": {script: open + `
r > READ 10 300
r > PING
r < PING_OK
r < nothing 500ms`},
		"a writer opens under a waiting READ": {crashed: true, script: `
r > INPUT "p"
r < INPUT_OK
r > READ 1 0
r > PING
r < PING_OK
w > OUTPUT "p"
w < nothing 100ms
w > PING
w < nothing 50ms
w gone
r gone`},
		"a silent reader's READ is never answered": {clientTimeout: 300 * time.Millisecond, script: `
r > INPUT "p"
r < INPUT_OK
r > READ 1 0
r < nothing 500ms
r > READ 1 0
r < INVALID`},
		"a silent writer looks like a clean end": {clientTimeout: time.Second, script: open + `
w > WRITE "abc" 0
w < WRITE_OK
w gone
sleep 500ms
r > READ 10 0
r < READ_OK "abc"
r > READ 10 0
r < READ_END`},
		"a second open leaves a dangling end": {script: `
r > INPUT "p"
r < INPUT_OK
r > INPUT "q"
r < INVALID
r > INPUT "p"
r < INPUT_FAILED`},
		"only the first READ behind a CLOSE is answered": {script: open + `
r > READ 1 0
r > READ 1 0
r > READ 1 0
r > CLOSE
r < READ_FAILED
r < CLOSE_OK
r < INVALID
r < nothing 50ms`},
		"the next pipe begins with the last one's leftovers": {violations: []string{"a second pipe on one connection"}, script: open + `
w > WRITE "left" 0
w < WRITE_OK
r > CLOSE
r < CLOSE_OK
r > INPUT "q"
r < INPUT_OK
r > READ 4 0
r < READ_OK "left"`},
		"trailing bytes are ignored": {violations: []string{"bytes behind the last field of CLOSE"}, script: `
r > RAW aaa013ffffff
r < PING_OK
r > RAW aaa010ff
r < INVALID`},
		"a CLOSE behind a WRITE is noted": {violations: []string{"a CLOSE while a WRITE is not answered"}, script: `
w > OUTPUT "p"
w < OUTPUT_OK
w > WRITE "abc" 0
w > CLOSE
w < WRITE_FAILED
w < CLOSE_OK`},
		"text makes it deaf": {crashed: true, violations: []string{`a message of several frames: ["OPEN" "B"]`}, script: `
a > TEXT "OPEN" "B"
a < nothing 50ms
b > PING
b < nothing 50ms
b gone`},
		"a READ behind which came a PING is answered with nothing, and the next as usual": {script: open + `
r > READ 1 0
r > READ 1 0
r > PING
r < PING_OK
w > WRITE "a" 0
w < WRITE_OK
r < READ_OK ""
r < READ_OK "a"`},
		"an empty WRITE waits for the reader, and is no data": {script: `
w > OUTPUT "p"
w < OUTPUT_OK
w > WRITE "" 100
w < nothing 20ms
w < WRITE_TIMEOUT
w > WRITE "" 5000
w < nothing 20ms
r > INPUT "p"
r < INPUT_OK
w < WRITE_OK
r > READ 1 0
w > WRITE "" 100
w < WRITE_OK
r < nothing 20ms
w > WRITE "a" 0
w < WRITE_OK
r < READ_OK "a"`},
		"a malformed frame ends it": {crashed: true, violations: []string{"a malformed frame: aaa000"}, script: `
a > RAW aaa000
a < nothing 50ms
a gone`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startOldBroker(t, func(b *oldBroker) {
				b.clientTimeout = cmp.Or(test.clientTimeout, b.clientTimeout)
			})
			scriptPlay(t, b.endpoint, "script", test.script)
			// It need not have come to the last message yet.
			eventually(t, fmt.Sprintf("crashed %v, with %q", test.crashed, test.violations), func() bool {
				return b.crashed.Load() == test.crashed && len(b.violations()) >= len(test.violations)
			})
			if got := b.violations(); !slices.Equal(got, test.violations) {
				t.Errorf("violations: got %q, want %q", got, test.violations)
			}
		})
	}
}
