//go:build cgo && !core

package zpipes

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// wireRouter makes the socket of one who is no broker, but is found like one.
func wireRouter(t *testing.T) (router *zmq4.Socket, endpoint string) {
	t.Helper()
	ctx := wireContext(t)
	t.Cleanup(func() { wireTerm(ctx) })
	router, err := ctx.NewSocket(zmq4.ROUTER)
	if err != nil {
		t.Fatal(err)
	}
	router.SetLinger(0)
	router.SetSndhwm(0)
	endpoint = defaultEndpoint("liar-" + uniqueName(t))
	if err := retryEINTR(func() error { return router.Bind(endpoint) }); err != nil {
		t.Fatal(err)
	}
	return router, endpoint
}

// keepListening calls listen again and again, until the test ends.
func keepListening(t *testing.T, router *zmq4.Socket, listen func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				listen()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		router.Close()
	})
}

// wireSocket is a bare DEALER for a test, with a routing id of its own choice
// unless that is empty.
func wireSocket(t testing.TB, endpoint, id string) *zmq4.Socket {
	ctx := wireContext(t)
	t.Cleanup(func() { wireTerm(ctx) })
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.SetLinger(0)
	s.SetRcvhwm(1)
	if id != "" {
		s.SetIdentity(id)
	}
	if err := retryEINTR(func() error { return s.Connect(endpoint) }); err != nil {
		t.Fatal(err)
	}
	return s
}

// wireGreet connects under a routing id and agrees on the extension. While the
// one who had that id before is not quite gone, libzmq gives us no answer.
func wireGreet(t *testing.T, endpoint, id string) (s *zmq4.Socket) {
	hi := message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, number: 60_000}}
	eventually(t, "PING is answered", func() bool {
		s = wireSocket(t, endpoint, id)
		wireSend(s, hi.append(nil))
		_, err := wireReceive(s, 100*time.Millisecond)
		if err != nil {
			s.Close()
		}
		return err == nil
	})
	return s
}

// wireContext returns a context whose calls give up at an interrupt: zmq4 would start them again with their full
// timeout, and the signals by which Go preempts its goroutines can make that last for ever.
func wireContext(t testing.TB) *zmq4.Context {
	t.Helper()
	context, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	context.SetRetryAfterEINTR(false)
	return context
}

// wireTerm ends a context whose sockets are all closed. An interrupted Term can't be called again, so this call
// restarts by itself.
func wireTerm(context *zmq4.Context) {
	context.SetRetryAfterEINTR(true)
	context.Term()
}

// wireSend sends the frames as one message.
func wireSend(socket *zmq4.Socket, frames ...[]byte) error {
	for i := 0; i < len(frames); {
		flags := zmq4.DONTWAIT
		if i < len(frames)-1 {
			flags |= zmq4.SNDMORE
		}
		switch _, err := socket.SendBytes(frames[i], flags); err {
		case nil:
			i++
		case zmq4.Errno(syscall.EINTR):
		default:
			return err
		}
	}
	return nil
}

// wireReceive returns the next message, within a time; errWireSilence when there is none.
func wireReceive(socket *zmq4.Socket, within time.Duration) (frames [][]byte, err error) {
	deadline := time.Now().Add(within)
	poller := zmq4.NewPoller()
	poller.Add(socket, zmq4.POLLIN)
	for {
		frame, err := socket.RecvBytes(zmq4.DONTWAIT)
		switch err {
		case nil:
			frames = append(frames, frame)
			if more, err := socket.GetRcvmore(); err != nil || !more {
				return frames, err
			}
		case zmq4.Errno(syscall.EINTR):
		case zmq4.Errno(syscall.EAGAIN):
			left := time.Until(deadline)
			if left <= 0 {
				return nil, errWireSilence
			}
			// A poll is rounded down to milliseconds; an interrupted one is no matter, since the socket is
			// looked at again in any case.
			poller.Poll(max(left, time.Millisecond))
		default:
			return nil, err
		}
	}
}

// scriptEndpoint returns the endpoint at which a broker is played scripts; actors are strangers to its process.
func scriptEndpoint(t testing.TB, broker *Broker) string {
	t.Helper()
	for _, endpoint := range broker.Endpoints() {
		if strings.HasPrefix(endpoint, "ipc://") {
			return endpoint
		}
	}
	t.Fatalf("no ipc endpoint among %q", broker.Endpoints())
	return ""
}

// scriptSockets connects sockets of ZeroMQ's to an endpoint. They are the test's.
func scriptSockets(t *testing.T, endpoint string) func() (scriptConn, error) {
	context := wireContext(t)
	t.Cleanup(func() { wireTerm(context) })
	return func() (scriptConn, error) {
		s, err := context.NewSocket(zmq4.DEALER)
		if err != nil {
			return nil, err
		}
		return scriptSocket{s}, retryEINTR(func() error { return s.Connect(endpoint) })
	}
}

type scriptSocket struct{ *zmq4.Socket }

func (s scriptSocket) say(frames [][]byte) error { return wireSend(s.Socket, frames...) }

func (s scriptSocket) hear(within time.Duration) ([][]byte, error) {
	return wireReceive(s.Socket, within)
}

// hangUp lets what was said before reach the broker, also where a busy machine has not got
// round to connecting.
func (s scriptSocket) hangUp() {
	s.SetLinger(soon)
	s.Close()
}
