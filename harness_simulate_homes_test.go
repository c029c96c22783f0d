package zpipes

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A homesWorld is brokers of a cluster whose clients open, use and delete queues of a few names, while
// brokers crash and come again, and links break and are healed. What runs is the exchange with the
// directory, and the queues; the links between them, the clients' connections and the movers are the world's.
type homesWorld struct {
	r      *rand.Rand
	now    time.Duration
	events homesAgenda
	seq    int
	calm   bool   // nothing breaks, and nothing is deleted
	mutant string // the rule that is left out
	count  map[string]int

	nodes  [homesSlots]*homesNode
	cut    [homesSlots][homesSlots]bool
	links  int // given out
	chunks map[string]*homesChunk
	leases []*homesLease
	begins map[string]int
	cedes  map[string]int // since the last heal
	bad    string
	logs   bool
	log    []string
}

const (
	homesSlots    = 4
	homesLength   = 40 * time.Second
	homesRest     = 40 * time.Second
	homesPatience = 4 * time.Second
	homesLatest   = 20 * time.Millisecond
)

// Which queues are deleted, and which are durable, their names say.
var homesNames = []string{"a", "b", "deleted", "durable"}

type homesNode struct {
	*homesWorld
	slot   int
	id     memberID
	up     bool
	x      *exchange
	pipes  *registry
	links  [homesSlots]int // the link's number; 0: there is none
	last   map[int]time.Duration
	rung   bool
	movers map[string]*homesMover
	kept   map[*chunkQueue]bool
	opens  map[*homesOpen]bool
}

// A homesChunk is what becomes of one.
type homesChunk struct {
	name      string
	confirmed bool
	received  int
	durable   bool // it was in a queue that is
	excused   bool // it was deleted, or in a broker's memory that has crashed
}

type homesLease struct {
	queue  *chunkQueue
	at     *homesNode
	sender *senderQueue
	job    job
}

type homesEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type homesAgenda []homesEvent

func (a homesAgenda) Len() int { return len(a) }
func (a homesAgenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a homesAgenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *homesAgenda) Push(e any)   { *a = append(*a, e.(homesEvent)) }
func (a *homesAgenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

func newHomesWorld(seed uint64, mutant string, count map[string]int) *homesWorld {
	w := &homesWorld{
		r: rand.New(rand.NewPCG(seed, 16)), mutant: mutant, count: count,
		chunks: make(map[string]*homesChunk), begins: make(map[string]int), cedes: make(map[string]int),
	}
	w.calm = w.r.IntN(4) == 0
	for i := range w.nodes {
		w.start(i, nil)
	}
	return w
}

func (w *homesWorld) note(format string, args ...any) {
	if w.logs {
		w.log = append(w.log, fmt.Sprintf("%9v ", w.now.Round(time.Microsecond))+fmt.Sprintf(format, args...))
	}
}

func (w *homesWorld) check(ok bool, format string, args ...any) {
	if !ok && w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
		w.note("%s", w.bad)
	}
}

func (w *homesWorld) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.events, homesEvent{w.now + d, w.seq, f})
}

func (w *homesWorld) upTo(most time.Duration) time.Duration {
	return time.Duration(w.r.Int64N(int64(most)))
}
func (w *homesWorld) time() time.Time { return born.Add(w.now) }

// start begins a broker, which has what it kept.
func (w *homesWorld) start(slot int, kept map[string][]job) {
	n := &homesNode{
		homesWorld: w, slot: slot, id: memberID(w.r.Uint64() | 1), up: true, last: make(map[int]time.Duration),
		movers: make(map[string]*homesMover), kept: make(map[*chunkQueue]bool), opens: make(map[*homesOpen]bool),
	}
	w.nodes[slot] = n
	n.pipes = newRegistry(1000, 1<<20, 1<<16)
	n.pipes.clock = &clock{now: w.time, stamp: func() int64 { return w.time().UnixNano() }}
	n.pipes.alarms.wake = func() {}
	n.x = newExchange(n.id, n.pipes, n)
	n.x.homes.host = homesMutant{exchangeHomes{n.x}, n}
	n.pipes.exchange = n.x
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		n.pipes.beginQueue(name, w.time())
		n.x.has(name, isDurable)
		n.kept[n.pipes.queueNamed(name)] = true
		for _, j := range kept[name] {
			n.push(n.pipes.queueNamed(name), j.data, &terms{handed: &handedTerms{sent: j.sent}})
		}
	}
	n.see()
	w.after(time.Second+w.upTo(time.Second), func() { n.x.settled() })
	for other := range w.nodes {
		if w.nodes[other] != nil && other != slot {
			w.after(w.upTo(100*time.Millisecond), func() { w.join(slot, other) })
		}
	}
}

