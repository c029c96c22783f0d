package zpipes

import (
	"sync"
	"time"
)

type role byte

const (
	reader role = iota
	writer
)

func (r role) String() string {
	if r == reader {
		return "reader"
	}
	return "writer"
}

// A side is one end of a pipe as the pipe sees it: there, not yet there, or gone.
type side struct {
	open  bool // has come
	sure  bool // and knows it: its open has returned
	left  bool // has gone, for the reason cause
	cause cause

	// wake tells the end that what it waits for may have happened. It is called
	// with the pipe's mu held and must not block. want is what it waits for:
	// that many bytes (a reader), or room for that many (a writer); 0: nothing.
	wake func()
	want int
}

func (s *side) attached() bool { return s.open && !s.left }

// pipe is a named pipe: bytes on their way from one writer to one reader. It is
// a plain state machine, without goroutines, sockets or a clock, and has three
// uses, with a constructor each. Others look at its fields, but set none.
//
// All methods but recheck and info are called with mu held.
type pipe struct {
	mu   pipeMutex // guards all below; see ARCHITECTURE.md for the order of locks
	name string

	use    pipeUse
	pinned bool // the reader copies out of buf without holding mu
	ending bool // outbound: Close waits for a reader, even if there is nothing to be sent
	met    bool // outbound: there is a reader, or has been

	buf buffer
	// unconfirmed counts the bytes at the end of the stream which the broker
	// has not taken yet: the window of a writer in this process. In a pipe that
	// feeds a connection it includes bytes that have left buf and are not
	// acknowledged.
	unconfirmed int
	lost        int      // bytes of the window that were dropped when the writer left
	window      int      // the most that may be unconfirmed
	limit       int      // bytes the pipe takes (confirms) before writes wait
	requested   int      // inbound: how much the Read that waits has room for, until the connection knows
	payer       *account // the remote writer's
	charged     int      // how many bytes of buf are counted there
	granted     int      // outbound, relayed: what the broker had room for behind what it has confirmed

	reader, writer side
	unread         int // bytes that were there when the reader left
	flushing       int // how many wait for unconfirmed to fall

	handover
	detouring
	ringed
	relaying
	widening
	counter
	registration
	created time.Duration // since started

	rendezvous *rendezvous // how its ends find others at other brokers; nil: they do not

	begins *marks     // where Writes begin, where somebody may want to know; nil: nobody does
	cast   *broadcast // a trunk's, and a branch's
	cursor            // a branch's
}

// A pipeMutex is a mutex of its own, or that of another pipe.
type pipeMutex struct {
	own sync.Mutex
	of  *sync.Mutex // set when the pipe is made; nil: own
}

func (m *pipeMutex) mutex() *sync.Mutex {
	if m.of != nil {
		return m.of
	}
	return &m.own
}

func (m *pipeMutex) Lock()   { m.mutex().Lock() }
func (m *pipeMutex) Unlock() { m.mutex().Unlock() }

type pipeUse byte

const (
	brokers  pipeUse = iota // both sides are attached to it
	inbound                 // of a remote Reader: a connection fills it
	outbound                // of a remote Writer: a connection takes from buf, and confirms what was sent
	trunk                   // of a broadcast: the writer is attached to it, its readers to branches
	branch                  // one reader's; the bytes are in the trunk
	relayed                 // the reader is at another broker, which confirms: a relay takes from buf, where bytes stay until then
)

// newPipe makes a broker's, which takes limit bytes before writes wait.
func newPipe(name string, limit int, now time.Time) *pipe {
	return &pipe{name: name, limit: limit, created: now.Sub(started)}
}

// newInbound makes a remote Reader's. Its connection asks for up to limit bytes ahead,
// from the first request on.
func newInbound(name string, limit int) *pipe {
	return &pipe{use: inbound, name: name, limit: limit}
}

// newOutbound makes a remote Writer's, which may have window bytes unconfirmed. With begins
// set, it notes where Writes do.
func newOutbound(name string, window int, begins bool) *pipe {
	p := &pipe{use: outbound, name: name, window: window, buf: buffer{frames: true}}
	if begins {
		p.begins, p.buf = new(marks), buffer{frames: true, reserve: beginsRoom}
	}
	return p
}

// newTrunk makes a broadcast's.
func newTrunk(g *registry, name string, now time.Time) *pipe {
	p := newPipe(name, g.maxPending, now)
	p.use, p.begins = trunk, new(marks)
	p.cast = &broadcast{registry: g, trunk: p}
	return p
}

