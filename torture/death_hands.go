package main

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/zpipes/zpipes"
)

// A hand sends jobs to a queue, or works on them, as a goroutine of this process or in one that dies.
// When the broker is gone it goes on at the next one.
type hand struct {
	client *zpipes.Client
	queue  string
	cfg    zpipes.QueueConfig
	seed   uint64
	rand   *rand.Rand
	note   func(step)
	rest   time.Duration   // between what it sends
	hangs  bool            // with all that it takes
	enough func() bool     // a sender waits as long as that is so
	calm   <-chan struct{} // when it is closed, a worker just does what there is
}

func init() { parts["hands"] = playHands }

// playHands has hands work until the process is killed, or told to end.
func playHands(t task) error {
	client, err := zpipes.ClientConfig{Heartbeat: t.Fate.Heartbeat}.NewClient(t.Broker)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := context.WithCancel(background)
	go func() {
		<-untilToldTo()
		stop()
	}()
	failed := make(chan error)
	for i, role := range t.Fate.Roles {
		h := &hand{
			client: client, queue: t.Pipe, cfg: t.Queue, seed: t.Seed + uint64(i), rand: rand.New(rand.NewPCG(t.Seed, uint64(i))),
			note: func(s step) { tell(s) }, rest: t.Fate.Rest, hangs: role == 'h', enough: func() bool { return false },
		}
		go func() {
			if role == 's' {
				failed <- h.send(ctx)
			} else {
				failed <- h.work(ctx)
			}
		}()
	}
	for range t.Fate.Roles {
		err = errors.Join(err, <-failed)
	}
	return err
}

// hear notes what a process with hands says, until it is no more.
func (c *child) hear(by string, b *book) {
	for {
		line, err := c.line()
		if err != nil { // perhaps in the middle of a line
			return
		}
		var s step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			s.What = "it said " + strconv.Quote(line)
		}
		b.note(by, s)
	}
}

func (h *hand) say(s step) {
	s.At = time.Now()
	h.note(s)
}

func (h *hand) open() (*zpipes.Queue, error) { return h.cfg.OpenQueue(background, h.client, h.queue) }

// again says whether an error is one of a broker that is gone, and comes back.
func again(err error) bool {
	return errors.Is(err, zpipes.ErrBrokerGone) || errors.Is(err, zpipes.ErrNoBroker)
}

func (h *hand) pause() {
	if h.rand.IntN(4) == 0 {
		time.Sleep(time.Duration(h.rand.IntN(3000)) * time.Microsecond)
	}
}

// A batch is jobs that are flushed together.
type batch struct {
	once  bool // they are sent again until that is confirmed
	delay time.Duration
	first int64
	all   [][]byte
}

// send sends until it is told to stop.
func (h *hand) send(ctx context.Context) error {
	var q *zpipes.Queue
	for n := int64(0); ctx.Err() == nil; h.pause() {
		time.Sleep(h.rest)
		if h.enough() {
			time.Sleep(time.Millisecond)
			continue
		}
		b := batch{once: h.rand.IntN(2) == 0, first: n}
		if !b.once && h.rand.IntN(3) == 0 {
			b.delay = time.Duration(h.rand.IntN(200)) * time.Millisecond
		}
		for range 1 + h.rand.IntN(20) {
			b.all = append(b.all, newChunk(h.rand, h.seed, n))
			n++
		}
		for {
			err := errors.New("not open")
			if q == nil {
				q, err = h.open()
			}
			if q != nil {
				err = h.flushed(q, &b)
			}
			if err == nil {
				h.say(step{What: "sure", Sender: senderName(h.seed), Number: b.first, Upto: n})
				break
			}
			if !again(err) {
				return err
			}
			if q != nil {
				q.Close()
				q = nil
			}
			if !b.once || ctx.Err() != nil {
				break
			}
		}
	}
	if q == nil {
		return nil
	}
	if err := q.Close(); err != nil && !again(err) {
		return err
	}
	return nil
}

// flushed sends a batch, and waits until that is confirmed.
func (h *hand) flushed(q *zpipes.Queue, b *batch) error {
	ctx, cancel := context.WithTimeout(background, 10*patience) // there may be no room until others have worked
	defer cancel()
	for i, c := range b.all {
		s := step{What: "sending", Sender: senderName(h.seed), Number: b.first + int64(i)}
		if b.delay > 0 {
			s.Due = time.Now().Add(b.delay)
		}
		h.say(s)
		var err error
		if b.once {
			err = q.SendOnce(ctx, strconv.FormatInt(s.Number, 10)+" of "+s.Sender, c)
		} else {
			err = q.SendAfter(ctx, b.delay, c)
		}
		if err != nil {
			return err
		}
	}
	return q.Flush(ctx)
}