// join links two brokers if that can be.
func (w *homesWorld) join(i, j int) {
	a, b := w.nodes[i], w.nodes[j]
	if i == j || w.cut[i][j] || a.links[j] != 0 || b.links[i] != 0 || !a.up || !b.up {
		return
	}
	w.links++
	a.links[j], b.links[i] = w.links, w.links
	a.x.linkUp(b.id, ableDirectory)
	b.x.linkUp(a.id, ableDirectory)
	a.see()
	b.see()
}

// part has both sides lose the link, sooner or later.
func (w *homesWorld) part(i, j int, notice time.Duration) {
	for _, x := range [][2]int{{i, j}, {j, i}} {
		n, other := w.nodes[x[0]], w.nodes[x[1]]
		if link := n.links[x[1]]; link != 0 {
			w.after(w.upTo(notice+1), func() {
				if n.links[x[1]] == link {
					n.links[x[1]] = 0
					n.x.linkDown(other.id)
					n.see()
				}
			})
		}
	}
}

func (n *homesNode) see() {
	view := []memberID{n.id}
	for j, link := range n.links {
		if link != 0 {
			view = append(view, n.nodes[j].id)
		}
	}
	slices.Sort(view)
	n.x.viewChanged(view)
}

// What the exchange needs follows.

func (n *homesNode) ring() {
	if !n.rung {
		n.rung = true
		n.after(n.upTo(time.Millisecond), n.turn)
	}
}

func (n *homesNode) turn() {
	n.rung = false
	if !n.up {
		return
	}
	if next := n.x.turn(n.time()); !next.IsZero() {
		n.after(max(0, next.Sub(n.time())), n.ring)
	}
}

func (n *homesNode) way(*relay)                 {}
func (n *homesNode) dial(*farDial)              {}
func (n *homesNode) busy(memberID) bool         { return false }
func (n *homesNode) describe(m memberID) string { return m.String() }
func (n *homesNode) name(m memberID) string     { return m.String() }
func (n *homesNode) patience() time.Duration    { return homesPatience }

func (n *homesNode) send(to memberID, m *message) {
	frame := m.append(nil)
	n.carry(to, func(other *homesNode) {
		if got, err := parse(frame); err == nil {
			other.x.received(n.id, &got)
		}
	})
}

// carry has f called at another broker, in order, if the link is the same then.
func (n *homesNode) carry(to memberID, f func(other *homesNode)) bool {
	for j, link := range n.links {
		if other := n.nodes[j]; link != 0 && other.id == to {
			at := max(n.now+n.upTo(homesLatest), n.last[link])
			n.last[link] = at
			n.after(at-n.now, func() {
				if n.up && other.up && n.links[j] == link && other.links[n.slot] == link && !n.cut[n.slot][j] {
					f(other)
				}
			})
			return true
		}
	}
	return false
}

func (n *homesNode) cede(name string, to memberID) {
	s := n.pipes.queueNamed(name)
	if s == nil {
		return
	}
	n.count["ceded"]++
	n.cedes[name]++
	n.note("%d cedes %s to %v", n.slot, name, to)
	if old := n.movers[name]; old != nil {
		old.stop()
	}
	m := &homesMover{homesNode: n, queue: s, to: to}
	m.sender.worker = worker{lost: func(uint64, uint32) {}}
	n.movers[name] = m
	s.mu.Lock()
	s.cede(n.name(to), func() {})
	s.mu.Unlock()
	n.after(0, m.step)
}

func (n *homesNode) keep(name string) {
	if s := n.pipes.queueNamed(name); s != nil && n.mutant != "a queue that was ceded to who has gone stays so" {
		n.count["kept on"]++
		n.note("%d has %s again", n.slot, name)
		if m := n.movers[name]; m != nil {
			m.stop()
		}
		s.mu.Lock()
		s.keepOn()
		s.mu.Unlock()
	}
}

// A homesMutant leaves out one of the rules of homes.
type homesMutant struct {
	exchangeHomes
	n *homesNode
}

func (x homesMutant) missing() bool {
	return x.n.mutant != "a broker that is out of reach has nothing" && x.exchangeHomes.missing()
}

func (x homesMutant) begin(name string, now time.Time) *cause {
	x.n.begins[name]++
	x.n.count["begun"]++
	x.n.note("%d begins %s", x.n.slot, name)
	return x.exchangeHomes.begin(name, now)
}

