package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// overWire runs a test against a broker in this process that is reached over ipc.
func overWire(t *testing.T, broker BrokerConfig, client ClientConfig) (*rig, *Broker) {
	b := startBroker(t, broker)
	r := &rig{T: t, broker: b.Endpoints()[1], kill: func() { b.Close() }}
	r.client = r.newClient(client)
	return r, b
}

func TestBrokerNames(t *testing.T) {
	for _, name := range []string{"a", "A.b_c-9", strings.Repeat("n", 64)} {
		b, err := BrokerConfig{Endpoints: []string{}}.NewBroker(name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		b.Close()
	}
	for _, name := range []string{"a b", "a/b", "ü", strings.Repeat("n", 65), "a\x00"} {
		if b, err := NewBroker(name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v", name, err)
			b.Close()
		}
		if _, err := NewClient(name); !errors.Is(err, ErrBadName) {
			t.Errorf("client of %q: %v", name, err)
		}
	}
	if _, err := NewClient(""); !errors.Is(err, ErrBadName) {
		t.Errorf("client of nobody: %v", err)
	}
}

func TestSecondBrokerOfAName(t *testing.T) {
	overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.old || strings.Contains(r.broker, "://") {
			r.Skip("one way in this process and one in another are enough")
		}
		rd, w := r.pipe("p")
		if b, err := NewBroker(r.broker); !errors.Is(err, ErrBrokerExists) {
			r.Errorf("second broker: %v", err)
			b.Close()
		}
		go w.WriteString("undisturbed")
		if _, err := io.ReadFull(rd, make([]byte, 11)); err != nil {
			r.Error(err)
		}
	})
}

func TestBrokerComesBackUnderItsName(t *testing.T) {
	shared, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Term()
	for _, cfg := range []BrokerConfig{{}, {Context: shared}} {
		name := uniqueName(t)
		for range 30 {
			b, err := cfg.NewBroker(name)
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			if err := b.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		}
	}
}

func TestEndpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.sock")
	b := startBroker(t, BrokerConfig{Endpoints: []string{"ipc://" + path, "tcp://127.0.0.1:*"}})
	endpoints := b.Endpoints()
	if len(endpoints) != 3 || endpoints[0] != "inproc://zpipes/"+b.Name() || strings.Contains(endpoints[2], "*") {
		t.Errorf("the endpoints are %q", endpoints)
	}
	for _, endpoint := range endpoints {
		c, err := NewClient(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if b, err := (BrokerConfig{Endpoints: []string{"ipc://" + path}}).NewBroker(""); !errors.Is(err, ErrBrokerExists) {
		t.Errorf("second broker on a path: %v", err)
		b.Close()
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string]error{
		"ipc://" + file:                     os.ErrExist,
		"ipc://" + strings.Repeat("p", 200): ErrBadName,
		"tcp://0.0.0.0:5555":                ErrBadName,
		"tcp://192.0.2.1:5555":              ErrBadName,
		"tcp://example.org:5555":            ErrBadName,
		"tcp://nonsense":                    ErrBadName,
		"udp://127.0.0.1:5555":              ErrBadName,
		"nonsense":                          ErrBadName,
		"tcp://127.0.0.1:65536":             ErrBadName,
		"tcp://127.0.0.1:http":              ErrBadName,
		"tcp://127.0.0.1:":                  ErrBadName,
		"ipc://@":                           ErrBadName,
		"ipc://a\x00b":                      ErrBadName,
		endpoints[2]:                        ErrBrokerExists,
	} {
		if b, err := (BrokerConfig{Endpoints: []string{endpoint}}).NewBroker(""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", endpoint, err, want)
			b.Close()
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that was no socket is gone: %v", err)
	}
}

func TestBadConfigs(t *testing.T) {
	for _, cfg := range []BrokerConfig{{MaxPending: -1}, {MaxMessage: 1000}, {ClientTimeout: -1}, {MaxPending: 1 << 40}} {
		if b, err := cfg.NewBroker(""); err == nil {
			t.Errorf("%+v was taken", cfg)
			b.Close()
		}
	}
	for _, cfg := range []ClientConfig{{Window: -1}, {Heartbeat: time.Microsecond}, {Heartbeat: 48 * time.Hour}, {Window: 1 << 40}} {
		if _, err := cfg.NewClient("x"); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestOwnSocketsReachABrokerInASharedContext(t *testing.T) {
	ctx := wireContext(t)
	t.Cleanup(func() { wireTerm(ctx) })
	b := startBroker(t, BrokerConfig{Context: ctx, Endpoints: []string{}})
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetLinger(0)
	if err := retryEINTR(func() error { return s.Connect(b.Endpoints()[0]) }); err != nil {
		t.Fatal(err)
	}
	s.SendBytes((&message{id: msgPing}).append(nil), 0)
	if got, err := wireReceive(s, soon); err != nil || !bytes.Equal(got[0], (&message{id: msgPingOK}).append(nil)) {
		t.Errorf("PING was answered %x, %v", got, err)
	}
}

func TestNoBroker(t *testing.T) {
	for _, broker := range []string{"nobody-has-this-name", "inproc://zpipes/nobody", "tcp://127.0.0.1:1"} {
		c, err := ClientConfig{Timeout: 100 * time.Millisecond}.NewClient(broker)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.OpenReader(t.Context(), "p")
		var oe *OpError
		if !errors.Is(err, ErrNoBroker) || !errors.As(err, &oe) || !oe.Timeout() {
			t.Errorf("%s: %v", broker, err)
		}
		if took := time.Since(start); took < 100*time.Millisecond || took >= soon {
			t.Errorf("%s: gave up after %v", broker, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := c.OpenWriter(ctx, "p"); !errors.Is(err, ErrNoBroker) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, with a deadline: %v", broker, err)
		}
		cancel()
		if _, err := c.OpenWriter(ctx, "p"); !errors.Is(err, ErrNoBroker) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, after the deadline: %v", broker, err)
		}
		c.Close()
		if _, err := c.OpenReader(t.Context(), "p"); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: open on a closed client: %v", broker, err)
		}
	}
}

func TestOpenWaitsForABroker(t *testing.T) {
	for where, start := range map[string]func(name string){
		"another process": func(name string) { startChild(t, childTask{Part: "broker", Broker: name}).ready() },
		"this process": func(name string) {
			b, err := BrokerConfig{Endpoints: []string{}}.NewBroker(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
		},
	} {
		t.Run(where, func(t *testing.T) {
			name := uniqueName(t)
			c, err := NewClient(name)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r := &rig{T: t}
			done := r.begin(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
			start(name)
			if got := r.within(soon, done); got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

func TestClientCloseUnblocks(t *testing.T) {
	c, err := NewClient("nobody-has-this-name")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t}
	done := r.begin(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
	c.Close()
	if got := r.within(soon, done); !errors.Is(got.err, os.ErrClosed) {
		t.Errorf("open: %v", got.err)
	}

	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.WriteString("delivered by Close")
		r.begin(func() (int, error) { return r.newReader("other").Read(make([]byte, 1)) })
		if err := r.client.Close(); err != nil {
			r.Error(err)
		}
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Read: %v", err)
		}
		if _, err := w.WriteString("x"); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Write: %v", err)
		}
		if err := r.client.Close(); err != nil {
			r.Errorf("second Close: %v", err)
		}
	})
}

// newReader opens a reader that the test does not close.
func (r *rig) newReader(pipe string) *Reader {
	rd, err := r.client.OpenReader(context.Background(), pipe)
	if err != nil {
		r.Error(err)
	}
	return rd
}

func TestBrokerGone(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.old {
			r.client = r.newClient(ClientConfig{Heartbeat: 100 * time.Millisecond})
		}
		rd, w := r.pipe("p")
		w.WriteString("x")
		if _, err := io.ReadFull(rd, make([]byte, 1)); err != nil {
			r.Fatal(err)
		}
		w2 := r.writer("nobody reads")
		w2.WriteString("x")
		reading := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
		writing := r.begin(func() (int, error) { return w2.Write(make([]byte, 4<<20)) })
		flushing := r.begin(func() (int, error) { return 0, w2.Flush() })
		r.kill()
		for _, done := range []<-chan result{reading, writing, flushing} {
			if got := r.within(dead+soon, done); !errors.Is(got.err, ErrBrokerGone) {
				r.Errorf("a blocked call returned %v", got.err)
			}
		}
		var undelivered *UndeliveredError
		if err := w2.Close(); !errors.Is(err, ErrBrokerGone) || !errors.As(err, &undelivered) {
			r.Errorf("Close: %v", err)
		}
		if err := r.writeUntilError(w); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Write: %v", err)
		}
		if err := w.Close(); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Close: %v", err)
		}
		if err := rd.Close(); err != nil {
			r.Errorf("Close of the reader: %v", err)
		}
	})
}

func TestOpenAfterTheBrokerCameBack(t *testing.T) {
	name := uniqueName(t)
	c, err := NewClient(name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
		rd, err := c.OpenReader(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		broker.kill()
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("Read: %v", err)
		}
	}
}

func TestBrokerThatStopsAnswering(t *testing.T) {
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd := r.reader("p")
	done := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
	broker.pause()
	if got := r.within(dead+soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("Read: %v", got.err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.client.OpenReader(ctx, "p"); !errors.Is(err, ErrNoBroker) {
		t.Errorf("open: %v", err)
	}
	broker.signal(syscall.SIGCONT)
	if _, err := r.client.OpenReader(t.Context(), "q"); err != nil {
		t.Errorf("open after it went on: %v", err)
	}
}

func TestDeathOfTheWriter(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
			if r.old || r.name == "inproc" {
				r.Skip("the writer is another process")
			}
			w := startChild(r, childTask{Part: "writer", Broker: r.broker, Pipe: "p", Data: "acknowledged"})
			rd := r.reader("p")
			w.ready()
			w.signal(signal)
			start := time.Now()
			got, err := io.ReadAll(rd)
			if took := time.Since(start); took > dead+soon {
				r.Errorf("%v was noticed after %v", signal, took)
			}
			if string(got) != "acknowledged" || !errors.Is(err, io.ErrUnexpectedEOF) {
				r.Errorf("the reader got %q, %v", got, err)
			}
			if _, err := r.client.OpenWriter(r.Context(), "p"); err != nil {
				r.Errorf("the name is not free: %v", err)
			}
		})
	}
}

