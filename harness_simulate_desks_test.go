package zpipes

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A deskWorld is a queue of jobs, with clients of the extension and of the text interface that put
// jobs in, take them, and say anything of jobs that they have, had, or never had.
type deskWorld struct {
	*sim
	guests []*deskGuest
	rules  jobRules
	sent   int // numbers the jobs
	gone   int // jobs that are done, or were purged
	tends  tending
	counts map[string]int
}

type deskGuest struct {
	w         *deskWorld
	name      string
	text      bool
	session   *session
	open      bool
	has       map[uint64]uint32 // jobs that it has, as far as it knows, and their deliveries
	past      []wireJob
	said      []*deskSaid // that is not answered
	wanted    uint32
	given     uint32
	puts      int // that are not confirmed
	congested bool
}

// deskSaid is a SETTLE, or a command.
type deskSaid struct {
	verb string
	kind actKind
	ref  wireJob
	good bool // it has that job
}

const (
	deskPending = 400
	deskMessage = 200
)

func newDeskWorld(s *sim, count map[string]int) *deskWorld {
	w := &deskWorld{sim: s, counts: count}
	w.pipes = newRegistry(10, deskPending, deskMessage)
	w.pipes.tellTime(&clock{now: func() time.Time { return w.now }, stamp: func() int64 { return w.now.UnixNano() }}, func() {})
	w.rules = jobRules{lease: time.Duration(w.r.IntN(3)) * 15 * time.Millisecond, maxDeliveries: w.r.IntN(2) * 4}
	for i := range 5 {
		g := &deskGuest{w: w, name: string('A' + rune(i)), text: i > 2}
		w.guests = append(w.guests, g)
		w.connect(g)
	}
	w.queue().identify(77, 0)
	w.queue().setRules(w.rules, deskPending)
	return w
}

func (w *deskWorld) queue() *chunkQueue { return w.pipes.queues()["q"] }

func (w *deskWorld) connect(g *deskGuest) {
	*g = deskGuest{w: w, name: g.name, text: g.text, has: make(map[uint64]uint32)}
	g.session = newSession(w, w.pipes, []byte(g.name), time.Hour, w.now)
	if g.text {
		g.say(&deskSaid{verb: textOpen}, "q")
		return
	}
	g.deliver(message{id: msgPing, hello: hello{version: 1, number: 60000, able: abilities}})
	g.enter()
}

func (g *deskGuest) enter() {
	g.deliver(message{id: msgInput, text: []byte("q"), mode: modeQueue, channel: 1})
	g.w.check(g.open, "%s: the queue is not open", g.name)
	g.wanted, g.given, g.puts = 0, 0, 0
}

func (g *deskGuest) deliver(m message) {
	m.block = hasBlock
	if g.w.logs {
		g.w.note("%s > %s mode %d count %d job %d.%d", g.name, frameName(m), m.mode, m.count, m.job.id, m.job.delivery)
	}
	deliver(g.session, m.append(nil), g.w.now)
}

func (g *deskGuest) say(q *deskSaid, operands ...string) {
	frames := [][]byte{[]byte(q.verb)}
	for _, o := range operands {
		frames = append(frames, []byte(o))
	}
	g.w.note("%s > %s %q", g.name, q.verb, operands)
	g.said = append(g.said, q)
	g.session.handleText(frames, g.w.now)
}

func (w *deskWorld) step() {
	r := w.r
	g := w.guests[r.IntN(len(w.guests))]
	switch n := r.IntN(100); {
	case n < 30:
		w.put(g)
	case n < 50:
		w.take(g)
	case n < 67:
		w.settle(g)
	case n < 70 && !g.text:
		w.done(g)
	case n < 80:
		w.resume(1 + r.IntN(4))
	case n < 86:
		w.pass(w.now.Add(time.Duration(r.IntN(12)) * time.Millisecond))
		w.pipes.tick(w.now)
	case n < 88:
		w.leaves(g)
	case n < 90:
		g.congested = true
	case n < 93:
		w.relieve(g)
	case n < 95 && !g.text:
		w.tend(g)
	default:
		w.quiet()
	}
	w.holds()
}

