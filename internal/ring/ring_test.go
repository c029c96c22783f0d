package ring

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// newRing is a ring of that many bytes in plain memory; its bells count.
type ends struct {
	mem            []byte
	w              *Writer
	r              *Reader
	k              *Keeper
	wbell, rbell   int // rung to make the writer or the reader look
	pauses         int
	duringPause    func()
	written, taken []byte
}

func newEnds(t testing.TB, size int) *ends {
	e := &ends{mem: make([]byte, Header+size)}
	var err [3]error
	e.w, err[0] = NewWriter(e.mem, func() { e.rbell++ })
	e.r, err[1] = NewReader(e.mem, func() { e.wbell++ }, func() {
		e.pauses++
		if e.duringPause != nil {
			e.duringPause()
		}
	})
	e.k, err[2] = NewKeeper(e.mem, size)
	if err := errors.Join(err[:]...); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *ends) write(t testing.TB, b string) int {
	t.Helper()
	n, err := e.w.Write([]byte(b))
	if err != nil {
		t.Fatal("write:", err)
	}
	e.written = append(e.written, b[:n]...)
	return n
}

func (e *ends) read(t testing.TB, most int) string {
	t.Helper()
	b := make([]byte, most)
	n, err := e.r.Read(b)
	if err != nil {
		t.Fatal("read:", err)
	}
	e.taken = append(e.taken, b[:n]...)
	if !bytes.HasPrefix(e.written, e.taken) {
		t.Fatalf("read %q of what was written as %q", e.taken, e.written)
	}
	return string(b[:n])
}

func TestLayout(t *testing.T) {
	var h header
	for name, at := range map[string][2]uintptr{
		"written": {unsafe.Offsetof(h.written), 0},
		"staged":  {unsafe.Offsetof(h.staged), 8},
		"read":    {unsafe.Offsetof(h.read), 128},
		"rsleep":  {unsafe.Offsetof(h.rsleep), 256},
		"wsleep":  {unsafe.Offsetof(h.wsleep), 384},
		"closed":  {unsafe.Offsetof(h.closed), 512},
	} {
		if at[0] != at[1] {
			t.Errorf("%s is at %d, others have it at %d", name, at[0], at[1])
		}
	}
}

func TestMemory(t *testing.T) {
	const size = 100
	mem := make([]byte, Header+size)
	for name, mem := range map[string][]byte{
		"none": nil, "too little": mem[:Header], "none for data": mem[:Header-1], "not aligned": mem[1:],
	} {
		if _, err := NewWriter(mem, nil); err == nil {
			t.Errorf("%s: a writer", name)
		}
		if _, err := NewReader(mem, nil, nil); err == nil {
			t.Errorf("%s: a reader", name)
		}
	}
	if _, err := NewKeeper(mem[:Header], size); err != nil {
		t.Error("a keeper of a header:", err)
	}
	for _, size := range []int{-1, 0, MaxSize + 1} {
		if _, err := NewKeeper(mem, size); err == nil {
			t.Errorf("a keeper of %d bytes", size)
		}
	}
}

// A stream of any pieces arrives as it was written, whatever the ring's size.
func TestStream(t *testing.T) {
	for _, size := range []int{1, 2, 7, 1000, 100_000} {
		e := newEnds(t, size)
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		var sent, got []byte
		for len(got) < 300_000 && len(got) < 1000*size {
			b := make([]byte, 1+rng.IntN(min(100_000, 2*size)))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if rng.IntN(2) == 0 {
				b = b[:min(len(b), 1+rng.IntN(64))]
			}
			n, err := e.w.Write(b)
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, b[:n]...)
			if e.w.Written() != uint64(len(sent)) {
				t.Fatal("written", e.w.Written())
			}
			b = make([]byte, 1+rng.IntN(2*size))
			if n, err = e.r.Read(b); err != nil {
				t.Fatal(err)
			}
			if e.wbell > 0 {
				e.wbell = 0
				e.w.Rung()
			}
			got = append(got, b[:n]...)
			if !bytes.HasPrefix(sent, got) {
				t.Fatal("other bytes were read")
			}
			if uint64(len(got)) != e.r.Count() {
				t.Fatal("count", e.r.Count())
			}
		}
		if err := e.w.Push(); err != nil {
			t.Fatal(err)
		}
		final, err := e.k.Close()
		if err != nil || final != uint64(len(sent)) {
			t.Fatal("closed at", final, err)
		}
		if n, err := e.r.Read(make([]byte, 1)); n != 0 && len(got) == len(sent) || err != nil {
			t.Fatal("behind the close:", n, err)
		} else if n > 0 {
			got = append(got, sent[len(got)])
		}
		if err := e.r.End(final); err != nil {
			t.Fatal(err)
		}
		rest := make([]byte, len(sent))
		n, err := io.ReadFull(e.r, rest)
		if got = append(got, rest[:n]...); !bytes.Equal(got, sent) {
			t.Fatal("the rest is not what was sent", err)
		}
		if _, err := e.r.Read(rest); err != io.EOF {
			t.Fatal("at the end:", err)
		}
	}
}