func TestDeathOfTheReader(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
			if r.old || r.name == "inproc" {
				r.Skip("the reader is another process")
			}
			rd := startChild(r, childTask{Part: "reader", Broker: r.broker, Pipe: "p"}).ready()
			w := r.writer("p")
			done := r.begin(func() (int, error) { return w.Write(make([]byte, 4<<20)) })
			rd.signal(signal)
			if got := r.within(dead+soon, done); !errors.Is(got.err, io.ErrClosedPipe) {
				r.Errorf("Write: %v", got.err)
			}
		})
	}
}

// A process that was stopped for so long that the broker dropped it must not
// believe that it is still connected, nor leave anything behind.
func TestClientThatWasDropped(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	rd, w := r.pipe("p")
	w.WriteString("x")
	if _, err := io.ReadFull(rd, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, childTask{Part: "writer", Broker: b.Name(), Pipe: "q"})
	r.reader("q")
	c.ready()
	c.pause()
	eventuallyWithin(t, dead+soon, "it is dropped", func() bool { return b.Stats().Expired > 0 })
	c.signal(syscall.SIGCONT)
	r.awaitClients(b, 1)
	if _, err := r.client.OpenWriter(t.Context(), "q"); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

func TestShutdownLetsReadersDrain(t *testing.T) {
	for _, where := range []string{"direct", "ipc"} {
		t.Run(where, func(t *testing.T) {
			b := startBroker(t, BrokerConfig{})
			broker := b.Name()
			if where == "ipc" {
				broker = b.Endpoints()[1]
			}
			r := &rig{T: t, broker: broker}
			r.client = r.newClient(ClientConfig{})
			rd, w := r.pipe("p")
			data := noise(7, 500_000)
			w.Write(data)
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			down := r.begin(func() (int, error) { return 0, b.Shutdown(context.Background()) })
			if err := r.writeUntilError(w); !errors.Is(err, ErrBrokerGone) {
				t.Errorf("Write: %v", err)
			}
			if _, err := r.client.OpenWriter(t.Context(), "other"); err == nil {
				t.Error("an open was not refused")
			}
			got, err := io.ReadAll(rd)
			if !bytes.Equal(got, data) || !errors.Is(err, ErrBrokerGone) {
				t.Errorf("the reader got %d bytes, %v", len(got), err)
			}
			if got := r.within(soon, down); got.err != nil {
				t.Errorf("Shutdown: %v", got.err)
			}
		})
	}
}

func TestShutdownGivesUp(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	rd, _ := r.pipe("p")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w, err := b.Client().OpenWriter(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	stuck := r.reader("q")
	w.WriteString("never read")
	if err := b.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	for _, end := range []*Reader{rd, stuck} {
		if _, err := io.ReadAll(end); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("Read: %v", err)
		}
	}
}

func TestMaxPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPipes: 2})
	c := b.Client()
	defer c.Close()
	for _, name := range []string{"a", "b"} {
		if _, err := c.OpenReader(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.OpenReader(t.Context(), "c"); !errors.Is(err, ErrTooManyPipes) {
		t.Errorf("third pipe: %v", err)
	}
	if _, err := c.OpenWriter(t.Context(), "a"); err != nil {
		t.Errorf("the other end of the first: %v", err)
	}
}

func TestStatsAndPipes(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	before := b.Stats()
	rd, w := r.pipe("p")
	r.reader("another")
	w.WriteString("hello")
	w.Flush()
	io.ReadFull(rd, make([]byte, 2))
	got := b.Stats().Sub(before)
	want := BrokerStats{Pipes: 2, Clients: 1, Opened: 3, BytesIn: 5, BytesOut: 5}
	if got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
	pipes := slices.Collect(b.Pipes())
	if len(pipes) != 2 || pipes[0].Name != "another" || pipes[1].Name != "p" {
		t.Fatalf("the pipes are %+v", pipes)
	}
	if p := pipes[1]; !p.Reader || !p.Writer || p.Queued != 0 || p.BytesIn != 5 || p.Age <= 0 {
		t.Errorf("p is %+v", p)
	}
	if p := pipes[0]; !p.Reader || p.Writer {
		t.Errorf("another is %+v", p)
	}
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

func TestLogging(t *testing.T) {
	var lines logLines
	log := slog.New(slog.NewTextHandler(&lines, nil))
	b := startBroker(t, BrokerConfig{Logger: log, ClientTimeout: 50 * time.Millisecond})
	s := wireSocket(t, b.Endpoints()[1], "")
	wireSend(s, []byte("nonsense"))
	wireSend(s, (&message{id: msgInput, text: []byte("p")}).append(nil))
	for range 2 {
		if _, err := wireReceive(s, soon); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the client expires", func() bool { return b.Stats().Expired > 0 })
	b.Close()
	for _, want := range []string{"broker up", "protocol violation", "client expired", "broker down"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("nothing about %q in\n%s", want, lines.String())
		}
	}
}

// wireSocket is a bare DEALER for a test, with a routing id of its own choice
// unless that is empty.
func wireSocket(t testing.TB, endpoint, id string) *zmq4.Socket {
	ctx := wireContext(t)
	t.Cleanup(func() { wireTerm(ctx) })
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.SetLinger(0)
	s.SetRcvhwm(1)
	if id != "" {
		s.SetIdentity(id)
	}
	if err := retryEINTR(func() error { return s.Connect(endpoint) }); err != nil {
		t.Fatal(err)
	}
	return s
}

// wireGreet connects under a routing id and agrees on the extension. While the
// one who had that id before is not quite gone, libzmq gives us no answer.
func wireGreet(t *testing.T, endpoint, id string) *zmq4.Socket {
	hi := message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, number: 60_000}}
	for end := time.Now().Add(soon); time.Now().Before(end); {
		s := wireSocket(t, endpoint, id)
		wireSend(s, hi.append(nil))
		if _, err := wireReceive(s, 100*time.Millisecond); err == nil {
			return s
		}
		s.Close()
	}
	t.Fatal("no answer to PING")
	return nil
}

