package zpipes

import (
	"math"
	"slices"
	"time"
)

// sums are what a queue's counters should be.
type sums struct{ held, bytes, count, lent, empty int }

func (n *sums) add(chunk []byte) {
	n.held += chunkSize(chunk)
	n.bytes += len(chunk)
	n.count++
}

// holds checks what is true after each step.
func (w *queueWorld) holds() {
	for _, l := range w.insiders {
		w.confirmInside(l)
	}
	for _, p := range w.pieces {
		if p != nil {
			p.seen = 0
		}
	}
	g := w.pipes
	w.check(len(g.allPipes())+len(g.queues()) <= queueMost, "%d pipes, %d dead ones and %d queues", len(g.pipes()), deadOf(g), len(g.queues()))
	ends := len(w.insiders)
	for _, c := range w.guests {
		ends += w.holdsGuest(c)
	}
	w.check(g.ends == ends && ends <= queueMost, "queues are open %d times, should be %d", g.ends, ends)
	held, made := 0, 0
	for _, p := range g.allPipes() {
		held += p.charged
	}
	for _, c := range w.guests {
		for _, ch := range c.session.channels {
			if e := openAs[*queueReader](ch); e != nil {
				held += e.owed
			}
		}
	}
	for s := range w.books {
		if s.payer != nil {
			held += s.held
			if s.over == nil {
				made++
			}
		}
	}
	w.check(heldFor(w.user) == held, "%d bytes are held for the user, should be %d", heldFor(w.user), held)
	w.check(int(w.user.queues.Load()) == made, "the user has made %d queues, should have %d", w.user.queues.Load(), made)
	for _, s := range g.queues() {
		w.check(w.books[s] != nil && !w.books[s].deleted, "there is a queue %q, and should not be", s.name)
	}
	for s, b := range w.books {
		if b.ends == 0 && b.users == 0 && b.in == 0 && s.vain() && g.queues()[s.name] != s {
			b.deleted, b.void = true, true // it was only waited for, and the last of those has left
		}
		w.check(b.deleted == (g.queues()[s.name] != s), "%q should be deleted: %v", s.name, b.deleted)
		w.check(s.senders.Len() == b.ends, "%q is open %d times, should be %d", s.name, s.senders.Len(), b.ends)
		w.check(b.deleted || s.users == b.users, "%q has %d users, should have %d", s.name, s.users, b.users)
		w.holdsQueue(s, b)
		if b.deleted && b.ends == 0 && !w.used(s) {
			w.forgetBook(s)
		}
	}
	for _, p := range w.pieces {
		switch {
		case p == nil || p.seen == 1:
		case !p.queued: // a color that was not used
			w.gone(p)
		case p.queue == nil: // it waits in a request, see mayBe for one that was dropped
			if p.maybe {
				w.gone(p)
			}
		case p.maybe && !p.taken:
			w.count["dropped with its sender"]++
			w.gone(p)
		default:
			void := w.books[p.queue] == nil || w.books[p.queue].void
			refused := !p.taken && p.queue.over != nil // its sender will be told
			w.check(p.seen == 0 && (void || refused), "chunk %d of %q is in %d places", p.color, p.queue.name, p.seen)
			if p.taken {
				w.gone(p)
			}
		}
	}
}

// used says that some command still knows a chunkQueue.
func (w *queueWorld) used(s *chunkQueue) bool {
	return slices.ContainsFunc(w.guests, func(g *guest) bool {
		return g.session.text != nil && slices.ContainsFunc(g.session.text.waiting.all(), func(c *command) bool { return c.queue == s })
	})
}

func (w *queueWorld) forgetBook(s *chunkQueue) {
	w.empty = slices.DeleteFunc(w.empty, func(p *piece) bool { return p.queue == s })
	w.retired += w.books[s].in
	delete(w.books, s)
}