// share has a new pipe use another one's mu.
func (p *pipe) share(with *pipe) { p.mu.of = with.mu.mutex() }

// growOn makes a new pipe the branch of a trunk.
func (p *pipe) growOn(t *pipe) {
	p.share(t)
	p.use, p.cast = branch, t.cast
}

// becomeBranch makes one of a pipe whose reader waits for its writer, and which has lent the
// trunk its mu.
func (p *pipe) becomeBranch(t *pipe) {
	p.use, p.cast = branch, t.cast
	p.rendezvous.changed()
	p.cast.join(p)
	if p.reader.sure {
		p.cast.shown(p)
	}
	if p.reader.want > 0 {
		p.cast.wait(p)
	}
}

// becomeStream is the opposite, for the only reader of a trunk whose writer was never there.
func (p *pipe) becomeStream() {
	c := p.cast
	c.drop(p)
	c.trunk.rendezvous.changed()
	p.use, p.cast, p.limit = brokers, nil, c.trunk.limit
}

// beRelayed has another broker confirm what is written, or not any more.
func (p *pipe) beRelayed(now bool) {
	p.use = brokers
	if now {
		p.use = relayed
	}
}

// meetAt has the ends find others at other brokers.
func (p *pipe) meetAt(m *rendezvous) { p.rendezvous = m }

// rouse has wake called from now on for an end that is there already.
func (p *pipe) rouse(r role, wake func()) { p.side(r).wake = wake }

// await has the reader woken once n bytes are there, or the writer once there is
// room for n.
func (p *pipe) await(r role, n int) {
	p.expect(r, n)
	p.settle()
}

// expect is await for one who has just looked, or is woken by the next change only.
func (p *pipe) expect(r role, n int) {
	p.side(r).want = n
	if p.use == branch && n > 0 {
		p.cast.wait(p)
	}
}

// request is for a Read that waits and has room for n bytes: the connection asks the
// broker for some, unless it does so already.
func (p *pipe) request(n int) {
	if p.use == inbound && p.requested == 0 {
		p.requested = n
		p.wakeSide(&p.writer)
	}
}

// takeRequest is what request has left; 0: nothing. The next Read that waits leaves
// another one.
func (p *pipe) takeRequest() int {
	n := p.requested
	p.requested = 0
	return n
}

// recheck looks again after the payer got room.
func (p *pipe) recheck() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
}

// attach brings an end; wake and want are side's.
func (p *pipe) attach(r role, wake func()) {
	p.propose(r, wake)
	p.show(r)
}

// propose brings an end whose open has not returned yet. It holds its place; but
// nothing is confirmed because of it, and withdraw takes it back.
func (p *pipe) propose(r role, wake func()) {
	s := p.side(r)
	s.open, s.wake = true, wake
	if p.use == branch {
		p.cast.join(p)
	}
}

// openWindow is how many bytes the writer may have unconfirmed.
func (p *pipe) openWindow(n int) { p.window = n }

// bill has the writer's account pay for what buf holds.
func (p *pipe) bill(payer *account) {
	p.payer = payer
	p.pay()
}

// mute has nothing wake the end any more, which is about to leave.
func (p *pipe) mute(r role) { p.side(r).wake = nil }

// mayTake says whether there are as many readers of a trunk as there have to be.
func (p *pipe) mayTake(may bool) {
	p.reader.sure = may
	p.settle()
	if p.flushing > 0 {
		p.wakeSide(&p.writer)
	}
}

// dropFirst drops bytes of a trunk that nobody needs.
func (p *pipe) dropFirst(n int) { p.buf.consume(n) }

// show says that the end knows that it is open.
func (p *pipe) show(r role) {
	p.side(r).sure = true
	if p.use == branch {
		p.cast.shown(p)
		return
	}
	p.settle()
	if p.flushing > 0 {
		p.wakeSide(&p.writer) // the end of the stream may wait for a reader, too
	}
	p.rendezvous.changed()
}

// withdraw takes back an end that has not shown itself: it was never there.
func (p *pipe) withdraw(r role) {
	if r == writer {
		p.payer.forget(p)
		p.payer.charge(-p.charged)
		p.payer, p.window, p.charged = nil, 0, 0
	}
	*p.side(r) = side{}
	p.noDetour(r)
	p.rendezvous.changed()
}

// hasMet says that there is a reader, or has been.
func (p *pipe) hasMet() bool {
	if p.use == outbound {
		return p.met || p.reader.left && p.reader.cause.code != causeBrokerGone
	}
	if p.use == trunk {
		return p.cast.begun
	}
	return p.reader.sure
}