// Who takes another's routing id starts from nothing.
func TestRoutingIDIsNotInherited(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	for i := range 3 {
		s := wireGreet(t, b.Endpoints()[1], "chosen")
		open := message{id: msgOutput, text: []byte("p"), block: hasBlock, channel: 1}
		wireSend(s, open.append(nil))
		got, err := wireReceive(s, soon)
		if err != nil {
			t.Fatal(i, err)
		}
		if m, _ := parse(got[0]); m.id != msgOutputOK {
			t.Errorf("OUTPUT was answered %d %q", m.id, m.text)
		}
		s.Close()
	}
}

// A client that does not take its answers must not make the broker grow.
func TestAnswersNobodyTakes(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c := b.Client()
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w.SetWriteDeadline(time.Now().Add(time.Second))
	s := wireSocket(t, b.Endpoints()[1], "")
	wireSend(s, (&message{id: msgInput, text: []byte("p")}).append(nil))
	for range 2000 {
		wireSend(s, (&message{id: msgRead, size: 100_000}).append(nil))
	}
	var total int
	for {
		n, err := w.Write(make([]byte, 100_000))
		total += n
		if err != nil {
			break
		}
	}
	// What ZeroMQ and the kernel hold for a client that does not read.
	if limit := 64 << 20; total > limit {
		t.Errorf("%d bytes were taken for a client that reads none", total)
	}
}

