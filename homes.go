package zpipes

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// homes knows where the queues of a cluster are. Each has a home: one broker, which has its jobs.
// Who wants to open a queue is told which one that is. Where there is none, the broker claims to be
// it, and is as soon as all who should know have heard of it, and of nobody else before. Of several who claim it at the
// same time, one is the first in the end: others who are not the best (homeOf) take their claim back.
//
// Where brokers can't reach each other there may be two homes, one on each side. When they hear
// of each other, one of them cedes: it hands its jobs over. Which one, homeOf says, which is the
// same at all who have heard the same.
//
// It is a plain state machine, and belongs to the exchange's owner.
type homes struct {
	self  memberID
	host  homesHost
	names map[string]*home
	// resigned: this broker ends, and is the home of no more queues.
	resigned bool
}

// A homesHost is around homes. It does not call back before it has returned.
type homesHost interface {
	// offer tells others that the queue is here, or is claimed; withdraw takes that back.
	offer(name string, k homeKind) (token uint64)
	withdraw(token uint64)
	// release is withdraw where another one will offer it, and it is there meanwhile.
	release(token uint64)
	// seek has f called with those who offer it, this broker among them once all who should know
	// of it do; and at each change, until stop.
	seek(name string, f func(now time.Time, all []offering)) (stop func())
	// missing says that some broker is out of reach, and may have what nobody offers. At its end f is
	// called again where nobody does.
	missing() bool
	// begin makes the queue, if it is not here.
	begin(name string, now time.Time) *cause
	// cede has the queue here give all that it has to that member; keep has it be as it was before.
	cede(name string, to memberID)
	keep(name string)
	// reaches says that there is a link to a member.
	reaches(m memberID) bool
	describe(m memberID) string
	patience() time.Duration
	// soon has f called after retryWay.
	soon(now time.Time, f func(now time.Time))
}

// A home is what is known of where one queue is.
type home struct {
	*homes
	name   string
	state  homeState
	stop   func()     // ends the search
	heard  bool       // it has said who offers it
	all    []offering // who does
	token  uint64     // of this broker's offer; 0: it makes none
	kind   homeKind   // of the queue here
	at     memberID   // to whom it is ceded
	heirOf memberID   // who has handed it over to this broker as it ended; 0: nobody
	doubt  memberID   // who has said that it is not there, or this broker, if it was not here
	asks   []*inquiry // that wait
	looks  bool       // soon was called
}

type homeState byte

const (
	homeElsewhere homeState = iota // or nowhere
	homeClaimed                    // it is here, if nobody was faster
	homeHere
	homeCeded // the queue is here, and hands its jobs over
)

// A homeKind says what a queue is good for. It is the upper half of its offer's token.
type homeKind byte

const (
	inMemory homeKind = iota // it is in memory alone
	isDurable
	isUnread // it is on a disk from which it can't be read
)

const (
	memoryHome = 1 << 63
	unreadHome = 1<<64 - 1<<32
)

// token makes one of a random number.
func (k homeKind) token(random uint64) uint64 {
	random |= 1
	switch k {
	case isDurable:
		return random &^ memoryHome
	case isUnread:
		return random | unreadHome
	}
	return random&^(1<<32) | memoryHome
}

func kindOf(token uint64) homeKind {
	switch {
	case token&memoryHome == 0:
		return isDurable
	case token&unreadHome == unreadHome:
		return isUnread
	}
	return inMemory
}

// rank is the lower, the better a home is that kind of queue.
func (k homeKind) rank() int {
	switch k {
	case isDurable:
		return 0
	case isUnread:
		return 2
	}
	return 1
}

// homeOf is which of those that offer a queue is its home. A durable one is it before others: they
// may not be able to keep what it keeps. Of those in memory it is one who was first. One that can't be read is it
// where there is no other, so that whoever opens it learns why.
func homeOf(all []offering) (best offering, ok bool) {
	rank := func(o offering) int {
		k := kindOf(o.token)
		r := 2 * k.rank()
		if k == inMemory && !o.first {
			r++
		}
		return r
	}
	for _, o := range all {
		if x, y := rank(o), rank(best); !ok || x < y || x == y && o.token < best.token {
			best, ok = o, true
		}
	}
	return best, ok
}

const (
	// overdue is for how much longer than the patience an inquiry waits.
	overdue = 5 * time.Second
	// briefly is for how long one does that is brief, at least: it is looked at as others are. Those who know of all that
	// there is have an answer, which is waited for on a busy machine, too: for surely.
	briefly = 100 * time.Millisecond
	surely  = 2 * time.Second
)

