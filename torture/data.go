package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Each byte of a stream follows from the stream's seed and its offset, so that one can
// tell whether it is the right one in the right place.

// fill makes the bytes from off on.
func fill(b []byte, seed uint64, off int64) {
	for len(b) > 0 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], mix(seed^uint64(off>>3)))
		n := copy(b, word[off&7:])
		b, off = b[n:], off+int64(n)
	}
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// An oracle knows the bytes of a stream, and how many have come.
type oracle struct {
	seed  uint64
	off   int64
	right []byte
}

// check takes the next bytes of the stream.
func (o *oracle) check(b []byte) error {
	if len(o.right) < len(b) {
		o.right = make([]byte, len(b))
	}
	right := o.right[:len(b)]
	fill(right, o.seed, o.off)
	if !bytes.Equal(b, right) {
		i := 0
		for b[i] == right[i] {
			i++
		}
		return fmt.Errorf("byte %d of the stream is wrong; %s", o.off+int64(i), o.belongs(b[i:], o.off+int64(i)))
	}
	o.off += int64(len(b))
	return nil
}

// belongs says from where in the stream the bytes are that came at off.
func (o *oracle) belongs(b []byte, off int64) string {
	const far = 4 << 20
	b = b[:min(len(b), 16)]
	there := make([]byte, len(b))
	for at := max(0, off-far); at < off+far && len(b) >= 4; at++ {
		if fill(there, o.seed, at); bytes.Equal(b, there) {
			return fmt.Sprintf("it belongs at %d", at)
		}
	}
	return "it is of another stream, or of none"
}

// readAll reads up to the stream's end and returns the reader's error, nil where it
// was io.EOF; wrong bytes are an error of its own.
func (o *oracle) readAll(r io.Reader, size int) error {
	b := make([]byte, size)
	for {
		n, err := r.Read(b)
		if err := o.check(b[:n]); err != nil {
			return wrongBytes{err}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// wrongBytes is what must never happen.
type wrongBytes struct{ error }

// someSize is how much to write or read at once.
func someSize(r *rand.Rand) int {
	switch r.IntN(8) {
	case 0:
		return 1 + r.IntN(16)
	case 1:
		return 1 + r.IntN(512<<10)
	case 2, 3:
		return 1 + r.IntN(64<<10)
	}
	return 1 + r.IntN(4<<10)
}
