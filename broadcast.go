package zpipes

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"time"
)

// A broadcast is a stream with any number of readers, each of which gets all. The writer's
// end is at the trunk, a pipe whose buffer has the bytes once, and each reader's at a branch,
// a pipe that has a place in that buffer and no bytes. All of them share the trunk's mu,
// which guards what is here, too.
//
// The buffer has what the slowest reader has yet to read, and what is kept for who comes
// late. The slowest holds the writer up when it is as far behind as the reader of a stream
// may be, see pipe.bound.
type broadcast struct {
	broadcastConfig
	registry *registry
	trunk    *pipe

	readers cursors // the branches
	joining []*pipe // those of them that begin where the next Write does
	waiting []*pipe // those that waited for bytes when they were last told of some
	told    int64   // up to where that was
	relays  []*pipe // the branches of readers at other brokers
	more    int     // how many readers those stand for, besides one each
	sure    int     // how many readers know that they are open
	begun   bool    // as many have come as the writer waits for
	heard   bool    // the cluster knows of one
	base    int64   // where the trunk's buffer begins

	needs int64 // how many bytes are to be taken before a writer at another broker can go on

	// Since the readers last began to hold the writer up:
	held  bool
	from  int64  // what had been taken then
	until int64  // what is to be taken before the patience is over
	turn  int    // how often that was
	calm  func() // stops the clock
}

// A broadcastConfig is what the writer asks for.
type broadcastConfig struct {
	keep     int // bytes that one who comes late gets first
	await    int // so many readers before anything is taken
	patience time.Duration
}

// A cursor is a reader's place in a broadcast.
type cursor struct {
	at     int64    // the next byte; later: not known yet
	seg    *segment // has it; nil: to be looked for. Not to be looked at where at is the broadcast's base
	pos    int      // in its buf
	index  int      // in the broadcast's readers
	awaits bool     // it is in waiting
	missed int64    // of who was left behind: what there was then, and it has not read
	far    *farBranch
}

// later is where a reader is that begins with the next Write.
const later = math.MaxInt64

// cursors are a heap, with the slowest at its top.
type cursors []*pipe

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return c[i].at < c[j].at }

func (c cursors) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].index, c[j].index = i, j
}

func (c *cursors) Push(x any) {
	p := x.(*pipe)
	p.index = len(*c)
	*c = append(*c, p)
}

func (c *cursors) Pop() any {
	last := len(*c) - 1
	p := (*c)[last]
	(*c)[last] = nil
	*c = (*c)[:last]
	return p
}

// configure is for when the writer comes.
func (c *broadcast) configure(cfg broadcastConfig) {
	c.broadcastConfig, c.begun, c.needs = cfg, false, 0
	c.changed()
}

// end is behind the last byte that was taken.
func (c *broadcast) end() int64 { return c.base + int64(c.trunk.buf.n-c.trunk.unconfirmed) }

// lag is how far the slowest reader is behind.
func (c *broadcast) lag() int {
	if len(c.readers) == 0 {
		return 0
	}
	return c.behind(c.readers[0])
}

// allows is how many bytes may be taken at once, which nobody holds who does not read.
func (c *broadcast) allows() int {
	if len(c.readers) == 0 || c.readers[0].at == later {
		return math.MaxInt
	}
	return int(c.readers[0].at-c.end()) + c.trunk.bound()
}

// behind is how many bytes there are for a reader.
func (c *broadcast) behind(p *pipe) int { return int(max(0, c.end()-p.at)) }

// wanted is for how many bytes the slowest reader waits.
func (c *broadcast) wanted() int {
	if len(c.readers) == 0 {
		return 0
	}
	return c.readers[0].reader.want
}

// starved says that the slowest reader waits for more than there is, or there is none.
func (c *broadcast) starved() bool { return len(c.readers) == 0 || c.lag() < c.wanted() }

// join brings a reader. It begins where the first Write does of what is kept, or has not
// been taken yet.
func (c *broadcast) join(p *pipe) {
	p.at, p.seg = later, nil
	if m := c.trunk.begins; m.n > 0 {
		p.at = m.first
	} else {
		c.joining = append(c.joining, p)
	}
	heap.Push(&c.readers, p)
	if p.far != nil {
		p.far.begins, p.far.ahead = c.trunk.begins.clone(), c.trunk.begins.clone()
		c.relays = append(c.relays, p)
	}
}

// joinAt has readers begin at a Write that does so there.
func (c *broadcast) joinAt(at int64) {
	for _, p := range c.joining {
		p.at = at
		heap.Fix(&c.readers, p.index)
	}
	c.joining = nil
	c.marked(at)
}