// meet records in an outbound pipe that there is a reader, or that nobody can tell.
func (p *pipe) meet() {
	p.met = true
	p.wakeSide(&p.writer)
}

// beginFlush has the writer woken whenever something is confirmed; with ending set,
// also when there is a reader.
func (p *pipe) beginFlush(ending bool) {
	p.flushing++
	if ending && !p.hasMet() {
		p.ending = true
		p.wakeSide(&p.reader)
	}
}

func (p *pipe) endFlush() { p.flushing-- }

func (p *pipe) side(r role) *side {
	if r == reader {
		return &p.reader
	}
	return &p.writer
}

// write copies b into the writer's window; it must fit into room.
func (p *pipe) write(b []byte) {
	n := p.buf.n
	defer func() { p.wrote(p.buf.n - n) }() // also where b faults
	p.buf.write(b, p.unconfirmed > 0)
}

// put is write of a few bytes more where it is clear what that leads to, as it mostly is with small
// ones: they are confirmed, and go where others are that nobody has read. It takes half the time.
func (p *pipe) put(b []byte) bool {
	if len(b) > p.buf.spare() || p.buf.n == 0 || p.buf.n+len(b) > p.limit ||
		p.use != brokers || p.payer != nil || p.unconfirmed > 0 || p.flushing > 0 || !p.reader.sure || p.over() {
		return false
	}
	p.buf.fill(b)
	p.passed(int64(len(b)), 0)
	if w := p.reader.want; w > 0 && p.buf.n >= w {
		p.wakeSide(&p.reader)
	}
	return true
}

// push is write without the copy.
func (p *pipe) push(c *segment) {
	p.buf.push(c)
	p.wrote(c.w - c.r)
}

func (p *pipe) wrote(n int) {
	p.passed(int64(n), 0)
	p.unconfirmed += n
	p.settle()
}

// fill copies b as confirmed bytes. settle is the caller's.
func (p *pipe) fill(b []byte) {
	p.buf.write(b, false)
	p.passed(int64(len(b)), 0)
}

// begin records that a Write begins here.
func (p *pipe) begin() {
	if p.writesRing() {
		p.markRing()
		return
	}
	p.beginsAt(p.in)
}

// beginsAt is begin of one that will, or did, at byte number at of the stream.
func (p *pipe) beginsAt(at int64) {
	if p.begins != nil {
		p.begins.add(at)
	}
	if p.use == trunk {
		p.cast.joinAt(at)
	}
}

// cutBegins takes out where Writes begin in the last n bytes that have left the buffer, as a
// WRITE of these tells it.
func (p *pipe) cutBegins(n, keep int) []byte {
	if p.begins == nil {
		return nil
	}
	end := p.in - p.inRing() - int64(p.buf.n)
	return p.begins.cut(end-int64(n), end, keep)
}

// take adds a WRITE's or READ_OK's chunk, as confirmed bytes where the pipe confirms. The frame is kept
// for it where that needs no more memory than a copy: not if the bytes are few,
// or there is room for them, or the frame has much beside them.
func (p *pipe) take(frame []byte, m *message) {
	n := len(m.chunk)
	if p.use == relayed {
		p.unconfirmed += n
	}
	if p.payer != nil && n > p.payer.room() {
		p.payer.borrow(p, n)
	}
	switch much := m.backing(frame); {
	case m.lent, n <= copyUpTo, n <= p.buf.spare(), m.body == nil && much > chunkOffset+n+tailBytes+len(m.begins)+len(beginsMagic)+4, n < much/2:
		p.fill(m.chunk)
	case m.body != nil:
		m.body.hold(m)
		p.buf.push(m.body)
		m.body = nil
		p.passed(int64(n), 0)
	default:
		p.buf.push(adopt(frame, m))
		p.passed(int64(n), 0)
	}
	p.settle()
}

// bring adds a segment's bytes, as confirmed ones. It is the pipe's from now on.
func (p *pipe) bring(c *segment) {
	n := c.w - c.r
	if p.payer != nil && n > p.payer.room() {
		p.payer.borrow(p, n)
	}
	if n > largeSegment/2 {
		p.buf.push(c)
		p.passed(int64(n), 0)
	} else {
		p.fill(c.data())
		c.release()
	}
	p.settle()
}

