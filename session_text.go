package zpipes

import (
	"container/list"
	"slices"
	"strconv"
	"time"
)

// The text interface of zbroker 0.1: messages of several frames, of which the first
// is a command. What is opened by text is a queue, and belongs to nobody: any client
// may use it, and close it.
const (
	textOpen   = "OPEN"
	textRead   = "READ"
	textWrite  = "WRITE"
	textClose  = "CLOSE"
	textTake   = "TAKE"
	textDone   = "DONE"
	textReturn = "RETURN"
	textExtend = "EXTEND"
	textOK     = "OK"
	textError  = "ERROR"
)

// textOperands says how many frames follow a command, at least and at most, and what they are.
var textOperands = map[string]struct {
	least, most int
	what        string
}{
	textOpen: {1, 1, "a name"}, textRead: {1, 1, "a name"}, textClose: {1, 1, "a name"}, textTake: {1, 1, "a name"},
	textWrite:  {2, 2, "a name and a chunk"},
	textDone:   {2, 2, "a name and a job's id"},
	textReturn: {2, 3, "a name, a job's id and, for a delay, milliseconds"},
	textExtend: {2, 3, "a name, a job's id and perhaps milliseconds"},
}

// maxFrames is how many are kept of a message beside its first: more than any command has.
const maxFrames = 4

// A textSession has the commands of one client, which are answered in the order in which
// they came. One is begun when those before it are answered; or when they are READs, or TAKEs,
// of the same queue, as it is; or if it says what becomes of a job, since what they wait for may
// depend on that.
type textSession struct {
	session *session
	waiting fifo[*command]
	begun   int // of waiting
	senders map[string]*textSender
	far     map[memberID]*farText
	homes   map[string]memberID // where queues were that are not here
	over    bool                // something was dropped, so nothing behind it may be taken
	many    int                 // how many senders there may be before they are looked through again
	mail    letter[resumer]
}

// A textSender is one client's part of a queue. It is kept as long as there are chunks
// in it, or it has jobs.
type textSender struct {
	senderQueue
	queue *chunkQueue
	takes int   // TAKEs that wait
	said  int64 // DONEs and RETURNs
}

// maxDemands is how many may wait for a queue for a READ by text to wait, too. A text
// client that has died shows only when it is sent something.
const maxDemands = 1 << 16

// maxTextSenders is from how many on those are looked for that are not needed any more.
const maxTextSenders = 64

type command struct {
	text  *textSession
	verb  string
	name  string
	rest  [][]byte // what follows the name
	size  int
	queue *chunkQueue

	asked   bool // whether the client may do that
	verdict *verdict
	inquiry *inquiry // where its queue is, if it is not here
	far     *farText // it was passed on; nil: it was not, or is to be once more
	job     []byte   // that it has got there
	// settling is what it settles, where the client has that at another broker; of a READ, what it has got there.
	settling wireJob

	answer [][]byte // nil: not yet
	code   causeCode

	closed bool // of a READ or TAKE: a CLOSE of its queue has come behind it

	// READ and TAKE; guarded by the queue's mu.
	demand *list.Element
	got    *job
	over   *cause // nothing comes any more

	// All but READ
	sender *textSender
	upTo   int64 // it is done when so many of the sender's chunks are taken, or of its acts committed
}

func (t *textSession) letter() *letter[resumer] { return &t.mail }

// handleText takes a message of several frames.
func (s *session) handleText(frames [][]byte, now time.Time) {
	s.heard = now
	if s.text == nil {
		s.text = &textSession{session: s, senders: make(map[string]*textSender)}
	}
	t := s.text
	if t.over {
		return
	}
	c := &command{text: t, verb: string(frames[0])}
	for _, f := range frames {
		c.size += len(f)
	}
	switch operands, known := textOperands[c.verb]; {
	case !known:
		c.fail("a command is OPEN, READ, WRITE, CLOSE, TAKE, DONE, RETURN or EXTEND")
	case len(frames)-1 < operands.least || len(frames)-1 > operands.most:
		c.fail(c.verb + " has " + operands.what + " behind it")
	default:
		c.name, c.rest = string(frames[1]), frames[2:]
	}
	most := maxQueued
	if s.member != 0 { // each READ of a client's is two commands here
		most *= 2
	}
	if t.waiting.len() > 0 && (t.waiting.len() >= most || s.account.bytes+int64(c.size) > s.mayWait()) ||
		!s.account.take(c.size) {
		s.violation("too much sent without waiting for answers")
		s.drop(cause{code: causeVanished}, nil)
		s.replyText(0, [][]byte{[]byte(textError), []byte("too much was sent without waiting for answers")})
		s.gone = true
		return
	}
	if c.verb == textClose {
		t.interrupt(c.name)
	}
	t.waiting.push(c)
	t.resume(now)
}

