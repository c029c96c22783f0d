package zpipes

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// The exchange is the host of homes. What follows may be called from any goroutine, if it does not
// say otherwise.

// causeIsAway is why a queue can't be opened that is not here: where it is has to be found out.
// Brokers tell it each other, and clients nothing of it.
var causeIsAway = cause{causeElsewhere, "the queue is not here"}

// inquire asks where a queue is; with create set, it is made where nobody has it. tell is called
// when the answer is there, and does not block.
func (x *exchange) inquire(name string, create bool, tell func()) *inquiry {
	i := &inquiry{name: name, create: create, tell: tell, exchange: x}
	x.do(func(now time.Time) { x.homes.ask(i, now) })
	return i
}

// inquireBytes asks whether a name is a queue's at another broker, for an end of a stream, which can't wait for long: the
// answer comes in a moment, and a queue of which nobody has said anything by then is none. While a link has just come or
// gone, those who are asked may have yet to hear of what there is.
func (x *exchange) inquireBytes(name string, tell func()) *inquiry {
	i := &inquiry{name: name, brief: true, tell: tell, exchange: x}
	x.do(func(now time.Time) {
		i.calm = x.settles.IsZero() && x.isSteady(now)
		if x.hasNone(name, now) {
			answer([]*inquiry{i}, 0, &causeIsNoQueue)
		} else {
			x.homes.ask(i, now)
		}
	})
	return i
}

// hasNone says that a name is no queue's at another broker, as this one would have been told. It is the owner's.
func (x *exchange) hasNone(name string, now time.Time) bool {
	told, offered := x.meet.Knows(meet.Thing(thingQueue), name)
	return told && !offered && (len(x.telling) == 0 || x.settles.IsZero()) && x.isSteady(now)
}

// isSteady says that no link was lost just now, so that others may have to tell what they have said elsewhere.
func (x *exchange) isSteady(now time.Time) bool { return now.Sub(x.shaken) > settleTime }

// plainlyNone is hasNone for those who may not wait; where the owner is busy just now, it says false.
func (x *exchange) plainlyNone(name string, now time.Time) bool {
	if !x.turns.TryLock() {
		return false
	}
	defer x.turns.Unlock()
	return x.hasNone(name, now)
}

// again asks once more: the queue was not where the answer has said.
func (i *inquiry) again() {
	if i != nil {
		i.given.Store(false)
		i.exchange.do(func(now time.Time) { i.exchange.homes.ask(i, now) })
	}
}

// forgo says that nobody wants the answer any more.
func (i *inquiry) forgo() {
	switch {
	case i == nil:
	case i.given.Load():
		i.undo()
	default:
		i.exchange.do(func(now time.Time) { i.exchange.homes.leave(i, now) })
	}
}

// undo takes the queue back that was made for one whose open has failed, or has not come any more.
func (i *inquiry) undo() {
	if i.create && i.why == nil && i.at == 0 {
		i.exchange.pipes.unbegin(i.name)
	}
}

// has says that a queue is here, if it is not said already; lacks, that it is no more.
func (x *exchange) has(name string, k homeKind) {
	if x != nil {
		x.do(func(now time.Time) { x.homes.has(name, k, now) })
	}
}

func (x *exchange) lacks(name string) {
	if x != nil {
		x.do(func(now time.Time) { x.homes.lacks(name, now) })
	}
}

// succeeds says that a member which ends hands a queue over that is here.
func (x *exchange) succeeds(name string, from memberID) {
	x.do(func(now time.Time) { x.homes.succeeds(name, from, now) })
}

// resigns says whether this broker ends, and hands its queues over.
func (x *exchange) resigns(does bool) {
	x.do(func(time.Time) { x.homes.resigns(does) })
}

// resign has another broker be the home of a queue that is here: one of those that are linked, and not the
// one that has just not taken it, if there are more. One that has it already, and does not refuse it, keeps it while it
// is linked: else there were two homes.
func (x *exchange) resign(name string, refused memberID, made bool) {
	x.do(func(now time.Time) {
		to := slices.Sorted(maps.Keys(x.linked))
		if len(to) == 0 || !x.homes.resigned || made && x.linked[refused] {
			return
		}
		i := int(x.pipes.keyOf(name) % uint64(len(to)))
		if at := slices.Index(to, refused); at >= 0 {
			i = (at + 1) % len(to)
		}
		if to[i] == refused {
			return // it is asked again by who has asked it
		}
		x.homes.resign(name, to[i], refused, now)
	})
}

// An awayQueue is one at another broker, which clients of this one have open.
type awayQueue struct {
	at    memberID
	users int
	since time.Time
}

// uses counts n more who have a queue open that is at another broker.
func (x *exchange) uses(name string, at memberID, n int, now time.Time) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.away[name]
	if q == nil {
		if x.away == nil {
			x.away = make(map[string]*awayQueue)
		}
		q = &awayQueue{since: now}
		x.away[name] = q
	}
	if q.users += n; n > 0 {
		q.at = at
	}
	if q.users == 0 {
		delete(x.away, name)
	}
}

// awayInfo is what there is to tell of such a queue.
func (x *exchange) awayInfo(name string, now time.Time) (PipeInfo, bool) {
	if x == nil {
		return PipeInfo{}, false
	}
	x.mu.Lock()
	q := x.away[name]
	if q == nil {
		x.mu.Unlock()
		return PipeInfo{}, false
	}
	info, at := PipeInfo{Name: name, Mode: ModeQueue, Users: q.users, Age: now.Sub(q.since)}, q.at
	x.mu.Unlock()
	info.HomeAt = x.host.name(at)
	return info, true
}

// awayNames are the names of all of them.
func (x *exchange) awayNames() []string {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Keys(x.away))
}

// An exchangeHomes is the exchange as the homes' host. It is the owner's.
type exchangeHomes struct{ *exchange }

func (x exchangeHomes) offer(name string, k homeKind) (token uint64) {
	token = k.token(rand.Uint64())
	x.exchange.offer(thingQueue, name, token)
	return token
}

func (x exchangeHomes) release(token uint64) {
	x.do(func(now time.Time) { x.meet.Release(meet.Token(token), now) })
}

func (x exchangeHomes) seek(name string, f func(now time.Time, all []offering)) (stop func()) {
	return x.exchange.seek(thingQueue, name, f)
}

func (x exchangeHomes) begin(name string, now time.Time) *cause { return x.pipes.beginQueue(name, now) }

func (x exchangeHomes) cede(name string, to memberID) { x.host.cede(name, to) }
func (x exchangeHomes) keep(name string)              { x.host.keep(name) }

func (x exchangeHomes) reaches(m memberID) bool    { return x.linked[m] }
func (x exchangeHomes) describe(m memberID) string { return x.host.describe(m) }
func (x exchangeHomes) patience() time.Duration    { return x.host.patience() }

func (x exchangeHomes) soon(now time.Time, f func(now time.Time)) {
	x.retries.push(timer{now.Add(retryWay), f})
}
