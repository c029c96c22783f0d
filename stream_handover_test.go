//go:build cgo && !core

package zpipes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// A handing is a pipe in this process, whose Writer gives bytes straight to Reads that wait.
type handing struct {
	*testing.T
	broker *Broker
	r      *Reader
	w      *Writer
}

func startHanding(t *testing.T) *handing {
	t.Helper()
	h := &handing{T: t, broker: startBroker(t, BrokerConfig{})}
	var err error
	if h.r, err = h.broker.Client().OpenReader(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if h.w, err = h.broker.Client().OpenWriter(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	return h
}

// reads begins a Read, and returns when it waits.
func (h *handing) reads(b []byte) <-chan result {
	h.Helper()
	done := inBackground(func() (int, error) { return h.r.Read(b) })
	h.until("a Read waits", func(p *pipe) bool { return p.waits })
	return done
}

func (h *handing) until(what string, is func(p *pipe) bool) {
	h.Helper()
	eventually(h, what, func() bool {
		h.r.pipe.mu.Lock()
		defer h.r.pipe.mu.Unlock()
		return is(h.r.pipe)
	})
}

func (h *handing) counted(in, out int) {
	h.Helper()
	if s := h.broker.Stats(); s.BytesIn != int64(in) || s.BytesOut != int64(out) {
		h.Errorf("%d bytes in and %d out are counted, want %d and %d", s.BytesIn, s.BytesOut, in, out)
	}
}

// A Read that waits has the first bytes of a Write, however many both are, and the others
// come behind.
func TestHandoverOfAllSizes(t *testing.T) {
	sizes := []int{1, 100, pinAbove, pinAbove + 1, stayFrom, largeSegment, 1 << 20}
	h := startHanding(t)
	total := 0
	for _, room := range sizes {
		for _, n := range sizes {
			data, b := noise(uint64(room+n), n), make([]byte, room)
			done := h.reads(b)
			if k, err := h.w.Write(data); k != n || err != nil {
				t.Fatalf("a Write of %d: %d, %v", n, k, err)
			}
			h.until("all is counted", func(p *pipe) bool { return p.in == int64(total+n) })
			if err := h.w.Flush(); n <= room && err != nil {
				t.Fatalf("Flush of %d bytes that have been read: %v", n, err)
			}
			got := <-done
			if got.n != min(n, room) || got.err != nil {
				t.Fatalf("a Read of %d gets %d of %d bytes, %v", room, got.n, n, got.err)
			}
			rest := make([]byte, n-got.n)
			if _, err := io.ReadFull(h.r, rest); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(append(b[:got.n:got.n], rest...), data) {
				t.Fatalf("a Read of %d and what is left of %d bytes are not what was written", room, n)
			}
			total += n
			h.counted(total, total)
		}
	}
}

// Whatever happens to a pipe while a Write copies into the buffer of a Read, that Read
// returns with these bytes, after the copy: nobody writes into its buffer behind its back.
func TestHandoverIsFinishedWhateverHappens(t *testing.T) {
	why := errors.New("enough")
	for name, happens := range map[string]func(h *handing){
		"the read deadline":         func(h *handing) { h.r.SetReadDeadline(time.Unix(1, 0)) },
		"the reader closes":         func(h *handing) { h.r.Close() },
		"the reader gives up":       func(h *handing) { h.r.CloseWithError(why) },
		"the writer gives up":       func(h *handing) { h.w.CloseWithError(why) },
		"the writer closes":         func(h *handing) { h.w.Close() },
		"the broker closes":         func(h *handing) { h.broker.Close() },
		"both close":                func(h *handing) { h.w.Close(); h.r.Close() },
		"nothing, but it is woken":  func(h *handing) { h.r.cond.Broadcast() },
		"another Read looks for it": func(h *handing) { h.r.SetReadDeadline(time.Unix(1, 0)); h.r.Read(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := startHanding(t)
			b, p := make([]byte, 100), h.r.pipe
			done := h.reads(b)
			p.mu.Lock()
			to := p.lend(40)
			p.mu.Unlock()
			happens(h)
			select {
			case got := <-done:
				t.Fatalf("Read returned %d, %v while its buffer was written to", got.n, got.err)
			case <-time.After(20 * time.Millisecond):
			}
			data := noise(1, 40)
			copy(to, data)
			p.mu.Lock()
			p.gave()
			p.mu.Unlock()
			if got := <-done; got.n != 40 || got.err != nil || !bytes.Equal(b[:40], data) {
				t.Errorf("Read: %d, %v, or other bytes", got.n, got.err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.in != 40 || p.out != 40 || p.waits || p.into != nil {
				t.Errorf("%d bytes in and %d out are counted; a Read waits: %v", p.in, p.out, p.waits)
			}
		})
	}
}

// A Write that waits until the Read goes on that it has served has written all the same.
func TestHandoverWriteThatWaitsForTheReader(t *testing.T) {
	for name, happens := range map[string]func(h *handing){
		"the reader goes on": func(h *handing) {
			h.r.pipe.mu.Lock()
			defer h.r.pipe.mu.Unlock()
			h.r.pipe.collect()
		},
		"the write deadline": func(h *handing) { h.w.SetWriteDeadline(time.Unix(1, 0)) },
		"the writer closes":  func(h *handing) { go h.w.Close() },
		"the writer is torn": func(h *handing) { go h.w.CloseWithError(io.ErrNoProgress) },
		"the reader closes":  func(h *handing) { h.r.Close() },
		"the broker closes":  func(h *handing) { go h.broker.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := startHanding(t)
			p, b := h.r.pipe, make([]byte, 2*stayFrom)
			p.mu.Lock()
			p.offer(b) // a Read that does not go on
			p.mu.Unlock()
			data := noise(2, len(b))
			done := inBackground(func() (int, error) { return h.w.Write(data) })
			h.until("a Write waits for the Read", func(p *pipe) bool { return p.stays })
			select {
			case got := <-done:
				t.Fatalf("Write returned %d, %v", got.n, got.err)
			case <-time.After(5 * time.Millisecond):
			}
			happens(h)
			if got := <-done; got.n != len(b) || got.err != nil || !bytes.Equal(b, data) {
				t.Errorf("Write: %d, %v, or other bytes", got.n, got.err)
			}
			h.until("no Write waits", func(p *pipe) bool { return !p.stays })
		})
	}
}

// One that comes late does not wait: the ends work at the same time.
func TestHandoverBusyWriterDoesNotWait(t *testing.T) {
	h := startHanding(t)
	p, b := h.r.pipe, make([]byte, stayFrom)
	p.mu.Lock()
	p.offer(b)
	h.w.left, h.w.away = time.Now().Add(-time.Second), time.Second
	p.mu.Unlock()
	done := inBackground(func() (int, error) { return h.w.Write(make([]byte, stayFrom)) })
	select {
	case got := <-done:
		if got.n != stayFrom || got.err != nil {
			t.Errorf("Write: %d, %v", got.n, got.err)
		}
	case <-time.After(soon):
		t.Error("the Write waits for the Read")
	}
}

// Deadlines that come at the same moment as bytes lose none, and give none twice.
// A large Write tells how busy its writer is, also where it goes behind what nobody has read.
func TestHandoverLargeWriteBehindOthers(t *testing.T) {
	h := startHanding(t)
	for range 2 {
		h.w.left = time.Time{}
		if n, err := h.w.Write(make([]byte, stayFrom)); n != stayFrom || err != nil {
			t.Fatal(n, err)
		}
		if h.w.left.IsZero() {
			t.Error("it is not known when it returned")
		}
	}
}

func TestHandoverAndDeadlines(t *testing.T) {
	h := startHanding(t)
	data := noise(3, 4<<20)
	go func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		for rest := data; len(rest) > 0; {
			h.w.SetWriteDeadline(time.Now().Add(time.Duration(rnd.IntN(200)) * time.Microsecond))
			n, err := h.w.Write(rest[:min(len(rest), 1+rnd.IntN(1<<rnd.IntN(18)))])
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
				break
			}
			rest = rest[n:]
		}
		h.w.SetWriteDeadline(time.Time{})
		h.w.Close()
	}()
	rnd := rand.New(rand.NewPCG(2, 2))
	var got []byte
	b := make([]byte, 100_000)
	for {
		h.r.SetReadDeadline(time.Now().Add(time.Duration(rnd.IntN(200)) * time.Microsecond))
		n, err := h.r.Read(b[:1+rnd.IntN(1<<rnd.IntN(17))])
		got = append(got, b[:n]...)
		clear(b) // which the race detector compares with what the Write does
		if n > 0 && err != nil {
			t.Fatalf("Read: %d, %v", n, err)
		}
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, data) {
		t.Errorf("read %d bytes that are not the %d written", len(got), len(data))
	}
	h.counted(len(data), len(data))
}

// Each of several Reads at the same time gets bytes that follow each other.
func TestHandoverToReadsAtTheSameTime(t *testing.T) {
	h := startHanding(t)
	const numbers = 200_000
	go func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		var all []byte
		for i := range numbers {
			all = binary.BigEndian.AppendUint32(all, uint32(i))
		}
		for len(all) > 0 {
			n := min(len(all), 4*(1+rnd.IntN(1<<rnd.IntN(14))))
			h.w.Write(all[:n])
			all = all[n:]
		}
		h.w.Close()
	}()
	var mu sync.Mutex
	seen := make([]bool, numbers)
	together(3, func(who int) {
		rnd := rand.New(rand.NewPCG(2, uint64(who)))
		b := make([]byte, 64<<10)
		for {
			n, err := h.r.Read(b[:4*(1+rnd.IntN(1<<rnd.IntN(14)))])
			mu.Lock()
			for i := 0; i < n; i += 4 {
				x := int(binary.BigEndian.Uint32(b[i:]))
				if seen[x] || i > 0 && x != int(binary.BigEndian.Uint32(b[i-4:]))+1 {
					t.Errorf("%d is out of place", x)
				}
				seen[x] = true
			}
			mu.Unlock()
			if err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				return
			}
		}
	})
	for i, was := range seen {
		if !was {
			t.Fatalf("%d is missing", i)
		}
	}
}

