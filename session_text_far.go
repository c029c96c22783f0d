package zpipes

import (
	"encoding/binary"
	"fmt"
)

// A farText is what a session's commands by text have at another broker, where their queues are. They
// go there by a tunnel of their own, which is a client there: if this one dies, that one does, too.
type farText struct {
	text   *textSession
	to     memberID
	tunnel *tunnel
	passed fifo[*command] // that are not answered, in order; nil: nobody wants to know
	// jobs are those that the client has, and which delivery of each. One whose lease has ended there counts until the
	// client says what becomes of it: nobody tells.
	jobs map[jobName]uint32
	uses bool // it counts as a user of the tunnel
}

type jobName struct{ incarnation, id uint64 }

// mostFarJobs is of how many jobs it is known that they are there; of more, the home knows alone.
const mostFarJobs = 1 << 14

// mostHomes is of how many queues it is remembered where they were.
const mostHomes = 1024

// elsewhere is for a command whose queue is not here: it is passed on, or why says why it fails. With
// neither, it goes on when it is known where the queue is.
func (c *command) elsewhere() (passed bool, why *cause) {
	t, i := c.text, c.inquiry
	switch {
	case t.session.member != 0: // it is for that broker to look for it
		return false, &causeIsAway
	case i == nil && t.homes[c.name] != 0:
		return c.pass(t.homes[c.name])
	case i == nil:
		c.inquiry = t.session.pipes.exchange.inquire(c.name, c.verb == textOpen, func() { t.session.host.post(t) })
	case i.why != nil:
		return false, i.why
	case i.at != 0:
		if t.homes == nil || len(t.homes) == mostHomes {
			t.homes = make(map[string]memberID)
		}
		t.homes[c.name] = i.at
		return c.pass(i.at)
	default: // it was here, just now
		i.again()
	}
	return false, nil
}

// pass passes the command on. A READ is a TAKE there, and a DONE when the client has got its answer: so nothing
// is lost where it has gone meanwhile.
func (c *command) pass(to memberID) (passed bool, why *cause) {
	f, verb := c.text.farAt(to), c.verb
	if verb == textRead {
		verb = textTake
	}
	if c.verb == textWrite {
		f.tunnel.mu.Lock()
		most := f.tunnel.most
		f.tunnel.mu.Unlock()
		if n := len(c.rest[0]); most > 0 && n > most {
			return false, tooLarge(c.rest[0], most)
		}
	}
	c.far = f
	f.send(c, append([][]byte{[]byte(verb), []byte(c.name)}, c.rest...)...)
	return true, nil
}

// farAt is what the session has at that broker.
func (t *textSession) farAt(to memberID) *farText {
	if f := t.far[to]; f != nil && (f.uses || f.tunnel.join()) {
		f.uses = true
		return f
	}
	if t.far == nil {
		t.far = make(map[memberID]*farText)
	}
	f := &farText{text: t, to: to, jobs: make(map[jobName]uint32), uses: true}
	f.tunnel = &tunnel{session: t.session, to: to, users: 1, text: f}
	t.far[to] = f
	t.session.host.(tunneler).dig(f.tunnel, to)
	return f
}

// send sends a command, whose answer is c's.
func (f *farText) send(c *command, frames ...[]byte) {
	f.passed.push(c)
	f.tunnel.send(&message{id: msgText, chunk: packFrames(frames), block: hasBlock})
}

// interrupt has the READs and TAKEs that wait on a queue answered.
func (f *farText) interrupt(name string) {
	f.tunnel.send(&message{id: msgText, mode: textInterrupt, chunk: packFrames([][]byte{[]byte(name)}), block: hasBlock})
}

// answered takes the next answer.
func (f *farText) answered(m *message) {
	frames, ok := unpackFrames(m.chunk)
	if m.id != msgTextAnswer || f.passed.len() == 0 {
		return
	}
	c := f.passed.pop()
	defer f.rest()
	switch {
	case c == nil:
		return
	case m.code == causeElsewhere: // the queue is not there any more
		c.again()
	case !ok || len(frames) == 0:
		c.fail("what the queue's broker has answered can't be read")
	case c.receives() && len(frames) == 3:
		c.job, c.answer = frames[0], frames
		job := f.holds(c.job, frames[1])
		if c.verb == textRead {
			c.answer, c.settling = frames[2:], job
		}
	default:
		c.answer = frames
	}
	f.text.session.host.post(f.text)
}

// again has the command begin anew, where its queue is by now.
func (c *command) again() {
	c.far = nil
	delete(c.text.homes, c.name)
	if c.inquiry == nil {
		c.elsewhere()
	} else {
		c.inquiry.again()
	}
}

