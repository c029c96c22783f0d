package zpipes

import "time"

// A listenerEnd is a listener of a session's client.
type listenerEnd struct {
	channelEnd
	listener *listener
}

func (c *channel) openListener(name string, now time.Time) *cause {
	l, why := c.session.pipes.listen(name, c.session.who, now)
	if why == nil {
		c.open = &listenerEnd{channelEnd{c}, l}
	}
	return why
}

func (e *listenerEnd) leave(cause, uint32, bool) {
	e.channel.session.pipes.quit(e.listener, listenerClosed)
}

// listenerClosed is why an Accept fails whose listener is gone.
var listenerClosed = cause{causeBrokerGone, "the listener was closed"}

// A meeting is a DIAL or an ACCEPT: the open of both ends of one side of a connection, each
// on a channel. The reading end's is that of the request.
type meeting struct {
	in, out *channel
	counted bool       // its ends are, in the account
	duplex  *duplex    // of a DIAL
	accept  *accepting // of an ACCEPT
}

// A duplexSide is what the two ends have in common that a client has of a connection.
type duplexSide struct {
	duplex   *duplex
	accepts  bool // it is the accepting one
	shown    bool // its client is known to know of it
	undone   bool // it was taken back
	channels [2]*channel
	told     *Access // a dialler: who has accepted it, as its client knows
}

// meet is a DIAL or ACCEPT; false: it must wait.
func (c *channel) meet(q *request, now time.Time) bool {
	s, ok, failed := c.session, msgDialOK, msgDialFailed
	if q.id == msgAccept {
		ok, failed = msgAcceptOK, msgAcceptFailed
	}
	if q.meeting == nil {
		if c.open != nil || c.pledged || q.count == 0 || s.channels[q.count] != nil {
			c.violate("a DIAL or ACCEPT on a channel that is in use")
			return true
		}
		q.meeting = &meeting{in: c, out: &channel{session: s, number: q.count, pledged: true}}
		s.channels[q.count] = q.meeting.out
		if q.id == msgDial {
			q.verdict = s.host.allow(s, string(q.text), "dial", c)
		}
	}
	m := q.meeting
	why, given := q.verdict.get()
	switch {
	case !given:
		return false
	case why == nil && !m.counted:
		why = m.begin(q, now)
	}
	if why == nil {
		var done bool
		if why, done = m.meets(); !done {
			return false
		}
	}
	if why != nil {
		c.reply(failed, *why)
		return true // pop has it forgotten
	}
	q.meeting = nil
	r := c.open.(*streamReader)
	answer := message{id: ok, block: c.block(), channel: c.number, who: whoOf(unknownAccess)}
	if r.side.accepts {
		answer.who = whoOf(r.side.duplex.dialler)
	} else if r.side.told = r.side.duplex.accepted.Load(); r.side.told != nil {
		answer.who = whoOf(*r.side.told)
	}
	if s.able&ableHere == 0 {
		c.show() // nothing else will
	}
	s.send(&answer)
	return true
}

// begin counts the ends, and dials or accepts.
func (m *meeting) begin(q *request, now time.Time) (why *cause) {
	s := m.in.session
	whole := s.account.whole()
	whole.opening.Lock()
	defer whole.opening.Unlock()
	if why = s.account.refusal(2); why != nil {
		return s.pipes.counted(why)
	}
	if q.id == msgDial {
		m.duplex, why = s.pipes.dial(string(q.text), s.who, m.in.recheck, m.bring, now)
	} else if l := s.listener(q.size); l != nil {
		m.accept = s.pipes.accept(l, m.in.recheck)
	} else {
		why = &listenerClosed
	}
	if why == nil {
		m.counted = true
		s.account.addEnds(2)
	}
	return why
}

// listener is the one on that channel.
func (s *session) listener(number uint32) *listener {
	if c := s.channels[number]; c != nil {
		if e, ok := c.open.(*listenerEnd); ok {
			return e.listener
		}
	}
	return nil
}

