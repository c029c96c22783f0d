//go:build !core

package zpipes

import (
	"context"
	"runtime"
	"time"
)

// A queueLink is the client's side of a Queue on a connection: it takes the chunks
// that are sent out of the Queue's own queue, several to a message, and brings those
// that arrive into it.
//
// It asks for chunks when somebody waits in Receive, and for no more than that, since
// others may want them; unless they are received so fast that to ask for each would
// take longer than what is done with it. What nobody has received after a while goes
// back.
type queueLink struct {
	linkBase
	mode byte // of its INPUT
	jobLink

	// All below is guarded by the queue's mu.
	queue  *chunkQueue
	sender *senderQueue
	left   bool // it is to be closed
	why    cause

	sent fifo[int] // how long the chunks are that have left and are not confirmed

	awaited int64 // until so much is uttered, those whom messages have woken have yet to speak

	asked     int       // chunks that the READ under way may still bring
	waits     bool      // it has not brought any yet
	returning bool      // what arrives is void until the broker has taken all back
	out       int       // chunks that have arrived and that the broker does not know to be received
	outBytes  int       // of them
	batch     int       // how many chunks the last READ asked for
	cameAt    time.Time // when the first of them did
	watched   int64     // how many chunks had been received at the last look
	looked    time.Time // when that was
}

const (
	// returnAfter is how long chunks wait for a Receive before they go back.
	returnAfter = 10 * time.Millisecond
	// paces is how many times that, at the pace of the last one, chunks may wait that
	// others could receive sooner.
	paces = 10
	// quick is how fast chunks must be received, from when they have come, for a READ to ask for more of them.
	quick = time.Millisecond
	// maxBatch is how many chunks it asks for at most.
	maxBatch = 1 << 16
	// tellAfter is how many bytes are received before the broker is told: it holds
	// them until then.
	tellAfter = 64 << 10
	// maxPuts is how many chunks may be unconfirmed before one that has terms, and so a message of its own: on the way to
	// another broker a broker holds maxQueued messages, and there are acts on jobs beside them.
	maxPuts = maxQueued - 1024
)

// changed is called by the queue when something has changed.
func (l *queueLink) changed() {
	if l.sends() || l.asks() || l.talks() {
		l.conn.post(l)
	}
}

// asks says that a READ is due.
func (l *queueLink) asks() bool {
	s := l.queue
	switch {
	case l.returning || s.over != nil:
		return false
	case l.outBytes-s.bytes >= tellAfter:
		return true
	case l.waits:
		return s.demands.Len() == 0 // it is not wanted any more
	case l.asked > 0:
		return false
	}
	return s.count == 0 && (s.demands.Len() > 0 || l.out > 0)
}

// sends says that a WRITE may leave: one at once, others behind it when they are full.
func (l *queueLink) sends() bool {
	if l.sender.chunks.len() == 0 {
		return false
	}
	if first := l.sender.chunks.front(); first.terms != nil { // it leaves alone
		return l.inFlight == 0 || l.sent.len() < maxPuts && l.mayFollow(first.size(), l.conn.channelWindow)
	}
	unsent, next := l.sender.window-l.inFlight, max(maxRecords, len(l.sender.chunks.front().data))
	return l.inFlight == 0 || unsent >= maxRecords && l.mayFollow(next, l.conn.channelWindow)
}

func (l *queueLink) serve() {
	s := l.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.state == linkOpen {
		l.gather()
	}
	switch {
	case l.state == linkNew && l.left:
		l.finish()
	case l.state == linkNew:
		l.begin(l)
		l.send(&message{id: msgInput, text: []byte(s.name), mode: l.mode})
	case l.state == linkOpening && l.left:
		l.close()
	case l.state == linkOpen:
		for l.sends() && (l.inFlight > 0 || l.conn.mayLeave(l, l.sender.chunks.front().size(), l.conn.connWindow)) {
			l.write()
		}
		if l.answered {
			l.talk()
		}
		if l.left {
			l.close()
		} else if l.asks() {
			l.ask()
		}
	}
}

