//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A sessionHost is what those have in common who host sessions (see host): a broker's
// socket of ZeroMQ, with many, and each peerConn, with one. It belongs to one goroutine,
// which calls all but post.
type sessionHost struct {
	*Broker
	wake   func() // has resume called soon
	posted mailbox[resumer]
	alarms alarms
}

// turnsAtOnce is how many run before the next message has its turn.
const turnsAtOnce = 256

func (h *sessionHost) post(t resumer) {
	if h.posted.put(t) {
		h.wake()
	}
}

func (h *sessionHost) alarm(c *channel) { h.alarms.set(c) }

// resume has those run who were posted, or whose time has come; where they are many, some
// of them, and the rest after the next message, if there is one.
func (h *sessionHost) resume(now time.Time) {
	if h.posted.each(turnsAtOnce, func(t resumer) { t.resume(now) }) {
		h.wake()
	}
	for range turnsAtOnce {
		c := h.alarms.due(now)
		if c == nil {
			break
		}
		c.resume(now)
	}
}

// finish has all of them run who were posted.
func (h *sessionHost) finish(now time.Time) {
	for h.posted.len() > 0 {
		h.posted.take().resume(now)
	}
}

// nextAlarm is t, or sooner, when there is an alarm; a zero t is never.
func (h *sessionHost) nextAlarm(t time.Time) time.Time {
	if h.alarms.len() > 0 && (t.IsZero() || h.alarms.first().alarm.at.Before(t)) {
		return h.alarms.first().alarm.at
	}
	return t
}

func (h *sessionHost) allow(s *session, pipe, op string, t resumer) *verdict {
	if h.cfg.Allow == nil || s.member != 0 { // there it was asked
		return nil
	}
	q := question{who: s.who, verdict: new(verdict)}
	q.who.Pipe, q.who.Op = pipe, op
	q.then = func() { h.judged(s.peer, q); h.post(t) }
	q.verdict.withdraw = h.gate.put(s, q)
	return q.verdict
}

// A door that can't let somebody in waits so long, and then longer, before it tries again.
const (
	leastPause = 5 * time.Millisecond
	mostPause  = time.Second
)

// acceptAll admits all who come to a door, until its listener is closed.
func acceptAll[C any](b *Broker, door, endpoint string, accept func() (C, error), admit func(C)) {
	for pause := leastPause; ; {
		c, err := accept()
		switch {
		case err == nil:
			pause = leastPause
			admit(c)
		case errors.Is(err, os.ErrClosed), errors.Is(err, net.ErrClosed):
			return
		default: // for want of descriptors, or memory
			b.log.warn("a client has to wait at the "+door+" door", "why", err, "endpoint", endpoint)
			select {
			case <-b.closing:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, mostPause)
		}
	}
}

// What follows may be called by any of them.

// user is the account of a user's clients together.
func (b *Broker) user(who Access) *account {
	return b.accountOf(user{who.payer(), who.Key})
}

func (b *Broker) accountOf(u user) *account {
	b.users.mu.Lock()
	defer b.users.mu.Unlock()
	a := b.users.accounts[u]
	if a == nil {
		if b.users.accounts == nil {
			b.users.accounts = make(map[user]*account)
		}
		a = &account{whose: "user", owner: u.String(), limits: b.cfg.PerUser, post: b.post}
		b.users.accounts[u] = a
	}
	return a
}

// A user is who has an account: a user of this machine, or a key.
type user struct {
	uid int
	key string
}

func (u user) String() string { return fmt.Sprint(u.uid, " ", u.key) }

// parseUser reads what String has written.
func parseUser(text string) (u user, ok bool) {
	uid, key, ok := strings.Cut(text, " ")
	n, err := strconv.Atoi(uid)
	return user{n, key}, ok && err == nil
}

// admit says who a client is, and why it may not connect. It may be called from any
// goroutine.
func (b *Broker) admit(address string) (Access, error) {
	who, err := b.cfg.admit(address)
	if err == nil && who.Key != "" {
		err = b.keys.Load().mayUse(who.Key)
	}
	if err != nil {
		b.refused(address, err)
	}
	return who, err
}

// refused records that a client may not connect.
func (b *Broker) refused(address string, why error) {
	now := time.Now()
	b.refusals.mu.Lock()
	defer b.refusals.mu.Unlock()
	try := address + " " + why.Error()
	if began, known := b.refusals.began[try]; !known || now.Sub(began) >= oneTry {
		if b.refusals.began == nil || len(b.refusals.began) >= maxTries {
			b.refusals.began = make(map[string]time.Time)
		}
		b.refusals.began[try] = now
		b.pipes.denied.Add(1)
	}
	b.log.warn("client refused", "why", why, "peer", address, "refusals", b.pipes.denied.Load())
}

func (b *Broker) violated(s *session, what string) {
	b.pipes.violations.Add(1)
	b.log.warn("protocol violation", "what", what, "peer", s.peer)
}

// judged records a refusal.
func (b *Broker) judged(peer string, q question) {
	if why, _ := q.verdict.get(); why != nil {
		b.pipes.denied.Add(1)
		b.log.warn("request refused", "why", why.text, "op", q.who.Op, "pipe", q.who.Pipe, "peer", peer)
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

func (b *Broker) newToken() uint64 { return b.tokens.Add(1) }
