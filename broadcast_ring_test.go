//go:build linux && !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// inRings reads until the readers' bytes come through rings, and w's go through one.
func (r *rig) inRings(w *Writer, all ...*Reader) {
	r.Helper()
	for _, rd := range all {
		eventually(r, "a ring", func() bool {
			write(r, w, "x")
			for _, rd := range all {
				r.gets(rd, "x")
			}
			return rd.hasRing() && w.hasRing()
		})
	}
}

// Each reader of a broadcast gets all through a ring of its own, whatever the sizes.
func TestBroadcastRings(t *testing.T) {
	_, r := ringsHere(t)
	const readers = 3
	w := r.broadcast("p", BroadcastConfig{Readers: readers})
	sent := noise(9, 8<<20)
	var all [readers]*Reader
	for i := range all {
		all[i] = r.reader("p")
	}
	r.inRings(w, all[:]...)
	got := make(chan error)
	for i, rd := range all {
		go func() {
			var b bytes.Buffer
			var from io.Reader = rd
			if i > 0 {
				from = struct{ io.Reader }{rd} // no WriteTo
			}
			_, err := io.Copy(&b, from)
			if err == nil && !bytes.Equal(b.Bytes(), sent) {
				err = fmt.Errorf("other bytes than were sent, %d of %d", b.Len(), len(sent))
			}
			got <- err
		}()
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for b := sent; len(b) > 0; {
		n := min(len(b), 1+rng.IntN(100))
		if rng.IntN(10) == 0 {
			n = min(len(b), 1+rng.IntN(200_000))
		}
		if _, err := w.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range all {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

// A reader that spoils its ring's header at any moment loses its own end, and the broadcast
// goes on.
func TestBroadcastRingSpoiled(t *testing.T) {
	b, r := ringsHere(t)
	w := r.broadcast("p", BroadcastConfig{})
	good, much := r.reader("p"), strings.Repeat("y", 64<<10)
	for i := range 20 {
		bad := r.reader("p")
		r.inRings(w, good, bad)
		g := bad.pipe.ring
		g.mapping.Retain()
		read := (*atomic.Uint64)(unsafe.Pointer(&g.mapping.Bytes()[ringPlaces[2]]))
		over := inBackground(func() (int, error) {
			n, err := io.Copy(io.Discard, bad)
			return int(n), err
		})
		var got *result
		for n := read.Load(); got == nil; n++ {
			for range 100 {
				read.Store(n)
				read.Store(math.MaxUint64)
			}
			write(r, w, much) // until the broker has to know how much room there is
			r.gets(good, much)
			select {
			case it := <-over:
				got = &it
			default:
			}
		}
		if !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Error(i, *got)
		}
		g.mapping.Release()
		bad.Close()
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	r.getsRest(good, "", io.EOF)
	good.Close()
	eventually(t, "no ring", func() bool {
		b.rings.mu.Lock()
		defer b.rings.mu.Unlock()
		return len(b.rings.of) == 0
	})
}

// A writer that spoils its ring's header at any moment tears its broadcast, and does nothing
// worse to its readers and the broker.
func TestBroadcastRingWriterSpoils(t *testing.T) {
	b, r := ringsHere(t)
	for i := range 20 {
		w := r.broadcast("p", BroadcastConfig{Keep: 100})
		rd := r.reader("p")
		r.inRings(w, rd)
		g := w.pipe.ring
		g.mapping.Retain()
		at := []int{ringPlaces[0], 4 << 10}[i%2] // how many bytes, and marks, there are
		n := (*atomic.Uint64)(unsafe.Pointer(&g.mapping.Bytes()[at]))
		over := inBackground(func() (int, error) {
			n, err := io.Copy(io.Discard, rd)
			return int(n), err
		})
		for was, err := n.Load(), error(nil); err == nil; {
			for range 100 {
				n.Store(was)
				n.Store(math.MaxUint64)
			}
			_, err = w.WriteString("y")
		}
		if got := r.within(soon, over); !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Error(i, got)
		}
		g.mapping.Release()
		w.Close()
		rd.Close()
	}
	eventually(t, "no ring", func() bool {
		b.rings.mu.Lock()
		defer b.rings.mu.Unlock()
		return len(b.rings.of) == 0
	})
}

// A reader that left with bytes in its ring, or that does not read, leaves the others all.
func TestBroadcastRingReaderLeaves(t *testing.T) {
	_, r := ringsHere(t)
	w := r.broadcast("p", BroadcastConfig{})
	stays, leaves := r.reader("p"), r.reader("p")
	r.inRings(w, stays, leaves)
	data := noise(3, 4<<20) // more than the one that leaves can have
	reading := inBackground(func() (int, error) {
		b, err := io.ReadAll(stays)
		if err == nil && !bytes.Equal(b, data) {
			err = errors.New("other bytes")
		}
		return len(b), err
	})
	writing := inBackground(func() (int, error) { return w.Write(data) })
	eventually(t, "a Write that waits for the one that does not read", func() bool {
		w.pipe.mu.Lock()
		defer w.pipe.mu.Unlock()
		return w.busy && w.pipe.writer.want > 0
	})
	leaves.Close()
	if got := r.within(soon, writing); got.err != nil {
		t.Fatal(got)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := r.within(soon, reading); got.err != nil {
		t.Error(got)
	}
}

// A Write that waits without a byte while its broadcast goes over to a ring, or gives up then,
// begins where its bytes are, or nowhere: who reads from there gets all of it, and what is written
// when the ring is given back is no violation.
func TestBroadcastRingComesToAWriteThatWaits(t *testing.T) {
	for name, givesUp := range map[string]bool{"goes on": false, "gives up": true} {
		t.Run(name, func(t *testing.T) {
			b, r := ringsHere(t)
			w := r.broadcast("p", BroadcastConfig{Readers: 1})
			p := w.pipe
			locked := func(f func()) { p.mu.Lock(); defer p.mu.Unlock(); f() }
			room := 0
			locked(func() { room = p.room() })
			before, second := string(noise(1, room)), "the second Write"
			write(t, w, before)
			waiting := inBackground(func() (int, error) { return w.WriteString(second) })
			var wake func()
			eventually(t, "a Write that waits", func() (waits bool) {
				locked(func() {
					if waits = w.busy && p.writer.want > 0; waits {
						wake, p.writer.wake = p.writer.wake, func() {} // it does not hear of the room
					}
				})
				return waits
			})
			if givesUp {
				w.SetWriteDeadline(time.Unix(1, 0))
				if got := r.within(soon, waiting); got.n != 0 || !errors.Is(got.err, os.ErrDeadlineExceeded) {
					t.Fatal(got)
				}
				w.SetWriteDeadline(time.Time{})
			}
			early := r.reader("p")
			r.gets(early, before)
			eventually(t, "a ring", w.hasRing)
			late := r.reader("p") // before the second Write has a byte
			locked(func() { p.writer.wake = wake; p.wakeSide(&p.writer) })
			if givesUp {
				write(t, w, second)
			} else if got := r.within(soon, waiting); got.err != nil {
				t.Fatal(got)
			}
			r.gets(early, second)
			r.gets(late, second)
			trunk := b.pipes.pipes()["p"]
			eventually(t, "the ring is given back", func() bool {
				trunk.lookAtDetour(time.Now(), false)
				trunk.lookAtDetour(time.Now().Add(quietTime), false)
				return !w.hasRing()
			})
			write(t, w, "more")
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			r.getsRest(early, "more", io.EOF)
			r.getsRest(late, "more", io.EOF)
		})
	}
}

// Rings of broadcasts take no more than their part of the process's descriptors. Who finds none
// left goes on in messages, and has one when others gave theirs back.
func TestBroadcastRingsLeaveDescriptors(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	most := mostOwnRings()
	if most <= 0 || uint64(most) > limit.Cur/4 {
		t.Errorf("%d rings where %d files may be open", most, limit.Cur)
	}
	_, r := ringsHere(t)
	eventually(t, "no ring of an earlier test", func() bool { return ownRings.Load() == 0 })
	ownRings.Add(int32(most - 1))
	others := sync.OnceFunc(func() { ownRings.Add(int32(1 - most)) })
	defer others()
	w := r.broadcast("p", BroadcastConfig{})
	all := []*Reader{r.reader("p"), r.reader("p")}
	rings := func() int {
		n := 0
		for _, e := range []*end{&w.end, &all[0].end, &all[1].end} {
			if e.hasRing() {
				n++
			}
		}
		return n
	}
	for range 50 {
		write(t, w, "x")
		for _, rd := range all {
			r.gets(rd, "x")
		}
		if n := rings(); n > 1 {
			t.Fatalf("%d rings where one was left", n)
		}
	}
	if rings() != 1 {
		t.Error("the ring that was left is nobody's")
	}
	others()
	eventually(t, "all have a ring, and three are counted", func() bool {
		write(t, w, "x")
		for _, rd := range all {
			r.gets(rd, "x")
		}
		return rings() == 3 && ownRings.Load() == 3
	})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for _, rd := range all {
		r.getsRest(rd, "", io.EOF)
		rd.Close()
	}
	eventually(t, "none is counted", func() bool { return ownRings.Load() == 0 })
}
