//go:build cgo && linux && !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	zmq4 "github.com/pebbe/zmq4"
)

// wayTo passes on what travels by tcp to a broker's last endpoint; hold is called before so many bytes go on. cut
// ends the connections that there are, and lets no more in.
func wayTo(t *testing.T, b *Broker, hold func(n int)) (at string, cut func()) {
	t.Helper()
	to := strings.TrimPrefix(b.Endpoints()[len(b.Endpoints())-1], "tcp://")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	alive, cut := context.WithCancel(t.Context())
	context.AfterFunc(alive, func() { l.Close() })
	carry := func(to, from net.Conn) {
		b := make([]byte, 2<<10)
		for {
			n, err := from.Read(b)
			hold(n)
			if _, failed := to.Write(b[:n]); err != nil || failed != nil {
				to.Close()
				from.Close()
				return
			}
		}
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				return
			}
			context.AfterFunc(alive, func() { c.Close(); s.Close() })
			all.Go(func() { carry(s, c) })
			all.Go(func() { carry(c, s) })
		}
	})
	return "tcp://" + l.Addr().String(), cut
}

// keyedBroker serves encrypted tcp alone.
func keyedBroker(t *testing.T) (*Broker, Key) {
	t.Helper()
	key := NewKey()
	return startBroker(t, BrokerConfig{Key: key, Endpoints: []string{"tcp://127.0.0.1:*"}}), key
}

// On a slow way a message takes longer than a peer may be silent. Who sends it, or gets it,
// lives.
func TestKeySlowWay(t *testing.T) {
	b, key := keyedBroker(t)
	at, _ := wayTo(t, b, func(n int) { time.Sleep(time.Duration(n) * time.Second / 50_000) }) // which is what is tried
	c, err := ClientConfig{Key: key, Heartbeat: 100 * time.Millisecond, Timeout: time.Minute}.NewClient(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	chunk := bytes.Repeat([]byte("slow"), 20<<10) // which can't be cut, and takes four times 0.4 s
	there, err := c.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here, err := b.Client().OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	for _, pair := range [][2]*Queue{{there, here}, {here, there}} {
		if err := errors.Join(pair[0].Send(t.Context(), chunk), pair[0].Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got, err := pair[1].Receive(t.Context()); err != nil || !bytes.Equal(got, chunk) {
			t.Fatalf("received %d bytes, %v", len(got), err)
		}
	}
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Client().OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	go func() { w.Write(chunk); w.Write(chunk); w.Close() }()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, append(chunk, chunk...)) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// A network may stand still for longer than a machine: with the default heartbeat nobody is
// taken for dead because of it.
func TestKeyWayThatStandsStill(t *testing.T) {
	t.Parallel()
	b, key := keyedBroker(t)
	var still sync.RWMutex
	at, _ := wayTo(t, b, func(int) {
		still.RLock()
		defer still.RUnlock()
	})
	c, err := ClientConfig{Key: key}.NewClient(at)
	check(t, err)
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "p")
	check(t, err)
	r, err := c.OpenReader(t.Context(), "p")
	check(t, err)
	defer r.Close()
	still.Lock()
	time.AfterFunc(3*time.Second, still.Unlock) // which is what is tried
	w.Write([]byte("late"))
	go w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "late" {
		t.Errorf("read %q, %v", got, err)
	}
}

// When the broker's end of the connection is gone, clients need no silence to know.
func TestKeyConnectionThatIsLost(t *testing.T) {
	t.Parallel()
	b, key := keyedBroker(t)
	at, cut := wayTo(t, b, func(int) {})
	c, err := ClientConfig{Key: key}.NewClient(at)
	check(t, err)
	defer c.Close()
	r, err := c.OpenReader(t.Context(), "p")
	check(t, err)
	defer r.Close()
	cut()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrBrokerGone) || !strings.Contains(err.Error(), errGone.Error()) {
		t.Errorf("Read: %v", err)
	}
}

// A client that takes nothing of what is sent to it is let go; one that takes a little, now and then, is not.
func TestKeyClientThatTakesNothing(t *testing.T) {
	const patience = 200 * time.Millisecond
	for _, takes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { // where a busy machine does not count
			here, there := net.Pipe()
			defer there.Close()
			defer here.Close()
			w := &patientWriter{Conn: here, door: new(tcpDoor), patience: patience}
			stop := make(chan struct{})
			defer close(stop)
			if takes {
				go func() {
					b := make([]byte, 1<<10)
					for {
						select {
						case <-stop:
							return
						case <-time.After(patience / 20): // which is what is tried
							there.Read(b)
						}
					}
				}()
			}
			n, err := w.Write(make([]byte, 40<<10)) // takes twice the patience
			if takes && err != nil || !takes && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("takes something %v: %d bytes, %v", takes, n, err)
			}
		})
	}
}

// Whoever watches a handshake ends when it is told to, whatever libzmq tells just then.
func TestKeyWatchThatEndsBesideAnEvent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // where nobody says anything
	check(t, err)
	defer l.Close()
	zctx, err := newContext(nil)
	check(t, err)
	defer zctx.close()
	badges, err := (&ClientConfig{Key: NewKey()}).badges()
	check(t, err)
	s, err := newDealer(zctx, "tcp://"+l.Addr().String(), leastMaxMessage, badges[0])
	check(t, err)
	defer s.close()
	w := s.watch
	eventually(t, "it is told that there is a connection", func() bool {
		events, err := w.sock.zmq.GetEvents()
		return err == nil && events&zmq4.POLLIN != 0
	})
	w.done = make(chan struct{})
	w.ended.Store(true)
	w.sock.wake()
	go w.listen(func(handshakeFailure) {})
	select {
	case <-w.done:
	case <-time.After(soon):
		t.Fatal("it still waits")
	}
}
