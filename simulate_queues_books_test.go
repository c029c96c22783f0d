package zpipes

import (
	"bytes"
	"container/list"
	"math"
	"slices"
)

// A book is what is known of a queue from outside.
type book struct {
	users   int   // OPENs by text
	ends    int   // how often it is open otherwise
	in      int64 // bytes that it has taken
	deleted bool
	void    bool // what was in it may come out, but need not
	readers int  // of bytes that there ever were; what they give back needs no room, and an empty chunk is nothing to them
}

// A row is the chunks of one sender to one queue, in order.
type row struct {
	away int // the largest number that has left the sender's lane
}

// A piece is a chunk, or what is left of one. All its bytes are its color, which no
// other has as long as it exists.
type piece struct {
	color  byte
	size   int // bytes that nobody has for sure
	whole  int // bytes that it once had
	number int
	line   *row
	to     string // the queue's name, where that is known
	store  *store // nil: it has not got there
	taken  bool   // by the store
	maybe  bool   // its sender has gone and does not know whether it was taken
	seen   int    // where it is: how often
	with   any    // the first receiver to whom it was given
	moved  bool   // it came back, or went to another one
	queued bool   // some request has it
	sentAt int    // the step

	// For the tape.
	confirmed int  // the step
	out       bool // its receiver was told
	holder    any
	since     int
}

// begins records that somebody sends a chunk to a queue, which is s if it gets there
// at once.
func (w *queueWorld) begins(chunk []byte, l *row, to string, s *store) *piece {
	var p *piece
	if len(chunk) == 0 {
		p = new(piece)
		w.empty = append(w.empty, p)
	} else {
		p = w.pieces[chunk[0]]
	}
	w.serial++
	p.number, p.whole, p.line, p.to, p.store, p.queued, p.sentAt = w.serial, p.size, l, to, s, true, w.n
	w.tape.begin(p)
	return p
}

// find says which piece that is which is in a store, or came out of it.
func (w *queueWorld) find(s *store, chunk []byte) *piece {
	if len(chunk) == 0 {
		return nil
	}
	p := w.pieces[chunk[0]]
	w.check(p != nil && p.queued, "%d bytes of color %d, which nobody sent", len(chunk), chunk[0])
	w.check(bytes.Count(chunk, chunk[:1]) == len(chunk), "chunk %d is mixed with another: % x", p.color, chunk)
	if p.store == nil && p.to == s.name {
		p.store = s
	}
	w.check(p.store == s, "chunk %d is in %q, or came out of it, and was sent to another queue", p.color, s.name)
	return p
}

// findEmpty picks any empty chunk that is in a store.
func (w *queueWorld) findEmpty(s *store) *piece {
	i := slices.IndexFunc(w.empty, func(p *piece) bool { return p.store == s && p.with == nil })
	w.check(i >= 0, "an empty chunk came out of %q, which nobody sent", s.name)
	return w.empty[i]
}

func (w *queueWorld) takes(p *piece) {
	if !p.taken {
		p.taken = true
		w.bookFor(p.store).in += int64(p.whole)
	}
}

// confirm records that a sender was told that its chunk is taken.
func (w *queueWorld) confirm(p *piece) {
	if p.store != nil { // else it has come out already
		w.takes(p)
	}
	w.tape.send(p, w.n)
}

// received checks a whole chunk that somebody got from a store, and says which one.
func (w *queueWorld) received(s *store, chunk []byte, by any, last map[*row]int) *piece {
	p := w.find(s, chunk)
	if p == nil {
		p = w.findEmpty(s)
		p.with = by
		w.takes(p)
		return p
	}
	w.check(len(chunk) == p.size, "%d bytes of chunk %d came, which has %d", len(chunk), p.color, p.size)
	w.arrives(p, by, last)
	return p
}