func (x homesMutant) offer(name string, k homeKind) uint64 {
	token := k.token(x.n.r.Uint64())
	x.exchange.offer(thingQueue, name, token)
	return token
}

func (x homesMutant) withdraw(token uint64) {
	if x.n.mutant != "who is no home any more says nothing" {
		x.exchangeHomes.withdraw(token)
	}
}

func (x homesMutant) seek(name string, f func(time.Time, []offering)) func() {
	return x.exchangeHomes.seek(name, func(now time.Time, all []offering) {
		h := x.homes.names[name]
		if h != nil && h.token != 0 && x.n.mutant == "a claim is good before all know of it" {
			all = append(slices.Clone(all), offering{h.self, h.token, true})
		}
		if x.n.mutant == "who was first does not count" {
			all = slices.Clone(all)
			for i := range all {
				all[i].first = all[i].at == x.n.id
			}
		}
		f(now, all)
	})
}

// A homesMover hands over as a mover does.
type homesMover struct {
	*homesNode
	queue   *chunkQueue
	to      memberID
	sender  senderQueue
	jobs    []seenJob // on their way
	stopped bool
	turns   int
}

func (m *homesMover) stop() {
	m.stopped = true
	m.settle(0)
}

func (m *homesMover) settle(n int) {
	m.queue.mu.Lock()
	n = min(n, len(m.jobs))
	m.queue.settleLifted(&m.sender, m.jobs[:n])
	m.queue.unlift(&m.sender, m.jobs[n:])
	m.queue.mu.Unlock()
	m.jobs = nil
}

func (m *homesMover) step() {
	if m.stopped || !m.up {
		return
	}
	m.settle(0)
	m.turns++
	again, turn := 100*time.Millisecond, m.turns
	m.queue.mu.Lock()
	m.jobs = m.queue.lift(&m.sender, 10*leastChunk)
	void, bare := m.queue.void, len(m.jobs) == 0 && m.queue.bare()
	m.queue.mu.Unlock()
	switch {
	case void || bare && m.pipes.handedOver(m.queue, false):
		m.stopped = true
		m.count["handed over"]++
		return
	case len(m.jobs) > 0:
		jobs := m.jobs
		if m.mutant == "what is handed over is deleted before it is confirmed" {
			m.settle(len(jobs))
		}
		m.carry(m.to, func(other *homesNode) { m.arrive(other, jobs, turn) })
	}
	m.later(again)
}

// later has it go on then, unless it has before.
func (m *homesMover) later(d time.Duration) {
	turn := m.turns
	m.after(d, func() {
		if m.turns == turn {
			m.step()
		}
	})
}

// arrive is at the other home.
func (m *homesMover) arrive(other *homesNode, jobs []seenJob, turn int) {
	why := other.pipes.use(m.queue.name, false, m.time(), func(s *chunkQueue) *cause {
		for _, j := range jobs {
			if c := m.chunks[string(j.data)]; other.kept[s] {
				c.durable = true
			}
			l := &senderQueue{wake: func() {}}
			s.pushJob(l, s.newJob(j.data, &terms{handed: &handedTerms{sent: j.sent, deliveries: j.deliveries, state: j.state, reason: j.reason}}))
		}
		return nil
	})
	other.carry(m.id, func(*homesNode) {
		switch {
		case m.stopped || m.turns != turn:
		case why == nil:
			m.count["moved"] += len(jobs)
			m.settle(len(jobs))
			m.later(0)
		default:
			m.settle(0)
			m.x.homes.denied(m.queue.name, m.to, m.time())
		}
	})
}

// A homesOpen is a client's, which does one thing with the queue, and closes.
type homesOpen struct {
	*homesNode
	name    string
	create  bool
	do      func(at *homesNode, s *chunkQueue)
	inquiry *inquiry
	began   time.Duration
}

func (n *homesNode) open(name string, create bool, do func(at *homesNode, s *chunkQueue)) {
	o := &homesOpen{homesNode: n, name: name, create: create, do: do, began: n.now}
	n.opens[o] = true
	o.try()
}

// try is what a session does.
func (o *homesOpen) try() {
	if !o.up || !o.opens[o] {
		return
	}
	if o.inquiry != nil && !o.inquiry.given.Load() {
		return
	}
	why := o.useAt(o.homesNode)
	i := o.inquiry
	switch {
	case why != &causeIsAway:
		delete(o.opens, o)
	case i == nil:
		o.inquiry = o.x.inquire(o.name, o.create, func() { o.after(0, o.try) })
	case i.why != nil:
		o.count["refused "+fmt.Sprint(i.why.code)]++
		delete(o.opens, o)
	case i.at == 0:
		i.again()
	default:
		given := i.at
		if !o.carry(given, func(other *homesNode) {
			why := o.useAt(other)
			if !other.carry(o.id, func(*homesNode) {
				if why == &causeIsAway {
					i.again()
				} else {
					delete(o.opens, o)
				}
			}) {
				delete(o.opens, o)
			}
		}) {
			delete(o.opens, o) // the client is told so
		}
		o.after(homesPatience, func() { delete(o.opens, o) })
	}
}

