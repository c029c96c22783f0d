//go:build cgo

package zpipes

import (
	"errors"
	"math"
	"time"
)

// A queueLink is the client's side of a Queue on a connection: it takes the chunks
// that are sent out of the Queue's own store, several to a message, and brings those
// that arrive into it.
//
// It asks for chunks when somebody waits in Receive, and for no more than that, since
// others may want them; unless they are received so fast that to ask for each would
// take longer than what is done with it. What nobody has received after a while goes
// back.
type queueLink struct {
	linkBase
	mode byte // of its INPUT

	// All below is guarded by the store's mu.
	store *store
	lane  *lane
	left  bool // it is to be closed

	sent   fifo[int] // how long the chunks are that have left and are not confirmed
	flight int       // their size
	moving bool      // some WRITE was answered

	asked     bool // a READ waits
	returning bool // what arrives is void until the broker has taken all back
	out       int  // chunks that have arrived and that the broker does not know to be received
	batch     int  // how many chunks a READ asks for
	full      bool // the last one got as many
	arrived   time.Time
	watched   int // how many chunks were there at the last look
}

const (
	// returnAfter is how long chunks wait for a Receive before they go back.
	returnAfter = 10 * time.Millisecond
	// quick is how fast chunks must be received for a READ to ask for more of them.
	quick = time.Millisecond
	// maxBatch is how many chunks it asks for at most.
	maxBatch = 1 << 16
)

// stored is called by the store when something has changed.
func (l *queueLink) stored() {
	if l.sends() || l.asks() {
		l.conn.post(l)
	}
}

// asks says that a READ is due.
func (l *queueLink) asks() bool {
	s := l.store
	switch {
	case l.returning || s.over != nil:
		return false
	case l.asked:
		return s.demands.Len() == 0
	}
	return s.count == 0 && (s.demands.Len() > 0 || l.out > 0)
}

// sends says that a WRITE may leave: one at once, others behind it when they are full.
func (l *queueLink) sends() bool {
	if l.lane.chunks.len() == 0 {
		return false
	}
	unsent, next := l.lane.window-l.flight, max(maxRecords, len(*l.lane.chunks.front()))
	return l.flight == 0 || l.moving && unsent >= maxRecords && l.flight+next <= l.conn.credit
}

func (l *queueLink) serve() {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.state == linkNew && l.left:
		l.finish()
	case l.state == linkNew:
		l.begin(l)
		l.send(&message{id: msgInput, text: []byte(s.name), mode: l.mode})
	case l.state == linkOpening && l.left:
		l.close()
	case l.state == linkOpen:
		for l.sends() {
			l.write()
		}
		if l.left {
			l.close()
		} else if l.asks() {
			l.ask()
		}
	}
}

// write sends chunks from the lane, as many as make a message.
func (l *queueLink) write() {
	frame := append(l.conn.scratch[:0], make([]byte, chunkOffset)...)
	for l.lane.chunks.len() > 0 && fits(frame, *l.lane.chunks.front()) {
		c := l.lane.chunks.pop()
		frame = appendRecord(frame, c)
		l.sent.push(len(c))
		l.flight += chunkSize(c)
	}
	ch := chunk{buf: frame, r: chunkOffset, w: len(frame)}
	l.conn.scratch = ch.frame(msgWrite, l.block(), l.channel)
	l.conn.sendFrame(l.conn.scratch)
}

// ask sends the READ that is due.
func (l *queueLink) ask() {
	m := message{id: msgRead, flags: readAny, count: uint32(l.out - l.store.count)}
	switch {
	case l.asked:
		l.giveBack()
		return
	case l.store.demands.Len() > 0:
		l.adapt()
		m.size = uint32(l.batch)
		l.asked = true
	}
	l.out = 0
	l.send(&m)
}

// adapt chooses how many chunks to ask for, by how fast the last ones went.
func (l *queueLink) adapt() {
	switch took := time.Since(l.arrived); {
	case took > 2*quick:
		l.batch = max(1, l.batch/2)
	case took < quick && l.full:
		l.batch = min(2*l.batch, maxBatch)
	}
}

