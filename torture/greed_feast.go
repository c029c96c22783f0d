package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The trials of greed are feasts: a broker in a process of its own, greedy guests in
// others, and a neighbour, also in a process of its own, who passes 64 bytes through a
// pipe over ipc, and through another near, every few milliseconds, and must not be
// disturbed.

// A feast is what such a trial works on.
type feast struct {
	ctx       context.Context
	broker    *guest
	neighbour *guest
	name      string // of the broker
	endpoints []string
	before    state // of the broker, when only the neighbour was there
	idle      lap   // the neighbour's, likewise
	seed      uint64

	mu     sync.Mutex // guards guests
	guests []*guest

	times int64
	found []string // by course
	worst lap      // the neighbour's, of all courses
	stays int64    // what the broker may still have more than before; 0: staysUsually
}

// A guest is a process that runs errands.
type guest struct {
	*child
	in  *json.Encoder
	out *json.Decoder
}

// An errand is what a guest is to do, as far as it needs to know.
type errand struct {
	Do       string // in errands
	Endpoint string
	Pipe     string // a pipe's or queue's name, or what theirs begin with
	Kind     string
	Count    int64 // of the broker: how many ends there may be; 0: as usual
	Size     int64 // of the broker: what pipes of a client may hold; 0: as usual
	AtOnce   int
	Seed     uint64
	Timeout  time.Duration // the broker's ClientTimeout; 0: clientTimeout
}

// A tally is what came of it.
type tally struct {
	Times, Offered, Taken, Dropped int64
	Found                          string // in words

	Broker brokerState
	Lap    lap
	Error  string
}

const (
	// errandTime is how long a guest may be about an errand.
	errandTime = 2 * time.Minute
	// settling is how long the broker may need to forget who is gone: its ClientTimeout, and
	// much more on a machine with other work.
	settling = 20 * time.Second
	// hanging is what no round trip of the neighbour's may take, on a machine that the guests
	// alone keep busy.
	hanging = 5 * time.Second

	// Threads that Go or libzmq once needed stay; there may be a few more of them.
	moreThreads = 12
	// A descriptor or two are those of looking into /proc and of Go's poller.
	moreDescriptors = 2
	// staysUsually is what may be left of the broker's memory: libc's and Go's heaps have
	// grown, and not all of them can be given back.
	staysUsually = 40 << 20
)

func newFeast(ctx context.Context, b *bench) (*feast, error) { return newFeastOf(ctx, b, errand{}) }

// newFeastOf is newFeast with another kind of broker.
func newFeastOf(ctx context.Context, b *bench, serve errand) (*feast, error) {
	f := &feast{ctx: ctx, seed: b.rand.Uint64(), name: fmt.Sprintf("greed-%d-%x", os.Getpid(), b.rand.Uint32())}
	err := f.prepare(serve, time.Duration(b.size(int64(2*time.Second))))
	if err != nil {
		f.end()
		return nil, err
	}
	return f, nil
}

func (f *feast) prepare(serve errand, idle time.Duration) (err error) {
	if f.broker, err = f.guest(); err != nil {
		return err
	}
	serve.Do, serve.Pipe = "serve", f.name
	got, err := f.ask(f.broker, serve)
	if err != nil {
		return err
	}
	f.endpoints = got.Broker.Endpoints
	if f.neighbour, err = f.guest(); err != nil {
		return err
	}
	for _, at := range []string{f.ipc(), f.name} {
		if _, err = f.ask(f.neighbour, errand{Do: "neighbour", Endpoint: at}); err != nil {
			return err
		}
	}
	if err = f.wait(max(idle, 300*time.Millisecond)); err != nil {
		return err
	}
	got, err = f.ask(f.neighbour, errand{Do: "lap"})
	if err != nil {
		return err
	}
	f.idle = got.Lap
	f.before, err = f.look()
	return err
}

// Where the broker is served. Its first endpoint is inproc.
func (f *feast) inproc() string { return f.endpoints[0] }
func (f *feast) ipc() string    { return f.endpoints[1] }
func (f *feast) tcp() string    { return f.endpoints[2] }
func (f *feast) near() string   { return f.endpoints[3] }

// wait is for what is to last for some time.
func (f *feast) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

