//go:build linux && !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// FuzzRing has a stream go through a ring, both ends of which do this and that while anything
// is written into its header: what each of them, or the broker, sees of the others. All calls
// return in their time, no more is read than was written or the ring holds, and nothing is
// left when both ends are closed. A step of the input is what happens, and a number; where the
// ring is spoiled, the place, and 8 bytes.
func FuzzRing(f *testing.F) {
	for place := range byte(len(ringPlaces)) {
		for _, v := range []byte{0, 1, 7, 0xff} {
			spoils := append([]byte{ringSpoil, 0, place}, bytes.Repeat([]byte{v}, 8)...)
			for act := range byte(ringActs) {
				f.Add(append(append([]byte{ringWrite, 9}, spoils...), act, 200, ringRead, 255, ringCount, 0))
			}
		}
	}
	f.Add([]byte{ringWrite, 255, ringRead, 255, ringQuiet, 0, ringWrite, 2, ringRead, 9, ringWrite, 200, ringCloseWriter, 0, ringWriteTo, 0})
	rings(f)
	path := filepath.Join(f.TempDir(), "s")
	broker, err := BrokerConfig{Endpoints: []string{nearScheme + path}, MaxPending: 64 << 10}.NewBroker("")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { broker.Close() })
	client, err := ClientConfig{Window: 16 << 10}.NewClient(nearScheme + path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { client.Close() })
	n := 0
	f.Fuzz(func(t *testing.T, acts []byte) {
		n++
		r := &rig{T: t, way: byRing, client: client}
		rd, w := r.pipe(strconv.Itoa(n))
		r.moved(rd, w)
		broker.pipes.mu.Lock()
		p := broker.pipes.pipes()[strconv.Itoa(n)]
		broker.pipes.mu.Unlock()
		w.pipe.mu.Lock()
		mem := w.pipe.ring.mapping
		mem.Retain()
		w.pipe.mu.Unlock()
		defer mem.Release()
		r.within(4*soon, inBackground(func() (int, error) {
			ringPlay(t, p, rd, w, mem, acts)
			rd.Close()
			w.CloseWithError(errors.New("over"))
			return 0, nil
		}))
		eventually(t, "nothing is left", func() bool {
			s := broker.Stats()
			broker.rings.mu.Lock()
			defer broker.rings.mu.Unlock()
			return s.Pipes == 0 && len(broker.rings.of) == 0
		})
	})
}

// What a step of FuzzRing does.
const (
	ringWrite = iota
	ringFlush
	ringRead
	ringWriteTo
	ringSpoil
	ringCount
	ringQuiet
	ringBell
	ringCloseWriter
	ringCloseReader
	ringActs
)

func ringPlay(t *testing.T, p *pipe, rd *Reader, w *Writer, mem *ring.Mapping, acts []byte) {
	closed := false
	for step := 0; len(acts) > 1 && step < 50; step++ {
		act, n := acts[0]%ringActs, int(acts[1])
		acts = acts[2:]
		soon := time.Now().Add(2 * time.Millisecond)
		w.SetWriteDeadline(soon)
		rd.SetReadDeadline(soon)
		switch act {
		case ringWrite:
			if k, err := w.Write(make([]byte, n*n)); k > n*n || k < n*n && err == nil {
				t.Errorf("%d of %d bytes, %v", k, n*n, err)
			}
		case ringFlush:
			w.Flush()
		case ringRead:
			if k, err := rd.Read(make([]byte, n*n)); k > n*n || n > 0 && k == 0 && err == nil {
				t.Errorf("%d of %d bytes, %v", k, n*n, err)
			}
		case ringWriteTo:
			if _, err := rd.WriteTo(io.Discard); err == nil && !closed {
				t.Error("an end that nobody has made")
			}
		case ringSpoil:
			if len(acts) > 8 {
				spoilRing(mem.Bytes(), acts[:9])
				acts = acts[9:]
			}
		case ringCount:
			p.lookAtDetour(time.Now(), false)
		case ringQuiet:
			p.lookAtDetour(time.Now().Add(2*quietTime), true)
		case ringBell:
			for _, p := range []*pipe{rd.pipe, w.pipe} {
				p.mu.Lock()
				if g := p.ring; g != nil {
					g.bell.Ring()
				}
				p.mu.Unlock()
			}
		case ringCloseWriter:
			closed = true
			w.Close()
		case ringCloseReader:
			rd.Close()
		}
		if i, ok := p.info(time.Now()); ok && (i.Queued < 0 || i.Queued > 80<<10 || i.BytesOut > i.BytesIn) {
			t.Errorf("after step %d: %+v", act, i)
		}
	}
}
