package zpipes

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
)

// scripted is a source of chance that is the same in every run.
func scripted(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// A stream makes bytes of which each tells its place, so that a byte that was
// lost, doubled or overwritten shows.
type stream struct{ made int }

func (s *stream) next(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		at := s.made + i
		b[i] = byte(at ^ at>>8*31 ^ at>>16*17)
	}
	s.made += n
	return b
}

// contents is what a buffer holds, without taking it out.
func contents(b *buffer) []byte {
	var all []byte
	for c := b.head; c != nil; c = c.next {
		all = append(all, c.data()...)
	}
	return all
}

// memoryOf is how much memory a buffer keeps from others.
func memoryOf(b *buffer) int {
	var n int
	for c := b.head; c != nil; c = c.next {
		n += cap(c.buf) + int(reflect.TypeFor[segment]().Size())
	}
	return n
}

// received makes the frame of a WRITE, and what it is parsed to. behind is how
// many bytes follow the message.
func received(data []byte, block blockState, behind int) ([]byte, *message) {
	sent := message{id: msgWrite, chunk: data, block: block}
	frame := append(sent.append(nil), make([]byte, behind)...)
	m, err := parse(frame)
	if err != nil {
		panic(err)
	}
	return frame, &m
}

// A bufferModel plays with a buffer, and with the slice of bytes that it stands
// for.
type bufferModel struct {
	buffer
	want   []byte
	source stream
}

// step does one thing at random and returns its name.
func (m *bufferModel) step(t *testing.T, r *rand.Rand) string {
	size := r.IntN(100)
	if r.IntN(4) == 0 {
		size = r.IntN(2 * largeSegment)
	}
	some := min(size, m.n)
	switch op := r.IntN(12); {
	case op < 3 && m.n < 4*largeSegment:
		data := m.source.next(size)
		m.write(data, r.IntN(4) == 0)
		m.want = append(m.want, data...)
		return "write"
	case op == 3 && m.n < 4*largeSegment && size > 0:
		data := m.source.next(size)
		m.push(adopt(received(data, noBlock, 0)))
		m.want = append(m.want, data...)
		return "push of a frame"
	case op == 4 && m.n < 4*largeSegment:
		data := m.source.next(1 + size%largeSegment)
		c := newSegment(largePool)
		c.w += copy(c.free(), data)
		m.push(c)
		m.want = append(m.want, data...)
		return "push"
	case op == 5:
		first := 0
		if m.head != nil {
			first = len(m.head.data())
		}
		c := m.pop(size)
		if (c != nil) != (first > 0 && first <= size) {
			t.Fatalf("pop(%d) gave %v where the first chunk has %d bytes", size, c, first)
		}
		if c != nil {
			m.expect(t, "pop", c.data())
			c.release()
		}
		return "pop"
	case op == 6 || op == 7:
		most := 1 + r.IntN(4)
		segs := m.peek(make([][]byte, 0, most), size)
		got := slices.Concat(segs...)
		if len(got) > size || len(segs) > most || slices.ContainsFunc(segs, isEmpty) || some > 0 && len(segs) == 0 {
			t.Fatalf("peek(%d) gave %d of %d bytes", size, len(got), m.n)
		}
		m.consume(len(got))
		m.expect(t, "peek", got)
		return "peek and consume"
	case op < 10:
		p := make([]byte, size)
		if n := m.read(p); n != some {
			t.Fatalf("read of %d bytes out of %d gave %d", size, m.n+n, n)
		}
		m.expect(t, "read", p[:some])
		return "read"
	case op == 10:
		m.truncate(some)
		m.want = m.want[:len(m.want)-some]
		return "truncate"
	case r.IntN(50) == 0:
		m.clear()
		m.want = nil
		return "clear"
	}
	return "nothing"
}

func isEmpty(b []byte) bool { return len(b) == 0 }

// expect wants got to be the bytes that were first in the queue, and drops them.
func (m *bufferModel) expect(t *testing.T, op string, got []byte) {
	t.Helper()
	if !bytes.Equal(got, m.want[:len(got)]) {
		t.Fatalf("%s: %d bytes that are not the first in the queue", op, len(got))
	}
	m.want = m.want[len(got):]
}

// check looks at all that must be true between two steps.
func (m *bufferModel) check(t *testing.T, whole bool) {
	t.Helper()
	var n int
	var last *segment
	for c := m.head; c != nil; last, c = c, c.next {
		if len(c.data()) == 0 {
			t.Fatal("an empty chunk in the queue")
		}
		n += len(c.data())
	}
	if n != len(m.want) || m.n != n || m.tail != last {
		t.Fatalf("n is %d and the chunks hold %d of %d bytes (the tail is the last: %v)", m.n, n, len(m.want), m.tail == last)
	}
	if whole && !bytes.Equal(contents(&m.buffer), m.want) {
		t.Fatal("the bytes are not those that were written")
	}
}