// shown counts a reader that knows that it is open.
func (c *broadcast) shown(p *pipe) {
	c.sure += p.heads()
	c.changed()
}

// changed is called when readers have come or gone.
func (c *broadcast) changed() {
	c.begun = c.begun || c.sure >= c.await
	c.trunk.mayTake(c.begun && (c.await == 0 || c.sure > 0))
	if heard := c.sure > 0; heard != c.heard {
		c.heard = heard
		c.trunk.rendezvous.changed()
	}
	if c.fed() {
		c.trunk.wakeSide(&c.trunk.writer) // it is told how many there are
	}
}

// part takes a reader away.
func (c *broadcast) part(p *pipe) {
	c.drop(p)
	c.registry.left(p)
	c.changed()
	if c.fed() && len(c.readers) == 0 {
		c.trunk.leave(reader, cause{}) // it is fed for them alone
	}
}

// drop forgets a reader.
func (c *broadcast) drop(p *pipe) {
	if p.pinned { // somebody is about to read what may be let go
		c.seek(p)
		for s := p.seg; s != nil; s = s.next {
			s.disown()
		}
	}
	heap.Remove(&c.readers, p.index)
	if p.at == later {
		c.joining = remove(c.joining, p)
	}
	if p.awaits {
		c.waiting = remove(c.waiting, p)
	}
	if p.reader.sure {
		c.sure -= p.heads()
	}
	if p.far != nil {
		c.relays = remove(c.relays, p)
		c.more -= p.far.more
	}
	p.at, p.awaits = later, false
}

func remove(pipes []*pipe, p *pipe) []*pipe {
	i := slices.Index(pipes, p)
	return slices.Delete(pipes, i, i+1)
}

// over has all readers know that the writer has left, or has them leave.
func (c *broadcast) over(r role, why cause) {
	if r == writer {
		for _, p := range c.readers {
			p.leave(writer, why)
		}
	} else {
		for len(c.readers) > 0 {
			c.readers[0].leave(reader, why)
		}
	}
	c.trim()
	c.watch()
}

// trim drops what nobody needs any more.
func (c *broadcast) trim() {
	p := c.trunk
	p.begins.dropBefore(c.end() - int64(c.keep))
	low := c.end()
	if len(c.readers) > 0 {
		low = min(low, c.readers[0].at)
	}
	if p.begins.n > 0 && !p.writer.left {
		low = min(low, p.begins.first)
	}
	if n := low - c.base; n > 0 {
		p.dropFirst(int(n))
		c.base = low
	}
}

// settle is called when bytes were taken or read. It wakes the readers who wait for that.
func (c *broadcast) settle() {
	c.trim()
	if c.end() == c.told {
		return
	}
	c.told = c.end()
	waiting := c.waiting
	c.waiting = c.waiting[:0]
	for _, p := range waiting {
		if p.reader.want > p.readable() {
			c.waiting = append(c.waiting, p)
			continue
		}
		p.awaits = false
		if p.reader.want > 0 {
			p.wakeSide(&p.reader)
		}
	}
	clear(waiting[len(c.waiting):])
}

// wait has a reader woken when there is what it wants. If that is there, it is woken now.
func (c *broadcast) wait(p *pipe) {
	switch {
	case p.readable() >= p.reader.want:
		p.wakeSide(&p.reader)
	case !p.awaits:
		p.awaits = true
		c.waiting = append(c.waiting, p)
	}
}

// seek finds the segment where a reader goes on.
func (c *broadcast) seek(p *pipe) {
	switch head := c.trunk.buf.head; {
	case head == nil:
		p.seg = nil
	case p.at == c.base:
		p.seg, p.pos = head, head.r
	case p.seg == nil:
		p.seg, p.pos = head, head.r
		p.skip(int(p.at - c.base))
	}
	p.skip(0)
}

// skip moves on in the segments.
func (k *cursor) skip(n int) {
	for k.seg != nil {
		here := min(n, k.seg.w-k.pos)
		k.pos += here
		if n -= here; k.pos < k.seg.w || k.seg.next == nil {
			return
		}
		k.seg = k.seg.next
		k.pos = k.seg.r
	}
}

// goTo goes to the first byte of a segment.
func (k *cursor) goTo(s *segment) { k.seg, k.pos = s, s.r }

// copyOut copies what is there into b, as far as its segment goes, and moves on.
func (k *cursor) copyOut(b []byte) int {
	k.skip(0)
	n := copy(b, k.seg.buf[k.pos:k.seg.w])
	k.skip(n)
	return n
}

