package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// A bare client is a ZeroMQ socket and whatever it likes to send; see docs/PROTOCOL.md.
type bare struct {
	sock     *zmq4.Socket
	extended bool // it has agreed to the extension
}

// Messages of the protocol.
const (
	input        = 1
	inputOK      = 2
	inputFailed  = 3
	output       = 4
	outputOK     = 5
	outputFailed = 6
	read         = 7
	readOK       = 8
	readEnd      = 9
	readFailed   = 11
	write        = 12
	writeOK      = 13
	writeFailed  = 15
	closeEnd     = 16
	closeOK      = 17
	ping         = 19
	pingOK       = 20
	invalid      = 21
)

// Flags of READ, modes of INPUT, and a cause.
const (
	readAny, readStream              = 1, 2
	modeBytes, modeQueue, modeDelete = 0, 1, 2
	codeBadName                      = 7
)

var background = context.Background()

// tick is how long a bare client waits for something to send or receive before it
// looks for something else to do.
const tick = time.Millisecond

// bare connects a bare client. What libzmq holds for it is little, so that what it has
// sent has reached the broker.
func (h *host) bare(endpoint string) (*bare, error) { return h.connect(endpoint, 1000) }

// connect is bare, with how many answers libzmq holds for it.
func (h *host) connect(endpoint string, answers int) (*bare, error) {
	ctx, err := h.context()
	if err != nil {
		return nil, err
	}
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		return nil, err
	}
	err = errors.Join(s.SetLinger(0), s.SetReconnectIvl(-1), s.SetSndhwm(16), s.SetRcvhwm(answers),
		s.SetSndtimeo(tick), s.SetRcvtimeo(tick), s.Connect(endpoint))
	if err != nil {
		s.Close()
		return nil, err
	}
	return &bare{sock: s}, nil
}

// extend connects one that has agreed to the extension, and to a heartbeat at that
// interval.
func (h *host) extend(endpoint string, beat time.Duration) (*bare, error) {
	c, err := h.bare(endpoint)
	if err != nil {
		return nil, err
	}
	return c.agree(beat)
}

