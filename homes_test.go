package zpipes

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var (
	homesRuns = flag.Int("homes.runs", 20, "how many worlds TestSimulateHomes makes")
	homesSeed = flag.Uint64("homes.seed", 1, "the first one's")
)

// Whatever happens to brokers and links, each confirmed chunk is delivered or there, unless it was in the
// memory of a broker that has crashed; no open waits for much longer than the patience; and when all see each other
// again, each queue has one home. Where nothing happens, it has one from the beginning on.
//
// A failure names its seed: -homes.seed=N -homes.runs=1 -v tells what happened.
func TestSimulateHomes(t *testing.T) {
	count := make(map[string]int)
	runs := *homesRuns
	if underRace {
		runs = max(1, runs/4)
	}
	for i := range runs {
		w := newHomesWorld(*homesSeed+uint64(i), "", count)
		w.logs = testing.Verbose()
		if w.play(); w.bad != "" {
			for _, line := range w.log {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s", *homesSeed+uint64(i), w.bad)
		}
	}
	for _, what := range []string{"begun", "ceded", "handed over", "moved", "kept on", "received", "taken", "crashes", "deleted"} {
		if runs >= 500 && count[what] == 0 {
			t.Errorf("%s: never; the simulation does not reach what it should", what)
		}
	}
	t.Log(count)
}

// Each rule that is left out shows.
func TestSimulateHomesFindsMutants(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("takes many worlds")
	}
	t.Parallel()
	for mutant, first := range map[string]uint64{ // the seed of the first world that has shown it
		"a queue that was ceded to who has gone stays so":       33,
		"who is no home any more says nothing":                  1,
		"a claim is good before all know of it":                 1,
		"who was first does not count":                          1,
		"what is handed over is deleted before it is confirmed": 6,
	} {
		t.Run(mutant, func(t *testing.T) {
			t.Parallel()
			for seed := first; seed < first+400; seed++ {
				w := newHomesWorld(seed, mutant, make(map[string]int))
				if w.play(); w.bad != "" {
					t.Logf("seed %d: %s", seed, w.bad)
					return
				}
			}
			t.Error("the fault is not found")
		})
	}
}

// A homesSpy is a host of homes which writes down what it is told.
type homesSpy struct {
	homesHost
	did  []string
	tell func(now time.Time, all []offering)
	late func(now time.Time)

	far    bool // it reaches nobody
	looked int  // how often it was asked for that
}

func newHomesSpy() (*homes, *homesSpy) {
	spy := new(homesSpy)
	return &homes{self: 1, host: spy, names: make(map[string]*home)}, spy
}

func (s *homesSpy) offer(_ string, k homeKind) (token uint64) { return k.token(10) }
func (s *homesSpy) withdraw(uint64)                           {}
func (s *homesSpy) release(uint64)                            {}
func (s *homesSpy) seek(_ string, f func(time.Time, []offering)) (stop func()) {
	s.tell = f
	return func() {}
}
func (s *homesSpy) missing() bool              { return false }
func (s *homesSpy) cede(_ string, to memberID) { s.did = append(s.did, "cede to "+to.String()) }
func (s *homesSpy) keep(string)                { s.did = append(s.did, "keep") }
func (s *homesSpy) reaches(memberID) bool {
	s.looked++
	return !s.far
}
func (s *homesSpy) describe(m memberID) string              { return m.String() }
func (s *homesSpy) patience() time.Duration                 { return 10 * time.Second }
func (s *homesSpy) soon(_ time.Time, f func(now time.Time)) { s.late = f }

// A queue that was made durable just before it was ceded is what it was, before it is offered as that.
func TestHomesDurableWhenCeded(t *testing.T) {
	hs, spy := newHomesSpy()
	hs.has("q", inMemory, born)
	spy.tell(born, []offering{{2, memoryHome | 5, true}, {1, inMemory.token(10), false}})
	hs.has("q", isDurable, born)
	if want := []string{"cede to " + memberID(2).String(), "keep"}; !slices.Equal(spy.did, want) {
		t.Errorf("%q, want %q", spy.did, want)
	}
}

