package zpipes

import (
	"container/list"
	"math"
	"time"
)

// A chunkQueue is a queue: whole chunks on their way from any number of senders to any
// number of receivers. Like pipe it is a plain state machine. The broker has one for
// each queue; and a client whose broker is elsewhere has one for each Queue, in
// which the connection plays the broker.
//
// Each sender has a queue of its own in it, and these take turns, both where they wait
// for room and where their chunks are handed out, so that a heavy sender does not hold
// up a light one. Those who want a chunk get one in the order in which they asked.
//
// Others look at its fields and its senders', but set none. All methods but recheck
// and info are called with mu held.
type chunkQueue struct {
	mu   fairMutex // guards all below, sender queues included; see ARCHITECTURE.md for the order of locks
	name string

	largest int // the most bytes that a chunk has; it stays as it is

	limit int // how much it takes before senders wait
	held  int // how much it has taken and not let go, see chunkSize
	bytes int // of these chunks
	count int // how many they are
	lent  int // chunks that are let go, and that readers of bytes have not read

	front    jobList            // what has come back; it goes out before all others
	ready    fifo[*senderQueue] // sender queues with chunks in line, in the order of their turns
	full     fifo[*senderQueue] // sender queues with chunks that wait for room, likewise
	demands  list.List          // of receivers that wait for a chunk, in the order in which they asked
	senders  list.List          // *senderQueue, of those who have the queue open; others may be in ready
	takers   int                // how many of them have asked for chunks
	untold   *list.Element      // the first of senders that has yet to be told what has become of the queue; nil: none has
	more     bool               // settle has left something
	post     func(resumer)      // see takeTurns
	mail     letter[resumer]    // guarded by the broker's mailbox
	over     *cause             // nothing can be sent any more
	void     bool               // and all that was here is gone
	emptied  bool               // it is over, and all were woken when nothing was left
	ceded    bool               // it is over, and hands its jobs over to another home
	homeAt   string             // what people call the broker of that
	moves    func()             // told then that there may be some; with mu held, must not block
	mover    *senderQueue       // who has lifted some since
	refused  *cause             // a client's queue: the same, but there may be chunks to receive
	link     carrier            // a client's queue: who takes chunks and brings others
	uses     int64              // how often somebody has opened it, or used it by text
	users    int                // OPENs of the text interface that nobody has closed
	moved    bool               // something came from another home: there may be more of them
	used     time.Time          // when it was last opened, closed, or used by text
	received int64              // chunks let go
	asked    bool               // somebody who has left has waited for a chunk
	made     bool               // somebody has made it, and is in payer
	payer    *account           // of the user whose session made it
	paid     int                // what it has been charged
	created  time.Time
	onEmpty  func()  // the registry's: it is over, and nothing is left; nil: nobody wants to know
	spare    jobList // what is not in use
	jobBook
	counter // of bytes taken and let go
	registration
}

// noLimit is for queues whose chunks are bounded elsewhere.
const noLimit = math.MaxInt

// A receiver gets a chunk, or none when the queue is over and has none, for each of
// its demands. take is called with the queue's mu held and must not block.
type receiver interface{ take(*job) }

// A carrier moves chunks between a client's queue and its broker. changed tells it,
// with the queue's mu held, that something has changed.
type carrier interface{ changed() }

// A senderQueue is one sender's part of a chunkQueue. Who makes it sets wake, user and
// receives.
type senderQueue struct {
	// wake tells the sender that some chunk was taken or the queue is over. It is
	// called with the queue's mu held and must not block.
	wake func()
	user *account // of a sender that is a session's

	chunks   jobList       // that the queue has not taken
	line     jobList       // that it has, and that nobody has got
	window   int           // size of all that is not confirmed, what is under way to a broker included
	unsure   int64         // bytes of the same
	pushed   int64         // chunks ever pushed
	settled  int64         // chunks ever taken, in order
	unkept   int           // chunks that the queue has taken and not committed
	handing  int           // jobs that it has handed over, and of which something is not committed
	arrived  fifo[int]     // lengths of chunks that are committed, and not confirmed because of those
	place    *list.Element // in senders; nil: not there
	receives bool          // its owner has also asked for chunks
	listed   bool          // it is in ready
	waits    bool          // it is in full
	over     *cause        // it was told that the queue is over: nothing that it sends is taken any more, also where that goes on
	left     bool          // nobody is there to be told any more
	worker
}

