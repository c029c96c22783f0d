//go:build linux && !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The conversations of testdata/conformance, without ZeroMQ.
func TestNearDoorConformance(t *testing.T) {
	t.Parallel()
	for _, path := range scriptPaths(t, "v2", "old", "hello", "fixes", "broadcast") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			scriptPlayTo(t, path, func(cfg BrokerConfig) func() (scriptConn, error) {
				door := nearDoorOf(t, startBroker(t, cfg))
				return func() (scriptConn, error) {
					p, err := dialNear(door)
					return nearActor{p}, err
				}
			})
		})
	}
}

// The end of a process is told at once, on both sides of the broker.
func TestNearDeathIsToldAtOnce(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, broker: b.Name()}
	r.client = r.newClient(ClientConfig{})
	var took []time.Duration
	const kills = 20
	for i := range kills {
		pipe := fmt.Sprint("p", i)
		w := startChild(t, childTask{Part: "writer", Broker: b.Name(), Pipe: pipe, Data: "confirmed"})
		rd := r.reader(pipe)
		w.ready()
		got := make([]byte, 9)
		if _, err := io.ReadFull(rd, got); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.signal(syscall.SIGKILL)
		if _, err := rd.Read(got); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a reader whose writer was killed: %v", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	// It takes some ten milliseconds, where the machine has time; who counts beats takes dead/2 at least.
	t.Logf("shortest %v, median %v, longest %v", took[0], took[kills/2], took[kills-1])
	if took[0] > 100*time.Millisecond || took[kills/2] > dead/2 {
		t.Errorf("%d deaths were noticed after %v", kills, took)
	}

	// And the broker's.
	name := uniqueName(t)
	other := startChild(t, childTask{Part: "broker", Broker: name}).ready()
	r = &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd := r.reader("p")
	done := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
	start := time.Now()
	other.signal(syscall.SIGKILL)
	if got := r.within(soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("a reader whose broker was killed: %v", got.err)
	}
	if d := time.Since(start); d > dead/2 {
		t.Errorf("noticed after %v", d)
	}
}

// Connections that say nothing hold up nobody, and do not stay.
func TestNearDoorAndTheSilent(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	const silent = 1000
	peers := make([]nearPeer, silent)
	for i := range peers {
		eventually(t, "it lets everybody in", func() bool {
			var err error
			peers[i], err = dialNear(nearDoorOf(t, b))
			return err == nil // not while too many wait to be let in
		})
		defer peers[i].Close()
		if i%2 > 0 {
			peers[i].Write([]byte{0, 0, 1}) // not even a length
		}
	}
	r := &rig{T: t, broker: nearDoorOf(t, b)}
	r.client = r.newClient(patient)
	served := inBackground(func() (int, error) { _, err := r.client.Ping(t.Context()); return 0, err })
	if got := r.within(soon/2, served); got.err != nil {
		t.Error(got.err)
	}
	if n := b.Stats().Clients; n != 1 {
		t.Errorf("%d clients", n)
	}
	for i, p := range peers {
		if m, err := p.next(helloTime + soon); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d: %+v, %v", i, m, err)
		}
	}
	if _, err := r.client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A socket that was left behind is replaced, and nothing is left behind.
func TestNearDoorAtAPath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	b := startBroker(t, BrokerConfig{Endpoints: []string{"unix://" + path}})
	if got := b.Endpoints(); !slices.Equal(got, []string{inprocEndpoint(b.Name()), "unix://" + path}) {
		t.Errorf("it is served at %q", got)
	}
	if left := namesIn(t, dir); left != "s s.lock" {
		t.Errorf("while it serves, its directory has %q", left)
	}
	if b.zeromq != nil {
		t.Error("it has something of ZeroMQ")
	}
	for _, cfg := range []BrokerConfig{
		{Endpoints: []string{"unix://" + path}},
		{Endpoints: []string{"unix://" + filepath.Join(dir, "other"), "unix://" + path}},
	} {
		start := time.Now()
		if _, err := cfg.NewBroker(""); !errors.Is(err, ErrBrokerExists) {
			t.Errorf("a second one: %v", err)
		}
		if took := time.Since(start); took > claimTime/2 {
			t.Errorf("it was there for %v", took)
		}
	}
	r := &rig{T: t, broker: "unix://" + path}
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("p")
	w.Write([]byte("x"))
	if _, err := rd.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	b.Close()
	if left := namesIn(t, dir); left != "" {
		t.Errorf("left behind: %q", left)
	}
	// A file that is no socket stays.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (BrokerConfig{Endpoints: []string{"unix://" + path}}).NewBroker(""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("where a file is: %v", err)
	}
}