// Who has taken a queue over from a broker that ends is its home, also while that one's offer has yet to be taken back
// everywhere: else each of the two would send the other one to itself.
func TestHomesOfWhoSucceeds(t *testing.T) {
	late := []offering{{2, memoryHome | 5, true}, {1, inMemory.token(10), false}}
	for _, first := range []bool{true, false} {
		hs, spy := newHomesSpy()
		hs.has("q", inMemory, born)
		if !first {
			spy.tell(born, late)
		}
		hs.succeeds("q", 2, born)
		spy.tell(born, late)
		want := []string{"cede to " + memberID(2).String(), "keep"}
		if first {
			want = nil
		}
		if h := hs.names["q"]; !slices.Equal(spy.did, want) || h.state != homeHere || h.token == 0 {
			t.Errorf("%q, want %q; state %d", spy.did, want, h.state)
		}
	}
}

// A queue that can't be read has others be its home, of any kind and whoever was first, until it can be; but where
// there is none, it is it, so that whoever opens it learns why.
func TestHomesThatCannotBeRead(t *testing.T) {
	for _, k := range []homeKind{inMemory, isDurable} {
		hs, spy := newHomesSpy()
		hs.has("q", isUnread, born)
		own := offering{1, isUnread.token(10), true}
		spy.tell(born, []offering{own})
		i := &inquiry{name: "q", tell: func() {}}
		if hs.ask(i, born); !i.given.Load() || i.at != 0 || i.why != nil {
			t.Errorf("it is the only one: at %v, %v", i.at, i.why)
		}
		spy.tell(born, []offering{own, {2, k.token(5 << 40), false}})
		want := []string{"cede to " + memberID(2).String()}
		if !slices.Equal(spy.did, want) {
			t.Errorf("beside one of kind %d: %q, want %q", k, spy.did, want)
		}
		// The other one sees the same, and stays.
		other, spy2 := newHomesSpy()
		other.self = 2
		other.has("q", k, born)
		spy2.tell(born, []offering{own, {2, k.token(10), false}})
		if len(spy2.did) > 0 {
			t.Errorf("the other one, of kind %d: %q", k, spy2.did)
		}
	}
}

// A queue that is ceded goes to another home of its kind, or of a better one; but where there are only worse ones it is
// the home again: what is durable does not go into memory, and what can be read not to who can't read his own.
func TestHomesCededToWorseOnes(t *testing.T) {
	for _, own := range []homeKind{inMemory, isDurable, isUnread} {
		for _, k := range []homeKind{inMemory, isDurable, isUnread} {
			for _, at := range []memberID{2, 3} {
				hs, spy := newHomesSpy()
				hs.has("q", own, born)
				spy.tell(born, []offering{{2, own.token(3), true}, {1, own.token(10), false}})
				spy.tell(born, []offering{{at, k.token(5 << 40), true}})
				want := []string{"cede to " + memberID(2).String()}
				switch {
				case own == isDurable && k != isDurable, own == inMemory && k == isUnread:
					want = append(want, "keep")
				case at != 2:
					want = append(want, "cede to "+at.String())
				}
				if keeps := hs.names["q"].state == homeHere; !slices.Equal(spy.did, want) || keeps != (want[len(want)-1] == "keep") {
					t.Errorf("one of kind %d, and one of kind %d at %v: %q, want %q; home: %v", own, k, at, spy.did, want, keeps)
				}
			}
		}
	}
}

