//go:build cgo

package zpipes

import (
	"testing"
	"time"
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
