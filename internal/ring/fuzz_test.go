package ring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"unsafe"
)

// FuzzBroken has one end work while the memory, the header as well as the data, becomes
// anything at any time: between two calls, and in the middle of them when a bell rings. The
// end takes no harm: it stays within the ring and within what it was given, and is never
// busy for longer than its calls are large.
func FuzzBroken(f *testing.F) {
	f.Add(uint16(16), false, []byte{0, 5, 1, 0, 9, 2})
	f.Add(uint16(16), true, []byte{0, 5, 1, 7, 0, 255, 255, 255, 255, 255, 255, 255, 255, 2, 9})
	f.Add(uint16(1), true, []byte{3, 200, 7, 1, 0, 0, 0, 0, 0, 0, 0, 3, 1})
	f.Add(uint16(60000), false, []byte{8, 2, 1, 0, 0, 0, 3, 255, 2, 3, 255, 4, 8, 0, 100, 0, 0, 0})
	f.Fuzz(func(t *testing.T, size uint16, reads bool, acts []byte) {
		const fence = 256
		all := bytes.Repeat([]byte{0x5a}, Header+max(1, int(size))+fence)
		mem := all[: len(all)-fence : len(all)-fence]
		clear(mem[:5*block])
		next := func(n int) []byte {
			b := make([]byte, n)
			acts = acts[copy(b, acts):]
			return b
		}
		spoil := func() {
			at := []int{0, 8, block, 2 * block, 3 * block, 4 * block, Header}[int(next(1)[0])%7]
			v := binary.LittleEndian.Uint64(next(8))
			*(*uint64)(unsafe.Pointer(&mem[at&^7 : at&^7+1][0])) = v
		}
		if len(mem) < Header+8 {
			spoil = func() { next(2) } // its data has no 8 bytes
		}
		bells := 0
		bell := func() {
			if bells++; len(acts) > 0 {
				spoil()
			}
		}
		w, err := NewWriter(mem, bell)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(mem, bell, bell)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKeeper(mem, len(mem)-Header)
		if err != nil {
			t.Fatal(err)
		}
		w.small, w.gather, w.burst, w.grain, r.grain = 8, 32, 1, 100, 100
		for len(acts) > 0 {
			act, n := next(1)[0], int(next(1)[0])
			var err error
			bells = 0
			switch b := make([]byte, n); act % 9 {
			case 0, 1:
				if reads {
					n, err = r.Read(b)
				} else {
					n, err = w.Write(b)
				}
				if n < 0 || n > len(b) {
					t.Fatalf("%d of %d bytes", n, len(b))
				}
			case 2:
				err = w.Push()
			case 3:
				err = w.Rung()
			case 4:
				_, err = w.Confirmed(w.Written()-uint64(w.Gathered()), uint64(n))
			case 5:
				var left uint64
				if left, err = w.Unread(); err == nil && left > w.size {
					t.Fatalf("%d bytes are unread in a ring of %d", left, w.size)
				}
			case 6:
				err = r.End(r.Count() + uint64(n))
			case 7:
				spoil()
			case 8:
				var written, read uint64
				if written, read, err = k.Counts(); read > written || written-read > k.size {
					t.Fatalf("counts of %d and %d in a ring of %d", written, read, k.size)
				}
				k.Close()
			}
			if err != nil && !errors.Is(err, ErrBroken) && err != io.EOF {
				t.Fatal(err)
			}
			if bells > 2*(n+2) {
				t.Fatalf("%d bells for %d bytes", bells, n)
			}
			if len(w.gathered) > w.gather || w.left() < 0 || r.There() < 0 || uint64(r.There()) > r.size {
				t.Fatal("more than the ring holds")
			}
		}
		if !bytes.Equal(all[len(mem):], bytes.Repeat([]byte{0x5a}, fence)) {
			t.Fatal("wrote behind the ring")
		}
	})
}