func TestLifecycleLeavesNothing(t *testing.T) {
	count := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		return len(files)
	}
	cycle := func() {
		b, err := NewBroker("")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, where := range append(b.Endpoints(), b.Name()) {
			wg.Go(func() {
				c, err := ClientConfig{Timeout: 10 * time.Millisecond}.NewClient(where)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				name := fmt.Sprint("pipe of ", where)
				w, err := c.OpenWriter(context.Background(), name)
				if err != nil {
					return
				}
				go w.Write(make([]byte, 4<<20))
				if rd, err := c.OpenReader(context.Background(), name); err == nil {
					rd.Read(make([]byte, 1<<16))
				}
			})
		}
		wg.Wait()
		b.Close()
	}
	cycle()
	before := count()
	for range 20 {
		cycle()
	}
	eventually(t, fmt.Sprintf("%d descriptors again", before), func() bool { return count() <= before })
}

// What came while the process stood still is heard only now; that is nobody's
// silence.
func TestSilenceWhileNobodyListened(t *testing.T) {
	now := time.Now()
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	for _, test := range []struct{ heard, due, now, want int }{
		{0, 100, 100, 0},
		{0, 100, 90, 0},
		{0, 100, 150, 0}, // as late as may be
		{0, 100, 5150, 5000},
		{80, 100, 5150, 5080},
		{5050, 100, 5150, 5150}, // heard since
	} {
		if got := creditSilence(at(test.heard), at(test.due), at(test.now), 50*time.Millisecond); !got.Equal(at(test.want)) {
			t.Errorf("heard at %d, due at %d, looking at %d: %v, want %d", test.heard, test.due, test.now, got.Sub(now), test.want)
		}
	}
}

// Who always comes late notices a death nevertheless, and soon.
func TestSilenceOnABusyMachine(t *testing.T) {
	const beat = 500 * time.Millisecond
	for _, late := range []time.Duration{0, 50 * time.Millisecond, beat, 3 * time.Second} {
		heard := time.Now()
		due, now, looks := heard, heard, 0
		for now.Sub(heard) < missedBeats*beat {
			due = now.Add(sweepEvery)
			now = due.Add(late)
			heard = creditSilence(heard, due, now, beat)
			looks++
		}
		if most := 1 + int(missedBeats*beat/(sweepEvery+min(late, beat))); looks > most {
			t.Errorf("late by %v: a death is noticed at the %d. look, and should be at the %d.", late, looks, most)
		}
	}
}

func TestAbandonedQueuesAreForgotten(t *testing.T) {
	b := startBroker(t, BrokerConfig{ForgetQueues: 50 * time.Millisecond, Endpoints: []string{}})
	c := b.Client()
	defer c.Close()
	kept, err := c.OpenQueue(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	left, err := c.OpenQueue(t.Context(), "left")
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Send(t.Context(), []byte("lost")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one queue is left", func() bool {
		pipes := slices.Collect(b.Pipes())
		return len(pipes) == 1 && pipes[0].Name == "kept"
	})
	if d := time.Since(began); d < 50*time.Millisecond {
		t.Errorf("forgotten after %v", d)
	}
	if err := kept.Send(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// A queue's chunk may be larger than what a client's connection is made for.
func TestChunksBeyondTheUsualSize(t *testing.T) {
	const size = 20 << 20
	b := startBroker(t, BrokerConfig{MaxPending: 2 * size, MaxMessage: 2 * size})
	c, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "stream") // on the first connection
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	data := noise(2, size)
	if err := q.Send(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	got, err := q.Receive(t.Context())
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("received %d bytes, %v", len(got), err)
	}
	r, err := c.OpenReader(t.Context(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	r.Close()
}

// A client that closes is not counted until it would have expired.
func TestClientsTakeTheirLeave(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c, err := ClientConfig{Heartbeat: time.Minute}.NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenReader(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if n := b.Stats().Clients; n != 1 {
		t.Errorf("%d clients", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is counted no more", func() bool { return b.Stats().Clients == 0 })
	if n := b.Stats().Expired; n != 0 {
		t.Errorf("%d clients have expired", n)
	}
}
