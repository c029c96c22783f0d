package cluster

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// keyFile writes a key file with secrets, the one in use first.
func keyFile(t testing.TB, secrets ...zpipes.Key) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cluster.key")
	writeKeys(t, file, secrets...)
	return file
}

func writeKeys(t testing.TB, file string, secrets ...zpipes.Key) {
	t.Helper()
	var text strings.Builder
	for _, k := range secrets {
		text.WriteString(k.Secret())
	}
	// At once, as an editor does it.
	if err := os.WriteFile(file+".new", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// A logBook keeps a broker's log.
type logBook struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func start(t testing.TB, cfg Config) (*zpipes.Broker, *logBook) {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	log := new(logBook)
	b, err := zpipes.BrokerConfig{Endpoints: []string{}, Cluster: cfg, Logger: slog.New(slog.NewTextHandler(log, nil))}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, log
}

func self(b *zpipes.Broker) zpipes.Member {
	for m := range b.Members() {
		return m
	}
	return zpipes.Member{}
}

func linked(b *zpipes.Broker) (ids []string) {
	for m := range b.Members() {
		if m.State == zpipes.MemberLinked {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	eventuallyIn(t, 30*time.Second, what, is)
}

func eventuallyIn(t testing.TB, most time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", most, what)
		}
	}
}

// Brokers with one secret, that know one of them or itself, are all linked with each other.
func TestBrokersJoin(t *testing.T) {
	file := keyFile(t, zpipes.NewKey())
	first, _ := start(t, Config{KeyFile: file})
	brokers := []*zpipes.Broker{first}
	for range 3 {
		// Its own address is in the list, too, as where each host has the same one.
		b, _ := start(t, Config{KeyFile: file, Join: []string{self(first).Address}})
		brokers = append(brokers, b)
	}
	eventually(t, "all are linked", func() bool {
		return !slices.ContainsFunc(brokers, func(b *zpipes.Broker) bool { return len(linked(b)) != len(brokers)-1 })
	})
}

// freeAddress is one that stays free: its port is below those that the system gives to who asks for any.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000))
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
			return address
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// A broker is not linked with itself.
func TestBrokerJoinsItself(t *testing.T) {
	address := freeAddress(t)
	b, _ := start(t, Config{KeyFile: keyFile(t, zpipes.NewKey()), Listen: address, Join: []string{address}})
	eventually(t, "it knows that it has met itself", func() bool { return len(slices.Collect(b.Members())) == 1 })
}

// A child that a program starts has its listeners until it executes its own program.
func TestPortIsFreeWhileChildrenStart(t *testing.T) {
	stop := make(chan struct{})
	var starting sync.WaitGroup
	starting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				exec.Command("/bin/true").Run()
			}
		}
	})
	defer starting.Wait()
	defer close(stop)
	address, file := freeAddress(t), keyFile(t, zpipes.NewKey())
	for range 60 {
		b, _ := start(t, Config{KeyFile: file, Listen: address})
		b.Close()
	}
}

// Who has another secret is not let in, and both sides say why.
func TestOtherSecret(t *testing.T) {
	a, said := start(t, Config{KeyFile: keyFile(t, zpipes.NewKey())})
	b, _ := start(t, Config{KeyFile: keyFile(t, zpipes.NewKey()), Join: []string{self(a).Address}})
	eventually(t, "both say why", func() bool {
		why := ""
		for m := range b.Members() {
			why += m.Why
		}
		return said.has("has another secret") && strings.Contains(why, "has another secret")
	})
	if len(linked(a)) > 0 || len(linked(b)) > 0 {
		t.Error("brokers with different secrets are linked")
	}
}

