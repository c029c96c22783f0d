//go:build cgo && unix && !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// dialKeyed returns a client of a broker's tcp endpoint.
func dialKeyed(t *testing.T, b *Broker, cfg ClientConfig) *Client {
	t.Helper()
	for _, at := range b.Endpoints() {
		if strings.HasPrefix(at, "tcp:") {
			c, err := cfg.NewClient(at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
	}
	t.Fatal("the broker has no tcp endpoint")
	return nil
}

func TestKeyOfMembers(t *testing.T) {
	key := NewKey()
	b := startBroker(t, BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}})
	c := dialKeyed(t, b, ClientConfig{Key: key})
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Client().OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(w, strings.Repeat("over tcp", 1<<17))
		w.Close()
	}()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != strings.Repeat("over tcp", 1<<17) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// What is much goes through the door, both ways, without being copied there.
func TestKeyDoorMovesPages(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this system moves no pages")
	}
	const much = 4 << 20
	key := NewKey()
	b := startBroker(t, BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var copied [2]atomic.Int64
	var accepting sync.WaitGroup
	accepting.Go(func() {
		acceptAll(b, "tcp", "here", func() (net.Conn, error) {
			c, err := l.Accept()
			if err != nil {
				return nil, err
			}
			return &copyingConn{c.(*net.TCPConn), &copied}, nil
		}, b.zeromq.door.knock)
	})
	t.Cleanup(func() { l.Close(); accepting.Wait() })
	c, err := ClientConfig{Key: key}.NewClient("tcp://" + l.Addr().String())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	for i, way := range [2]struct{ from, to *Client }{{c, b.Client()}, {b.Client(), c}} {
		w, err := way.from.OpenWriter(t.Context(), "p")
		check(t, err)
		r, err := way.to.OpenReader(t.Context(), "p")
		check(t, err)
		go func() {
			w.Write(make([]byte, much))
			w.Close()
		}()
		n, err := io.Copy(io.Discard, r)
		if copied := copied[i].Load(); n != much || err != nil || copied >= n {
			t.Errorf("way %d: %d bytes came (%v), and %d were copied", i, n, err, copied)
		}
	}
}

// A copyingConn counts what is read and written, which pages that are moved are not.
type copyingConn struct {
	*net.TCPConn
	copied *[2]atomic.Int64
}

func (c *copyingConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.copied[0].Add(int64(n))
	return n, err
}

func (c *copyingConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.copied[1].Add(int64(n))
	return n, err
}

// Both sides say why somebody is not let in, and what to do; the broker counts it.
func TestKeyRefusals(t *testing.T) {
	t.Parallel()
	key, own := NewKey(), NewKey()
	for what, test := range map[string]struct {
		cfg          ClientConfig
		client, says string // what each side says; nothing: it is let in
	}{
		"own key":          {ClientConfig{Key: own, BrokerKey: key.BrokerKeys()[0]}, "", ""},
		"several":          {ClientConfig{Key: joinKeys(NewKey(), key)}, "", ""},
		"wrong broker key": {ClientConfig{Key: own, BrokerKey: NewKey().BrokerKeys()[0]}, "is not the one with the key", "another secret, or another BrokerKey"},
		"another secret":   {ClientConfig{Key: NewKey()}, "has another secret than", "another secret, or another BrokerKey"},
		"unknown key":      {ClientConfig{Key: NewKey(), BrokerKey: key.BrokerKeys()[0]}, "does not know this client's key", "AllowKeys can allow it"},
		"no key":           {ClientConfig{}, "wants a key; ClientConfig.Key", "comes without a key"},
	} {
		t.Run(what, func(t *testing.T) {
			var log lockedBuffer
			b := startBroker(t, BrokerConfig{
				Key: key, AllowKeys: own.ClientKeys(), Endpoints: []string{"tcp://127.0.0.1:*"},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			_, err := dialKeyed(t, b, test.cfg).Ping(t.Context())
			if test.client == "" {
				if err != nil || b.Stats().Denied > 0 && what != "several" {
					t.Error(err, b.Stats().Denied)
				}
				return
			}
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), test.client) {
				t.Errorf("the client says %v, want %q", err, test.client)
			}
			eventually(t, "the broker counts it", func() bool { return b.Stats().Denied == 1 })
			eventually(t, "the broker says "+test.says, func() bool { return strings.Contains(log.String(), test.says) })
			for _, text := range []string{log.String(), err.Error()} {
				for _, k := range []Key{key, own, test.cfg.Key} {
					if secret := strings.TrimSpace(k.Secret()); secret != "" && strings.Contains(text, secret[len(secretPrefix):]) {
						t.Errorf("there is a secret in %s", text)
					}
				}
			}
		})
	}
	t.Run("plain door", func(t *testing.T) {
		b := startBroker(t, BrokerConfig{Endpoints: []string{"tcp://127.0.0.1:*"}})
		_, err := dialKeyed(t, b, ClientConfig{Key: key}).Ping(t.Context())
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "does not encrypt") {
			t.Error(err)
		}
	})
	t.Run("hung up", func(t *testing.T) { // by what is no broker
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.Close()
			}
		}()
		c, err := ClientConfig{Key: key, Timeout: 300 * time.Millisecond}.NewClient("tcp://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Ping(t.Context()); !errors.Is(err, ErrNoBroker) {
			t.Error(err) // it may be ending, so that another one comes
		}
	})
}

