package main

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// A rawClient is a connection, and whatever one likes to send on it.
type rawClient struct {
	dialect
	wire
}

// A wire carries a raw client's messages, over ZeroMQ or through a near door.
type wire interface {
	// put takes a message to be sent, or says that it can't now.
	put(m [][]byte) (bool, error)
	// get returns what has come, or nil.
	get() (answer, error)
	// idle waits until put or, if it listens, get may have something to do, but not longer
	// than that.
	idle(most time.Duration, sends, listens bool)
	// lost says that the connection is no more.
	lost() bool
	// hangUp ends the connection without a word, or waits so long until what was put has left.
	hangUp(linger time.Duration)
}

// errGone is a wire's error when the broker has ended the connection, and all that it sent
// has been taken. ZeroMQ does not tell.
var errGone = errors.New("the broker has hung up")

// tick is how long a raw client waits for something to send or receive before it looks
// for something else to do.
const tick = time.Millisecond

// rarely is a heartbeat that never comes: the broker then looks whether the client is
// still there when it has been silent for its ClientTimeout.
const rarely = time.Hour

// rawContext is this process's, of all raw clients.
var rawContext = sync.OnceValues(func() (*zmq4.Context, error) {
	ctx, err := zmq4.NewContext()
	if err == nil {
		err = ctx.SetMaxSockets(8192)
	}
	return ctx, err
})

// A rawConfig says how a raw client's ZeroMQ socket is. Usually libzmq holds little for it
// that it has sent, so that this has reached the broker, and it does not connect again.
type rawConfig struct {
	id      string // its routing id; "": libzmq's choice
	returns bool   // it connects again by itself, with all that libzmq still holds
	deaf    bool   // libzmq takes next to no answers for it
}

// connect connects a client that has not agreed to the extension.
func (cfg rawConfig) connect(endpoint string) (*rawClient, error) {
	var w wire
	var err error
	if isNear(endpoint) {
		w, err = dialNear(endpoint)
	} else {
		w, err = cfg.dial(endpoint)
	}
	if err != nil {
		return nil, err
	}
	return &rawClient{wire: w}, nil
}

func (cfg rawConfig) dial(endpoint string) (wire, error) {
	ctx, err := rawContext()
	if err != nil {
		return nil, err
	}
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		return nil, err
	}
	holds, answers, again := 16, 1000, time.Duration(-1)
	if cfg.returns {
		holds, again = 1000, time.Millisecond
	}
	if cfg.deaf {
		answers = 1
	}
	err = errors.Join(s.SetLinger(0), s.SetReconnectIvl(again), s.SetSndhwm(holds), s.SetRcvhwm(answers))
	if err == nil && cfg.id != "" {
		err = s.SetIdentity(cfg.id)
	}
	if err == nil {
		err = s.Connect(endpoint)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return zmqWire{s}, nil
}

// connect connects a client that speaks that dialect.
func connect(endpoint string, d dialect) (*rawClient, error) {
	c, err := rawConfig{}.connect(endpoint)
	if err == nil && d.extended {
		c, err = c.agree(rarely)
	}
	return c, err
}

// agree makes the agreement on the extension, or closes the client.
func (c *rawClient) agree(heartbeat time.Duration) (*rawClient, error) {
	if _, err := c.ask(idPingOK, hello(heartbeat)); err != nil {
		c.close()
		return nil, err
	}
	c.extended = true
	return c, nil
}

// close ends the connection without a word.
func (c *rawClient) close() { c.hangUp(0) }

// leave ends it, and says so if the protocol has a word for it.
func (c *rawClient) leave() {
	if c.extended {
		c.put(c.closing(0))
	}
	c.hangUp(time.Second)
}

// A zmqWire is a ZeroMQ socket.
type zmqWire struct{ sock *zmq4.Socket }

func (w zmqWire) put(m [][]byte) (bool, error) {
	for i, f := range m {
		flags := zmq4.DONTWAIT
		if i < len(m)-1 {
			flags |= zmq4.SNDMORE
		}
		if _, err := w.sock.SendBytes(f, flags); err != nil {
			if i == 0 && err == zmq4.Errno(syscall.EAGAIN) {
				return false, nil
			}
			return false, err
		}
	}
	return true, nil
}

func (w zmqWire) get() (answer, error) {
	m, err := w.sock.RecvMessageBytes(zmq4.DONTWAIT)
	if err == zmq4.Errno(syscall.EAGAIN) {
		return nil, nil
	}
	return m, err
}

func (w zmqWire) idle(most time.Duration, sends, listens bool) {
	var events zmq4.State
	if sends {
		events |= zmq4.POLLOUT
	}
	if listens {
		events |= zmq4.POLLIN
	}
	something := zmq4.NewPoller()
	something.Add(w.sock, events)
	something.Poll(most)
}

func (w zmqWire) lost() bool {
	events, err := w.sock.GetEvents()
	return err == nil && events&zmq4.POLLOUT == 0
}

func (w zmqWire) hangUp(linger time.Duration) {
	w.sock.SetLinger(linger)
	w.sock.Close()
}

var errFull = errors.New("the broker takes nothing any more")

// send sends a message, as soon as it can be sent.
func (c *rawClient) send(m [][]byte) error {
	for end := time.Now().Add(errandTime); time.Now().Before(end); c.idle(tick, true, false) {
		if ok, err := c.put(m); ok || err != nil {
			return err
		}
	}
	return errFull
}

// receive returns what has come, or nil if nothing has within a tick.
func (c *rawClient) receive() (answer, error) {
	a, err := c.get()
	if a == nil && err == nil {
		c.idle(tick, false, true)
		a, err = c.get()
	}
	return a, err
}

// next is the next answer.
func (c *rawClient) next() (answer, error) {
	for end := time.Now().Add(errandTime / 2); time.Now().Before(end); {
		a, err := c.receive()
		if err != nil || a != nil && !a.unasked() {
			return a, err
		}
	}
	return nil, errors.New("no answer")
}

// ask sends a message whose answer is to be that one; 0: text.
func (c *rawClient) ask(id byte, m [][]byte) (answer, error) {
	if err := c.send(m); err != nil {
		return nil, err
	}
	a, err := c.next()
	if err == nil && a.id() != id {
		err = fmt.Errorf("%.80q was answered with %.80q", m, a)
	}
	return a, err
}

// pour sends so many messages as fast as the broker takes them, without waiting for
// answers; got, if there is one, sees those that come. It ends early when the broker has
// dropped the client.
func (c *rawClient) pour(most int64, next func(i int64) [][]byte, got func(answer)) (sent int64, dropped bool, err error) {
	over := func(err error) (int64, bool, error) {
		if err == errGone {
			return sent, true, nil
		}
		return sent, false, err
	}
	for moved := time.Now(); sent < most; {
		m, ok := next(sent), false
		for !ok {
			if ok, err = c.put(m); err != nil {
				return over(err)
			}
			for got != nil {
				a, err := c.get()
				if err != nil {
					return over(err)
				}
				if a == nil {
					break
				}
				if a.unasked() {
					continue
				}
				if got(a); a.ended() {
					return sent, true, nil
				}
			}
			if ok {
				break
			}
			if time.Since(moved) > errandTime/2 {
				return sent, false, errFull
			}
			// Not for a tick: a hundred who look a thousand times a second leave the
			// broker no time to take anything.
			c.idle(time.Second, true, got != nil)
		}
		sent++
		moved = time.Now()
	}
	return sent, false, nil
}