// An inquiry asks where a queue is.
type inquiry struct {
	name   string
	create bool   // it is to be made where there is none
	brief  bool   // for an end of a stream, which can't wait for long
	calm   bool   // and those who are asked know of all that there is
	tell   func() // called when it is answered, from any goroutine

	given atomic.Bool
	at    memberID // where it is; 0: here. Written before given is, as why
	why   *cause   // it is nowhere, or can't be used

	exchange *exchange
	began    time.Time // when it was asked first; the owner's, as denied
	denied   bool      // the answer was that it is here, and it was not
}

func (hs *homes) of(name string) *home {
	h := hs.names[name]
	if h == nil {
		h = &home{homes: hs, name: name}
		hs.names[name] = h
		h.stop = hs.host.seek(name, h.hear)
	}
	return h
}

// ask is for an inquiry that begins; or whose answer was wrong, since the queue is not there, or not any
// more, or not yet.
func (hs *homes) ask(i *inquiry, now time.Time) {
	h := hs.of(i.name)
	switch h.asks = append(h.asks, i); {
	case i.began.IsZero():
		i.began = now
	case i.at != 0:
		h.doubt = i.at
	case i.denied:
		h.doubt = h.self
	default: // it has just gone
		i.denied = true
	}
	h.decide(now)
}

// leave is for one whose answer nobody wants any more.
func (hs *homes) leave(i *inquiry, now time.Time) {
	if i.given.Load() { // it was answered before it has left
		i.undo()
	} else if h := hs.names[i.name]; h != nil {
		h.asks = slices.DeleteFunc(h.asks, func(x *inquiry) bool { return x == i })
		h.decide(now)
	}
}

// denied takes note that a member has said that the queue is not there.
func (hs *homes) denied(name string, at memberID, now time.Time) {
	if h := hs.names[name]; h != nil {
		h.doubt = at
		h.decide(now)
	}
}

func (h *home) hear(now time.Time, all []offering) {
	if h.homes.names[h.name] == h { // else it has yet to be heard that nobody wants to know
		h.heard, h.all, h.doubt = true, all, 0
		h.decide(now)
	}
}

// has says that the queue is here, and of which kind it is.
func (hs *homes) has(name string, k homeKind, now time.Time) {
	h := hs.of(name)
	if h.state == homeCeded { // as it was not heard there in time
		h.host.keep(name)
	}
	if h.kind = k; h.token != 0 && kindOf(h.token) == k {
		h.state = homeHere
	} else {
		h.recant()
		h.offer()
	}
	h.decide(now)
}

// succeeds says that a member which ends hands the queue over to this broker, where it is.
func (hs *homes) succeeds(name string, from memberID, now time.Time) {
	h := hs.names[name]
	if h == nil || h.resigned {
		return
	}
	h.heirOf = from
	if h.state == homeCeded && h.at == from {
		h.host.keep(name)
		h.offer()
	}
	h.decide(now)
}

// lacks says that it is not here any more.
func (hs *homes) lacks(name string, now time.Time) {
	if h := hs.names[name]; h != nil && (h.state == homeHere || h.state == homeCeded) {
		h.recant()
		h.decide(now)
	}
}

// offer has this broker be the home.
func (h *home) offer() { h.token, h.state = h.host.offer(h.name, h.kind), homeHere }

// recant takes its offer back.
func (h *home) recant() {
	if h.token != 0 {
		h.host.withdraw(h.token)
	}
	h.token, h.state = 0, homeElsewhere
}

// best is the home among those that offer it, and whether all know of this broker's offer. sole says that
// nobody has heard of another one before.
func (h *home) best() (best offering, known, own, sole bool) {
	all := make([]offering, 0, len(h.all))
	sole = true
	for _, o := range h.all {
		switch {
		case o.at == h.heirOf && kindOf(o.token) == inMemory: // it has yet to be heard that it is taken back
			continue
		case o.at != h.self:
			sole = sole && !o.first
		case o.token != h.token: // it is taken back already
			continue
		default:
			own = true
		}
		all = append(all, o)
	}
	best, known = homeOf(all)
	return best, known, own, sole
}