// leastChunk is what a chunk counts for at least, so that there can't be any number
// of small ones.
const leastChunk = 16

func chunkSize(c []byte) int { return max(len(c), leastChunk) }

func (j *job) size() int { return max(j.length(), leastChunk) }

// empty says that nothing of it is on its way, or waits for its turn.
func (l *senderQueue) empty() bool { return l.window == 0 && l.line.len() == 0 }

// largestChunk is what a log can take, and so what there may be in any queue.
const largestChunk = 1 << 30

func newChunkQueue(name string, limit, largest int, now time.Time) *chunkQueue {
	return &chunkQueue{name: name, limit: limit, largest: min(largest, largestChunk), created: now, used: now, jobBook: jobBook{room: limit}}
}

// attach brings someone who may send and receive.
func (s *chunkQueue) attach(l *senderQueue) {
	l.place = s.senders.PushBack(l)
	if l.receives {
		s.takers++
	}
	s.bill(l.user)
}

// carryBy has a client's queue's changes told to its carrier.
func (s *chunkQueue) carryBy(c carrier) { s.link = c }

// visit records that somebody opens the queue, or uses it by text.
func (s *chunkQueue) visit(now time.Time) {
	s.used = now
	s.uses++
}

// enterText counts an OPEN of the text interface, and leaveText its CLOSE.
func (s *chunkQueue) enterText(user *account) {
	s.users++
	s.bill(user)
}

func (s *chunkQueue) leaveText() { s.users-- }

// exit is detach of one who had it open.
func (s *chunkQueue) exit(l *senderQueue, now time.Time) {
	s.detach(l)
	s.used = now
	s.asked = s.asked || l.receives
}

// receives records whether the sender queue's owner may want chunks.
func (s *chunkQueue) receives(l *senderQueue, may bool) {
	if l.place != nil && may != l.receives {
		if s.takers--; may {
			s.takers += 2
		}
	}
	l.receives = may
}

// bill has the first to use the queue pay for what it holds.
func (s *chunkQueue) bill(user *account) {
	if s.made {
		return
	}
	s.made, s.payer = true, user
	if user != nil {
		user.queues.Add(1)
	}
}

// recheck settles after the payer got room.
func (s *chunkQueue) recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// takeTurns has settle do no more than some at once, and post have it go on; nil: it does all.
func (s *chunkQueue) takeTurns(post func(resumer)) { s.post = post }

// resume has settle go on.
func (s *chunkQueue) resume(time.Time) { s.recheck() }

func (s *chunkQueue) letter() *letter[resumer] { return &s.mail }

// detach ends a sender. What the queue has taken from it stays; the rest is dropped. What it
// has taken of the queue comes back.
func (s *chunkQueue) detach(l *senderQueue) {
	if l.place != nil {
		if s.untold == l.place {
			s.untold = l.place.Next()
		}
		s.senders.Remove(l.place)
		if l.place = nil; l.receives {
			s.takers--
		}
	}
	l.left, l.over = true, s.ended(l)
	l.chunks = jobList{}
	l.window, l.unsure = 0, 0
	s.leaveJobs(l, settleMost)
	if l.waits {
		l.waits = false
		s.full.remove(l)
	}
	s.settle()
}

// newJob makes one of a chunk.
func (s *chunkQueue) newJob(c []byte, t *terms) *job {
	if s.spare.len() == 0 {
		return &job{data: c, terms: t}
	}
	j := s.spare.pop()
	*j = job{data: c, terms: t}
	return j
}

// spareJobs is how many a queue keeps to use them again: the collector would have as much to do
// with them as with the chunks.
const spareJobs = 64

