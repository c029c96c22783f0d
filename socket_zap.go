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
// User-Id): its number, and after a blank the address.
type zapHandler struct {
	sock     *socket
	admit    func(address string) error
	stopping atomic.Bool
	done     chan struct{}
	admitted uint64 // is serve's own
}

func newZapHandler(ctx *zmqContext, admit func(address string) error) (*zapHandler, error) {
	s, err := newSocket(ctx, zmq4.ROUTER, func(*zmq4.Socket) error { return nil })
	if err != nil {
		return nil, err
	}
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
		// Behind an empty frame: version, request id, domain, address, and more.
		if !ok || len(p.more) < 4 {
			continue
		}
		version, request, address := p.more[0], p.more[1], string(p.more[3])
		if address == "" {
			address = localPeer // of whom the system tells nothing
		}
		d.admitted++
		status, text, name := "200", "", fmt.Sprintf("%d %s", d.admitted, address)
		if err := d.admit(address); err != nil {
			status, text, name = "400", err.Error(), ""
		}
		d.sock.send(p.id, nil, version, request, []byte(status), []byte(text), []byte(name), nil)
	}
}

// useZap has libzmq ask the ZAP handler about who connects to the socket: without a
// domain, it asks nobody.
func (s *socket) useZap() error { return s.zmq.SetZapDomain("zpipes") }

func (d *zapHandler) close() {
	d.stopping.Store(true)
	d.sock.wake()
	<-d.done
	d.sock.close()
}
