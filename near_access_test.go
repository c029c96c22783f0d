//go:build linux && !core

package zpipes

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() { parts["crowded"], parts["knock"] = playCrowded, playKnock }

// playKnock comes to a near door without this library's client, and says what it hears.
func playKnock(task childTask) int {
	p, err := dialNear(task.Broker)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	p.Write(nearHello())
	m, err := p.next(soon)
	fmt.Printf("message %d, cause %d: %s, %v\n", m.id, m.code, m.cause, err)
	_, err = p.next(soon)
	fmt.Println(err != nil && !errors.Is(err, os.ErrDeadlineExceeded))
	return 0
}

// playCrowded is a broker whose process opens files until it has no more descriptors, and
// closes them, as often as it is told to. It prints what it logs.
func playCrowded(task childTask) int {
	const few = 100
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: few, Max: few})
	if err == nil {
		var b *Broker
		if b, err = (BrokerConfig{Endpoints: []string{task.Broker}, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))}).NewBroker(""); err == nil {
			defer b.Close()
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var files []*os.File
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for f, err := os.Open("/"); err == nil; f, err = os.Open("/") {
			files = append(files, f)
		}
		fmt.Println("full")
		if !in.Scan() {
			break
		}
		for _, f := range files {
			f.Close()
		}
		files = nil
	}
	return 0
}

// roomForOthers is a directory that other users can enter.
func roomForOthers(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// While the broker's process has no descriptors left, who is in is served, who comes waits, and
// the log says so now and then.
func TestNearDoorWithoutDescriptors(t *testing.T) {
	t.Parallel()
	at := nearScheme + filepath.Join(t.TempDir(), "s")
	host := startChild(t, childTask{Part: "crowded", Broker: at})
	for line := host.line(); !strings.Contains(line, "broker up"); line = host.line() {
	}
	in := mustDialNear(t, at)
	in.agree(t)
	for range 2 {
		fmt.Fprintln(host.stdin)
		for line := host.line(); line != "full"; line = host.line() {
		}
		began, said := time.Now(), 0
		waits := mustDialNear(t, at)
		waits.Write(nearHello())
		for time.Since(began) < time.Second { // each line takes its time
			if line := host.line(); strings.Contains(line, "has to wait") && strings.Contains(line, "too many open files") {
				said++
			}
		}
		if took := time.Since(began); said == 0 || float64(said) > 12*took.Seconds() {
			t.Errorf("it was logged %d times within %v", said, took)
		}
		if err := in.say(message{id: msgInput, text: []byte("p"), block: hasBlock, channel: 1}); err != nil {
			t.Error(err)
		}
		if m, err := in.next(soon); err != nil || m.id != msgInputOK {
			t.Errorf("who is in heard %+v, %v", m, err)
		}
		if err := in.say(message{id: msgClose, block: hasBlock, channel: 1}); err != nil {
			t.Error(err)
		}
		if m, err := in.next(soon); err != nil || m.id != msgCloseOK {
			t.Errorf("who is in heard %+v, %v", m, err)
		}
		fmt.Fprintln(host.stdin)
		if m, err := waits.next(soon); err != nil || m.id != msgPingOK {
			t.Errorf("who waited heard %+v, %v", m, err)
		}
	}
}

// Users who are allowed come to a near door at a path, and others are told why they may not.
func TestNearDoorAndOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	path := filepath.Join(roomForOthers(t), "s")
	b := startBroker(t, BrokerConfig{Endpoints: []string{nearScheme + path}, AllowUIDs: []int{stranger}})
	task := childTask{Part: "reader", Broker: nearScheme + path, Pipe: "p", UID: stranger}
	startChild(t, task).ready()
	task.UID = 1
	if got := startChild(t, task).line(); !strings.Contains(got, "permission denied") || !strings.Contains(got, "AllowUIDs") {
		t.Errorf("another one: %q", got)
	}
	knock := startChild(t, childTask{Part: "knock", Broker: nearScheme + path, UID: 1})
	want := fmt.Sprintf("message %d, cause %d: user 1 may not use this broker", msgInvalid, causeDenied)
	if got := knock.line(); !strings.HasPrefix(got, want) {
		t.Errorf("on the wire another one hears %q, want %q", got, want)
	}
	if got := knock.line(); got != "true" {
		t.Error("the broker does not hang up")
	}
	if n := b.Stats(); n.Denied != 2 || n.Clients != 1 {
		t.Errorf("%d refusals, %d clients", n.Denied, n.Clients)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	task.UID = stranger
	if got := startChild(t, task).line(); !strings.Contains(got, "the socket unix://"+path) || !strings.Contains(got, "AllowUIDs") {
		t.Errorf("whom the socket keeps out is told %q", got)
	}
}

// Where nobody says who comes, a near door is for its own user, and says so.
func TestNearDoorWhereNobodyIsKnown(t *testing.T) {
	doorsTell = false
	t.Cleanup(func() { doorsTell = true }) // when the broker is closed
	dir := t.TempDir()
	at := nearScheme + filepath.Join(dir, "s")
	if b, err := (BrokerConfig{Endpoints: []string{at}, AllowUIDs: []int{stranger}}).NewBroker(""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "AllowUIDs") {
		t.Errorf("other users are allowed: %v", err)
		b.Close()
	}
	if left := namesIn(t, dir); left != "" {
		t.Errorf("left behind: %q", left)
	}
	old := syscall.Umask(0)
	b := startBroker(t, BrokerConfig{Endpoints: []string{at}})
	syscall.Umask(old)
	info, err := os.Lstat(filepath.Join(dir, "s"))
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	mustDialNear(t, nearDoorOf(t, b)).agree(t)
}

// Where nobody says who comes over ipc, a path is for its own user, and says so.
func TestBrokerWhereNobodyIsKnown(t *testing.T) {
	if !haveZeroMQ {
		t.Skip("no ZeroMQ")
	}
	defer func(tells bool) { tellsPeers = tells }(tellsPeers)
	tellsPeers = false
	dir := t.TempDir()
	at := "ipc://" + filepath.Join(dir, "s")
	if b, err := (BrokerConfig{Endpoints: []string{at}, AllowUIDs: []int{stranger}}).NewBroker(""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "AllowUIDs") {
		t.Errorf("other users are allowed: %v", err)
		b.Close()
	}
	old := syscall.Umask(0)
	b, err := BrokerConfig{Endpoints: []string{at}}.NewBroker("")
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if info, err := os.Lstat(filepath.Join(dir, "s")); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