// bring attaches the ends to a connection's pipes.
func (m *meeting) bring(in, out *pipe) {
	in.mu.Lock()
	in.propose(reader, m.in.recheck)
	in.mu.Unlock()
	out.mu.Lock()
	out.propose(writer, m.out.recheck)
	out.bill(&m.in.session.account)
	out.mu.Unlock()
}

// meets says what has become of it; without a cause, its channels have their ends then.
func (m *meeting) meets() (why *cause, done bool) {
	d, in, out, pipes := m.duplex, m.in, m.out, m.in.session.pipes
	if m.accept == nil {
		if why, done = pipes.dialled(d); why != nil || !done {
			return why, done
		}
		m.give(&duplexSide{duplex: d}, d.back, d.forth)
	} else {
		if d, why, done = pipes.enterAccepted(m.accept, m.bring); why != nil || !done {
			return why, done
		}
		m.give(&duplexSide{duplex: d, accepts: true}, d.forth, d.back)
	}
	in.known, out.known, out.pledged = false, false, false
	return nil, true
}

func (m *meeting) give(side *duplexSide, in, out *pipe) {
	side.channels = [2]*channel{m.in, m.out}
	r := &streamReader{streamEnd{channelEnd: channelEnd{m.in}, pipe: in, role: reader, side: side}}
	w := &streamWriter{streamEnd: streamEnd{channelEnd: channelEnd{m.out}, pipe: out, role: writer, side: side}}
	m.in.open, m.out.open = r, w
	for _, e := range []*streamEnd{&r.streamEnd, &w.streamEnd} {
		e.pipe.mu.Lock()
		if e.pipe.use == brokers {
			e.mayDetour()
		}
		e.pipe.mu.Unlock()
	}
}

// forgo takes back what has not been answered, or was refused.
func (m *meeting) forgo() {
	if m == nil {
		return
	}
	s, pipes := m.in.session, m.in.session.pipes
	if m.counted {
		s.account.addEnds(-2)
	}
	switch {
	case m.accept != nil:
		pipes.forgo(m.accept)
	case m.duplex != nil:
		d := m.duplex
		pipes.depart(d.forth, writer, cause{code: causeVanished})
		pipes.depart(d.back, reader, cause{code: causeVanished})
	}
	m.out.pledged = false
	m.out.tidy()
}

// depart has an end leave its pipe for good.
func (g *registry) depart(p *pipe, r role, why cause) {
	p.mu.Lock()
	p.mute(r)
	p.leave(r, why)
	p.mu.Unlock()
	g.release(p)
}

// show is called once the client is known to know of one of its ends: it knows of both.
func (s *duplexSide) show() {
	s.shown = true
	for _, c := range s.channels {
		if c.open != nil {
			c.known = true
			c.open.show()
		}
	}
}

// undo takes back both ends of one who accepts. What is left on the other channel must not
// come near the pipes again, which are somebody else's now.
func (s *duplexSide) undo() {
	if s.undone {
		return
	}
	s.undone = true
	s.channels[0].session.pipes.takeBack(s.duplex)
	for _, c := range s.channels {
		if s.has(c.open) {
			c.leave(cause{code: causeVanished}, 0)
			c.tidy()
		}
	}
}

// has says that it is an end of this side.
func (s *duplexSide) has(e openEnd) bool {
	switch e := e.(type) {
	case *streamReader:
		return e.side == s
	case *streamWriter:
		return e.side == s
	}
	return false
}

// never has the other end of a connection leave whose open was given up.
func (e *streamEnd) never() {
	if out := e.side.channels[1]; out.open != nil {
		out.leave(cause{code: causeNever}, 0)
		out.tidy()
	}
}

// tell tells a dialler who has accepted the connection.
func (e *streamEnd) tell() {
	s := e.side
	if s == nil || s.accepts {
		return
	}
	if who := s.duplex.accepted.Load(); who != nil && who != s.told {
		s.told = who
		c := e.channel
		c.session.send(&message{id: msgAccepted, block: c.block(), channel: c.number, who: whoOf(*who)})
	}
}