// What came through before one of the two ends at some moment is the beginning of what was
// written, and after a Close that says so all of it.
func TestHandoverAndEndsAtAnyMoment(t *testing.T) {
	data := noise(4, 1<<20)
	for i := range 40 {
		h := startHanding(t)
		var written int
		var closed error
		done := make(chan error, 1)
		go func() {
			for rest := data; len(rest) > 0; {
				n, err := h.w.Write(rest[:min(len(rest), 70_000)])
				written, rest = written+n, rest[n:]
				if err != nil {
					break
				}
			}
			closed = h.w.Close()
			done <- nil
		}()
		after := time.Duration(rand.IntN(400)) * time.Microsecond
		switch i % 4 {
		case 0:
			time.AfterFunc(after, func() { h.w.Close() })
		case 1:
			time.AfterFunc(after, func() { h.w.CloseWithError(fmt.Errorf("enough")) })
		case 2:
			time.AfterFunc(after, func() { h.r.Close() })
		case 3:
			time.AfterFunc(after, func() { h.broker.Close() })
		}
		var got []byte
		var err error
		b := make([]byte, 100_000)
		for err == nil {
			var n int
			n, err = h.r.Read(b)
			got = append(got, b[:n]...)
			clear(b)
		}
		h.r.Close()
		<-done
		if len(got) > written || !bytes.Equal(got, data[:len(got)]) {
			t.Fatalf("%d: read %d bytes that are not the first of the %d written", i%4, len(got), written)
		}
		if err == io.EOF && closed == nil && len(got) != written {
			t.Fatalf("%d: a clean end after %d of %d bytes", i%4, len(got), written)
		}
		h.broker.Close()
	}
}
