package zpipes

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The wire, as docs/PROTOCOL.md has it.

var wireSignature = []byte{0xAA, 0xA0}

// wireLayout has the name and the fields of each message, by its id.
var wireLayout = [...]struct{ name, fields string }{
	1: {"INPUT", "s"}, 2: {"INPUT_OK", ""}, 3: {"INPUT_FAILED", "s"},
	4: {"OUTPUT", "s"}, 5: {"OUTPUT_OK", ""}, 6: {"OUTPUT_FAILED", "s"},
	7: {"READ", "zt"}, 8: {"READ_OK", "c"}, 9: {"READ_END", ""}, 10: {"READ_TIMEOUT", ""}, 11: {"READ_FAILED", "s"},
	12: {"WRITE", "ct"}, 13: {"WRITE_OK", ""}, 14: {"WRITE_TIMEOUT", ""}, 15: {"WRITE_FAILED", "s"},
	16: {"CLOSE", ""}, 17: {"CLOSE_OK", ""}, 18: {"CLOSE_FAILED", "s"},
	19: {"PING", ""}, 20: {"PING_OK", ""}, 21: {"INVALID", ""},
	22: {"OFFER", "z"}, 23: {"MOVE", ""}, 24: {"MOVED", ""},
	25: {"DIAL", "s"}, 26: {"DIAL_OK", ""}, 27: {"DIAL_FAILED", "s"},
	28: {"ACCEPT", "z"}, 29: {"ACCEPT_OK", ""}, 30: {"ACCEPT_FAILED", "s"}, 31: {"ACCEPTED", ""},
	32: {"TAKE", ""}, 33: {"JOB", "c"}, 34: {"SETTLE", "s"}, 35: {"SETTLED", ""}, 36: {"LOST", ""},
	37: {"RULES", ""}, 38: {"RULES_OK", ""}, 39: {"RULES_FAILED", "s"}, 40: {"PUT", "c"}, 41: {"TEND", ""}, 42: {"TENDED", ""}, 43: {"JOBS", "c"}, 44: {"DONE", "c"},
	56: {"REGISTER", "s"}, 57: {"UNREGISTER", "s"}, 58: {"MATCH", "s"}, 59: {"CONFLICT", "s"}, 60: {"ATTACH", "s"}, 61: {"TAKEN", ""}, 64: {"FOUND", "s"}, 65: {"GONE", "s"}, 71: {"HAND", "c"},
	62: {"LINK", "s"}, 63: {"LINK_OK", "s"},
	72: {"FEED", "s"}, 73: {"AUDIENCE", ""}, 74: {"HELD", ""},
	67: {"CALL", "s"}, 68: {"CALLED", ""}, 69: {"CALL_FAILED", "s"},
}

// A wireMessage is a message of the binary protocol, for tests.
type wireMessage struct {
	name    string
	text    string // the pipe's name, the reason or the chunk
	size    uint32
	timeout uint32
}

// wireID returns a message's id, or 0.
func wireID(name string) int {
	for id, layout := range wireLayout {
		if id > 0 && layout.name == name {
			return id
		}
	}
	return 0
}

func (m wireMessage) encode() []byte {
	id := wireID(m.name)
	frame := append(bytes.Clone(wireSignature), byte(id))
	for _, kind := range wireLayout[id].fields {
		switch kind {
		case wireString:
			frame = append(append(frame, byte(len(m.text))), m.text...)
		case wireChunk:
			frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(m.text))), m.text...)
		case wireSize:
			frame = binary.BigEndian.AppendUint32(frame, m.size)
		case wireTimeout:
			frame = binary.BigEndian.AppendUint32(frame, m.timeout)
		}
	}
	return frame
}

// wireDecode parses a frame; rest is what follows the last field.
func wireDecode(frame []byte) (m wireMessage, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(frame, wireSignature)
	take := func(n int) []byte {
		if ok = ok && n <= len(rest); !ok {
			return make([]byte, 4) // long enough for the number that is not there
		}
		var taken []byte
		taken, rest = rest[:n], rest[n:]
		return taken
	}
	number := func() uint32 { return binary.BigEndian.Uint32(take(4)) }
	id := int(take(1)[0])
	if !ok || id >= len(wireLayout) || wireLayout[id].name == "" {
		return wireMessage{}, nil, false
	}
	m.name = wireLayout[id].name
	for _, kind := range wireLayout[id].fields {
		switch kind {
		case wireString:
			m.text = string(take(int(take(1)[0])))
		case wireChunk:
			m.text = string(take(int(number())))
		case wireSize:
			m.size = number()
		case wireTimeout:
			m.timeout = number()
		}
	}
	return m, rest, ok
}

// String writes the message as a script does.
func (m wireMessage) String() string {
	text := m.name
	for _, kind := range wireLayout[wireID(m.name)].fields {
		switch kind {
		case wireSize:
			text += fmt.Sprintf(" %d", m.size)
		case wireTimeout:
			text += fmt.Sprintf(" %d", m.timeout)
		default:
			text += fmt.Sprintf(" %.100q", m.text)
		}
	}
	return text
}

// The kinds of field. No message has two of one kind, nor both a string and a chunk.
const (
	wireString  = 's' // a length in one octet, and that many
	wireChunk   = 'c' // a length in four octets, and that many
	wireSize    = 'z' // four octets
	wireTimeout = 't' // four octets, milliseconds
)

func recordsOf(b []byte, most int) ([][]byte, bool) { return (&message{chunk: b}).records(most) }

// deliver hands a session a frame in one of the ways in which transports do: as its own,
// lent, or in a segment of a pool. What is not the session's any more is spoiled.
func deliver(s *session, frame []byte, now time.Time) {
	sum := len(frame)
	for _, b := range frame {
		sum += int(b)
	}
	switch room := headRoom - chunkOffset; {
	case sum%3 == 0 || len(frame) > chunkOffset+largeSegment:
		s.receive(slices.Clip(frame), false, nil, now)
	case len(frame) <= copyUpTo:
		lent := bytes.Clone(frame)
		s.receive(lent, true, nil, now)
		spoil(lent)
	default:
		c := newSegment(largePool)
		c.pool = new(sync.Pool)
		pool := c.pool
		copy(c.buf[room:], frame)
		s.receive(c.buf[room:room+len(frame):room+len(frame)], false, c, now)
		if pool.Get() != nil {
			spoil(c.buf)
		}
	}
}

func spoil(b []byte) {
	for i := range b {
		b[i] = 0xee
	}
}