// reuse is for a job that nobody has any more.
func (s *chunkQueue) reuse(j *job) {
	if s.log == nil && s.spare.len() < spareJobs {
		j.data, j.terms = nil, nil
		s.spare.push(j)
	}
}

// push puts a chunk, which is the queue's from now on, into the sender's window.
func (s *chunkQueue) push(l *senderQueue, c []byte) { s.pushJob(l, s.newJob(c, nil)) }

// pushJob is push for a chunk of which the sender wants more.
func (s *chunkQueue) pushJob(l *senderQueue, j *job) {
	n := chunkSize(j.data)
	l.pushed++
	l.window += n
	l.unsure += int64(len(j.data))
	if s.full.len() == 0 && s.over == nil && s.link == nil && s.log == nil && s.hasRoom(n) && (s.payer == nil || n <= s.payer.room()) {
		s.put(l, j) // it is its turn
		s.settle()
		return
	}
	l.chunks.push(j)
	if !l.waits && s.link == nil {
		l.waits = true
		s.full.push(l)
	}
	s.settle()
}

// withdraw takes the last chunk back that was pushed and not taken.
func (s *chunkQueue) withdraw(l *senderQueue) {
	c := l.chunks.popLast().data
	l.pushed--
	l.window -= chunkSize(c)
	l.unsure -= int64(len(c))
	if l.chunks.len() == 0 {
		l.waits = false
		s.full.remove(l)
	}
	s.settle()
}

// carry takes the next chunk out of a client's sender queue, on its way to the broker, which
// confirms it.
func (s *chunkQueue) carry(l *senderQueue) *job { return l.chunks.pop() }

// confirm records that a sender's next chunk, which has n bytes, is taken.
func (s *chunkQueue) confirm(l *senderQueue, n int) {
	l.settled++
	l.window -= max(n, leastChunk)
	l.unsure -= int64(n)
	l.wake()
}

// refuse is for a client's queue to which nothing can be sent any more.
func (s *chunkQueue) refuse(l *senderQueue, why cause) {
	s.refused = &why
	l.chunks = jobList{}
	l.wake()
}

// settleMost is how much settle does before others have their turn: tens of thousands may
// have the queue open.
const settleMost = 256

// settle takes what there is room for, gives what there is to those who want it, and tells them
// when nothing comes any more: where that is much, the rest of it a little later.
func (s *chunkQueue) settle() {
	s.more = false
	for n := 0; s.admit() || s.serve() || s.tellOne() || s.toil(); n++ {
		if n == settleMost && s.post != nil {
			s.more = true
			s.post(s)
			return
		}
	}
	s.refill()
	if s.over != nil && s.remaining() == 0 && !s.emptied {
		s.emptied = true
		if s.onEmpty != nil {
			s.onEmpty()
		}
		s.untold = s.senders.Front()
		s.settle()
		return
	}
	if s.link != nil {
		s.link.changed()
	}
	if s.moves != nil {
		s.moves()
	}
}

// tellOne tells the next of those who have yet to learn that the queue is over, or that nothing
// is left in it. What they have sent, and the queue has not taken, is dropped.
func (s *chunkQueue) tellOne() bool {
	var l *senderQueue
	switch {
	case s.over == nil:
		return false
	case s.full.len() > 0: // the text interface has some who are not in senders
		l = s.full.pop()
		l.waits = false
	case s.void && s.uncommitted() > 0: // likewise; nothing will be
		if l = s.popUncommitted(); l == nil {
			return true
		}
	case s.untold == nil:
		return false
	default:
		l = s.untold.Value.(*senderQueue)
		if s.void && s.loseSome(l) {
			return true
		}
		s.untold = s.untold.Next()
	}
	l.chunks, l.over = jobList{}, s.over
	l.wake()
	return true
}

