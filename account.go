package zpipes

import (
	"container/list"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// besides is how many bytes a request may have beside its chunk and not count for Pending.
const besides = 64

// An account counts what a client holds at the broker; and another, above it, what
// all clients of its user do. A nil account has no limits.
type account struct {
	limits Limits
	whose  string   // for refusals
	owner  string   // of a user's: names the user
	above  *account // the user's; nil: this is one
	post   func(resumer)

	queues atomic.Int64 // that a user has made
	held   atomic.Int64 // bytes in pipes and queues
	short  atomic.Bool  // something waits for held to fall
	lent   atomic.Bool  // there is a debtor
	disk   atomic.Int64 // bytes that durable queues take which a user has made

	opening sync.Mutex // held from refusal until what was opened is counted; the registry's mu is taken under it

	mu       sync.Mutex // guards what follows; taken under a pipe's or queue's, and only that of above under it
	ends     int
	requests int       // that wait
	bytes    int64     // of their frames
	waiting  list.List // of settlers, in the order in which they came
	places   map[settler]*list.Element
	turns    int     // how many of them have yet to look again
	debtor   settler // holds more than there is room for, see lends

	mail letter[resumer] // guarded by the host's mailbox
}

// A settler looks again whether what waits can go on. It takes locks of its own.
type settler interface{ recheck() }

// whole is the account of all that counts together with this one: the user's.
func (a *account) whole() *account {
	for a.above != nil {
		a = a.above
	}
	return a
}

// refusal is why no n ends more may be opened, or nil. The opening of whole is held until
// they are counted.
func (a *account) refusal(n int) *cause {
	for ; a != nil; a = a.above {
		a.mu.Lock()
		full := int64(a.ends)+a.queues.Load()+int64(n) > int64(a.limits.Pipes)
		a.mu.Unlock()
		if full {
			return &cause{causeTooMany, fmt.Sprintf("this %s has %d open already", a.whose, a.limits.Pipes)}
		}
	}
	return nil
}

func (a *account) addEnds(n int) {
	for ; a != nil; a = a.above {
		a.mu.Lock()
		a.ends += n
		a.mu.Unlock()
	}
}

// add counts requests that wait, and bytes of their frames.
func (a *account) add(requests, bytes int) {
	for ; a != nil; a = a.above {
		a.mu.Lock()
		a.requests += requests
		a.bytes += int64(bytes)
		a.mu.Unlock()
	}
}

// take counts one request more, of so many bytes, unless that would be too much.
func (a *account) take(bytes int) bool {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	much := a.bytes + int64(bytes) - int64(a.requests)*besides
	if a.requests >= a.limits.Requests || much > a.limits.Pending && a.bytes > 0 || !a.above.take(bytes) {
		return false
	}
	a.requests++
	a.bytes += int64(bytes)
	return true
}

// charge counts bytes that pipes or queues hold from now on, or no longer.
func (a *account) charge(bytes int) {
	for ; a != nil && bytes != 0; a = a.above {
		a.chargeThis(bytes)
	}
}

func (a *account) chargeThis(bytes int) {
	if held := a.held.Add(int64(bytes)); bytes < 0 && held < a.limits.Pending {
		a.settleDebt(nil)
		a.relieve()
	}
}

// chargeDisk counts bytes on the disk, unless that would be too much and it need not.
func (a *account) chargeDisk(n int64, must bool) bool {
	if a == nil {
		return true
	}
	if used := a.disk.Add(n); n > 0 && !must && used > a.limits.Disk {
		a.disk.Add(-n)
		return false
	}
	return true
}

// claim charges bytes if twice as many fit, in one step.
func (a *account) claim(bytes int) bool {
	if a == nil {
		return true
	}
	for {
		held := a.held.Load()
		if 2*int64(bytes) > a.limits.Pending-held {
			return false
		}
		if a.held.CompareAndSwap(held, held+int64(bytes)) {
			break
		}
	}
	if a.above.claim(bytes) {
		return true
	}
	a.chargeThis(-bytes)
	return false
}

// room is how many bytes more pipes and queues may hold. Each of a user's connections may take
// as many, before it has charged them, with one WRITE, which until then has counted as waiting:
// what is held exceeds the user's limit by no more than may wait.
func (a *account) room() int {
	n := int64(math.MaxInt)
	for ; a != nil; a = a.above {
		n = min(n, a.limits.Pending-a.held.Load())
	}
	return int(max(0, n))
}

// pending is how many bytes may wait, or be held, at most.
func (a *account) pending() int64 {
	n := int64(math.MaxInt32)
	for ; a != nil; a = a.above {
		n = min(n, a.limits.Pending)
	}
	return n
}

// fits says whether there is room for n bytes more, by this account alone.
func (a *account) fits(n int) bool { return int64(n) <= a.limits.Pending-a.held.Load() }

// await has s look again once there may be room for n bytes.
func (a *account) await(s settler, n int) {
	for ; a != nil; a = a.above {
		if !a.fits(n) {
			a.enlist(s, n)
		}
	}
}

func (a *account) enlist(s settler, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.short.Store(true) // before the look: who makes room behind it waits for mu, and finds s
	if a.places[s] != nil || a.fits(n) {
		return
	}
	if a.places == nil {
		a.places = make(map[settler]*list.Element)
	}
	a.places[s] = a.waiting.PushBack(s)
}

// lends says that s may hold n bytes for which there is no room. One at a time may, until
// it has repaid: so those whom somebody waits for go on, however much lies about.
func (a *account) lends(s settler, n int) bool {
	for ; a != nil; a = a.above {
		if a.fits(n) {
			continue
		}
		a.mu.Lock()
		free := a.debtor == nil || a.debtor == s
		a.mu.Unlock()
		if !free {
			return false
		}
	}
	return true
}

// borrow records that s does.
func (a *account) borrow(s settler, n int) {
	for ; a != nil; a = a.above {
		if a.fits(n) {
			continue
		}
		a.mu.Lock()
		if a.debtor == nil {
			a.debtor = s
			a.lent.Store(true)
		}
		a.mu.Unlock()
	}
}

// repay is called when s holds nothing any more.
func (a *account) repay(s settler) {
	for ; a != nil; a = a.above {
		if a.settleDebt(s) {
			a.relieve()
		}
	}
}

// settleDebt says that nothing is lent to s any more; nil: to anybody.
func (a *account) settleDebt(s settler) (settled bool) {
	if !a.lent.Load() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if settled = s == nil || a.debtor == s; settled {
		a.debtor = nil
		a.lent.Store(false)
	}
	return settled
}

// forget ends what await began.
func (a *account) forget(s settler) {
	for ; a != nil; a = a.above {
		a.mu.Lock()
		a.remove(s)
		a.mu.Unlock()
	}
}

// remove takes s out of those who wait. mu is held.
func (a *account) remove(s settler) {
	if place := a.places[s]; place != nil {
		a.waiting.Remove(place)
		delete(a.places, s)
	}
}

// relieve has those who wait look again.
func (a *account) relieve() {
	if !a.short.Load() {
		return
	}
	a.mu.Lock()
	a.short.Store(false)
	a.turns = a.waiting.Len()
	a.mu.Unlock()
	a.post(a)
}

// maxRechecks is how many look again before others of the broker's have their turn.
const maxRechecks = 64

// resume is the broker's loop's; see resumer.
func (a *account) resume(time.Time) {
	for range maxRechecks {
		s := a.next()
		if s == nil {
			return
		}
		s.recheck()
	}
	a.post(a)
}

// next takes out the one who may look again now, if there is one: each has one turn, and
// none where there is no room and nothing to be lent.
func (a *account) next() settler {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.short.Store(a.waiting.Len() > 0) // before the look, as in enlist
	if a.waiting.Len() == 0 || a.turns == 0 || !a.fits(1) && a.debtor != nil {
		return nil
	}
	a.turns--
	s := a.waiting.Front().Value.(settler)
	a.remove(s)
	return s
}

func (a *account) letter() *letter[resumer] { return &a.mail }