func TestSmallWrites(t *testing.T) {
	e := newEnds(t, 100_000)
	e.read(t, 1) // sleeps
	e.write(t, "first")
	if e.rbell != 1 {
		t.Fatal("the reader sleeps and is not woken")
	}
	for range tuned.burst {
		e.write(t, "x")
	}
	if n := e.w.Gathered(); n != 0 {
		t.Errorf("%d bytes were gathered right after a bell", n)
	}
	e.write(t, "gathered")
	if n := e.w.Gathered(); n != 8 {
		t.Fatalf("%d bytes were gathered", n)
	}
	if n, err := e.w.Unread(); n != 13 || err != nil {
		t.Error("unread", n, err)
	}
	if got := e.read(t, 100); got != "firstxxxxxxxx" {
		t.Fatalf("read %q", got)
	}
	if e.write(t, ""); e.w.Gathered() != 8 {
		t.Error("nothing was written, and what was gathered is gone")
	}
	// A reader that is about to sleep waits a moment, and asks.
	if got := e.read(t, 100); got != "" || e.pauses != tuned.pauses || e.wbell != 1 {
		t.Fatalf("read %q, %d pauses, %d bells", got, e.pauses, e.wbell)
	}
	if err := e.w.Rung(); err != nil || e.rbell != 2 || e.w.Gathered() != 0 {
		t.Fatal("asked, the writer has not published", err, e.rbell)
	}
	if got := e.read(t, 100); got != "gathered" {
		t.Fatalf("read %q", got)
	}
	// It does not ask where the writer publishes meanwhile.
	for range tuned.burst + 1 {
		e.write(t, "y")
	}
	e.read(t, 100)
	e.wbell = 0
	e.duringPause = func() {
		if err := e.w.Push(); err != nil {
			t.Error(err)
		}
		e.r.rsleep.store(1) // as if it had not been seen
	}
	if got := e.read(t, 100); got != "y" || e.wbell != 0 || e.r.rsleep.load() != 0 {
		t.Fatalf("read %q, %d bells", got, e.wbell)
	}
	if err := e.w.Rung(); err != nil {
		t.Error("a bell for nothing:", err)
	}
	// Nor is it woken meanwhile: what a writer at work writes is there when it looks.
	e.duringPause = func() {
		e.write(t, "v")
		if looking := e.r.rsleep.load() == looks; looking != (e.w.Gathered() == 0) {
			t.Error("gathered for a reader that looks, or published for one that does not")
		}
	}
	for range tuned.burst + 1 {
		e.write(t, "w")
	}
	e.read(t, 100)
	e.rbell, e.wbell = 0, 0
	for range 10 {
		e.write(t, "u")
		if got := e.read(t, 100); got != "u"+strings.Repeat("v", tuned.pauses) || e.wbell != 0 || e.rbell != 0 || e.r.rsleep.load() != 0 {
			t.Fatalf("read %q, %d bells, %d for the reader", got, e.wbell, e.rbell)
		}
	}
	e.duringPause = nil
	// Enough of them is published, too, and so is what is in the way of a large one.
	for range tuned.burst + 1 {
		e.write(t, "z")
	}
	for e.w.Gathered() > 0 {
		e.write(t, "z")
	}
	if got := len(e.read(t, 1<<20)); got < tuned.gather-tuned.small {
		t.Errorf("%d bytes were gathered at most", got)
	}
	e.write(t, "small")
	e.write(t, string(make([]byte, tuned.small+1)))
	if got := e.read(t, 1<<20); len(got) != 5+tuned.small+1 {
		t.Errorf("read %d bytes", len(got))
	}
	// While the reader sleeps nothing is kept back.
	for range tuned.burst {
		e.write(t, "b")
	}
	e.read(t, 1<<20)
	e.read(t, 1)
	if e.write(t, "b"); e.w.Gathered() != 0 {
		t.Error("gathered for a reader that sleeps")
	}
}

