package zpipes

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// A broadcastWorld is one name of a registry, at which readers and writers of broadcasts come
// and go, and a model of it: all bytes that were written, and how far each reader is.
type broadcastWorld struct {
	*sim
	count map[string]int

	window, limit int
	cfg           broadcastConfig
	clock         func() // ends the patience; nil: it does not run

	trunk     *pipe // nil: nobody has opened the broadcast
	shown     bool  // its writer
	left      bool  // likewise
	released  bool
	begun     bool
	bytes     []byte
	begins    []int
	confirmed int
	want      int // of the writer
	readers   []*modelReader
	waiting   bool // the one reader waits for a stream's writer
	source    stream
}

type modelReader struct {
	pipe  *pipe
	sure  bool
	at    int // math.MaxInt: with the next Write
	want  int
	woken bool
	slow  bool     // was left behind
	lost  int      // likewise: how much it has missed
	segs  [][]byte // pinned
	pins  []byte   // what was there then; nil: nothing is pinned
}

// missed is why one has left that was left behind.
func (m *modelReader) missed() cause {
	return cause{causeTooSlow, fmt.Sprintf("%d bytes missed", m.lost)}
}

func newBroadcastWorld(s *sim, count map[string]int) *broadcastWorld {
	s.pipes = newRegistry(3, 1+s.r.IntN(3*smallSegment), 1<<20)
	w := &broadcastWorld{sim: s, count: count, limit: s.pipes.maxPending}
	s.pipes.later = func(d time.Duration, f func()) func() {
		s.check(d == w.cfg.patience, "the clock runs for %v, not %v", d, w.cfg.patience)
		s.check(w.clock == nil, "a second clock runs")
		w.clock = f
		return func() { w.clock = nil }
	}
	return w
}

func (w *broadcastWorld) step() {
	r := w.r
	switch op := r.IntN(100); {
	case op < 8:
		w.readerComes()
	case op < 14 && (w.trunk == nil || w.released):
		w.writerComes()
	case op < 16:
		w.others()
	case op < 40 && w.writes():
		w.write()
	case op < 44 && w.writes():
		w.want = 1 + r.IntN(w.limit)
		w.note("the writer wants room for %d", w.want)
		w.locked(func() { w.trunk.await(writer, w.want) })
		w.settle()
	case op < 47 && w.clock != nil:
		w.lapse()
	case op < 50 && w.trunk != nil && !w.shown && !w.left:
		w.note("the writer was never there")
		w.pipes.withdraw(w.trunk, writer, cause{code: causeNever})
		w.count["never there"]++
		w.forgetTrunk()
	case op == 50 && w.trunk != nil && !w.left:
		w.writerLeaves()
	case op >= 52 && len(w.readers) > 0:
		w.read(w.readers[r.IntN(len(w.readers))], op)
	}
	w.checks()
}

func (w *broadcastWorld) locked(f func()) {
	w.trunk.mu.Lock()
	defer w.trunk.mu.Unlock()
	f()
}

func (w *broadcastWorld) writes() bool { return w.trunk != nil && !w.left }

func (w *broadcastWorld) readerComes() {
	m := &modelReader{at: math.MaxInt}
	wake := func() { m.woken, m.want = true, 0 }
	var why *cause
	if m.sure = w.r.IntN(2) == 0; m.sure {
		m.pipe, why = w.pipes.open("p", reader, 0, wake, w.now)
	} else {
		m.pipe, why = w.pipes.propose("p", reader, wake, w.now)
	}
	w.note("a reader comes, sure %v: %v", m.sure, why)
	there := len(w.readers)
	switch {
	case w.trunk != nil && w.left || w.trunk == nil && there > 0 && !w.waiting:
		// The rest of an earlier broadcast: this is somebody else's name.
		w.check(why == nil, "a reader of a free name: %v", why)
		w.dismiss(m)
		return
	case w.waiting:
		w.check(why != nil && why.code == causeBusy, "a second reader without a writer: %v", why)
		return
	case why != nil:
		w.check(w.pipes.ends >= 3 && why.code == causeTooMany, "a reader: %v", why)
		w.count["too many"]++
		return
	}
	w.readers = append(w.readers, m)
	if w.trunk == nil {
		w.waiting = true
		return
	}
	w.join(m)
}

func (w *broadcastWorld) join(m *modelReader) {
	if i := slices.IndexFunc(w.begins, func(b int) bool { return b >= w.confirmed-w.cfg.keep }); i >= 0 {
		m.at = w.begins[i]
		if m.at < w.confirmed {
			w.count["kept"]++
		}
	}
	w.settle()
}

