package meet

import (
	"container/heap"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	simRuns = flag.Int("meet.runs", 400, "how many worlds TestSimulate makes")
	simSeed = flag.Uint64("meet.seed", 1, "the first one's")
)

// In a world of brokers, ends of a few names open and close at any of them, while brokers
// crash and start again, partitions come and go, and what brokers see of each other differs
// for a while. Links keep the order of what they carry, and lose what is on its way when they
// break. Whatever happens,
//
//   - a reader and a writer that wait have met as soon as all see each other again;
//   - a reader has one writer, which knows it, and the other way round; but a writer that takes
//     all readers has all of them, in the end;
//   - of two ends of one kind one is told, or both are matched, and finish;
//   - nobody is told that does not share the name with another one.
//
// Things are offered and sought meanwhile; see the rules there (simulate_things_test.go).
//
// A failure names its seed: -meet.seed=N -meet.runs=1 -v tells what happened.
func TestSimulate(t *testing.T) {
	count := make(map[string]int)
	var meetings, answers []time.Duration
	for i := range *simRuns {
		w := newWorld(*simSeed+uint64(i), count)
		w.logs = testing.Verbose() && *simRuns == 1
		w.play()
		if w.bad != "" {
			for _, line := range w.log {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s", *simSeed+uint64(i), w.bad)
		}
		meetings, answers = append(meetings, w.meetings...), append(answers, w.answers...)
	}
	for _, what := range []string{"met", "met one of many", "met here", "resumed", "taken back", "closed", "busy", "unreachable", "broker gone",
		"told where", "told that nobody has it", "withdrawn", "sought no more", "sought again"} {
		if *simRuns >= 100 && count[what] == 0 {
			t.Errorf("%s: never; the simulation does not reach what it should", what)
		}
	}
	if n := len(answers); n > 0 {
		slices.Sort(answers)
		t.Logf("who seeks is told after %v (median), %v (nine of ten)", answers[n/2], answers[n*9/10])
	}
	slices.Sort(meetings)
	if n := len(meetings); n > 0 {
		t.Logf("%d worlds: %v; in calm ones met after %v (median), %v (nine of ten), where a round trip is 20 ms on average",
			*simRuns, count, meetings[n/2], meetings[n*9/10])
	}
}

const (
	simSlots    = 5
	simNames    = 4
	simLength   = 60 * time.Second
	simRest     = 40 * time.Second
	simPatience = 10 * time.Second
	simLatest   = 20 * time.Millisecond // of a message on its way
)

type world struct {
	r      *rand.Rand
	now    time.Duration
	events agenda
	seq    int
	count  map[string]int
	calm   bool // nothing breaks
	gentle bool // but for one broker, from time to time
	halved bool // there have been halves

	slots  [simSlots]*node
	cut    [simSlots][simSlots]bool
	wires  map[[3]int][]letter // what is on its way
	all    []*simEnd
	things []*simThing
	bad    string
	logs   bool
	log    []string

	meetings, answers []time.Duration
}

// A node is a broker from its start to its end.
type node struct {
	w     *world
	slot  int
	id    Member
	up    bool
	b     *Broker
	view  [simSlots]Member
	link  [simSlots]int           // the number of the link; 0: none
	to    [simSlots]Member        // whose it is
	since [simSlots]time.Duration // when it was made
	pipes map[string]*simPipe
	wakes time.Duration // when it steps; 0: never
}

// A simEnd is one that somebody has opened.
type simEnd struct {
	name           string
	role           Role
	token          Token
	pipe           *simPipe
	opened, closed time.Duration
	told           string // why it is over; "": it is not
	many           bool   // a writer that takes all readers
	part           bool   // what one of those is to one reader elsewhere: no end of its own
}

// A simPipe is what a broker has of a name.
type simPipe struct {
	at   *node
	name string
	ends [2]*simEnd

	// Of a writer whose reader is elsewhere, or may be:
	far       Token // the reader
	farAt     Member
	attached  bool
	broken    bool
	try       int
	confirmed int
	whole     *simPipe           // of which this is the part for one reader; nil: it is none
	parts     map[Token]*simPipe // by reader

	// Of a reader whose writer is:
	seat   Seat
	holder int // the writer's latest try
	shown  bool
	parked bool
	taken  int
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

func newWorld(seed uint64, count map[string]int) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 14)), count: count, wires: make(map[[3]int][]letter)}
	w.calm, w.gentle = w.r.IntN(4) == 0, w.r.IntN(3) == 0
	for i := range w.slots {
		w.start(i)
	}
	for i := range w.slots {
		for j := range w.slots {
			w.slots[i].view[j] = w.slots[j].id
		}
		w.slots[i].see()
	}
	for i := range w.slots {
		for j := range i {
			w.connect(i, j)
		}
	}
	return w
}

