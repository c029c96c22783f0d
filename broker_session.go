//go:build !core

package zpipes

import (
	"bytes"
	"strings"
	"time"
)

func (b *zmqHost) dispatch(p *packet, now time.Time) {
	s := b.known(p.id)
	connection, address := b.connection(p)
	if p.about == nil { // it is the session's
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
		s = newSession(b, b.pipes, bytes.Clone(p.id), b.cfg.ClientTimeout, now)
		s.connection, s.peer, s.who = connection, address, who
		s.account.limits, s.account.above = b.cfg.PerClient, b.user(who)
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
		s.receive(p.frame, p.lent, p.body, now)
	}
	if s.gone {
		b.forget(s)
	}
	b.dropLost()
}

// known is the session of a routing id, unless it is lost.
func (b *zmqHost) known(id []byte) *session {
	s := b.sessions[string(id)]
	if s != nil && s.lost {
		b.dropOne(s)
		return nil
	}
	return s
}

// see asks the system whether a client's connection is there, once in a round: for all
// that a message brings about, the answer holds. What is sent then goes to the connection
// that was there, or to nobody, unless in the rest of that round it ends, and another has
// been through its handshake with the routing id of the first.
func (b *zmqHost) see(s *session) liveness {
	if s.seen == b.round {
		return s.presence
	}
	s.seen = b.round
	if p := s.socket.presence(); p == absent {
		b.leaves(s)
	} else {
		s.presence = p
	}
	return s.presence
}

// leaves notes that a client's connection is no more.
func (b *zmqHost) leaves(s *session) {
	if s.presence != absent && len(b.left) < maxEnded {
		b.left = append(b.left, s)
	}
	s.presence = absent
}

// asks says what to find out about a message from that routing id, so that it is known
// whose it is. Where the ZAP handler is ours, each connection has a name of its own.
func (b *zmqHost) asks(id []byte) (known string, asked []string) {
	s := b.known(id)
	switch {
	case b.zap == nil && s != nil && s.sure && b.see(s) == present:
		return "", nil // nobody can have taken it
	case b.zap == nil:
		return "", []string{peerAddress, descriptor}
	case s != nil && (s.socket != nil || s.connection == ""):
		return s.connection, []string{userID}
	}
	return "", []string{userID, descriptor}
}