// resume begins and answers what can be, as channel.run does.
func (t *textSession) resume(now time.Time) {
	for n := 0; t.waiting.len() > 0; n++ {
		if n == maxBurst {
			t.session.host.post(t)
			return
		}
		c := *t.waiting.front()
		if t.begun > 0 && c.finish(now) {
			t.waiting.pop()
			c.inquiry.forgo()
			t.begun--
			t.session.account.add(-1, -c.size)
			continue
		}
		if t.begun == t.waiting.len() {
			return
		}
		next := t.waiting.all()[t.begun]
		if t.begun > 0 && !next.settles() && (!next.receives() || next.verb != c.verb || next.name != c.name) {
			return
		}
		if next.answer == nil && !(next.judged() && next.begin(now)) {
			return
		}
		t.begun++
		if next.closed {
			t.failClosed()
		}
	}
}

// interrupt fails the READs and TAKEs that wait on a queue, and those that come to wait on it.
func (t *textSession) interrupt(name string) {
	for _, c := range t.waiting.all() {
		c.closed = c.closed || c.receives() && c.name == name
	}
	t.failClosed()
}

// failClosed fails those of them that have begun.
func (t *textSession) failClosed() {
	var told *farText
	for _, c := range t.waiting.all()[:t.begun] {
		switch {
		case !c.closed || c.answer != nil:
		case c.far != nil:
			if c.far != told {
				told = c.far
				told.interrupt(c.name)
			}
		case c.queue == nil || c.cancel():
			c.fail("the pipe was closed")
		}
	}
}

// drop forgets all commands. No chunk is lost by it.
func (t *textSession) drop() {
	back := make(map[*chunkQueue][]*job)
	var taken []*command
	for t.waiting.len() > 0 {
		c := t.waiting.pop()
		t.session.account.add(-1, -c.size)
		c.verdict.forgo()
		c.inquiry.forgo()
		switch {
		case c.demand == nil || c.cancel() || c.got == nil:
		case c.verb == textTake:
			taken = append(taken, c)
		default:
			back[c.queue] = append(back[c.queue], c.got)
		}
	}
	t.begun = 0
	for _, c := range slices.Backward(taken) { // each goes before all others
		c.unseen()
	}
	for s, chunks := range back {
		s.mu.Lock()
		s.putBack(chunks, 0)
		s.mu.Unlock()
	}
	for _, l := range t.senders {
		l.queue.mu.Lock()
		l.queue.detach(&l.senderQueue)
		l.queue.mu.Unlock()
	}
	clear(t.senders)
	for _, f := range t.far {
		f.passed = fifo[*command]{} // what has lost its way is for nobody
		f.tunnel.close()
	}
	clear(t.far)
}

func (c *command) fail(reason string) {
	c.answer = [][]byte{[]byte(textError), []byte(reason)}
}

// judged says whether it is clear whether the client may do that.
func (c *command) judged() bool {
	if !c.asked {
		op := "queue"
		if c.verb == textClose {
			op = "delete"
		}
		c.asked, c.verdict = true, c.text.session.host.allow(c.text.session, c.name, op, c.text)
	}
	_, given := c.verdict.get()
	return given && (c.inquiry == nil || c.inquiry.given.Load())
}

// begin does what the command says, as far as it can be done now; false: where its queue is has yet to
// be found out.
func (c *command) begin(now time.Time) bool {
	why, _ := c.verdict.get()
	if why == nil {
		why = c.act(now)
	}
	if why == &causeResigned && c.text.session.member != 0 {
		why = &causeIsAway // as for an open
	}
	if why == &causeIsAway {
		var passed bool
		if passed, why = c.elsewhere(); why == nil {
			return passed
		}
	}
	switch {
	case why == &causeIsAway:
		c.code = causeElsewhere
		c.fail(why.text)
	case why != nil && why.code == causeAborted:
		c.fail(why.text)
	case why != nil:
		c.fail(why.openError().Error())
	case c.queue == nil && c.far == nil:
		c.answer = [][]byte{[]byte(textOK)}
	}
	return true
}

// act is why the command can't be carried out.
func (c *command) act(now time.Time) *cause {
	pipes := c.text.session.pipes
	switch c.verb {
	case textOpen:
		user := c.text.session.account.above
		if user != nil {
			user.opening.Lock()
			defer user.opening.Unlock()
		}
		if why := user.refusal(1); why != nil {
			return why
		}
		return pipes.use(c.name, true, now, func(s *chunkQueue) *cause {
			s.enterText(user)
			return nil
		})
	case textClose:
		return pipes.leaveText(c.name, now)
	case textRead, textTake:
		return pipes.use(c.name, false, now, c.receive)
	case textWrite:
		return pipes.use(c.name, false, now, c.write)
	}
	return c.settleWhere(now)
}

