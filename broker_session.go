//go:build cgo && !core

package zpipes

import (
	"bytes"
	"strings"
	"time"
)

func (b *Broker) dispatch(p *packet, now time.Time) {
	s := b.sessions[string(p.id)]
	connection, address := b.connection(p)
	if p.about == nil { // it was not asked for, since the session is sure
		connection = s.connection
	}
	if old := b.ended[string(p.id)]; old != nil && b.owns(old, connection) {
		return // something before it was dropped with the session, so it must not be taken
	}
	if s != nil && !b.owns(s, connection) {
		// Another connection has taken this routing id; it inherits nothing.
		b.forget(s)
		s = nil
	}
	if s == nil {
		who, err := b.admit(address)
		if err != nil {
			b.refuse(p, err)
			return
		}
		s = newSession(b, b.pipes, p.id, b.cfg.ClientTimeout, now)
		s.connection, s.peer, s.who = connection, address, who
		s.account.limits, s.account.above = b.cfg.PerClient, b.user(who.payer())
		b.sessions[string(p.id)] = s
		s.place = len(b.order)
		b.order = append(b.order, s)
		b.pipes.clients.Add(1)
	}
	if fd, told := p.about[descriptor]; told && s.socket == nil {
		n := findSocket(fd, s.who)
		s.socket = &n
		b.see(s)
	} else if connection == "" {
		s.presence = present // in this process
	} else if s.agreed && s.socket != nil {
		s.sure = true // it says more only when it has our answer to its first PING
	}
	if p.more != nil {
		s.handleText(append([][]byte{p.frame}, p.more...), now)
	} else {
		s.handle(p.frame, now)
	}
	if s.gone {
		b.forget(s)
	}
	b.dropLost()
}

// see asks the system whether a client's connection is there.
func (b *Broker) see(s *session) liveness {
	if p := s.socket.presence(); p == absent {
		b.leaves(s)
	} else {
		s.presence = p
	}
	return s.presence
}

// leaves notes that a client's connection is no more.
func (b *Broker) leaves(s *session) {
	if s.presence != absent && len(b.left) < maxEnded {
		b.left = append(b.left, s)
	}
	s.presence = absent
}

// asks says what to find out about a message from that routing id, so that it is known
// whose it is.
func (b *Broker) asks(id []byte) []string {
	s := b.sessions[string(id)]
	switch {
	case s != nil && s.sure && s.socket.presence() == present:
		return nil // nobody can have taken it
	case b.zap == nil:
		return []string{peerAddress, descriptor}
	case s != nil && (s.socket != nil || s.connection == ""):
		return []string{userID}
	}
	return []string{userID, descriptor}
}

// connection returns the name of the connection that a message came over, and the
// address of who is at the other end. In a context where the ZAP handler is not ours, the name
// is one that may come again.
func (b *Broker) connection(p *packet) (name, address string) {
	if b.zap != nil {
		name = p.about[userID]
		_, address, _ = strings.Cut(name, " ")
		return name, address
	}
	address = p.about[peerAddress]
	if fd, told := p.about[descriptor]; told {
		if address == "" { // it is not over inproc
			address = localPeer
		}
		name = fd + " " + address
	}
	return name, address
}

// owns says that a session is that connection's.
func (b *Broker) owns(s *session, connection string) bool {
	return s.connection == connection && (b.zap != nil || s.socket == nil || !s.socket.taken())
}

func (b *Broker) user(uid int) *account {
	a := b.users[uid]
	if a == nil {
		a = &account{whose: "user", limits: b.cfg.PerUser, post: b.post}
		b.users[uid] = a
	}
	return a
}

// admit says who a client is, and why it may not connect. It may be called from any
// goroutine.
func (b *Broker) admit(address string) (Access, error) {
	who, err := b.cfg.admit(address)
	if err == nil {
		return who, nil
	}
	now := time.Now()
	b.refusals.mu.Lock()
	defer b.refusals.mu.Unlock()
	if began, known := b.refusals.began[address]; !known || now.Sub(began) >= oneTry {
		if b.refusals.began == nil || len(b.refusals.began) >= maxTries {
			b.refusals.began = make(map[string]time.Time)
		}
		b.refusals.began[address] = now
		b.pipes.denied.Add(1)
	}
	b.log.warn("client refused", "why", err, "peer", address, "refusals", b.pipes.denied.Load())
	return who, err
}

