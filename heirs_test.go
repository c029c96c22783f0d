//go:build cgo && linux

package zpipes

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A rawPeer speaks ZeroMQ's protocol (ZMTP 3.0) without libzmq, so it may do what that
// does not let it do.
type rawPeer struct {
	net.Conn
	in *bufio.Reader
}

// dialRaw connects to a broker's endpoint as a DEALER with that routing id, "" for none.
func dialRaw(endpoint, id string) (*rawPeer, error) {
	network, address, _ := strings.Cut(endpoint, "://")
	if network == "ipc" {
		network = "unix"
	}
	c, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	p := &rawPeer{c, bufio.NewReader(c)}
	greeting := make([]byte, 64)
	copy(greeting, "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL")
	ready := "\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity" +
		string(binary.BigEndian.AppendUint32(nil, uint32(len(id)))) + id
	c.SetDeadline(time.Now().Add(soon))
	_, err = c.Write(append(append(greeting, 4, byte(len(ready))), ready...))
	if err == nil {
		_, err = io.ReadFull(p.in, greeting)
	}
	if err == nil {
		_, err = p.receive(soon) // its READY
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

func mustDialRaw(t *testing.T, endpoint, id string) *rawPeer {
	t.Helper()
	p, err := dialRaw(endpoint, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (p *rawPeer) send(frames ...string) {
	var b []byte
	for i, f := range frames {
		more := byte(1)
		if i == len(frames)-1 {
			more = 0
		}
		b = append(append(b, more, byte(len(f))), f...)
	}
	p.SetWriteDeadline(time.Now().Add(soon))
	p.Write(b)
}

func (p *rawPeer) say(m message) { p.send(string(m.append(nil))) }

// receive returns the next frame, which must be a short one.
func (p *rawPeer) receive(within time.Duration) (string, error) {
	p.SetReadDeadline(time.Now().Add(within))
	var head [2]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, head[1])
	_, err := io.ReadFull(p.in, b)
	return string(b), err
}

// hears wants that message to be the next.
func (p *rawPeer) hears(t *testing.T, id messageID) message {
	t.Helper()
	frame, err := p.receive(soon)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse([]byte(frame))
	if err != nil || m.id != id {
		t.Fatalf("%x, %v came, want message %d", frame, err, id)
	}
	return m
}

// everyWay has a test run with a broker of each kind, over each transport.
func everyWay(t *testing.T, f func(t *testing.T, b *Broker, endpoint string)) {
	for _, shared := range []bool{false, true} {
		for i, transport := range []string{"ipc", "tcp"} {
			t.Run(fmt.Sprintf("%s, shared context %v", transport, shared), func(t *testing.T) {
				var cfg BrokerConfig
				if shared {
					ctx, err := newContext()
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { wireTerm(ctx) })
					cfg.Context = ctx
				}
				name := uniqueName(t)
				cfg.Endpoints = []string{defaultEndpoint(name), "tcp://127.0.0.1:*"}
				b, err := cfg.NewBroker(name)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { b.Close() })
				f(t, b, b.Endpoints()[1+i])
			})
		}
	}
}

// Libzmq's own routing ids begin with a zero, but so may one that a client has chosen.
var heirsIDs = []string{"\x00\x01\x02\x03\x04", "chosen"}

// Who comes with a dead client's routing id has nothing of what that one had.
func TestHeirHasNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for _, id := range heirsIDs {
			dead := mustDialRaw(t, endpoint, id)
			dead.say(message{id: msgInput, text: []byte("p")})
			dead.hears(t, msgInputOK)
			dead.Close()
			// As long as libzmq has not forgotten the one, it has no ear for the other.
			for end := time.Now().Add(soon); ; {
				heir := mustDialRaw(t, endpoint, id)
				heir.say(message{id: msgRead, size: 1})
				frame, err := heir.receive(100 * time.Millisecond)
				heir.Close()
				if err == nil {
					if m, err := parse([]byte(frame)); err != nil || m.id != msgInvalid {
						t.Errorf("%q was answered %x", id, frame)
					}
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%q is not told that its READ is invalid", id)
				}
			}
		}
	})
}

// What a dead client waited for does not go to who connects with its routing id, and has
// said nothing yet.
func TestHeirGetsNoAnswers(t *testing.T) {
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for i, id := range heirsIDs {
			name := []byte(fmt.Sprint("p", i))
			dead := mustDialRaw(t, endpoint, id)
			dead.say(message{id: msgInput, text: name})
			dead.hears(t, msgInputOK)
			dead.say(message{id: msgRead, size: 6})
			w := mustDialRaw(t, endpoint, "")
			w.say(message{id: msgOutput, text: name})
			w.hears(t, msgOutputOK)
			dead.Close()
			heirs := make([]*rawPeer, 20)
			for i := range heirs { // one of them comes at the right moment
				heirs[i] = mustDialRaw(t, endpoint, id)
				w.say(message{id: msgPing}) // has the broker meet it
				w.hears(t, msgPingOK)
			}
			w.say(message{id: msgWrite, chunk: []byte("secret")})
			if frame, err := w.receive(soon); err != nil {
				t.Error(err)
			} else if m, _ := parse([]byte(frame)); m.id != msgWriteFailed && m.id != msgWriteOK {
				t.Errorf("WRITE was answered %x", frame)
			}
			for _, h := range heirs {
				if frame, err := h.receive(20 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("an heir heard %q, %v", frame, err)
				}
				h.Close()
			}
		}
	})
}

