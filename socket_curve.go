//go:build cgo && !core

package zpipes

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pebbe/zmq4"
)

// checkCurve is why there is no encryption, if there is none.
func checkCurve() error {
	if zmq4.HasCurve() {
		return nil
	}
	return fmt.Errorf("%w: this program's libzmq %s was built without CURVE, which encrypts tcp; "+
		"install one that has it, such as Debian's libzmq3-dev", errors.ErrUnsupported, zmqVersion())
}

// bindKeyed binds a place of libzmq's choice where clients need to know that broker key,
// and the ZAP handler is asked about theirs.
func (s *socket) bindKeyed(door string, broker secret) (endpoint string, err error) {
	endpoint = "tcp://127.0.0.1:*"
	if runtime.GOOS == "linux" {
		endpoint = "ipc://@zpipes-" + rand.Text()
	}
	err = errors.Join(
		s.useZap(door),
		s.zmq.SetCurveServer(1),
		s.zmq.SetCurveSecretkey(encodeZ85(broker.pair(brokerRole).private)),
	)
	if err == nil {
		err = s.bind(endpoint)
	}
	if err != nil {
		return "", err
	}
	return s.bound()
}

// useBadge has a client's socket connect encrypted.
func useBadge(z *zmq4.Socket, b *badge) error {
	if b == nil {
		return nil
	}
	return errors.Join(
		z.SetCurveServerkey(encodeZ85(b.broker)),
		z.SetCurvePublickey(encodeZ85(b.client.public)),
		z.SetCurveSecretkey(encodeZ85(b.client.private)),
	)
}

// A handshakeWatch hears from libzmq what connection a client's socket has, and how its
// handshake ends.
type handshakeWatch struct {
	of    *zmq4.Socket
	sock  *socket
	ended atomic.Bool
	done  chan struct{} // closed when nobody listens any more; nil: nobody does yet
	conn  netSocket     // known when done is closed
}

var watches atomic.Uint64

// newHandshakeWatch begins to watch a socket, which is to be connected then.
func newHandshakeWatch(ctx *zmqContext, of *zmq4.Socket) (*handshakeWatch, error) {
	at := "inproc://zpipes-watch-" + strconv.FormatUint(watches.Add(1), 10)
	const events = zmq4.EVENT_CONNECTED | zmq4.EVENT_HANDSHAKE_SUCCEEDED | zmq4.EVENT_HANDSHAKE_FAILED_AUTH |
		zmq4.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq4.EVENT_HANDSHAKE_FAILED_PROTOCOL
	if err := retryEINTR(func() error { return of.Monitor(at, events) }); err != nil {
		return nil, err
	}
	s, err := newSocket(ctx, zmq4.PAIR, func(*zmq4.Socket) error { return nil })
	if err == nil {
		s.asks = func([]byte) (string, []string) { return "", nil }
		if err = retryEINTR(func() error { return s.zmq.Connect(at) }); err != nil {
			s.close()
		}
	}
	if err != nil {
		of.Monitor("", 0)
		return nil, err
	}
	return &handshakeWatch{of: of, sock: s}, nil
}

// watchHandshake calls failed, from another goroutine, if the handshake of the socket's
// connection fails; if it has a connection to elsewhere.
func (s *socket) watchHandshake(failed func(handshakeFailure)) {
	if s.watch != nil {
		s.watch.done = make(chan struct{})
		go s.watch.listen(failed)
	}
}

func (w *handshakeWatch) listen(failed func(handshakeFailure)) {
	defer close(w.done)
	for !w.ended.Load() { // what has woken it may have come with an event
		p, _ := w.sock.wait(time.Time{})
		if len(p.frame) != eventBytes {
			continue // none, or the event's second one, an endpoint
		}
		switch event := zmq4.Event(binary.NativeEndian.Uint16(p.frame)); event {
		case zmq4.EVENT_CONNECTED:
			w.conn = connectedSocket(int(binary.NativeEndian.Uint32(p.frame[2:])))
			continue
		case zmq4.EVENT_HANDSHAKE_FAILED_AUTH:
			failed(failedUnknown)
		case zmq4.EVENT_HANDSHAKE_FAILED_PROTOCOL:
			failed(failedProtocol)
		case zmq4.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
			failed(failedSilently)
		}
		return
	}
}

// shaken says that the handshake is over, so that nobody need watch.
func (s *socket) shaken() {
	if s.watch != nil {
		s.watch.close()
		s.conn, s.watch = s.watch.conn, nil
	}
}

// lost says that the connection has ended; what came before that may not have been received yet.
func (s *socket) lost() bool { return s.conn.presence() == absent }

// quiet is for how long nothing at all has come over tcp, not even a part of a message.
func (s *socket) quiet() time.Duration { return s.conn.quiet() }

// eventBytes is the size of the first frame of a monitor's event: its number and a value.
const eventBytes = 6

// close ends the watch, which must not outlive its socket. It is for the socket's owner.
func (w *handshakeWatch) close() {
	if w == nil {
		return
	}
	if w.done != nil {
		w.ended.Store(true)
		w.sock.wake()
		<-w.done
	}
	w.of.Monitor("", 0)
	w.sock.close()
}
