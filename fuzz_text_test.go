package zpipes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzText has three clients of the text interface send any commands in any order, and
// compares what they hear, and what the broker has then, with a plain model. Each
// command must be answered once and in order; a queue's users and chunks must be those
// that the answers tell of; no chunk may come twice, unless it was returned, nor from another
// queue or, to the same client from the same client, out of order; who says something of a job
// must be believed if it has it, and else not; and nobody may wait for what is there. Each step of
// the input is two bytes: who does what to which queue, and how large a chunk is, or which job.
func FuzzText(f *testing.F) {
	do := func(verb, client, queue, size int) []byte {
		return []byte{byte(verb<<5 | queue<<2 | client), byte(size)}
	}
	script := func(steps ...[]byte) {
		var all []byte
		for _, s := range steps {
			all = append(all, s...)
		}
		f.Add(all)
	}
	const a, b, c = 0, 1, 2
	script(do(textIsOpen, a, 0, 0), do(textIsWrite, a, 0, 3), do(textIsOpen, b, 0, 0), do(textIsRead, b, 0, 0),
		do(textIsRead, b, 0, 0), do(textIsRead, c, 0, 0), do(textIsWrite, a, 0, 9), do(textIsClose, b, 0, 0),
		do(textIsClose, a, 0, 0), do(textIsClose, a, 0, 0))
	script(do(textIsOpen, a, 1, 0), do(textIsWrite, a, 1, 120), do(textIsWrite, a, 1, 120), do(textIsWrite, b, 1, 120),
		do(textIsWrite, a, 1, 0), do(textIsRead, c, 1, 0), do(textIsRead, c, 1, 0), do(textIsRead, c, 1, 0), do(textIsRead, c, 1, 0))
	script(do(textIsOpen, a, 0, 0), do(textIsWrite, a, 0, 110), do(textIsWrite, b, 0, 110), do(textIsGone, b, 0, 0),
		do(textIsRead, b, 0, 0), do(textIsRead, a, 0, 0), do(textIsGone, a, 0, 0), do(textIsWrite, c, 0, 5))
	script(do(textIsOpen, a, 0, 0), do(textIsRead, a, 0, 0), do(textIsWrite, b, 0, 4),
		do(textIsOdd, a, 0, 1), do(textIsOdd, b, 4, 2), do(textIsOpen, b, 5, 0), do(textIsClose, a, 3, 0))
	script(do(textIsOpen, a, 0, 0), do(textIsWrite, a, 0, 3), do(textIsWrite, b, 0, 4), do(textIsTake, a, 0, 0), do(textIsTake, b, 0, 0),
		do(textIsTake, a, 0, 0), do(textIsSays, a, 0, textReturns), do(textIsSays, a, 0, textDones), do(textIsSays, b, 0, textDones),
		do(textIsSays, b, 0, textDones), do(textIsTake, c, 0, 0), do(textIsGone, a, 0, 0), do(textIsRead, b, 0, 0), do(textIsClose, c, 0, 0))
	script(do(textIsOpen, a, 0, 0), do(textIsWrite, a, 0, 200), do(textIsTake, a, 0, 0), do(textIsWrite, a, 0, 5), do(textIsSays, a, 0, textDones),
		do(textIsTake, a, 0, 0), do(textIsTake, a, 0, 0), do(textIsSays, a, 0, textExtends), do(textIsSays, a, 0, textReturns),
		do(textIsSays, c, 0, textDones), do(textIsClose, b, 0, 0), do(textIsSays, a, 0, textDones))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newTextModel(t)
		for i := 0; i+1 < min(len(data), maxQueued); i += 2 {
			m.step(data[i], data[i+1])
		}
		m.end()
	})
}

// What a step does; it is the upper three bits of the first byte.
const (
	textIsOpen = iota
	textIsWrite
	textIsRead
	textIsClose
	textIsOdd  // sends what is no command
	textIsGone // is lost
	textIsTake
	textIsSays // what becomes of a job
)

// What that is, by the size's remainder; how many threes are in it says of which job.
const (
	textDones = iota
	textReturns
	textExtends
)