// arrives records that some of a piece came to somebody.
func (w *queueWorld) arrives(p *piece, by any, last map[*row]int) {
	w.takes(p)
	p.line.away = max(p.line.away, p.number)
	if p.with == nil {
		p.with = by
	}
	if p.with == by && !p.moved {
		w.check(p.number > last[p.line], "chunk %d came behind a later one of its sender", p.color)
	}
	last[p.line] = max(last[p.line], p.number)
}

// inTurn checks that nobody who asked before one that is served waits still.
func (w *queueWorld) inTurn(s *store, r receiver) {
	mine := w.tickets[r]
	if mine.at == 0 {
		mine.at = w.n
	}
	delete(w.tickets, r)
	for d := s.demands.Front(); d != nil; d = d.Next() {
		other := d.Value.(receiver)
		t := w.tickets[other]
		w.check(t.at == 0 || t.at >= mine.at || t.place != askedBy(other),
			"one who asked %q in step %d was served before one of step %d", s.name, mine.at, t.at)
	}
}

// served records that a receiver was given a chunk by now.
func (w *queueWorld) served(r receiver) {
	if w.tickets[r].at == 0 {
		w.tickets[r] = ticket{at: w.n}
	}
}

// holdsTurns checks that those who wait do so in the order in which they asked.
func (w *queueWorld) holdsTurns(s *store) {
	last := 0
	for d := s.demands.Front(); d != nil; d = d.Next() {
		r := d.Value.(receiver)
		t := w.tickets[r]
		if t.at == 0 || t.place != askedBy(r) {
			t = ticket{w.n, askedBy(r)}
			w.tickets[r] = t
		}
		w.check(t.at >= last, "one who asked %q in step %d waits before one of step %d", s.name, last, t.at)
		last = t.at
	}
}

// askedBy is what a reader of bytes waits with.
func askedBy(r receiver) *list.Element {
	if e, ok := r.(*queueEnd); ok && !e.whole {
		return e.demand
	}
	return nil
}

// gone records that a piece has left for good.
func (w *queueWorld) gone(p *piece) {
	if p.color == 0 {
		w.empty = slices.DeleteFunc(w.empty, func(x *piece) bool { return x == p })
	} else if w.pieces[p.color] == p {
		w.pieces[p.color] = nil
	}
}

// refuse records that a sender was told that its chunk is not in the queue.
func (w *queueWorld) refuse(p *piece) {
	switch {
	case p == nil:
		return
	case p.color == 0:
		w.doubt(p)
	default:
		w.check(!p.taken, "chunk %d was taken, and its sender told otherwise", p.color)
		w.gone(p)
	}
}

// comesBack records that a receiver does not have these, and will not.
func (w *queueWorld) comesBack(pieces []*piece) {
	for _, p := range pieces {
		w.count["came back"]++
		p.moved = true
		if p.color == 0 {
			p.with = nil
		}
		w.tape.giveBack(p, w.n)
	}
}

// mayBe records that nobody will hear what becomes of these.
func (w *queueWorld) mayBe(pieces []*piece) {
	for _, p := range pieces {
		w.doubt(p)
	}
}

// doubt records that a piece may not be there, or if it is empty, another of its kind.
func (w *queueWorld) doubt(p *piece) {
	if p.color == 0 && !slices.Contains(w.empty, p) {
		i := slices.IndexFunc(w.empty, func(x *piece) bool { return x.store == p.store && !x.maybe })
		if i < 0 {
			return
		}
		p = w.empty[i]
	}
	p.maybe = true
}

func (w *queueWorld) bookFor(s *store) *book {
	b := w.books[s]
	if b == nil {
		b = &book{void: w.void}
		w.books[s] = b
	}
	return b
}

// bookOf is that of the queue which has a name; nil: none has.
func (w *queueWorld) bookOf(name string) *book {
	for s, b := range w.books {
		if s.name == name && !b.deleted {
			return b
		}
	}
	return nil
}