func (w *broadcastWorld) dismiss(m *modelReader) {
	if m.sure {
		m.pipe.mu.Lock()
		m.pipe.leave(reader, cause{})
		m.pipe.mu.Unlock()
		w.pipes.release(m.pipe)
	} else {
		w.pipes.withdraw(m.pipe, reader, cause{code: causeNever})
	}
}

func (w *broadcastWorld) writerComes() {
	if len(w.readers) > 0 && !w.waiting {
		return // those of the last one have yet to leave
	}
	r := w.r
	cfg := broadcastConfig{keep: r.IntN(w.limit + 1), await: r.IntN(3)}
	if r.IntN(2) == 0 {
		cfg.keep = 0
	}
	if r.IntN(3) > 0 {
		cfg.patience = time.Second
	}
	w.forgetTrunk()
	w.cfg, w.window = cfg, 0
	var p *pipe
	var why *cause
	if w.shown = r.IntN(2) == 0; w.shown {
		w.window = 1 + r.IntN(3*smallSegment)
		p, why = w.pipes.openBroadcast("p", cfg, w.window, func() { w.want = 0 }, w.now)
	} else {
		p, why = w.pipes.proposeBroadcast("p", cfg, nil, func() { w.want = 0 }, w.now)
	}
	w.note("a writer comes, window %d, limit %d, %+v: %v", w.window, w.limit, cfg, why)
	w.check(why == nil, "a writer: %v", why)
	w.trunk, w.waiting = p, false
	for _, m := range w.readers {
		w.count["waited for the writer"]++
		w.join(m)
	}
	w.settle()
}

// forgetTrunk is for a broadcast that has ended, or has never been.
func (w *broadcastWorld) forgetTrunk() {
	w.trunk, w.left, w.released, w.begun = nil, false, false, false
	w.bytes, w.begins, w.confirmed, w.want = nil, nil, 0, 0
	w.waiting = len(w.readers) == 1
	for _, m := range w.readers {
		m.at = math.MaxInt
	}
	for len(w.readers) > 1 { // they may wait for the next broadcast, but the model goes on with none
		m := w.readers[0]
		w.readers = w.readers[1:]
		w.dismiss(m)
		w.waiting = len(w.readers) == 1
	}
}

// others meet a name that is a broadcast's.
func (w *broadcastWorld) others() {
	if !w.writes() {
		return
	}
	_, why := w.pipes.open("p", writer, 1, nil, w.now)
	w.check(why != nil && why.code == causeBusy, "a stream's writer: %v", why)
	_, why = w.pipes.openBroadcast("p", broadcastConfig{}, 1, nil, w.now)
	w.check(why != nil && why.code == causeBusy, "a second writer: %v", why)
	_, why = w.pipes.enter("p", &senderQueue{wake: func() {}}, true, w.now)
	w.check(why != nil && why.code == causeMode, "a queue: %v", why)
}

func (w *broadcastWorld) write() {
	r, p := w.r, w.trunk
	if !w.shown {
		w.shown = true
		w.locked(func() { p.show(writer) })
	}
	n := 1 + r.IntN(2*smallSegment)
	begins := r.IntN(3) > 0
	if w.window == 0 { // it is elsewhere
		if !w.accepts(n) {
			return
		}
		data := w.source.next(n)
		frame, m := received(data, noBlock, 0)
		last := -1
		w.note("a WRITE of %d", n)
		w.locked(func() {
			w.check(p.accepts(n), "a WRITE of %d is not taken", n)
			for at := r.IntN(n); begins && at < n; at += 1 + r.IntN(n) {
				if at > last {
					p.beginsAt(p.in + int64(at))
					w.beginsAt(len(w.bytes) + at)
					last = at
				}
			}
			p.take(frame, m)
		})
		w.bytes = append(w.bytes, data...)
		w.confirmed += n
		w.settle()
		return
	}
	if n = min(n, w.room()); n == 0 {
		return
	}
	data := w.source.next(n)
	w.note("a write of %d, begins %v", n, begins)
	w.locked(func() {
		if begins {
			p.begin()
			w.beginsAt(len(w.bytes))
		}
		if n > smallSegment {
			c := newSegment(largePool)
			c.w += copy(c.free(), data)
			p.push(c)
		} else {
			p.write(data)
		}
	})
	w.bytes = append(w.bytes, data...)
	w.settle()
}

func (w *broadcastWorld) beginsAt(at int) {
	w.begins = append(w.begins, at)
	for _, m := range w.readers {
		if m.at == math.MaxInt && !m.slow {
			m.at = at
		}
	}
}