func TestRoom(t *testing.T) {
	e := newEnds(t, 8)
	e.w.burst = 0
	if n := e.write(t, "123456"); n != 6 {
		t.Fatal("took", n)
	}
	if n := e.write(t, "789"); n != 2 {
		t.Fatal("took", n, "of 3 with room for 2")
	}
	if n := e.write(t, "9"); n != 0 || e.w.Gathered() != 0 {
		t.Fatal("took", n, "without room")
	}
	if e.wbell != 0 {
		t.Fatal("the bell rings for no reason")
	}
	if e.read(t, 1); e.wbell != 1 {
		t.Fatal("a byte is free, and the bell has not rung")
	}
	if n := e.write(t, "9"); n != 1 {
		t.Fatal("took", n)
	}
	if n := e.write(t, "abcdefgh"); n != 0 {
		t.Fatal("took", n)
	}
	// Many bytes: at half the ring.
	for i := range 4 {
		if e.wbell != 1 {
			t.Fatal("the bell rang at", i)
		}
		e.read(t, 1)
	}
	if e.wbell != 2 {
		t.Fatal("half the ring is free, and the bell has not rung")
	}
}

// A ring can hold less than there is memory for.
func TestLimit(t *testing.T) {
	e := newEnds(t, 100)
	e.w.Limit(4)
	if n := e.write(t, "123456"); n != 4 {
		t.Fatal("took", n)
	}
	if e.read(t, 1); e.wbell != 0 {
		t.Error("the bell rings for less than half of the limit")
	}
	if e.read(t, 1); e.wbell != 1 {
		t.Error("half of the limit is free, and the bell has not rung")
	}
	e.w.Limit(1)
	if n := e.write(t, "5"); n != 0 {
		t.Error("took", n, "above a limit that has fallen")
	}
	e.w.Limit(-1)
	if n := e.write(t, "5"); n != 0 {
		t.Error("took", n, "above a limit of nothing")
	}
	e.w.Limit(1000)
	if n := e.write(t, strings.Repeat("x", 200)); n != 98 {
		t.Error("took", n)
	}
}

// Where nobody is left to say where the end is, it is behind what was published.
func TestEndHere(t *testing.T) {
	e := newEnds(t, 100)
	e.write(t, "all")
	for range 2 {
		if err := e.r.EndHere(); err != nil {
			t.Fatal(err)
		}
		e.write(t, "behind")
	}
	if b, err := io.ReadAll(e.r); string(b) != "all" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	e.r.header.written.store(1 << 40)
	if err := e.r.EndHere(); err != nil {
		t.Error(err)
	}
	e = newEnds(t, 100)
	e.r.header.written.store(101)
	if err := e.r.EndHere(); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
}