// joinKeys is a Key with the secrets of several.
func joinKeys(keys ...Key) Key {
	var text strings.Builder
	for _, k := range keys {
		text.WriteString(k.Secret())
	}
	k, err := ParseKey(text.String())
	if err != nil {
		panic(err)
	}
	return k
}

// A secret is replaced while a stream goes on, and clients with either are served.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	before, after := NewKey(), NewKey()
	b := startBroker(t, BrokerConfig{Key: before, Endpoints: []string{"tcp://127.0.0.1:*"}})
	old := dialKeyed(t, b, ClientConfig{Key: before})
	w, err := old.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Client().OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	passes := func(when string) {
		t.Helper()
		if _, err := w.Write([]byte(when)); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got := make([]byte, len(when))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != when {
			t.Fatalf("%s: %q, %v", when, got, err)
		}
	}
	let := func(key Key, in bool) {
		t.Helper()
		if _, err := dialKeyed(t, b, ClientConfig{Key: key}).Ping(t.Context()); (err == nil) != in {
			t.Errorf("a new client: %v", err)
		}
	}
	passes("before")
	let(after, false)
	if err := b.SetKeys(joinKeys(after, before), nil); err != nil {
		t.Fatal(err)
	}
	passes("while both are accepted")
	let(before, true)
	let(after, true)
	let(joinKeys(before, after), true)
	fresh := dialKeyed(t, b, ClientConfig{Key: after})
	q, err := fresh.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetKeys(after, nil); err != nil {
		t.Fatal(err)
	}
	let(before, false)
	let(after, true)
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream of the old secret: %v", err)
	}
	if err := q.Send(t.Context(), []byte("of the new secret")); err != nil {
		t.Error(err)
	}
	if err := q.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whose key is taken away is dropped, and hears why.
func TestKeyTakenAway(t *testing.T) {
	key, own := NewKey(), NewKey()
	cfg := BrokerConfig{Key: key, AllowKeys: own.ClientKeys(), Endpoints: []string{"tcp://127.0.0.1:*"}}
	b := startBroker(t, cfg)
	c := dialKeyed(t, b, ClientConfig{Key: own, BrokerKey: key.BrokerKeys()[0]})
	r, err := c.OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"no key":           b.SetKeys(Key{}, nil),
		"no public key":    b.SetKeys(key, []string{"nonsense"}),
		"a secret instead": b.SetKeys(key, []string{strings.TrimSpace(own.Secret())}),
		"a broker without": startBroker(t, BrokerConfig{}).SetKeys(key, nil),
	} {
		if err == nil || strings.Contains(err.Error(), own.Secret()[len(secretPrefix):30]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Ping(t.Context()); err != nil {
		t.Error("after errors:", err)
	}
	if err := b.SetKeys(key, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrBrokerGone) || !strings.Contains(err.Error(), "not allowed any more") {
		t.Error(err)
	}
	if _, err := c.OpenReader(t.Context(), "p"); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	b.Close()
	if err := b.SetKeys(key, nil); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// Allow and the accounts know clients by their keys.
func TestKeyOfAccess(t *testing.T) {
	key, own := NewKey(), NewKey()
	asked := make(chan Access, 1)
	b := startBroker(t, BrokerConfig{
		Key: key, AllowKeys: own.ClientKeys(), Endpoints: []string{"tcp://127.0.0.1:*"},
		PerUser: Limits{Pipes: 1},
		Allow:   func(who Access) error { asked <- who; return nil },
	})
	for want, cfg := range map[string]ClientConfig{
		key.ClientKeys()[0]: {Key: key},
		own.ClientKeys()[0]: {Key: own, BrokerKey: key.BrokerKeys()[0]},
	} {
		if _, err := dialKeyed(t, b, cfg).OpenReader(t.Context(), "of "+want[len(publicPrefix):]); err != nil {
			t.Error(err) // each has an account of its own
		}
		if who := <-asked; who.Key != want || who.UID != -1 || who.Op != "read" {
			t.Errorf("asked by %+v, want key %s", who, want)
		}
	}
}

// Who can't encrypt says so at the start.
func TestKeyThatCanNotBe(t *testing.T) {
	key := NewKey()
	for what, test := range map[string]struct {
		cfg  BrokerConfig
		want error
	}{
		"beyond loopback without a key": {BrokerConfig{Endpoints: []string{"tcp://0.0.0.0:*"}}, ErrBadName},
		"all addresses without a key":   {BrokerConfig{Endpoints: []string{"tcp://*:*"}}, ErrBadName},
		"a host without a key":          {BrokerConfig{Endpoints: []string{"tcp://example.org:7900"}}, ErrBadName},
		"keys without a secret":         {BrokerConfig{AllowKeys: key.ClientKeys()}, nil},
		"what is no public key":         {BrokerConfig{Key: key, AllowKeys: []string{"x"}}, nil},
		"a context of others":           {BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}, Context: wireContext(t)}, nil},
	} {
		if b, err := test.cfg.NewBroker(""); err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v", what, err)
			if err == nil {
				b.Close()
			}
		}
	}
	for what, make := range map[string]func() (*Client, error){
		"beyond loopback without a key": func() (*Client, error) { return NewClient("tcp://example.org:7900") },
		"no host":                       func() (*Client, error) { return ClientConfig{Key: key}.NewClient("tcp://*:7900") },
		"a broker's key alone": func() (*Client, error) {
			return ClientConfig{BrokerKey: key.BrokerKeys()[0]}.NewClient("tcp://127.0.0.1:7900")
		},
		"what is no broker's key": func() (*Client, error) {
			return ClientConfig{Key: key, BrokerKey: "x"}.NewClient("tcp://127.0.0.1:7900")
		},
	} {
		if c, err := make(); err == nil {
			t.Errorf("%s: there is a client", what)
			c.Close()
		}
	}
	b := startBroker(t, BrokerConfig{Key: key, Endpoints: []string{"tcp://*:*", "tcp://localhost:*"}})
	for _, at := range b.Endpoints()[1:] {
		c, err := ClientConfig{Key: key}.NewClient(strings.Replace(at, "*", "localhost", 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Ping(t.Context()); err != nil {
			t.Error(at, err)
		}
		c.Close()
	}
	if other, err := (BrokerConfig{Key: key, Endpoints: b.Endpoints()[2:]}).NewBroker(""); !errors.Is(err, ErrBrokerExists) {
		t.Error("a second broker at the same port:", err)
		other.Close()
	}
}

// Each stranger that was let to the door is about to need two descriptors more, whatever it
// says: who comes then must not get what would be the host program's.
func TestTCPStrangersLeaveDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, left := descriptorsLeft(c.(*net.TCPConn))
	few := strangers{all: left / 2}
	if _, err := few.enter(c); err == nil || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("beside %d strangers, where %d descriptors are left: %v", few.all, left, err)
	}
	none := strangers{}
	leave, err := none.enter(c)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// What strangers can make the broker do ends, and is bounded.