// Whose connection has ended while it waited is missed as soon as anybody else, however
// long it may be silent.
func TestConnectionThatEndsWhileItsClientWaits(t *testing.T) {
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		r, text := mustDialRaw(t, endpoint, ""), mustDialRaw(t, endpoint, "")
		r.say(message{id: msgInput, text: []byte("p")})
		r.hears(t, msgInputOK)
		r.say(message{id: msgRead, size: 1})
		text.send(textOpen, "q")
		if ok, err := text.receive(soon); ok != textOK {
			t.Fatal(ok, err)
		}
		text.send(textRead, "q")
		w := mustDialRaw(t, endpoint, "")
		w.say(message{id: msgPing})
		w.hears(t, msgPingOK)
		if n := b.Stats().Clients; n != 3 {
			t.Errorf("%d clients are there", n)
		}
		r.Close()
		text.Close()
		eventuallyWithin(t, dead, "both are missed", func() bool { return b.Stats().Clients == 1 })
		r = mustDialRaw(t, endpoint, "")
		r.say(message{id: msgInput, text: []byte("p")})
		r.hears(t, msgInputOK)
	})
}

// What a client wrote before it left is taken, though nobody can be told.
func TestLastWords(t *testing.T) {
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		const clients, chunks = 20, 5
		for range clients {
			c := mustDialRaw(t, endpoint, "")
			c.send(textOpen, "q")
			for range chunks {
				c.send(textWrite, "q", "x")
			}
			c.Close()
		}
		eventually(t, "all chunks are in the queue", func() bool {
			for p := range b.Pipes() {
				return p.Chunks == clients*chunks
			}
			return false
		})
		eventually(t, "all clients are forgotten", func() bool { return b.Stats().Clients == 0 })
	})
}

// A worker that gives up a READ by closing its socket, as one does in ZeroMQ, leaves
// nothing behind.
func TestTextClientsThatGiveUp(t *testing.T) {
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for range 300 {
			c := mustDialRaw(t, endpoint, "")
			c.send(textOpen, "jobs")
			if ok, err := c.receive(soon); ok != textOK {
				t.Fatal(ok, err)
			}
			c.send(textRead, "jobs")
			c.Close()
		}
		eventuallyWithin(t, dead, "all are missed", func() bool { return b.Stats().Clients == 0 })
		for p := range b.Pipes() {
			if p.Reads {
				t.Errorf("there is %+v", p)
			}
		}
		r, w := mustDialRaw(t, endpoint, ""), mustDialRaw(t, endpoint, "")
		r.send(textRead, "jobs")
		w.send(textWrite, "jobs", "one")
		if got, err := r.receive(soon); got != "one" {
			t.Errorf("%q, %v; want the chunk", got, err)
		}
		if ok, err := w.receive(soon); ok != textOK {
			t.Error(ok, err)
		}
	})
}

// What libzmq would give out as routing ids, had nobody seeded rand, is known. A client
// that takes them before others come would abort the broker's process.
func TestRoutingIDsAreNotKnown(t *testing.T) {
	name := uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: name}).ready()
	endpoint := defaultEndpoint(name)
	// The first numbers of rand, as libzmq makes ids of them, for its first sockets.
	for _, first := range []uint32{0x6b8b4567, 0xe43c9869, 0xf4b0dc51, 0x2ae8944a, 0xa38e1f29, 0xbd1b58ba, 0xaeb141f2, 0x79e2a9e3} {
		for i := range uint32(40) {
			mustDialRaw(t, endpoint, "\x00"+string(binary.BigEndian.AppendUint32(nil, first+i)))
		}
	}
	for range 40 {
		p, err := dialRaw(endpoint, "")
		if err != nil {
			t.Fatal("the broker is gone: ", err)
		}
		p.say(message{id: msgPing})
		p.hears(t, msgPingOK)
		p.Close()
	}
}

// A broker that is late each time it looks misses the dead all the same.
func TestDeadAreMissedByALateBroker(t *testing.T) {
	now := time.Now()
	s := newSession(new(Broker), newRegistry(1, 1, 1), nil, time.Hour, now)
	s.presence = absent
	b := &Broker{order: []*session{s}}
	const late = 2 * minBeat
	for end := now.Add(2 * lastWords); b.look(s, now); {
		due := now.Add(sweepEvery)
		now = due.Add(late)
		b.excuse(due, now)
		if now.After(end) {
			t.Fatal("it is not missed")
		}
	}
}

// Of whose connection the system tells nothing, since it has just ended, is not taken for
// one of this process.
func TestConnectionOfWhichNothingIsTold(t *testing.T) {
	_, address := new(Broker).connection(&packet{about: map[string]string{descriptor: "7"}})
	if who, ok := peerOf(address); ok || who.UID == os.Getuid() {
		t.Errorf("it is %+v, %v", who, ok)
	}
}