// admit takes the chunk whose turn it is, if it fits. A chunk of any size fits where
// nothing else is.
func (s *chunkQueue) admit() bool {
	if s.full.len() == 0 || s.over != nil {
		return false
	}
	l := *s.full.front()
	n := l.chunks.front().size()
	cost := s.costOf(l.chunks.front())
	if !s.hasRoom(n) {
		return false
	}
	if s.log != nil && s.disk.unsure > 0 && s.disk.unsure+n > s.limit {
		return false // until more is committed
	}
	if s.payer != nil && cost > s.payer.room() && !s.forgetOnce(cost) {
		if s.demands.Len() == 0 || !s.payer.lends(s, cost) {
			s.payer.await(s, cost)
			return false
		}
		s.payer.borrow(s, cost)
	}
	s.full.pop()
	j := l.chunks.pop()
	if l.waits = l.chunks.len() > 0; l.waits {
		s.full.push(l)
	}
	s.put(l, j)
	return true
}

// hasRoom says whether the queue holds so little that it takes n bytes more.
func (s *chunkQueue) hasRoom(n int) bool { return s.held == 0 || s.held+n <= s.room }

// lineUp puts a chunk that the queue has taken behind the others of its sender.
func (s *chunkQueue) lineUp(l *senderQueue, j *job) {
	l.line.push(j)
	if !l.listed {
		l.listed = true
		s.ready.push(l)
	}
}

func (s *chunkQueue) serve() bool {
	first := s.demands.Front()
	if first == nil {
		return s.uncount()
	}
	j := s.counted.front()
	if _, takes := first.Value.(jobDemand); takes && j == nil && s.counts() {
		return s.countNext()
	}
	if j == nil && !s.available() && s.over == nil {
		return false
	}
	s.demands.Remove(first)
	if j != nil {
		s.counted.pop()
	} else {
		j = s.next()
	}
	first.Value.(receiver).take(j)
	return true
}

// available says that the chunk whose turn it is can be handed out.
func (s *chunkQueue) available() bool {
	return s.inMemory() && (s.over != nil || s.noting.len() < mostUnwritten)
}

// inMemory says that the chunk whose turn it is is there, and in memory.
func (s *chunkQueue) inMemory() bool {
	if s.front.len() > 0 {
		return !s.front.front().rests
	}
	return s.disk.wanted.len() == 0 && (s.ready.len() > 0 || s.disk.line.len() > 0)
}

// next takes out the chunk whose turn it is, if there is one. It counts as held
// until it is released.
func (s *chunkQueue) next() *job {
	if !s.available() {
		return nil
	}
	return s.deliver(s.popInMemory(), noted{})
}

// popInMemory takes out the next of those chunks in memory that wait in turn.
func (s *chunkQueue) popInMemory() (j *job) {
	switch {
	case s.front.len() > 0:
		j = s.front.pop()
	case s.ready.len() > 0:
		l := s.ready.pop()
		j = l.line.pop()
		if l.listed = l.line.len() > 0; l.listed {
			s.ready.push(l)
		}
	default:
		j = s.disk.line.pop()
	}
	s.stay(-j.size())
	return j
}

// demand has the receiver get a chunk in its turn.
func (s *chunkQueue) demand(r receiver) *list.Element {
	d := s.ask(r)
	s.settle()
	return d
}

// ask is demand for one that is not ready yet; settle is the caller's.
func (s *chunkQueue) ask(r receiver) *list.Element { return s.demands.PushBack(r) }

// cancel withdraws a demand that has got nothing.
func (s *chunkQueue) cancel(d *list.Element) { s.demands.Remove(d) }

// arrive takes chunks that a client's connection has brought.
func (s *chunkQueue) arrive(chunks [][]byte) {
	for _, c := range chunks {
		j := s.newJob(c, nil)
		s.hold(j)
		s.front.push(j)
	}
	s.settle()
}

// discard drops the chunks that have arrived, which go back to the broker.
func (s *chunkQueue) discard() {
	for s.front.len() > 0 {
		s.drop(s.front.pop())
	}
}

func (s *chunkQueue) hold(j *job) {
	if s.void {
		return
	}
	s.bytes += j.length()
	s.count++
	s.charge(j.size())
}