func TestKeyStrangers(t *testing.T) {
	t.Parallel()
	key := NewKey()
	b := startBroker(t, BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}})
	address := strings.TrimPrefix(b.Endpoints()[1], "tcp://")
	call := func(say []byte) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(4 * handshakeTime))
		c.Write(say)
		return c
	}
	hello := append(bytes.Clone(greeting), append([]byte("\x04\xc8\x05HELLO\x01\x00"), make([]byte, helloBytes-8)...)...)
	large := append(bytes.Clone(greeting), 6, 0, 0, 0, 0, 1, 0, 0, 0)
	old := bytes.Clone(greeting)
	old[revisionAt] = 1
	null := append(bytes.Clone(greeting[:mechanismAt]), append([]byte("NULL"), make([]byte, 48)...)...)
	for what, say := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\n\r\n"), "an old protocol": old, "no key": null,
		"a HELLO that nobody can open": hello, "a large frame": large,
	} {
		c := call(say)
		start := time.Now()
		if what == "no key" {
			c.(*net.TCPConn).CloseWrite()
		}
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > handshakeTime {
			t.Errorf("%s: %v after %v", what, err, time.Since(start))
		}
	}
	for n := 0; n < len(hello); n += 5 { // who hangs up in the middle
		call(hello[:n]).Close()
	}
	// Many who say nothing keep nobody else out, and do not stay.
	var silent []net.Conn
	for range 2 * maxStrangersEach {
		silent = append(silent, call(nil))
	}
	z := b.zeromq.door
	z.strangers.mu.Lock()
	if n := z.strangers.all; n > maxStrangersEach {
		t.Errorf("of one address there are %d strangers", n)
	}
	z.strangers.mu.Unlock()
	for _, c := range silent {
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a silent one stays")
		}
	}
	eventually(t, "all strangers have left", func() bool {
		z.mu.Lock()
		defer z.mu.Unlock()
		return len(z.inside) == 0
	})
	if _, err := dialKeyed(t, b, ClientConfig{Key: key}).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if s := b.Stats(); s.Denied < 5 || s.Clients > 1 {
		t.Errorf("%d were refused, %d are there", s.Denied, s.Clients)
	}
	// The broker's end waits for no stranger.
	last := call(greeting)
	if _, err := io.ReadFull(last, make([]byte, greetingBytes)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if b.Close(); time.Since(start) > handshakeTime/2 {
		t.Errorf("Close took %v", time.Since(start))
	}
}

// A lockedBuffer takes what is written, and may be read meanwhile.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Go's public keys are libzmq's.
func TestKeyPairsAreCurves(t *testing.T) {
	for _, role := range []string{brokerRole, clientRole} {
		p := NewKey().all()[0].pair(role)
		if got, err := zmq4.AuthCurvePublic(encodeZ85(p.private)); err != nil || got != encodeZ85(p.public) {
			t.Errorf("%s: %s, %v, want %s", role, encodeZ85(p.public), err, got)
		}
	}
}