// decide draws the conclusions from what is known.
func (h *home) decide(now time.Time) {
	best, known, own, sole := h.best()
	ours := known && best.at == h.self
	switch {
	case h.state == homeClaimed && (own && !ours || !h.wanted()):
		h.recant()
	case h.state == homeClaimed && own && sole:
		h.begin(now)
	case h.state == homeHere && own && !ours && h.host.reaches(best.at):
		h.recant()
		h.cede(best.at)
	case h.state == homeCeded && known && h.outranks(best):
		h.host.keep(h.name)
		h.offer()
	case h.state == homeCeded && known && best.at != h.at:
		h.cede(best.at)
	case h.state == homeCeded && !known && !h.host.missing() && !h.resigned:
		h.host.keep(h.name)
		h.offer()
	case h.state == homeElsewhere && h.heard && !known && !h.host.missing():
		if h.wanted() && !h.resigned {
			h.kind = inMemory
			h.offer()
			h.state = homeClaimed
		} else {
			h.answer(0, h.none())
		}
	}
	switch {
	case h.state == homeHere:
		if h.doubt != h.self {
			h.answer(0, nil)
		}
	case h.state != homeClaimed && known && !ours && best.at != h.doubt && h.host.reaches(best.at):
		h.answer(best.at, nil)
	}
	h.tidy(now)
}

// outranks says that what is ceded here is of a better kind than the home, since that is another one by now, or can't
// be read any more. What is in memory goes all the same where this broker ends.
func (h *home) outranks(best offering) bool {
	return h.kind.rank() < kindOf(best.token).rank() && !(h.resigned && h.kind == inMemory)
}

// wanted says that somebody waits who wants the queue to be made.
func (h *home) wanted() bool {
	return slices.ContainsFunc(h.asks, func(i *inquiry) bool { return i.create })
}

// none is why the queue is nowhere.
func (h *home) none() *cause {
	if h.wanted() {
		return &causeResigned
	}
	return &causeIsNoQueue
}

// resign has another member be the home of what is here in memory; of what is ceded already, if that one has refused it, or
// can't be reached.
func (hs *homes) resign(name string, to, refused memberID, now time.Time) {
	h := hs.names[name]
	if h == nil || h.kind != inMemory || h.state != homeHere && (h.state != homeCeded || h.at != refused && h.host.reaches(h.at)) {
		return
	}
	if h.token != 0 {
		h.host.release(h.token)
		h.token = 0
	}
	h.cede(to)
	h.tidy(now)
}

// resigns says whether this broker ends. If it goes on, what it has not handed over is here. Homes that this
// concerns look again soon by themselves (tidy); there may be a million others.
func (hs *homes) resigns(does bool) { hs.resigned = does }

// begin makes the queue, to which nobody else has a better claim.
func (h *home) begin(now time.Time) {
	if why := h.host.begin(h.name, now); why != nil {
		h.recant()
		h.answer(0, why)
	} else {
		h.state = homeHere
	}
}

// cede has the queue here hand all over to the home at another member.
func (h *home) cede(to memberID) {
	h.state, h.at, h.doubt = homeCeded, to, 0
	h.host.cede(h.name, to)
}

// answer answers all who have asked.
func (h *home) answer(at memberID, why *cause) {
	asks := h.asks
	h.asks = nil
	answer(asks, at, why)
}

func answer(asks []*inquiry, at memberID, why *cause) {
	for _, i := range asks {
		i.at, i.why = at, why
		i.given.Store(true)
		i.tell()
	}
}

// tidy gives up what takes too long, forgets what is of no use, and looks again soon where something
// may have changed by then of which nobody tells.
func (h *home) tidy(now time.Time) {
	var old, none []*inquiry
	best, known, _, _ := h.best()
	h.asks = slices.DeleteFunc(h.asks, func(i *inquiry) bool {
		waited := now.Sub(i.began)
		switch {
		case i.brief && (i.calm && h.heard && !known && h.state == homeElsewhere || waited > briefly && !i.calm || waited > surely):
			none = append(none, i)
		case waited > h.host.patience()+overdue:
			old = append(old, i)
		default:
			return false
		}
		return true
	})
	answer(none, 0, &causeIsNoQueue)
	if len(old) > 0 {
		late := cause{causeUnreachable, "where the queue is can't be found out; see zpipes cluster status"}
		if known {
			late.text = fmt.Sprintf("the queue is at %s, which can't be reached; see zpipes cluster status", h.host.describe(best.at))
		}
		answer(old, 0, &late)
	}
	rival := h.state == homeHere && slices.ContainsFunc(h.all, func(o offering) bool { return o.at != h.self })
	switch {
	case h.state == homeElsewhere && len(h.asks) == 0:
		h.stop()
		delete(h.homes.names, h.name)
	case !h.looks && (len(h.asks) > 0 || h.state == homeClaimed || h.state == homeCeded || rival):
		h.looks = true
		h.host.soon(now, func(now time.Time) {
			if h.looks = false; h.homes.names[h.name] == h {
				h.doubt = 0
				h.decide(now)
			}
		})
	}
}