// Beside a path that is too long for another there is no door, and the log says so.
func TestNearDoorWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("x", maxSocketPath-len(dir)-3))
	var log logLines
	b := startBroker(t, BrokerConfig{Endpoints: []string{"unix://" + path}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	b.Close()
	if strings.Contains(log.String(), "no near door") || len(b.Endpoints()) != 2 {
		t.Errorf("%q, %s", b.Endpoints(), log.String())
	}
	if haveZeroMQ {
		b := startBroker(t, BrokerConfig{Endpoints: []string{"ipc://" + path}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		b.Close()
		if got := log.String(); strings.Count(got, "no near door: the path is too long") != 1 || len(b.Endpoints()) != 2 {
			t.Errorf("%q, %s", b.Endpoints(), got)
		}
	}
	if near, without := nearDoors([]string{"ipc://" + path, "ipc:///s", "unix:///s.near", "tcp://127.0.0.1:1"}); !slices.Equal(near, []string{"unix:///s.near"}) || len(without) != 1 {
		t.Errorf("%q, %q", near, without)
	}
}

// No two brokers of a user are found by one name, whichever of its places they serve.
func TestNearDoorIsUnique(t *testing.T) {
	private := ownRuntimeDir(t)
	name := uniqueName(t)
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, at := range places(name) {
		if !haveZeroMQ && !isNear(at) {
			continue
		}
		other := startBroker(t, BrokerConfig{Endpoints: []string{at}})
		for _, cfg := range []BrokerConfig{{}, {Private: true}} {
			if b, err := cfg.NewBroker(name); !errors.Is(err, ErrBrokerExists) {
				t.Errorf("beside %s: %v", at, err)
				b.Close()
			}
		}
		other.Close()
	}
	startBroker(t, BrokerConfig{Private: true})
}

// A peer that is not ours, or speaks something else, is told so, and harms nobody.
func TestNearDoorAndNonsense(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, broker: nearDoorOf(t, b)}
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("p")
	for name, bytes := range map[string][]byte{
		"http":                  []byte("GET / HTTP/1.1\r\n\r\n"),
		"ZeroMQ":                []byte("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL"),
		"a large first message": framed(make([]byte, messageOverhead+1)),
		"zeroes":                make([]byte, 1<<20),
	} {
		p := mustDialNear(t, nearDoorOf(t, b))
		p.SetWriteDeadline(time.Now().Add(soon))
		p.Write(bytes)
		if m, err := p.next(soon); err == nil && m.id != msgInvalid {
			t.Errorf("%s is answered with message %d", name, m.id)
		}
	}
	p := mustDialNear(t, nearDoorOf(t, b))
	p.agree(t)
	p.Write(append(framed(make([]byte, 100))[:4], 1))
	p.CloseWrite()
	if m, err := p.next(soon); err == nil {
		t.Errorf("a message that ends early is answered: %+v", m)
	}
	p = mustDialNear(t, nearDoorOf(t, b))
	p.agree(t)
	p.Write([]byte{0x7f, 0, 0, 0})
	if m, err := p.next(soon); err != nil || m.id != msgInvalid || !strings.Contains(string(m.cause), "large") {
		t.Errorf("too large a message: %+v, %v", m, err)
	}
	w.Write([]byte("x"))
	if _, err := rd.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// Who does not take answers is dropped, and costs little until then.
func TestNearDoorAndAClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{MaxMessage: 256 << 10})
	p := mustDialNear(t, nearDoorOf(t, b))
	h := p.agree(t)
	ping := message{id: msgPing, block: hasBlock, hello: hello{version: h.version, session: h.session, number: 500}}
	stream := bytes.Repeat(framed(ping.append(nil)), 1000)
	p.SetWriteDeadline(time.Now().Add(4 * soon))
	var err error
	for n := 0; err == nil && n < 1<<30; n += len(stream) {
		_, err = p.Write(stream)
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it was not dropped: %v", err)
	}
	eventually(t, "it is no client", func() bool { return b.Stats().Clients == 0 })
}

// A broker that closes waits for such a client once, and not again for what it was told.
func TestNearDoorCloseBesideAClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	took := time.Hour
	for try := 0; try < 3 && took >= 2*goodbyeTime; try++ { // the machine may be busy
		b := startBroker(t, BrokerConfig{})
		p := mustDialNear(t, nearDoorOf(t, b))
		h := p.agree(t)
		ping := message{id: msgPing, block: hasBlock, hello: hello{version: h.version, session: h.session, number: 500}}
		p.SetWriteDeadline(time.Now().Add(4 * soon))
		if _, err := p.Write(bytes.Repeat(framed(ping.append(nil)), 50_000)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "answers wait", func() bool {
			b.peers.mu.Lock()
			defer b.peers.mu.Unlock()
			for k := range b.peers.all {
				if k.transport.(visitor).congested.Load() {
					return true
				}
			}
			return false
		})
		start := time.Now()
		b.Close()
		took = time.Since(start)
	}
	if took >= 2*goodbyeTime {
		t.Errorf("Close took %v", took)
	}
}