func (o *homesOpen) useAt(n *homesNode) *cause {
	return n.pipes.use(o.name, false, o.time(), func(s *chunkQueue) *cause {
		if o.name == "durable" && s.lastID == 0 && !n.kept[s] {
			n.kept[s] = true
			n.x.has(o.name, isDurable)
		}
		o.do(n, s)
		return nil
	})
}

// push puts a chunk into a queue, whose mu is held where that is used already.
func (n *homesNode) push(s *chunkQueue, data []byte, t *terms) {
	s.pushJob(&senderQueue{wake: func() {}}, s.newJob(data, t))
}

// act has somebody do something, and then others.
func (w *homesWorld) act() {
	if w.now > homesLength {
		w.heal()
		for _, l := range w.leases {
			l.end(actReturn)
		}
		w.leases = nil
		return
	}
	w.after(w.upTo(100*time.Millisecond), w.act)
	x := w.r.IntN(100)
	if w.calm {
		x %= 80
	}
	i, j := w.r.IntN(homesSlots), w.r.IntN(homesSlots)
	n, name := w.nodes[i], homesNames[w.r.IntN(len(homesNames))]
	switch {
	case x < 40:
		n.send1(name)
	case x < 50: // all at once
		if w.calm {
			name = fmt.Sprint("new ", len(w.chunks))
		}
		for _, n := range w.nodes {
			w.after(w.upTo(2*homesLatest), func() { n.send1(name) })
		}
	case x < 65:
		n.open(name, w.r.IntN(2) == 0, w.receive)
	case x < 72:
		n.open(name, true, w.take)
	case x < 80:
		if len(w.leases) > 0 {
			k := w.r.IntN(len(w.leases))
			w.leases[k].end(actKind(w.r.IntN(4) + 1))
			w.leases = slices.Delete(w.leases, k, k+1)
		}
	case x < 82:
		n.open("deleted", false, w.delete)
	case x < 85:
		w.crash(i)
	case x < 89: // halves
		m := w.r.Uint64()
		w.note("halves %04b", m&15)
		for i := range homesSlots {
			for j := range i {
				if m>>i&1 != m>>j&1 {
					w.cut[i][j], w.cut[j][i] = true, true
					w.part(i, j, 2*time.Second)
				}
			}
		}
	case x < 92:
		w.note("%d and %d are cut", i, j)
		if i != j {
			w.cut[i][j], w.cut[j][i] = true, true
			w.part(i, j, 2*time.Second)
		}
	case x < 95: // there again at once
		w.part(i, j, 0)
		w.after(w.upTo(300*time.Millisecond), func() { w.join(i, j) })
	default:
		w.heal()
	}
}

func (w *homesWorld) heal() {
	w.note("healed")
	w.cut = [homesSlots][homesSlots]bool{}
	clear(w.cedes)
	for i := range homesSlots {
		for j := range i {
			// One side may think that they are linked still.
			if w.nodes[i].links[j] != w.nodes[j].links[i] {
				w.part(i, j, 0)
			}
			for _, d := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
				w.after(d+w.upTo(200*time.Millisecond), func() { w.join(i, j) })
			}
		}
	}
}

func (n *homesNode) send1(name string) {
	data := fmt.Sprintf("%s %d", name, len(n.chunks))
	c := &homesChunk{name: name}
	n.chunks[data] = c
	n.open(name, true, func(at *homesNode, s *chunkQueue) {
		at.push(s, []byte(data), nil)
		c.confirmed, c.durable = true, at.kept[s]
		n.count["sent"]++
	})
}

func (w *homesWorld) got(data []byte) {
	c := w.chunks[string(data)]
	w.check(c != nil, "%q was never sent", data)
	if c.received++; c.received > 1 {
		w.count["received again"]++
	}
}

func (w *homesWorld) receive(_ *homesNode, s *chunkQueue) {
	if j := s.next(); j != nil {
		w.got(j.data)
		s.release(j)
		s.settle()
		w.count["received"]++
	}
}

