package main

import (
	"encoding/binary"
	"slices"
	"time"
)

// Messages as docs/PROTOCOL.md has them, for clients that are not this library's. A
// message is a list of ZeroMQ frames: one in the binary protocol, and some in text.

// The ids, of section 2 there.
const (
	idInput        = 1
	idInputOK      = 2
	idInputFailed  = 3
	idOutput       = 4
	idOutputOK     = 5
	idOutputFailed = 6
	idRead         = 7
	idReadOK       = 8
	idReadEnd      = 9
	idReadFailed   = 11
	idWrite        = 12
	idWriteOK      = 13
	idWriteFailed  = 15
	idClose        = 16
	idCloseOK      = 17
	idPing         = 19
	idPingOK       = 20
	idInvalid      = 21
)

// Flags of READ, modes of INPUT, and causes.
const (
	readAny, readStream              = 1, 2
	modeBytes, modeQueue, modeDelete = 0, 1, 2
	causeBadName, causeTooMany       = 7, 8
)

// A dialect is one of the ways in which a client can speak to a broker, and makes its
// requests.
type dialect struct {
	extended bool // it has agreed to the extension: each message has a block
	text     bool
}

var (
	oldDialect  = dialect{}
	newDialect  = dialect{extended: true}
	textDialect = dialect{text: true}
)

// message makes one of fields; extras are what the extension has in its block.
func (d dialect) message(id byte, channel uint32, extras []byte, fields ...[]byte) [][]byte {
	if d.extended {
		fields = append(fields, []byte("ZP"), number(channel), extras)
	}
	return [][]byte{frame(id, fields...)}
}

// hello is the first PING of a client that knows the extension.
func hello(heartbeat time.Duration) [][]byte {
	version, session := []byte{1}, make([]byte, 8)
	return newDialect.message(idPing, 0, slices.Concat(version, session, number(uint32(heartbeat.Milliseconds()))))
}

func (d dialect) ping() [][]byte { return d.message(idPing, 0, nil) }

func (d dialect) input(channel uint32, name string, mode byte) [][]byte {
	return d.message(idInput, channel, []byte{mode}, short(name))
}

func (d dialect) output(channel uint32, name string) [][]byte {
	return d.message(idOutput, channel, nil, short(name))
}

func (d dialect) read(channel, size uint32, flags byte) [][]byte {
	return d.message(idRead, channel, append([]byte{flags}, number(0)...), number(size), number(0))
}

func (d dialect) write(channel uint32, chunk []byte) [][]byte {
	return d.message(idWrite, channel, nil, number(uint32(len(chunk))), chunk, number(0))
}

func (d dialect) closing(channel uint32) [][]byte {
	return d.message(idClose, channel, make([]byte, 6))
}

// frame makes a message without a block.
func frame(id byte, fields ...[]byte) []byte {
	return slices.Concat(append([][]byte{{0xaa, 0xa0, id}}, fields...)...)
}

func short(s string) []byte    { return append([]byte{byte(len(s))}, s...) }
func long(chunk []byte) []byte { return append(number(uint32(len(chunk))), chunk...) }
func number(n uint32) []byte   { return binary.BigEndian.AppendUint32(nil, n) }

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
	case idReadOK:
		at += 4 + len(a.chunk())
	case idInputFailed, idOutputFailed, idReadFailed, idWriteFailed:
		at += 1 + int(a[0][3])
	}
	if len(a[0]) < at+6 {
		return 0, nil
	}
	return binary.BigEndian.Uint32(a[0][at+2:]), a[0][at+6:]
}

// failedFor says that it is a *_FAILED with a reason in words and, in the extension, that
// cause.
func (a answer) failedFor(cause byte, d dialect) bool {
	switch a.id() {
	case idInputFailed, idOutputFailed, idReadFailed, idWriteFailed:
		_, extras := a.block()
		return a[0][3] > 0 && (!d.extended || len(extras) > 0 && extras[0] == cause)
	}
	return false
}

// refused says that it is a text interface's ERROR.
func (a answer) refused() bool { return len(a) == 2 && string(a[0]) == "ERROR" }

// unasked says that it is no answer, but the PING_OK that looks whether a client is there.
func (a answer) unasked() bool {
	if a.id() != idPingOK {
		return false
	}
	_, extras := a.block()
	return len(extras) > 0 && extras[0] == 0
}

// ended says that the broker has dropped this client, and will serve it no more.
func (a answer) ended() bool {
	if a.id() == idInvalid {
		channel, _ := a.block()
		return channel == 0
	}
	return len(a) == 2 && string(a[1]) == "too much was sent without waiting for answers"
}