// write sends the sender's chunks, as many as make a message.
func (l *queueLink) write() {
	if l.sender.chunks.front().terms != nil {
		j := l.queue.carry(l.sender)
		l.sent.push(len(j.data))
		l.addInFlight(j.size())
		l.put(j)
		return
	}
	frame := append(l.conn.scratch[:0], make([]byte, chunkOffset)...)
	for l.sender.chunks.len() > 0 && l.sender.chunks.front().terms == nil && fits(frame, l.sender.chunks.front().data) {
		c := l.queue.carry(l.sender).data
		frame = appendRecord(frame, c)
		l.sent.push(len(c))
		l.addInFlight(chunkSize(c))
	}
	ch := segment{buf: frame, r: chunkOffset, w: len(frame)}
	l.conn.scratch = ch.frame(msgWrite, l.block(), l.channel)
	l.conn.sendFrame(l.conn.scratch)
}

// ask sends the READ that is due.
func (l *queueLink) ask() {
	s := l.queue
	switch {
	case l.waits && s.demands.Len() == 0:
		l.giveBack()
	case l.asked == 0 && s.count == 0 && s.demands.Len() > 0:
		l.adapt()
		l.asked, l.waits = l.batch, true
		l.tell(l.batch)
	default:
		l.tell(0)
	}
}

// adapt chooses how many chunks to ask for, by how fast the last ones went. How long they were on their way does not
// count: of who is far from the broker, or on a busy machine, each would else be a round trip's.
func (l *queueLink) adapt() {
	switch took := time.Since(l.cameAt); {
	case took > 2*quick:
		l.batch = max(1, l.batch/2)
	case took < quick:
		l.batch = min(2*l.batch, maxBatch)
	}
}

// tell sends how many chunks have been received, and asks for more.
func (l *queueLink) tell(size int) {
	m := message{id: msgRead, flags: readAny, size: uint32(size), count: uint32(l.out - l.queue.count)}
	l.out, l.outBytes = l.queue.count, l.queue.bytes
	l.send(&m)
}

// giveBack returns all chunks that nobody has received, and those on their way.
func (l *queueLink) giveBack() {
	s := l.queue
	m := message{id: msgRead, flags: readReturn, count: uint32(l.out - s.count)}
	s.discard()
	l.out, l.outBytes, l.asked, l.waits, l.returning, l.batch = 0, 0, 0, false, true, 1
	l.send(&m)
}

// look is called now and then while there are chunks: those that nobody receives, or
// not soon, go back. It says whether to look again.
func (l *queueLink) look(now time.Time) bool {
	s := l.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.state != linkOpen || s.count == 0 || l.returning || s.over != nil {
		return false
	}
	if now.Sub(l.looked) >= returnAfter {
		received := s.received - l.watched
		l.watched, l.looked = s.received, now
		if int64(s.count) > received*paces {
			l.giveBack()
			return false
		}
	}
	if l.out > s.count {
		l.tell(0)
	}
	return true
}

func (l *queueLink) watch() {
	l.looked = time.Now()
	l.conn.watch(l)
}

func (l *queueLink) close() {
	if l.out > l.queue.count && l.state == linkOpen {
		l.tell(0)
	}
	l.state = linkClosing
	l.send(&message{id: msgClose, code: l.why.code, cause: []byte(l.why.text)})
}

func (l *queueLink) expects(m *message) bool {
	opened := l.state == linkOpen || l.state == linkClosing
	switch m.id {
	case msgInputOK, msgInputFailed:
		return !l.answered
	case msgReadOK:
		return opened && (l.asked > 0 || l.returning || l.state == linkClosing)
	case msgReadTimeout:
		return opened && (l.returning || l.state == linkClosing)
	case msgWriteOK:
		return opened && m.count > 0 && int64(m.count) <= int64(l.sent.len())
	case msgWriteFailed, msgReadFailed, msgReadEnd:
		return opened
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	}
	return m.id == msgInvalid || l.expectsJobs(m)
}

func (l *queueLink) handle(_ []byte, m *message) {
	switch m.id {
	case msgInputOK:
		l.state = max(l.state, linkOpen)
		if l.rule() {
			return
		}
		nothing := l.mode == modeDelete || l.mode == modeLeave // is open
		l.accepted(!nothing)
		if nothing {
			l.finish()
			return
		}
	case msgRulesOK:
		l.accepted(true)
	case msgRulesFailed:
		l.queue.mu.Lock()
		l.left, l.why = true, never
		l.queue.mu.Unlock()
		l.answer(m.why().openError())
	case msgInputFailed:
		l.refused(m.why())
	case msgCloseOK, msgCloseFailed:
		l.finish()
	case msgInvalid:
		l.lost(droppedEnd)
	default:
		l.queue.mu.Lock()
		l.handleOpen(m)
		l.queue.mu.Unlock()
	}
	l.serve()
}