func TestConfirmed(t *testing.T) {
	confirmed := func(e *ends, n, pending uint64) bool {
		t.Helper()
		sure, err := e.w.Confirmed(n, pending)
		if err != nil {
			t.Fatal(err)
		}
		return sure >= n && sure > 0
	}
	// A Write may wait at the same time, which needs half of the ring.
	for _, writeFirst := range []bool{true, false} {
		e := newEnds(t, 8)
		e.write(t, "12345678")
		if !confirmed(e, 5, 5) || !confirmed(e, 0, 5) {
			t.Error("the first bytes are not confirmed")
		}
		if sure, err := e.w.Settled(5); sure != 5 || err != nil {
			t.Error("settled", sure, err)
		}
		wait := []func(){
			func() {
				if n := e.write(t, "abcdef"); n != 0 {
					t.Fatal("took", n)
				}
			},
			func() {
				if confirmed(e, 8, 5) {
					t.Error("more is confirmed than may be pending")
				}
			},
		}
		if !writeFirst {
			wait[0], wait[1] = wait[1], wait[0]
		}
		wait[0]()
		wait[1]()
		for range 3 {
			if e.wbell != 0 {
				t.Fatal("rung too early")
			}
			e.read(t, 1)
		}
		if e.wbell != 1 || !confirmed(e, 8, 5) {
			t.Error("three bytes were read, and the writer that waited for that was not woken")
		}
		if _, err := e.k.Close(); err != nil {
			t.Fatal(err)
		}
		e.write(t, "behind")
		if confirmed(e, 4, 5) || !confirmed(e, 3, 5) {
			t.Error("in a ring that is closed what was taken is confirmed, and nothing else")
		}
		if sure, err := e.w.Settled(5); sure != 3 || err != nil {
			t.Error("settled", sure, err)
		}
	}
}

func TestKeeper(t *testing.T) {
	e := newEnds(t, 8)
	counts := func(w, r uint64) {
		t.Helper()
		if gotW, gotR, err := e.k.Counts(); gotW != w || gotR != r || err != nil {
			t.Errorf("counts %d and %d (%v), want %d and %d", gotW, gotR, err, w, r)
		}
	}
	e.write(t, "12345")
	e.read(t, 2)
	counts(5, 2)
	e.r.header.read.store(1000)
	counts(5, 5)
	e.r.header.written.store(1 << 60)
	e.r.header.read.store(0)
	counts(13, 5)
	e.r.header.written.store(0)
	counts(13, 5)
}

// What an honest end can't have put there is taken for what it is, and kept out of
// all that follows.
func TestBroken(t *testing.T) {
	broken := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, count := range map[string]uint64{"back": 3, "beyond": 9, "far beyond": 1<<64 - 1} {
		e := newEnds(t, 8)
		e.write(t, "12345678")
		e.read(t, 4)
		if n, err := e.w.Unread(); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		e.w.header.read.store(count)
		_, err := e.w.Unread()
		broken(name, err)
		e.w.header.read.store(4)
		_, err = e.w.Reserve(1)
		broken(name+": Reserve", err)
		_, err = e.w.Gather([]byte{1})
		broken(name+": Gather", err)
		_, err = e.w.Write([]byte{1})
		broken(name+": Write", err)
		_, err = e.w.Confirmed(0, 0)
		broken(name+": Confirmed", err)
		broken(name+": Push", e.w.Push())
		broken(name+": Rung", e.w.Rung())

		e = newEnds(t, 8)
		e.w.header.read.store(count)
		_, err = e.w.Write(make([]byte, 9))
		broken(name+": Write", err)
	}
	for name, count := range map[string]uint64{"back": 3, "beyond": 13, "far beyond": 1<<64 - 1} {
		e := newEnds(t, 8)
		e.write(t, "12345678")
		e.read(t, 4)
		e.r.header.written.store(count)
		_, err := e.r.Read(make([]byte, 8))
		broken(name, err)
		e.r.header.written.store(8)
		_, err = e.r.Read(make([]byte, 8))
		broken(name+": Read", err)

		e = newEnds(t, 8)
		e.write(t, "12345678")
		e.read(t, 4)
		broken(name+": End", e.r.End(count))
	}
}

func TestNoAllocations(t *testing.T) {
	e := newEnds(t, 1<<20)
	small, large, b := make([]byte, 64), make([]byte, 64<<10), make([]byte, 1<<20)
	run := func() {
		for range 10 {
			e.w.Write(small)
			e.w.Write(large)
			e.r.Read(b)
		}
		e.w.Push()
		e.w.Confirmed(e.w.Written(), 1<<20)
		e.k.Counts()
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