func (w *homesWorld) take(at *homesNode, s *chunkQueue) {
	if w.now > homesLength { // nobody would return it any more
		w.receive(at, s)
		return
	}
	if j := s.next(); j != nil {
		l := &homesLease{queue: s, at: at, sender: &senderQueue{wake: func() {}, worker: worker{lost: func(uint64, uint32) {}}}, job: *j}
		s.take(j, l.sender)
		w.leases = append(w.leases, l)
		w.count["taken"]++
	}
}

func (l *homesLease) end(do actKind) {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	w := l.at.homesWorld
	if do == actUnseen {
		do = actReturn
	}
	if l.at.up && l.queue.act(l.sender, l.job.id, l.job.deliveries, act{kind: do, delay: w.upTo(time.Second)}) && do == actDone {
		w.got(l.job.data)
	}
}

func (w *homesWorld) delete(at *homesNode, s *chunkQueue) {
	w.count["deleted"]++
	for _, c := range w.chunks {
		c.excused = c.excused || c.name == s.name
	}
	at.pipes.end(s)
}

// has is what a queue has.
func (s *chunkQueue) has1() (jobs []job) {
	s.eachInLine(func(j *job) { jobs = append(jobs, *j) })
	for _, a := range s.aside {
		jobs = append(jobs, *a.job)
	}
	return jobs
}

func (w *homesWorld) crash(i int) {
	n := w.nodes[i]
	if !n.up {
		return
	}
	n.up = false
	w.count["crashes"]++
	w.note("%d crashes", i)
	kept := make(map[string][]job)
	n.pipes.steps(func(r *registration) {
		if s := r.queue; s != nil {
			if n.kept[s] {
				kept[s.name] = s.has1()
				return
			}
			for _, j := range s.has1() {
				c := w.chunks[string(j.data)]
				c.excused = c.excused || !c.durable
			}
		}
	})
	for j := range w.nodes {
		w.part(i, j, time.Second)
	}
	w.after(w.upTo(3*time.Second), func() {
		for j, other := range w.nodes {
			if other.links[i] != 0 {
				other.links[i] = 0
				other.x.linkDown(n.id)
				other.see()
			}
			if j != i {
				other.x.left(n.id) // another one is at its address
			}
		}
		w.start(i, kept)
		for j := range w.nodes {
			w.join(i, j)
		}
	})
}

func (w *homesWorld) watch() {
	w.after(200*time.Millisecond, w.watch)
	for _, n := range w.nodes {
		n.pipes.tick(w.time())
		for o := range n.opens {
			most := 2*homesPatience + 2*overdue
			if w.calm && o.began > 3*time.Second {
				most = time.Second
			}
			w.check(!n.up || w.now-o.began < most, "an open of %s at %d has waited since %v", o.name, n.slot, o.began)
		}
	}
}

func (w *homesWorld) play() {
	w.after(0, func() {
		for i := range w.nodes {
			for j := range i {
				w.join(i, j)
			}
		}
	})
	w.after(50*time.Millisecond, w.act)
	w.after(0, w.watch)
	for len(w.events) > 0 && w.bad == "" && w.now < homesLength+homesRest {
		e := heap.Pop(&w.events).(homesEvent)
		w.now = e.at
		e.do()
	}
	if w.bad == "" {
		w.rest()
	}
}

// rest checks what has to be so in the end.
func (w *homesWorld) rest() {
	there := make(map[string]bool)
	for _, name := range homesNames {
		var at []int
		for _, n := range w.nodes {
			if s := n.pipes.queueNamed(name); s != nil {
				at = append(at, n.slot)
				w.check(!s.ceded, "%s is ceded at %d still: %d jobs, %d taken", name, n.slot, s.count, s.many[jobTaken])
				for _, j := range s.has1() {
					there[string(j.data)] = true
				}
			}
		}
		w.check(len(at) <= 1, "%s has homes at %v", name, at)
		w.check(w.cedes[name] < 5*homesSlots, "%s was ceded %d times after the last heal", name, w.cedes[name])
	}
	for name, n := range w.begins {
		w.check(!w.calm || n == 1 && w.cedes[name] == 0, "%s was begun %d times, and ceded %d times, and nothing has happened", name, n, w.cedes[name])
	}
	for data, c := range w.chunks {
		w.check(!c.confirmed || c.received > 0 || c.excused || there[data] || w.calm && strings.HasPrefix(data, "new"), "%q is lost", data)
	}
	for _, n := range w.nodes {
		for name, h := range n.x.homes.names {
			w.check(len(h.asks) == 0 && (h.state == homeHere || h.state == homeElsewhere), "%s at %d: state %d, %d ask", name, n.slot, h.state, len(h.asks))
		}
	}
}