// work works until it is told to stop.
func (h *hand) work(ctx context.Context) error {
	for ctx.Err() == nil {
		q, err := h.open()
		if err == nil {
			s := shift{hand: h, queue: q}
			err = s.work(ctx)
			if e := s.confirmed(q.Close()); err == nil {
				err = e
			}
		}
		switch {
		case again(err):
			h.say(step{What: "gone"})
		case err != nil && !errors.Is(err, context.Canceled):
			return err
		}
	}
	return nil
}

// A shift is a worker's time with a Queue.
type shift struct {
	*hand
	queue *zpipes.Queue
	has   []*zpipes.Job
	known []step // what it has said of jobs and is not confirmed
}

// work returns an error, or with none where it leaves with some jobs.
func (s *shift) work(ctx context.Context) error {
	for {
		j, err := s.take(ctx)
		switch {
		case err == nil:
			s.took(j)
			if s.has = append(s.has, j); !s.calmly() && len(s.has) < 4 && s.rand.IntN(2) == 0 {
				continue
			}
		case s.hangs && len(s.has) > 0:
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		if s.hangs {
			return s.hang()
		}
		if !s.calmly() && s.rand.IntN(50) == 0 {
			return nil // the Queue's Close returns them
		}
		if !s.calmly() {
			s.pause()
		}
		s.rand.Shuffle(len(s.has), func(i, k int) { s.has[i], s.has[k] = s.has[k], s.has[i] })
		for _, j := range s.has {
			if err := s.act(j); err != nil {
				return err
			}
		}
		s.has = s.has[:0]
		if s.rand.IntN(4) == 0 {
			if err := s.confirmed(s.queue.Flush(ctx)); err != nil {
				return err
			}
		}
	}
}

func (s *shift) take(ctx context.Context) (*zpipes.Job, error) {
	if len(s.has) > 0 { // which must not wait for others
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
	}
	return s.queue.Take(ctx)
}

func (s *shift) took(j *zpipes.Job) {
	id, wrong := readChunk(j.Data)
	if wrong != nil {
		s.say(step{What: wrong.Error()})
	}
	s.say(step{What: "took", Sender: id.sender, Number: id.number, ID: j.ID, Delivery: j.Deliveries})
}

func (s *shift) calmly() bool { return closed(s.calm) }

// hang does nothing until the leases are lost, and finds that they are.
func (s *shift) hang() error {
	for _, j := range s.has {
		<-j.Context().Done()
		if err := context.Cause(j.Context()); !errors.Is(err, zpipes.ErrLeaseLost) {
			s.say(step{What: "a lease ended with " + err.Error()})
		}
		if err := j.Done(); !errors.Is(err, zpipes.ErrLeaseLost) && !again(err) {
			s.say(step{What: "Done behind the lease said " + class(err)})
		}
		s.say(step{What: "lost"})
	}
	s.has = s.has[:0]
	return nil
}

// act says what becomes of a job: it is done, mostly.
func (s *shift) act(j *zpipes.Job) error {
	n := s.rand.IntN(100)
	switch {
	case s.calmly() || n < 70:
	case n < 80:
		if err := j.Extend(time.Second); err != nil {
			return s.lostIs(err)
		}
	case n < 90:
		delay := time.Duration(1+s.rand.IntN(300)) * time.Millisecond
		return s.tell(j, step{Act: "return", Due: time.Now().Add(delay)}, func() error { return j.Return(delay) })
	case n < 98:
		return s.tell(j, step{Act: "return"}, func() error { return j.Return(0) })
	default:
		return s.tell(j, step{Act: "reject"}, func() error { return j.Reject("it was so") })
	}
	return s.done(j)
}

func (s *shift) done(j *zpipes.Job) error { return s.tell(j, step{Act: "done"}, j.Done) }

// tell does what it says before.
func (s *shift) tell(j *zpipes.Job, a step, do func() error) error {
	id, _ := readChunk(j.Data)
	a.What, a.Sender, a.Number, a.Delivery = "acts", id.sender, id.number, j.Deliveries
	s.say(a)
	if err := do(); err != nil {
		return s.lostIs(err)
	}
	s.known = append(s.known, a)
	return nil
}

// lostIs passes over a lease that was lost.
func (s *shift) lostIs(err error) error {
	if errors.Is(err, zpipes.ErrLeaseLost) {
		s.say(step{What: "lost"})
		return nil
	}
	return err
}

// confirmed is for what Flush and Close return.
func (s *shift) confirmed(err error) error {
	if err == nil {
		for _, a := range s.known {
			a.What = "settled"
			s.say(a)
		}
	}
	s.known = s.known[:0]
	return s.lostIs(err) // which of them it was, it does not say
}