// Somebody without a secret gets no further than TLS's handshake, whatever he shows; and what
// he says is no secret of others.
func TestStrangers(t *testing.T) {
	key := zpipes.NewKey()
	file := keyFile(t, key)
	b, said := start(t, Config{KeyFile: file})
	address := self(b).Address
	k, err := readKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := readKeys(keyFile(t, zpipes.NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	try := func(change func(*tls.Config)) error {
		cfg := k.all[0].config.Clone()
		cfg.VerifyConnection = nil
		change(cfg)
		c, err := tls.Dial("tcp", address, cfg)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1)) // in TLS 1.3 only now it is told
		return err
	}
	for what, change := range map[string]func(*tls.Config){
		"no certificate":      func(c *tls.Config) { c.Certificates = nil },
		"another key":         func(c *tls.Config) { c.Certificates = other.all[0].config.Certificates },
		"an unknown name":     func(c *tls.Config) { c.ServerName = other.all[0].name },
		"no name":             func(c *tls.Config) { c.ServerName = "127.0.0.1" },
		"another application": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"an older TLS":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		err := try(change)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if looks, err := net.Dial("tcp", address); err == nil {
		looks.Close() // which is no fault of anybody
	}
	c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if text, _ := io.ReadAll(c); strings.Contains(string(text), "zpipes") {
		t.Errorf("somebody who speaks HTTP was told %q", text)
	}
	eventually(t, "the log says so", func() bool { return said.has("does not speak the cluster's protocol") })
	if said.has("EOF") {
		t.Error("it is logged who has only looked")
	}
	if len(linked(b)) > 0 {
		t.Error("a stranger is linked")
	}
}

// A dialler shows nothing to a broker that does not have the secret.
func TestImposter(t *testing.T) {
	file := keyFile(t, zpipes.NewKey())
	k, err := readKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	other, err := readKeys(keyFile(t, zpipes.NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		cfg := other.all[0].config.Clone()
		cfg.VerifyConnection = nil
		s := tls.Server(c, cfg)
		s.SetDeadline(time.Now().Add(10 * time.Second))
		b, _ := io.ReadAll(s)
		got <- b
	}()
	p := newPort(Config{}, zpipes.ClusterHost{}, nil, k)
	if _, err := p.Dial(t.Context(), l.Addr().String()); !errors.Is(err, errOtherSecret) {
		t.Errorf("dialling an imposter: %v", err)
	}
	if b := <-got; len(b) > 0 {
		t.Errorf("an imposter was told %q", b)
	}
}

// A secret is replaced without a stop, in whichever order hosts get the new one; who still has
// only the old one when it is gone is cut off.
func TestRotation(t *testing.T) {
	old, fresh := zpipes.NewKey(), zpipes.NewKey()
	fileA, fileB := keyFile(t, old), keyFile(t, old)
	a, saidA := start(t, Config{KeyFile: fileA})
	b, saidB := start(t, Config{KeyFile: fileB, Join: []string{self(a).Address}})
	both := func() bool { return len(linked(a)) == 1 && len(linked(b)) == 1 }
	eventually(t, "they are linked", both)
	writeKeys(t, fileA, fresh, old)
	// One who comes now with the old secret alone is let in, and finds who has the new one first.
	c, _ := start(t, Config{KeyFile: keyFile(t, old), Join: []string{self(a).Address}})
	eventually(t, "three are linked", func() bool { return len(linked(a)) == 2 && len(linked(b)) == 2 && len(linked(c)) == 2 })
	writeKeys(t, fileB, fresh, old)
	eventually(t, "both have read it", func() bool { return saidA.has("keys changed") && saidB.has("keys changed") })
	if len(linked(a)) != 2 || len(linked(b)) != 2 || saidA.has("link lost") {
		t.Error("a link has ended by a new secret")
	}
	writeKeys(t, fileA, fresh)
	eventually(t, "who has the old one alone is cut off", func() bool { return len(linked(c)) < 2 })
	eventually(t, "those with the new one are linked", func() bool { return slices.Contains(linked(a), self(b).ID) && slices.Contains(linked(b), self(a).ID) })
}

// What is wrong with a Config is said at once.
func TestConfig(t *testing.T) {
	file := keyFile(t, zpipes.NewKey())
	open := keyFile(t, zpipes.NewKey())
	os.Chmod(open, 0o644)
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{}, "KeyFile"},
		{Config{KeyFile: "missing"}, "no such file"},
		{Config{KeyFile: open}, "chmod 600"},
		{Config{KeyFile: file, Listen: "7900"}, "Listen"},
		{Config{KeyFile: file, Join: []string{"host:0"}}, "Join"},
		{Config{KeyFile: file, Join: []string{""}}, "Join"},
		{Config{KeyFile: file, Advertise: ":1"}, "Advertise"},
		{Config{KeyFile: file, Patience: -1}, "Patience"},
	} {
		b, err := zpipes.BrokerConfig{Endpoints: []string{}, Cluster: c.cfg}.NewBroker("")
		if err == nil {
			b.Close()
			t.Errorf("%+v was taken", c.cfg)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	for in, want := range map[string]string{
		"host": "host:7900", "host:1": "host:1", "10.0.0.1": "10.0.0.1:7900", "::1": "[::1]:7900", "[::1]:2": "[::1]:2",
	} {
		cfg, err := Config{KeyFile: file, Join: []string{in}}.withDefaults()
		if err != nil || cfg.Join[0] != want {
			t.Errorf("Join %q is %v, %v", in, cfg.Join, err)
		}
	}
}

// A stranger who says nothing is shown out, and Close does not wait for one.
func TestSilentStranger(t *testing.T) {
	b, _ := start(t, Config{KeyFile: keyFile(t, zpipes.NewKey())})
	c, err := net.Dial("tcp", self(b).Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now()
	c.SetDeadline(begin.Add(2 * handshakeTime))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("he may stay for more than %v", time.Since(begin))
	}
	if c, err = net.Dial("tcp", self(b).Address); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin = time.Now()
	if b.Close(); time.Since(begin) > handshakeTime/2 {
		t.Errorf("Close took %v", time.Since(begin))
	}
}

// A dial that finds a host which does not answer ends with its context.
func TestDialEndsWithContext(t *testing.T) {
	k, err := readKeys(keyFile(t, zpipes.NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog takes it, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	p := newPort(Config{}, zpipes.ClusterHost{}, nil, k)
	if _, err := p.Dial(ctx, l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial: %v", err)
	}
}

// The keys are those of PROTOCOL.md.
func TestKeysAreTheProtocols(t *testing.T) {
	text, err := os.ReadFile("../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	key, err := zpipes.ParseKey("zpipes-secret-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
	if err != nil {
		t.Fatal(err)
	}
	k, err := readKeys(keyFile(t, key))
	if err != nil {
		t.Fatal(err)
	}
	for what, value := range map[string]string{
		"seed":        hex.EncodeToString(key.Derive(purpose)[0]),
		"public key":  hex.EncodeToString(k.all[0].public),
		"server name": k.all[0].name,
	} {
		if line := what + strings.Repeat(" ", 14-len(what)) + value; !strings.Contains(string(text), line) {
			t.Errorf("PROTOCOL.md lacks %q", line)
		}
	}
}
