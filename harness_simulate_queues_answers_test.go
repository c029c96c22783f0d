package zpipes

import (
	"bytes"
	"slices"
	"time"
)

// reply is what the broker says to a client.
func (w *queueWorld) reply(s *session, frames ...[]byte) bool {
	i := slices.IndexFunc(w.guests, func(g *guest) bool { return g.session == s })
	w.check(i >= 0 && !s.gone, "a reply to a client that was dropped: % x", frames[0])
	g := w.guests[i]
	g.noticed = g.lost
	if g.congested {
		s.backlog = append(s.backlog, [][]byte{nil})
	}
	if g.kind == guestText {
		if w.logs {
			w.note("%s < %s", g.name, commanded(frames))
		}
		w.says(g, frames)
		if g.lost {
			w.forgetsSaid(g) // as the session does
		}
		return !g.lost
	}
	m, err := parse(bytes.Clone(frames[0]))
	w.check(err == nil, "a reply that does not parse: %v: % x", err, frames[0])
	k := g.hold(m.channel)
	if w.logs {
		w.note("%s.%d < %s", g.name, m.channel, shown(m)+chunksOf(&m, k))
	}
	w.count[frameName(m)]++
	switch {
	case m.id == msgPingOK:
		g.pings--
	case g.doomed && m.id == msgInvalid && m.channel == 0 && g.agreed:
	case k.whole && (len(k.waiting) == 0 || m.id == msgWriteOK):
		w.answersWhole(k, m)
	case len(k.waiting) == 0:
		over := k.queue != nil && k.role == writer && k.queue.over != nil
		ok := m.id == msgWriteFailed && g.agreed && !k.told && (over || k.stream)
		w.check(ok, "nobody asked for this")
		k.told = true
	case w.answers(g, k, k.waiting[0], m):
		k.waiting = k.waiting[1:]
		w.begun(g, k)
	}
	return !g.lost
}

// answersWhole checks what is said of whole chunks.
func (w *queueWorld) answersWhole(k *hold, m message) {
	over := k.queue.over != nil
	switch m.id {
	case msgWriteOK:
		n := int(m.count)
		w.check(0 < n && n <= len(k.sent), "%d of %d chunks are confirmed", n, len(k.sent))
		for _, p := range k.sent[:n] {
			w.confirm(p)
		}
		k.sent = k.sent[n:]
	case msgReadOK:
		chunks, ok := recordsOf(m.chunk, 100)
		w.check(ok && len(chunks) <= k.asked, "%d chunks came, and %d were asked for", len(chunks), k.asked)
		w.inTurn(k.queue, k.end)
		for _, c := range chunks {
			p := w.received(k.queue, c, k.end, k.last)
			w.tape.receive(p, k.at, w.n)
			k.out = append(k.out, p)
		}
		k.asked -= len(chunks)
		k.answering = k.asked > 0
	case msgReadEnd:
		w.check(k.answering && k.asked > 0, "an end that is none")
		k.asked, k.answering = 0, false
	case msgReadTimeout:
		w.check(k.returns > 0, "nothing was given back")
		k.returns--
	case msgReadFailed:
		w.check(over && !k.ended && !k.queue.available(), "an end that is none")
		k.ended = true
	default:
		w.check(m.id == msgWriteFailed && over, "nobody asked for this")
		if k.refused > 0 {
			k.refused--
		} else {
			w.check(!k.told, "told twice")
		}
		k.told = true
		for _, p := range k.sent {
			w.refuse(p)
		}
		k.sent = nil
	}
}

