package zpipes

import (
	"container/list"
	"slices"
	"time"
)

// The text interface of zbroker 0.1: messages of several frames, of which the first
// is a command. What is opened by text is a queue, and belongs to nobody: any client
// may use it, and close it.
const (
	textOpen  = "OPEN"
	textRead  = "READ"
	textWrite = "WRITE"
	textClose = "CLOSE"
	textOK    = "OK"
	textError = "ERROR"
)

// maxFrames is how many are kept of a message beside its first: more than any command has.
const maxFrames = 4

// A textSession has the commands of one client, which are answered in the order in which
// they came. One is begun when those before it are answered, or when they are READs
// of the same queue, as it is.
type textSession struct {
	session *session
	waiting fifo[*command]
	begun   int // of waiting
	senders map[string]*textSender
	over    bool // something was dropped, so nothing behind it may be taken
	many    int  // how many senders there may be before they are looked through again
	mail    letter[resumer]
}

// A textSender is one client's part of a queue. It is kept as long as there are chunks
// in it.
type textSender struct {
	senderQueue
	queue *chunkQueue
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
	chunk []byte // WRITE's
	size  int
	queue *chunkQueue

	asked   bool // whether the client may do that
	verdict *verdict

	answer [][]byte // nil: not yet

	// READ; guarded by the queue's mu.
	demand *list.Element
	got    *job
	over   bool

	// WRITE
	sender *textSender
	upTo   int64 // it is done when so many of the sender's chunks are taken
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
	operands := 1
	if c.verb == textWrite {
		operands = 2
	}
	switch {
	case c.verb != textOpen && c.verb != textRead && c.verb != textWrite && c.verb != textClose:
		c.fail("a command is OPEN, READ, WRITE or CLOSE")
	case len(frames) != 1+operands && c.verb == textWrite:
		c.fail("WRITE has a name and a chunk behind it")
	case len(frames) != 1+operands:
		c.fail(c.verb + " has a name behind it")
	default:
		c.name = string(frames[1])
		if operands == 2 {
			c.chunk = frames[2]
		}
	}
	if t.waiting.len() > 0 && (t.waiting.len() >= maxQueued || s.account.bytes+int64(c.size) > s.mayWait()) ||
		!s.account.take(c.size) {
		s.violation("too much sent without waiting for answers")
		s.drop(cause{code: causeVanished}, nil)
		s.host.reply(s, []byte(textError), []byte("too much was sent without waiting for answers"))
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
		if t.begun > 0 && c.finish() {
			t.waiting.pop()
			t.begun--
			t.session.account.add(-1, -c.size)
			continue
		}
		if t.begun == t.waiting.len() {
			return
		}
		next := t.waiting.all()[t.begun]
		if t.begun > 0 && (next.verb != textRead || c.verb != textRead || next.name != c.name) {
			return
		}
		if next.answer == nil && !next.judged() {
			return
		}
		t.begun++
		if next.answer == nil {
			next.begin(now)
		}
		if next.verb == textRead && t.closes(next.name) {
			t.interrupt(next.name)
		}
	}
}

// closes says that a CLOSE of that queue waits.
func (t *textSession) closes(name string) bool {
	return slices.ContainsFunc(t.waiting.all()[t.begun:], func(c *command) bool {
		return c.verb == textClose && c.name == name
	})
}

// interrupt fails the READs that wait on a queue.
func (t *textSession) interrupt(name string) {
	for _, c := range t.waiting.all()[:t.begun] {
		if c.verb == textRead && c.name == name && c.answer == nil && c.cancel() {
			c.fail("the pipe was closed")
		}
	}
}

// drop forgets all commands. No chunk is lost by it.
func (t *textSession) drop() {
	back := make(map[*chunkQueue][]*job)
	for t.waiting.len() > 0 {
		c := t.waiting.pop()
		t.session.account.add(-1, -c.size)
		c.verdict.forgo()
		if c.demand != nil && !c.cancel() && c.got != nil {
			back[c.queue] = append(back[c.queue], c.got)
		}
	}
	t.begun = 0
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
	return given
}

// begin does what the command says, as far as it can be done now.
func (c *command) begin(now time.Time) {
	why, _ := c.verdict.get()
	if why == nil {
		why = c.act(now)
	}
	switch {
	case why != nil && why.code == causeAborted:
		c.fail(why.text)
	case why != nil:
		c.fail(why.openError().Error())
	case c.queue == nil:
		c.answer = [][]byte{[]byte(textOK)}
	}
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
	case textRead:
		return pipes.use(c.name, false, now, func(s *chunkQueue) *cause {
			if s.demands.Len() >= maxDemands {
				return &cause{causeAborted, "too many wait for this queue"}
			}
			c.queue = s
			c.demand = s.ask(c)
			s.settle()
			return nil
		})
	}
	return pipes.use(c.name, false, now, c.write) // WRITE
}

func (c *command) write(s *chunkQueue) *cause {
	if len(c.chunk) > s.largest {
		return tooLarge(c.chunk, s.largest)
	}
	c.queue = s
	c.sender = c.text.sender(s)
	s.push(&c.sender.senderQueue, c.chunk)
	c.upTo = c.sender.pushed
	return nil
}

// sender returns the client's part of a queue, whose mu is held.
func (t *textSession) sender(s *chunkQueue) *textSender {
	l := t.senders[s.name]
	if l == nil || l.queue != s {
		l = &textSender{senderQueue{wake: func() { t.session.host.post(t) }}, s}
		t.senders[s.name] = l
	}
	return l
}

// take is called by the queue, from any goroutine.
func (c *command) take(j *job) {
	c.got, c.over = j, j == nil
	c.text.session.host.post(c.text)
}

// finish sends the answer, if there is one.
func (c *command) finish() bool {
	session := c.text.session
	if c.answer == nil {
		c.queue.mu.Lock()
		switch {
		case c.sender != nil && c.sender.settled >= c.upTo:
			c.answer = [][]byte{[]byte(textOK)}
		case c.over || c.sender != nil && c.queue.over != nil:
			c.fail(c.queue.over.writeError().Error())
		case c.got != nil:
			c.answer = [][]byte{c.got.data}
		}
		c.queue.mu.Unlock()
		if c.answer == nil {
			return false
		}
	}
	// Who has left need not be told anything, but what it wrote before is taken.
	if !session.host.reply(session, c.answer...) && (c.got != nil || session.presence != absent) {
		c.text.drop() // nobody is there for the others' answers, either
		c.text.over = session.presence == absent
		return false
	}
	if c.got != nil {
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

// cancel withdraws a READ; false: it has its chunk already.
func (c *command) cancel() bool {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	if c.got != nil || c.over {
		return false
	}
	c.queue.cancel(c.demand)
	return true
}

// tidy forgets the senders that have no chunks.
func (t *textSession) tidy() {
	for name, l := range t.senders {
		l.queue.mu.Lock()
		if l.empty() || l.queue.over != nil {
			delete(t.senders, name)
		}
		l.queue.mu.Unlock()
	}
	t.many = 2 * len(t.senders)
}
