//go:build cgo && !core

package zpipes

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// A socket is the only way to ZeroMQ, and where it is a client's, a transport. Its
// owner waits in Go's own poller, so that no OS thread is held.
type socket struct {
	zmq    *zmq4.Socket
	router bool   // messages begin with a routing id
	inlet  *inlet // nil: zmq4 receives
	// asks says by what User-Id the connection is known of which a message from there should
	// be, and what to find out about it if it is not: about is nil if it is.
	asks   func(id []byte) (known string, asked []string)
	keeps  int // how many frames of a message, beside its first
	next   packet
	watch  *handshakeWatch // nil: a handshake is nothing that fails, or it is over
	conn   netSocket       // of a client, over tcp, when that is over
	ready  bool            // next holds what look received
	unsure bool            // the last wait ended neither with a message nor by wake

	waiter
	parking
}

const maxSockets = 8192

// tune makes libc keep the memory of large messages: it maps and unmaps whatever
// is larger than anything that was freed before.
var tune = sync.OnceFunc(func() {
	const large, endpoint = 4 << 20, "inproc://zpipes-tune"
	ctx, err := zmq4.NewContext()
	if err != nil {
		return
	}
	defer ctx.Term()
	to, err := ctx.NewSocket(zmq4.PAIR)
	if err != nil {
		return
	}
	defer to.Close()
	from, err := ctx.NewSocket(zmq4.PAIR)
	if err != nil {
		return
	}
	defer from.Close()
	if to.Bind(endpoint) == nil && from.Connect(endpoint) == nil {
		from.SendBytes(make([]byte, large), zmq4.DONTWAIT)
		to.RecvBytes(zmq4.DONTWAIT)
	}
})

// descriptors is how many a context takes for its first socket and that one's first
// connection. Where it finds only some of them, libzmq aborts the process.
const descriptors = 8

// A zmqContext is where sockets are made; over inproc they reach those in the same one.
type zmqContext struct {
	zmq    *zmq4.Context
	shared bool // it is the host program's, who ends it
}

// newContext makes a context, or takes the host program's.
func newContext(given *ZeroMQContext) (*zmqContext, error) {
	if given != nil {
		return &zmqContext{given, true}, nil
	}
	if err := checkDescriptors(descriptors); err != nil {
		return nil, err
	}
	tune()
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, err
	}
	if err := ctx.SetMaxSockets(maxSockets); err != nil {
		ctx.Term()
		return nil, err
	}
	return &zmqContext{zmq: ctx}, nil
}

// close ends a context of our own. It waits until all sockets in it are closed.
func (c *zmqContext) close() {
	if !c.shared {
		c.zmq.Term()
	}
}

// haveZeroMQ says that the program has libzmq.
const haveZeroMQ = true

// errNoZeroMQ is for those that have not.
var errNoZeroMQ error

// A ZeroMQContext is zmq4.Context, where the program has libzmq.
type ZeroMQContext = zmq4.Context

// zmqVersion is libzmq's, as the running program has it.
func zmqVersion() string {
	major, minor, patch := zmq4.Version()
	return fmt.Sprintf("%d.%d.%d", major, minor, patch)
}

// retryEINTR calls f again where a signal interrupted it. zmq4 does so by itself,
// unless the context is a user's who has told it not to. None of our calls waits,
// so that none begins a timeout anew.
func retryEINTR(f func() error) error {
	for {
		if err := f(); err != zmq4.Errno(syscall.EINTR) {
			return err
		}
	}
}

// newRouter makes a broker's socket, which serves all its endpoints. Messages
// above maxMessage bytes end the connection that they come from.
func newRouter(ctx *zmqContext, maxMessage int) (*socket, error) {
	return newSocket(ctx, zmq4.ROUTER, func(z *zmq4.Socket) error {
		return errors.Join(
			// Without it messages to whom nobody knows, or whose queue is full,
			// are dropped in silence.
			z.SetRouterMandatory(1),
			z.SetMaxmsgsize(int64(maxMessage)+messageOverhead),
			// What libzmq queues for each client is beyond our accounting, so
			// it is little.
			z.SetRcvhwm(16),
			// Who connects and says nothing holds a descriptor for so long.
			z.SetHandshakeIvl(5*time.Second),
			z.SetSndhwm(128),
		)
	})
}