// textNames are the queues, then the name of a stream, and what is no name.
var textNames = []string{"q", "r", "s", "t", "stream", "", "\x00", strings.Repeat("n", maxString+1)}

const textStream = 4

// A textModel is what a broker looks like to who only sees its answers.
type textModel struct {
	*stage
	clients []*textClient
	queues  map[string]*textQueue
	deleted map[string]*textQueue // in this step
	serial  int
	from    map[string]*session // who sent a chunk
	back    map[string]bool     // chunks that were given back, which need not be in order
	latest  map[textFlow]int    // the number of the last one
}

// A textFlow is what comes from one client to another through a queue.
type textFlow struct {
	from, to *session
	queue    string
}

type textQueue struct {
	users int
	there map[string]bool // the chunks that are in it for sure
	maybe map[string]bool // and those that may be
}

type textClient struct {
	*caller
	asked []textCommand // without an answer
	jobs  []textJob     // that it has, and has said nothing of
	past  []textJob
}

type textJob struct{ id, name, chunk string }

type textCommand struct {
	verb, name, chunk string
	size              int
	job               textJob
	has               bool // it had that job
	came              bool // the chunk has been read
	stale             bool // the queue was deleted in the meantime, with or without it
}

func newTextModel(t *testing.T) *textModel {
	m := &textModel{
		stage: newStage(t), queues: make(map[string]*textQueue), deleted: make(map[string]*textQueue),
		from: make(map[string]*session), back: make(map[string]bool), latest: make(map[textFlow]int),
	}
	m.base().input(textNames[textStream]).gets("INPUT_OK")
	for range 3 {
		m.clients = append(m.clients, &textClient{caller: m.call()})
	}
	return m
}

func (m *textModel) step(op, size byte) {
	c := m.clients[op%4%3]
	name := textNames[op>>2%8]
	switch op >> 5 {
	case textIsOpen:
		m.say(c, textCommand{verb: textOpen, name: name})
	case textIsWrite:
		m.serial++
		chunk := fmt.Sprintf("#%d", m.serial)
		chunk += strings.Repeat(".", max(0, 5*int(size)-len(chunk)))
		m.say(c, textCommand{verb: textWrite, name: name, chunk: chunk, size: len(chunk)})
	case textIsRead:
		m.say(c, textCommand{verb: textRead, name: name})
	case textIsClose:
		m.say(c, textCommand{verb: textClose, name: name})
	case textIsOdd:
		odd := [][]string{{"DANCE", name}, {textOpen, name, name}, {textWrite, name}, {textRead, name, "", ""}, {"", ""}}
		m.say(c, textCommand{}, odd[int(size)%len(odd)]...)
	case textIsGone:
		m.lose(c)
	case textIsTake:
		m.say(c, textCommand{verb: textTake, name: name})
	case textIsSays:
		m.settle(c, name, int(size))
	}
	m.compare()
}

// settle has a client say something of a job that it has, or had, in that queue.
func (m *textModel) settle(c *textClient, name string, n int) {
	cmd := textCommand{verb: []string{textDone, textReturn, textExtend}[n%3], name: name, job: textJob{id: "1-1", name: name}}
	jobs := slices.Concat(c.jobs, c.past)
	jobs = slices.DeleteFunc(jobs, func(j textJob) bool { return j.name != name })
	if n /= 3; n < len(jobs) {
		cmd.job = jobs[n]
	}
	is := func(j textJob) bool { return j == cmd.job }
	if cmd.has = slices.ContainsFunc(c.jobs, is); cmd.has && cmd.verb != textExtend {
		c.jobs = slices.DeleteFunc(c.jobs, is)
		if c.past = append(c.past, cmd.job); len(c.past) > 8 {
			c.past = c.past[1:]
		}
		m.back[cmd.job.chunk] = true
		m.queues[name].maybe[cmd.job.chunk] = true
	}
	m.say(c, cmd, cmd.verb, name, cmd.job.id)
}