// peek appends to segs the next limit bytes of a reader's, as buffer.peek does.
func (c *broadcast) peek(p *pipe, segs [][]byte, limit int) [][]byte {
	c.seek(p)
	limit = min(limit, c.behind(p))
	s, pos := p.seg, p.pos
	for limit > 0 && len(segs) < cap(segs) {
		d := s.buf[pos:s.w]
		d = d[:min(len(d), limit)]
		limit -= len(d)
		segs = append(segs, d)
		if s = s.next; s != nil {
			pos = s.r
		}
	}
	return segs
}

// advance records that a reader has read n bytes.
func (c *broadcast) advance(p *pipe, n int) {
	if p.reader.left { // meanwhile
		if p.reader.cause.code == causeTooSlow { // without these, which it had in hand
			p.missed -= int64(n)
			p.amend(reader, p.tooSlow())
		}
		return
	}
	c.seek(p)
	p.skip(n)
	p.at += int64(n)
	heap.Fix(&c.readers, p.index)
	c.trunk.passed(0, int64(n))
	c.trunk.settle()
}

// read copies out what there is, up to len(b).
func (c *broadcast) read(p *pipe, b []byte) (n int) {
	var array [8][]byte
	b = b[:min(len(b), c.behind(p))]
	for n < len(b) {
		k := 0
		for _, s := range c.peek(p, array[:0], len(b)-n) {
			k += copy(b[n+k:], s)
		}
		c.advance(p, k)
		n += k
	}
	return n
}

// slice copies out the first n bytes, or with partial set fewer. Where they are many, mu is
// not held meanwhile.
func (c *broadcast) slice(p *pipe, n int, partial bool) *segment {
	if partial {
		n = min(n, frameSegment)
	}
	s := segmentFor(n)
	if !partial || n <= pinAbove {
		s.w += c.read(p, s.buf[s.w:s.w+n])
		return s
	}
	var array [32][]byte
	segs := p.pin(array[:0], n)
	p.mu.Unlock()
	for _, from := range segs {
		s.w += copy(s.buf[s.w:], from)
	}
	p.mu.Lock()
	p.unpin(s.w - s.r)
	return s
}

// watch has the clock run while readers hold the writer up: it stops when what waits then
// was taken.
func (c *broadcast) watch() {
	p, waits := c.trunk, c.waits()
	switch {
	case c.patience == 0:
	case waits == 0 || !p.reader.sure || p.writer.left:
		c.relax()
	case !c.held || c.end() >= c.until:
		c.relax()
		c.held, c.from, c.until = true, c.end(), c.end()+int64(waits)
		turn := c.turn
		c.calm = c.registry.later(c.patience, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if c.turn == turn {
				c.lapse(false)
			}
		})
		for _, q := range c.relays {
			q.wakeSide(&q.reader) // it is told there, too
		}
	}
}

func (c *broadcast) relax() {
	if c.held {
		c.held = false
		c.turn++
		c.calm()
	}
}

// lapse ends the patience with those who have not read what was there when it began; with far
// set, also with those at other brokers.
func (c *broadcast) lapse(far bool) {
	p, from, until := c.trunk, c.from, c.until
	for p.reader.sure && len(c.readers) > 0 && c.readers[0].at < from && c.end() < until && c.waits() > 0 {
		slow := c.readers[0]
		if slow.far != nil && !far {
			turn := c.turn
			c.calm = c.registry.later(farGrace, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if c.turn == turn {
					c.lapse(true)
				}
			})
			return
		}
		slow.missed = c.base + int64(p.buf.n) - slow.at
		if slow.far != nil {
			slow.far.upto = slow.done + slow.missed
		}
		slow.leave(reader, slow.tooSlow())
	}
	c.relax()
	c.watch()
}

func (k *cursor) tooSlow() cause {
	return cause{causeTooSlow, fmt.Sprintf("%d bytes missed", k.missed)}
}

// mode, hasReader, audience and lag are for PipeInfo.
func (p *pipe) mode() Mode {
	if p.use == trunk {
		return ModeBroadcast
	}
	return ModeStream
}

func (p *pipe) hasReader() bool { return p.reader.open || p.use == trunk && len(p.cast.readers) > 0 }

func (p *pipe) audience() int {
	if p.use != trunk {
		return 0
	}
	return len(p.cast.readers) + p.cast.more
}

func (p *pipe) lag() int {
	if p.use != trunk {
		return 0
	}
	return p.cast.lag()
}