// holdsQueue looks for all chunks in a chunkQueue.
func (w *queueWorld) holdsQueue(s *chunkQueue, b *book) {
	var n sums
	see := func(j *job, with any) {
		chunk := j.data
		n.add(chunk)
		p := w.find(s, chunk)
		if p == nil {
			n.empty++
			return
		}
		p.seen++
		w.check(len(chunk) == p.size, "%d bytes of chunk %d are there, should be %d", len(chunk), p.color, p.size)
		w.takes(p)
		w.tape.passes(p, with, w.n)
		p.line.away = max(p.line.away, p.number)
		if with == nil || p.with != nil && p.with != with {
			p.moved = true
		} else {
			p.with = with
		}
	}
	for _, chunk := range s.front.all() {
		see(chunk, nil)
	}
	for _, c := range w.guests {
		for _, ch := range c.session.channels {
			if e := queueEndOf(ch); e != nil && e.queue == s {
				for _, chunk := range e.fresh.all() {
					see(chunk, e)
				}
				if m := openAs[*queueMember](ch); m != nil {
					for _, chunk := range m.out.all() {
						see(chunk, e)
					}
					if e.fresh.len() > 0 {
						w.served(e)
					}
				}
				if r := openAs[*queueReader](ch); r != nil {
					w.holdsLoaded(r)
					n.lent += r.loaded.len()
				}
			}
		}
		if t := c.session.text; t != nil {
			for _, said := range t.waiting.all()[:t.begun] {
				if said.queue == s && said.got != nil {
					see(said.got, c.session)
					w.served(said)
				}
			}
		}
	}
	if !s.void {
		w.holdsSenders(s, &n)
		w.check(s.held == n.held && s.bytes == n.bytes && s.count == n.count && s.lent == n.lent,
			"%q: %d held, %d bytes, %d chunks, %d lent ones; there are %d, %d, %d, %d",
			s.name, s.held, s.bytes, s.count, s.lent, n.held, n.bytes, n.count, n.lent)
		w.check(s.in == b.in, "%q has taken %d bytes, should be %d", s.name, s.in, b.in)
		w.check(n.held <= queuePending+3*queueMessage*b.readers || n.count == 1, "%q holds %d bytes", s.name, n.held)
		w.holdsEmpty(s, b, n.empty)
	}
	w.holdsTurns(s)
}

// holdsSenders looks at the chunks that were not handed out.
func (w *queueWorld) holdsSenders(s *chunkQueue, n *sums) {
	senders := make([]*senderQueue, 0, 16)
	for _, more := range [][]*senderQueue{s.ready.all(), s.full.all()} {
		for _, l := range more {
			if !slices.Contains(senders, l) {
				senders = append(senders, l)
			}
		}
	}
	for _, l := range senders {
		last := 0
		for i, j := range append(l.line.all(), l.chunks.all()...) {
			chunk, taken := j.data, i < l.line.len()
			if taken {
				n.add(chunk)
			} else if s.over != nil {
				break // of no meaning any more
			}
			p := w.find(s, chunk)
			if p == nil {
				n.empty++
				continue
			}
			p.seen++
			w.check(len(chunk) == p.size, "%d bytes of chunk %d are there, should be %d", len(chunk), p.color, p.size)
			w.check(p.number > last && p.number > p.line.away, "chunk %d is not in its place", p.color)
			last = p.number
			if taken {
				w.takes(p)
			}
			w.check(taken || !p.maybe, "chunk %d of nobody waits for room", p.color)
		}
	}
}

// holdsLoaded looks at what a reader of bytes has of a chunkQueue.
func (w *queueWorld) holdsLoaded(e *queueReader) {
	base := e.base
	for _, j := range e.loaded.all() {
		chunk := j.data
		n := int64(len(chunk))
		p := w.find(e.queue, chunk)
		p.seen++
		known := min(n, max(0, e.known-base))
		w.check(int64(p.size) == n-known, "%d bytes of chunk %d are read, should be %d", known, p.color, int(n)-p.size)
		w.takes(p)
		p.line.away = max(p.line.away, p.number)
		if p.with != nil && p.with != &e.queueEnd {
			p.moved = true
		} else {
			p.with = &e.queueEnd
		}
		base += n
	}
}