// slowest is where the slowest reader is, and which that are.
func (w *broadcastWorld) slowest() (at int, who []*modelReader) {
	at = math.MaxInt
	for _, m := range w.readers {
		if m.slow || m.at > at {
			continue
		}
		if m.at < at {
			at, who = m.at, nil
		}
		who = append(who, m)
	}
	return at, who
}

func (w *broadcastWorld) takes() bool {
	sure := 0
	for _, m := range w.readers {
		if m.sure && !m.slow {
			sure++
		}
	}
	w.begun = w.begun || sure >= w.cfg.await
	return w.begun && (w.cfg.await == 0 || sure > 0)
}

func (w *broadcastWorld) lag() int {
	at, _ := w.slowest()
	return max(0, w.confirmed-min(at, w.confirmed))
}

func (w *broadcastWorld) room() int {
	n := w.window - (len(w.bytes) - w.confirmed)
	if w.takes() {
		n += max(0, w.limit-w.lag())
	}
	return max(0, n)
}

// accepts is true only where that is so for any of the slowest.
func (w *broadcastWorld) accepts(n int) bool {
	_, who := w.slowest()
	starved := !slices.ContainsFunc(who, func(m *modelReader) bool { return w.lag() >= m.want })
	return w.takes() && (n <= w.room() || w.lag() == 0 && w.confirmed == len(w.bytes) || starved)
}

// settle says what has been confirmed.
func (w *broadcastWorld) settle() {
	if w.takes() && !w.left {
		at, _ := w.slowest()
		w.confirmed = max(w.confirmed, min(len(w.bytes), min(at, len(w.bytes))+w.limit))
	}
}

func (w *broadcastWorld) lapse() {
	clock := w.clock
	w.clock = nil
	from, until, in := w.trunk.cast.from, w.trunk.cast.until, len(w.bytes)
	w.note("the patience is over, for what is before %d, until %d", from, until)
	stood := make(map[*modelReader]bool)
	for _, m := range w.readers {
		stood[m] = !m.slow && m.at < int(from)
		if stood[m] && m.pipe.reader.left {
			w.fail("a reader has left by itself")
		}
	}
	clock()
	order := slices.SortedStableFunc(slices.Values(w.readers), func(a, b *modelReader) int { return cmp.Compare(a.at, b.at) })
	for _, m := range order {
		if m.slow || !m.pipe.reader.left {
			continue
		}
		w.check(stood[m], "a reader at %d that has read what was there was left behind", m.at)
		why := m.pipe.reader.cause
		m.slow, m.want, m.lost = true, 0, in-m.at
		w.check(why == m.missed(), "one at %d of %d: %v", m.at, in, why)
		w.count["left behind"]++
		w.settle()
	}
	w.settle()
	p := w.trunk
	if p.unconfirmed+p.writer.want > 0 && p.cast.end() < until {
		w.check(!slices.ContainsFunc(w.readers, func(m *modelReader) bool { return stood[m] && !m.slow }) || !w.takes(),
			"one that has stood still holds the writer up for longer than the patience")
	}
}

func (w *broadcastWorld) writerLeaves() {
	w.left, w.want = true, 0
	w.note("the writer leaves")
	why := cause{}
	if w.r.IntN(2) == 0 {
		why = cause{causeAborted, "enough"}
	}
	w.locked(func() { w.trunk.leave(writer, why) })
	w.bytes = w.bytes[:w.confirmed]
	w.pipes.release(w.trunk)
	w.released = true
	w.count["ended"]++
}

