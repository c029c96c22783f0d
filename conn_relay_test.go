//go:build !core

package zpipes

import "testing"

// What the other broker says of a broadcast's readers is expected where that was asked for, whatever has become of
// the pipe since.
func TestRelayLinkOfWhatIsNoBroadcastAnyMore(t *testing.T) {
	p := &pipe{use: branch}
	l := newRelayLink(&conn{}, &relay{pipe: p})
	l.state = linkOpen
	m := &message{id: msgAudience, count: 2}
	if l.expects(m) {
		t.Error("it is expected for a stream")
	}
	l.feeds = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.use = brokers
	}()
	if !l.expects(m) {
		t.Error("it is not expected for a broadcast")
	}
	<-done
	l.handle(nil, m)
}