func (f *feast) guest() (*guest, error) {
	c, err := startChild(task{Part: "greed"})
	if err != nil {
		return nil, err
	}
	g := &guest{child: c, in: json.NewEncoder(c.stdin), out: json.NewDecoder(c.out)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guests = append(f.guests, g)
	return g, nil
}

// ask has a guest run an errand, and returns what came of it. A guest that takes too
// long is killed.
func (f *feast) ask(g *guest, e errand) (t tally, err error) {
	kill := func() { g.signal(syscall.SIGKILL) }
	defer context.AfterFunc(f.ctx, kill)()
	late := time.AfterFunc(errandTime, kill)
	defer late.Stop()
	if err = g.in.Encode(e); err == nil {
		err = g.out.Decode(&t)
	}
	if err == nil && t.Error != "" {
		err = errors.New(t.Error)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", e.Do, e.Kind, err)
	}
	return t, err
}

// send is ask of a new guest, who then leaves.
func (f *feast) send(e errand) (tally, error) {
	g, err := f.guest()
	if err != nil {
		return tally{}, err
	}
	defer f.dismiss(g)
	return f.ask(g, e)
}

// dismiss ends a guest's process.
func (f *feast) dismiss(g *guest) {
	f.mu.Lock()
	f.guests = slices.DeleteFunc(f.guests, func(other *guest) bool { return other == g })
	f.mu.Unlock()
	g.kill()
}

func (f *feast) end() {
	for len(f.guests) > 0 {
		f.dismiss(f.guests[len(f.guests)-1])
	}
}

// all sends guests on errands at the same time, and adds up what came of it.
func (f *feast) all(errands ...errand) (sum tally, err error) {
	got, errs := make([]tally, len(errands)), make([]error, len(errands))
	var wg sync.WaitGroup
	for i, e := range errands {
		wg.Go(func() { got[i], errs[i] = f.send(e) })
	}
	wg.Wait()
	for _, t := range got {
		sum.add(t)
	}
	return sum, errors.Join(errs...)
}

func (t *tally) add(u tally) {
	t.Times += u.Times
	t.Offered += u.Offered
	t.Taken += u.Taken
	t.Dropped += u.Dropped
}

// A way is one in which other processes come to the broker.
type way struct{ name, endpoint string }

// Text has ZeroMQ's only.
func (f *feast) zeromq() []way { return []way{{"ipc", f.ipc()}} }
func (f *feast) ways() []way   { return append(f.zeromq(), way{"near", f.near()}) }

// courses are a course for each of these ways.
func (f *feast) courses(what string, most int64, ways []way, run func(endpoint string) (tally, error)) error {
	for _, way := range ways {
		err := f.course(what+", "+way.name, most, func() (tally, error) { return run(way.endpoint) })
		if err != nil {
			return err
		}
	}
	return nil
}

// A course is one kind of greed, by which the broker may grow by at most so much while
// it lasts. When it is over, nothing of it may be left.
func (f *feast) course(what string, most int64, run func() (tally, error)) error {
	if err := f.serve(what, most, run); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (f *feast) serve(what string, most int64, run func() (tally, error)) error {
	before, err := f.look()
	if err != nil {
		return err
	}
	if err := f.broker.process().forgetPeak(); err != nil {
		return err
	}
	if _, err := f.ask(f.neighbour, errand{Do: "lap"}); err != nil {
		return err
	}
	got, err := run()
	if err != nil {
		return err
	}
	peak, err := f.broker.process().peak()
	if err != nil {
		return err
	}
	round, err := f.ask(f.neighbour, errand{Do: "lap"})
	if err != nil {
		return err
	}
	if err := f.settled(); err != nil {
		return err
	}
	grown := peak - before.Resident
	f.times += got.Times
	f.worst = f.worst.or(round.Lap)
	f.found = append(f.found, fmt.Sprintf("%s: %s, %s, p99 %v", what, got.Found, signed(grown), brief(round.Lap.P99)))
	switch {
	case grown > most && !raceDetector:
		return fmt.Errorf("the broker grew by %s, and may by %s", mebibytes(grown), mebibytes(most))
	case round.Lap.Most > hanging:
		return fmt.Errorf("a round trip of the neighbour took %v", round.Lap.Most)
	case round.Lap.Count == 0:
		return errors.New("the neighbour had no round trip")
	}
	return nil
}

// settled waits until the broker is as it was before the first guest came.
func (f *feast) settled() error {
	for end := time.Now().Add(settling); ; {
		now, err := f.look()
		if err != nil {
			return err
		}
		left := f.left(now)
		if left == nil || time.Now().After(end) {
			return left
		}
		if err := f.wait(50 * time.Millisecond); err != nil {
			return err
		}
	}
}

// left is what of the guests is left.
func (f *feast) left(now state) error {
	stays := max(f.stays, staysUsually)
	var left []string
	for _, x := range []struct {
		what              string
		before, now, more int64
	}{
		{"pipes", int64(f.before.Stats.Pipes), int64(now.Stats.Pipes), 0},
		{"clients", int64(f.before.Stats.Clients), int64(now.Stats.Clients), 0},
		{"goroutines", f.before.Goroutines, now.Goroutines, 0},
		{"descriptors", f.before.Descriptors, now.Descriptors, moreDescriptors},
		{"threads", f.before.Threads, now.Threads, moreThreads},
	} {
		if x.now > x.before+x.more {
			left = append(left, fmt.Sprintf("%d %s, where there were %d", x.now, x.what, x.before))
		}
	}
	if kept := now.Resident - f.before.Resident; kept > stays && !raceDetector {
		left = append(left, fmt.Sprintf("%s of memory, and %s may be", mebibytes(kept), mebibytes(stays)))
	}
	if left == nil {
		return nil
	}
	return errors.New("the broker has " + strings.Join(left, "; "))
}

// outcome is what the feast has to tell.
func (f *feast) outcome() (outcome, error) {
	now, err := f.look()
	if err != nil {
		return outcome{}, err
	}
	return outcome{f.times, fmt.Sprintf("%s<br>Afterwards: %s, threads %d → %d, descriptors %d → %d, goroutines %d → %d. The neighbour's p99: idle %v, meanwhile %v, and %v at most",
		strings.Join(f.found, "<br>"), signed(now.Resident-f.before.Resident),
		f.before.Threads, now.Threads, f.before.Descriptors, now.Descriptors, f.before.Goroutines, now.Goroutines,
		brief(f.idle.P99), brief(f.worst.P99), brief(f.worst.Most))}, nil
}