// receives says that it waits for a chunk.
func (c *command) receives() bool { return c.verb == textRead || c.verb == textTake }

func (c *command) receive(s *chunkQueue) *cause {
	if s.demands.Len() >= maxDemands {
		return &cause{causeAborted, "too many wait for this queue"}
	}
	if c.queue = s; c.verb == textTake {
		c.sender = c.text.sender(s)
		c.sender.takes++
		c.demand = s.askJob(c)
	} else {
		c.demand = s.ask(c)
	}
	s.settle()
	return nil
}

func (c *command) write(s *chunkQueue) *cause {
	chunk := c.rest[0]
	if len(chunk) > s.largest {
		return tooLarge(chunk, s.largest)
	}
	c.queue = s
	c.sender = c.text.sender(s)
	s.renew(&c.sender.senderQueue)
	s.push(&c.sender.senderQueue, chunk)
	c.upTo = c.sender.pushed
	return nil
}

// sender returns the client's part of a queue, whose mu is held.
func (t *textSession) sender(s *chunkQueue) *textSender {
	l := t.senders[s.name]
	if l == nil || l.queue != s {
		l = &textSender{queue: s, senderQueue: senderQueue{
			wake:   func() { t.session.host.post(t) },
			worker: worker{lost: func(uint64, uint32) {}}, // which it learns when it says what becomes of the job
		}}
		t.senders[s.name] = l
	}
	return l
}

// take is called by the queue, from any goroutine.
func (c *command) take(j *job) {
	if c.verb == textTake {
		c.takeJob(j)
	} else {
		c.got = j
	}
	if j == nil {
		c.over = c.queue.over
	}
	c.text.session.host.post(c.text)
}

// finish sends the answer, if there is one.
func (c *command) finish(now time.Time) bool {
	session := c.text.session
	switch {
	case c.answer != nil:
	case c.far != nil:
		return false
	case c.queue == nil: // it was passed on, and the queue is not there
		if !c.judged() || !c.begin(now) {
			return false
		}
		if c.closed {
			c.text.failClosed()
		}
		if c.answer == nil {
			return c.far == nil && c.finish(now)
		}
	default:
		c.queue.mu.Lock()
		c.conclude()
		c.queue.mu.Unlock()
		if c.answer == nil {
			return false
		}
	}
	// Who has left need not be told anything, but what it wrote before is taken.
	if !session.replyText(c.code, c.answer) && (c.got != nil || c.job != nil || session.presence != absent) {
		c.text.drop() // nobody is there for the others' answers, either
		c.text.over = session.presence == absent
		return false
	}
	if c.far != nil {
		c.far.got(c)
		c.far.rest()
	}
	if c.verb != textExtend || string(c.answer[0]) == textError { // which says that it is not the client's
		c.text.settled(c.settling)
	}
	if c.got != nil && c.verb == textRead {
		c.queue.mu.Lock()
		c.queue.release(c.got)
		c.queue.settle()
		c.queue.mu.Unlock()
	}
	if c.sender != nil && len(c.text.senders) > max(maxTextSenders, c.text.many) {
		c.text.tidy()
	}
	return true
}

// conclude answers if it is clear how. The queue's mu is held.
func (c *command) conclude() {
	s := c.queue
	switch {
	case c.got != nil && c.verb == textTake:
		c.answer = [][]byte{[]byte(jobID(s.incarnation, c.got.id)), strconv.AppendUint(nil, uint64(c.got.deliveries), 10), c.got.data}
	case c.got != nil:
		c.answer = [][]byte{c.got.data}
	case c.over != nil:
		c.fail(c.over.writeError().Error())
	case c.verb == textWrite && c.sender.settled >= c.upTo, c.settles() && c.sender.acts >= c.upTo:
		c.answer = [][]byte{[]byte(textOK)}
	case s.void:
		c.fail(s.over.writeError().Error())
	case c.verb == textWrite && s.ended(&c.sender.senderQueue) != nil && !s.committing(&c.sender.senderQueue):
		c.fail(s.ended(&c.sender.senderQueue).writeError().Error())
	}
}

// cancel withdraws a READ or TAKE; false: it has its chunk already.
func (c *command) cancel() bool {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	if c.got != nil || c.over != nil {
		return false
	}
	if c.queue.cancel(c.demand); c.sender != nil {
		c.sender.takes--
	}
	return true
}

// tidy forgets the senders that have neither chunks nor jobs.
func (t *textSession) tidy() {
	for name, l := range t.senders {
		l.queue.mu.Lock()
		if l.empty() && !l.works() || l.queue.void {
			delete(t.senders, name)
		}
		l.queue.mu.Unlock()
	}
	t.many = 2 * len(t.senders)
}
