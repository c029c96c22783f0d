package zpipes

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The simulations, TestSimulate..., make worlds: brokers without sockets whose clients
// do anything that comes to their mind, and some of it makes sense. A world is made of
// steps, and each step of a number, from which all follows that happens in it. So rapid
// can leave steps out until few remain that go wrong, and what it prints is a history
// that can be read from the beginning.
//
//	go test -run TestSimulate .                                  a short look
//	go test -run TestSimulate -rapid.checks=10000 -timeout 0 .   10,000 worlds of each kind
//	go test -run TestSimulateQueues -rapid.seed=SEED .           the world that went wrong, and how
//	go test -run TestSimulateQueues -rapid.failfile=FILE .       the same, made short already
//
// -rapid.steps is how many steps a world has on average. A failure names its seed and its
// file; as long as the file is in testdata/rapid, each run begins with it.

func init() {
	// rapid's 30 steps are too few for a broker to get into trouble; many more than these
	// take long to be made few again.
	if os.Getenv("RAPID_STEPS") == "" {
		flag.Set("rapid.steps", "400")
	}
}

// A world is what simulate drives.
type world interface {
	step() // lets one thing happen, and checks what must hold
	end()  // ends all, and checks that nothing is left
}

// A sim is what all worlds have in common. It is the host of their sessions, but for
// what they say.
type sim struct {
	r      *rand.Rand
	pcg    rand.PCG
	salt   uint64
	broken string   // what went wrong: the format of the complaint
	said   string   // the complaint
	log    []string // what happened
	logs   bool     // somebody wants to know

	pipes  *registry
	now    time.Time
	alarms alarms
	posted []resumer
	tokens uint64
}

func newSim(salt uint64) *sim {
	s := &sim{salt: salt, now: born}
	s.r = rand.New(&s.pcg)
	s.seed(0)
	return s
}

func (s *sim) seed(n uint64) { s.pcg.Seed(n, s.salt) }

func (s *sim) note(format string, args ...any) {
	if s.logs {
		s.log = append(s.log, fmt.Sprintf(format, args...))
	}
}

// check ends the world if something is not as it should be.
func (s *sim) check(ok bool, format string, args ...any) {
	if !ok {
		s.fail(format, args...)
	}
}

func (s *sim) fail(format string, args ...any) {
	s.broken, s.said = format, fmt.Sprintf(format, args...)
	panic(s.said)
}

// survives says that nothing was wrong in what f did. A panic of anybody else's goes on.
func (s *sim) survives(f func()) (ok bool) {
	defer func() {
		if s.broken != "" {
			recover()
		}
	}()
	f()
	return true
}

func (s *sim) post(t resumer) {
	if !t.letter().posted {
		t.letter().posted = true
		s.posted = append(s.posted, t)
	}
}

func (s *sim) alarm(c *channel)                                 { s.alarms.set(c) }
func (s *sim) violated(*session, string)                        {}
func (s *sim) allow(*session, string, string, resumer) *verdict { return nil }
func (s *sim) newToken() uint64                                 { s.tokens++; return s.tokens }

func (s *sim) report(p *pipe, _ *chunkQueue, _ uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(writer, cause{})
}

// resume lets some of what was posted run, in any order: those who post are many. (Some
// of them walk through maps; without the sorting no history would repeat itself.)
func (s *sim) resume(n int) {
	for ; n > 0 && len(s.posted) > 0; n-- {
		slices.SortFunc(s.posted, func(a, b resumer) int {
			name, channel := place(a)
			other, way := place(b)
			return cmp.Or(strings.Compare(name, other), cmp.Compare(channel, way))
		})
		i := s.r.IntN(len(s.posted))
		t := s.posted[i]
		s.posted = slices.Delete(s.posted, i, i+1)
		t.letter().posted = false
		t.resume(s.now)
	}
}

// newSimUser makes an account with room for so many bytes in pipes and queues. Much is
// held elsewhere, so that what waits for room is not too much by itself.
func newSimUser(h host, room int) *account {
	a := &account{whose: "user", limits: defaultPerUser, post: h.post}
	limitSim(a, room)
	return a
}

const heldElsewhere = 1 << 30

// limitSim is the same for an account that is there.
func limitSim(a *account, room int) {
	a.limits.Pending = heldElsewhere + int64(room)
	a.held.Store(heldElsewhere)
}

func heldFor(a *account) int { return int(a.held.Load() - heldElsewhere) }

func place(t resumer) (whose string, number int) {
	switch t := t.(type) {
	case *channel:
		return string(t.session.id), int(t.number)
	case *textSession:
		return string(t.session.id), -1
	case *session:
		return string(t.id), -3
	}
	return t.(*account).whose, -2
}

// pass lets time go by.
func (s *sim) pass(to time.Time) {
	if to.After(s.now) {
		s.now = to
	}
	s.note("%v", s.now.Sub(born))
	for c := s.alarms.due(s.now); c != nil; c = s.alarms.due(s.now) {
		c.resume(s.now)
	}
}

// simulate makes worlds, and reports how many steps were made in them.
func simulate(t *testing.T, begin func(*sim) world) {
	t.Helper()
	numbers := rapid.Uint64()
	steps, worlds := 0, 0
	first := "" // what was wrong first; a shorter history is one of the same kind
	rapid.Check(t, func(rt *rapid.T) {
		salt, seeds := numbers.Draw(rt, "world"), []uint64(nil)
		s := newSim(salt)
		w := begin(s)
		sound := false
		defer func() {
			if !sound {
				rt.Logf("%s", strings.Join(history(begin, salt, seeds), "\n"))
			}
		}()
		fails := func(f func()) {
			if !s.survives(f) && (first == "" || s.broken == first) {
				first = s.broken
				rt.Fatal(s.said)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){"step": func(rt *rapid.T) {
			seed := numbers.Draw(rt, "seed")
			if s.broken != "" {
				return // in another way than the first time
			}
			seeds = append(seeds, seed)
			s.seed(seed)
			steps++
			fails(w.step)
		}})
		if s.broken == "" {
			s.seed(0)
			fails(w.end)
		}
		sound = true
		worlds++
	})
	t.Logf("simulated %d steps in %d worlds", steps, worlds)
}

// history plays a world again, and tells what happened in it.
func history(begin func(*sim) world, salt uint64, seeds []uint64) (log []string) {
	s := newSim(salt)
	s.logs = true
	defer func() {
		if p := recover(); p != nil {
			log = append(s.log, fmt.Sprint(p))
		}
	}()
	w := begin(s)
	for i, seed := range seeds {
		s.note("-- step %d", i+1)
		s.seed(seed)
		w.step()
	}
	s.note("-- the end")
	s.seed(0)
	w.end()
	return s.log
}
