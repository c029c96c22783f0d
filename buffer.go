package zpipes

import "sync"

// A segment is a piece of a pipe's bytes, with room before and after them for
// the head and the tail of a message: what came in as a WRITE, or was written
// by a goroutine of this process, goes out as a READ_OK without being copied.
type segment struct {
	next *segment
	buf  []byte
	r, w int // the unread bytes are buf[r:w]
	// end is where w must stop; what lies behind is the tail's. In a segment that
	// was received it is w: nothing is added to it.
	end  int
	pool *sync.Pool // where it goes back to; nil: to the garbage collector
}

const (
	largeSegment = 64 << 10
	// frameSegment is for what goes out over ZeroMQ: there a message costs some
	// wake-ups of other threads, whatever its size.
	frameSegment = 256 << 10
	smallSegment = 2<<10 - headRoom - tailBytes // with its room just a size class
	// headRoom, of which chunkOffset is used, keeps the bytes on a cache line's
	// boundary; copying costs a tenth more elsewhere.
	headRoom = 64
	// copyUpTo is the size to which received bytes are copied together; a frame
	// with more is kept as it came, since that costs little on top.
	copyUpTo = smallSegment
)

var (
	largePool = newSegmentPool(largeSegment)
	framePool = newSegmentPool(frameSegment)
	smallPool = newSegmentPool(smallSegment)
)

func newSegmentPool(size int) *sync.Pool {
	p := new(sync.Pool)
	p.New = func() any {
		return &segment{buf: make([]byte, headRoom+size+tailBytes), pool: p}
	}
	return p
}

func newSegment(pool *sync.Pool) *segment {
	c := pool.Get().(*segment)
	c.r, c.w = headRoom, headRoom
	c.end = len(c.buf) - tailBytes
	return c
}

// segmentFor makes one with room for n bytes, and for a message's head and tail.
func segmentFor(n int) *segment {
	switch {
	case n <= smallSegment:
		return newSegment(smallPool)
	case n <= largeSegment:
		return newSegment(largePool)
	case n <= frameSegment:
		return newSegment(framePool)
	}
	return &segment{buf: make([]byte, chunkOffset+n+tailBytes), r: chunkOffset, w: chunkOffset}
}

// adopt makes a segment of the bytes that m, a WRITE or READ_OK, brought in frame.
func adopt(frame []byte, m *message) *segment {
	w := chunkOffset + len(m.chunk)
	return &segment{buf: frame, r: chunkOffset, w: w, end: w}
}

// hold makes of a segment that has a frame one of the bytes that m, a WRITE or READ_OK,
// brought in it.
func (c *segment) hold(m *message) {
	c.r = headRoom
	c.w = c.r + len(m.chunk)
	c.end = c.w
}

func (c *segment) release() {
	if c == nil {
		return
	}
	c.next = nil
	if c.pool != nil {
		c.pool.Put(c)
	}
}

// disown has the garbage collector get it, since somebody reads it still.
func (c *segment) disown() { c.pool = nil }

func (c *segment) data() []byte { return c.buf[c.r:c.w] }
func (c *segment) free() []byte { return c.buf[c.w:c.end] }

// A buffer is a queue of bytes in segments. Its zero value is empty and holds no
// memory, nor does one that has been emptied.
type buffer struct {
	head, tail *segment
	n          int
	frames     bool // make segments of frameSegment bytes rather than largeSegment
	reserve    int  // bytes of a large segment that stay free for the tail of a message
}

func (b *buffer) pool() *sync.Pool {
	if b.frames {
		return framePool
	}
	return largePool
}

// grain is the size of the segments in which much is kept.
func (b *buffer) grain() int {
	if b.frames {
		return frameSegment - b.reserve
	}
	return largeSegment
}

// newSegment makes one for this buffer.
func (b *buffer) newSegment(pool *sync.Pool) *segment {
	c := newSegment(pool)
	if pool != smallPool {
		c.end -= b.reserve
	}
	return c
}

// write copies p to the end of the queue. large says that much will follow. Where p faults,
// what was copied before that is there.
func (b *buffer) write(p []byte, large bool) {
	for len(p) > 0 {
		t := b.tail
		if t == nil || t.w == t.end {
			// A second segment is a large one only after a full one of ours:
			// small writes between kept frames must not cost 64 KiB each.
			pool := smallPool
			if large || len(p) > smallSegment || t != nil && t.pool != nil {
				pool = b.pool()
			}
			t = b.newSegment(pool)
		}
		k := copy(t.free(), p)
		if t.w += k; t != b.tail {
			b.link(t)
		}
		b.n += k
		p = p[k:]
	}
}

// fill is write of what does not need another segment.
func (b *buffer) fill(p []byte) {
	k := copy(b.tail.free(), p)
	b.tail.w += k
	b.n += k
}

// spare is how many bytes can be written without another segment.
func (b *buffer) spare() int {
	if b.tail == nil {
		return 0
	}
	return len(b.tail.free())
}

func (b *buffer) link(c *segment) {
	if b.tail == nil {
		b.head = c
	} else {
		b.tail.next = c
	}
	b.tail = c
}

// push appends a segment, which is the buffer's from now on.
func (b *buffer) push(c *segment) {
	b.n += c.w - c.r
	b.link(c)
}

// pop takes the first segment out whole, if it has at most limit bytes; else nil.
func (b *buffer) pop(limit int) *segment {
	c := b.head
	if c == nil || c.w-c.r > limit {
		return nil
	}
	b.n -= c.w - c.r
	b.unlink()
	return c
}

func (b *buffer) unlink() {
	c := b.head
	b.head = c.next
	if b.head == nil {
		b.tail = nil
	}
	c.next = nil
}

// peek appends to segs the first limit bytes, in as many pieces as there is
// capacity for. They stay valid until they are consumed.
func (b *buffer) peek(segs [][]byte, limit int) [][]byte {
	for c := b.head; c != nil && limit > 0 && len(segs) < cap(segs); c = c.next {
		d := c.data()
		d = d[:min(len(d), limit)]
		limit -= len(d)
		segs = append(segs, d)
	}
	return segs
}

// consume drops the first n bytes.
func (b *buffer) consume(n int) {
	b.n -= n
	for n > 0 {
		c := b.head
		k := min(n, c.w-c.r)
		c.r += k
		n -= k
		if c.r == c.w {
			b.unlink()
			c.release()
		}
	}
}

// read copies out as many bytes as p holds or there are, and drops them.
func (b *buffer) read(p []byte) (n int) {
	for c := b.head; c != nil && n < len(p); c = c.next {
		n += copy(p[n:], c.data())
	}
	b.consume(n)
	return n
}

// truncate drops the last n bytes.
func (b *buffer) truncate(n int) {
	keep := b.n - n
	b.n = keep
	if keep == 0 {
		b.clear()
		return
	}
	c := b.head
	for c.w-c.r < keep {
		keep -= c.w - c.r
		c = c.next
	}
	c.w = c.r + keep
	for d := c.next; d != nil; {
		next := d.next
		d.release()
		d = next
	}
	c.next = nil
	b.tail = c
}

func (b *buffer) clear() {
	for b.head != nil {
		c := b.head
		b.unlink()
		c.release()
	}
	b.n = 0
}
