//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// While Allow thinks about what one client asks, that waits, and nothing else does.
func TestBrokerAllowThatHangs(t *testing.T) {
	before := goleak.IgnoreCurrent()
	hangs := make(chan struct{})
	var asked, most, now atomic.Int32
	b, err := BrokerConfig{Allow: func(a Access) error {
		if a.Pipe != "hangs" {
			return nil
		}
		asked.Add(1)
		n := now.Add(1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		<-hangs
		now.Add(-1)
		return errors.New("not that one")
	}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ClientConfig{Timeout: soon / 2}.NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	var opens sync.WaitGroup
	for range 3 * maxAskingEach {
		opens.Go(func() {
			if _, err := c.OpenReader(t.Context(), "hangs"); !errors.Is(err, ErrNoBroker) {
				t.Errorf("an open for which Allow has no answer: %v", err)
			}
		})
	}
	for asked.Load() < maxAskingEach {
		runtime.Gosched()
	}
	if took, err := c.Ping(t.Context()); err != nil || took > soon/2 {
		t.Errorf("a PING took %v, %v", took, err)
	}
	for i := range 2 * maxAsking {
		if _, err := other.OpenReader(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	opens.Wait()
	if n := most.Load(); n != maxAskingEach {
		t.Errorf("%d were asked at once, want %d", n, maxAskingEach)
	}
	for _, end := range []io.Closer{c, other, b} { // the broker last, whose end is an error for who has something open
		if got := (&rig{T: t}).within(soon, inBackground(func() (int, error) { return 0, end.Close() })); got.err != nil {
			t.Errorf("%T: %v", end, got.err)
		}
	}
	close(hangs)
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestBrokerAllowThatPanics(t *testing.T) {
	b := startBroker(t, BrokerConfig{Allow: func(a Access) error {
		switch a.Pipe {
		case "panics":
			panic("of the host")
		case "ends":
			runtime.Goexit()
		}
		return nil
	}})
	c, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 * maxAskingEach {
		for _, name := range []string{"panics", "ends"} {
			if _, err := c.OpenReader(t.Context(), name); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("Allow that %s: %v", name, err)
			}
		}
	}
	if _, err := c.OpenReader(t.Context(), "fine"); err != nil {
		t.Error(err)
	}
}

// Allow may use the broker.
func TestBrokerAllowThatAsksTheBroker(t *testing.T) {
	var b *Broker
	var ready sync.WaitGroup
	ready.Add(1)
	b = startBroker(t, BrokerConfig{Allow: func(a Access) error {
		ready.Wait()
		c := b.Client()
		defer c.Close()
		_, err := c.OpenReader(t.Context(), "for "+a.Pipe)
		return err
	}})
	ready.Done()
	c, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.OpenReader(t.Context(), "p"); err != nil {
		t.Error(err)
	}
}
