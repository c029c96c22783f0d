package zpipes

import (
	"math"
	"time"
)

func (w *streamWorld) answered(a *actor, m message) {
	if m.id == msgPingOK {
		a.pings--
		return
	}
	w.check(a.agreed == (m.block == hasBlock) || a.doomed, "block is %v", m.block)
	if a.doomed && m.id == msgInvalid && m.channel == 0 {
		w.check(m.block == noBlock || m.code == causeBrokerGone, "the session ends with cause %d", m.code)
		return
	}
	k := a.call(m.channel)
	if w.guided(a, k, m) {
		return
	}
	if k.movesNext() {
		w.check(k.pipe != nil, "a MOVE of nobody")
		if m.id == msgWriteFailed && !k.told && k.pipe.over() {
			k.waiting, k.told = k.waiting[1:], true
			return
		}
		k.trim()
	}
	if len(k.waiting) == 0 {
		ok := m.id == msgWriteFailed && a.agreed && k.pipe != nil && k.role == writer && !k.told && k.pipe.over()
		w.check(ok, "nobody asked for this")
		k.told = true
		return
	}
	q := k.waiting[0]
	if !w.answers(a, k, q, m) {
		return
	}
	k.waiting = k.waiting[1:]
}

// answers checks that m is what q should be told, and says whether it was all.
func (w *streamWorld) answers(a *actor, k *call, q *asked, m message) (done bool) {
	p := k.pipe
	late := q.timeout > 0 && !w.now.Before(q.at.Add(time.Duration(q.timeout)*time.Millisecond))
	must := func(id messageID) {
		w.check(m.id == id, "want %s", wireLayout[id].name)
	}
	if !q.invalid && (q.id == msgRead || q.id == msgWrite) {
		k.here = true // also by one that is not allowed
	}
	switch {
	case q.invalid:
		must(msgInvalid)
		k.pipe = nil
	case q.id == msgClose && p == nil:
		must(msgInvalid)
	case q.id == msgClose:
		must(msgCloseOK)
		k.pipe = nil
	case q.id == msgInput && p == nil:
		w.opened(a, k, q, m, reader, msgInputOK, msgInputFailed)
	case q.id == msgOutput && p == nil:
		w.opened(a, k, q, m, writer, msgOutputOK, msgOutputFailed)
	case q.id == msgRead && p != nil && k.role == reader:
		return w.read(k, q, m, late)
	case q.id == msgWrite && p != nil && k.role == writer:
		w.wrote(k, q, m, late)
	default:
		must(msgInvalid)
		if q.id != msgRead && q.id != msgWrite {
			k.pipe = nil
		}
	}
	return true
}

func (w *streamWorld) opened(a *actor, k *call, q *asked, m message, r role, ok, failed messageID) {
	name := string(q.text)
	there := w.pipes.pipes()[name]
	if m.id == ok {
		k.pipe, k.role, k.here, k.told, k.ringing = there, r, !a.able, false, ringing{}
		w.check(there != nil && there == pipeOf(a.session.channels[m.channel]) && there.side(r).attached(), "not attached")
		return
	}
	w.check(m.id == failed, "want an answer to an open")
	justified := checkPipeName(name) != nil || w.closed || q.mode > modeStatus ||
		there != nil && there.side(r).open ||
		there == nil && len(w.pipes.allPipes()) == worldPipes
	w.check(justified, "refused without a reason")
}

func (w *streamWorld) read(k *call, q *asked, m message, late bool) (done bool) {
	p := k.pipe
	f := w.flow(p)
	ended := p.writer.left && f.out == len(f.in)
	switch {
	case q.size == 0:
		w.check(m.id == msgReadEnd, "want READ_END for nothing")
	case m.id == msgReadOK:
		n := uint32(len(m.chunk))
		w.check(!q.fails && n > 0 && n <= q.left, "%d bytes for %d", n, q.left)
		w.check(!k.live, "READ_OK beside a ring")
		w.came(p, m.chunk)
		if q.flags&readStream != 0 {
			q.left -= n
			return q.left == 0
		}
		most := n == worldMessage
		short := p.writer.left && (f.out == len(f.in)-f.inRing || most) || f.turnsOff(k) && (f.out == f.ringAt || most)
		w.check(n == q.size || q.flags&readAny != 0 || short, "%d bytes for %d", n, q.size)
	case m.id == msgReadEnd:
		w.check(ended && (k.told || p.writer.cause.code == causeClosed), "an end that is none")
	case m.id == msgReadTimeout:
		w.check(late, "%v after %v", m.id, w.now.Sub(q.at))
	default:
		w.check(m.id == msgReadFailed, "want an answer to READ")
		torn := ended && !k.told && p.writer.cause.code != causeClosed
		large := q.flags&(readAny|readStream) == 0 && q.size > worldMessage && p.readable() >= worldMessage
		w.check(q.fails || torn || large, "failed without a reason")
		k.told = k.told || torn && !q.fails && !large
	}
	return true
}

