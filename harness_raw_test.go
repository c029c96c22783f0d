//go:build cgo && linux && !core

package zpipes

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
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
					ctx, err := newContext(nil)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { wireTerm(ctx.zmq) })
					cfg.Context = ctx.zmq
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