// giveBack returns all chunks that nobody has received, and those on their way.
func (l *queueLink) giveBack() {
	s := l.store
	m := message{id: msgRead, flags: readReturn, count: uint32(l.out - s.count)}
	for s.returned.len() > 0 {
		s.drop(s.returned.pop())
	}
	l.out, l.asked, l.returning, l.batch = 0, false, true, 1
	l.send(&m)
}

// look is called now and then while there are chunks: those that nobody receives go
// back. It says whether there still are some.
func (l *queueLink) look(now time.Time) bool {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.state != linkOpen || s.count == 0 || l.returning {
		return false
	}
	if s.count == l.watched && now.Sub(l.arrived) >= returnAfter {
		l.giveBack()
		return false
	}
	if n := l.out - s.count; n > 0 {
		l.send(&message{id: msgRead, flags: readAny, count: uint32(n)})
		l.out -= n
	}
	l.watched = s.count
	return true
}

func (l *queueLink) close() {
	if n := l.out - l.store.count; n > 0 && l.state == linkOpen {
		l.send(&message{id: msgRead, flags: readAny, count: uint32(n)})
	}
	l.state = linkClosing
	l.send(&message{id: msgClose})
}

func (l *queueLink) expects(m *message) bool {
	opened := l.state == linkOpen || l.state == linkClosing
	switch m.id {
	case msgInputOK, msgInputFailed:
		return !l.answered
	case msgReadOK:
		return opened && (l.asked || l.returning || l.state == linkClosing)
	case msgReadTimeout:
		return opened && (l.returning || l.state == linkClosing)
	case msgWriteOK:
		return opened && m.count > 0 && int64(m.count) <= int64(l.sent.len())
	case msgWriteFailed, msgReadFailed, msgReadEnd:
		return opened
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	}
	return m.id == msgInvalid
}

func (l *queueLink) handle(_ []byte, m *message) {
	switch m.id {
	case msgInputOK:
		l.state = max(l.state, linkOpen)
		l.answer(nil)
		if l.mode == modeDelete {
			l.finish()
			return
		}
	case msgInputFailed:
		l.answer(cause{m.code, string(m.cause)}.openError())
		l.finish()
	case msgCloseOK, msgCloseFailed:
		l.finish()
	case msgInvalid:
		l.lost(cause{causeBrokerGone, "it has dropped this end"})
	default:
		l.store.mu.Lock()
		l.handleOpen(m)
		l.store.mu.Unlock()
	}
	l.serve()
}

// handleOpen takes a message about chunks. The store's mu is held.
func (l *queueLink) handleOpen(m *message) {
	s := l.store
	switch m.id {
	case msgReadOK:
		chunks, ok := records(m.chunk)
		if !ok {
			l.conn.fail("the broker broke the protocol: a READ_OK that is no sequence of chunks")
			return
		}
		if l.returning || l.state != linkOpen {
			return
		}
		l.asked = false
		l.out += len(chunks)
		l.full, l.arrived = len(chunks) >= l.batch, time.Now()
		for _, c := range chunks {
			s.hold(c)
			s.returned.push(c)
		}
		s.settle()
		if s.count > 0 {
			l.watched = s.count
			l.conn.watch(l)
		}
	case msgReadTimeout:
		l.returning = false
	case msgWriteOK:
		l.moving = true
		for range m.count {
			n := l.sent.pop()
			l.flight -= max(n, leastChunk)
			s.confirm(l.lane, n)
		}
	case msgWriteFailed:
		why := cause{m.code, string(m.cause)}
		s.refused = &why
		l.lane.chunks = fifo[[]byte]{}
		l.lane.wake()
	case msgReadFailed, msgReadEnd:
		s.end(cause{m.code, string(m.cause)}, false)
	}
}

func (l *queueLink) lost(why cause) {
	if l.state == linkDone {
		return
	}
	l.answer(why.openError())
	l.store.mu.Lock()
	l.store.end(why, false)
	l.store.mu.Unlock()
	l.finish()
}

// leave has the link closed. It may be called from any goroutine.
func (l *queueLink) leave() {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.left = true
	l.conn.post(l)
}

var errNoQueues = errors.New("it knows only the old protocol, which has no queues")

const noLimit = math.MaxInt