func (w *streamWorld) wrote(k *call, q *asked, m message, late bool) {
	p := k.pipe
	switch m.id {
	case msgWriteOK:
		w.check(!q.fails && p.reader.attached() && !p.writer.left, "taken for nobody")
		w.check(w.shown(p, reader), "taken for one who may never have been there")
		f := w.flow(p)
		f.in = append(f.in, q.chunk...)
	case msgWriteTimeout:
		w.check(late, "after %v", w.now.Sub(q.at))
	default:
		w.check(m.id == msgWriteFailed, "want an answer to WRITE")
		w.check(q.fails || p.over() || k.answered, "failed without a reason")
		k.told = k.told || !q.fails && p.over()
	}
}

// shown says that an end of a pipe is there for sure.
func (w *streamWorld) shown(p *pipe, r role) bool {
	for _, a := range w.actors {
		for _, k := range a.calls {
			if k.pipe == p && k.role == r {
				return k.shown()
			}
		}
	}
	return true // inside, or left
}

// shown: a READ or WRITE says so, too.
func (k *call) shown() bool { return k.here || len(k.waiting) > 0 }

// spares returns a check that the other ends of what the message takes back, if it is
// one that does, have not noticed.
func (w *streamWorld) spares(a *actor, m message, err error) func() {
	k := a.calls[m.channel]
	switch {
	case a.agreed && (err != nil || m.block == noBlock && m.id != msgPing || m.channel == 0 && m.id == msgClose && m.block == hasBlock),
		err == nil && m.id == msgPing && m.block == hasBlock && m.hello.session == 0 && m.hello.version > 0:
		return w.sparesAll(a)
	case err == nil && m.id == msgClose && m.code == causeNever && m.block == hasBlock && a.agreed && k.pipe != nil && !k.shown():
		return w.sparesOther(k.pipe, k.role)
	}
	return func() {}
}

// sparesAll is spares for all that an actor has, who is about to vanish.
func (w *streamWorld) sparesAll(a *actor) func() {
	var checks []func()
	ends := make(map[*pipe]int)
	for _, k := range a.calls {
		ends[k.pipe]++
	}
	for _, k := range a.calls {
		if k.pipe != nil && !k.shown() && ends[k.pipe] == 1 {
			checks = append(checks, w.sparesOther(k.pipe, k.role))
		}
	}
	return func() {
		for _, check := range checks {
			check()
		}
	}
}

func (w *streamWorld) sparesOther(p *pipe, r role) func() {
	was, waits, held := p.over(), p.side(1-r).open, p.buf.n
	w.count["taken back"]++
	return func() {
		w.check(p.over() == was, "%q is over because of a %v that was never there", p.name, r)
		w.check(was || p.buf.n == held, "%q had %d bytes, and has %d, because of a %v that was never there", p.name, held, p.buf.n, r)
		w.check(was || waits == (w.pipes.pipes()[p.name] == p), "%q is there: %v, with another end: %v", p.name, !waits, waits)
	}
}

// holds checks what is true after each step.
func (w *streamWorld) holds() {
	g := w.pipes
	w.check(len(g.allPipes()) <= worldPipes, "%d pipes and %d dead ones", len(g.pipes()), deadOf(g))
	var paid int
	for _, p := range g.allPipes() {
		f := w.flow(p)
		held := len(f.in) - f.out
		if p.reader.left {
			held = 0
		}
		w.check(p.reader.left || p.buf.n == held-f.inRing, "%q holds %d bytes, should be %d, with %d in a ring", p.name, p.buf.n, held, f.inRing)
		held = p.buf.n
		w.check(p.reader.attached() || p.writer.attached() || w.closed, "%q is nobody's", p.name)
		w.check(p.unconfirmed >= 0 && p.unconfirmed <= worldWindow, "%q has %d bytes unconfirmed", p.name, p.unconfirmed)
		w.check(p.readable() <= worldMessage+worldWrite, "%q has %d bytes to be read", p.name, p.readable())
		if p.payer != nil {
			paid += held
		}
	}
	paid += w.ringBytes()
	w.check(heldFor(w.user) == paid, "%d bytes are held for the user, should be %d", heldFor(w.user), paid)
	w.check(paid <= worldRoom+worldMessage+worldWrite, "%d bytes are held for the user", paid)
	var ends, opened int
	for _, a := range w.actors {
		requests, bytes := a.session.account.requests, a.session.account.bytes
		for channel, c := range a.session.channels {
			k := a.call(channel)
			k.trim()
			w.check(pipeOf(c) == k.pipe, "%s.%d is on another pipe than it knows", a.name, channel)
			w.check(c.open != nil || c.queue.len() > 0, "%s.%d: a channel of nothing", a.name, channel)
			w.check(c.queue.len() == len(k.waiting),
				"%s.%d: %d requests, but %d answers are missing", a.name, channel, c.queue.len(), len(k.waiting))
			if ends++; c.open != nil {
				opened++
			}
			requests, bytes = requests-c.queue.len(), bytes-c.queue.bytes
		}
		w.check(requests == 0 && bytes == 0, "%s: %d requests and %d bytes too many are counted", a.name, requests, bytes)
		for channel, k := range a.calls {
			w.check(a.session.channels[channel] != nil || k.pipe == nil && len(k.waiting) == 0, "%s.%d: forgotten", a.name, channel)
		}
	}
	w.check(w.user.ends == opened, "%d ends are counted, should be %d", w.user.ends, opened)
	w.check(w.alarms.len() <= ends, "%d alarms for %d conversations", w.alarms.len(), ends)
}

