//go:build cgo && !core

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

// What a client asks for and takes back is forgotten though Allow hangs, and so is a
// client that is gone.
func TestBrokerAllowQuestionsThatAreTakenBack(t *testing.T) {
	hangs := make(chan struct{})
	b := startBroker(t, BrokerConfig{Allow: func(Access) error { <-hangs; return nil }})
	defer close(hangs)
	idle := func() int { // what lies about beside those that Allow is asked
		b.gate.mu.Lock()
		defer b.gate.mu.Unlock()
		n := b.gate.turns.Len()
		for _, a := range b.gate.askers {
			if n += a.waiting.Len(); a.running == 0 {
				n++
			}
		}
		return n
	}
	input := (&message{id: msgInput, block: hasBlock, channel: 1, text: []byte("p")}).append(nil)
	leave := (&message{id: msgClose, block: hasBlock, channel: 1}).append(nil)
	ping := (&message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, session: 1}}).append(nil)
	for i := range maxAsking/maxAskingEach + 10 {
		s := wireGreet(t, b.Endpoints()[1], "")
		for range 50 {
			wireSend(s, input)
			wireSend(s, leave)
		}
		wireSend(s, input)
		wireSend(s, []byte(textOpen), []byte("q"))
		wireSend(s, ping)
		for m := (message{}); m.id != msgPingOK; {
			frames, err := wireReceive(s, soon)
			if err != nil {
				t.Fatal(err)
			}
			m, _ = parse(frames[0])
		}
		if n := idle(); n > 4*(i+1) { // each waits for two answers, and is one whose turn may come
			t.Fatalf("%d clients and questions wait", n)
		}
		s.Close()
	}
	eventuallyWithin(t, dead+soon, "all clients are gone", func() bool { return b.Stats().Clients == 0 })
	if n := idle(); n != 0 {
		t.Errorf("%d clients and questions are remembered", n)
	}
}