// answers checks that m is what q should be told, and says whether it was all.
func (w *queueWorld) answers(g *guest, k *hold, q *wish, m message) (done bool) {
	late := q.timeout > 0 && !w.now.Before(q.at.Add(time.Duration(q.timeout)*time.Millisecond))
	must := func(id messageID) { w.check(m.id == id, "%s, want %s", frameName(m), wireLayout[id].name) }
	open := k.queue != nil || k.stream
	switch {
	case q.invalid:
		must(msgInvalid)
		w.leave(k)
	case q.id == msgClose && !open:
		must(msgInvalid)
	case q.id == msgClose:
		must(msgCloseOK)
		w.leave(k)
	case (q.id == msgInput || q.id == msgOutput) && !open:
		w.opened(g, k, q, m)
	case q.id == msgRead && k.queue != nil && k.role == reader:
		return w.read(k, q, m, late)
	case q.id == msgWrite && k.queue != nil && k.role == writer:
		w.wrote(k, q, m, late)
	default:
		must(msgInvalid)
		w.refuse(q.p)
		if q.id != msgRead && q.id != msgWrite {
			w.leave(k)
		}
	}
	return true
}

func (w *queueWorld) opened(g *guest, k *hold, q *wish, m message) {
	name, r := string(q.text), role(q.id/msgOutput)
	mode := byte(modeStream)
	if r == reader && g.agreed {
		mode = q.mode
	}
	if m.id == q.id+1 { // OK
		ch := g.session.channels[m.channel]
		switch e := queueEndOf(ch); {
		case mode == modeDelete:
			w.deleted(w.bookOf(name))
		case e == nil:
			w.check(ch.open != nil, "not attached")
			k.stream = true
		default:
			whole, writes := openAs[*queueMember](ch) != nil, openAs[*queueWriter](ch) != nil
			w.check(w.pipes.queues()[name] == e.queue && whole == (mode == modeQueue) && writes == (r == writer), "not attached")
			b := w.bookFor(e.queue)
			b.ends++
			if r == reader && !whole {
				b.readers++
			}
			*k = hold{waiting: k.waiting, queue: e.queue, end: e, whole: whole, role: r, line: new(row), last: make(map[*row]int)}
		}
		return
	}
	w.check(m.id == q.id+2, "want an answer to an open")
	p, s := w.pipes.pipes()[name], w.pipes.queues()[name]
	justified := checkPipeName(name) != nil || w.closed || mode > modeStatus ||
		mode == modeStatus && g.session.reports[0] > 0 ||
		mode == modeDelete && s == nil ||
		p != nil && (mode != modeStream || p.side(r).open) ||
		p == nil && s == nil && len(w.pipes.allPipes())+len(w.pipes.queues()) == queueMost ||
		(s != nil || mode == modeQueue) && w.pipes.ends == queueMost
	w.check(justified, "refused without a reason")
}

func (w *queueWorld) deleted(b *book) {
	w.count["deleted"]++
	w.check(b != nil && !b.deleted, "a queue was deleted that does not exist")
	b.deleted, b.void = true, true
}

// read checks the answer to a READ of bytes.
func (w *queueWorld) read(k *hold, q *wish, m message, late bool) (done bool) {
	partial := q.flags&(readAny|readStream) != 0
	over := k.queue.over != nil
	switch {
	case q.size == 0:
		w.check(m.id == msgReadEnd, "want READ_END for nothing")
		return true
	case m.id == msgReadOK:
		n := uint32(len(m.chunk))
		w.check(n > 0 && n <= q.left, "%d bytes for %d", n, q.left)
		w.check(n == q.size || partial || over, "%d bytes for %d", n, q.size)
		w.bytes(k, m.chunk)
		if q.flags&readStream != 0 {
			q.left -= n
			return q.left == 0
		}
	case m.id == msgReadEnd:
		w.check(over && k.told, "an end that is none")
	case m.id == msgReadTimeout:
		lent := q.flags&readStream != 0 && q.size-q.left >= queueMessage
		w.check(late || lent, "a timeout after %v", w.now.Sub(q.at))
	default:
		w.check(m.id == msgReadFailed, "want an answer to READ")
		large := !partial && q.size > queueMessage && pipeOf(k.end.channel).readable() >= queueMessage
		w.check(q.fails || large || over && !k.told, "failed without a reason")
		k.told = k.told || over && !q.fails && !large
	}
	delete(w.tickets, k.end)
	return true
}

