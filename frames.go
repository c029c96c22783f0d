//go:build !core

package zpipes

import "errors"

// On a stream of bytes, a Unix socket's or an encrypted connection's, each message follows its
// length, four bytes in network byte order.
const lengthBytes = 4

var errTooLarge = errors.New("too large a message")

// newBody makes a segment for a message of that size, in which its chunk begins where that
// of a segment does. A very large one grows with what comes.
func newBody(size int) *segment {
	switch {
	case size <= chunkOffset+largeSegment+tailBytes:
		return newSegment(largePool)
	case size <= chunkOffset+frameSegment+tailBytes:
		return newSegment(framePool)
	}
	c := &segment{buf: make([]byte, headRoom+frameSegment)}
	c.r, c.w = headRoom, headRoom
	return c
}

// bodyRoom is where the next bytes of a body belong that left are missing of, as far as
// there is room.
func (c *segment) bodyRoom(left int) []byte {
	begin := c.w - chunkOffset
	if begin == len(c.buf) {
		grown := make([]byte, min(2*len(c.buf), begin+left))
		copy(grown, c.buf)
		c.buf = grown
	}
	return c.buf[begin:min(len(c.buf), begin+left)]
}

// packet is the message of a body that is whole.
func (c *segment) packet() packet {
	return packet{frame: c.buf[headRoom-chunkOffset : c.w-chunkOffset], body: c}
}
