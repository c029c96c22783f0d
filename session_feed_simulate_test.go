package zpipes

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var feedRuns = flag.Int("feed.runs", 150, "how many worlds TestSimulateFeeds makes")

// In a world of two brokers, one has a broadcast's writer, and both have readers that come and go.
// Connections between them break at any moment, with what is on its way, and readers stand still.
// Whatever happens,
//
//   - each reader gets bytes from the beginning of a Write on, all of them, in order, to the end;
//     unless it was left behind, and told so;
//   - nothing waits for ever;
//   - in the end nothing is left of anybody.
func TestSimulateFeeds(t *testing.T) {
	count := make(map[string]int)
	runs := effort(*feedRuns)
	for seed := range runs {
		w := newFeedWorld(t, uint64(seed), count)
		w.play()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, what := range []string{"fed", "went on", "refused", "left behind", "held", "ended", "late", "told how much"} {
		if runs >= 100 && count[what] == 0 {
			t.Errorf("%s: never; the simulation does not reach what it should", what)
		}
	}
	t.Log(count)
}

type feedWorld struct {
	t       *testing.T
	r       *rand.Rand
	count   map[string]int
	a, b    *meetingStage
	cfg     broadcastConfig
	w       *pipe
	source  stream
	bytes   []byte // that were written
	begins  []int
	readers []*feedReader
	ways    []*feedWay
	clocks  []*feedClock
	lapsed  []int // how much was written when patience was over
}

type feedReader struct {
	pipe   *pipe
	at     *meetingStage
	starts []int // where it may have begun
	got    []byte
}

// A feedClock ends a patience.
type feedClock struct {
	f       func()
	stopped bool
}

// A feedWay is a relay's connection to the other broker.
type feedWay struct {
	*stageWay
	line     *line
	there    []message // on their way to the reader's broker
	back     []message
	attached bool
	shown    bool
	closing  bool
	over     bool
	held     int64
}

func newFeedWorld(t *testing.T, seed uint64, count map[string]int) *feedWorld {
	w := &feedWorld{t: t, r: scripted(seed), count: count, a: newMeetingStage(t), b: newMeetingStage(t)}
	for _, ms := range []*meetingStage{w.a, w.b} {
		ms.stage.pipes.later = func(_ time.Duration, f func()) func() {
			c := &feedClock{f: f}
			w.clocks = append(w.clocks, c)
			return func() { c.stopped = true }
		}
	}
	w.cfg = broadcastConfig{keep: w.r.IntN(2) * w.r.IntN(stagePending), await: w.r.IntN(3)}
	if w.r.IntN(2) == 0 {
		w.cfg.patience = time.Second
	}
	return w
}

func (w *feedWorld) play() {
	t, r := w.t, w.r
	if r.IntN(2) == 0 {
		w.comes(w.b) // before the writer
	}
	var why *cause
	if w.w, why = w.a.stage.pipes.openBroadcast("p", w.cfg, 500, func() {}, w.a.now); why != nil {
		t.Fatal(why)
	}
	for range 400 {
		w.step()
		if t.Failed() {
			return
		}
	}
	w.locked(w.w, func() {
		why := cause{}
		if w.w.unconfirmed > 0 {
			why = cause{code: causeVanished}
		}
		w.bytes = w.bytes[:len(w.bytes)-w.w.unconfirmed]
		w.w.leave(writer, why)
	})
	w.a.stage.pipes.release(w.w)
	for range 2000 {
		w.goesOn()
		w.reads()
	}
	for _, m := range slices.Clone(w.readers) {
		w.locked(m.pipe, func() {
			why, dead := m.pipe.deadFor(reader)
			switch waits := !m.pipe.writer.open && m.pipe.use == brokers; {
			case dead && why.code == causeTooSlow:
				w.count["left behind"]++
				w.missed(m, why)
			case dead:
				w.count["ended"]++
				if !slices.ContainsFunc(m.starts, func(at int) bool { return at+len(m.got) == len(w.bytes) }) && len(m.got) > 0 {
					t.Errorf("a reader has %d bytes of %d, and an end: %v", len(m.got), len(w.bytes), why)
				}
			case !waits:
				t.Errorf("a reader waits for ever: %+v", m.pipe.reader)
			}
		})
		w.leaves(m)
	}
	for range 100 {
		w.goesOn()
	}
	for _, way := range w.ways {
		way.lose()
	}
	w.a.leavesNothing()
	w.b.leavesNothing()
}

func (w *feedWorld) locked(p *pipe, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (w *feedWorld) step() {
	r := w.r
	switch x := r.IntN(100); {
	case x < 20:
		w.locked(w.w, func() {
			n := min(1+r.IntN(200), w.w.room())
			if n == 0 {
				return
			}
			w.w.begin()
			w.begins = append(w.begins, len(w.bytes))
			data := w.source.next(n)
			w.bytes = append(w.bytes, data...)
			w.w.write(data)
		})
	case x < 26:
		w.comes([]*meetingStage{w.a, w.b, w.b}[r.IntN(3)])
	case x < 28 && len(w.readers) > 0:
		w.leaves(w.readers[r.IntN(len(w.readers))])
	case x < 50:
		w.reads()
	case x < 52 && len(w.ways) > 0:
		w.ways[r.IntN(len(w.ways))].breaks(w)
	case x < 53 && len(w.clocks) > 0:
		w.rings()
	default:
		w.goesOn()
	}
}

// rings ends a patience.
func (w *feedWorld) rings() {
	c := w.clocks[0]
	if w.clocks = w.clocks[1:]; !c.stopped {
		c.stopped = true
		w.lapsed = append(w.lapsed, len(w.bytes))
		c.f()
		w.a.turns()
		w.b.turns()
	}
}

// missed looks whether a reader was told how much there was that it does not get. Of those that only
// their own broker has left behind it is not known here how much that had.
func (w *feedWorld) missed(m *feedReader, why cause) {
	if m.starts == nil || m.at == w.b && m.pipe.reader.left {
		return
	}
	n := 0
	fmt.Sscanf(why.text, "%d bytes missed", &n)
	if !slices.ContainsFunc(m.starts, func(at int) bool { return slices.Contains(w.lapsed, at+len(m.got)+n) }) {
		w.t.Errorf("a reader that began at one of %d has %d bytes and %q, of %d", m.starts, len(m.got), why.text, w.lapsed)
	}
	if m.at == w.b {
		w.count["told how much"]++
	}
}

func (w *feedWorld) comes(at *meetingStage) {
	if len(w.readers) == 6 {
		return
	}
	p, why := at.stage.pipes.open("p", reader, 0, func() {}, at.now)
	if why != nil {
		return // one waits already
	}
	if len(w.bytes) > 0 {
		w.count["late"]++
	}
	w.readers = append(w.readers, &feedReader{pipe: p, at: at})
	at.turns()
}

func (w *feedWorld) leaves(m *feedReader) {
	w.readers = slices.DeleteFunc(w.readers, func(o *feedReader) bool { return o == m })
	m.at.stage.pipes.depart(m.pipe, reader, cause{})
	m.at.turns()
}

// reads has somebody read something.
func (w *feedWorld) reads() {
	if len(w.readers) == 0 {
		return
	}
	m := w.readers[w.r.IntN(len(w.readers))]
	if w.r.IntN(3) == 0 && m == w.readers[0] {
		return // it is a slow one
	}
	w.locked(m.pipe, func() {
		b := make([]byte, 1+w.r.IntN(300))
		m.got = append(m.got, b[:m.pipe.read(b)]...)
	})
	if len(m.got) > 0 {
		if m.starts == nil {
			m.starts = slices.Clone(w.begins)
		}
		m.starts = slices.DeleteFunc(m.starts, func(at int) bool { return at > len(w.bytes) || !bytes.HasPrefix(w.bytes[at:], m.got) })
		if len(m.starts) == 0 {
			w.t.Errorf("a reader got %d bytes that nobody has written so", len(m.got))
		}
	}
	m.at.turns()
}

// goesOn has what is on its way come a little further.
func (w *feedWorld) goesOn() {
	w.meets()
	if len(w.ways) == 0 {
		return
	}
	way := w.ways[w.r.IntN(len(w.ways))]
	if way.over {
		return
	}
	switch w.r.IntN(3) {
	case 0:
		way.sends(w)
	case 1:
		if len(way.there) > 0 {
			m := way.there[0]
			way.there = way.there[1:]
			way.line.send(m)
			w.b.turns()
		}
	default:
		if len(way.back) > 0 {
			m := way.back[0]
			way.back = way.back[1:]
			way.hears(w, &m)
			w.a.turns()
		}
	}
	for _, way := range w.ways {
		way.collect()
	}
}

// meets has those who wait be known to the writer's broker.
func (w *feedWorld) meets() {
	p := w.b.stage.pipes.pipes()["p"]
	trunk := w.a.stage.pipes.pipes()["p"]
	if p == nil || trunk == nil || trunk != w.w || w.r.IntN(4) > 0 {
		return
	}
	w.a.turns()
	w.b.turns()
	token := p.rendezvous.tokens[reader]
	if token == 0 || trunk.rendezvous.relays[token] != nil {
		return
	}
	w.a.received(2, &message{id: msgMatch, block: hasBlock, text: []byte("p"), token: uint64(trunk.rendezvous.tokens[writer]), other: uint64(token), at: 2})
	w.a.turns()
	w.dials()
}

// dials finds ways for the relays that have asked for one.
func (w *feedWorld) dials() {
	for _, s := range w.a.ways[len(w.ways):] {
		l := w.b.fellow().on(1)
		way := &feedWay{stageWay: s, line: l}
		w.ways = append(w.ways, way)
		s.relay.found(s, nil, w.a.now)
		way.there = append(way.there, message{
			id: msgFeed, text: []byte("p"), other: uint64(s.relay.reader), token: uint64(s.relay.writer), mode: modeBroadcast, cast: w.cfg,
		})
	}
}

// collect takes what the reader's broker says.
func (f *feedWay) collect() {
	for _, frame := range f.line.heard {
		m, _ := parse(frame)
		f.back = append(f.back, m)
	}
	f.line.heard = nil
}

func (f *feedWay) sends(w *feedWorld) {
	p := f.relay.pipe
	w.locked(p, func() {
		if !f.attached || f.closing {
			return
		}
		if s := p.relay(1 + w.r.IntN(100)); s != nil {
			chunk := bytes.Clone(s.data())
			s.release()
			f.there = append(f.there, message{id: msgWrite, chunk: chunk, begins: p.relayBegins(len(chunk))})
		}
		if to := p.heldTo(); to > f.held {
			f.held = to
			f.there = append(f.there, message{id: msgHeld, token: uint64(to)})
			w.count["held"]++
		}
		switch {
		case p.reader.left:
			f.close(p.leftBehind())
		case p.writer.left && p.relayedAll():
			f.close(p.writer.cause)
		}
	})
}

func (f *feedWay) close(why cause) {
	f.closing = true
	f.there = append(f.there, message{id: msgClose, code: why.code, cause: []byte(why.text)})
}

// hears is what a relayLink does with an answer.
func (f *feedWay) hears(w *feedWorld, m *message) {
	p := f.relay.pipe
	switch m.id {
	case msgTaken:
		w.locked(p, func() {
			if anew := !f.attached; !p.relayedTo(int64(m.token), int(m.count), anew) {
				w.t.Errorf("%d was not sent", m.token)
			} else if anew {
				f.attached = true
				if p.reader.sure {
					w.count["went on"]++
				} else if !p.reader.left {
					p.show(reader)
				}
				f.there = append(f.there, message{id: msgRead, flags: readHere})
			}
		})
		if !f.shown {
			f.shown = true
			f.relay.isAttached(f.stageWay)
			w.count["fed"]++
		}
	case msgAudience:
		w.locked(p, func() { p.cast.recount(p, int(m.count)) })
	case msgOutputFailed:
		f.over = true
		w.count["refused"]++
		f.relay.refused(f.stageWay, m.why(), w.a.now)
	case msgWriteFailed:
		w.locked(p, func() { p.leave(reader, m.why()) })
		if !f.closing {
			f.close(cause{})
		}
		f.relay.finished(f.stageWay, m.why())
	case msgCloseOK:
		f.over = true
		f.relay.finished(f.stageWay, cause{})
	default:
		w.t.Errorf("%s from the reader's broker", fmt.Sprint(frameName(*m), " ", shown(*m)))
	}
}

// breaks loses the connection, with all that is on its way.
func (f *feedWay) breaks(w *feedWorld) {
	if f.over {
		return
	}
	f.lose()
	f.relay.lost(f.stageWay, w.a.now)
	w.a.turns()
	w.b.turns()
	w.dials()
}

func (f *feedWay) lose() {
	f.over = true
	f.there, f.back = nil, nil
	if !f.line.session.gone {
		f.line.gone()
	}
}