func (w *deskWorld) put(g *deskGuest) {
	if g.puts > 4 || g.text && len(g.said) > 0 {
		return
	}
	w.sent++
	chunk := fmt.Appendf(nil, "job %d", w.sent)
	chunk = append(chunk, bytes.Repeat([]byte("."), w.r.IntN(60))...)
	g.puts++
	switch {
	case g.text:
		g.say(&deskSaid{verb: textWrite}, "q", string(chunk))
	case w.r.IntN(3) == 0:
		g.deliver(message{id: msgPut, channel: 1, chunk: chunk, count: w.r.Uint32N(20)})
	default:
		g.deliver(message{id: msgWrite, channel: 1, chunk: appendRecord(nil, chunk)})
	}
}

func (w *deskWorld) take(g *deskGuest) {
	if g.text {
		if len(g.said) < 4 && !slices.ContainsFunc(g.said, func(q *deskSaid) bool { return q.verb == textWrite }) {
			g.say(&deskSaid{verb: textTake}, "q")
		}
		return
	}
	// It may give up asking, too; a job that comes all the same it has.
	g.wanted = g.given + w.r.Uint32N(4)
	g.deliver(message{id: msgTake, channel: 1, count: g.wanted})
}

// settle says something of a job: of one that it has, that it had, or any.
func (w *deskWorld) settle(g *deskGuest) {
	r := w.r
	q := &deskSaid{kind: actKind(1 + r.IntN(5)), ref: wireJob{incarnation: w.queue().incarnation, id: r.Uint64N(uint64(w.sent) + 2), delivery: r.Uint32N(3)}}
	switch n := r.IntN(10); {
	case n < 7 && len(g.has) > 0:
		ids := slices.Sorted(maps.Keys(g.has))
		q.ref.id = ids[r.IntN(len(ids))]
		q.ref.delivery = g.has[q.ref.id]
	case n < 9 && len(g.past) > 0:
		q.ref = g.past[r.IntN(len(g.past))]
	case n == 9:
		q.ref.incarnation++
	}
	a := w.queue().aside[q.ref.id]
	q.good = q.ref.incarnation == w.queue().incarnation && a != nil && a.state == jobTaken && a.deliveries == q.ref.delivery && a.holder == g.sender()
	if q.good && g.has[q.ref.id] != q.ref.delivery {
		return // nobody says something of a job that is still on its way
	}
	if q.good && q.kind != actExtend {
		delete(g.has, q.ref.id)
		if g.past = append(g.past, q.ref); len(g.past) > 5 {
			g.past = g.past[1:]
		}
		if q.kind == actDone {
			w.gone++
		}
		w.counts["said in time"]++
	} else if !q.good {
		w.counts["said too late"]++
	}
	delay := r.IntN(2) * r.IntN(20)
	if !g.text {
		if q.kind != actExtend {
			g.said = append(g.said, q)
		}
		g.deliver(message{id: msgSettle, channel: 1, mode: byte(q.kind), count: uint32(delay), job: q.ref, text: []byte("why")})
		return
	}
	id := jobID(q.ref.incarnation, q.ref.id) + "." + fmt.Sprint(q.ref.delivery)
	operands := []string{"q", id}
	switch q.verb = textExtend; q.kind {
	case actDone:
		q.verb = textDone
	case actReturn, actUnseen, actReject:
		q.verb = textReturn
	}
	if q.verb != textDone && delay > 0 {
		operands = append(operands, fmt.Sprint(delay))
	}
	g.say(q, operands...)
}