// What was handed over, and not taken, is here again soon if the broker goes on; who waits to make a queue hears soon that
// it ends; and nothing is done for all the queues that are there at once.
func TestHomesOfWhoResigns(t *testing.T) {
	hs, spy := newHomesSpy()
	hs.has("q", inMemory, born)
	own := offering{1, inMemory.token(10), false}
	spy.far = true
	spy.tell(born, []offering{own, {2, memoryHome | 5, true}})
	looked := spy.looked
	if hs.resigns(true); spy.looked != looked || looked == 0 {
		t.Errorf("it is looked %d times for another home, then %d times", looked, spy.looked)
	}
	spy.far = false
	spy.tell(born, []offering{own})
	hs.resign("q", 2, 0, born)
	hs.resigns(false)
	spy.late(born)
	if want := []string{"cede to " + memberID(2).String(), "keep"}; !slices.Equal(spy.did, want) {
		t.Errorf("%q, want %q", spy.did, want)
	}

	i := &inquiry{name: "new", create: true, tell: func() {}}
	hs.ask(i, born)
	hs.resigns(true)
	late := spy.late
	spy.tell(born, nil)
	late(born)
	if i.why == nil || *i.why != causeResigned {
		t.Errorf("who makes a queue at a broker that ends: %v", i.why)
	}
}

// Who is told that a queue is here, where it is not, is told so again a little later, and in the end that it can't
// be found; others are answered in their own time.
func TestHomesInquiries(t *testing.T) {
	hs, spy := newHomesSpy()
	hs.has("q", inMemory, born)
	answers := 0
	i := &inquiry{name: "q", tell: func() { answers++ }}
	for range 3 {
		hs.ask(i, born)
	}
	if answers != 2 || len(hs.names["q"].asks) != 1 {
		t.Fatalf("%d answers, %d ask", answers, len(hs.names["q"].asks))
	}
	spy.late(born)
	if answers != 3 {
		t.Errorf("%d answers a little later", answers)
	}
	hs.lacks("q", born)

	// One that began long ago, and asks again, is behind a fresh one.
	later := born.Add(spy.patience() + overdue + time.Second)
	fresh := &inquiry{name: "q", tell: func() { t.Error("a fresh one is answered") }}
	hs.ask(fresh, later)
	i.at = 2
	hs.ask(i, later)
	if answers != 4 || i.why == nil || i.why.code != causeUnreachable {
		t.Errorf("%d answers, the last is %v", answers, i.why)
	}
}

// Who ends hands over what is in memory, and nothing that is kept on its disk; also what was on its way to one who is out of
// reach by now.
func TestHomesThatAreResigned(t *testing.T) {
	hs, spy := newHomesSpy()
	hs.resigns(true)
	hs.has("q", isDurable, born)
	if hs.resign("q", 2, 0, born); len(spy.did) > 0 {
		t.Errorf("one that is durable: %q", spy.did)
	}

	hs, spy = newHomesSpy()
	hs.has("q", inMemory, born)
	spy.tell(born, []offering{{2, memoryHome | 5, true}, {1, inMemory.token(10), false}})
	hs.resigns(true)
	hs.resign("q", 3, 0, born) // it is on its way
	spy.far = true
	hs.resign("q", 3, 0, born)
	if want := []string{"cede to " + memberID(2).String(), "cede to " + memberID(3).String()}; !slices.Equal(spy.did, want) {
		t.Errorf("one in memory: %q, want %q", spy.did, want)
	}
}

// A claim for which nobody waits any more is taken back.
func TestHomesClaimThatTakesTooLong(t *testing.T) {
	hs, spy := newHomesSpy()
	i := &inquiry{name: "q", create: true, tell: func() {}}
	hs.ask(i, born)
	spy.tell(born, nil)
	if hs.names["q"].state != homeClaimed {
		t.Fatal("it is not claimed")
	}
	later := born.Add(spy.patience() + overdue + time.Second)
	if spy.late(later); i.why == nil || i.why.code != causeUnreachable {
		t.Errorf("who has asked hears %v", i.why)
	}
	if spy.late(later.Add(retryWay)); len(hs.names) > 0 {
		t.Error("the claim stays")
	}
}