// agree makes the agreement, or closes the client.
func (c *bare) agree(beat time.Duration) (*bare, error) {
	c.extended = true
	hello := append([]byte{1}, make([]byte, 8)...)
	hello = binary.BigEndian.AppendUint32(hello, uint32(beat.Milliseconds()))
	if _, err := c.ask(pingOK, c.message(ping, 0, nil, hello)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// extendAny is extend with a heartbeat so rare that it never comes; the broker then looks
// whether the client is still there when it has been silent for clientTimeout.
func (h *host) extendAny(endpoint string) (*bare, error) { return h.extend(endpoint, time.Hour) }

// close ends the connection without a word.
func (c *bare) close() { c.sock.Close() }

// leave ends it, and says so if the protocol has a word for it.
func (c *bare) leave() {
	if c.extended && c.sock.SetLinger(time.Second) == nil {
		c.try(c.closing(0))
	}
	c.close()
}

// message makes one; extras are what the extension has in its block.
func (c *bare) message(id byte, channel uint32, fields, extras []byte) [][]byte {
	m := append([]byte{0xaa, 0xa0, id}, fields...)
	if c.extended {
		m = binary.BigEndian.AppendUint32(append(m, "ZP"...), channel)
		m = append(m, extras...)
	}
	return [][]byte{m}
}

func (c *bare) input(channel uint32, name string, mode byte) [][]byte {
	return c.message(input, channel, append([]byte{byte(len(name))}, name...), []byte{mode})
}

func (c *bare) output(channel uint32, name string) [][]byte {
	return c.message(output, channel, append([]byte{byte(len(name))}, name...), nil)
}

func (c *bare) read(channel, size uint32, flags byte) [][]byte {
	return c.message(read, channel, append(number(size), number(0)...), append([]byte{flags}, number(0)...))
}

func (c *bare) write(channel uint32, chunk []byte) [][]byte {
	fields := append(number(uint32(len(chunk))), chunk...)
	return c.message(write, channel, append(fields, number(0)...), nil)
}

func (c *bare) closing(channel uint32) [][]byte {
	return c.message(closeEnd, channel, nil, make([]byte, 6))
}

// text is a command of the text interface.
func text(frames ...string) (m [][]byte) {
	for _, f := range frames {
		m = append(m, []byte(f))
	}
	return m
}

// An answer is what the broker sent.
type answer [][]byte

// id is what message it is; 0: it is text.
func (a answer) id() byte {
	if len(a) == 1 && len(a[0]) >= 3 && a[0][0] == 0xaa && a[0][1] == 0xa0 {
		return a[0][2]
	}
	return 0
}

// chunk is what READ_OK has brought.
func (a answer) chunk() []byte {
	n := binary.BigEndian.Uint32(a[0][3:])
	return a[0][7 : 7+n]
}

// block is the extension's part of a message: a channel and extras.
func (a answer) block() (channel uint32, extras []byte) {
	at := 3
	switch a.id() {
	case readOK:
		at += 4 + len(a.chunk())
	case inputFailed, outputFailed, readFailed, writeFailed:
		at += 1 + int(a[0][3])
	}
	if len(a[0]) < at+6 {
		return 0, nil
	}
	return binary.BigEndian.Uint32(a[0][at+2:]), a[0][at+6:]
}

// ended says that the broker has dropped this client, and will serve it no more.
func (a answer) ended() bool {
	if a.id() == invalid {
		channel, _ := a.block()
		return channel == 0
	}
	return len(a) == 2 && string(a[1]) == "too much was sent without waiting for answers"
}

// try sends a message, or says that it could not be sent within a tick.
func (c *bare) try(m [][]byte) (bool, error) {
	for i, f := range m {
		flags := zmq4.Flag(0)
		if i < len(m)-1 {
			flags = zmq4.SNDMORE
		}
		if _, err := c.sock.SendBytes(f, flags); err != nil {
			if i == 0 && err == zmq4.Errno(syscall.EAGAIN) {
				return false, nil
			}
			return false, err
		}
	}
	return true, nil
}

// send sends a message, as soon as it can be sent.
func (c *bare) send(m [][]byte) error {
	for end := time.Now().Add(errandTime); time.Now().Before(end); {
		if ok, err := c.try(m); ok || err != nil {
			return err
		}
	}
	return errors.New("the broker takes nothing any more")
}

// receive returns what has come, or nil if nothing has within a tick; with DONTWAIT, if
// nothing is there.
func (c *bare) receive(flags zmq4.Flag) (answer, error) {
	m, err := c.sock.RecvMessageBytes(flags)
	if err == zmq4.Errno(syscall.EAGAIN) {
		return nil, nil
	}
	return m, err
}

// unasked says that it is no answer, but the PING_OK that looks whether a client is there.
func (a answer) unasked() bool {
	if a.id() != pingOK {
		return false
	}
	_, extras := a.block()
	return len(extras) > 0 && extras[0] == 0
}

// next is the next answer.
func (c *bare) next() (answer, error) {
	for end := time.Now().Add(errandTime / 2); time.Now().Before(end); {
		a, err := c.receive(0)
		if err != nil || a != nil && !a.unasked() {
			return a, err
		}
	}
	return nil, errors.New("no answer")
}

// ask sends a message whose answer is to be that one; 0: text.
func (c *bare) ask(id byte, m [][]byte) (answer, error) {
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
func (c *bare) lost() bool {
	events, err := c.sock.GetEvents()
	return err == nil && events&zmq4.POLLOUT == 0
}

// pour sends so many messages as fast as the broker takes them, without waiting for
// answers; got, if there is one, sees those that come. It ends early when the broker has
// dropped the client.
func (c *bare) pour(most int64, next func(i int64) [][]byte, got func(answer)) (sent int64, dropped bool, err error) {
	for moved := time.Now(); sent < most; {
		m, ok := next(sent), false
		for !ok {
			if ok, err = c.try(m); err != nil {
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
			if !ok && time.Since(moved) > errandTime/2 {
				return sent, false, errors.New("the broker takes nothing any more")
			}
		}
		sent++
		moved = time.Now()
	}
	return sent, false, nil
}
