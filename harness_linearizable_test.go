package zpipes

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// These are the models against which histories with several clients are checked: what
// a thing would do if all that happens to it happened one after the other. An operation
// of which nobody knows whether it was done, since a deadline came first, returns at
// the end of time.

type opKind int

const (
	opSend opKind = iota
	opReceive
	opGiveBack
	opOpenReader
	opOpenWriter
	opClose
	opWrite
	opRead
	opEnd
)

// queueOp is what happens to a queue. The chunks of a sender are numbered in the order
// in which it sends them.
type queueOp struct {
	kind   opKind
	sender int
	chunk  int
}

// A queueState is a queue: sorted lists of chunks, each with its sender. What makes no
// difference to what may come next makes none to the state, or the checker would have too
// many to look at.
type queueState struct {
	lines string // sent
	back  string // handed out, and given back
	out   string // handed out
	last  string // the last one of each sender
}

// A queue hands out the chunks of each sender in order, and before all others those
// that came back.
var queueModel = porcupine.Model{
	Init: func() any { return queueState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(queueState), input.(queueOp)
		c := entry(op.sender, op.chunk)
		switch op.kind {
		case opSend:
			old := firstOf(s.last, op.sender)
			if old != "" && old >= c {
				return false, s
			}
			s.last = with(without(s.last, old), c)
			s.lines = with(s.lines, c)
		case opReceive:
			switch {
			case find(s.back, c) >= 0:
				s.back = without(s.back, c)
			case s.back == "" && firstOf(s.lines, op.sender) == c:
				s.lines = without(s.lines, c)
			default:
				return false, s
			}
			s.out = with(s.out, c)
		default:
			if find(s.out, c) < 0 {
				return false, s
			}
			s.out = without(s.out, c)
			s.back = with(s.back, c)
		}
		return true, s
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
}

// A bag is a queue whose receivers have chunks in hand that their users have not asked
// for yet, so that there is no order but that each was sent before it is received, once.
var bagModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(string), input.(queueOp)
		c := entry(op.sender, op.chunk)
		if op.kind == opSend {
			return true, with(s, c)
		}
		return find(s, c) >= 0, without(s, c)
	},
}

const entryBytes = 4

func entry(sender, chunk int) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(sender))
	return string(binary.BigEndian.AppendUint16(b, uint16(chunk)))
}

// find says where an entry is in a list; -1: nowhere.
func find(list, c string) int {
	for i := 0; i < len(list); i += entryBytes {
		if list[i:i+entryBytes] == c {
			return i
		}
	}
	return -1
}

func with(list, c string) string {
	i := 0
	for i < len(list) && list[i:i+entryBytes] < c {
		i += entryBytes
	}
	return list[:i] + c + list[i:]
}

func without(list, c string) string {
	if i := find(list, c); i >= 0 && c != "" {
		return list[:i] + list[i+entryBytes:]
	}
	return list
}

// firstOf is a sender's first entry in a list.
func firstOf(list string, sender int) string {
	head := entry(sender, 0)[:2]
	for i := 0; i < len(list); i += entryBytes {
		if strings.HasPrefix(list[i:], head) {
			return list[i : i+entryBytes]
		}
	}
	return ""
}

// nameOp is what happens to the name of a stream. Each open has a number.
type nameOp struct {
	kind opKind
	open int
}

// A name has room for a reader and a writer. As soon as either has left, it is free, and
// the other end has nothing to do with it any more.
var nameModel = porcupine.Model{
	Init: func() any { return [2]int{} },
	Step: func(state, input, output any) (bool, any) {
		ends, op := state.([2]int), input.(nameOp)
		if op.kind == opClose {
			if ends[reader] == op.open || ends[writer] == op.open {
				ends = [2]int{}
			}
			return true, ends
		}
		r := reader
		if op.kind == opOpenWriter {
			r = writer
		}
		switch taken := ends[r] != 0; {
		case output == errUnknown && taken:
			return true, ends
		case taken || output == errBusy:
			return taken == (output == errBusy), ends
		}
		ends[r] = op.open
		return true, ends
	},
}

// The outputs of an open that was refused, and of one that may have been.
const (
	errBusy    = "busy"
	errUnknown = "unknown"
)

// streamOp is what happens to a stream: so many bytes are written and flushed, or read.
type streamOp struct {
	kind opKind
	n    int
}

type streamState struct {
	there  int
	closed bool
}

// A stream gives what was written and not read, and ends when it was closed and all
// was read.
var streamModel = porcupine.Model{
	Init: func() any { return streamState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(streamState), input.(streamOp)
		switch op.kind {
		case opWrite:
			s.there += op.n
			return !s.closed, s
		case opRead:
			s.there -= op.n
			return s.there >= 0, s
		case opClose:
			s.closed = true
			return true, s
		}
		return s.closed && s.there == 0, s
	},
}
