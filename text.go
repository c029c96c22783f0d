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

// texts are the commands of one client, which are answered in the order in which
// they came. One is begun when those before it are answered, or when they are READs
// of the same queue, as it is.
type texts struct {
	session *session
	waiting fifo[*command]
	begun   int // of waiting
	lanes   map[string]*textLane
	over    bool // something was dropped, so nothing behind it may be taken
	many    int  // how many lanes there may be before they are looked through again
	posted  bool
}

// A textLane is one client's part of a queue. It is kept as long as there are chunks
// in it.
type textLane struct {
	lane
	store *store
}

// maxDemands is how many may wait for a queue for a READ by text to wait, too. A text
// client that has died shows only when it is sent something.
const maxDemands = 1 << 16

// maxTextLanes is from how many on those are looked for that are not needed any more.
const maxTextLanes = 64

type command struct {
	talk  *texts
	verb  string
	name  string
	chunk []byte // WRITE's
	size  int
	store *store

	asked   bool // whether the client may do that
	verdict *verdict

	answer [][]byte // nil: not yet

	// READ; guarded by the store's mu.
	demand *list.Element
	got    []byte
	over   bool

	// WRITE
	lane *textLane
	upTo int64 // it is done when so many chunks of the lane are taken
}

func (t *texts) flag() *bool { return &t.posted }

// handleText takes a message of several frames.
func (s *session) handleText(frames [][]byte, now time.Time) {
	s.heard = now
	if s.text == nil {
		s.text = &texts{session: s, lanes: make(map[string]*textLane)}
	}
	t := s.text
	if t.over {
		return
	}
	c := &command{talk: t, verb: string(frames[0])}
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
	if s.account.overloads(c.size) ||
		t.waiting.len() > 0 && (t.waiting.len() >= maxQueued || s.account.bytes+int64(c.size) > s.mayWait()) {
		s.violation("too much sent without waiting for answers")
		s.drop(cause{code: causeVanished}, nil)
		s.host.reply(s, []byte(textError), []byte("too much was sent without waiting for answers"))
		s.gone = true
		return
	}
	if c.verb == textClose {
		t.interrupt(c.name)
	}
	s.account.add(1, c.size)
	t.waiting.push(c)
	t.resume(now)
}

// resume begins and answers what can be.
func (t *texts) resume(now time.Time) {
	for t.waiting.len() > 0 {
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
func (t *texts) closes(name string) bool {
	return slices.ContainsFunc(t.waiting.all()[t.begun:], func(c *command) bool {
		return c.verb == textClose && c.name == name
	})
}

// interrupt fails the READs that wait on a queue.
func (t *texts) interrupt(name string) {
	for _, c := range t.waiting.all()[:t.begun] {
		if c.verb == textRead && c.name == name && c.answer == nil && c.cancel() {
			c.fail("the pipe was closed")
		}
	}
}

// drop forgets all commands. No chunk is lost by it.
func (t *texts) drop() {
	back := make(map[*store][][]byte)
	for t.waiting.len() > 0 {
		c := t.waiting.pop()
		t.session.account.add(-1, -c.size)
		c.verdict.forgo()
		if c.demand != nil && !c.cancel() && c.got != nil {
			back[c.store] = append(back[c.store], c.got)
		}
	}
	t.begun = 0
	for s, chunks := range back {
		s.mu.Lock()
		s.putBack(chunks)
		s.mu.Unlock()
	}
	for _, l := range t.lanes {
		l.store.mu.Lock()
		l.store.detach(&l.lane)
		l.store.mu.Unlock()
	}
	clear(t.lanes)
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
		c.asked, c.verdict = true, c.talk.session.host.allow(c.talk.session, c.name, op, c.talk)
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
	case c.store == nil:
		c.answer = [][]byte{[]byte(textOK)}
	}
}

// act is why the command can't be carried out.
func (c *command) act(now time.Time) *cause {
	pipes := c.talk.session.pipes
	switch c.verb {
	case textOpen:
		user := c.talk.session.account.above
		if why := user.refusal(); why != nil {
			return why
		}
		return pipes.use(c.name, true, now, func(s *store) *cause {
			s.users++
			s.bill(user)
			return nil
		})
	case textClose:
		return pipes.leaveText(c.name, now)
	case textRead:
		return pipes.use(c.name, false, now, func(s *store) *cause {
			if s.demands.Len() >= maxDemands {
				return &cause{causeAborted, "too many wait for this queue"}
			}
			c.store = s
			c.demand = s.demands.PushBack(c)
			s.settle()
			return nil
		})
	}
	return pipes.use(c.name, false, now, c.write) // WRITE
}

func (c *command) write(s *store) *cause {
	if len(c.chunk) > s.largest {
		return tooLarge(c.chunk, s.largest)
	}
	c.store = s
	c.lane = c.talk.lane(s)
	s.push(&c.lane.lane, c.chunk)
	c.upTo = c.lane.pushed
	return nil
}

// lane returns the client's lane of a queue, whose mu is held.
func (t *texts) lane(s *store) *textLane {
	l := t.lanes[s.name]
	if l == nil || l.store != s {
		l = &textLane{store: s}
		l.wake = func() { t.session.host.post(t) }
		t.lanes[s.name] = l
	}
	return l
}

// take is called by the store, from any goroutine.
func (c *command) take(chunk []byte) {
	c.got, c.over = chunk, chunk == nil
	c.talk.session.host.post(c.talk)
}

// finish sends the answer, if there is one.
func (c *command) finish() bool {
	session := c.talk.session
	if c.answer == nil {
		c.store.mu.Lock()
		switch {
		case c.lane != nil && c.lane.settled >= c.upTo:
			c.answer = [][]byte{[]byte(textOK)}
		case c.over || c.lane != nil && c.store.over != nil:
			c.fail(c.store.over.writeError().Error())
		case c.got != nil:
			c.answer = [][]byte{c.got}
		}
		c.store.mu.Unlock()
		if c.answer == nil {
			return false
		}
	}
	// Who has left need not be told anything, but what it wrote before is taken.
	if !session.host.reply(session, c.answer...) && (c.got != nil || session.presence != absent) {
		c.talk.drop() // nobody is there for the others' answers, either
		c.talk.over = session.presence == absent
		return false
	}
	if c.got != nil {
		c.store.mu.Lock()
		c.store.release(c.got)
		c.store.settle()
		c.store.mu.Unlock()
	}
	if c.lane != nil && len(c.talk.lanes) > max(maxTextLanes, c.talk.many) {
		c.talk.tidy()
	}
	return true
}

// cancel withdraws a READ; false: it has its chunk already.
func (c *command) cancel() bool {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.got != nil || c.over {
		return false
	}
	c.store.demands.Remove(c.demand)
	return true
}

// tidy forgets the lanes that are empty.
func (t *texts) tidy() {
	for name, l := range t.lanes {
		l.store.mu.Lock()
		if l.chunks.len() == 0 || l.store.over != nil {
			delete(t.lanes, name)
		}
		l.store.mu.Unlock()
	}
	t.many = 2 * len(t.lanes)
}
