package zpipes

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// A pipeModel says by counting what a pipe with one or both ends should do.
type pipeModel struct {
	window, limit int
	remote        bool // the writer's bytes come as WRITEs
	bytes         []byte
	out           int // of bytes, read
	confirmed     int // of bytes
	want          [2]int
	source        stream

	offered []byte // the buffer of a Read that waits; nil: none does
	given   []byte // what it has got, or gets when lent is given back
	lent    []byte // the part of the buffer into which a Write copies
	stays   bool   // a Write waits until the Read has collected
	handed  int    // how often a Write has copied to a Read
	put     int    // how often what a write leads to was clear
}

// settle says what a change leads to, and which ends it wakes.
func (m *pipeModel) settle(p *pipe) (wakes woken) {
	if p.reader.attached() {
		m.confirmed = max(m.confirmed, min(len(m.bytes), m.out+max(m.limit, m.want[reader])))
	}
	if w := m.want[reader]; w > 0 && m.confirmed-m.out >= w {
		m.want[reader], wakes[reader] = 0, 1
	}
	if w := m.want[writer]; w > 0 && (m.room(p) >= w || m.accepts(p, w)) {
		m.want[writer], wakes[writer] = 0, 1
	}
	return wakes
}

func (m *pipeModel) room(p *pipe) int {
	room := m.window - (len(m.bytes) - m.confirmed)
	if p.reader.open {
		room += max(0, max(m.limit, m.want[reader])-(m.confirmed-m.out))
	}
	return max(0, room)
}

func (m *pipeModel) accepts(p *pipe, n int) bool {
	return p.reader.open && (m.room(p) >= n || m.out == len(m.bytes) || m.confirmed-m.out < m.want[reader])
}

func TestPipeBehavesAsItsModel(t *testing.T) {
	handed, put := 0, 0
	for seed := range uint64(300) {
		r := scripted(seed)
		m := &pipeModel{limit: 1 + r.IntN(3*smallSegment), remote: r.IntN(2) == 0}
		if !m.remote {
			m.window = 1 + r.IntN(3*smallSegment)
		}
		var w woken
		p := &pipe{window: m.window, limit: m.limit}
		var trace []string
		for range 200 {
			does, wakes := m.step(t, r, p, &w)
			trace = append(trace, does)
			got := [...]int{p.readable(), p.unconfirmed, p.room(), p.buf.n, p.wants(100), p.wants(pinAbove + 1), w[reader], w[writer]}
			want := [...]int{
				m.confirmed - m.out, len(m.bytes) - m.confirmed, m.room(p), len(m.bytes) - m.out, m.wants(p, 100), m.wants(p, pinAbove+1), wakes[reader], wakes[writer],
			}
			if got != want {
				t.Errorf("readable, unconfirmed, room, held, wanted of a few and of many, reader and writer woken are %v, want %v", got, want)
			}
			if p.in != int64(m.source.made) || p.out != int64(m.out) {
				t.Errorf("%d bytes in and %d out are counted, want %d and %d", p.in, p.out, m.source.made, m.out)
			}
			if t.Failed() {
				last := trace[max(0, len(trace)-20):]
				t.Fatalf("seed %d, window %d, limit %d:\n%s", seed, m.window, m.limit, strings.Join(last, "\n"))
			}
			w.since()
			if (p.writer.left && p.readable() == 0 || p.reader.left) && m.offered == nil {
				break
			}
		}
		handed, put = handed+m.handed, put+m.put
	}
	if put < 100 {
		t.Errorf("%d writes were clear; the test does not reach what it should", put)
	}
	if handed < 100 {
		t.Errorf("%d writes went to a Read that waited; the test does not reach what it should", handed)
	}
}

// wants says that bytes go to a Read that waits only if it has none, none are before them,
// and they are many, or fill its buffer.
func (m *pipeModel) wants(p *pipe, n int) int {
	k := min(n, len(m.offered))
	if len(m.given) > 0 || len(m.bytes) > m.out || p.reader.left || n <= pinAbove && k < len(m.offered) {
		return 0
	}
	return k
}

