package zpipes

import (
	"fmt"
	"io"
	"io/fs"
	"math"
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

// causeCode says why an end is over or an open was refused. The numbers are the
// wire's; a new one goes to the end.
type causeCode byte

const (
	causeClosed      causeCode = 0  // an orderly end
	causeAborted     causeCode = 1  // CloseWithError; the text is the error's
	causeVanished    causeCode = 2  // the process died or broke the protocol
	causeUndelivered causeCode = 3  // the writer gave up on what nobody took
	causeBrokerGone  causeCode = 4  // the broker closes, or has dropped this end
	causeBusy        causeCode = 5  // open: there is such an end already
	causeMode        causeCode = 6  // open: the name is of another kind of pipe
	causeBadName     causeCode = 7  // open: no pipe can have that name
	causeTooMany     causeCode = 8  // open: the broker has as many as it may
	causeDeleted     causeCode = 9  // the queue was deleted
	causeNoQueue     causeCode = 10 // delete: there is no such queue
	causeDenied      causeCode = 11 // the client may not do that
	causeNever       causeCode = 12 // the open of this end has failed: it was never there
)

type cause struct {
	code causeCode
	text string
}

// readError is what a reader meets behind the last byte of a writer that left
// with this cause.
func (c cause) readError() error {
	switch c.code {
	case causeClosed:
		return io.EOF
	case causeBrokerGone:
		return c.explain(ErrBrokerGone)
	case causeDeleted:
		return cause{text: "the queue was deleted"}.explain(io.ErrUnexpectedEOF)
	case causeVanished:
		return cause{text: "the writer vanished"}.explain(io.ErrUnexpectedEOF)
	case causeUndelivered:
		return cause{text: "the writer gave up before all was delivered"}.explain(io.ErrUnexpectedEOF)
	}
	return c.explain(io.ErrUnexpectedEOF)
}

// writeError is what a writer meets once the reader left with this cause.
func (c cause) writeError() error {
	switch c.code {
	case causeClosed:
		return io.ErrClosedPipe
	case causeBrokerGone:
		return c.explain(ErrBrokerGone)
	case causeDeleted:
		return cause{text: "the queue was deleted"}.explain(io.ErrClosedPipe)
	case causeVanished:
		return cause{text: "the reader vanished"}.explain(io.ErrClosedPipe)
	}
	return c.explain(io.ErrClosedPipe)
}

// openError is why an open was refused.
func (c cause) openError() error {
	switch c.code {
	case causeMode:
		return c.explain(ErrPipeMode)
	case causeBadName:
		return c.explain(ErrBadName)
	case causeTooMany:
		return c.explain(ErrTooManyPipes)
	case causeDenied:
		return c.explain(fs.ErrPermission)
	case causeNoQueue:
		return cause{text: "no such queue"}.explain(fs.ErrNotExist)
	case causeBrokerGone:
		return c.explain(ErrBrokerGone)
	}
	return c.explain(ErrPipeBusy)
}

func (c cause) explain(err error) error {
	if c.text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, c.text)
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
// a plain state machine, without goroutines, sockets or a clock. The broker has
// one for each name; and a client whose broker is elsewhere has one for each
// end, in which the connection plays the other side.
//
// The methods are called with mu held.
type pipe struct {
	mu   sync.Mutex // guards all below; see ARCHITECTURE.md for the order of locks
	name string

	buf buffer
	// unconfirmed counts the bytes at the end of the stream which the broker
	// has not taken yet: the window of a writer in this process. In a pipe that
	// feeds a connection it includes bytes that have left buf and are not
	// acknowledged.
	unconfirmed int
	lost        int      // bytes of the window that were dropped when the writer left
	window      int      // the most that may be unconfirmed
	limit       int      // bytes the pipe takes (confirms) before writes wait
	outbound    bool     // the connection takes from buf and confirms what it sent
	ending      bool     // outbound: Close waits for a reader, even if there is nothing to be sent
	met         bool     // outbound: there is a reader, or has been
	payer       *account // the remote writer's
	charged     int      // how many bytes of buf are counted there
	granted     int      // outbound: what the broker had room for behind what it has confirmed

	reader, writer side
	asks           int  // how many bytes the Read that waits has room for
	unread         int  // bytes that were there when the reader left
	pinned         bool // the reader copies out of buf without holding mu
	flushing       int  // how many wait for unconfirmed to fall

	counter
	created time.Time

	place  int  // in the registry; 0: not there. Guarded by the registry's mu
	waited bool // the registry counts its reader
}

// readable is how many bytes the reader may take now.
func (p *pipe) readable() int {
	if p.outbound {
		return p.buf.n
	}
	return p.buf.n - p.unconfirmed
}

// room is how many bytes the writer may add now.
func (p *pipe) room() int {
	n := int64(p.window) + int64(p.granted) - int64(p.unconfirmed)
	if p.reader.sure && !p.outbound {
		n += int64(max(0, p.bound()-p.readable()))
	}
	if p.payer != nil {
		n = min(n, int64(p.payer.room()))
	}
	return int(min(max(0, n), math.MaxInt))
}

// bound is how many bytes the pipe takes before writes wait. A reader that waits
// for more than the limit raises it, since it would wait for ever.
func (p *pipe) bound() int { return max(p.limit, p.reader.want) }

// accepts says whether a WRITE of n bytes can be taken and confirmed now. One of
// any size is taken where the pipe is empty, or the reader waits for more than
// there is: neither could go on otherwise.
func (p *pipe) accepts(n int) bool {
	switch {
	case !p.reader.sure:
		return false
	case p.payer != nil && n > p.payer.room():
		return p.readable() < p.reader.want && p.payer.lends(p, n)
	}
	return n <= p.room() || p.buf.n == 0 || p.readable() < p.reader.want
}

// await has the reader woken once n bytes are there, or the writer once there is
// room for n.
func (p *pipe) await(r role, n int) {
	p.side(r).want = n
	p.settle()
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
}

// show says that the end knows that it is open.
func (p *pipe) show(r role) {
	p.side(r).sure = true
	p.settle()
	if p.flushing > 0 {
		p.wakeSide(&p.writer) // the end of the stream may wait for a reader, too
	}
}

// withdraw takes back an end that has not shown itself: it was never there.
func (p *pipe) withdraw(r role) {
	if r == writer {
		p.payer.forget(p)
		p.payer, p.window = nil, 0
	}
	*p.side(r) = side{}
}

// hasMet says that there is a reader, or has been.
func (p *pipe) hasMet() bool {
	if p.outbound {
		return p.met || p.reader.left && p.reader.cause.code != causeBrokerGone
	}
	return p.reader.sure
}

func (p *pipe) side(r role) *side {
	if r == reader {
		return &p.reader
	}
	return &p.writer
}

// write copies b into the writer's window; it must fit into room.
func (p *pipe) write(b []byte) {
	p.buf.write(b, p.unconfirmed > 0)
	p.wrote(len(b))
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

// take adds a WRITE's or READ_OK's chunk as confirmed bytes. The frame is kept
// for it where that needs no more memory than a copy: not if the bytes are few,
// or there is room for them, or the frame has much beside them.
func (p *pipe) take(frame []byte, m *message) {
	n := len(m.chunk)
	if p.payer != nil && n > p.payer.room() {
		p.payer.borrow(p, n)
	}
	if n <= copyUpTo || n <= p.buf.spare() || len(frame) > chunkOffset+n+tailBytes {
		p.buf.write(m.chunk, false)
	} else {
		p.buf.push(adopt(frame, m))
	}
	p.passed(int64(n), 0)
	p.settle()
}

// settle confirms what the bound has room for, and wakes who waits for what is
// now the case.
func (p *pipe) settle() {
	if p.payer != nil {
		p.pay()
	}
	if p.unconfirmed > 0 && p.reader.sure && !p.reader.left && !p.outbound {
		if n := min(p.unconfirmed, p.bound()-p.readable()); n > 0 {
			p.confirm(n)
		}
	}
	if w := p.reader.want; w > 0 && p.readable() >= w {
		p.wakeSide(&p.reader)
	}
	if w := p.writer.want; w > 0 {
		if p.room() >= w || !p.outbound && p.accepts(w) {
			p.wakeSide(&p.writer)
		} else {
			p.payer.await(p, w)
		}
	}
}

// pay charges the payer with what buf holds now.
func (p *pipe) pay() {
	n := p.buf.n - p.charged
	p.charged += n
	p.payer.charge(n)
	if n < 0 && p.charged == 0 {
		p.payer.repay(p)
	}
}

// confirm records that the broker has taken n more bytes.
func (p *pipe) confirm(n int) {
	p.unconfirmed -= n
	if p.flushing > 0 {
		p.wakeSide(&p.writer)
	}
}

func (p *pipe) wakeSide(s *side) {
	s.want = 0
	if s.wake != nil {
		s.wake()
	}
}

// read copies out what there is, up to len(b).
func (p *pipe) read(b []byte) int {
	n := p.buf.read(b[:min(len(b), p.readable())])
	p.consumed(n)
	return n
}

// consume drops n bytes that the reader has copied while the buffer was pinned.
func (p *pipe) consume(n int) {
	p.buf.consume(n)
	p.consumed(n)
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
	if k := len(p.buf.head.data()); k == n || partial && k < n {
		return p.pop(n)
	}
	var c *segment
	switch {
	case n <= smallSegment:
		c = newSegment(smallPool)
	case n <= largeSegment:
		c = newSegment(largePool)
	case n <= frameSegment:
		c = newSegment(framePool)
	default:
		c = &segment{buf: make([]byte, chunkOffset+n+tailBytes), r: chunkOffset, w: chunkOffset}
	}
	c.w += p.read(c.buf[c.w : c.w+n])
	return c
}

func (p *pipe) consumed(n int) {
	p.passed(0, int64(n))
	p.settle()
}

// leave ends one side for good. What a writer has had confirmed stays readable;
// what is still in its window does so only if it left in order, which it does
// not do before all is confirmed. What a reader did not read is gone.
func (p *pipe) leave(r role, why cause) {
	s := p.side(r)
	if s.left {
		return
	}
	s.left, s.cause = true, why
	if r == writer {
		if n := min(p.unconfirmed, p.buf.n); n > 0 {
			p.buf.truncate(n)
			p.unconfirmed -= n
			p.lost += n
		}
	} else if p.unread = p.buf.n; !p.pinned {
		p.buf.clear()
	}
	p.pay()
	p.payer.forget(p)
	p.wakeSide(&p.reader)
	p.wakeSide(&p.writer)
}

// unpin ends what the reader did outside of mu.
func (p *pipe) unpin() {
	p.pinned = false
	if p.reader.left {
		p.buf.clear()
		p.pay()
	}
}

// over says that the pipe's name is free.
func (p *pipe) over() bool { return p.reader.left || p.writer.left }

// idle says that no end is left that could still do something with the pipe.
func (p *pipe) idle() bool {
	return p.over() && !p.reader.attached() && !p.writer.attached()
}

// deadFor says why the end can't go on, and whether that is so: the broker has
// ended it, or the other side has left and nothing is there to be read.
func (p *pipe) deadFor(r role) (cause, bool) {
	own, other := p.side(r), p.side(1-r)
	switch {
	case own.left:
		return own.cause, true
	case other.left && (r == writer || p.readable() == 0):
		return other.cause, true
	}
	return cause{}, false
}

// readError is why there is nothing to read and never will be; nil: wait.
func (p *pipe) readError() error {
	if why, dead := p.deadFor(reader); dead {
		return why.readError()
	}
	return nil
}

// writeError is why nothing more can be written; nil: it can.
func (p *pipe) writeError() error {
	if why, dead := p.deadFor(writer); dead {
		return why.writeError()
	}
	return nil
}