// connection returns the name of the connection that a message came over, and the
// address of who is at the other end. In a context where the ZAP handler is not ours, the name
// is one that may come again.
func (b *zmqHost) connection(p *packet) (name, address string) {
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
func (b *zmqHost) owns(s *session, connection string) bool {
	return s.connection == connection && (b.zap != nil || s.socket == nil || !s.socket.taken())
}

// refuse answers a client that may not connect, if there is no ZAP handler.
func (b *zmqHost) refuse(p *packet, why error) {
	if p.more != nil {
		b.sock.send(p.id, []byte(textError), []byte(why.Error()))
		return
	}
	m, _ := parse(p.frame)
	answer := message{id: msgInvalid, block: m.block, code: causeDenied, cause: []byte(why.Error())}
	b.sock.send(p.id, answer.append(nil))
}

// forget drops what a session holds, and the session.
func (b *zmqHost) forget(s *session) {
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

// sweep looks for clients that are gone, or silent too long. However many they are, it
// takes little time.
func (b *zmqHost) sweep(now time.Time) {
	if now.Before(b.nextSweep) {
		return
	}
	if b.unexcused == 0 && now.Sub(b.nextSweep) > minBeat {
		b.lateFrom, b.lateTo, b.unexcused = b.nextSweep, now, len(b.order)
	}
	if !b.excuse() {
		return
	}
	all := len(b.order)
	b.nextSweep = now.Add(sweepEvery)
	if all > sweepMost {
		b.nextSweep = now.Add(max(sweepLeast, sweepEvery*sweepMost/time.Duration(all)))
	}
	dropped := 0
	for range min(all, sweepMost) {
		if b.swept >= len(b.order) {
			b.swept = 0
		}
		s := b.order[b.swept]
		ends := len(s.channels)
		if b.look(s, now) {
			b.swept++
			continue
		}
		b.forget(s)
		if dropped += 1 + ends; dropped >= dropStep {
			b.nextSweep = now.Add(sweepLeast)
			return
		}
	}
}

// excuse is for a broker that looks later than was due: what came meanwhile has yet to be
// received. It goes from the last to the first, some at a time, so that nobody is left out
// when others go meanwhile, and says whether it is done.
func (b *zmqHost) excuse() (done bool) {
	for range min(b.unexcused, sweepMost) {
		if b.unexcused--; b.unexcused >= len(b.order) {
			continue
		}
		s := b.order[b.unexcused]
		beat := s.expiry / missedBeats
		s.heard = creditSilence(s.heard, b.lateFrom, b.lateTo, beat)
		s.waited = creditSilence(s.waited, b.lateFrom, b.lateTo, beat)
		s.lostAt = creditSilence(s.lostAt, b.lateFrom, b.lateTo, minBeat)
	}
	return b.unexcused == 0
}

// look says whether a client may stay. One that has missed a beat gets a message unasked,
// since that finds out whether its connection is still there.
func (b *zmqHost) look(s *session, now time.Time) (stays bool) {
	ends, silent := len(s.channels), now.Sub(s.heard)
	if s.who.Key != "" && b.keys.Load().mayUse(s.who.Key) != nil {
		b.expired(s, ends, "its key is not allowed any more")
		if s.agreed {
			s.end(hasBlock, "its key is not allowed any more")
		}
		return false
	}
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
	if s.who.Key != "" && s.silence(now) >= s.expiry {
		if heard := b.door.heardOf(s.socket); heard.After(s.heard) {
			s.heard = heard
		}
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

// lose has a session dropped soon.
func (b *zmqHost) lose(s *session) {
	if !s.lost {
		s.lost = true
		b.lost.push(s)
	}
}

// dropLost drops those who are lost, where they are many, some of them.
func (b *zmqHost) dropLost() {
	for dropped := 0; b.lost.len() > 0 && dropped < dropStep; {
		s := b.lost.pop()
		if dropped += 1 + len(s.channels); !s.gone {
			b.dropOne(s)
		}
	}
}

func (b *zmqHost) dropOne(s *session) {
	b.expired(s, len(s.channels), "connection lost")
	b.forget(s)
}

// relieve tries to send what waits for clients that did not take more: for some of them, as
// the map has it. However many they are, it leaves most of the time to the others.
func (b *zmqHost) relieve(now time.Time) {
	if len(b.congested) == 0 || now.Before(b.relieveAt) {
		return
	}
	began := time.Now()
	defer func() { b.relieveAt = now.Add(min(relieveShare*time.Since(began), sweepEvery)) }()
	tries := 0
	for s := range b.congested {
		if tries >= maxBurst {
			return
		}
		err := s.unload(maxBurst, func(frames [][]byte) error { tries++; return b.send(s, frames) })
		switch {
		case err == nil && len(s.backlog) == 0:
			delete(b.congested, s)
		case err == nil: // others have their turn
		case err != errFull:
			b.end(s)
		}
	}
}

// What sessions need of the broker follows; see host.

func (b *zmqHost) reply(s *session, frames ...[]byte) bool {
	if s.gone || s.lost {
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
	if s.keep(frames) {
		b.violated(s, "the client does not take its answers")
		b.lose(s)
	}
	return true
}

// end notes that a session's connection is no more.
func (b *zmqHost) end(s *session) {
	if len(b.ended) == maxEnded {
		clear(b.ended)
	}
	b.lose(s)
	b.ended[string(s.id)] = s
}

func (b *zmqHost) send(s *session, frames [][]byte) error {
	if s.socket != nil && b.see(s) == absent {
		return errGone // who has its routing id now is somebody else
	}
	if len(frames) == 1 {
		return b.sock.send(s.id, frames[0])
	}
	return b.sock.send(append([][]byte{s.id}, frames...)...)
}
