package zpipes

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// The directory says at which brokers of a cluster there is something: those who have it offer it,
// and those who look for it are told (see internal/meet).

// A thing is a kind of what is at one broker, or at several, and is reached from the others. On the wire it is
// the upper half of the flags.
type thing byte

const (
	thingQueue    thing = 1 // its home is here
	thingListener thing = 2 // somebody listens here
)

// An offering is a thing at a broker. Where there may be one only, the lower token stays.
type offering struct {
	at    memberID
	token uint64
	first bool // one of the brokers that are told has heard of it before any other
}

// A sought is what somebody at this broker looks for. It is the exchange's owner's.
type sought struct {
	kind  thing
	name  string
	token meet.Token
	users []*seeker
	known bool // what follows is
	all   []offering
}

type soughtKey struct {
	kind thing
	name string
}

// A seeker is somebody who looks.
type seeker struct {
	found func(now time.Time, all []offering)
}

// offer says that a thing is at this broker, until withdraw. The token is drawn for that, and not 0. Of each kind and
// name a broker offers one at a time. From any goroutine.
func (x *exchange) offer(k thing, name string, token uint64) {
	x.do(func(now time.Time) { x.meet.Offer(meet.Thing(k), name, meet.Token(token), now) })
}

// withdraw is the end of an offer. From any goroutine.
func (x *exchange) withdraw(token uint64) {
	x.do(func(now time.Time) { x.meet.Close(meet.Token(token), now) })
}

// seek has f called with all brokers that offer the thing and that can be reached, the
// lowest token first, and this one included when all who should know do: as soon as somebody has named one, or all who should know have said that there is
// none; and then at each change, until stop. From any goroutine; f is called by the exchange's owner, maybe
// once after stop, and leaves all as it is.
func (x *exchange) seek(k thing, name string, f func(now time.Time, all []offering)) (stop func()) {
	key, u := soughtKey{k, name}, &seeker{f}
	x.do(func(now time.Time) {
		s := x.sought[key]
		if s == nil {
			s = &sought{kind: k, name: name, token: meet.Token(rand.Uint64() | 1), users: []*seeker{u}}
			x.sought[key], x.seeks[s.token] = s, s
			x.meet.Seek(meet.Thing(k), name, s.token, now)
			return
		}
		s.users = append(s.users, u)
		if x.tells(s) {
			f(now, s.all)
		}
	})
	return func() {
		x.do(func(now time.Time) {
			s := x.sought[key]
			if s == nil {
				return
			}
			if s.users = slices.DeleteFunc(s.users, func(v *seeker) bool { return v == u }); len(s.users) == 0 {
				delete(x.sought, key)
				delete(x.seeks, s.token)
				x.meet.Close(s.token, now)
			}
		})
	}
}

// tells says that those who look can be told. That there is nobody is not told before the broker has met the
// others, nor while it has just met one more, who may have yet to say what it knows.
func (x *exchange) tells(s *sought) bool {
	return s.known && (len(s.all) > 0 || x.met && x.settles.IsZero())
}

// settleTime is for how long another member may have yet to say what it knows.
const settleTime = time.Second

// mostSettling is for how long that holds up those who look, however many come one after the other.
const mostSettling = 3 * settleTime

// found takes what the directory says.
func (x *exchange) found(t meet.Token, all []meet.Offering, now time.Time) {
	s := x.seeks[t]
	if s == nil {
		return
	}
	s.known, s.all = true, make([]offering, len(all))
	for i, o := range all {
		s.all[i] = offering{memberID(o.At), uint64(o.Token), o.First}
	}
	x.tell(s, now)
}

func (x *exchange) tell(s *sought, now time.Time) {
	if x.tells(s) {
		for _, u := range slices.Clone(s.users) {
			u.found(now, s.all)
		}
	}
}

// tellNone tells those again that there is nobody for whom that may mean something else now.
func (x *exchange) tellNone(now time.Time) {
	for _, s := range x.sought {
		if s.known && len(s.all) == 0 {
			x.tell(s, now)
		}
	}
}

// missing says that a member is out of reach, not for longer than the cluster's patience, and may have what nobody
// else offers. It is the owner's; when it ends, those who look for that are told again.
func (x *exchange) missing() bool { return len(x.lost) > 0 }

// misses notes that there is no link to a member.
func (x *exchange) misses(m memberID, now time.Time) {
	x.shaken = now
	if !x.members[m] {
		return
	}
	x.lost[m] = now
	x.waits.push(timer{now.Add(x.host.patience()), func(later time.Time) {
		if x.lost[m].Equal(now) {
			x.missed(m, later)
		}
	}})
}

// missed notes that a member is not waited for any more.
func (x *exchange) missed(m memberID, now time.Time) {
	if _, is := x.lost[m]; is {
		delete(x.lost, m)
		if !x.missing() {
			x.tellNone(now)
		}
	}
}

// meets notes that there is a link to a member.
func (x *exchange) meets(m memberID, now time.Time) {
	delete(x.lost, m)
	if x.settles.IsZero() {
		x.latest = now.Add(mostSettling)
	}
	if x.settles = now.Add(settleTime); x.settles.After(x.latest) { // others come all the time
		x.settles = x.latest
	}
}

// calms sees whether the members that have come have had their time, and says when they will have.
func (x *exchange) calms(now time.Time) time.Time {
	if !x.settles.IsZero() && !now.Before(x.settles) {
		x.settles = time.Time{}
		x.tellNone(now)
	}
	return x.settles
}

// settled says that the broker has met the others of its cluster, or has tried.
func (x *exchange) settled() {
	x.do(func(now time.Time) {
		x.met = true
		x.tellNone(now)
	})
}
