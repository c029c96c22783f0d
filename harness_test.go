package zpipes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv makes the test binary play a part in another test instead: its value
// is a JSON childTask.
const childEnv = "ZPIPES_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		os.Exit(playChild(task))
	}
	goleak.VerifyTestMain(m)
}

// childTask is what another process is to do.
type childTask struct {
	Part       string // "broker", "reader", "writer", "sender", "receiver", or one of parts
	Broker     string // name, or where to connect to
	Pipe       string
	Data       string // for a writer: to be written and flushed
	Count      int    // bytes for a reader to read, chunks for a sender to send and flush, or for a receiver to receive
	Forever    bool   // once it is ready: a sender sends on, a receiver receives and prints a line for each chunk
	MaxPending int
	Private    bool
	UID        uint32 // whom it runs as; 0: the tests' own user
	Namespace  bool   // in a user namespace of its own
	AllowUIDs  []int  // BrokerConfig's
	TrustUIDs  []int  // ClientConfig's
}

// parts are those that are played in other ways than the common ones.
var parts = map[string]func(childTask) int{"starving": playStarving, "bare": playBare}

// playChild does it, says "ready" when that is done, and stays until its standard
// input ends. An open end is then left as it is.
func playChild(encoded string) int {
	var task childTask
	err := json.Unmarshal([]byte(encoded), &task)
	if play := parts[task.Part]; play != nil {
		return play(task)
	}
	ctx := context.Background()
	var c *Client
	if err == nil && task.Part != "broker" {
		c, err = ClientConfig{TrustUIDs: task.TrustUIDs}.NewClient(task.Broker)
	}
	var q *Queue
	then := func() error { return nil } // what it does once it is ready
	if err == nil {
		switch task.Part {
		case "broker":
			var b *Broker
			if b, err = (BrokerConfig{MaxPending: task.MaxPending, Private: task.Private, AllowUIDs: task.AllowUIDs}).NewBroker(task.Broker); err == nil {
				defer b.Close()
			}
		case "reader":
			var r *Reader
			if r, err = c.OpenReader(ctx, task.Pipe); err == nil {
				_, err = io.ReadFull(r, make([]byte, task.Count))
			}
		case "writer":
			var w *Writer
			if w, err = c.OpenWriter(ctx, task.Pipe); err == nil {
				if _, err = w.WriteString(task.Data); err == nil {
					err = w.Flush()
				}
			}
		case "quitter":
			var w *Writer
			if w, err = c.OpenWriter(ctx, task.Pipe); err == nil {
				w.CloseWithError(errors.New(task.Data))
				return 0
			}
		case "sender":
			i := 0
			send := func() error {
				i++
				return q.Send(ctx, strconv.AppendInt(nil, int64(i-1), 10))
			}
			if q, err = c.OpenQueue(ctx, task.Pipe); err == nil {
				for err == nil && i < task.Count {
					err = send()
				}
			}
			if err == nil {
				err, then = q.Flush(ctx), send
			}
		case "receiver":
			if q, err = c.OpenQueue(ctx, task.Pipe); err == nil {
				for i := 0; err == nil && i < task.Count; i++ {
					_, err = q.Receive(ctx)
				}
			}
			then = func() error {
				chunk, err := q.Receive(ctx)
				fmt.Printf("%s\n", chunk)
				return err
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	if task.Forever {
		go func() {
			for err == nil {
				err = then()
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// child is another process.
type child struct {
	t     testing.TB
	task  childTask
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

// startChild starts another process, which is killed at the end of the test.
func startChild(t testing.TB, task childTask) *child {
	t.Helper()
	encoded, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(encoded))
	cmd.Stderr = os.Stderr
	asUser(cmd, task.UID)
	if task.Namespace {
		inNamespace(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, task: task, cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	t.Cleanup(c.kill)
	return c
}

// ready waits until the process has done its part.
func (c *child) ready() *child {
	c.t.Helper()
	if line := c.line(); line != "ready" {
		c.t.Fatalf("the other process said %q, want ready", line)
	}
	return c
}

// line is the next that the process says.
func (c *child) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("the other process said %q, and then %v", line, err)
	}
	return strings.TrimSpace(line)
}

// lines yields what the process says from now on, until it is no more.
func (c *child) lines(yield func(string) bool) {
	for {
		line, err := c.out.ReadString('\n')
		if err != nil || !yield(strings.TrimSuffix(line, "\n")) {
			return
		}
	}
}

func (c *child) kill() { c.signal(syscall.SIGKILL); c.cmd.Wait() }

// pause stops the process, and waits until it has stopped.
func (c *child) pause() {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		c.t.Fatalf("the other process did not stop: %v", err)
	}
}

func (c *child) signal(s syscall.Signal) { c.cmd.Process.Signal(s) }

// A way is one of those in which a client can reach a broker.
type way struct {
	name string
	old  bool // the broker knows only the base protocol
	// start starts a broker and returns what NewClient takes, and how to end the
	// broker without a word.
	start func(t testing.TB, cfg BrokerConfig) (broker string, kill func())
}

var ways = []way{
	{name: "direct", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		b := startBroker(t, cfg)
		return b.Name(), func() { b.Close() }
	}},
	{name: "inproc", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		b := startBroker(t, cfg)
		return b.Endpoints()[0], func() { b.Close() }
	}},
	{name: "ipc", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		name := uniqueName(t)
		c := startChild(t, childTask{Part: "broker", Broker: name, MaxPending: cfg.MaxPending}).ready()
		return name, c.kill
	}},
	{name: "old", old: true, start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
		b := startOldBroker(t)
		t.Cleanup(func() {
			for _, v := range b.violations() {
				t.Errorf("the client broke the old protocol: %s", v)
			}
		})
		return b.endpoint, b.Close
	}},
}

func startBroker(t testing.TB, cfg BrokerConfig) *Broker {
	t.Helper()
	b, err := cfg.NewBroker("")
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
}

// overAllWays runs a test for each way to reach a broker.
func overAllWays(t *testing.T, test func(r *rig)) { overWays(t, BrokerConfig{}, ClientConfig{}, test) }

func overWays(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			r := &rig{T: t, way: w}
			r.broker, r.kill = w.start(t, broker)
			r.client = r.newClient(client)
			test(r)
		})
	}
}