// step does one thing at random with pipe and model. It returns what it was, and
// whom it should have woken.
func (m *pipeModel) step(t *testing.T, r *rand.Rand, p *pipe, w *woken) (does string, wakes woken) {
	n := 1 + r.IntN(2*smallSegment)
	got := func(b []byte) {
		t.Helper()
		if len(b) > m.confirmed-m.out || !bytes.Equal(b, m.bytes[m.out:m.out+len(b)]) {
			t.Errorf("%d bytes that are not the next ones", len(b))
		}
		m.out += len(b)
	}
	waits := func() {
		m.offered, m.given = make([]byte, n), nil
		if !p.offer(m.offered) || p.offer(nil) {
			t.Error("a Read can't wait, or two can")
		}
	}
	switch op := r.IntN(60); {
	case m.lent != nil && op < 25:
		copy(m.lent, m.given)
		m.lent, m.want[reader] = nil, 0
		p.gave()
		return "a Write has copied to the Read", woken{reader: 1}
	case op >= 55 && p.reader.attached() && m.offered == nil:
		waits()
		return fmt.Sprintf("a Read waits with room for %d", n), woken{}
	case op >= 55 && m.offered != nil && m.lent == nil:
		if k := p.collect(); !bytes.Equal(m.offered[:k], m.given) {
			t.Errorf("a Read gets %d bytes that are not the %d given", k, len(m.given))
		}
		if m.stays {
			wakes[writer], m.want[writer] = 1, 0
		}
		m.offered, m.given, m.stays = nil, nil, false
		return "the Read goes on", wakes
	case op >= 40 && op < 55 && m.wants(p, 3*n) > 0 && p.writer.attached() && !m.remote:
		n = m.wants(p, 3*n)
		m.given = m.source.next(n)
		m.bytes, m.confirmed, m.out = append(m.bytes, m.given...), m.confirmed+n, m.out+n
		m.handed++
		if op < 45 {
			m.lent = p.lend(n)
			return fmt.Sprintf("a Write begins to copy %d to the Read", n), woken{}
		}
		p.give(m.given, false)
		wakes[reader], m.want[reader] = 1, 0
		if p.stay(); !p.stays {
			t.Error("a Write does not wait until the Read goes on")
		}
		if m.stays = r.IntN(2) == 0; !m.stays {
			p.goOn()
		}
		return fmt.Sprintf("a Write of %d to the Read", n), wakes
	case op >= 40:
	case op < 2 && !p.reader.open:
		p.attach(reader, w.count(reader))
		return "the reader comes", m.settle(p)
	case op < 4 && !p.writer.open:
		p.attach(writer, w.count(writer))
		return "the writer comes", m.settle(p)
	case op < 14 && p.writer.attached() && m.remote:
		if p.accepts(n) != m.accepts(p, n) {
			t.Errorf("accepts(%d) is %v", n, p.accepts(n))
		}
		if p.accepts(n) {
			data := m.source.next(n)
			p.take(received(data, noBlock, 0))
			m.bytes, m.confirmed = append(m.bytes, data...), m.confirmed+n
			return fmt.Sprintf("a WRITE of %d", n), m.settle(p)
		}
	case op < 14 && p.writer.attached() && m.lent == nil:
		if n = min(n, p.room()); n > 0 {
			data := m.source.next(n)
			if n > smallSegment {
				c := newSegment(largePool)
				c.w += copy(c.free(), data)
				p.push(c)
			} else if p.put(data) {
				m.put++
			} else {
				p.write(data)
			}
			m.bytes = append(m.bytes, data...)
			return fmt.Sprintf("a write of %d", n), m.settle(p)
		}
	case op < 20 && p.reader.attached():
		b := make([]byte, n)
		got(b[:p.read(b)])
		return fmt.Sprintf("a read of %d", n), m.settle(p)
	case op < 24 && p.reader.attached() && p.readable() > 0:
		n = min(n, p.readable())
		c := p.slice(n, op == 20)
		got(c.data())
		c.release()
		return fmt.Sprintf("a slice of %d", n), m.settle(p)
	case op < 28 && p.reader.attached():
		segs := p.pin(make([][]byte, 0, 2), min(n, p.readable()))
		copied := bytes.Join(segs, nil)
		got(copied)
		p.unpin(len(copied))
		return fmt.Sprintf("a pinned read of %d", len(copied)), m.settle(p)
	case op < 32 && p.reader.attached():
		m.want[reader] = n
		p.await(reader, n)
		return fmt.Sprintf("the reader waits for %d", n), m.settle(p)
	case op < 36 && p.writer.attached():
		m.want[writer] = n
		p.await(writer, n)
		return fmt.Sprintf("the writer waits for room for %d", n), m.settle(p)
	case op == 36 && p.writer.attached() && r.IntN(5) == 0:
		p.leave(writer, cause{})
		m.bytes, m.want = m.bytes[:m.confirmed], [2]int{}
		return "the writer leaves", m.leftWakes(p)
	case op == 37 && p.reader.attached() && p.unconfirmed == 0 && r.IntN(5) == 0:
		p.leave(reader, cause{})
		m.bytes, m.want = m.bytes[:m.out], [2]int{}
		m.confirmed = m.out
		return "the reader leaves", m.leftWakes(p)
	}
	return "nothing", woken{}
}

// leftWakes says that everybody who is, or was, there is woken once.
func (m *pipeModel) leftWakes(p *pipe) (wakes woken) {
	for _, r := range []role{reader, writer} {
		if p.side(r).open {
			wakes[r] = 1
		}
	}
	return wakes
}
