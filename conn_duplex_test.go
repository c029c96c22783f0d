//go:build !core

package zpipes

import (
	"slices"
	"testing"
	"time"
)

// sentBy is a transport that notes what is sent, and brings nothing.
type sentBy struct{ sent []message }

func (s *sentBy) send(frames ...[]byte) error {
	m, _ := parse(slices.Clone(frames[0]))
	s.sent = append(s.sent, m)
	return nil
}
func (s *sentBy) wait(time.Time) (packet, bool) { return packet{}, false }
func (s *sentBy) stalled() bool                 { return false }
func (s *sentBy) connected() bool               { return true }
func (s *sentBy) wake()                         {}
func (s *sentBy) linger(time.Duration)          {}
func (s *sentBy) close()                        {}

// A connection whose open is given up at the moment at which the answer comes is undone as a
// whole, and neither link stays.
func TestConnectionGivenUpAsTheAnswerComes(t *testing.T) {
	const (
		about = iota // the opener is about to say so to the pipe
		said         // it has
		sent         // and the broker is told, while its answer is on its way
	)
	for _, left := range []int{about, said, sent} {
		c, err := NewClient("nowhere")
		if err != nil {
			t.Fatal(err)
		}
		wire := new(sentBy)
		k := &conn{
			client: c, transport: wire, session: 1, able: ableHere | ableConnections, greeted: true,
			links: make(map[uint32]channelLink), done: make(chan struct{}), most: 1000,
		}
		n := c.newConn(Addr{"nowhere", "svc"})
		l := k.pair(n, nil)
		l.attach()
		l.twin.attach()
		l.serve()
		l.giveUp()
		leave := func() {
			l.pipe.mu.Lock()
			l.pipe.leave(reader, never)
			l.pipe.mu.Unlock()
		}
		if left >= said {
			leave()
		}
		if left == sent {
			l.serve()
		}
		get := func(m message) {
			t.Helper()
			m.block = hasBlock
			if why := k.handle(&packet{frame: m.append(nil)}); why != "" {
				t.Fatal(why)
			}
		}
		get(message{id: msgDialOK, channel: l.channel, who: whoOf(unknownAccess)})
		leave()
		l.serve()
		get(message{id: msgWriteFailed, channel: l.twin.channel}) // who had accepted has gone
		if len(wire.sent) != 2 || wire.sent[1].id != msgClose || wire.sent[1].code != causeNever {
			t.Errorf("case %d: sent %d messages, the last of them %d", left, len(wire.sent), wire.sent[len(wire.sent)-1].id)
		}
		get(message{id: msgCloseOK, channel: l.channel})
		if len(k.links) > 0 {
			t.Errorf("case %d: %d links stay", left, len(k.links))
		}
		c.Close()
	}
}