// Several buffers take turns, so that a chunk which goes back to its pool too
// early is soon overwritten by another one.
func TestBufferIsAQueueOfBytes(t *testing.T) {
	for seed := range uint64(3) {
		r := scripted(seed)
		var models [3]bufferModel
		for i := range 3000 {
			m := &models[r.IntN(len(models))]
			op := m.step(t, r)
			m.check(t, i%100 == 0)
			if t.Failed() {
				t.Fatalf("seed %d, step %d: %s", seed, i, op)
			}
		}
		for i := range models {
			m := &models[i]
			m.check(t, true)
			m.consume(m.n)
			if m.head != nil || m.tail != nil {
				t.Errorf("seed %d: an emptied buffer holds memory", seed)
			}
		}
	}
}

func TestBufferEmptiedHoldsNoMemory(t *testing.T) {
	for name, empty := range map[string]func(b *buffer){
		"read":     func(b *buffer) { b.read(make([]byte, b.n)) },
		"consume":  func(b *buffer) { b.consume(b.n) },
		"truncate": func(b *buffer) { b.truncate(b.n) },
		"clear":    func(b *buffer) { b.clear() },
		"pop": func(b *buffer) {
			for b.n > 0 {
				b.pop(b.n).release()
			}
		},
	} {
		var b buffer
		b.write(make([]byte, 100), false)
		b.push(adopt(received(make([]byte, 5000), noBlock, 0)))
		b.write(make([]byte, 2*largeSegment), true)
		empty(&b)
		if b != (buffer{}) {
			t.Errorf("%s leaves %+v", name, b)
		}
	}
}

// What a WRITE brought goes out as a READ_OK, in the memory in which it came.
func TestBufferSegmentIsFramedInPlace(t *testing.T) {
	pooled := func(pool *sync.Pool) *segment {
		c := newSegment(pool)
		c.w += copy(c.free(), bytes.Repeat([]byte("full "), largeSegment))
		return c
	}
	for name, fresh := range map[string]func() *segment{
		"small":            func() *segment { return pooled(smallPool) },
		"large":            func() *segment { return pooled(largePool) },
		"received":         func() *segment { return adopt(received([]byte("from afar"), hasBlock, 0)) },
		"half read":        func() *segment { c := pooled(smallPool); c.r += 700; return c },
		"with one byte":    func() *segment { c := pooled(smallPool); c.r = c.w - 1; return c },
		"with no byte yet": func() *segment { return newSegment(smallPool) },
	} {
		for _, want := range []message{
			{id: msgReadOK},
			{id: msgReadOK, block: hasBlock, channel: 0x01020304},
			{id: msgWrite},
			{id: msgWrite, block: hasBlock, channel: 0xfffefdfc},
		} {
			t.Run(fmt.Sprintf("%s as %s, block %v", name, frameName(want), want.block != noBlock), func(t *testing.T) {
				c := fresh()
				want.chunk = bytes.Clone(c.data())
				frame := c.frame(want.id, want.block, want.channel)
				if !bytes.Equal(frame, want.append(nil)) {
					t.Errorf("% .40x..., want % .40x...", frame, want.append(nil))
				}
				if len(frame) > chunkOffset && &frame[chunkOffset] != &c.buf[c.r] {
					t.Error("the bytes were copied")
				}
			})
		}
	}
}

// A WRITE of a client of the base protocol has no room for a block behind it.
func TestBufferSegmentWithoutRoomIsFramedAllTheSame(t *testing.T) {
	frame, m := received([]byte("from a base client"), noBlock, 0)
	frame = slices.Clip(frame)
	c := adopt(frame, m)
	got := c.frame(msgReadOK, hasBlock, 5)
	want := message{id: msgReadOK, chunk: []byte("from a base client"), block: hasBlock, channel: 5}
	if !bytes.Equal(got, want.append(nil)) {
		t.Errorf("% x, want % x", got, want.append(nil))
	}
}

