//go:build linux && !core

package zpipes

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
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
	p := b.pipes.pipes()["refused"]
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

// A client refuses what is not the ring that it is offered, and the stream goes on without.
func TestRingThatIsNone(t *testing.T) {
	const size, pending = 12 << 10, 8 << 10
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	memory, err := ring.Make(size)
	if err != nil {
		t.Fatal(err)
	}
	bell, other, err := ring.MakeBell()
	if err != nil {
		t.Fatal(err)
	}
	defer closeDescriptors([]int{memory, bell, other})
	for name, offer := range map[string]struct {
		size, pending uint32
		descriptors   []int
	}{
		"larger than its memory":  {size + 1, pending, []int{memory, bell}},
		"smaller than its memory": {size - 1, pending, []int{memory, bell}},
		"too small for a window":  {size, size, []int{memory, bell}},
		"immense":                 {math.MaxUint32, pending, []int{memory, bell}},
		"nothing":                 {size, pending, nil},
		"without a bell":          {size, pending, []int{memory}},
		"a device":                {size, pending, []int{int(null.Fd()), bell}},
		"the memory as a bell":    {size, pending, []int{memory, memory}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			refused := make(chan message, 1)
			go func() {
				defer close(refused)
				c, err := l.AcceptUnix()
				if err != nil {
					return
				}
				defer c.Close()
				for {
					frame, err := readFramed(c)
					if err != nil {
						return
					}
					m, _ := parse(frame)
					switch m.id {
					case msgPing:
						m.id, m.hello.session, m.hello.number, m.hello.pending, m.hello.total = msgPingOK, 7, 1<<20, 1<<20, 1<<20
						c.Write(framed(m.append(nil)))
					case msgOutput:
						m.id = msgOutputOK
						c.Write(framed(m.append(nil)))
						m = message{id: msgOffer, block: hasBlock, channel: m.channel, size: offer.size, count: offer.pending}
						c.WriteMsgUnix(framed(m.append(nil)), syscall.UnixRights(offer.descriptors...), nil)
					case msgMove:
						refused <- m
					case msgWrite:
						m.id, m.count = msgWriteOK, 1<<20
						c.Write(framed(m.append(nil)))
					case msgClose:
						m.id = msgCloseOK
						c.Write(framed(m.append(nil)))
					}
				}
			}()
			c, err := ClientConfig{Window: 4 << 10}.NewClient(nearScheme + path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			w, err := c.OpenWriter(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			if m := <-refused; m.mode != moveNot {
				t.Errorf("answered %+v", m)
			}
			if _, err := w.WriteString("by messages"); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Those who never answer the offer of a ring hold few descriptors of the broker's process, and
// no others up.
func TestRingOffersThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	b, r := ringsHere(t)
	const hostile, each = 10, 30
	var peers []nearPeer
	for range hostile {
		p := mustDialNear(t, nearDoorOf(t, b))
		peers = append(peers, p)
		hi := ringTalk[0]
		hi.hello.window, hi.hello.number = 4<<10, 60_000 // it stays, and never beats
		if err := p.say(hi.message); err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, p)
		for i := range uint32(each) {
			for _, say := range ringTalk[2:7] { // until there is a WRITE
				m := say.message
				if m.channel += 2 * i; len(m.text) > 0 {
					m.text = fmt.Appendf(nil, "%d %d", len(peers), i)
				}
				if err := p.say(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	eventually(t, "all offers", func() bool { return b.Stats().Pipes == hostile*each && b.Stats().BytesIn == 4*hostile*each })
	if n := ringsOffered.Load(); n != mostOffered {
		t.Errorf("%d rings are offered", n)
	}
	rd, w := r.pipe("honest")
	if _, err := w.WriteString("by messages"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(rd, make([]byte, 11)); err != nil {
		t.Error(n, err)
	}
	for _, p := range peers {
		p.Close()
	}
	eventually(t, "nobody is offered a ring", func() bool { return ringsOffered.Load() == 0 })
	r.moved(rd, w)
}