// sums are what a store's counters should be.
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
	w.check(len(g.pipes)+len(g.dead)+len(g.queues) <= queueMost, "%d pipes, %d dead ones and %d queues", len(g.pipes), len(g.dead), len(g.queues))
	ends := len(w.insiders)
	for _, c := range w.guests {
		ends += w.holdsGuest(c)
	}
	w.check(g.ends == ends && ends <= queueMost, "queues are open %d times, should be %d", g.ends, ends)
	for _, s := range g.queues {
		w.check(w.books[s] != nil && !w.books[s].deleted, "there is a queue %q, and should not be", s.name)
	}
	for s, b := range w.books {
		w.check(b.deleted == (g.queues[s.name] != s), "%q should be deleted: %v", s.name, b.deleted)
		w.check(len(s.lanes) == b.ends, "%q is open %d times, should be %d", s.name, len(s.lanes), b.ends)
		w.check(b.deleted || s.users == b.users, "%q has %d users, should have %d", s.name, s.users, b.users)
		w.holdsStore(s, b)
		if b.deleted && b.ends == 0 && !w.used(s) {
			w.forgetBook(s)
		}
	}
	for _, p := range w.pieces {
		switch {
		case p == nil || p.seen == 1:
		case !p.queued: // a color that was not used
			w.gone(p)
		case p.store == nil: // it waits in a request, see mayBe for one that was dropped
			if p.maybe {
				w.gone(p)
			}
		case p.maybe && !p.taken:
			w.count["dropped with its sender"]++
			w.gone(p)
		default:
			void := w.books[p.store] == nil || w.books[p.store].void
			refused := !p.taken && p.store.over != nil // its sender will be told
			w.check(p.seen == 0 && (void || refused), "chunk %d of %q is in %d places", p.color, p.store.name, p.seen)
			if p.taken {
				w.gone(p)
			}
		}
	}
}

// used says that some command still knows a store.
func (w *queueWorld) used(s *store) bool {
	return slices.ContainsFunc(w.guests, func(g *guest) bool {
		return g.session.text != nil && slices.ContainsFunc(g.session.text.waiting.all(), func(c *command) bool { return c.store == s })
	})
}

func (w *queueWorld) forgetBook(s *store) {
	w.empty = slices.DeleteFunc(w.empty, func(p *piece) bool { return p.store == s })
	w.retired += w.books[s].in
	delete(w.books, s)
}

