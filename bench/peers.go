package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/pebbe/zmq4"
)

// proxied is ZeroMQ's own way to put a process between writers and readers: a
// PUSH socket for each writer, a PULL socket for each reader, and zmq.Proxy. A
// write is a message.
//
// One proxy deals messages out to all its readers, whoever wrote them. So a
// ping-pong has a proxy for each direction.
type proxied struct {
	Task
	ctx *zmq4.Context
}

func (p *proxied) endpoint(side string, i int) string {
	if p.Job != "ping-pong" {
		i = 0
	}
	return "ipc://" + filepath.Join(p.Dir, fmt.Sprint(side, i))
}

// queued is how many messages a socket may queue: libzmq's default, but not more
// than are 16 MiB together. More do not make it faster.
func (p *proxied) queued() int { return max(4, min(1000, 16<<20/p.Size)) }

func (p *proxied) socket(kind zmq4.Type) (*zmq4.Socket, error) {
	if p.ctx == nil {
		ctx, err := zmq4.NewContext()
		if err != nil {
			return nil, err
		}
		p.ctx = ctx
	}
	s, err := p.ctx.NewSocket(kind)
	if err != nil {
		return nil, err
	}
	return s, errors.Join(s.SetSndhwm(p.queued()), s.SetRcvhwm(p.queued()))
}

func (p *proxied) bound(kind zmq4.Type, endpoint string) (*zmq4.Socket, error) {
	s, err := p.socket(kind)
	if err != nil {
		return nil, err
	}
	return s, s.Bind(endpoint)
}

func (p *proxied) connected(kind zmq4.Type, endpoint string) (*zmq4.Socket, error) {
	s, err := p.socket(kind)
	if err != nil {
		return nil, err
	}
	return s, s.Connect(endpoint)
}

func (p *proxied) serve() (string, error) {
	proxies := 1
	if p.Job == "ping-pong" {
		proxies = p.Streams
	}
	for i := range proxies {
		front, err := p.bound(zmq4.PULL, p.endpoint("front", i))
		if err != nil {
			return "", err
		}
		back, err := p.bound(zmq4.PUSH, p.endpoint("back", i))
		if err != nil {
			return "", err
		}
		go zmq4.Proxy(front, back, nil)
	}
	return "", nil
}

func (p *proxied) reader(i int) (source, error) {
	s, err := p.connected(zmq4.PULL, p.endpoint("back", i))
	return messages{s}, err
}

func (p *proxied) writer(i int) (io.Writer, error) {
	s, err := p.connected(zmq4.PUSH, p.endpoint("front", i))
	return messages{s}, err
}

// messages reads and writes messages of one frame.
type messages struct{ socket *zmq4.Socket }

func (m messages) next() ([]byte, error)       { return m.socket.RecvBytes(0) }
func (m messages) Write(b []byte) (int, error) { return m.socket.SendBytes(b, 0) }

// bare is ZeroMQ without anything in the middle: what a DEALER sends, a ROUTER gets,
// and sends its own stream back to it.
type bare struct {
	proxied
	dealer *zmq4.Socket
	router *zmq4.Socket
	id     []byte // of the dealer, at the router
}

func (*bare) serve() (string, error) { return "", nil }

func (b *bare) reader(i int) (_ source, err error) {
	if i == 1 {
		b.dealer, err = b.connected(zmq4.DEALER, b.endpoint("bare", 0))
		return messages{b.dealer}, err
	}
	b.router, err = b.bound(zmq4.ROUTER, b.endpoint("bare", 0))
	return routed{b}, err
}

func (b *bare) writer(i int) (io.Writer, error) {
	if i == 1 {
		return routed{b}, nil
	}
	return messages{b.dealer}, nil
}

// routed are the router's messages.
type routed struct{ *bare }

func (r routed) next() (_ []byte, err error) {
	if r.id, err = r.router.RecvBytes(0); err != nil {
		return nil, err
	}
	return r.router.RecvBytes(0)
}

func (r routed) Write(b []byte) (int, error) {
	if _, err := r.router.SendBytes(r.id, zmq4.SNDMORE); err != nil {
		return 0, err
	}
	return r.router.SendBytes(b, 0)
}