// quiet checks what is true when no wake-up is on its way: who waits does so for
// something that is not there.
func (w *streamWorld) quiet() {
	for _, a := range w.actors {
		if len(a.session.backlog) > 0 {
			continue
		}
		for channel, c := range a.session.channels {
			p := pipeOf(c)
			if c.queue.len() == 0 {
				told := p == nil || openAs[*streamWriter](c) == nil || !p.over() || !a.agreed || a.call(channel).told
				w.check(told, "%s.%d does not know that its pipe is dead", a.name, channel)
				continue
			}
			w.check(p != nil, "%s.%d waits for nothing", a.name, channel)
			q := c.queue.front()
			switch q.id {
			case msgRead:
				enough := p.readable() >= int(min(q.size, worldMessage)) ||
					(q.flags&(readAny|readStream) != 0 || w.flow(p).turnsOff(a.call(channel))) && p.readable() > 0
				w.check(!enough && !p.writer.left, "%s.%d: a READ waits for what is there", a.name, channel)
				for _, other := range w.actors {
					for _, d := range other.session.channels {
						w.check(pipeOf(d) != p || openAs[*streamWriter](d) == nil || d.queue.len() == 0 || !p.payer.lends(p, max(1, len(d.queue.front().chunk))), "READ and WRITE wait for each other on %q", p.name)
					}
				}
			case msgWrite:
				fits := p.reader.open && w.shown(p, reader) && p.readable()+len(q.chunk) <= worldPending && max(1, len(q.chunk)) <= p.payer.room()
				w.check(!fits && !p.over(), "%s.%d: a WRITE waits for what is there", a.name, channel)
			default:
				w.check(false, "%s.%d: %s waits", a.name, channel, wireLayout[q.id].name)
			}
			w.check(c.deadline.IsZero() || w.now.Before(c.deadline), "%s.%d: its deadline has passed", a.name, channel)
			w.check(c.deadline.IsZero() || c.alarm.place > 0, "%s.%d: nobody will wake it", a.name, channel)
		}
	}
	for _, l := range w.insiders {
		if p := l.pipe; p.side(l.role).want > 0 && !l.woken {
			there := l.role == reader && p.readable() > 0 || l.role == writer && p.room() > 0
			w.check(!there && !p.over(), "inside: a %v of %q waits for what is there", l.role, p.name)
		}
		w.check(l.woken || len(l.given) == 0 || l.pipe.lent, "inside: a Read of %q does not know what it has got", l.pipe.name)
	}
}

// close has the broker shut down, and go on until all is read.
func (w *streamWorld) close() {
	w.closed = true
	w.note("the broker closes")
	for _, p := range w.pipes.allPipes() {
		if f := w.flow(p); !p.writer.left && !p.reader.left {
			f.in = f.in[:len(f.in)-p.unconfirmed]
		}
	}
	w.pipes.close(cause{causeBrokerGone, "closing"}, false)
}

// end closes the broker, and drops all. Nothing must be left.
func (w *streamWorld) end() {
	if !w.closed {
		w.close()
	}
	w.resume(math.MaxInt)
	w.quiet()
	for _, a := range w.actors {
		w.vanish(a)
	}
	for _, l := range w.insiders {
		w.insideLeaves(l, cause{})
	}
	w.resume(math.MaxInt)
	w.check(len(w.posted) == 0 && w.alarms.len() == 0, "%d wake-ups and %d alarms are left", len(w.posted), w.alarms.len())
	w.check(!w.user.lent.Load() && w.user.waiting.Len() == 0, "the user has lent to %v, and %d wait for room", w.user.debtor, w.user.waiting.Len())
	held := len(w.pipes.allPipes())
	w.check(held == 0, "%d pipes are left", held)
	w.check(w.pipes.emptied(), "the registry still waits for readers")
	var in, out int64
	for _, g := range w.rings {
		w.check(g.released, "a ring of %q is left", g.pipe.name)
	}
	for p, f := range w.streams {
		want := f.out
		if f.promised {
			want += f.inRing
		}
		w.check(p.out == int64(want), "%q counts %d bytes read, should be %d", p.name, p.out, want)
		in, out = in+p.in, out+p.out
	}
	s := w.pipes.stats()
	w.check(s.BytesIn == in && s.BytesOut == out,
		"%d bytes in and %d out were counted, should be %d and %d", s.BytesIn, s.BytesOut, in, out)
}
