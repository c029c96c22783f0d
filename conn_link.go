//go:build !core

package zpipes

import (
	"context"
	"errors"
	"math"
)

// newLink makes a streamLink for an end, which is o's or, if nil, nobody's.
func (k *conn) newLink(o member, p *pipe, r role, mode byte) *streamLink {
	return &streamLink{linkBase: newLinkBase(k, o), pipe: p, role: r, mode: mode}
}

// open opens the link's end at the broker. One that is given up is undone there.
func (k *conn) open(ctx context.Context, l *streamLink) error {
	p := l.pipe
	l.attach()
	if l.twin != nil {
		l.twin.attach()
	}
	err := k.await(ctx, l, &l.linkBase)
	if err != nil && err == ctx.Err() {
		p.mu.Lock()
		p.leave(l.role, never)
		p.mu.Unlock()
	}
	return err
}

// attach makes the link the other side of the end's pipe.
func (l *streamLink) attach() {
	l.pipe.mu.Lock()
	defer l.pipe.mu.Unlock()
	l.pipe.attach(1-l.role, func() { l.conn.post(l) })
	if l.role == writer {
		l.pipe.expect(reader, 1)
	}
}

// await waits for the answer to the open of an end.
func (k *conn) await(ctx context.Context, self channelLink, l *linkBase) (err error) {
	k.posted.put(self)
	k.hurry()
	select {
	case err = <-l.opened:
	case <-k.done:
		select {
		case err = <-l.opened: // it may have ended because of that
		default:
			err = k.closeErr()
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && !l.giveUp() {
		return nil // it was opened at the same moment
	}
	return err
}

// A channelLink is what has a channel of a connection: a streamLink or a queueLink. Its
// methods are the owner's.
type channelLink interface {
	letter() *letter[channelLink]
	serve()                          // sends what its state calls for
	expects(m *message) bool         // says whether the broker may send that message now
	handle(frame []byte, m *message) // takes a message that it expects
	lost(why cause)                  // ends it for good, without the broker
}

// A linkBase is what they have in common.
type linkBase struct {
	conn    *conn
	channel uint32
	opened  chan error // gets the answer to the open
	done    chan struct{}

	opener  member  // whose end it is, from the outcome on
	outcome outcome // of the open; guarded by the client's mu

	post letter[channelLink] // guarded by conn.posted

	// The rest belongs to the connection's owner.
	state    linkState
	answered bool // opened has its answer

	// Likewise; a queueLink's are written with its queue's mu held, too.
	inFlight int  // what the WRITEs weigh that are not answered
	moving   bool // some WRITE was answered
}

func newLinkBase(k *conn, o member) linkBase {
	return linkBase{conn: k, opener: o, opened: make(chan error, 1), done: make(chan struct{})}
}

// An outcome is what the opener and the connection's owner agree on, if the opener's
// time is over at the moment at which the answer comes.
type outcome byte

var errGivenUp = errors.New("the open was given up")

// giveUp says false if the end is open.
func (l *linkBase) giveUp() bool {
	c := l.conn.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.outcome == pending {
		l.outcome = givenUp
	}
	return l.outcome == givenUp
}

// accepted takes the broker's word that the end is open, and with shows set, tells it
// that the opener knows. Where that has given up, it will be closed.
func (l *linkBase) accepted(shows bool) {
	if l.answered || l.conn.client.enter(l.opener, func() error {
		if l.outcome == givenUp {
			return errGivenUp
		}
		l.outcome = opened
		return nil
	}) != nil {
		return
	}
	l.answer(nil)
	if shows && l.conn.able&ableHere != 0 {
		l.send(&message{id: msgRead, flags: readHere})
	}
}

// A streamLink is the client's side of one stream's end on a connection.
type streamLink struct {
	linkBase
	role role
	mode byte  // of its INPUT
	pipe *pipe // the end's own; the link is its other side

	pairing // of a connection

	// The rest belongs to the connection's owner.
	sent    []sentWrite      // the WRITEs that are not answered
	asked   int              // bytes that READs have asked for and that have not come
	cast    *broadcastConfig // of its OUTPUT; nil: it opens no broadcast
	ofQueue bool             // the pipe is a queue, whose chunks are not asked for ahead

	goesOver bool // the broker is to be told that the Writer uses a ring
}

// A sentWrite is a WRITE of n bytes, and weighs more than these where it also tells where Writes begin:
// the broker counts all that waits there.
type sentWrite struct{ n, weight int }

// beside is how many bytes a WRITE of n may weigh more, of a broadcast.
func (l *streamLink) beside(n int) int {
	if l.cast == nil {
		return 0
	}
	return min(n, l.cast.keep)
}

type linkState byte

const (
	linkNew linkState = iota
	linkOpening
	linkOpen
	linkClosing
	linkDone
)

func (l *linkBase) letter() *letter[channelLink] { return &l.post }

func (l *linkBase) block() blockState {
	if l.conn.agreed() {
		return hasBlock
	}
	return noBlock
}

func (l *linkBase) send(m *message) {
	m.block, m.channel = l.block(), l.channel
	l.conn.send(m)
}

// addInFlight counts bytes that a WRITE carries, or that were answered.
func (l *linkBase) addInFlight(n int) {
	l.inFlight += n
	l.conn.addInFlight(n)
}

func (k *conn) addInFlight(n int) {
	k.inFlight.Add(int64(n))
	if n < 0 && len(k.held) > 0 {
		for l := range k.held {
			k.post(l)
		}
		clear(k.held)
	}
}

// mayFollow says that n bytes may leave behind others that are not answered, of which there may
// be so many. The connection's total is kept by halves: what leaves alone needs the other one.
func (l *linkBase) mayFollow(n, window int) bool {
	k, flight := l.conn, int(l.conn.inFlight.Load())
	if k.pace.largest > 0 && flight+n > k.pace.flight {
		return false
	}
	return l.moving && l.inFlight+n <= window && flight+n <= k.connWindow/2
}

// begin gives self, whose base this is, a channel.
func (l *linkBase) begin(self channelLink) {
	l.state = linkOpening
	l.channel = l.conn.newChannel()
	l.conn.links[l.channel] = self
}

// serve sends what the end's state calls for.
func (l *streamLink) serve() {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.side(l.role)
	switch {
	case l.state == linkNew && own.left:
		l.finish()
	case l.state == linkNew:
		l.begin(l)
		switch {
		case l.twin != nil:
			l.meet()
		case l.cast != nil:
			l.send(&message{id: msgOutput, text: []byte(p.name), mode: modeBroadcast, cast: *l.cast})
		case l.role == writer:
			l.send(&message{id: msgOutput, text: []byte(p.name)})
		default:
			l.send(&message{id: msgInput, text: []byte(p.name), mode: l.mode})
		}
	case l.state == linkOpening && own.left:
		// Given up: behind this CLOSE the name is free for the next open.
		l.close(own.cause)
	case l.state == linkOpen && l.role == writer:
		l.serveWriter()
	case l.state == linkOpen:
		l.serveReader()
	}
}

// serveWriter sends what is in the window. One message is on its way at once;
// behind it, once the broker has taken anything at all, others leave when they
// are full. p.mu is held.
func (l *streamLink) serveWriter() {
	p, most := l.pipe, l.conn.most
	if l.probing() {
		switch {
		case !p.writer.left:
			l.sendProbe()
		case p.writer.cause.code != causeClosed || len(l.sent) == 0:
			l.close(p.writer.cause)
		}
		return
	}
	for p.buf.n > 0 && !p.reader.left {
		if l.inFlight > 0 && (p.buf.n < most || !l.mayFollow(most+l.beside(most), l.window())) {
			break
		}
		share := l.conn.share()
		c := p.slice(min(p.buf.n, most, share-l.beside(share/2)), true)
		w := sentWrite{c.w - c.r, c.w - c.r}
		l.conn.pace.sent(&l.linkBase, len(l.sent), int(l.conn.inFlight.Load()))
		frame := c.frame(msgWrite, l.block(), l.channel)
		if l.cast != nil {
			begins := p.cutBegins(w.n, l.cast.keep)
			frame = appendBegins(frame, begins)
			w.weight += len(begins)
		}
		l.sent = append(l.sent, w)
		l.addInFlight(w.weight)
		l.conn.sendFrame(frame)
		c.release()
	}
	l.goOver()
	if p.ending && len(l.sent) == 0 && !l.moving && !p.reader.left {
		l.seek()
	}
	p.expect(reader, 1)
	if l.inFlight > 0 {
		p.expect(reader, most)
	}
	if p.writer.left {
		l.close(p.writer.cause)
	}
}

// window is how many bytes may be unanswered. p.mu is held.
func (l *streamLink) window() int {
	if k := l.conn; k.able&ableRoom != 0 {
		return max(k.channelWindow, l.pipe.granted)
	}
	return l.conn.channelWindow
}

// seek has the broker say when there is a reader: a WRITE, even of nothing, is not
// answered before. p.mu is held.
func (l *streamLink) seek() {
	if l.conn.able&ableHere == 0 {
		// An older broker of ours: if this is a queue, nothing is a chunk to it.
		l.pipe.meet()
		return
	}
	l.sent = append(l.sent, sentWrite{})
	l.send(&message{id: msgWrite})
}

// serveReader asks for as much as there is room for. p.mu is held.
func (l *streamLink) serveReader() {
	p := l.pipe
	if p.reader.left {
		l.close(p.reader.cause)
		return
	}
	if p.requested == 0 || p.writer.left {
		return
	}
	if l.ofQueue {
		if most := min(p.takeRequest(), math.MaxInt32); l.asked == 0 && p.buf.n == 0 { // 4 GiB would be nothing on the wire
			l.asked = most
			l.send(&message{id: msgRead, size: uint32(most), flags: readAny})
		}
		return
	}
	want := p.room() - l.asked
	if !l.conn.agreed() {
		l.askBase(p.room())
	} else if want > 0 && (want >= p.limit/2 || l.asked == 0) {
		l.send(&message{id: msgRead, size: uint32(want), flags: readAny | readStream})
		l.asked += want
	}
	if p.expect(writer, 0); l.asked <= p.limit/2 {
		p.expect(writer, max(1, p.limit/2+l.asked))
	}
}

// close ends the link in the way that the broker can be told. p.mu is held.
func (l *streamLink) close(why cause) {
	if !l.conn.agreed() && l.role == writer && (why.code != causeClosed || len(l.sent) > 0) {
		// To the base protocol every CLOSE is a clean end. A connection that
		// just ends is not, or will not be before its time.
		l.conn.kill("the writer gave up")
		l.finish()
		return
	}
	m := message{id: msgClose, code: why.code, cause: []byte(why.text)}
	if l.ofQueue {
		if m.count = uint32(l.pipe.unread); l.asked > 0 {
			m.count = math.MaxUint32
		}
	}
	l.state = linkClosing
	l.send(&m)
}

// refused ends a link that the broker has not opened.
func (l *linkBase) refused(why cause) {
	l.answer(why.openError())
	l.finish()
}

// droppedEnd is why a link is over that the broker does not know any more.
var droppedEnd = cause{causeBrokerGone, "it has dropped this end"}

// finish takes the link off the connection.
func (l *linkBase) finish() {
	if l.state == linkDone {
		return
	}
	if l.state != linkNew {
		delete(l.conn.links, l.channel)
	}
	l.state = linkDone
	l.conn.addInFlight(-l.inFlight)
	close(l.done)
	if !l.conn.agreed() {
		l.conn.retire()
	}
}

// expects says whether the broker may send that message now.
func (l *streamLink) expects(m *message) bool {
	opened := l.state == linkOpen || l.state == linkClosing
	switch m.id {
	case msgInputOK, msgInputFailed, msgOutputOK, msgOutputFailed:
		return !l.answered && l.twin == nil && (l.role == reader) == (m.id == msgInputOK || m.id == msgInputFailed)
	case msgReadOK:
		return opened && l.role == reader && len(m.chunk) <= l.answersRead(m) && l.answersRead(m) <= l.asked
	case msgReadEnd, msgReadFailed:
		return opened && l.role == reader
	case msgWriteOK:
		return opened && l.role == writer && len(l.sent) > 0
	case msgWriteTimeout:
		return opened && l.probing() && len(l.sent) > 0
	case msgWriteFailed: // of a connection also where its open was given up as the answer came
		return (opened || l.state == linkOpening) && l.role == writer
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	case msgOffer:
		return opened && l.conn.able&ableRings != 0
	case msgMoved:
		return opened && l.conn.able&ableRings != 0 && (m.mode == moveInto || m.mode == moveOut && l.role == reader)
	case msgDialOK, msgDialFailed:
		return !l.answered && l.twin != nil && l.listens == nil
	case msgAcceptOK, msgAcceptFailed:
		return !l.answered && l.listens != nil
	case msgAccepted:
		return opened && l.twin != nil && l.listens == nil
	case msgInvalid:
		return true
	}
	return false // READ_TIMEOUT, since no READ has one, and a client's messages
}

// handle takes one message for this link, which expects it.
func (l *streamLink) handle(frame []byte, m *message) {
	switch m.id {
	case msgInputOK, msgOutputOK:
		l.ofQueue = m.mode == modeQueue
		l.accepted(true)
		if l.state == linkOpening {
			l.state = linkOpen
			l.serve() // the opener may have gone
		}
	case msgDialOK, msgAcceptOK:
		l.met(m)
	case msgAccepted:
		who := m.who.access()
		l.peer.Store(&who)
	case msgInputFailed, msgOutputFailed, msgDialFailed, msgAcceptFailed:
		why := m.why()
		if m.block == noBlock {
			why = cause{causeBusy, string(m.text)}
		}
		l.refused(why)
		l.parted()
	case msgReadOK:
		l.arrived(frame, m)
	case msgReadEnd:
		l.ended(cause{})
	case msgReadFailed:
		why := m.why()
		if why.code == causeClosed { // which it is not
			why = cause{causeAborted, string(m.text)}
		}
		l.ended(why)
	case msgWriteFailed:
		l.ended(m.why())
	case msgWriteOK:
		l.acknowledged(m)
	case msgWriteTimeout:
		l.probeAnswered()
	case msgOffer:
		l.offered(m)
	case msgMoved:
		l.moved(m)
	case msgCloseOK, msgCloseFailed:
		l.finish()
		l.parted()
	case msgInvalid:
		l.lost(droppedEnd)
	}
}

// answer gives the opener the answer, once.
func (l *linkBase) answer(err error) {
	if !l.answered {
		l.answered = true
		l.opened <- err
	}
}

func (l *streamLink) arrived(frame []byte, m *message) {
	p := l.pipe
	p.mu.Lock()
	if l.asked -= l.answersRead(m); l.ofQueue {
		l.asked = 0
	}
	if !p.reader.left {
		p.take(frame, m)
	}
	p.mu.Unlock()
	l.serve()
}

func (l *streamLink) acknowledged(m *message) {
	w := l.sent[0]
	l.sent = l.sent[:copy(l.sent, l.sent[1:])]
	l.addInFlight(-w.weight)
	l.moving = true
	l.conn.most = l.conn.pace.answered(&l.linkBase, l.conn.most)
	p := l.pipe
	p.mu.Lock()
	p.acknowledge(w.n, int(min(m.count, math.MaxInt32)))
	p.mu.Unlock()
	l.serve()
}

// ended records that the other end, or the broker, has ended the pipe.
func (l *streamLink) ended(why cause) {
	p := l.pipe
	p.mu.Lock()
	p.leave(1-l.role, why)
	p.mu.Unlock()
}

// lost ends the link for good, without the broker.
func (l *streamLink) lost(why cause) {
	if l.state == linkDone {
		return // it was over before
	}
	l.ended(why)
	l.refused(why) // last: who opened it may try again with the same end
}
