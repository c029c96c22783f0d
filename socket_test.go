//go:build cgo && !core

package zpipes

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// receives waits for a message; wait may return without one.
func (s *socket) receives(t *testing.T) (p packet) {
	t.Helper()
	eventually(t, "a message", func() (ok bool) {
		p, ok = s.wait(time.Now().Add(soon))
		return ok
	})
	return p
}

// ZeroMQ is for socket*.go to know; elsewhere a program may name its own context, no more.
func TestOnlySocketsKnowZeroMQ(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasPrefix(file, "socket") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		positions := token.NewFileSet()
		syntax, err := parser.ParseFile(positions, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := s.X.(*ast.Ident)
			zmq4 := of != nil && of.Name == "zmq4" && !(file == "broker_config.go" && s.Sel.Name == "Context")
			if zmq4 || s.Sel.Name == "zmq" {
				t.Errorf("%v: this belongs behind a method of socket's", positions.Position(n.Pos()))
			}
			return true
		})
	}
}

// An owner that is always late, since each round takes longer than until the time at which
// it wants to look up again, must get its messages nevertheless.
func TestSocketWaitReceivesWhenItsTimeIsOver(t *testing.T) {
	ctx := wireContext(t)
	defer wireTerm(ctx)
	s, err := newRouter(&zmqContext{zmq: ctx}, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.asks = func([]byte) (string, []string) { return "", nil }
	endpoint := inprocEndpoint(uniqueName(t))
	if err := s.bind(endpoint); err != nil {
		t.Fatal(err)
	}
	c, err := newDealer(&zmqContext{zmq: ctx}, endpoint, leastMaxMessage, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, text := range []string{"one", "two"} {
		if err := c.send([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a message that is there is received", func() bool {
		p, ok := s.wait(time.Now().Add(-time.Second))
		return ok && string(p.frame) == "two"
	})
}

// A broker that tried in vain to get rid of what clients do not take has other things to
// do first.
func TestSocketPeersThatTakeNothingDoNotTakeAllTime(t *testing.T) {
	ctx := wireContext(t)
	defer wireTerm(ctx)
	sock, err := newRouter(&zmqContext{zmq: ctx}, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.close()
	sock.asks = func([]byte) (string, []string) { return "", nil }
	endpoint := inprocEndpoint(uniqueName(t))
	if err := sock.bind(endpoint); err != nil {
		t.Fatal(err)
	}
	c, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.SetLinger(0), c.SetRcvhwm(1), c.Connect(endpoint)); err != nil {
		t.Fatal(err)
	}
	wireSend(c, []byte("hello"))
	p := sock.receives(t)
	b := &zmqHost{sock: sock, congested: make(map[*session]bool)}
	b.Broker = &Broker{pipes: newRegistry(1, 1, 1)}
	s := &session{id: p.id, pipes: b.pipes}
	for len(s.backlog) == 0 {
		b.reply(s, []byte("answer"))
	}
	now := time.Now()
	b.relieve(now)
	if len(s.backlog) == 0 {
		t.Fatal("more was sent than the client takes")
	}
	for {
		if _, err := c.RecvBytes(zmq4.DONTWAIT); err != nil {
			break
		}
	}
	sock.zmq.GetEvents() // has libzmq know that there is room again
	if b.relieve(now); len(s.backlog) == 0 {
		t.Error("it tried again at once")
	}
	if next := b.nextLook(now); !next.After(now) || next.After(now.Add(soon)) {
		t.Errorf("it wants to try again after %v", next.Sub(now))
	}
	if b.relieve(now.Add(soon)); len(s.backlog) > 0 || len(b.congested) > 0 {
		t.Error("it does not try again")
	}
}

// libzmq knows that a connection is no more before we have received all that came over it.
// All of that is taken, or nothing.
func TestSocketTakesNothingAfterWhatWasDropped(t *testing.T) {
	t.Parallel()
	ctx := wireContext(t)
	defer wireTerm(ctx)
	sock, err := newRouter(&zmqContext{zmq: ctx}, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.close()
	endpoint := defaultEndpoint(uniqueName(t))
	if err := sock.bind(endpoint); err != nil {
		t.Fatal(err)
	}
	cfg, err := BrokerConfig{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := &zmqHost{
		sock: sock, done: make(chan struct{}),
		sessions: make(map[string]*session), ended: make(map[string]*session),
	}
	b.Broker = &Broker{cfg: cfg, log: newAsyncLog(nil), pipes: newRegistry(10, 1000, leastMaxMessage)}
	b.wake = sock.wake
	sock.asks = b.asks

	c := wireSocket(t, endpoint, "chosen")
	c.SetLinger(-1)
	wireSend(c, []byte(textOpen), []byte("q"))
	wireSend(c, []byte(textWrite), []byte("q"), []byte("one"))
	wireSend(c, []byte(textWrite), []byte("q"), []byte("two"))
	p := sock.receives(t)
	c.Close()
	eventually(t, "the end of the connection", func() bool { return sock.send(p.id, []byte("probe")) == errGone })
	b.dispatch(&p, time.Now())

	go b.serve()
	defer func() {
		b.stopping.Store(true)
		sock.wake()
		<-b.done
	}()
	wireGreet(t, endpoint, "chosen") // whose id is free when all else has been received
	if n := (&rig{T: t}).queued(b.Broker); n != 0 && n != 2 {
		t.Errorf("%d chunks of the dead were taken, of two", n)
	}
}