// uttered is how often somebody has said something. The queue's mu is held.
func (l *queueLink) uttered() int64 { return l.sender.pushed + l.heard }

// gather lets those speak first whom messages have woken, so that what they say leaves together. Of several who wait for
// each of their sends, one half would else always wait while the other one is being confirmed. It waits for no longer than they
// come, and where others of the program use the processors, that takes too long, and for a while it is not tried. The queue's mu is
// held, but not all the time.
func (l *queueLink) gather() {
	const (
		patience = 16 // turns: somebody may have one of them on another processor
		atMost   = 3 * time.Millisecond
		part     = 10 // so long, of the time, it may take at most
	)
	before := l.uttered()
	l.awaited = max(l.awaited, before) + l.woken()
	if before >= l.awaited {
		return
	}
	begin, came := time.Now(), false
	if begin.Before(l.conn.crowded) {
		return
	}
	for left := patience; left > 0; left-- {
		l.queue.mu.Unlock()
		runtime.Gosched()
		now := time.Now()
		l.queue.mu.Lock()
		if took := now.Sub(begin); took > atMost {
			l.conn.crowded = now.Add(part * took)
			return
		}
		n := l.uttered()
		if n >= l.awaited {
			return
		}
		if n > before {
			before, left, came = n, patience, true
		}
	}
	if !came { // nor will they
		l.awaited = before
	}
}

// handleOpen takes a message about chunks. The queue's mu is held.
func (l *queueLink) handleOpen(m *message) {
	s := l.queue
	switch m.id {
	case msgReadOK:
		if l.returning || l.state != linkOpen {
			return
		}
		chunks, ok := m.records(l.asked)
		if !ok {
			l.conn.fail("the broker broke the protocol: a READ_OK that is no sequence of chunks, or of too many")
			return
		}
		l.asked -= len(chunks)
		if l.waits {
			l.waits, l.cameAt = false, time.Now()
		}
		l.out += len(chunks)
		for _, c := range chunks {
			l.outBytes += len(c)
		}
		s.arrive(chunks)
		if s.count > 0 {
			l.watch()
		}
	case msgReadEnd:
		if !l.returning {
			l.asked, l.waits = 0, false
		}
	case msgReadTimeout:
		l.returning = false
	case msgWriteOK:
		l.moving = true
		for range m.count {
			n := l.sent.pop()
			l.addInFlight(-max(n, leastChunk))
			s.confirm(l.sender, n)
		}
	case msgWriteFailed:
		s.refuse(l.sender, m.why())
	case msgJob, msgJobs, msgSettled, msgLost, msgTended:
		l.handleJobs(m)
	case msgReadFailed:
		// What has arrived stays, but not if the queue was deleted.
		s.end(m.why(), m.code != causeDeleted)
		l.endTakes()
	}
}

func (l *queueLink) lost(why cause) {
	if l.state == linkDone {
		return
	}
	l.queue.mu.Lock()
	l.queue.end(why, l.queue.over != nil) // else others may get it
	l.endTakes()
	l.end()
	l.queue.mu.Unlock()
	l.refused(why) // last: who opened it may try again with the same Queue
}

// leave has the link closed. It may be called from any goroutine.
func (l *queueLink) leave(why cause) {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.left, l.why = true, why
	l.conn.post(l)
}

func (k *conn) newQueueLink(o member, s *chunkQueue, l *senderQueue, mode byte) *queueLink {
	q := &queueLink{linkBase: newLinkBase(k, o), mode: mode, queue: s, sender: l, batch: 1}
	q.said.keep = 64
	q.lose, q.late, q.end, q.woken = func(uint64, uint32) {}, func() {}, func() {}, func() int64 { return 0 }
	s.carryBy(q)
	return q
}

// openQueue opens or deletes the link's queue at the broker.
func (k *conn) openQueue(ctx context.Context, l *queueLink) error {
	err := k.await(ctx, l, &l.linkBase)
	if err != nil && err == ctx.Err() {
		l.leave(never)
	}
	return err
}

// watch has a Queue's chunks looked at in a while. It is the owner's.
func (k *conn) watch(l *queueLink) { k.watched[l] = true }