// For who does not take what he has asked for, no more is taken out of a pipe than the kernel
// holds, and a little.
func TestNearDoorAndAReaderThatTakesNothing(t *testing.T) {
	const reads, size = 500, 4096
	b := startBroker(t, BrokerConfig{Endpoints: []string{}, MaxPending: 2 * reads * size})
	p, n := joinNear(t, b)
	p.agree(t)
	say := func(m message) {
		t.Helper()
		m.block = hasBlock
		if err := p.say(m); err != nil {
			t.Fatal(err)
		}
	}
	data := noise(5, reads*size)
	r := &rig{T: t, client: b.Client()}
	w := r.writer("p")
	written := inBackground(func() (int, error) { return w.Write(data) })
	say(message{id: msgInput, text: []byte("p"), channel: 1})
	for range reads {
		say(message{id: msgRead, size: size, channel: 1})
	}
	say(message{id: msgOutput, text: []byte("behind them"), channel: 2})
	if w := <-written; w.err != nil {
		t.Error(w.err)
	}
	var kept int
	eventually(t, "all of it has been asked for, and something is kept", func() bool {
		n.keptMu.Lock()
		defer n.keptMu.Unlock()
		kept = n.kept.n
		return kept > 0 && b.Stats().Pipes == 2
	})
	if kept > 2*outSize {
		t.Errorf("%d bytes are kept", kept)
	}
	var got []byte
	for len(got) < len(data) {
		m, err := p.next(soon)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", len(got), len(data), err)
		}
		if m.id == msgReadOK {
			got = append(got, m.chunk...)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("what is read is not what was written")
	}
}

// A client that goes past the near door, as older ones do, meets those that come through it.
func TestNearDoorAndAnOlderClient(t *testing.T) {
	if !haveZeroMQ {
		t.Skip("there is no older one without ZeroMQ")
	}
	name := uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: name}).ready()
	old := &rig{T: t, broker: defaultEndpoint(name)} // whatever it does, an older one does
	old.client = old.newClient(ClientConfig{})
	fresh := &rig{T: t, broker: name}
	fresh.client = fresh.newClient(ClientConfig{})
	rd, w := old.reader("p"), fresh.writer("p")
	w.Write([]byte("x"))
	if _, err := rd.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestNearVisitorsAreFair(t *testing.T) {
	a, _ := unixPair(t)
	most, left := descriptorsLeft(a)
	if left <= 0 || left >= most {
		t.Fatalf("%d of %d", left, most)
	}
	var l visitorList
	enter := func(user int) bool { _, err := l.enter(user, a); return err == nil }
	greedy := 0
	for enter(7) {
		greedy++
	}
	if greedy != most/2 && greedy != (most+1)/2 {
		t.Errorf("one user has %d of %d", greedy, most)
	}
	leave, err := l.enter(0, a)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if !enter(0) {
			t.Fatal("another user is kept out")
		}
	}
	leave()
	if l.of[0] != 100 || l.all != greedy+100 {
		t.Errorf("%d, %d", l.of[0], l.all)
	}
}

// Clients that read and write much on many pipes at once take their answers late, and get
// all of them.
func TestNearDoorCongested(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	const clients, pipes, size = 4, 40, 1 << 20
	var rs [clients]*rig
	for i := range rs {
		rs[i] = &rig{T: t, broker: nearDoorOf(t, b)}
		rs[i].client = rs[i].newClient(patient)
	}
	var read []chan result
	var writing sync.WaitGroup
	for i, r := range rs {
		writer := rs[(i+1)%clients]
		var ws []*Writer
		for k := range pipes {
			name := fmt.Sprint("congested ", i, " ", k)
			rd := r.reader(name)
			read = append(read, inBackground(func() (int, error) { return io.ReadFull(rd, make([]byte, size)) }))
			ws = append(ws, writer.writer(name))
		}
		writing.Go(func() {
			for _, w := range ws {
				for range size / (16 << 10) {
					if _, err := w.Write(make([]byte, 16<<10)); err != nil {
						t.Error(err)
					}
				}
				if err := w.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	for _, done := range read {
		if got := rs[0].within(soon, done); got.n != size || got.err != nil {
			t.Errorf("%d bytes were read of %d, %v", got.n, size, got.err)
		}
	}
}

// A fresh client's Ping takes one round trip: who answers its greeting has answered.
func TestNearFirstPing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var pings atomic.Int32
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		for p := (nearPeer{c}); ; {
			m, err := p.next(time.Minute)
			if err != nil || m.id != msgPing {
				return
			}
			pings.Add(1)
			m.id, m.hello.session, m.hello.number, m.hello.pending, m.hello.total = msgPingOK, 7, 1<<20, 1<<20, 1<<20
			if p.say(m) != nil {
				return
			}
		}
	}()
	c, err := ClientConfig{Heartbeat: time.Minute}.NewClient(nearScheme + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range int32(3) {
		took, err := c.Ping(t.Context())
		if err != nil || took <= 0 || pings.Load() != i+1 {
			t.Errorf("Ping %d took %v, %v; there were %d", i+1, took, err, pings.Load())
		}
	}
}

// A door that is closed is no trouble, and nobody is told of any.
func TestNearDoorEndsInSilence(t *testing.T) {
	warned := make(chan string, 16)
	log := slog.New(handlerFunc(func(r slog.Record) {
		if r.Level >= slog.LevelWarn {
			warned <- r.Message
		}
	}))
	b, err := BrokerConfig{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "door")}, Logger: log}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	select {
	case what := <-warned:
		t.Errorf("Close has logged %q", what)
	default: // all lines have been written by now
	}
}
