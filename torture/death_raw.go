package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// Clients that are not this library's: a DEALER, and messages as docs/PROTOCOL.md has
// them. Section 2 there lists the ids.
const (
	idInput    = 1
	idInputOK  = 2
	idOutput   = 4
	idOutputOK = 5
	idRead     = 7
	idReadOK   = 8
	idWrite    = 12
	idWriteOK  = 13
	idClose    = 16
	idPing     = 19
	idPingOK   = 20
	idInvalid  = 21
)

// frame makes a message of fields.
func frame(id byte, fields ...[]byte) []byte {
	b := []byte{0xaa, 0xa0, id}
	for _, f := range fields {
		b = append(b, f...)
	}
	return b
}

func textField(s string) []byte { return append([]byte{byte(len(s))}, s...) }
func number(n uint32) []byte    { return binary.BigEndian.AppendUint32(nil, n) }
func chunk(b []byte) []byte     { return append(number(uint32(len(b))), b...) }
func block(ch uint32) []byte    { return append([]byte("ZP"), number(ch)...) }
func wide(n uint64) []byte      { return binary.BigEndian.AppendUint64(nil, n) }
func octet(n byte) []byte       { return []byte{n} }

// hello is the first PING of a client that knows the extension.
func hello(heartbeat time.Duration) []byte {
	return frame(idPing, block(0), octet(1), wide(0), number(uint32(heartbeat.Milliseconds())))
}

// Requests have a block on channel 1 where the extension is agreed upon.

func openFrame(id byte, pipe string, agreed bool) []byte {
	b := frame(id, textField(pipe))
	if agreed {
		b = append(b, block(1)...)
		if id == idInput {
			b = append(b, 0)
		}
	}
	return b
}

func readFrame(size uint32, agreed bool) []byte {
	b := frame(idRead, number(size), number(0))
	if agreed {
		b = append(append(b, block(1)...), 0, 0, 0, 0, 0)
	}
	return b
}

func writeFrame(data []byte, agreed bool) []byte {
	b := frame(idWrite, chunk(data), number(0))
	if agreed {
		b = append(b, block(1)...)
	}
	return b
}

// closeFrame ends what is open in an orderly way, where the extension is agreed upon.
func closeFrame() []byte { return frame(idClose, block(1), make([]byte, 1+1+4)) }

// A rawClient is a DEALER of one goroutine.
type rawClient struct {
	ctx    *zmq4.Context
	socket *zmq4.Socket
}

// newRawClient connects; the routing id is libzmq's choice if that is empty.
func newRawClient(endpoint, id string) (*rawClient, error) {
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, err
	}
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		ctx.Term()
		return nil, err
	}
	c := &rawClient{ctx, s}
	err = errors.Join(s.SetLinger(0), s.SetReconnectIvl(time.Millisecond))
	if err == nil && id != "" {
		err = s.SetIdentity(id)
	}
	if err == nil {
		err = s.Connect(endpoint)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *rawClient) close() {
	c.socket.Close()
	c.ctx.Term()
}

// send says false where libzmq takes no more now.
func (c *rawClient) send(frames ...[]byte) bool {
	for i, f := range frames {
		flags := zmq4.DONTWAIT
		if i < len(frames)-1 {
			flags |= zmq4.SNDMORE
		}
		for {
			_, err := c.socket.SendBytes(f, flags)
			if err == nil {
				break
			}
			if err != zmq4.Errno(syscall.EINTR) {
				return false
			}
		}
	}
	return true
}

// receive returns the next message that comes in that time, or nil.
func (c *rawClient) receive(within time.Duration) [][]byte {
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		frames, err := c.socket.RecvMessageBytes(zmq4.DONTWAIT)
		if err == nil {
			return frames
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// expect receives a message that must have that id.
func (c *rawClient) expect(id byte) error {
	switch got := c.receive(patience); {
	case got == nil:
		return hangs(fmt.Sprintf("a client that expects message %d", id), patience)
	case len(got[0]) < 3 || got[0][2] != id:
		return fmt.Errorf("got %q, and expected message %d", got, id)
	}
	return nil
}