// Much is kept in large pieces, which few copies and few messages move.
func TestBufferManyBytesNeedFewSegments(t *testing.T) {
	const much = 16 * frameSegment
	for name, fill := range map[string]func(p *pipe){
		"one write": func(p *pipe) { p.write(make([]byte, much)) },
		"small writes": func(p *pipe) {
			for p.buf.n < much {
				p.write(make([]byte, 100))
			}
		},
		"small WRITEs": func(p *pipe) {
			for p.buf.n < much {
				p.take(received(make([]byte, 100), hasBlock, 0))
			}
		},
		"a WRITE that is copied": func(p *pipe) {
			p.take(received(make([]byte, much), hasBlock, 100))
		},
	} {
		for _, frames := range []bool{false, true} {
			p := pipe{buf: buffer{frames: frames}}
			fill(&p)
			var chunks int
			for c := p.buf.head; c != nil; c = c.next {
				chunks++
			}
			size := largeSegment
			if frames {
				size = frameSegment
			}
			if most := much/size + 2; chunks > most {
				t.Errorf("%s, for frames %v: %d chunks for %d bytes, want at most %d", name, frames, chunks, p.buf.n, most)
			}
			if got := len(newSegment(p.buf.pool()).free()); got != size || p.buf.grain() != size {
				t.Errorf("for frames %v: chunks of %d bytes, grain %d, want %d", frames, got, p.buf.grain(), size)
			}
		}
	}
}

// What was read is used for what comes next. (With the race detector, a pool
// loses every fourth chunk, which rounds to no allocation.)
func TestBufferSteadyStreamDoesNotAllocate(t *testing.T) {
	for _, size := range []int{1, smallSegment, smallSegment + 1, largeSegment} {
		var b buffer
		data, back := make([]byte, size), make([]byte, size)
		if n := testing.AllocsPerRun(200, func() {
			b.write(data, false)
			b.read(back)
		}); n != 0 {
			t.Errorf("%v allocations to pass on %d bytes", n, size)
		}
		if n := testing.AllocsPerRun(200, func() {
			b.write(data, false)
			b.pop(size).release()
		}); n != 0 {
			t.Errorf("%v allocations to pop %d bytes", n, size)
		}
	}
}

// Most pipes hold little at a time, and there may be many.
func TestBufferFewBytesCostLittle(t *testing.T) {
	const little = 2 * (smallSegment + 100)
	for name, fill := range map[string]func(p *pipe){
		"written":  func(p *pipe) { p.write(make([]byte, 1)) },
		"received": func(p *pipe) { p.take(received(make([]byte, 1), hasBlock, 0)) },
		"some received": func(p *pipe) {
			for range 10 {
				p.take(received(make([]byte, smallSegment/10), hasBlock, 0))
			}
		},
		"in the room of what was read": func(p *pipe) {
			p.write(make([]byte, smallSegment))
			p.confirm(smallSegment)
			p.read(make([]byte, smallSegment))
			p.write(make([]byte, 1))
		},
	} {
		var p pipe
		if fill(&p); memoryOf(&p.buf) > little {
			t.Errorf("%s: %d bytes of memory for %d bytes in the pipe", name, memoryOf(&p.buf), p.buf.n)
		}
	}
}

// A pipe is bounded by the bytes in it. That bounds its memory only if a byte
// never costs much more than itself, whatever the sizes of the messages are.
func TestBufferBytesCostLittleMoreThanThemselves(t *testing.T) {
	take := func(sizes ...int) func(*pipe, int) {
		return func(p *pipe, i int) {
			p.take(received(make([]byte, sizes[i%len(sizes)]), hasBlock, 0))
		}
	}
	for name, fill := range map[string]func(p *pipe, i int){
		"single bytes":                        take(1),
		"small ones":                          take(100),
		"those that are just copied":          take(copyUpTo),
		"those that are just kept":            take(copyUpTo + 1),
		"large ones":                          take(largeSegment),
		"a byte, a frame":                     take(1, 3000),
		"just copied, just kept":              take(copyUpTo, copyUpTo+1),
		"2000 bytes, a frame":                 take(2000, 3000),
		"more than a small chunk, a frame":    take(1000, 1500, 3000),
		"more than that, a frame":             take(1000, 1500, 3000, 40000),
		"kept, with all of a frame behind it": func(p *pipe, i int) { p.take(received(make([]byte, 3000), hasBlock, largeSegment)) },
		"a byte, a chunk of the window": func(p *pipe, i int) {
			p.write(make([]byte, 1))
			c := newSegment(largePool)
			c.w += largeSegment/2 + 1
			p.push(c)
		},
		"any sizes": func(p *pipe, i int) {
			n := 1 + i*7919%(2*copyUpTo)
			p.take(received(make([]byte, n), blockState(i%2)*hasBlock, 0))
		},
	} {
		var p pipe
		for i := 0; p.buf.n < 8*largeSegment; i++ {
			fill(&p, i)
		}
		if got, most := memoryOf(&p.buf), p.buf.n*5/2; got > most {
			t.Errorf("%s: %d bytes of memory for %d bytes in the pipe, want at most %d", name, got, p.buf.n, most)
		}
	}
}