// bytes takes apart what came to a reader of bytes.
func (w *queueWorld) bytes(k *hold, b []byte) {
	for len(b) > 0 {
		n := len(b) - len(bytes.TrimLeft(b, string(b[:1])))
		if k.left == 0 {
			k.cur = w.find(k.queue, b[:n])
			k.left = k.cur.size
			w.arrives(k.cur, k.end, k.last)
		}
		w.check(b[0] == k.cur.color && n <= k.left, "%d bytes of color %d, want %d of chunk %d", n, b[0], k.left, k.cur.color)
		k.got = append(k.got, run{k.cur, n})
		k.left -= n
		b = b[n:]
	}
}

// wrote checks the answer to a WRITE of one chunk.
func (w *queueWorld) wrote(k *hold, q *wish, m message, late bool) {
	switch m.id {
	case msgWriteOK:
		if q.p.queue == nil {
			q.p.queue = k.queue
		}
		w.confirm(q.p)
		return
	case msgWriteTimeout:
		w.check(late, "a timeout after %v", w.now.Sub(q.at))
	default:
		w.check(m.id == msgWriteFailed, "want an answer to WRITE")
		over := k.queue.over != nil
		w.check(q.fails || over || len(q.chunk) > queueMessage, "failed without a reason")
		k.told = k.told || over && !q.fails
	}
	w.refuse(q.p)
}

// says checks the answer to a command of the text interface.
func (w *queueWorld) says(g *guest, frames [][]byte) {
	w.check(len(g.said) > 0, "nobody asked for this")
	q := g.said[0]
	g.said = g.said[1:]
	c := *g.session.text.waiting.front()
	if len(frames) == 2 {
		w.check(string(frames[0]) == textError && len(frames[1]) > 0, "two frames that are no error: %q", frames)
		w.count[q.verb+" ERROR"]++
		w.check(w.mayRefuse(q, c), "refused without a reason")
		w.refuse(q.p)
		return
	}
	w.check(!q.wrong && len(frames) == 1, "%d frames in answer to %q", len(frames), q.verb)
	if q.verb == textRead {
		w.count["READ chunk"]++
		if g.lost { // and so it comes back
			if p := w.find(c.queue, frames[0]); p != nil {
				w.takes(p)
				w.tape.receive(p, q.at, w.n)
				w.comesBack([]*piece{p})
			}
			// So will what its other commands have by now, perhaps within this very step.
			for _, other := range g.session.text.waiting.all()[:g.session.text.begun] {
				if other.got != nil {
					if p := w.find(other.queue, other.got.data); p != nil {
						p.moved = true
					}
				}
			}
			return
		}
		w.inTurn(c.queue, c)
		p := w.received(c.queue, frames[0], g.session, make(map[*row]int))
		w.tape.receive(p, q.at, w.n)
		w.gone(p)
		return
	}
	w.check(string(frames[0]) == textOK, "%q, want OK", frames[0])
	w.count[q.verb+" OK"]++
	switch q.verb {
	case textOpen:
		w.bookFor(w.pipes.queues()[q.name]).users++
	case textWrite:
		if q.p.queue == nil {
			q.p.queue = c.queue
		}
		w.confirm(q.p)
	case textClose:
		b := w.bookOf(q.name)
		b.users--
		w.check(b.users >= 0, "closed more often than opened")
		if b.users == 0 && b.ends == 0 {
			w.deleted(b)
		}
	}
}

// mayRefuse says whether a command could not be carried out.
func (w *queueWorld) mayRefuse(q *said, c *command) bool {
	p, s := w.pipes.pipes()[q.name], w.pipes.queues()[q.name]
	stream := p != nil && !p.over()
	switch {
	case q.wrong || q.fails || w.closed || checkPipeName(q.name) != nil || stream:
		return true
	case q.verb == textOpen:
		return s == nil && len(w.pipes.allPipes())+len(w.pipes.queues()) == queueMost
	case q.verb == textClose:
		return s == nil || w.books[s].users == 0
	case q.verb == textWrite && len(c.rest[0]) > queueMessage:
		return true
	case c.queue == nil: // when it began, which a READ may have done long ago
		return s == nil || q.verb == textRead
	}
	return c.queue.over != nil
}
