//go:build cgo && linux && !core

package zpipes

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An endpoint at which no broker can ever be is not waited for.
func TestEndpointThatNoClientCanUse(t *testing.T) {
	for _, endpoint := range []string{
		"tcp://127.0.0.1:*", "tcp://localhost:0", "tcp://localhost:99999", "tcp://127.0.0.1:x", "tcp://10.0.0.1:5555", "tcp://[::1",
		"inproc://other", "inproc://zpipes/", "inproc://zpipes/a b", "ipc://*", "ipc://@", "ipc://", "ipc://" + strings.Repeat("p", 108),
	} {
		if _, err := NewClient(endpoint); !errors.Is(err, ErrBadName) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestEndpointLocalhost(t *testing.T) {
	b := startBroker(t, BrokerConfig{Endpoints: []string{"tcp://localhost:*"}})
	at := b.Endpoints()[1]
	if !strings.HasPrefix(at, "tcp://127.0.0.1:") {
		t.Fatalf("it is served at %s", at)
	}
	for _, endpoint := range []string{at, strings.Replace(at, "127.0.0.1", "localhost", 1)} {
		c, err := NewClient(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A child that a program starts has its descriptors until it executes its own program.
func TestEndpointIsFreeWhileChildrenStart(t *testing.T) {
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
	name := uniqueName(t)
	for what, cfg := range map[string]BrokerConfig{
		"the usual endpoint": {},
		"a path":             {Endpoints: []string{"ipc://" + filepath.Join(t.TempDir(), "s")}},
		"tcp":                {Endpoints: []string{"tcp://127.0.0.1:" + strconv.Itoa(freePort(t))}},
		"a directory":        {Endpoints: []string{}, Dir: t.TempDir()},
	} {
		for range 60 {
			b, err := cfg.NewBroker(name)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			b.Close()
		}
	}
}

// Where somebody answers, nobody waits.
func TestEndpointOfABrokerThatIsThere(t *testing.T) {
	path := "ipc://" + filepath.Join(t.TempDir(), "s")
	name := uniqueName(t)
	startBrokerNamed(t, name, BrokerConfig{Endpoints: []string{path, defaultEndpoint(name)}})
	start := time.Now()
	for _, endpoint := range []string{path, defaultEndpoint(name)} {
		if b, err := (BrokerConfig{Endpoints: []string{endpoint}}).NewBroker(""); !errors.Is(err, ErrBrokerExists) {
			t.Errorf("%s: %v", endpoint, err)
			b.Close()
		}
	}
	if took := time.Since(start); took > claimTime/2 {
		t.Errorf("it took %v", took)
	}
}

// A path and its directory hold after the end what they held before the start, however
// that ended.
func TestEndpointLeavesNothing(t *testing.T) {
	private := ownRuntimeDir(t)
	dir := t.TempDir()
	path := "ipc://" + filepath.Join(dir, "s")
	for range 3 {
		startBroker(t, BrokerConfig{Private: true, Endpoints: []string{path}}).Close()
	}
	b := startBroker(t, BrokerConfig{Endpoints: []string{path}})
	for _, cfg := range []BrokerConfig{
		{Private: true, Endpoints: []string{path}},
		{Private: true, Endpoints: []string{"ipc:///nowhere/at/all"}},
		{Endpoints: []string{"ipc://" + filepath.Join(dir, "other"), "nonsense"}},
	} {
		if b, err := cfg.NewBroker(""); err == nil {
			t.Errorf("%+v started", cfg.Endpoints)
			b.Close()
		}
	}
	if left := namesIn(t, dir); left != "s s.lock s.near s.near.lock" {
		t.Errorf("while it serves, its directory has %q", left)
	}
	b.Close()
	if left := namesIn(t, dir) + namesIn(t, private); left != "" {
		t.Errorf("left behind: %q", left)
	}
	os.Remove(private)
	if b, err := (BrokerConfig{Private: true, Endpoints: []string{"nonsense"}}).NewBroker(""); err == nil {
		b.Close()
		t.Error("it serves nonsense")
	}
	if _, err := os.Stat(private); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of a start that failed: %v", err)
	}
}

// Who may write the directory must not make a broker touch another file.
func TestEndpointClaimIsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.Symlink(victim, filepath.Join(dir, "s.lock")); err != nil {
		t.Fatal(err)
	}
	startBroker(t, BrokerConfig{Endpoints: []string{"ipc://" + filepath.Join(dir, "s")}}).Close()
	if left := namesIn(t, dir); left != "" {
		t.Errorf("there is %q", left)
	}
}

// Whom AllowUIDs names may connect to a path, too, and nobody else.
func TestEndpointPathOfAnAllowedUser(t *testing.T) {
	dir, err := os.MkdirTemp("", "zp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	b := startBroker(t, BrokerConfig{Endpoints: []string{"ipc://" + path}, AllowUIDs: []int{stranger}})
	task := childTask{Part: "reader", Broker: b.Endpoints()[1], Pipe: "p", UID: stranger}
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	if got := startChild(t, task).line(); !strings.Contains(got, "a directory of ipc://") {
		t.Errorf("whom the directory keeps out is told %q", got)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	task.UID = 1
	if got := startChild(t, task).line(); !strings.Contains(got, "permission denied") {
		t.Errorf("another one: %q", got)
	}
	task.UID = stranger
	startChild(t, task).ready()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := startChild(t, task).line(); !strings.Contains(got, "the socket ipc://") || !strings.Contains(got, "AllowUIDs") {
		t.Errorf("whom the socket keeps out is told %q", got)
	}
}

// A user's broker is one for all who look for it by name.
func TestEndpointOneBrokerOfAName(t *testing.T) {
	ownRuntimeDir(t)
	for _, first := range []bool{false, true} {
		name := uniqueName(t)
		c := startChild(t, childTask{Part: "broker", Broker: name, Private: first}).ready()
		if b, err := (BrokerConfig{Private: !first}).NewBroker(name); !errors.Is(err, ErrBrokerExists) {
			t.Errorf("private %v, and then the other: %v", first, err)
			b.Close()
		}
		// At an endpoint of its own it is not found by name.
		startBrokerNamed(t, name, BrokerConfig{Endpoints: []string{"tcp://127.0.0.1:*"}}).Close()
		c.kill()
		startBrokerNamed(t, name, BrokerConfig{Private: !first}).Close()
	}
}

// Of two that start at the same time, at most one serves.
func TestEndpointOneBrokerOfANameAtOnce(t *testing.T) {
	ownRuntimeDir(t)
	for range 10 {
		name := uniqueName(t)
		ready := make(chan string)
		for _, private := range []bool{false, true} {
			go func() { ready <- startChild(t, childTask{Part: "broker", Broker: name, Private: private}).line() }()
		}
		if a, b := <-ready, <-ready; a == "ready" && b == "ready" {
			t.Fatal("both serve")
		}
	}
}

// A directory for private brokers that can't be used hides no other brokers.
func TestEndpointPrivateDirectoryIsLong(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	deep := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocketPath))
	if err := os.MkdirAll(filepath.Join(deep, "zpipes"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", deep)
	if b, err := (BrokerConfig{Private: true}).NewBroker(""); !errors.Is(err, ErrBadName) {
		t.Errorf("a private broker with a path that is too long: %v", err)
		b.Close()
	}
	startChild(t, childTask{Part: "reader", Broker: b.Name(), Pipe: "p"}).ready()
}

// What is at the private place but is no broker is passed over; what serves at the other
// one but is a stranger's is told at once.
func TestEndpointOfAStrangerBesideThePrivatePlace(t *testing.T) {
	dir := ownRuntimeDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := uniqueName(t)
	asStranger(t, childTask{Part: "broker", Broker: name}).ready()
	for what, make := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"a file":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link":  func(path string) error { return os.Symlink(path, path) },
		"a socket nobody serves": func(path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
		"a socket of datagrams": func(path string) error {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		c, err := NewClient(name)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := c.OpenWriter(t.Context(), "p"); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrNoBroker) {
			t.Errorf("%s: a stranger's broker: %v", what, err)
		}
		if took := time.Since(start); took > soon {
			t.Errorf("%s: it took %v", what, took)
		}
		c.Close()
		os.Remove(path)
	}
	// The user's own may start all the same, and is found.
	startChild(t, childTask{Part: "broker", Broker: name, Private: true}).ready()
	startChild(t, childTask{Part: "reader", Broker: name, Pipe: "p"}).ready()
}

// A stranger who takes a name and says nothing is no broker to wait for.
func TestEndpointOfASilentStranger(t *testing.T) {
	name := uniqueName(t)
	asStranger(t, childTask{Part: "silent", Broker: "@/zpipes/" + name}).ready()
	c, err := NewClient(name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.OpenWriter(t.Context(), "p"); !errors.Is(err, fs.ErrPermission) || time.Since(start) > soon {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// Who listens at a path and is too busy to answer keeps it.
func TestEndpointPathOfOneWhoIsBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	was, _ := os.Lstat(path)
	if b, err := (BrokerConfig{Endpoints: []string{"ipc://" + path}}).NewBroker(""); !errors.Is(err, ErrBrokerExists) {
		t.Errorf("a broker there: %v", err)
		b.Close()
	}
	if is, err := os.Lstat(path); err != nil || !os.SameFile(was, is) {
		t.Errorf("its socket: %v", err)
	}
}