// holdsStore looks for all chunks in a store.
func (w *queueWorld) holdsStore(s *store, b *book) {
	var n sums
	see := func(chunk []byte, with any) {
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
	for _, chunk := range s.returned.all() {
		see(chunk, nil)
	}
	for _, c := range w.guests {
		for _, talk := range c.session.talks {
			if e := talk.end; e != nil && e.store == s {
				for _, chunk := range slices.Concat(e.fresh.all(), e.out.all()) {
					see(chunk, e)
				}
				if e.whole && e.fresh.len() > 0 {
					w.served(e)
				}
				w.holdsLoaded(e)
				n.lent += e.loaded.len()
			}
		}
		if t := c.session.text; t != nil {
			for _, said := range t.waiting.all()[:t.begun] {
				if said.store == s && said.got != nil {
					see(said.got, c.session)
					w.served(said)
				}
			}
		}
	}
	if !s.void {
		w.holdsLanes(s, &n)
		w.check(s.held == n.held && s.bytes == n.bytes && s.count == n.count && s.lent == n.lent,
			"%q: %d held, %d bytes, %d chunks, %d lent ones; there are %d, %d, %d, %d",
			s.name, s.held, s.bytes, s.count, s.lent, n.held, n.bytes, n.count, n.lent)
		w.check(s.in == b.in, "%q has taken %d bytes, should be %d", s.name, s.in, b.in)
		w.check(n.held <= queuePending+3*queueMessage*b.readers || n.count == 1, "%q holds %d bytes", s.name, n.held)
		w.holdsEmpty(s, b, n.empty)
	}
	w.holdsTurns(s)
}

// holdsLanes looks at the chunks that were not handed out.
func (w *queueWorld) holdsLanes(s *store, n *sums) {
	lanes := make([]*lane, 0, 16)
	for _, more := range [][]*lane{s.ready.all(), s.full.all()} {
		for _, l := range more {
			if !slices.Contains(lanes, l) {
				lanes = append(lanes, l)
			}
		}
	}
	for _, l := range lanes {
		last := 0
		for i, chunk := range l.chunks.all() {
			taken := i < l.taken
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

// holdsLoaded looks at what a reader of bytes has of a store.
func (w *queueWorld) holdsLoaded(e *queueEnd) {
	base := e.base
	for _, chunk := range e.loaded.all() {
		n := int64(len(chunk))
		p := w.find(e.store, chunk)
		p.seen++
		known := min(n, max(0, e.known-base))
		w.check(int64(p.size) == n-known, "%d bytes of chunk %d are read, should be %d", known, p.color, int(n)-p.size)
		w.takes(p)
		p.line.away = max(p.line.away, p.number)
		if p.with != nil && p.with != e {
			p.moved = true
		} else {
			p.with = e
		}
		base += n
	}
}

// holdsEmpty counts the empty chunks, which can't be told from each other.
func (w *queueWorld) holdsEmpty(s *store, b *book, there int) {
	n := 0
	for _, p := range w.empty {
		if p.store == s {
			n++
		}
	}
	drop := func(which func(*piece) bool) {
		w.empty = slices.DeleteFunc(w.empty, func(p *piece) bool {
			if n > there && p.store == s && which(p) {
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
	requests, size := s.requests, s.bytes
	for channel, talk := range s.talks {
		k := c.hold(channel)
		w.check((talk.end != nil) == (k.store != nil) && (talk.pipe != nil || talk.end != nil) == (k.store != nil || k.stream),
			"%s.%d has something else open than it knows", c.name, channel)
		w.check(talk.queue.len() == len(k.waiting), "%s.%d: %d requests, but %d answers are missing", c.name, channel, talk.queue.len(), len(k.waiting))
		requests, size = requests-talk.queue.len(), size-talk.queue.bytes
		if talk.end != nil {
			ends++
			size -= talk.end.window
		}
		w.check(!k.answering || k.asked == 0, "%s.%d: a READ is half answered", c.name, channel)
		w.check(k.returns == 0 && k.refused == 0, "%s.%d: %d returns and %d refusals are not answered", c.name, channel, k.returns, k.refused)
	}
	for channel, k := range c.holds {
		w.check(s.talks[channel] != nil || k.store == nil && !k.stream && len(k.waiting) == 0, "%s.%d: forgotten", c.name, channel)
	}
	if s.text != nil {
		for _, said := range s.text.waiting.all() {
			size -= said.size
		}
		w.check(s.text.waiting.len() == len(c.said), "%s: %d commands, but %d answers are missing", c.name, s.text.waiting.len(), len(c.said))
	}
	w.check(requests == 0 && size == 0, "%s: %d requests and %d bytes too many are counted", c.name, requests, size)
	return ends
}

// end closes the broker, and drops all. Nothing must be left.
func (w *queueWorld) end() {
	w.n++
	w.resume(math.MaxInt)
	w.quiet()
	if !w.closed {
		w.close(false)
	}
	w.resume(math.MaxInt)
	w.quiet()
	for _, g := range w.guests {
		w.vanish(g)
	}
	for _, l := range w.insiders {
		w.insideLeaves(l)
	}
	w.insiders = nil
	w.resume(math.MaxInt)
	w.holds()
	w.check(len(w.posted) == 0 && len(w.alarms) == 0, "%d wake-ups and %d alarms are left", len(w.posted), len(w.alarms))
	g := w.pipes
	w.check(len(g.pipes)+len(g.dead) == 0 && g.ends == 0, "%d pipes and %d ends are left", len(g.pipes)+len(g.dead), g.ends)
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