// settle confirms what the bound has room for, and wakes who waits for what is
// now the case.
func (p *pipe) settle() {
	if p.use == branch {
		p.cast.trunk.settle()
		return
	}
	if p.use == trunk {
		p.admit()
		p.cast.settle()
	}
	if p.payer != nil {
		p.pay()
	}
	p.admit()
	if w := p.reader.want; w > 0 && p.readable() >= w {
		p.wakeSide(&p.reader)
	}
	if w := p.writer.want; w > 0 {
		if p.room() >= w || p.use != outbound && p.accepts(w) {
			p.wakeSide(&p.writer)
		} else {
			p.payer.await(p, w)
		}
	}
	if p.use == trunk {
		p.cast.watch()
	}
}

// admit confirms what the bound has room for.
func (p *pipe) admit() {
	if p.unconfirmed > 0 && p.reader.sure && !p.reader.left && !p.confirmedElsewhere() {
		n := p.bound() - p.readable()
		if p.use == trunk {
			n = p.cast.allows()
		}
		if n = min(p.unconfirmed, n); n > 0 {
			p.confirm(n)
		}
	}
}

// pay charges the payer with what buf holds now, or may at any time.
func (p *pipe) pay() {
	least := p.reserved()
	n := max(p.buf.n, least) - p.charged
	p.charged += n
	p.payer.charge(n)
	if n < 0 && p.charged == least {
		p.payer.repay(p)
	}
}

// confirmedElsewhere says that somebody else confirms what is written.
func (p *pipe) confirmedElsewhere() bool { return p.use == outbound || p.use == relayed }

// grant records what the broker has room for.
func (p *pipe) grant(n int) { p.granted = n }

// lose counts bytes that were written and will not be confirmed.
func (p *pipe) lose(n int) { p.lost += n }

// confirm records that the broker has taken n more bytes.
func (p *pipe) confirm(n int) {
	p.unconfirmed -= n
	if p.flushing > 0 {
		p.wakeSide(&p.writer)
	}
}

// acknowledge is confirm in an outbound pipe: the broker had room for that many behind.
func (p *pipe) acknowledge(n, room int) {
	p.granted, p.met = room, true
	p.confirm(n)
	p.settle()
}

// unlocked calls f without mu, which is held again behind it, also if f panics. What belongs
// to the host program may: its memory, if that is a file's, and its code.
func (p *pipe) unlocked(f func()) {
	p.mu.Unlock()
	defer p.mu.Lock()
	f()
}

func (p *pipe) wakeSide(s *side) {
	s.want = 0
	if s.wake != nil {
		s.wake()
	}
}

// read copies out what there is, up to len(b).
func (p *pipe) read(b []byte) int {
	if p.use == branch {
		return p.cast.read(p, b)
	}
	n := p.buf.read(b[:min(len(b), p.readable())])
	p.consumed(n)
	return n
}

// pin is peek of the buffer for a reader that copies without holding mu, until unpin.
func (p *pipe) pin(segs [][]byte, n int) [][]byte {
	p.pinned = true
	if p.use == branch {
		return p.cast.peek(p, segs, n)
	}
	return p.buf.peek(segs, n)
}

// unpin ends that, and drops the n bytes that were copied.
func (p *pipe) unpin(n int) {
	if p.use == branch {
		p.pinned = false
		p.cast.advance(p, n)
		return
	}
	p.buf.consume(n)
	p.consumed(n)
	p.pinned = false
	if p.reader.left {
		p.buf.clear()
		p.pay()
	}
}

// pop takes the first segment out whole if it is readable and not over limit.
func (p *pipe) pop(limit int) *segment {
	c := p.buf.pop(min(limit, p.readable()))
	if c != nil {
		p.consumed(c.w - c.r)
	}
	return c
}

// slice takes the first n bytes out, or with partial set, where it saves a copy,
// fewer.
func (p *pipe) slice(n int, partial bool) *segment {
	if p.use == branch {
		return p.cast.slice(p, n, partial)
	}
	if k := len(p.buf.head.data()); k == n || partial && k < n {
		return p.pop(n)
	}
	c := segmentFor(n)
	c.w += p.read(c.buf[c.w : c.w+n])
	return c
}

func (p *pipe) consumed(n int) {
	if p.ring != nil && p.ring.live {
		p.ring.before -= n
	}
	if d := p.detour; d != nil && p.buf.n == 0 && (d.step == detourBegun || d.step == detourClosed) {
		p.wakeSide(&p.reader) // it is to be told where it goes on
	}
	p.passed(0, int64(n))
	p.settle()
}