func (w *world) note(format string, args ...any) {
	if w.logs {
		w.log = append(w.log, fmt.Sprintf("%8v ", w.now)+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
		w.note("%s", w.bad)
	}
}

func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.events, event{w.now + d, w.seq, f})
}

var epoch = time.Unix(0, 0)

func (w *world) time() time.Time { return epoch.Add(w.now) }

func (w *world) upTo(most time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(most))) }

func (w *world) play() {
	w.after(0, w.tick)
	w.after(0, w.act)
	w.after(0, w.actThings)
	if w.gentle && !w.calm {
		w.after(w.upTo(settled), w.trouble)
	}
	for len(w.events) > 0 && w.bad == "" && w.now < simLength+simRest {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	if w.bad == "" {
		w.rest()
	}
}

// act has somebody do something, and then others.
func (w *world) act() {
	if w.now > simLength {
		w.cut = [simSlots][simSlots]bool{}
		return
	}
	w.after(w.upTo(600*time.Millisecond), w.act)
	x := w.r.IntN(100)
	if w.calm || w.gentle {
		x %= 80
	}
	i, j := w.r.IntN(simSlots), w.r.IntN(simSlots)
	n := w.slots[i]
	switch {
	case x < 50:
		n.open(string('a'+rune(w.r.IntN(simNames))), Role(w.r.IntN(2)))
	case x < 60: // one closes, and the same is opened elsewhere at once, by who knows of it
		if e := w.any(n); e != nil {
			n.finish(e, "closed")
			w.after(w.upTo(2*simLatest), func() { w.slots[j].open(e.name, e.role) })
		}
	case x < 72:
		if e := w.any(n); e != nil {
			n.finish(e, "closed")
		}
	case x < 80:
		if e := w.any(n); e != nil && e.role == Writer {
			n.write(e)
		}
	case x < 83:
		n.crash()
	case x < 87: // two halves
		w.halve()
	case x < 92: // one pair
		if i != j {
			w.part(i, j)
		}
	case x < 94: // a link breaks, and is there again at once
		if i != j {
			w.note("the link of %d and %d is reset", i, j)
			w.slots[i].disconnect(j)
			w.slots[j].disconnect(i)
		}
	default:
		w.note("healed")
		w.cut = [simSlots][simSlots]bool{}
	}
}

// any is one of a broker's ends.
func (w *world) any(n *node) *simEnd {
	var ends []*simEnd
	for _, e := range w.all {
		if e.told == "" && e.pipe.at == n && !e.part {
			ends = append(ends, e)
		}
	}
	if len(ends) == 0 {
		return nil
	}
	return ends[w.r.IntN(len(ends))]
}

// tick has members see each other, and links be made, or missed, now and then.
func (w *world) tick() {
	w.after(time.Second, w.tick)
	for i := range w.slots {
		for j := range w.slots {
			n, m := w.slots[i], w.slots[j]
			if i == j || !n.up {
				continue
			}
			reachable := func() bool { return w.slots[i] == n && w.slots[j] == m && n.up && m.up && !w.cut[i][j] }
			switch {
			case reachable():
				if n.view[j] != m.id {
					w.after(w.upTo(3*time.Second), func() {
						if reachable() {
							n.view[j] = m.id
							n.see()
						}
					})
				}
				if n.link[j] == 0 && m.link[i] == 0 {
					w.after(w.upTo(time.Second), func() {
						if reachable() {
							w.connect(i, j)
						}
					})
				} else if n.link[j] != 0 && m.link[i] == 0 {
					n.disconnect(j) // the other side has given it up
				}
			case n.view[j] != 0:
				w.after(w.upTo(8*time.Second), func() {
					if n.up && !reachable() {
						n.view[j] = 0
						n.see()
					}
				})
			}
		}
	}
}

func (w *world) part(i, j int) {
	if w.cut[i][j] {
		return
	}
	w.note("%d and %d are cut", i, j)
	w.cut[i][j], w.cut[j][i] = true, true
	w.miss(i, j)
	w.miss(j, i)
}

// miss has broker i notice after a while that it hears nothing of j.
func (w *world) miss(i, j int) {
	n, link := w.slots[i], w.slots[i].link[j]
	w.after(1500*time.Millisecond+w.upTo(time.Second), func() {
		if link != 0 && n.up && n.link[j] == link && (w.cut[i][j] || w.slots[j].link[i] != link) {
			n.disconnect(j)
		}
	})
}

func (w *world) start(i int) {
	w.seq++
	n := &node{w: w, slot: i, id: Member(w.r.Uint64()), up: true, pipes: make(map[string]*simPipe)}
	n.b = New(n.id, n)
	w.slots[i] = n
}

func (n *node) crash() {
	w := n.w
	if !n.up {
		return
	}
	w.note("%d crashes", n.slot)
	n.up = false
	for _, e := range w.all {
		if e.told == "" && e.pipe.at == n {
			e.told, e.closed = "broker gone", w.now
			w.count[e.told]++
		}
	}
	for _, x := range w.things {
		if x.at == n && x.closed == 0 {
			x.closed = w.now
		}
	}
	for j := range w.slots {
		w.miss(j, n.slot)
	}
	n.link = [simSlots]int{}
	w.after(500*time.Millisecond+w.upTo(8*time.Second), func() { w.start(n.slot) })
}

func (w *world) connect(i, j int) {
	n, m := w.slots[i], w.slots[j]
	if n.link[j] != 0 || m.link[i] != 0 || w.cut[i][j] {
		return
	}
	w.seq++
	n.link[j], m.link[i] = w.seq, w.seq
	w.note("%d and %d are linked", i, j)
	n.connected(m)
	m.connected(n)
}

func (n *node) connected(m *node) {
	n.to[m.slot], n.since[m.slot] = m.id, n.w.now
	n.b.LinkUp(m.id, true)
	n.wake()
	for _, p := range n.sorted() {
		if p.broken && p.farAt == m.id {
			p.attach()
		}
	}
}

func (n *node) disconnect(j int) {
	if n.link[j] == 0 {
		return
	}
	w := n.w
	w.note("%d misses %d", n.slot, j)
	n.link[j] = 0
	for _, p := range n.sorted() {
		switch {
		case p.ends[Writer] != nil && p.farAt != 0 && !n.linked(p.farAt):
			if !p.attached {
				p.failed()
			} else if !p.broken {
				p.broken = true
				w.after(simPatience, func() {
					if e := p.ends[Writer]; p.broken && e != nil {
						n.finish(e, "unreachable")
					}
				})
			}
		case p.ends[Reader] != nil && p.seat.Writer != 0 && !n.linked(p.seat.At):
			if !p.shown {
				w.count["taken back"]++
				p.seat.Leave()
			} else if !p.parked {
				p.parked = true
				w.after(simPatience, func() {
					if e := p.ends[Reader]; p.parked && e != nil {
						n.finish(e, "unreachable")
					}
				})
			}
		}
	}
	n.b.LinkDown(n.to[j])
	n.to[j] = 0
	n.wake()
}

// linked says that there is a link to that member.
func (n *node) linked(m Member) bool {
	for j, other := range n.w.slots {
		if other.id == m {
			return n.link[j] != 0
		}
	}
	return false
}

func (n *node) sorted() []*simPipe {
	names := slices.Sorted(maps.Keys(n.pipes))
	var pipes []*simPipe
	for _, name := range names {
		p := n.pipes[name]
		pipes = append(pipes, p)
		for _, r := range slices.Sorted(maps.Keys(p.parts)) {
			pipes = append(pipes, p.parts[r])
		}
	}
	return pipes
}

// see tells the broker whom it sees.
func (n *node) see() {
	var members []Member
	for _, m := range n.view {
		if m != 0 {
			members = append(members, m)
		}
	}
	n.b.View(members)
	n.wake()
}

// wake has the broker step when there is something to do.
func (n *node) wake() {
	at, ok := n.b.Next()
	if !ok || !n.up {
		return
	}
	w := n.w
	due := max(w.now, at.Sub(epoch))
	if at.IsZero() {
		due = w.now
	}
	if n.wakes != 0 && n.wakes <= due {
		return
	}
	n.wakes = due
	w.after(due-w.now, func() {
		if n.wakes == due && n.up {
			n.wakes = 0
			n.b.Step(w.time())
			n.wake()
		}
	})
}

// send has do happen at another broker, unless the link breaks before. Records have a wire of
// their own, and what ends say to each other.
func (n *node) send(to Member, wire int, do func(m *node)) {
	w := n.w
	for j, m := range w.slots {
		if m.id != to || n.link[j] == 0 {
			continue
		}
		key := [3]int{n.slot, j, wire}
		q := w.wires[key]
		at := w.now + 100*time.Microsecond + w.upTo(simLatest)
		if len(q) > 0 {
			at = max(at, q[len(q)-1].at)
		}
		if w.wires[key] = append(q, letter{at, n.link[j], m, do}); len(q) == 0 {
			w.pump(key)
		}
	}
}

// A letter is on its way.
type letter struct {
	at   time.Duration
	link int
	to   *node
	do   func(m *node)
}

// pump delivers what is first on a wire. What can't pass is sent again while the link lives.
func (w *world) pump(key [3]int) {
	w.after(max(0, w.wires[key][0].at-w.now), func() {
		q := w.wires[key]
		l := q[0]
		lives := l.to.up && l.to.link[key[0]] == l.link
		if lives && w.cut[key[0]][key[1]] {
			q[0].at = w.now + 20*time.Millisecond
		} else {
			w.wires[key] = q[1:]
			if lives {
				l.do(l.to)
				l.to.wake()
			}
		}
		if len(w.wires[key]) > 0 {
			w.pump(key)
		}
	})
}

// Send, Attach and Conflict are the Host's.
func (n *node) Send(to Member, r Record) {
	n.send(to, 0, func(m *node) { m.b.Receive(n.id, r, n.w.time()) })
}

func (n *node) Busy(Member) bool { return !n.w.calm && n.w.r.IntN(100) == 0 }

func (n *node) Conflict(t Token, at Member) {
	n.w.after(0, func() {
		if e := n.end(t); e != nil {
			p := e.pipe
			if p.ends[1-e.role] != nil || p.attached || e.role == Reader && p.shown || p.has() {
				n.w.fail("%x was told to go, and is matched", t>>48)
			}
			n.told(e)
			n.finish(e, "busy")
		}
	})
}

func (n *node) Attach(writer, reader Token, at Member) {
	n.w.after(0, func() {
		e := n.end(writer)
		if e == nil {
			return
		}
		p := e.pipe
		if e.many {
			if p = p.part(reader); p == nil {
				return
			}
			e = p.ends[Writer]
		}
		if p.ends[Reader] != nil || p.far != 0 { // it has met one here
			n.b.Failed(writer, n.w.time())
			n.wake()
			return
		}
		p.far, p.farAt, p.attached, p.broken = reader, at, false, false
		if n.w.calm || n.w.r.IntN(4) > 0 {
			p.attach()
			return
		}
		try := p.try
		n.w.after(n.w.upTo(time.Second), func() { // a connection has to be made first
			if p.ends[Writer] == e && p.far == reader && p.try == try {
				p.attach()
			}
		})
	})
}

// part is for one reader elsewhere; nil: that has one.
func (p *simPipe) part(reader Token) *simPipe {
	if p.parts[reader] != nil {
		return nil
	}
	if p.parts == nil {
		p.parts = make(map[Token]*simPipe)
	}
	w := p.at.w
	q := &simPipe{at: p.at, name: p.name, whole: p}
	q.ends[Writer] = &simEnd{name: p.name, role: Writer, token: Token(w.r.Uint64()), pipe: q, opened: p.ends[Writer].opened, part: true}
	w.all = append(w.all, q.ends[Writer])
	p.parts[reader] = q
	return q
}

// has says that it has readers elsewhere.
func (p *simPipe) has() bool {
	for _, q := range p.parts {
		if q.attached {
			return true
		}
	}
	return false
}

// set says whether a writer is matched, of which p is, or a part.
func (p *simPipe) set(matched bool) {
	e := p.ends[Writer]
	if p.whole != nil {
		p = p.whole
		e, matched = p.ends[Writer], p.ends[Reader] != nil || p.has()
	}
	if e != nil {
		p.at.b.Set(e.token, matched, p.at.w.time())
	}
}

func (n *node) end(t Token) *simEnd {
	for _, e := range n.w.all {
		if e.token == t && e.told == "" && e.pipe.at == n {
			return e
		}
	}
	return nil
}

// told checks that there was another one of its kind.
func (n *node) told(e *simEnd) {
	w := n.w
	slack := 4 * time.Second // until all have missed one whose host or link is gone
	if w.calm {
		slack = 0
	}
	for _, o := range w.all {
		if o != e && o.name == e.name && o.role == e.role && (o.told == "" || o.told != "busy" && o.closed+slack >= e.opened) {
			return
		}
	}
	w.fail("%v %q at %d was told that there is another, and there is none", e.role, e.name, n.slot)
}

func (n *node) open(name string, r Role) {
	w := n.w
	if !n.up {
		return
	}
	p := n.pipes[name]
	if p == nil {
		p = &simPipe{at: n, name: name}
	}
	if p.ends[r] != nil || r == Reader && p.far != 0 || r == Writer && p.seat.Writer != 0 {
		return // this broker knows that there is one
	}
	n.pipes[name] = p
	e := &simEnd{name: name, role: r, token: Token(w.r.Uint64()), pipe: p, opened: w.now, many: r == Writer && w.r.IntN(3) == 0}
	w.all = append(w.all, e)
	p.ends[r] = e
	w.note("%v %q opens at %d: %x", r, name, n.slot, e.token>>48)
	if r == Reader {
		p.seat.Reader = e.token
	}
	p.seat.Local = p.ends[Writer] != nil
	other := p.ends[1-r]
	if e.many {
		n.b.OpenMany(name, e.token, other != nil, w.time())
	} else {
		n.b.Open(name, r, e.token, other != nil, w.time())
	}
	if other != nil {
		w.count["met here"]++
		n.b.Set(other.token, true, w.time())
	}
	n.wake()
}

// finish ends one end, and with it the pipe.
func (n *node) finish(e *simEnd, told string) {
	w, p := n.w, e.pipe
	if e.told != "" || !n.up {
		return
	}
	e.told, e.closed = told, w.now
	w.count[told]++
	w.note("%v %q at %d, %x: %s", e.role, e.name, n.slot, e.token>>48, told)
	n.b.Close(e.token, w.time())
	p.ends[e.role] = nil
	other := p.ends[1-e.role]
	if other != nil && other.many {
		p.seat.Reader = 0
		p.set(p.has())
		n.wake()
		return
	}
	if n.pipes[p.name] == p {
		delete(n.pipes, p.name)
	}
	if other != nil {
		n.finish(other, "closed")
	}
	for _, r := range slices.Sorted(maps.Keys(p.parts)) {
		if o := p.parts[r].ends[Writer]; o != nil {
			n.finish(o, told)
		}
	}
	if p.whole != nil {
		delete(p.whole.parts, p.far)
		p.set(false)
	}
	if e.role == Writer && p.far != 0 {
		far, farAt := p.far, p.farAt
		p.broken = false
		n.send(farAt, 1, func(m *node) {
			if o := m.end(far); o != nil && o.pipe.seat.Writer == e.token {
				if !o.pipe.shown {
					o.pipe.seat.Leave()
					return
				}
				m.finish(o, "closed")
			}
		})
	} else if e.role == Reader && p.seat.Writer != 0 {
		p.parked = false
		n.send(p.seat.At, 1, func(m *node) {
			if o := m.end(p.seat.Writer); o != nil && o.pipe.far == e.token && o.pipe.attached {
				m.finish(o, "closed")
			}
		})
	}
	n.wake()
}

// attach asks the reader's broker, for the first time or again.
func (p *simPipe) attach() {
	n, w := p.at, p.at.w
	e, far := p.ends[Writer], p.far
	p.try++
	try, resumes := p.try, p.attached
	mine := func() bool { return p.ends[Writer] == e && p.far == far && p.try == try }
	answer := func(ok bool, taken int) func(*node) {
		return func(n *node) {
			switch {
			case !mine() || resumes && !p.broken:
				if ok {
					n.send(p.farAt, 1, func(m *node) { m.never(far, e.token, try) })
				}
			case ok:
				if taken < p.confirmed {
					w.fail("confirmed bytes are gone: %d of %d", taken, p.confirmed)
				}
				if resumes {
					w.count["resumed"]++
				} else {
					w.count["met"]++
					if p.whole != nil && len(p.whole.parts) > 1 {
						w.count["met one of many"]++
					}
					if o := w.find(far); w.calm && o != nil {
						w.meetings = append(w.meetings, w.now-max(e.opened, o.opened))
					}
				}
				w.note("writer %x is attached to %x", e.token>>48, far>>48)
				p.attached, p.broken, p.confirmed = true, false, taken
				p.set(true)
				n.send(p.farAt, 1, func(m *node) { m.show(far, e.token) })
			case !resumes:
				p.failed()
			case p.confirmed == 0: // nobody has anything of it yet
				if p.whole != nil {
					n.finish(e, "torn")
					return
				}
				p.far, p.farAt, p.attached, p.broken = 0, 0, false, false
				p.set(false)
			default:
				if o := w.find(far); o.told == "" {
					w.fail("writer %x could not go on, though its reader is there", e.token>>48)
				}
				n.finish(e, "torn")
			}
		}
	}
	n.send(p.farAt, 1, func(m *node) {
		o := m.end(far)
		if o == nil {
			m.send(n.id, 1, answer(false, 0))
			return
		}
		ok, again := o.pipe.seat.Admit(far, e.token, n.id)
		if ok && !again {
			o.pipe.shown = false
		}
		if ok {
			o.pipe.parked, o.pipe.holder = false, try
		}
		m.send(n.id, 1, answer(ok, o.pipe.taken))
	})
	if !resumes {
		w.after(time.Second, func() {
			if mine() && !p.attached {
				n.send(p.farAt, 1, func(m *node) { m.never(far, e.token, try) })
				p.failed()
				n.wake()
			}
		})
	}
}

// failed has the writer wait again.
func (p *simPipe) failed() {
	p.try++
	e := p.ends[Writer]
	if p.whole != nil {
		delete(p.whole.parts, p.far)
		e.told, p.ends[Writer] = "failed", nil
		e = p.whole.ends[Writer]
	}
	p.far, p.farAt = 0, 0
	if e != nil {
		p.at.b.Failed(e.token, p.at.w.time())
	}
}

// never takes a writer back that has not shown itself.
func (n *node) never(reader, writer Token, try int) {
	if o := n.end(reader); o != nil && o.pipe.seat.Writer == writer && o.pipe.holder == try && !o.pipe.shown {
		n.w.count["taken back"]++
		o.pipe.seat.Leave()
	}
}

func (n *node) show(reader, writer Token) bool {
	o := n.end(reader)
	if o == nil || o.pipe.seat.Writer != writer {
		return false
	}
	if !o.pipe.shown {
		o.pipe.shown = true
		n.b.Set(reader, true, n.w.time())
	}
	return true
}

// write has a byte go to the reader, and be confirmed.
func (n *node) write(e *simEnd) {
	p := e.pipe
	if !p.attached || p.broken {
		return
	}
	far, try := p.far, p.try
	n.send(p.farAt, 1, func(m *node) {
		if !m.show(far, e.token) {
			return
		}
		o := m.end(far).pipe
		o.taken++
		taken := o.taken
		m.send(n.id, 1, func(*node) {
			if p.try == try {
				p.confirmed = max(p.confirmed, taken)
			}
		})
	})
}

func (w *world) find(t Token) *simEnd {
	for _, e := range w.all {
		if e.token == t {
			return e
		}
	}
	return nil
}

// rest checks what must hold when all have seen each other for long enough.
func (w *world) rest() {
	waiting := make(map[string]int)
	kinds := make(map[string]int)
	takesAll := make(map[string]bool)
	for _, e := range w.all {
		if e.told != "" {
			continue
		}
		p := e.pipe
		kind := e.name + string('0'+rune(e.role))
		if !e.part {
			kinds[kind]++
		}
		takesAll[e.name] = takesAll[e.name] || e.many
		if p.broken || p.parked || p.far != 0 && !p.attached || p.seat.Writer != 0 && !p.shown {
			w.fail("%x is half done", e.token>>48)
		}
		switch {
		case p.ends[1-e.role] != nil || p.has():
		case e.role == Writer && p.far != 0:
			if o := w.find(p.far); o == nil || o.told != "" || o.pipe.seat.Writer != e.token {
				w.fail("a writer, %x, has a reader that does not have it", e.token>>48)
			}
		case e.role == Reader && p.seat.Writer != 0:
			if o := w.find(p.seat.Writer); o == nil || o.told != "" || o.pipe.far != e.token {
				w.fail("a reader, %x, has a writer that does not have it", e.token>>48)
			}
		default:
			waiting[kind]++
		}
	}
	w.restThings()
	for _, kind := range slices.Sorted(maps.Keys(waiting)) {
		if kinds[kind] > 1 || takesAll[kind[:1]] && kind[1:] == "0" {
			w.fail("%d of %q share the name, and %d of them wait", kinds[kind], kind, waiting[kind])
		}
		if name := kind[:1]; waiting[name+"0"] > 0 && waiting[name+"1"] > 0 {
			w.fail("a reader and a writer of %q wait, and have not met", name)
		}
	}
	for _, n := range w.slots {
		if !n.up {
			continue
		}
		for name, l := range n.b.names {
			for _, e := range l.entries {
				if o := w.find(e.token); name.thing == 0 && (o == nil || o.told != "") {
					w.fail("%d knows of an end of %q that is gone", n.slot, name.name)
				}
			}
		}
		if len(n.b.names) > simNames+simThings*simKinds || len(n.b.peers) != simSlots {
			w.fail("%d knows %d names, and %d peers", n.slot, len(n.b.names), len(n.b.peers))
		}
	}
}