// newDealer makes a client's socket. It is good for one connection: when that
// is lost, the socket is of no more use, so that what it still holds cannot
// reach a broker that comes after.
// Over tcp it shows a badge, if there is one.
func newDealer(ctx *zmqContext, endpoint string, maxMessage int, b *badge) (*socket, error) {
	s, err := newSocket(ctx, zmq4.DEALER, func(z *zmq4.Socket) error {
		return errors.Join(
			z.SetReconnectIvl(-1),
			z.SetMaxmsgsize(int64(maxMessage)+messageOverhead),
			// Windows bound what is in flight. Without a mark, a send can only
			// fail because the connection is lost.
			z.SetSndhwm(0),
			z.SetRcvhwm(0),
			useBadge(z, b),
		)
	})
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(endpoint, "tcp:") {
		if s.watch, err = newHandshakeWatch(ctx, s.zmq); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := retryEINTR(func() error { return s.zmq.Connect(endpoint) }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func newSocket(ctx *zmqContext, kind zmq4.Type, configure func(*zmq4.Socket) error) (*socket, error) {
	if err := checkDescriptors(descriptors); err != nil {
		return nil, err
	}
	z, err := openSocket(ctx.zmq, kind)
	if err != nil {
		return nil, err
	}
	s := &socket{zmq: z, router: kind == zmq4.ROUTER, inlet: newInlet(z), keeps: maxFrames}
	if err := errors.Join(z.SetLinger(0), z.SetIpv6(true), configure(z), s.waiter.init(z, s.look)); err != nil {
		z.Close()
		return nil, err
	}
	s.parking.deadline = s.setDeadline
	return s, nil
}

// bind serves an endpoint; the error is errTaken where somebody else does.
func (s *socket) bind(endpoint string) error {
	err := retryEINTR(func() error { return s.zmq.Bind(endpoint) })
	if err == zmq4.Errno(syscall.EADDRINUSE) {
		return errTaken
	}
	return err
}

// bound is the endpoint that was bound last, with the number that a wildcard port has got.
func (s *socket) bound() (endpoint string, err error) {
	endpoint, err = s.zmq.GetLastEndpoint()
	return strings.TrimRight(endpoint, "\x00"), err
}

func (s *socket) unbind(endpoint string) {
	retryEINTR(func() error { return s.zmq.Unbind(endpoint) })
}

// linger has close wait so long for messages to leave.
func (s *socket) linger(d time.Duration) { s.zmq.SetLinger(d) }

// close closes the socket. Messages that have not left are dropped.
func (s *socket) close() {
	s.watch.close()
	s.waiter.close()
	s.zmq.Close()
}

// recv returns the next message if there is one.
func (s *socket) recv() (packet, bool) {
	if s.inlet != nil {
		return s.inlet.recv(s)
	}
	var p packet
	var ok bool
	if s.router {
		if p.id, ok = s.recvFrame(); !ok {
			return p, false
		}
	}
	if known, asked := s.asks(p.id); len(asked) > 0 {
		p.frame, p.about, ok = s.recvFrameFrom(asked)
		if known != "" && p.about[userID] == known {
			p.about = nil
		}
	} else {
		p.frame, ok = s.recvFrame()
	}
	if !ok {
		return p, false
	}
	// A broker never sends more than one frame, and to ask costs allocations.
	for s.router && s.more() {
		f, ok := s.recvFrame()
		if !ok {
			break
		}
		if len(p.more) < s.keeps {
			p.more = append(p.more, f)
		}
	}
	return p, true
}

func (s *socket) more() bool {
	more, err := s.zmq.GetRcvmore()
	return err == nil && more
}

func (s *socket) recvFrame() ([]byte, bool) {
	for {
		b, err := s.zmq.RecvBytes(zmq4.DONTWAIT)
		if err == nil {
			return b, true
		}
		if err != zmq4.Errno(syscall.EINTR) {
			return nil, false
		}
	}
}

func (s *socket) recvFrameFrom(asked []string) ([]byte, map[string]string, bool) {
	for {
		b, about, err := s.zmq.RecvBytesWithMetadata(zmq4.DONTWAIT, asked...)
		if err == nil {
			return b, about, true
		}
		if err != zmq4.Errno(syscall.EINTR) {
			return nil, nil, false
		}
	}
}

// send hands frames over as one message. It returns errFull where libzmq holds
// as much for that peer as it may, and errGone where there is no such peer.
func (s *socket) send(frames ...[]byte) error {
	for i, f := range frames {
		flags := zmq4.DONTWAIT
		if i < len(frames)-1 {
			flags |= zmq4.SNDMORE
		}
		for {
			_, err := s.zmq.SendBytes(f, flags)
			if err == nil {
				break
			}
			switch err {
			case zmq4.Errno(syscall.EINTR):
				continue
			case zmq4.Errno(syscall.EAGAIN):
				if s.router {
					return errFull
				}
			}
			return errGone
		}
	}
	return nil
}

// stalled is what ZeroMQ does not say.
func (s *socket) stalled() bool { return false }

// connected reports whether a DEALER still has its connection, as far as that
// may have changed with the last wait.
func (s *socket) connected() bool {
	if !s.unsure {
		return true
	}
	events, err := s.zmq.GetEvents()
	return err == zmq4.Errno(syscall.EINTR) || err == nil && events&zmq4.POLLOUT != 0
}

// wait returns the next message as soon as there is one; and without one when
// wake was called, or the time is there, and now and then for no reason.
func (s *socket) wait(until time.Time) (packet, bool) {
	if !s.park(until) {
		s.unsure = false
		return s.recv()
	}
	s.waiter.wait()
	s.unsure = !s.unpark() && !s.ready
	p, ok := s.next, s.ready
	s.next, s.ready = packet{}, false
	return p, ok
}

// look receives a message if there is one. That also tells libzmq to signal what
// comes next.
func (s *socket) look() bool {
	if !s.ready {
		s.next, s.ready = s.recv()
	}
	return s.ready
}
