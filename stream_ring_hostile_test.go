//go:build linux && !core

package zpipes

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/zpipes/zpipes/internal/ring"
)

// A writer that spoils the ring's header at any moment tears the stream, and does nothing
// worse to the reader.
func TestRingSpoiled(t *testing.T) {
	_, r := ringsHere(t)
	for i := range 100 {
		rd, w := r.pipe(fmt.Sprint("spoiled", i))
		r.moved(rd, w)
		g := w.pipe.ring
		g.mapping.Retain()
		written := (*atomic.Uint64)(unsafe.Pointer(&g.mapping.Bytes()[0]))
		over := inBackground(func() (int, error) {
			var from io.Reader = rd
			if i%2 > 0 {
				from = struct{ io.Reader }{rd} // no WriteTo
			}
			n, err := io.Copy(io.Discard, from)
			return int(n), err
		})
		var got *result
		for n := written.Load(); got == nil; n++ {
			g.bell.Ring()
			for range 1000 {
				written.Store(n)
				written.Store(math.MaxUint64)
			}
			select {
			case it := <-over:
				got = &it
			default:
			}
		}
		if !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Error(*got)
		}
		g.mapping.Release()
	}
}

// A ring of which the system has no memory left is no clean end, even if its writer had
// closed it by then.
func TestRingBreaksBehindTheEnd(t *testing.T) {
	_, r := ringsHere(t)
	rd, w := r.pipe("end")
	r.moved(rd, w)
	if _, err := w.WriteString("lost"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p := rd.pipe
	eventually(t, "the end", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.writer.left
	})
	p.mu.Lock()
	p.breaks()
	p.mu.Unlock()
	if n, err := rd.Read(make([]byte, 10)); n > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(n, err)
	}
}

// Descriptors are of the offer that they came with, also if one of none came just before.
func TestNearDescriptorsOfAnOffer(t *testing.T) {
	n, peer := nearPair(t, 1<<20, 1<<20)
	n.wantDescriptors()
	raw, err := peer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	memory, err := ring.Make(100)
	if err != nil {
		t.Fatal(err)
	}
	defer closeDescriptors([]int{memory})
	if _, err := peer.Write(framed((&message{id: msgOffer, block: hasBlock}).append(nil))); err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		offer := framed((&message{id: msgOffer, block: hasBlock, size: 100}).append(nil))
		if _, err := sendDescriptors(int(fd), offer, []int{memory, memory}); err != nil {
			t.Error(err)
		}
	})
	for _, want := range []int{0, 2} {
		p, ok := n.wait(time.Now().Add(soon))
		if !ok || len(p.descriptors) != want {
			t.Errorf("%d descriptors, %v; want %d", len(p.descriptors), ok, want)
		}
		closeDescriptors(p.descriptors)
	}
}

// A reader that has taken a ring which its writer then does not take lets go of it.
func TestRingThatTheWriterRefuses(t *testing.T) {
	b, r := ringsHere(t)
	rd, w := r.pipe("refused")
	w.pipe.mu.Lock()
	w.pipe.openWindow(w.pipe.window + 1) // the ring is too small for it
	w.pipe.mu.Unlock()
	b.pipes.mu.Lock()
	p := b.pipes.pipes["refused"]
	b.pipes.mu.Unlock()
	eventually(t, "a refusal", func() bool {
		if _, err := w.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.ways[writer] == 0
	})
	eventually(t, "no ring", func() bool { return !rd.hasRing() })
}
