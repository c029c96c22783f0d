package zpipes

import (
	"bytes"
	"container/list"
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
	away int // the largest number that has left the sender's sender queue
}

// A piece is a chunk, or what is left of one. All its bytes are its color, which no
// other has as long as it exists.
type piece struct {
	color  byte
	size   int // bytes that nobody has for sure
	whole  int // bytes that it once had
	number int
	line   *row
	to     string      // the queue's name, where that is known
	queue  *chunkQueue // nil: it has not got there
	taken  bool        // by the queue
	maybe  bool        // its sender has gone and does not know whether it was taken
	seen   int         // where it is: how often
	with   any         // the first receiver to whom it was given
	moved  bool        // it came back, or went to another one
	queued bool        // some request has it
	sentAt int         // the step

	// For the tape.
	confirmed int  // the step
	out       bool // its receiver was told
	holder    any
	since     int
}

// begins records that somebody sends a chunk to a queue, which is s if it gets there
// at once.
func (w *queueWorld) begins(chunk []byte, l *row, to string, s *chunkQueue) *piece {
	var p *piece
	if len(chunk) == 0 {
		p = new(piece)
		w.empty = append(w.empty, p)
	} else {
		p = w.pieces[chunk[0]]
	}
	w.serial++
	p.number, p.whole, p.line, p.to, p.queue, p.queued, p.sentAt = w.serial, p.size, l, to, s, true, w.n
	w.tape.begin(p)
	return p
}

// find says which piece that is which is in a chunkQueue, or came out of it.
func (w *queueWorld) find(s *chunkQueue, chunk []byte) *piece {
	if len(chunk) == 0 {
		return nil
	}
	p := w.pieces[chunk[0]]
	w.check(p != nil && p.queued, "%d bytes of color %d, which nobody sent", len(chunk), chunk[0])
	w.check(bytes.Count(chunk, chunk[:1]) == len(chunk), "chunk %d is mixed with another: % x", p.color, chunk)
	if p.queue == nil && p.to == s.name {
		p.queue = s
	}
	w.check(p.queue == s, "chunk %d is in %q, or came out of it, and was sent to another queue", p.color, s.name)
	return p
}

// findEmpty picks any empty chunk that is in a chunkQueue.
func (w *queueWorld) findEmpty(s *chunkQueue) *piece {
	i := slices.IndexFunc(w.empty, func(p *piece) bool { return p.queue == s && p.with == nil })
	w.check(i >= 0, "an empty chunk came out of %q, which nobody sent", s.name)
	return w.empty[i]
}

func (w *queueWorld) takes(p *piece) {
	if !p.taken {
		p.taken = true
		w.bookFor(p.queue).in += int64(p.whole)
	}
}

// confirm records that a sender was told that its chunk is taken.
func (w *queueWorld) confirm(p *piece) {
	if p.queue != nil { // else it has come out already
		w.takes(p)
	}
	w.tape.send(p, w.n)
}

// received checks a whole chunk that somebody got from a chunkQueue, and says which one.
func (w *queueWorld) received(s *chunkQueue, chunk []byte, by any, last map[*row]int) *piece {
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
		w.check(p.number > last[p.line], "chunk %d came after a later one of its sender", p.color)
	}
	last[p.line] = max(last[p.line], p.number)
}

// inTurn checks that nobody who asked before one that is served waits still.
func (w *queueWorld) inTurn(s *chunkQueue, r receiver) {
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
func (w *queueWorld) holdsTurns(s *chunkQueue) {
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
	if e, ok := r.(*queueEnd); ok && openAs[*queueReader](e.channel) != nil {
		return e.demand
	}
	return nil
}

// gone records that a piece has left for good.
func (w *queueWorld) gone(p *piece) {
	if p.color == 0 {
		if i := w.emptyLike(p); i >= 0 {
			w.empty = slices.Delete(w.empty, i, i+1)
		}
	} else if w.pieces[p.color] == p {
		w.pieces[p.color] = nil
	}
}

// refuse records that a sender was told that its chunk is not in the queue.
func (w *queueWorld) refuse(p *piece) {
	switch {
	case p == nil:
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

// doubt records that a piece may not be there.
func (w *queueWorld) doubt(p *piece) {
	if p.color > 0 {
		p.maybe = true
	} else if i := w.emptyLike(p); i >= 0 {
		w.empty[i].maybe = true
	}
}

// emptyLike finds an empty chunk, or where that one was taken for another, another of the
// same queue: they can't be told from each other, but their number must be right.
func (w *queueWorld) emptyLike(p *piece) int {
	if i := slices.Index(w.empty, p); i >= 0 {
		return i
	}
	return slices.IndexFunc(w.empty, func(x *piece) bool { return x.queue == p.queue && !x.maybe })
}

func (w *queueWorld) bookFor(s *chunkQueue) *book {
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
