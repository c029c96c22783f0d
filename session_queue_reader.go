package zpipes

import "time"

// A queueReader is opened by an INPUT that does not ask for a queue: the chunks are bytes
// to it, of a pipe of its own.
type queueReader struct {
	queueEnd
	bytes streamReader

	// loaded are the chunks whose bytes are in its pipe, from the byte number base on, and
	// kept until the client is known to have them.
	loaded jobList
	base   int64
	known  int64 // it has the bytes before that one for sure
	owed   int   // bytes of loaded, which count for the client's account
}

func (e *queueReader) read(q *request, now time.Time) bool {
	if q.size > 0 && e.fill(q) {
		e.channel.session.pipes.noteNotified(e.queue, &e.sender)
	}
	return e.channel.burst(q, func() (*segment, bool) {
		if q.flags&readStream != 0 && e.lentOut() {
			e.rest(q)
			e.channel.reply(msgReadTimeout, cause{})
			return nil, true
		}
		seg, done := e.bytes.segment(q, now)
		if seg != nil || done {
			e.rest(q)
		}
		return seg, done
	})
}

// fill fills the pipe, as far as the READ wants. It says whether nothing is left to be
// read, for ever.
func (e *queueReader) fill(q *request) (ended bool) {
	c, s, p := e.channel, e.queue, e.bytes.pipe
	s.mu.Lock()
	defer s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !q.fed {
		q.fed = true
		e.has(p.out)
	}
	need := int(min(int64(q.size), int64(c.session.pipes.maxMessage)))
	if q.flags&(readAny|readStream) != 0 {
		need = 1
	}
	for e.fresh.len() > 0 {
		e.load(e.fresh.pop())
	}
	poor := func() bool { return p.buf.n > 0 && c.session.account.room() == 0 }
	for p.buf.n < need && s.available() && !poor() {
		e.load(s.next())
	}
	if p.buf.n < need {
		if over := s.ended(&e.sender); over != nil {
			p.leave(writer, *over)
			ended = p.buf.n == 0
		} else if poor() {
			c.session.account.await(c, 1)
		} else if e.demand == nil {
			e.demand = s.ask(&e.queueEnd)
		}
	}
	s.settle()
	return ended
}

// lentOut says that the client has been sent as much as there may be of which it has not
// shown that it has it: it does so with its next READ.
func (e *queueReader) lentOut() bool {
	return e.bytes.pipe.out-e.known >= int64(e.channel.session.pipes.maxMessage) || e.loaded.len() >= maxLoaded
}

// maxLoaded is how many chunks that may be.
const maxLoaded = 1 << 16

func (e *queueReader) load(j *job) {
	e.queue.lend(j)
	if len(j.data) == 0 {
		return // any number of them makes no byte
	}
	e.owe(len(j.data))
	e.loaded.push(j)
	e.bytes.pipe.fill(j.data)
}

func (e *queueReader) owe(n int) {
	e.owed += n
	e.channel.session.account.charge(n)
}

// has records that the client has the bytes before that one.
func (e *queueReader) has(upTo int64) {
	e.known = upTo
	for e.loaded.len() > 0 && e.base+int64(len(e.loaded.front().data)) <= upTo {
		j := e.loaded.pop()
		e.base += int64(len(j.data))
		e.owe(-len(j.data))
		e.queue.consumed(j)
	}
}

// rest withdraws what a READ that has been answered otherwise asked for. One that
// goes on asks again.
func (e *queueReader) rest(q *request) {
	if q.flags&readStream != 0 {
		e.channel.recheck()
	}
	e.queue.mu.Lock()
	defer e.queue.mu.Unlock()
	e.giveBack(nil, false)
}

// leave returns what the client does not have: of the bytes that it was sent last, the
// unread ones; if it has vanished, all of which it has not shown that it has them.
func (e *queueReader) leave(why cause, unread uint32, never bool) {
	c, s := e.channel, e.queue
	s.mu.Lock()
	upTo := e.bytes.pipe.out
	if c.session.agreed {
		if upTo -= int64(unread); why.code == causeVanished || upTo < e.known {
			upTo = e.known
		}
	}
	e.has(upTo)
	s.reclaim(e.loaded.all(), upTo-e.base)
	e.owe(-e.owed)
	c.session.account.forget(c)
	e.giveBack(e.loaded.all(), why.code == causeVanished)
	s.mu.Unlock()
	e.exit(never)
}
