//go:build !core

package zpipes

import (
	"io"
	"testing"
	"time"
)

// An attach that comes late, by a connection that is no more, takes the place of a later one. The stream goes on.
func TestStreamGoesOnWhereAnAttachComesLate(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, r := streamBetween(t, brokers[0].Client(), brokers[1])
	g := brokers[1].pipes
	for _, text := range []string{"one", "two", "three"} {
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		p := g.pipes()["pipe"]
		g.mu.Unlock()
		p.mu.Lock()
		m := p.rendezvous
		s := m.seat
		p.mu.Unlock()
		late := newSession(&peerConn{sessionHost: sessionHost{Broker: brokers[1], wake: func() {}}}, g, nil, time.Minute, time.Now())
		e := &streamWriter{streamEnd: streamEnd{channelEnd: channelEnd{&channel{session: late}}, role: writer}, far: new(farWriter)}
		if _, again, why := g.admitFar("pipe", s.Reader, s.Writer, memberID(s.At), nil, e, time.Now()); !again || why != nil {
			t.Fatalf("%v, %v", again, why)
		}
	}
	done := inBackground(func() (int, error) { return 0, w.Close() })
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "onetwothree" {
		t.Errorf("%q, %v", got, err)
	}
	if closed := <-done; closed.err != nil {
		t.Error(closed.err)
	}
}
