package zpipes

import (
	"fmt"
	"maps"
	"slices"
)

// quiet checks what is true when no wake-up is on its way: who waits does so for
// something that is not there.
func (w *queueWorld) quiet() {
	for s := range w.books {
		w.check(s.demands.Len() == 0 || !s.available() && s.over == nil, "somebody waits for a chunk of %q that is there", s.name)
		if s.full.len() > 0 {
			l := *s.full.front()
			n := l.chunks.front().size()
			poor := s.payer != nil && n > s.payer.room() && (s.demands.Len() == 0 || !s.payer.lends(s, n))
			w.check(poor || s.held > 0 && s.held+n > s.limit, "a chunk waits for room in %q that is there", s.name)
		}
	}
	for _, g := range w.guests {
		if g.session.text != nil {
			w.quietText(g)
		}
		if g.lost || len(g.session.backlog) > 0 {
			continue
		}
		for channel, c := range g.session.channels {
			who := fmt.Sprintf("%s.%d", g.name, channel)
			k := g.hold(channel)
			switch {
			case queueEndOf(c) != nil && k.whole:
				w.quietWhole(who, k, queueEndOf(c))
			case c.queue.len() == 0:
				over := k.queue != nil && k.role == writer && k.queue.over != nil
				w.check(!over || !g.agreed || k.told, "%s does not know that its queue is no more", who)
			default:
				w.quietBytes(who, c)
			}
		}
	}
}

func (w *queueWorld) quietWhole(who string, k *hold, e *queueEnd) {
	s := k.queue
	w.check(e.fresh.len() == 0, "%s has chunks and was not told", who)
	w.check(k.told || len(k.sent) == e.sender.chunks.len(), "%s: %d chunks are not confirmed, and %d wait", who, len(k.sent), e.sender.chunks.len())
	w.check(k.asked == 0 || k.ended || e.demand != nil, "%s asked for %d chunks, and nobody knows", who, k.asked)
	w.check(s.over == nil || k.told, "%s does not know that its queue is no more", who)
	w.check(s.over == nil || k.ended || s.count+s.lent > 0, "%s does not know that nothing will come", who)
}

func (w *queueWorld) quietBytes(who string, c *channel) {
	q := c.queue.front()
	w.check(queueEndOf(c) != nil, "%s waits for nothing", who)
	w.check(queueEndOf(c).queue.over == nil, "%s waits for what will not come", who)
	w.check(c.deadline.IsZero() || w.now.Before(c.deadline), "%s: its deadline has passed", who)
	w.check(c.deadline.IsZero() || c.alarm.place > 0, "%s: nobody will wake it", who)
	if q.id == msgRead {
		need := int(min(q.size, queueMessage))
		if q.flags&(readAny|readStream) != 0 {
			need = 1
		}
		p := pipeOf(c)
		poor := p.buf.n > 0 && c.session.account.room() == 0
		w.check(p.buf.n < need && (queueEndOf(c).demand != nil || poor), "%s: a READ waits for what is there", who)
		return
	}
	w.check(q.id == msgWrite && queueEndOf(c).sender.window > 0, "%s: a request waits for what is there", who)
}

func (w *queueWorld) quietText(g *guest) {
	t := g.session.text
	for i, c := range t.waiting.all()[:t.begun] {
		who := fmt.Sprintf("%s: %s %q", g.name, c.verb, c.name)
		w.check(i > 0 || c.answer == nil, "%s was not answered", who)
		switch c.verb {
		case textRead:
			if i > 0 && (c.answer != nil || c.got != nil || c.over != nil) {
				continue // it is not its turn
			}
			w.check(c.got == nil && c.over == nil, "%s has what it waits for", who)
			closed := slices.ContainsFunc(t.waiting.all()[t.begun:], func(x *command) bool { return x.verb == textClose && x.name == c.name })
			w.check(!closed, "%s waits, and a CLOSE behind it", who)
		case textWrite:
			w.check(c.sender.settled < c.upTo && c.queue.over == nil, "%s waits for what is there", who)
		default:
			w.fail("%s waits", who)
		}
	}
	if t.begun < t.waiting.len() {
		w.check(t.begun > 0, "%s: commands wait for nothing", g.name)
		first, next := t.waiting.all()[0], t.waiting.all()[t.begun]
		w.check(first.verb != textRead || next.verb != textRead || first.name != next.name, "%s: a READ waits for its turn", g.name)
	}
}

func sortedKeys[V any](m map[uint32]V) []uint32 { return slices.Sorted(maps.Keys(m)) }

// chunksOf tells which chunks are in a message.
func chunksOf(m *message, k *hold) string {
	if len(m.chunk) == 0 {
		return ""
	}
	if !k.whole {
		return fmt.Sprintf(" of chunk %d", m.chunk[0])
	}
	s := ":"
	chunks, _ := recordsOf(m.chunk, 100)
	for _, c := range chunks {
		s += " " + commanded([][]byte{c})
	}
	return s
}
