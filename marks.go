package zpipes

import (
	"encoding/binary"
	"slices"
)

// beginsRoom is how many bytes a WRITE to a broadcast has room for to tell marks, without
// being copied.
const beginsRoom = 4 << 10

// marks are the places in a stream at which Writes begin, in order. A place takes no more
// bytes than the Write before it had, so that all of them take no more than the stream does.
type marks struct {
	n           int
	first, last int64
	steps       []byte // uvarints, from one to the next
	begin       int    // of steps that are still used
}

// add marks a place that is not before the others.
func (m *marks) add(at int64) {
	switch {
	case m.n == 0:
		m.first = at
	case at == m.last:
		return
	default:
		m.steps = binary.AppendUvarint(m.steps, uint64(at-m.last))
	}
	m.last = at
	m.n++
}

func (m *marks) drop() {
	m.n--
	if m.n == 0 {
		m.steps, m.begin = nil, 0
		return
	}
	step, k := binary.Uvarint(m.steps[m.begin:])
	m.first += int64(step)
	if m.begin += k; m.begin > 1024 && m.begin > len(m.steps)/2 {
		m.steps = m.steps[:copy(m.steps, m.steps[m.begin:])]
		m.begin = 0
	}
}

// dropBefore drops those before a place.
func (m *marks) dropBefore(at int64) {
	for m.n > 0 && m.first < at {
		m.drop()
	}
}

// cut takes out those between two places, as a WRITE of what is there carries them: all
// that lie in its last keep bytes, and the first one. Those before it are of Writes that
// came to nothing, or went on in a ring.
func (m *marks) cut(from, to int64, keep int) []byte {
	m.dropBefore(from)
	var told []byte
	last := from
	for m.n > 0 && m.first < to {
		if told == nil || m.first >= to-int64(keep) {
			told = binary.AppendUvarint(told, uint64(m.first-last))
			last = m.first
		}
		m.drop()
	}
	return told
}

// clone is a copy.
func (m *marks) clone() marks {
	c := *m
	c.steps = slices.Clone(m.steps)
	return c
}

// toldMarks calls f with each place that a WRITE of n bytes tells, counted from its begin.
// It says whether they are as they should be.
func toldMarks(told []byte, n int, f func(at int)) bool {
	at := uint64(0)
	for i := 0; i < len(told); {
		step, k := binary.Uvarint(told[i:])
		if k <= 0 || step >= uint64(n)-at || step == 0 && i > 0 {
			return false
		}
		at += step
		i += k
		f(int(at))
	}
	return true
}