// holdsEmpty counts the empty chunks, which can't be told from each other.
func (w *queueWorld) holdsEmpty(s *chunkQueue, b *book, there int) {
	n := 0
	for _, p := range w.empty {
		if p.queue == s {
			n++
		}
	}
	drop := func(which func(*piece) bool) {
		w.empty = slices.DeleteFunc(w.empty, func(p *piece) bool {
			if n > there && p.queue == s && which(p) {
				n--
				return true
			}
			return false
		})
	}
	drop(func(p *piece) bool { return p.maybe })
	if b.readers > 0 || s.over != nil {
		drop(func(*piece) bool { return true })
	}
	w.check(n == there, "%q has %d empty chunks, should have %d", s.name, there, n)
}

// holdsGuest checks a session's books, and says how many queues it has open.
func (w *queueWorld) holdsGuest(c *guest) (ends int) {
	s := c.session
	requests, size := s.account.requests, s.account.bytes
	for channel, ch := range s.channels {
		k := c.hold(channel)
		w.check((queueEndOf(ch) != nil) == (k.queue != nil) && (ch.open != nil) == (k.queue != nil || k.stream),
			"%s.%d has something else open than it knows", c.name, channel)
		w.check(ch.queue.len() == len(k.waiting), "%s.%d: %d requests, but %d answers are missing", c.name, channel, ch.queue.len(), len(k.waiting))
		requests, size = requests-ch.queue.len(), size-ch.queue.bytes
		if queueEndOf(ch) != nil {
			ends++
			if m := openAs[*queueMember](ch); m != nil {
				size -= int64(m.window)
			}
		}
		w.check(!k.answering || k.asked == 0, "%s.%d: a READ is half answered", c.name, channel)
		w.check(k.returns == 0 && k.refused == 0, "%s.%d: %d returns and %d refusals are not answered", c.name, channel, k.returns, k.refused)
	}
	for channel, k := range c.holds {
		w.check(s.channels[channel] != nil || k.queue == nil && !k.stream && len(k.waiting) == 0, "%s.%d: forgotten", c.name, channel)
	}
	if s.text != nil {
		for _, said := range s.text.waiting.all() {
			size -= int64(said.size)
		}
		requests -= s.text.waiting.len()
		w.check(s.text.waiting.len() == len(c.said), "%s: %d commands, but %d answers are missing", c.name, s.text.waiting.len(), len(c.said))
	}
	w.check(requests == 0 && size == 0, "%s: %d requests and %d bytes too many are counted", c.name, requests, size)
	return ends
}

func (w *queueWorld) allLeave() {
	for _, g := range w.guests {
		w.vanish(g)
	}
	for _, l := range w.insiders {
		w.insideLeaves(l)
	}
	w.insiders = nil
	w.resume(math.MaxInt)
	w.holds()
}

// end closes the broker, at times after it has forgotten what nobody uses, and drops all.
// Nothing must be left.
func (w *queueWorld) end() {
	w.n++
	w.resume(math.MaxInt)
	w.quiet()
	if !w.closed && w.r.IntN(4) == 0 {
		w.allLeave()
		w.pass(w.now.Add(time.Second))
		w.forget()
		w.holds()
	}
	if !w.closed {
		w.close(w.r.IntN(2) == 0)
	}
	w.resume(math.MaxInt)
	w.quiet()
	w.allLeave()
	w.check(len(w.posted) == 0 && w.alarms.len() == 0, "%d wake-ups and %d alarms are left", len(w.posted), w.alarms.len())
	g := w.pipes
	w.check(len(g.allPipes()) == 0 && g.ends == 0, "%d pipes and %d ends are left", len(g.allPipes()), g.ends)
	w.check(g.emptied(), "the registry still waits for readers")
	in := w.retired
	for s, b := range w.books {
		in += b.in
		w.check(s.demands.Len() == 0 && s.full.len() == 0 && s.lent == 0,
			"%q has %d demands, %d senders that wait, %d lent chunks", s.name, s.demands.Len(), s.full.len(), s.lent)
		w.check(s.void || s.out == s.in-int64(s.bytes), "%q counts %d bytes out of %d, and has %d", s.name, s.out, s.in, s.bytes)
	}
	w.check(g.stats().BytesIn == in, "%d bytes in were counted, should be %d", g.stats().BytesIn, in)
}