func (m *textModel) say(c *textClient, cmd textCommand, frames ...string) {
	if frames == nil {
		frames = []string{cmd.verb, cmd.name}
	}
	if cmd.verb == textWrite {
		frames = append(frames, cmd.chunk)
	}
	c.asked = append(c.asked, cmd)
	m.from[cmd.chunk] = c.session
	c.text(frames...)
	m.listen()
}

// lose has a client vanish, whose commands have no answer then.
func (m *textModel) lose(c *textClient) {
	c.gone()
	c.asked = nil
	for _, j := range c.jobs {
		m.back[j.chunk] = true
		m.queues[j.name].there[j.chunk] = true
	}
	c.jobs, c.past = nil, nil
	c.connect()
	c.texts = true
	m.listen()
}

// listen takes the answers in the order in which they were given. OPEN and CLOSE act
// when they are answered, but a chunk may be read before the WRITE of it is answered.
func (m *textModel) listen() {
	for _, who := range m.texted {
		for _, c := range m.clients {
			if c.caller != who {
				continue
			}
			line := c.lines[0]
			c.lines = c.lines[1:]
			if len(c.asked) == 0 {
				m.t.Fatalf("an answer to nothing: %.40q", line)
			}
			cmd := c.asked[0]
			c.asked = c.asked[1:]
			m.answered(c, cmd, line)
		}
	}
	m.texted = nil
}

func (m *textModel) answered(c *textClient, cmd textCommand, line string) {
	failed := strings.HasPrefix(line, textError+" ")
	if cmd.verb != textRead && cmd.verb != textTake && !failed && line != textOK {
		m.t.Fatalf("%s is answered %.40q", cmd.verb, line)
	}
	q := m.queues[cmd.name]
	switch cmd.verb {
	case "":
		if !failed {
			m.t.Fatalf("what is no command is answered %.40q", line)
		}
	case textOpen:
		if good := m.isQueue(cmd.name); failed == good {
			m.t.Fatalf("OPEN %.9q is answered %q", cmd.name, line)
		} else if good && q == nil {
			q = &textQueue{there: make(map[string]bool), maybe: make(map[string]bool)}
			m.queues[cmd.name] = q
		}
		if !failed {
			q.users++
		}
	case textClose:
		if good := q != nil; failed == good {
			m.t.Fatalf("CLOSE %.9q is answered %q", cmd.name, line)
		} else if good {
			if q.users--; q.users == 0 {
				m.delete(cmd.name)
			}
		}
	case textWrite:
		switch {
		case failed:
		case cmd.size > stagePending || !m.isQueue(cmd.name):
			m.t.Fatalf("WRITE %.9q of %d bytes is answered OK", cmd.name, cmd.size)
		case cmd.came:
		case cmd.stale && q != nil:
			q.maybe[cmd.chunk] = true
		case q != nil:
			q.there[cmd.chunk] = true
		}
	case textRead:
		if !failed {
			m.came(c, cmd.name, line)
		}
	case textTake:
		if !failed {
			m.took(c, cmd, line)
		}
	default:
		m.said(cmd, q, failed)
	}
}

// took is for a job that was taken.
func (m *textModel) took(c *textClient, cmd textCommand, line string) {
	words := strings.SplitN(line, " ", 3)
	if len(words) != 3 {
		m.t.Fatalf("TAKE is answered %.40q", line)
	}
	m.came(c, cmd.name, words[2])
	if !cmd.stale {
		c.jobs = append(c.jobs, textJob{words[0], cmd.name, words[2]})
	}
}

// said is for what was said of a job. One that is returned may have come to another one by now.
func (m *textModel) said(cmd textCommand, q *textQueue, failed bool) {
	if cmd.stale {
		return
	}
	if failed == cmd.has {
		m.t.Fatalf("%s %s is answered with an error: %v", cmd.verb, cmd.job.id, failed)
	}
	if !failed && q.maybe[cmd.job.chunk] && cmd.verb != textExtend {
		delete(q.maybe, cmd.job.chunk)
		if cmd.verb == textReturn {
			q.there[cmd.job.chunk] = true
		}
	}
}

func (m *textModel) isQueue(name string) bool {
	return checkPipeName(name) == nil && name != textNames[textStream]
}