// nats is a NATS server in the middle: in one process connected to within the
// process, otherwise over loopback TCP. A write is a message.
//
// NATS drops what a subscriber does not take in time. So the reader tells the
// writer how much it has got, and the writer keeps within a window.
type nats struct {
	Task
	server *server.Server
}

// natsWindow is large enough to never be what NATS waits for.
const natsWindow = 4 << 20

func (n *nats) serve() (string, error) { return n.start(new(server.Options)) }

func (n *nats) start(o *server.Options) (string, error) {
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	o.WriteDeadline = callTime // rather than lose what a machine that is busy otherwise delays
	s, err := server.NewServer(o)
	if err != nil {
		return "", err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return "", errors.New("the NATS server does not start")
	}
	n.server = s
	return s.ClientURL(), nil
}

func (n *nats) connect() (*natsgo.Conn, error) {
	if n.server != nil {
		return natsgo.Connect("", natsgo.InProcessServer(n.server), natsgo.Timeout(patience))
	}
	return natsgo.Connect(n.Address, natsgo.Timeout(patience))
}

func (n *nats) subject(i int) string { return fmt.Sprint("stream.", i) }

// ack is where the i-th reader says how much it has got.
func (n *nats) ack(i int) string { return n.subject(i) + ".ack" }

func (n *nats) reader(i int) (source, error) { return n.subscribe(n.subject(i), n.ack(i)) }

func (n *nats) subscribe(subject, ack string) (source, error) {
	conn, err := n.connect()
	if err != nil {
		return nil, err
	}
	s := &natsSource{conn: conn, ack: ack}
	s.arrived = make(chan *natsgo.Msg, natsWindow/n.Size+1)
	if _, err := conn.ChanSubscribe(subject, s.arrived); err != nil {
		return nil, err
	}
	return s, conn.Flush()
}

type natsSource struct {
	conn    *natsgo.Conn
	arrived chan *natsgo.Msg
	ack     string
	got     uint64 // bytes
	told    uint64 // of them, the writer knows
}

func (s *natsSource) next() ([]byte, error) {
	b := (<-s.arrived).Data
	if s.got += uint64(len(b)); s.got-s.told >= natsWindow/4 {
		s.told = s.got
		return b, s.conn.Publish(s.ack, binary.LittleEndian.AppendUint64(nil, s.got))
	}
	return b, nil
}

func (n *nats) writer(i int) (io.Writer, error) { return n.publisher(n.subject(i), n.ack(i)) }

// publisher keeps within a window of the slowest of those that tell what they have got.
func (n *nats) publisher(subject string, acks ...string) (io.Writer, error) {
	conn, err := n.connect()
	if err != nil {
		return nil, err
	}
	w := &natsWriter{conn: conn, subject: subject, got: make([]atomic.Uint64, len(acks)), acked: make(chan struct{}, 1)}
	for i, ack := range acks {
		_, err = conn.Subscribe(ack, func(m *natsgo.Msg) {
			w.got[i].Store(binary.LittleEndian.Uint64(m.Data))
			w.wake()
		})
		if err != nil {
			return nil, err
		}
	}
	return w, conn.Flush()
}

type natsWriter struct {
	conn    *natsgo.Conn
	subject string
	sent    uint64          // bytes
	got     []atomic.Uint64 // of them, each reader has
	acked   chan struct{}   // got has changed
}

// least is how many bytes all readers have.
func (w *natsWriter) least() uint64 {
	n := w.got[0].Load()
	for i := range w.got {
		n = min(n, w.got[i].Load())
	}
	return n
}

func (w *natsWriter) wake() {
	select {
	case w.acked <- struct{}{}:
	default:
	}
}

func (w *natsWriter) Write(b []byte) (int, error) { return w.publish(b, natsWindow) }

func (w *natsWriter) publish(b []byte, window uint64) (int, error) {
	w.sent += uint64(len(b))
	for w.sent-w.least() > window {
		<-w.acked
	}
	return len(b), w.conn.Publish(w.subject, b)
}
