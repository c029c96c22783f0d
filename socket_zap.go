//go:build cgo && !core

package zpipes

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pebbe/zmq4"
)

// A zapHandler is asked by libzmq about each connection to a context's sockets, over ipc
// and tcp, before it receives anything from there (ZAP, ZeroMQ's RFC 27): those whom it
// turns away can neither stay nor send anything that would take memory. Each of the
// others gets a name, which libzmq tells with whatever comes over that connection (as its
// User-Id): its number, and after a blank the address or the key.
type zapHandler struct {
	sock     *socket
	admit    func(zapRequest) (peer string, err error)
	stopping atomic.Bool
	done     chan struct{}
	admitted uint64 // is serve's own
}

// zapFrames is how many there are of a request behind an empty one: version, request id,
// domain, address, identity, mechanism, credentials.
const zapFrames = 7

func newZapHandler(ctx *zmqContext, admit func(zapRequest) (string, error)) (*zapHandler, error) {
	s, err := newSocket(ctx, zmq4.ROUTER, func(*zmq4.Socket) error { return nil })
	if err != nil {
		return nil, err
	}
	s.keeps = zapFrames
	s.asks = func([]byte) (string, []string) { return "", nil } // nobody but libzmq itself is there
	if err := s.bind("inproc://zeromq.zap.01"); err != nil {
		s.close()
		return nil, err
	}
	d := &zapHandler{sock: s, admit: admit, done: make(chan struct{})}
	go d.serve()
	return d, nil
}

func (d *zapHandler) serve() {
	defer close(d.done)
	for !d.stopping.Load() {
		p, ok := d.sock.wait(time.Time{})
		if !ok || len(p.more) < zapFrames-1 {
			continue
		}
		version, request := p.more[0], p.more[1]
		q := zapRequest{door: string(p.more[2]), address: string(p.more[3]), mechanism: string(p.more[5])}
		if len(p.more) == zapFrames {
			q.credentials = p.more[6]
		}
		if q.address == "" {
			q.address = localPeer // of whom the system tells nothing
		}
		d.admitted++
		peer, err := d.admit(q)
		status, text, name := "200", "", fmt.Sprintf("%d %s", d.admitted, peer)
		if err != nil {
			status, text, name = "400", err.Error(), ""
		}
		d.sock.send(p.id, nil, version, request, []byte(status), []byte(text), []byte(name), nil)
	}
}

// A zapRequest is what libzmq asks.
type zapRequest struct {
	door               string // which of the socket's the client has come by (the domain)
	address, mechanism string
	credentials        []byte // its public key, or nothing
}

// useZap has libzmq ask the ZAP handler about who connects to what the socket binds from
// now on: without a domain, it asks nobody.
func (s *socket) useZap(door string) error { return s.zmq.SetZapDomain(door) }

func (d *zapHandler) close() {
	d.stopping.Store(true)
	d.sock.wake()
	<-d.done
	d.sock.close()
}