// done says of several jobs at once that they are done, of some that it does not have among them.
func (w *deskWorld) done(g *deskGuest) {
	m := message{id: msgDone, channel: 1, token: w.queue().incarnation}
	say := func(ref wireJob) {
		q := &deskSaid{kind: actDone, ref: ref}
		a := w.queue().aside[ref.id]
		q.good = a != nil && a.state == jobTaken && a.deliveries == ref.delivery && a.holder == g.sender() && g.has[ref.id] == ref.delivery
		if q.good {
			delete(g.has, ref.id)
			w.gone++
		} else if a != nil && a.deliveries == ref.delivery {
			return // nobody says something of a job that is still on its way
		}
		g.said = append(g.said, q)
		m.chunk = appendDone(m.chunk, ref)
	}
	for _, ref := range g.past {
		if w.r.IntN(4) == 0 && ref.incarnation == m.token {
			say(ref)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(g.has)) {
		say(wireJob{incarnation: m.token, id: id, delivery: g.has[id]})
	}
	if len(m.chunk) > 0 {
		g.deliver(m)
		w.counts["done in lots"]++
	}
}

// sender is what of a guest is in the queue; nil: nothing is.
func (g *deskGuest) sender() *senderQueue {
	if !g.text {
		if c := g.session.channels[1]; c != nil && c.open != nil {
			return &c.open.(*queueMember).sender
		}
	} else if t := g.session.text; t != nil && t.senders["q"] != nil {
		return &t.senders["q"].senderQueue
	}
	return nil
}

func (w *deskWorld) leaves(g *deskGuest) {
	if !g.text && w.r.IntN(2) == 0 {
		clear(g.has)
		g.said, g.open = nil, false // what is not answered by now is not
		g.deliver(message{id: msgClose, channel: 1})
		g.enter()
		w.counts["closed"]++
		return
	}
	w.note("%s vanishes", g.name)
	g.session.drop(cause{code: causeVanished}, nil)
	g.session.gone = true
	w.connect(g)
	w.counts["vanished"]++
}

func (w *deskWorld) relieve(g *deskGuest) {
	g.congested = false
	g.session.backlog = nil
	for _, c := range g.session.channels {
		w.post(c)
	}
}

func (w *deskWorld) tend(g *deskGuest) {
	w.tends = tending(1 + w.r.IntN(4))
	g.deliver(message{id: msgTend, channel: 1, mode: byte(w.tends)})
}

// reply is what the broker says.
func (w *deskWorld) reply(s *session, frames ...[]byte) bool {
	g := w.guests[slices.IndexFunc(w.guests, func(g *deskGuest) bool { return g.session == s })]
	w.check(!s.gone, "a reply to %s, who has gone", g.name)
	if g.congested {
		s.backlog = append(s.backlog, [][]byte{nil})
	}
	if g.text {
		g.hears(frames)
		return true
	}
	m, err := parse(bytes.Clone(frames[0]))
	w.check(err == nil, "a reply that does not parse")
	if w.logs {
		w.note("%s < %s mode %d count %d job %d.%d", g.name, frameName(m), m.mode, m.count, m.job.id, m.job.delivery)
	}
	if m.channel == 1 && !g.open && m.id != msgInputOK {
		return true // it has closed
	}
	switch m.id {
	case msgInputOK:
		g.open = true
	case msgWriteOK:
		g.puts -= int(m.count)
		w.check(g.puts >= 0, "%s: more chunks are confirmed than were sent", g.name)
	case msgJob:
		g.given++
		g.gets(m.job.id, m.job.delivery, m.chunk)
	case msgJobs:
		w.check(m.eachJob(func(ref wireJob, body []byte) {
			w.check(ref.incarnation == w.queue().incarnation, "%s: job %d of another queue", g.name, ref.id)
			g.given++
			g.gets(ref.id, ref.delivery, body)
		}), "%s: no jobs in a JOBS", g.name)
		w.counts["in lots"]++
	case msgSettled:
		for range m.count {
			w.check(g.answered().good, "%s: it was believed what is not so", g.name)
		}
	case msgLost:
		if m.mode == 1 {
			q := g.answered()
			w.check(!q.good && q.ref == m.job, "%s: job %d.%d is lost, when %d.%d was settled: %v", g.name, m.job.id, m.job.delivery, q.ref.id, q.ref.delivery, q.good)
		}
		if g.has[m.job.id] == m.job.delivery && m.job.incarnation == w.queue().incarnation {
			delete(g.has, m.job.id)
			w.counts["lost"]++
		}
	case msgTended:
		if w.counts["tended"] += int(m.count); w.tends != tendRedrive {
			w.gone += int(m.count)
		}
	case msgPingOK, msgCloseOK:
	default:
		w.fail("%s: nobody asked for %s", g.name, frameName(m))
	}
	return true
}

func (g *deskGuest) answered() *deskSaid {
	g.w.check(len(g.said) > 0, "%s: an answer to nothing", g.name)
	q := g.said[0]
	g.said = g.said[1:]
	return q
}

// gets is for a job that has come.
func (g *deskGuest) gets(id uint64, delivery uint32, chunk []byte) {
	w := g.w
	n, _, _ := strings.Cut(string(chunk), ".")
	w.check(strings.HasPrefix(n, "job "), "job %d has another body", id)
	w.check(w.rules.maxDeliveries == 0 || int(delivery) <= w.rules.maxDeliveries, "delivery %d of job %d", delivery, id)
	_, twice := g.has[id]
	w.check(!twice || w.rules.lease > 0 || g.has[id] != delivery, "%s has job %d already", g.name, id)
	g.has[id] = delivery
	w.counts["taken"]++
}

// hears is an answer to a command.
func (g *deskGuest) hears(frames [][]byte) {
	w := g.w
	w.note("%s < %q", g.name, frames)
	q, failed := g.answered(), string(frames[0]) == textError
	switch q.verb {
	case textTake:
		w.check(len(frames) == 3, "TAKE is answered %q", frames)
		ref, ok := parseJobID(string(frames[0]))
		delivery, err := strconv.Atoi(string(frames[1]))
		w.check(ok && err == nil && ref.incarnation == w.queue().incarnation, "TAKE is answered %q", frames)
		g.gets(ref.id, uint32(delivery), frames[2])
	case textOpen, textWrite:
		w.check(!failed, "%s is answered %q", q.verb, frames)
		if q.verb == textWrite {
			g.puts--
		}
	default:
		w.check(failed != q.good, "%s of job %d.%d is answered %q", q.verb, q.ref.id, q.ref.delivery, frames)
	}
}

func (w *deskWorld) holds() {
	s := w.queue()
	w.check(s.demands.Len() == 0 || !s.available(), "somebody waits for what is there")
	ready := s.front.len()
	for _, l := range s.ready.all() {
		ready += l.line.len()
	}
	w.check(s.count == ready+len(s.aside), "%d jobs are counted, %d are ready, %d aside", s.count, ready, len(s.aside))
	for _, a := range s.aside {
		w.check(a.state != jobTaken || a.holder != nil && a.holder.has.n > 0 && !a.holder.left, "job %d is with nobody", a.id)
	}
}

// quiet lets all that was posted run. Then everybody knows what it has.
func (w *deskWorld) quiet() {
	for _, g := range w.guests {
		w.relieve(g)
	}
	w.pipes.tick(w.now)
	w.resume(math.MaxInt)
	s := w.queue()
	for _, g := range w.guests {
		l := g.sender()
		n := 0
		if l != nil {
			n = l.has.n
			for a := l.has.first; a != nil; a = a.behind {
				w.check(g.has[a.id] == a.deliveries, "%s has delivery %d of job %d, and knows of %d", g.name, a.deliveries, a.id, g.has[a.id])
			}
		}
		if g.text {
			// It learns that a lease has ended when it says something.
			for id := range g.has {
				if a := s.aside[id]; a == nil || a.holder != l {
					delete(g.has, id)
				}
			}
			w.check(len(g.said) == 0 || g.said[0].verb == textTake && !s.available() || g.said[0].verb == textWrite && s.full.len() > 0,
				"%s: something is not answered", g.name)
			continue
		}
		w.check(n == len(g.has), "%s has %d jobs, and knows of %d", g.name, n, len(g.has))
		w.check(len(g.said) == 0, "%s: %d SETTLEs are not answered", g.name, len(g.said))
		w.check(int32(g.wanted-g.given) <= 0 || !s.available(), "%s waits for what is there", g.name)
		w.check(g.puts == 0 || s.full.len() > 0, "%s: %d chunks are not confirmed, and nobody waits for room", g.name, g.puts)
	}
}

func (w *deskWorld) end() {
	w.quiet()
	for _, g := range w.guests {
		g.session.drop(cause{code: causeVanished}, nil)
		g.session.gone = true
		w.check(g.session.account.bytes == 0 && g.session.account.requests == 0, "%s: %d bytes and %d requests are left", g.name, g.session.account.bytes, g.session.account.requests)
	}
	w.resume(math.MaxInt)
	w.holds()
	s := w.queue()
	w.check(s.many[jobTaken] == 0 && s.demands.Len() == 0 && s.senders.Len() == 0 && s.full.len() == 0,
		"%d jobs are taken, %d wait for one, %d have it open", s.many[jobTaken], s.demands.Len(), s.senders.Len())
	s.setRules(jobRules{}, deskPending)
	w.pipes.tick(w.now.Add(time.Hour))
	s.tend(tendRedrive, func(int) {})
	n := 0
	for s.available() {
		s.release(s.next())
		n++
	}
	w.check(s.count == 0 && s.held == 0 && s.in == s.out, "%d jobs and %d bytes are left", s.count, s.held)
	w.check(int(s.lastID) == n+w.gone, "%d jobs came, %d are done, and %d were there in the end", s.lastID, w.gone, n)
}