// holds says that the client has that delivery of a job.
func (f *farText) holds(job, deliveries []byte) (ref wireJob) {
	ref, ok := parseJobID(string(job) + "." + string(deliveries))
	if !ok {
		return wireJob{}
	}
	if len(f.jobs) == mostFarJobs {
		for any := range f.jobs {
			delete(f.jobs, any)
			break
		}
	}
	f.jobs[ref.name()] = ref.delivery
	return ref
}

func (ref wireJob) name() jobName { return jobName{ref.incarnation, ref.id} }

// settled says that the client does not have that delivery of a job any more.
func (t *textSession) settled(ref wireJob) {
	for _, f := range t.far {
		if n := f.jobs[ref.name()]; n > 0 && n == ref.delivery {
			delete(f.jobs, ref.name())
			f.rest()
		}
	}
}

// got says that the client has the answer to a READ, if c is one.
func (f *farText) got(c *command) {
	if c.verb == textRead && c.job != nil {
		f.send(nil, []byte(textDone), []byte(c.name), c.job)
	}
}

// rest is a user of the tunnel less, where the client has nothing there.
func (f *farText) rest() {
	if f.uses && f.passed.len() == 0 && len(f.jobs) == 0 {
		f.uses = false
		f.tunnel.leaves()
	}
}

// lost is called when the tunnel is no more. What has come to nobody, or does no harm if it comes twice, begins anew; of the
// rest nobody knows. (An OPEN that was counted before its answer was lost has the queue stay behind the last CLOSE.)
func (f *farText) lost(why cause) {
	if f.text.far[f.to] == f {
		delete(f.text.far, f.to)
	}
	f.tunnel.mu.Lock()
	begun := f.tunnel.most > 0
	f.tunnel.mu.Unlock()
	for tooLarge := why.code == causeAborted; f.passed.len() > 0; tooLarge = false { // the first one's answer was
		switch c := f.passed.pop(); {
		case c == nil:
		case why.code == causeMode, tooLarge:
			c.fail(why.text)
		case !begun || c.receives() || c.verb == textOpen:
			c.again()
		default:
			c.fail(fmt.Sprint("the answer was lost: ", why.text))
		}
	}
	clear(f.jobs)
	f.text.session.host.post(f.text)
}

// holder is who has the job that a command is about, where that is not the queue's home any more, or not this
// broker: its queue here, or another broker.
func (c *command) holder(ref wireJob) (s *chunkQueue, at memberID) {
	t := c.text
	if l := t.senders[c.name]; l != nil {
		l.queue.mu.Lock()
		has := l.queue.incarnation == ref.incarnation && l.queue.ceded && !l.queue.void && l.has.n > 0
		l.queue.mu.Unlock()
		if has {
			return l.queue, 0
		}
	}
	for to, f := range t.far {
		if n := f.jobs[ref.name()]; n > 0 {
			if c.settling == (wireJob{}) { // else the client may have got it again meanwhile
				if c.settling = ref; ref.delivery == 0 {
					c.settling.delivery = n
				}
			}
			return nil, to
		}
	}
	return nil, 0
}

// What follows is the other broker's.

// textPassed takes a command that another broker has passed on.
func (s *session) textPassed(m *message) (why string) {
	frames, ok := unpackFrames(m.chunk)
	switch {
	case s.able&ableText == 0:
		return "a TEXT that is not another broker's"
	case !ok || len(frames) == 0:
		return "a TEXT that is cut short"
	case m.mode == textInterrupt && s.text != nil:
		s.text.interrupt(string(frames[0]))
		s.text.resume(s.heard)
	case m.mode == textAsks:
		s.handleText(frames, s.heard)
	}
	return ""
}

// replyText sends the answer of a command, and says whether the client can still get it.
func (s *session) replyText(code causeCode, frames [][]byte) bool {
	if s.member == 0 {
		return s.host.reply(s, frames...)
	}
	answer := message{id: msgTextAnswer, block: hasBlock, code: code, chunk: packFrames(frames)}
	return s.host.reply(s, answer.append(nil))
}

// packFrames makes a chunk of frames, each with its length before it.
func packFrames(frames [][]byte) (chunk []byte) {
	for _, f := range frames {
		chunk = binary.BigEndian.AppendUint32(chunk, uint32(len(f)))
		chunk = append(chunk, f...)
	}
	return chunk
}

// unpackFrames is packFrames back. The frames have memory of their own.
func unpackFrames(chunk []byte) (frames [][]byte, ok bool) {
	f := fields{rest: append([]byte(nil), chunk...)}
	for len(f.rest) > 0 && !f.short && len(frames) <= maxFrames {
		frames = append(frames, f.bytes(f.uint32()))
	}
	return frames, !f.short && len(f.rest) == 0
}