// delete is for a queue that is no more. A chunk whose WRITE waits was dropped with it,
// or will go into the next queue of that name; and one that was there may have been read
// before, which is told later.
func (m *textModel) delete(name string) {
	m.deleted[name] = m.queues[name]
	delete(m.queues, name)
	for _, c := range m.clients {
		for i := range c.asked {
			if c.asked[i].name == name {
				c.asked[i].stale = true
			}
		}
		c.jobs = slices.DeleteFunc(c.jobs, func(j textJob) bool { return j.name == name })
	}
}

// came wants a chunk that was read to be one that was there, or on its way, and behind
// those that this client had from the same sender.
func (m *textModel) came(c *textClient, name, chunk string) {
	n := 0
	flow := textFlow{m.from[chunk], c.session, name}
	if fmt.Sscanf(chunk, "#%d", &n); !m.back[chunk] {
		if n <= m.latest[flow] {
			m.t.Fatalf("chunk %d of %q comes after %d", n, name, m.latest[flow])
		}
		m.latest[flow] = n
	}
	for _, q := range []*textQueue{m.queues[name], m.deleted[name]} {
		if q == nil {
			continue
		}
		for _, chunks := range []map[string]bool{q.there, q.maybe} {
			if chunks[chunk] {
				delete(chunks, chunk)
				return
			}
		}
	}
	for _, sender := range m.clients {
		for i := range sender.asked {
			if cmd := &sender.asked[i]; cmd.verb == textWrite && cmd.name == name && cmd.chunk == chunk && !cmd.came {
				cmd.came = true
				return
			}
		}
	}
	m.t.Fatalf("%.20q of %q comes from nowhere, or twice", chunk, name)
}

// compare wants the broker to have what the model has.
func (m *textModel) compare() {
	clear(m.deleted)
	for name, s := range m.pipes.queues() {
		checkSums(m.t, s)
		q := m.queues[name]
		if q == nil {
			m.t.Fatalf("queue %q should not be there", name)
		}
		if s.users != q.users {
			m.t.Fatalf("queue %q has %d users, want %d", name, s.users, q.users)
		}
		least := len(q.there)
		for _, c := range m.clients {
			for _, j := range c.jobs {
				if j.name == name {
					least++
				}
			}
		}
		most := least + len(q.maybe)
		if s.count < least || s.count > most {
			m.t.Fatalf("queue %q has %d chunks, want %d to %d", name, s.count, least, most)
		}
		if s.demands.Len() > 0 && s.available() {
			m.t.Fatalf("queue %q has chunks, and %d wait for one", name, s.demands.Len())
		}
	}
	for name := range m.queues {
		if m.pipes.queues()[name] == nil {
			m.t.Fatalf("queue %q should be there", name)
		}
	}
	for _, c := range m.clients {
		if len(c.asked) > 0 && !m.waits(c.asked[0]) {
			m.t.Fatalf("%s %.9q has no answer", c.asked[0].verb, c.asked[0].name)
		}
	}
}

// waits says that a command has a reason to wait: there is no chunk, or there is no
// room for the one whose turn it is.
func (m *textModel) waits(cmd textCommand) bool {
	s := m.pipes.queues()[cmd.name]
	switch {
	case s == nil:
		return false
	case cmd.verb == textRead, cmd.verb == textTake:
		return !s.available()
	case cmd.verb != textWrite || s.full.len() == 0:
		return false
	}
	l := *s.full.front()
	return s.held > 0 && s.held+l.chunks.front().size() > s.limit
}

// end lets all clients go, and closes what they left open: that is all there was.
func (m *textModel) end() {
	for _, c := range m.clients {
		m.lose(c)
	}
	c := m.clients[0]
	for name, q := range maps.Clone(m.queues) {
		for range q.users {
			m.say(c, textCommand{verb: textClose, name: name})
		}
	}
	m.compare()
	if len(m.queues) > 0 {
		m.t.Errorf("%d queues are left", len(m.queues))
	}
	m.sawViolations(0)
	m.leavesNothing()
}
