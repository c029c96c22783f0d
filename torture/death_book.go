package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// A step is what a hand is about to do with a job, or has done, at that time.
type step struct {
	What   string // see book.note
	At     time.Time
	Sender string
	Number int64

	Upto     int64     // sure: for those before this one
	ID       string    // took
	Delivery int       // took, acts, settled
	Act      string    // acts, settled: done, return, reject
	Due      time.Time // sending, acts: the job is not to be had before
}

func (s *step) job() chunkID { return chunkID{s.Sender, s.Number} }

// A book has what hands have said of the jobs of a queue.
type book struct {
	mu    sync.Mutex // guards what follows
	jobs  map[chunkID]*record
	wrong error
	sure  int64
	done  int64          // confirmed
	lost  int64          // leases
	said  map[string]int // how many steps, by whom
	gone  map[string]int // how often somebody's broker was gone, also because it heard nothing
}

// A record is what is known of a job.
type record struct {
	sent    bool // or it was about to be
	sure    bool
	due     time.Time
	took    []noted
	acts    []noted // that were begun
	settled []noted // of them, confirmed
}

type noted struct {
	step
	by string
}

func newBook() *book {
	return &book{jobs: make(map[chunkID]*record), said: make(map[string]int), gone: make(map[string]int)}
}

func (b *book) of(id chunkID) *record {
	r := b.jobs[id]
	if r == nil {
		r = new(record)
		b.jobs[id] = r
	}
	return r
}

// note takes down what a hand says.
func (b *book) note(by string, s step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said[by]++
	switch s.What {
	case "sending": // a job, perhaps again
		r := b.of(s.job())
		if r.sent = true; r.due.IsZero() {
			r.due = s.Due
		}
	case "sure": // Flush has confirmed some
		for ; s.Number < s.Upto; s.Number++ {
			b.of(s.job()).sure = true
			b.sure++
		}
	case "took":
		r := b.of(s.job())
		r.took = append(r.took, noted{s, by})
	case "acts": // is about to say what becomes of it
		r := b.of(s.job())
		r.acts = append(r.acts, noted{s, by})
	case "settled": // and Flush has confirmed that
		r := b.of(s.job())
		if r.settled = append(r.settled, noted{s, by}); s.Act == "done" {
			b.done++
		}
	case "lost": // a lease, by the word of the library
		b.lost++
	case "gone": // its broker
		b.gone[by]++
	default: // what must not be
		b.wrong = errors.Join(b.wrong, fmt.Errorf("%s: %s", by, s.What))
	}
}

// open is about how many jobs there are.
func (b *book) open() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sure - b.done
}

// steps is how many somebody has said.
func (b *book) steps(by string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said[by]
}

// lateness is how much a time may be off: the broker looks at its clock now and then.
const lateness = 100 * time.Millisecond

// judge looks at a queue in which nobody works any more, and nothing is but those dead jobs.
func (b *book) judge(dead map[chunkID]zpipes.JobInfo, most, kills int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.wrong
	for id, r := range b.jobs {
		info, isDead := dead[id]
		var there *zpipes.JobInfo
		if isDead {
			there = &info
		}
		if e := r.judge(there, most, kills); e != nil && err == nil {
			err = fmt.Errorf("job %v: %w: %+v", id, e, *r)
		}
	}
	for id := range dead {
		if b.jobs[id] == nil && err == nil {
			err = fmt.Errorf("job %v, which nobody sent, is dead", id)
		}
	}
	return err
}

func times(acts []noted, act string) (n int) {
	for _, a := range acts {
		if a.Act == act {
			n++
		}
	}
	return n
}

// judge looks at one job, which in the end is dead or gone. kills is how often the broker was killed.
func (r *record) judge(dead *zpipes.JobInfo, most, kills int) error {
	done, rejected := times(r.settled, "done"), times(r.settled, "reject")
	switch {
	case dead == nil && r.sure && times(r.acts, "done") == 0:
		return errors.New("LOST: it was confirmed, nobody has done it, and it is not there")
	case dead == nil && rejected > 0:
		return errors.New("LOST: it was rejected, and is not among the dead")
	case done > 1, done > 0 && dead != nil, done > 0 && rejected > 0:
		return errors.New("BACK: it was done, and that confirmed")
	case dead != nil && times(r.acts, "reject") == 0 && (most == 0 || dead.Deliveries != most):
		return fmt.Errorf("it is dead after %d deliveries: %s", dead.Deliveries, dead.Reason)
	case most > 0 && len(r.took) > most:
		return fmt.Errorf("it was handed out %d times", len(r.took))
	}
	deliveries := make(map[int]int)
	for _, t := range r.took {
		deliveries[t.Delivery]++
		switch {
		case t.ID != r.took[0].ID:
			return errors.New("it is there twice")
		case t.Delivery < 1 || most > 0 && t.Delivery > most:
			return fmt.Errorf("delivery %d", t.Delivery)
		case deliveries[t.Delivery] > 1 && (most > 0 || deliveries[t.Delivery] > 1+kills): // a killed broker may not have written that it was handed out
			return fmt.Errorf("two have delivery %d", t.Delivery)
		case t.At.Before(r.due.Add(-lateness)):
			return errors.New("it was not due yet")
		}
		for _, s := range r.settled {
			switch {
			case kills > 0: // a number may have been given again, so only the time tells
				if s.Act != "return" && t.At.After(s.At.Add(time.Second)) {
					return fmt.Errorf("BACK: it was settled (%s)", s.Act)
				}
			case s.Delivery >= t.Delivery:
			case s.Act != "return":
				return fmt.Errorf("BACK: it was settled (%s)", s.Act)
			case t.At.Before(s.Due.Add(-lateness)):
				return errors.New("it was returned with a delay, and came before")
			}
		}
	}
	return nil
}

// A bereavement is that of the jobs which a hand had when it died, or fell silent.
type bereavement struct {
	by    string
	since func(took step) time.Time // when others could have the job
	until time.Time                 // what the hand said before that counts
}

// waits is how long it took until others had each of the jobs that were not settled. Those that
// were delivered as often as they may be are dead instead.
func (b *book) waits(of bereavement, most int) (waits []time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, r := range b.jobs {
		for _, t := range r.took {
			if t.by != of.by || t.At.After(of.until) || r.said(&t, of.until) || most > 0 && t.Delivery >= most {
				continue
			}
			next, ok := r.next(&t)
			if !ok {
				return nil, fmt.Errorf("job %v, which the %s had, came to nobody: %+v", id, of.by, *r)
			}
			waits = append(waits, next.At.Sub(of.since(t.step)))
		}
	}
	return waits, nil
}

// said says that who had the job then had begun to say something of it.
func (r *record) said(t *noted, until time.Time) bool {
	return slices.ContainsFunc(r.acts, func(a noted) bool {
		return a.by == t.by && a.Delivery == t.Delivery && !a.At.After(until)
	})
}

// next is the first who had the job later.
func (r *record) next(t *noted) (next noted, ok bool) {
	for _, o := range r.took {
		if o.At.After(t.At) && (!ok || o.At.Before(next.At)) {
			next, ok = o, true
		}
	}
	return next, ok
}
