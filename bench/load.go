package main

import (
	"encoding/binary"
	"io"
	"math/bits"
	"sync/atomic"
	"time"
)

// stampBytes is how many bytes at the beginning of each write hold its number.
const stampBytes = 8

// Total is what was written to, or read from, one or more streams: how many
// bytes, and the sum of the numbers in them.
type Total struct {
	Bytes int64
	Sum   uint64
}

func (t Total) plus(u Total) Total { return Total{t.Bytes + u.Bytes, t.Sum + u.Sum} }

// senderShift leaves the lower bits of a number to its writer.
const senderShift = 40

// senderOf returns whose number b begins with.
func senderOf(b []byte) int { return int(binary.LittleEndian.Uint64(b) >> senderShift) }

// pump makes writes of one size, each beginning with its number, until stop is
// set. It returns what it has written. No two senders have a number in common.
func pump(w io.Writer, size, sender int, stop *atomic.Bool) (Total, error) {
	var t Total
	b := newRecord(size)
	for n := uint64(sender)<<senderShift + 1; !stop.Load(); n++ {
		binary.LittleEndian.PutUint64(b, n)
		if _, err := w.Write(b); err != nil {
			return t, err
		}
		t.Bytes += int64(size)
		t.Sum += n
	}
	return t, nil
}

// newRecord is a write of that size, still without its number.
func newRecord(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// A tally adds up the numbers in a stream of writes of one size, however the
// stream is cut into pieces. It looks at no other bytes, so that it costs little,
// and as much for every peer. One goroutine adds to it; others may ask.
type tally struct {
	size int
	at   int // where in a write the next piece begins
	sum  uint64

	bytes atomic.Int64
	sums  atomic.Uint64 // sum, as of bytes
}

func (t *tally) add(b []byte) {
	n := len(b)
	for len(b) > 0 {
		switch {
		case t.at == 0 && len(b) >= t.size:
			t.sum += binary.LittleEndian.Uint64(b)
			b = b[t.size:]
		case t.at < stampBytes:
			t.sum += uint64(b[0]) << (8 * t.at)
			b = b[1:]
			t.at++
		default:
			k := min(t.size-t.at, len(b))
			b = b[k:]
			t.at += k
		}
		if t.at == t.size {
			t.at = 0
		}
	}
	t.sums.Store(t.sum)
	t.bytes.Add(int64(n))
}

// Write is add, for io.WriterTo.
func (t *tally) Write(b []byte) (int, error) {
	t.add(b)
	return len(b), nil
}

// total is right once nothing more arrives.
func (t *tally) total() Total { return Total{t.bytes.Load(), t.sums.Load()} }

// A histogram counts durations in buckets less than one per cent wide. Its
// memory does not depend on how many they are.
type histogram struct {
	counts [fine * 58]int
	n      int
}

const fine = 128 // buckets for each doubling

func (h *histogram) add(d time.Duration) {
	ns := uint64(max(d, 0))
	shift := max(0, bits.Len64(ns)-8)
	h.counts[shift*fine+int(ns>>shift)]++
	h.n++
}

// quantile is the middle of the bucket in which the q-th part of all ends.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.n))
	for i, c := range h.counts {
		if rank -= c; rank < 0 {
			if i < 2*fine {
				return time.Duration(i)
			}
			shift := i/fine - 1
			return time.Duration((uint64(i-shift*fine) << shift) + 1<<shift/2)
		}
	}
	return 0
}
