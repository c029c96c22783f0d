//go:build cgo && linux && !core

package zpipes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestAccessStrangersAreRefused(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c := asStranger(t, childTask{Part: "reader", Broker: b.Name(), Pipe: "p"})
	if got := c.line(); !strings.Contains(got, "permission denied") || !strings.Contains(got, "AllowUIDs") {
		t.Errorf("a stranger got %q", got)
	}
	if n := b.Stats().Denied; n != 1 {
		t.Errorf("%d refusals were counted for one try", n)
	}
	if b.admit("localhost:4294967294:1:1"); b.Stats().Denied != 2 {
		t.Error("another process is not counted")
	}
	for i := range 2 * maxTries {
		b.admit(fmt.Sprintf("localhost:4294967294:1:%d", 2+i))
	}
	if n := len(b.refusals.began); n > maxTries {
		t.Error(n, "peers are remembered")
	}
	if n := b.Stats().Denied; n != 2+2*maxTries {
		t.Error(n, "refusals were counted")
	}
	for p := range b.Pipes() {
		t.Errorf("there is %+v", p)
	}
}

// What a stranger sends is not even received, where the broker's context is its own.
func TestAccessStrangersAreTurnedAway(t *testing.T) {
	t.Parallel()
	ctx, err := newContext(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer wireTerm(ctx.zmq)
	for _, test := range []struct {
		cfg  BrokerConfig
		want string
	}{
		{BrokerConfig{}, "no message in time"},
		{BrokerConfig{Context: ctx.zmq}, "aaa015"},           // INVALID
		{BrokerConfig{AllowUIDs: []int{stranger}}, "aaa014"}, // PING_OK
	} {
		b := startBroker(t, test.cfg)
		c := asStranger(t, childTask{Part: "bare", Broker: b.Endpoints()[1]})
		if got := c.line(); !strings.Contains(got, test.want) {
			t.Errorf("a stranger heard %s, want %s", got, test.want)
		}
		if refused := test.cfg.AllowUIDs == nil; (b.Stats().Denied > 0) != refused {
			t.Errorf("%d refusals are counted", b.Stats().Denied)
		}
		b.Close()
	}
}

func TestAccessStrangersWhoAreAllowed(t *testing.T) {
	b := startBroker(t, BrokerConfig{AllowUIDs: []int{stranger}})
	c := asStranger(t, childTask{Part: "reader", Broker: b.Name(), Pipe: "p"})
	if got := c.line(); got != "ready" {
		t.Errorf("got %q", got)
	}
}

// In a user namespace, others look like the user that "nobody" is there.
func TestAccessNobodyOfAUserNamespace(t *testing.T) {
	for _, part := range []string{"broker", "reader"} {
		t.Run(part, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("only root can start a process of another user")
			}
			task := childTask{Part: part, UID: stranger, Namespace: true, Pipe: "p"}
			if part == "broker" {
				task.Broker = uniqueName(t)
				startChild(t, task).ready()
				c := startChild(t, childTask{Part: "reader", Broker: task.Broker, Pipe: "p", UID: 1, TrustUIDs: []int{namespace + stranger}})
				if got := c.line(); !strings.Contains(got, "permission denied") {
					t.Errorf("the broker of the namespace's nobody says to user 1: %s", got)
				}
				return
			}
			b := startChild(t, childTask{Part: "broker", Broker: uniqueName(t), UID: 1, AllowUIDs: []int{namespace + stranger}})
			task.Broker = b.ready().task.Broker
			if got := startChild(t, task).line(); !strings.Contains(got, "permission denied") || !strings.Contains(got, "namespace") {
				t.Errorf("the namespace's nobody says of a broker of user 1: %s", got)
			}
			task.TrustUIDs = []int{stranger} // told to trust them all
			startChild(t, task).ready()
		})
	}
}

// Anybody may take an abstract name.
func TestAccessBrokerOfAStranger(t *testing.T) {
	name := uniqueName(t)
	asStranger(t, childTask{Part: "broker", Broker: name}).ready()
	c, err := NewClient(name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.OpenWriter(t.Context(), "p"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a stranger's broker: %v", err)
	}
	trusting, err := ClientConfig{TrustUIDs: []int{stranger}}.NewClient(name)
	if err != nil {
		t.Fatal(err)
	}
	defer trusting.Close()
	if _, err := trusting.OpenReader(t.Context(), "p"); err != nil {
		t.Error(err)
	}
}

func TestAccessAllow(t *testing.T) {
	var asked []Access
	refusal := errors.New("not that one")
	b := startBroker(t, BrokerConfig{Allow: func(a Access) error {
		asked = append(asked, a)
		if a.Pipe == "secret" {
			return refusal
		}
		return nil
	}})
	c, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	for _, open := range []func(name string) error{
		func(name string) error { _, err := c.OpenReader(ctx, name); return err },
		func(name string) error { _, err := c.OpenWriter(ctx, name); return err },
		func(name string) error { _, err := c.OpenQueue(ctx, name+"s"); return err },
		func(name string) error { return c.DeleteQueue(ctx, name+"s") },
		func(name string) error { _, err := c.Listen(ctx, name+"ed"); return err },
		func(name string) error { _, err := c.Dial(ctx, name+"ed"); return err },
	} {
		if err := open("open"); err != nil {
			t.Error(err)
		}
	}
	for _, open := range []func(name string) error{
		func(name string) error { _, err := c.OpenReader(ctx, name); return err },
		func(name string) error { _, err := c.OpenWriter(ctx, name); return err },
		func(name string) error { _, err := c.OpenQueue(ctx, name); return err },
		func(name string) error { return c.DeleteQueue(ctx, name) },
		func(name string) error { _, err := c.Listen(ctx, name); return err },
		func(name string) error { _, err := c.Dial(ctx, name); return err },
	} {
		if err := open("secret"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), refusal.Error()) {
			t.Errorf("the error is %v", err)
		}
	}
	if _, err := c.Status(ctx); err != nil {
		t.Error(err)
	}
	b.Close()
	ops := make([]string, len(asked))
	for i, a := range asked {
		ops[i] = a.Op
		if a.UID != os.Getuid() || a.GID != syscall.Getgid() || a.PID != os.Getpid() {
			t.Errorf("asked by %+v", a)
		}
	}
	if got, want := strings.Join(ops, " "), "read write queue delete listen dial read write queue delete listen dial status"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
}
