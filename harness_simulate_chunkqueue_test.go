package zpipes

import (
	"container/list"
	"fmt"
	"slices"
	"strings"
)

// chunkQueueModel is a chunkQueue of which only the rules are known. A chunk's bytes say whose
// it is, which one, and how long.
type chunkQueueModel struct {
	*sim
	s    *chunkQueue
	who  []*modelSender
	asks []*modelAsk // that wait, in order

	out      []*job      // handed out, and neither released nor put back
	returned []string    // were put back, in the order in which they are to come out
	latest   map[int]int // of each sender: the number of its last chunk that came out new
	came     int         // chunks that were released

	count map[string]int // of what happened in all worlds
}

type modelSender struct {
	sender
	n      int // which one it is
	pushed int // numbers its chunks
}

type modelAsk struct {
	m     *chunkQueueModel
	place *list.Element
}

func (a *modelAsk) take(c *job) {
	if len(a.m.asks) == 0 || a.m.asks[0] != a {
		a.m.fail("not the first one who asked was served")
	}
	a.m.asks = a.m.asks[1:]
	a.m.got(c)
}

// got checks a chunk that has come out.
func (m *chunkQueueModel) got(c *job) {
	if c == nil {
		m.fail("told that there is nothing")
	}
	var sender, number int
	fmt.Sscanf(string(c.data), "%d %d", &sender, &number)
	if id := c.short(); len(m.returned) > 0 {
		m.check(id == m.returned[0], "%q came, and %q is to come first", id, m.returned[0])
		m.returned = m.returned[1:]
	} else {
		if number != m.latest[sender]+1 {
			m.fail("%q came after number %d", id, m.latest[sender])
		}
		m.latest[sender] = number
	}
	m.out = append(m.out, c)
}

func (m *chunkQueueModel) step() {
	defer m.holds()
	r, s := m.r, m.s
	switch k := r.IntN(100); {
	case len(m.who) == 0 || k < 1 && len(m.who) < 5:
		w := &modelSender{n: len(m.latest) + 1}
		m.latest[w.n] = 0
		w.wake = func() { w.woken++ }
		s.attach(&w.senderQueue)
		m.who = append(m.who, w)
	case k < 35:
		w := m.who[r.IntN(len(m.who))]
		if w.chunks.len() > 20 {
			return
		}
		w.pushed++
		c := fmt.Sprint(w.n, " ", w.pushed)
		s.push(&w.senderQueue, []byte(c+strings.Repeat(".", r.IntN([]int{1, 20, 60, 300}[r.IntN(4)]))))
	case k < 37:
		if w := m.who[r.IntN(len(m.who))]; w.chunks.len() > 0 {
			s.withdraw(&w.senderQueue)
			w.pushed--
		}
	case k < 38:
		i := r.IntN(len(m.who))
		w := m.who[i]
		m.count["dropped"] += w.chunks.len()
		s.detach(&w.senderQueue)
		m.who = slices.Delete(m.who, i, i+1)
	case k < 60:
		if len(m.asks) < 10 {
			a := &modelAsk{m: m}
			m.asks = append(m.asks, a)
			a.place = s.demand(a)
		}
	case k < 63:
		if n := len(m.asks); n > 0 {
			i := r.IntN(n)
			s.demands.Remove(m.asks[i].place)
			m.asks = slices.Delete(m.asks, i, i+1)
		}
	case k < 70:
		if len(m.asks) == 0 && s.available() {
			m.got(s.next())
		}
	case k < 95:
		if n := len(m.out); n > 0 {
			i := r.IntN(n)
			c := m.out[i]
			m.out = slices.Delete(m.out, i, i+1)
			s.release(c)
			m.came++
			s.settle()
		}
	default:
		if n := len(m.out); n > 0 {
			back := slices.Clone(m.out[r.IntN(n):])
			m.out = m.out[:n-len(back)]
			var names []string
			for _, c := range back {
				names = append(names, c.short())
			}
			m.returned = append(names, m.returned...)
			m.count["returned"] += len(back)
			s.putBack(back, 0)
		}
	}
}

func (m *chunkQueueModel) holds() {
	var held, bytes, count, window int
	for _, c := range m.out {
		held, bytes, count = held+c.size(), bytes+len(c.data), count+1
	}
	for _, c := range m.s.front.all() {
		held, bytes, count = held+c.size(), bytes+len(c.data), count+1
	}
	for _, l := range m.s.ready.all() {
		if l.line.len() == 0 || !l.listed {
			m.fail("a sender has its turn without a chunk")
		}
		for _, c := range l.line.all() {
			held, bytes, count = held+c.size(), bytes+len(c.data), count+1
		}
	}
	s := m.s
	if s.held != held || s.bytes != bytes || s.count != count {
		m.fail("%d held, %d bytes, %d chunks; want %d, %d, %d", s.held, s.bytes, s.count, held, bytes, count)
	}
	if held > s.limit && count > 1 {
		m.fail("%d chunks of %d bytes, above the limit", count, held)
	}
	if s.front.len() != len(m.returned) {
		m.fail("%d chunks are back, want %d", s.front.len(), len(m.returned))
	}
	if s.demands.Len() != len(m.asks) || len(m.asks) > 0 && s.available() {
		m.fail("%d wait, want %d; there are chunks: %v", s.demands.Len(), len(m.asks), s.available())
	}
	waiting := 0
	for _, w := range m.who {
		window = 0
		for _, c := range w.chunks.all() {
			window += c.size()
		}
		if w.window != window || int64(w.woken) != w.settled || w.pushed != int(w.settled)+w.chunks.len() {
			m.fail("a window of %d, want %d; woken %d times for %d of %d", w.window, window, w.woken, w.settled, w.pushed)
		}
		if w.waits != (window > 0) {
			m.fail("waits: %v, with %d in the window", w.waits, window)
		}
		if w.waits {
			waiting++
		}
	}
	if s.full.len() != waiting {
		m.fail("%d senders have their turn, %d wait", s.full.len(), waiting)
	}
	if waiting > 0 {
		l := *s.full.front()
		if n := l.chunks.front().size(); held == 0 || held+n <= s.limit {
			m.fail("a chunk waits that fits")
		}
	}
}

// end has all leave; those who come last get all that was taken.
func (m *chunkQueueModel) end() {
	for _, w := range m.who {
		m.s.detach(&w.senderQueue)
	}
	for _, a := range m.asks {
		m.s.demands.Remove(a.place)
	}
	m.who, m.asks = nil, nil
	release := func() {
		for _, c := range m.out {
			m.s.release(c)
			m.came++
		}
		m.out = nil
	}
	release()
	for c := m.s.next(); c != nil; c = m.s.next() {
		m.got(c)
		release()
	}
	m.holds()
	total := 0
	for _, n := range m.latest {
		total += n
	}
	m.count["came"] += total
	m.check(m.came == total, "%d chunks came of %d", m.came, total)
	s := m.s
	m.check(s.held == 0 && s.in == s.out && s.ready.len() == 0 && s.full.len() == 0 && s.senders.Len() == 0,
		"left: %d held, %d bytes of %d, %d and %d senders", s.held, s.in-s.out, s.in, s.ready.len(), s.full.len())
}