func (s *chunkQueue) charge(n int) {
	s.held += n
	s.pay()
}

// pay has the payer pay for what the queue holds in memory.
func (s *chunkQueue) pay() {
	n := s.costs() - s.paid
	s.paid += n
	s.payer.charge(n)
	if n < 0 && s.paid == 0 {
		s.payer.repay(s)
	}
}

func (s *chunkQueue) drop(j *job) {
	if s.void {
		return
	}
	s.bytes -= j.length()
	s.count--
	s.charge(-j.size())
}

// release lets go of a chunk that its receiver has, and of the job. settle is the caller's.
func (s *chunkQueue) release(j *job) {
	if s.void {
		return
	}
	s.many[jobTaken]--
	if s.letGo(j); s.log != nil {
		s.note(jobOp{kind: opDone, id: j.id}, nil)
	}
	s.reuse(j)
}

// lend lets go of a chunk whose bytes a reader gets.
func (s *chunkQueue) lend(j *job) {
	s.many[jobTaken]--
	if s.drop(j); len(j.data) > 0 {
		s.lent++
	} else {
		s.note(jobOp{kind: opDone, id: j.id}, nil)
	}
}

// consumed records that a reader has all bytes of a chunk lent to it.
func (s *chunkQueue) consumed(j *job) {
	s.passed(0, int64(len(j.data)))
	s.lent--
	s.note(jobOp{kind: opDone, id: j.id}, nil)
}

// reclaim holds lent chunks again, but for the first n bytes, which a reader has. putBack
// follows.
func (s *chunkQueue) reclaim(chunks []*job, n int64) {
	if len(chunks) == 0 {
		return
	}
	chunks[0].data = chunks[0].data[n:]
	chunks[0].read += uint32(n)
	s.passed(0, n)
	s.lent -= len(chunks)
	s.many[jobTaken] += len(chunks)
	for _, j := range chunks {
		s.hold(j)
	}
}

// putBack returns chunks to the front. seen is how many of them, the first ones, somebody may
// have got; nobody has got the others.
func (s *chunkQueue) putBack(chunks []*job, seen int) {
	if s.void {
		return
	}
	s.again(s.comeBack(chunks, seen)...)
	s.settle()
}

// end lets nobody send any more. With keep set, what was taken can still be received.
func (s *chunkQueue) end(why cause, keep bool) {
	if s.over == nil {
		s.over = &why
		if s.payer != nil {
			s.payer.queues.Add(-1)
			s.payer.forget(s)
		}
	}
	s.untold = s.senders.Front()
	if !keep && !s.void {
		s.void = true
		s.front, s.ready = jobList{}, fifo[*senderQueue]{}
		s.disk = onDisk{}
		s.counted, s.counting, s.writing = jobList{}, 0, 0
		s.loseJobs()
		s.bytes, s.count = 0, 0
		s.charge(-s.held)
	}
	s.settle()
}

// tellEmpty has f called, with mu held, when it is over and nothing is left.
func (s *chunkQueue) tellEmpty(f func()) { s.onEmpty = f }

// unused says that nobody has the queue open.
func (s *chunkQueue) unused() bool { return s.users == 0 && s.senders.Len() == 0 }

// vain says that somebody has waited for a chunk, and that none ever came; nor is one
// waited for by text.
func (s *chunkQueue) vain() bool {
	return s.log == nil && s.asked && s.in == 0 && s.count == 0 && s.received == 0 && s.demands.Len() == 0
}

// idle is for how long nobody has had the queue open, or used it by text.
func (s *chunkQueue) idle(now time.Time) time.Duration {
	if s.senders.Len() > 0 || s.demands.Len() > 0 || s.full.len() > 0 || s.many[jobTaken] > 0 {
		return 0
	}
	return now.Sub(s.used)
}

// drained says that nobody is left who could want what there is, or that it is kept.
func (s *chunkQueue) drained() bool {
	return s.log != nil || s.remaining() == 0 || s.takers == 0
}
