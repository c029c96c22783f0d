package zpipes

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/ring"
)

// A castWorld is a broadcast whose ends' clients can have rings, and take what they are offered
// or not, while they come, go, stand still and are quiet.
type castWorld struct {
	*stage
	*rand.Rand
	lapse func()

	w       *line
	writing *ring.Writer // nil: it has no ring
	waits   bool         // a WRITE is not answered
	stream  []byte       // all that was written
	begins  []int        // where Writes did
	rings   int          // that were used

	readers []*castReader
}

type castReader struct {
	*line
	ring *ring.Reader // nil: none
	live bool
	got  []byte
	end  messageID // how it learned of the end; 0: it has not
	code causeCode
}

// ringOf is the one that was offered to a client last.
func (w *castWorld) ringOf(s *session) *stageRing {
	for i := len(w.stage.rings.given) - 1; ; i-- {
		if w.stage.rings.offered[i] == s {
			return w.stage.rings.given[i]
		}
	}
}

// hear has a reader's client do what it is told.
func (r *castReader) hear(w *castWorld) {
	for len(r.heard) > 0 {
		m, err := parse(r.heard[0])
		if r.heard = r.heard[1:]; err != nil {
			w.t.Fatal(err)
		}
		switch m.id {
		case msgInputOK, msgCloseOK:
		case msgReadOK:
			if r.live {
				w.t.Fatal("a READ_OK beside the ring")
			}
			r.got = append(r.got, m.chunk...)
		case msgOffer:
			if w.IntN(4) == 0 {
				r.move(moveNot, 0)
				break
			}
			r.ring = w.ringOf(r.session).reader(w.t)
			r.move(moveInto, 0)
		case msgMoved:
			if m.mode == moveInto {
				r.live = true
				w.rings++
				break
			}
			if r.live {
				if err := r.ring.End(uint64(m.count)); err != nil {
					w.t.Fatal(err)
				}
				for r.take(w, 1000) > 0 {
				}
			}
			r.ring, r.live = nil, false
		case msgReadEnd, msgReadFailed:
			r.end, r.code = m.id, m.code
		default:
			w.t.Fatal(shown(m))
		}
	}
}

// take reads from the ring.
func (r *castReader) take(w *castWorld, n int) int {
	b := make([]byte, n)
	n, err := r.ring.Read(b)
	if err != nil && err != io.EOF {
		w.t.Fatal(err)
	}
	r.got = append(r.got, b[:n]...)
	return n
}

func (w *castWorld) hear() {
	for len(w.w.heard) > 0 {
		m, err := parse(w.w.heard[0])
		if w.w.heard = w.w.heard[1:]; err != nil {
			w.t.Fatal(err)
		}
		switch {
		case m.id == msgWriteOK:
			w.waits = false
		case m.id == msgMoved:
		case m.id == msgOffer && m.size == 0:
			if w.writing == nil {
				w.t.Fatal("a ring is wanted that there is not")
			}
			if n, err := w.writing.Unread(); err != nil {
				w.t.Fatal(err)
			} else if n == 0 {
				w.w.move(moveOut, uint32(w.writing.Written()))
				w.writing = nil
			}
		case m.id == msgOffer && w.IntN(4) == 0:
			w.w.move(moveNot, 0)
		case m.id == msgOffer:
			w.writing = w.ringOf(w.w.session).writer(w.t)
			w.rings++
			w.w.move(moveInto, 0)
		default:
			w.t.Fatal(shown(m))
		}
	}
	for _, r := range w.readers {
		r.hear(w)
	}
}

func (w *castWorld) write() {
	if w.waits {
		return
	}
	b := make([]byte, 1+w.IntN(stageWindow))
	for i := range b {
		b[i] = byte(w.Uint32())
	}
	if w.writing == nil {
		w.begins, w.stream = append(w.begins, len(w.stream)), append(w.stream, b...)
		w.waits = true
		w.w.casts(string(b))
		return
	}
	w.writing.Mark()
	n, err := w.writing.Write(b)
	if err != nil {
		w.t.Fatal(err)
	}
	if n > 0 {
		w.begins, w.stream = append(w.begins, len(w.stream)), append(w.stream, b[:n]...)
	}
}

func (w *castWorld) step() {
	switch op := w.IntN(100); {
	case op < 3 && len(w.readers) < 5:
		r := &castReader{line: w.near().on(1).input("p").show().readWith(readAny|readStream, 1<<20, 0)}
		w.readers = append(w.readers, r)
	case op < 5 && len(w.readers) > 0:
		i := w.IntN(len(w.readers))
		w.readers[i].gone()
		w.readers = slices.Delete(w.readers, i, i+1)
	case op < 45:
		w.write()
	case op < 47 && w.lapse != nil:
		w.lapse()
		w.settle()
	case op < 50:
		w.quiet()
	case op < 52:
		w.pass(busyTime)
	case len(w.readers) > 0:
		if r := w.readers[w.IntN(len(w.readers))]; r.live {
			r.take(w, 1+w.IntN(2*stageWindow))
		}
	}
	w.hear()
}

// quiet has who has a ring that carries nothing give it back.
func (w *castWorld) quiet() {
	t := w.pipes.pipes()["p"]
	for _, p := range append([]*pipe{t}, t.cast.readers...) {
		p.lookAtDetour(w.now, false)
		p.lookAtDetour(w.now.Add(quietTime), false)
	}
	w.settle()
}

// Whoever reads a broadcast gets, through rings and messages and rings again, what was written
// from the beginning of a Write on, to the end or until it was too slow.
func TestPouredAndDrawnSimulated(t *testing.T) {
	used, slow, ended := 0, 0, 0
	for seed := range uint64(150) {
		st := newStage(t)
		st.rings = &stageRings{atOnce: true}
		w := &castWorld{stage: st, Rand: rand.New(rand.NewPCG(seed, 0))}
		st.pipes.later = func(_ time.Duration, f func()) func() {
			w.lapse = f
			return func() { w.lapse = nil }
		}
		w.w = st.near().on(1).cast("p", broadcastConfig{keep: w.IntN(2) * 500, patience: time.Second}).gets("OUTPUT_OK").show()
		for range 300 {
			w.step()
		}
		st.rings.atOnce = false
		for again := true; again; { // until all have all
			again = w.waits
			if w.writing != nil {
				n, err := w.writing.Unread()
				if err != nil {
					t.Fatal(err)
				}
				again = again || n > 0
			}
			for _, r := range w.readers {
				if r.live {
					again = r.take(w, 1000) > 0 || again
				}
			}
			w.hear()
		}
		w.w.close().gets("CLOSE_OK")
		w.hear()
		for i, r := range w.readers {
			at := bytes.LastIndex(w.stream, r.got)
			if len(r.got) > 0 && (at < 0 || !slices.Contains(w.begins, at)) {
				t.Fatalf("seed %d: reader %d got %d bytes that are none from a Write on", seed, i, len(r.got))
			}
			switch {
			case r.end == msgReadFailed && r.code == causeTooSlow:
				slow++
			case r.end == msgReadEnd && (len(r.got) == 0 || at+len(r.got) == len(w.stream)):
				ended++
			default:
				t.Fatalf("seed %d: reader %d got %d bytes of %d, from %d on, and %v", seed, i, len(r.got), len(w.stream), at, r.end)
			}
		}
		used += w.rings
		st.sawViolations(0)
		st.leavesNothing()
		(&pouredStage{stage: st}).paidNothing()
	}
	if used == 0 || slow == 0 || ended == 0 {
		t.Errorf("%d rings, %d ends and %d too slow", used, ended, slow)
	}
}
