package main

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// A rawClient is a ZeroMQ socket, and whatever one likes to send on it.
type rawClient struct {
	dialect
	sock *zmq4.Socket
}

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

// A rawConfig says how a raw client's socket is. Usually libzmq holds little for it that
// it has sent, so that this has reached the broker, and it does not connect again.
type rawConfig struct {
	id      string // its routing id; "": libzmq's choice
	returns bool   // it connects again by itself, with all that libzmq still holds
	deaf    bool   // libzmq takes next to no answers for it
}

// connect connects a client that has not agreed to the extension.
func (cfg rawConfig) connect(endpoint string) (*rawClient, error) {
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
	err = errors.Join(s.SetLinger(0), s.SetReconnectIvl(again), s.SetSndhwm(holds), s.SetRcvhwm(answers),
		s.SetSndtimeo(tick), s.SetRcvtimeo(tick))
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
	return &rawClient{sock: s}, nil
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
func (c *rawClient) close() { c.sock.Close() }

// leave ends it, and says so if the protocol has a word for it.
func (c *rawClient) leave() {
	if c.extended && c.sock.SetLinger(time.Second) == nil {
		c.try(c.closing(0), 0)
	}
	c.close()
}

// try sends a message, or says that it could not be sent within a tick; with DONTWAIT, at
// once.
func (c *rawClient) try(m [][]byte, flags zmq4.Flag) (bool, error) {
	for i, f := range m {
		more := zmq4.Flag(0)
		if i < len(m)-1 {
			more = zmq4.SNDMORE
		}
		if _, err := c.sock.SendBytes(f, flags|more); err != nil {
			if i == 0 && err == zmq4.Errno(syscall.EAGAIN) {
				return false, nil
			}
			return false, err
		}
	}
	return true, nil
}

var errFull = errors.New("the broker takes nothing any more")

// send sends a message, as soon as it can be sent.
func (c *rawClient) send(m [][]byte) error {
	for end := time.Now().Add(errandTime); time.Now().Before(end); {
		if ok, err := c.try(m, 0); ok || err != nil {
			return err
		}
	}
	return errFull
}

// receive returns what has come, or nil if nothing has within a tick; with DONTWAIT, if
// nothing is there.
func (c *rawClient) receive(flags zmq4.Flag) (answer, error) {
	m, err := c.sock.RecvMessageBytes(flags)
	if err == zmq4.Errno(syscall.EAGAIN) {
		return nil, nil
	}
	return m, err
}

// next is the next answer.
func (c *rawClient) next() (answer, error) {
	for end := time.Now().Add(errandTime / 2); time.Now().Before(end); {
		a, err := c.receive(0)
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

// lost says that the connection is no more.
func (c *rawClient) lost() bool {
	events, err := c.sock.GetEvents()
	return err == nil && events&zmq4.POLLOUT == 0
}

// pour sends so many messages as fast as the broker takes them, without waiting for
// answers; got, if there is one, sees those that come. It ends early when the broker has
// dropped the client.
func (c *rawClient) pour(most int64, next func(i int64) [][]byte, got func(answer)) (sent int64, dropped bool, err error) {
	events := zmq4.POLLOUT
	if got != nil {
		events |= zmq4.POLLIN
	}
	something := zmq4.NewPoller()
	something.Add(c.sock, events)
	for moved := time.Now(); sent < most; {
		m, ok := next(sent), false
		for !ok {
			if ok, err = c.try(m, zmq4.DONTWAIT); err != nil {
				return sent, false, err
			}
			for got != nil {
				a, err := c.receive(zmq4.DONTWAIT)
				if err != nil {
					return sent, false, err
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
			something.Poll(time.Second)
		}
		sent++
		moved = time.Now()
	}
	return sent, false, nil
}