// connected has the client connect. One with a short Timeout may need to try again on a busy
// machine; its opens then find a connection.
func (r *rig) connected() {
	r.Helper()
	eventually(r, "a connection", func() bool { _, err := r.client.Ping(r.Context()); return err == nil })
}

func (r *rig) newClient(cfg ClientConfig) *Client {
	r.Helper()
	c, err := cfg.NewClient(r.broker)
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

func (r *rig) reader(pipe string) *Reader {
	r.Helper()
	rd, err := r.client.OpenReader(r.Context(), pipe)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { rd.Close() })
	return rd
}

func (r *rig) writer(pipe string) *Writer {
	r.Helper()
	w, err := r.client.OpenWriter(r.Context(), pipe)
	if err != nil {
		r.Fatal(err)
	}
	// What a test leaves undelivered is not worth waiting for.
	r.Cleanup(func() { w.SetWriteDeadline(time.Unix(1, 0)); w.Close() })
	return w
}

// pipe opens both ends; the writer first, since a C broker wants it so.
func (r *rig) pipe(name string) (*Reader, *Writer) {
	r.Helper()
	w := r.writer(name)
	return r.reader(name), w
}

// result is what a call in another goroutine returned.
type result struct {
	n   int
	err error
}

// inBackground calls f in another goroutine.
func inBackground(f func() (int, error)) chan result {
	done := make(chan result, 1)
	go func() {
		n, err := f()
		done <- result{n, err}
	}()
	return done
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
	select {
	case got := <-done:
		return got
	case <-time.After(d):
		r.Fatalf("no result after %v", d)
		return result{}
	}
}

// eventually waits until something is so, which must not take long.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	eventuallyWithin(t, soon, what, so)
}

// eventuallyWithin is eventually for what may take so long.
func eventuallyWithin(t testing.TB, d time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// soon is how long what happens at once may take on a busy machine. It is not more than
// ClientConfig's Timeout, at whose end nearly everything happens. dead is what the library
// promises for noticing a death; on a busy machine it is dead + soon, and that is less than
// BrokerConfig's ClientTimeout.
const (
	soon = 5 * time.Second
	dead = 3 * time.Second
)