// refuse answers a client that may not connect, if there is no ZAP handler.
func (b *Broker) refuse(p *packet, why error) {
	if p.more != nil {
		b.sock.send(p.id, []byte(textError), []byte(why.Error()))
		return
	}
	m, _ := parse(p.frame)
	answer := message{id: msgInvalid, block: m.block, code: causeDenied, cause: []byte(why.Error())}
	b.sock.send(p.id, answer.append(nil))
}

// forget drops what a session holds, and the session.
func (b *Broker) forget(s *session) {
	s.drop(cause{code: causeVanished}, nil)
	s.gone = true
	if b.sessions[string(s.id)] == s {
		delete(b.sessions, string(s.id))
		last := len(b.order) - 1
		b.order[s.place] = b.order[last]
		b.order[s.place].place = s.place
		b.order[last] = nil
		b.order = b.order[:last]
		b.pipes.clients.Add(-1)
	}
	delete(b.congested, s)
}

func (b *Broker) resumePosted(now time.Time) {
	for _, c := range b.posted.fetch(resumer.flag) {
		c.resume(now)
	}
}

// sweep looks for clients that are gone, or silent too long. However many they are, it
// takes little time.
func (b *Broker) sweep(now time.Time) {
	if now.Before(b.nextSweep) {
		return
	}
	if due := b.nextSweep; now.Sub(due) > minBeat {
		b.excuse(due, now)
	}
	all := len(b.order)
	b.nextSweep = now.Add(sweepEvery)
	if all > sweepMost {
		b.nextSweep = now.Add(max(sweepLeast, sweepEvery*sweepMost/time.Duration(all)))
	}
	for range min(all, sweepMost) {
		if b.swept >= len(b.order) {
			b.swept = 0
		}
		if s := b.order[b.swept]; b.look(s, now) {
			b.swept++
		} else {
			b.forget(s)
		}
	}
}

// excuse is for a broker that looks later than was due: what came meanwhile has yet to be
// received.
func (b *Broker) excuse(due, now time.Time) {
	for _, s := range b.order {
		beat := s.expiry / missedBeats
		s.heard = creditSilence(s.heard, due, now, beat)
		s.waited = creditSilence(s.waited, due, now, beat)
		s.lostAt = creditSilence(s.lostAt, due, now, minBeat)
	}
}

// look says whether a client may stay. One that has missed a beat gets a message unasked,
// since that finds out whether its connection is still there.
func (b *Broker) look(s *session, now time.Time) (stays bool) {
	ends, silent := len(s.channels), now.Sub(s.heard)
	if s.socket != nil && silent > min(lookAfter, s.expiry/missedBeats) {
		b.see(s)
	}
	if s.presence == absent {
		if s.lostAt.Before(s.heard) {
			s.lostAt = now
		}
		if now.Sub(s.lostAt) < lastWords {
			return true
		}
		b.expired(s, ends, "connection lost")
		return false
	}
	if s.expire(now) {
		b.expired(s, ends, "silent for "+silent.Round(time.Millisecond).String())
		return false
	}
	if s.agreed && silent > min(s.expiry/(missedBeats/2), b.cfg.ClientTimeout) {
		s.send(&message{id: msgPingOK, block: hasBlock}) // no version: unasked
	}
	return true
}

func (b *Broker) forgetQueues(now time.Time) {
	after := b.cfg.ForgetQueues
	if after == 0 || now.Before(b.forgetAt) {
		return
	}
	names, next := b.pipes.forget(b.forgetNext, after, now)
	for _, name := range names {
		b.log.info("abandoned queue deleted", "queue", name, "after", after)
	}
	if b.forgetNext = next; next == 0 {
		b.forgetAt = now.Add(max(after/8, sweepEvery))
	} else {
		b.forgetAt = now.Add(forgetPause)
	}
}