func (w *broadcastWorld) read(m *modelReader, op int) {
	r, p := w.r, m.pipe
	if w.trunk == nil && op < 97 {
		return
	}
	if m.pins != nil && op < 97 {
		op = 70
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 1 + r.IntN(2*smallSegment)
	got := func(b []byte) {
		if len(b) == 0 {
			return
		}
		w.check(len(b) <= max(0, w.confirmed-m.at), "%d bytes, there are %d", len(b), w.confirmed-m.at)
		w.check(bytes.Equal(b, w.bytes[m.at:m.at+len(b)]), "bytes that are not the next ones, from %d", m.at)
		m.at += len(b)
		w.settle()
	}
	switch {
	case m.pins != nil && op < 75:
		k := r.IntN(len(m.pins) + 1)
		w.note("a pinned reader has %d", k)
		w.check(bytes.Equal(bytes.Join(m.segs, nil), m.pins), "pinned bytes have changed")
		p.unpin(k)
		if m.at += k; m.slow {
			m.lost -= k
			w.check(p.reader.cause == m.missed(), "one that was left behind reads %d bytes it had in hand: %v", k, p.reader.cause)
			w.count["left behind with bytes in hand"]++
		} else {
			w.settle()
		}
		m.pins = nil
	case op >= 97:
		w.note("a reader at %d leaves", m.at)
		w.readers = slices.DeleteFunc(w.readers, func(o *modelReader) bool { return o == m })
		p.mu.Unlock()
		if w.dismiss(m); w.trunk == nil {
			w.waiting = false
		}
		p.mu.Lock()
		w.settle()
	case m.slow:
	case op < 65 && p.readable() > 0:
		s := p.slice(min(n, p.readable()), op < 60)
		w.note("a slice of %d", s.w-s.r)
		w.shows(m)
		got(s.data())
		s.release()
	case op < 75 && p.readable() > 0 && m.pins == nil:
		m.segs = p.pin(make([][]byte, 0, 2), min(n, p.readable()))
		m.pins = bytes.Join(m.segs, nil)
		w.note("a reader at %d pins %d", m.at, len(m.pins))
		w.check(bytes.Equal(m.pins, w.bytes[m.at:m.at+len(m.pins)]), "pinned bytes that are not the next ones")
	case op < 85:
		b := make([]byte, n)
		b = b[:p.read(b)]
		w.note("a read of %d", len(b))
		w.shows(m)
		got(b)
	case op < 92 && !w.left:
		m.want, m.woken = min(n, w.limit), false
		w.note("a reader at %d wants %d", m.at, m.want)
		p.await(reader, m.want)
		w.settle()
	case op < 97 && !m.sure:
		w.shows(m)
	}
}

// shows has a reader be known to know that it is open. Its mu is held.
func (w *broadcastWorld) shows(m *modelReader) {
	if !m.sure {
		w.note("a reader shows that it knows")
		m.sure = true
		m.pipe.show(reader)
		w.settle()
	}
}

func (w *broadcastWorld) checks() {
	p := w.trunk
	if p == nil {
		return
	}
	at, _ := w.slowest()
	low := min(at, w.confirmed)
	if i := slices.IndexFunc(w.begins, func(b int) bool { return b >= w.confirmed-w.cfg.keep }); i >= 0 && !w.left {
		low = min(low, w.begins[i])
	}
	w.check(p.buf.n == len(w.bytes)-low, "%d bytes are held, of %d that somebody may need", p.buf.n, len(w.bytes)-low)
	w.check(p.unconfirmed == len(w.bytes)-w.confirmed, "%d bytes are not confirmed, not %d", p.unconfirmed, len(w.bytes)-w.confirmed)
	w.check(w.left || p.room() == w.room(), "there is room for %d, not %d", p.room(), w.room())
	w.check(p.lag() == w.lag(), "the slowest is %d behind, not %d", p.lag(), w.lag())
	w.check(p.hasMet() == w.begun || w.left, "the writer has met its readers: %v, not %v", p.hasMet(), w.begun)
	if p.writer.want > 0 && !w.left {
		w.check(p.room() < p.writer.want && !p.accepts(p.writer.want), "the writer waits for room for %d, and there is", p.writer.want)
	}
	if holds := p.unconfirmed+p.writer.want > 0 && w.takes() && !w.left; w.cfg.patience > 0 {
		w.check(holds == (w.clock != nil), "the writer is held up: %v; the clock runs: %v", holds, w.clock != nil)
	}
	for _, m := range w.readers {
		readable := 0
		if !m.slow {
			readable = max(0, w.confirmed-min(m.at, w.confirmed))
		}
		q := m.pipe
		w.check(q.readable() == readable, "there are %d bytes for a reader at %d, not %d", q.readable(), m.at, readable)
		w.check(q.reader.want == 0 || readable < q.reader.want, "a reader waits for %d of %d bytes that are there", q.reader.want, readable)
		w.check(m.want == 0 || q.reader.want == m.want || m.woken, "a reader was woken without its knowledge")
		if w.left && !m.slow {
			why, dead := q.deadFor(reader)
			w.check(dead == (readable == 0), "a reader of a broadcast that has ended: %v, %v", why, dead)
		}
	}
}

func (w *broadcastWorld) end() {
	for _, m := range w.readers {
		w.dismiss(m)
	}
	if w.trunk != nil && !w.left {
		w.locked(func() { w.trunk.leave(writer, cause{}) })
		w.pipes.release(w.trunk)
	}
	g := w.pipes
	w.check(len(g.allPipes()) == 0, "%d pipes are left", len(g.allPipes()))
	w.check(g.ends == 0 && g.waits.Load() == 1, "%d ends are left, %d are waited for", g.ends, g.waits.Load())
	w.check(w.clock == nil, "a clock runs")
	in, _ := g.moved.sums()
	w.check(in == int64(w.source.made), "%d bytes were counted of %d", in, w.source.made)
}
