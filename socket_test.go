//go:build cgo

package zpipes

import (
	"errors"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// An owner that is always late, since each round takes longer than until the time at which
// it wants to look up again, must get its messages nevertheless.
func TestWaitReceivesWhenItsTimeIsOver(t *testing.T) {
	ctx := wireContext(t)
	defer wireTerm(ctx)
	s, err := newRouter(ctx, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.known = func([]byte) bool { return false }
	endpoint := inprocEndpoint(uniqueName(t))
	if err := s.zmq.Bind(endpoint); err != nil {
		t.Fatal(err)
	}
	c, err := newDealer(ctx, endpoint, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, text := range []string{"one", "two"} {
		if err := c.send([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(soon); ; {
		p, ok := s.wait(time.Now().Add(-time.Second))
		if ok && string(p.frame) == "two" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a message that is there is not received")
		}
	}
}

// A broker that tried in vain to get rid of what clients do not take has other things to
// do first.
func TestClientsThatTakeNothingDoNotTakeAllTime(t *testing.T) {
	ctx := wireContext(t)
	defer wireTerm(ctx)
	sock, err := newRouter(ctx, leastMaxMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.close()
	sock.known = func([]byte) bool { return false }
	endpoint := inprocEndpoint(uniqueName(t))
	if err := sock.zmq.Bind(endpoint); err != nil {
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
	p, ok := sock.wait(time.Now().Add(soon))
	if !ok {
		t.Fatal("no message")
	}
	b := &Broker{sock: sock, congested: make(map[*session]bool), pipes: newRegistry(1, 1, 1)}
	s := &session{id: p.id}
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
