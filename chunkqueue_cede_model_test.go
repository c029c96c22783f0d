package zpipes

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// A fleet is several homes of one queue, which hand it over to each other, and to and fro, while answers come late or
// not at all.
type fleet struct {
	*testing.T
	*rand.Rand
	homes []*hauler
	sent  int
	taken map[string]bool // what was confirmed
	done  map[string]int
}

// A hauler is one of them, and its mover.
type hauler struct {
	*shop
	w     *workman
	l     *senderQueue // the mover's
	to    *hauler      // where it hands over; nil: nowhere
	in    *senderQueue // its sender there
	under []seenJob    // there, and not answered
	ends  bool         // the queue is at home again, and the mover has yet to see it
}

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{T: t, Rand: rand.New(rand.NewPCG(seed, 0)), taken: make(map[string]bool), done: make(map[string]int)}
	for range 3 {
		h := &hauler{shop: newShop(t, 1000, jobRules{})}
		h.w = h.worker()
		f.homes = append(f.homes, h)
	}
	return f
}

func (f *fleet) home() *hauler { return f.homes[f.IntN(len(f.homes))] }

func (f *fleet) send(h *hauler, n int) {
	if !h.ceded {
		key := fmt.Sprint("job ", n)
		h.renew(&h.from.senderQueue)
		h.pushJob(&h.from.senderQueue, h.newJob([]byte(key), &terms{key: key}))
		f.taken[key] = true
	}
}

func (f *fleet) work(h *hauler) {
	for n := 1 + f.IntN(3); n > 0 && !h.ceded && h.available(); n-- {
		h.renew(&h.w.senderQueue)
		h.demand(h.w)
		j := h.w.jobs[len(h.w.jobs)-1]
		h.says(h.w, j, act{kind: actDone}, true)
		f.done[string(j.data)]++
	}
}

func (h *hauler) hand(to *hauler) {
	if h == to || h.ceded || to.ceded || h.l != nil {
		return
	}
	h.l = &senderQueue{worker: worker{lost: func(uint64, uint32) {}}}
	h.to, h.in = to, &to.worker().senderQueue
	h.cede("elsewhere", func() {})
}

// move has the mover pass something on.
func (h *hauler) move(most int) {
	if h.l == nil || h.ends || len(h.under) > 0 || h.to.ceded {
		return
	}
	jobs := h.goneKeys()
	if jobs = append(jobs, h.lift(h.l, most)...); len(jobs) == 0 {
		return
	}
	for _, j := range jobs {
		h.to.renew(h.in)
		h.to.pushJob(h.in, h.to.newJob(bytes.Clone(j.data), &terms{
			key: j.key(), handed: &handedTerms{sent: j.sent, deliveries: j.deliveries, state: j.state, reason: j.reason},
		}))
	}
	h.under = jobs
}

// answer has the mover hear that the jobs are there, or that the way is lost.
func (h *hauler) answer(comes bool) {
	if comes {
		h.settleLifted(h.l, h.under)
	} else {
		h.unlift(h.l, h.under)
	}
	if h.under = nil; h.ends {
		h.l, h.ends = nil, false
	}
}

func (h *hauler) keeps() {
	if h.ceded {
		h.keepOn()
		if h.ends = len(h.under) > 0; !h.ends {
			h.l = nil
		}
	}
}

func (f *fleet) step() {
	switch h := f.home(); f.IntN(8) {
	case 0:
		f.send(h, f.sent)
		f.sent++
	case 1:
		if f.sent > 0 { // the sender does not know whether it has come
			f.send(h, f.sent-1)
		}
	case 2:
		f.work(h)
	case 3:
		h.hand(f.home())
	case 4:
		h.keeps()
	case 5:
		h.answer(f.IntN(3) > 0)
	default:
		h.move(1 + f.IntN(40))
	}
}

// Whatever homes hand to each other, and take back, no job is lost: not even where it comes home again,
// where its key has been.
func TestCedeToAndFroLosesNothing(t *testing.T) {
	for seed := range uint64(300) {
		f := newFleet(t, seed)
		for range 200 {
			f.step()
		}
		last := f.homes[0]
		for _, h := range f.homes {
			h.answer(true)
			h.keeps()
		}
		for _, h := range f.homes[1:] {
			for h.hand(last); h.ceded && !h.bare(); h.answer(true) {
				h.move(1 << 20)
			}
		}
		for last.available() {
			f.work(last)
		}
		for n := range f.sent {
			if key := fmt.Sprint("job ", n); f.done[key] == 0 && f.taken[key] {
				t.Fatalf("seed %d: %s is lost", seed, key)
			}
		}
	}
}
