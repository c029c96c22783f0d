//go:build !core

package zpipes

import (
	"errors"
	"strings"
	"testing"
	"time"
)

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

// Settings are copied: what a program does with its slices later changes nobody's rights.
func TestConfigsAreCopied(t *testing.T) {
	users := []int{1}
	b := startBroker(t, BrokerConfig{Endpoints: []string{}, AllowUIDs: users})
	c, err := ClientConfig{TrustUIDs: users}.NewClient(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if users[0] = 2; trusted(2, b.cfg.AllowUIDs) || trusted(2, c.cfg.TrustUIDs) {
		t.Error("another user is let in, or trusted")
	}
}

func TestBrokerBadConfigs(t *testing.T) {
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

func TestBrokerLimitsThatAreWrong(t *testing.T) {
	for _, cfg := range []BrokerConfig{{PerClient: Limits{Pipes: -1}}, {PerUser: Limits{Pending: -1}}} {
		if b, err := cfg.NewBroker(""); err == nil {
			b.Close()
			t.Errorf("%+v: no error", cfg)
		}
	}
}