// expired records the loss of a client that had something open. One that had
// not has just gone.
func (b *Broker) expired(s *session, ends int, why string) {
	if ends > 0 {
		b.pipes.expired.Add(1)
		b.log.warn("client expired", "why", why, "ends", ends, "peer", s.peer)
	}
}

func (b *Broker) dropLost() {
	for _, s := range b.lost {
		b.expired(s, len(s.channels), "connection lost")
		b.forget(s)
	}
	b.lost = b.lost[:0]
}

// relieve tries to send what waits for clients that did not take more. However many
// they are, it leaves most of the time to the others.
func (b *Broker) relieve(now time.Time) {
	if len(b.congested) == 0 || now.Before(b.relieveAt) {
		return
	}
	began := time.Now()
	defer func() { b.relieveAt = now.Add(min(relieveShare*time.Since(began), sweepEvery)) }()
	for s := range b.congested {
		for len(s.backlog) > 0 {
			err := b.send(s, s.backlog[0])
			if err == errFull {
				break
			}
			if err != nil {
				b.end(s)
				break
			}
			s.backlogBytes -= frameBytes(s.backlog[0])
			s.backlog = s.backlog[1:]
		}
		if len(s.backlog) == 0 {
			s.backlog = nil
			delete(b.congested, s)
			for _, c := range s.channels {
				b.post(c)
			}
		}
	}
}

// What sessions need of the broker follows; see host.

func (b *Broker) reply(s *session, frames ...[]byte) bool {
	if s.gone {
		return false
	}
	if len(s.backlog) == 0 {
		switch b.send(s, frames) {
		case nil:
			return true
		case errFull:
			b.congested[s] = true
		default: // what it had sent before is still to be taken
			b.leaves(s)
			return false
		}
	}
	kept := make([][]byte, len(frames))
	for i, f := range frames {
		kept[i] = bytes.Clone(f)
	}
	s.backlog = append(s.backlog, kept)
	if s.backlogBytes += frameBytes(frames); s.backlogBytes-maxBacklog > b.cfg.MaxMessage || len(s.backlog) > maxBacklog/64 {
		b.violated(s, "the client does not take its answers")
		b.lost = append(b.lost, s)
	}
	return true
}

// end notes that a session's connection is no more.
func (b *Broker) end(s *session) {
	if len(b.ended) == maxEnded {
		clear(b.ended)
	}
	b.lost = append(b.lost, s)
	b.ended[string(s.id)] = s
}

func (b *Broker) send(s *session, frames [][]byte) error {
	looked := s.sure && s.heard.Equal(b.now) // in this round
	if s.socket != nil && !looked && b.see(s) == absent {
		return errGone // who has its routing id now is somebody else
	}
	if len(frames) == 1 {
		return b.sock.send(s.id, frames[0])
	}
	return b.sock.send(append([][]byte{s.id}, frames...)...)
}

func frameBytes(frames [][]byte) (n int) {
	for _, f := range frames {
		n += len(f)
	}
	return n
}

func (b *Broker) post(t resumer) {
	if b.posted.put(t, t.flag()) {
		b.sock.wake()
	}
}

func (b *Broker) alarm(c *channel) { b.alarms.set(c) }

func (b *Broker) violated(s *session, what string) {
	b.pipes.violations.Add(1)
	b.log.warn("protocol violation", "what", what, "peer", s.peer)
}

func (b *Broker) allow(s *session, pipe, op string, t resumer) *verdict {
	if b.cfg.Allow == nil {
		return nil
	}
	q := question{who: s.who, verdict: new(verdict)}
	q.who.Pipe, q.who.Op = pipe, op
	q.then = func() { b.judged(s.peer, q); b.post(t) }
	q.verdict.withdraw = b.gate.put(s, q)
	return q.verdict
}

// judged records a refusal.
func (b *Broker) judged(peer string, q question) {
	if why, _ := q.verdict.get(); why != nil {
		b.pipes.denied.Add(1)
		b.log.warn("request refused", "why", why.text, "op", q.who.Op, "pipe", q.who.Pipe, "peer", peer)
	}
}

func (b *Broker) newToken() uint64 { return b.tokens.Add(1) }
