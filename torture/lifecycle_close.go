package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pebbe/zmq4"
	"github.com/zpipes/zpipes"
)

func init() { parts["lifecycle"] = playLifecycle }

// closeLimit is what a Close may take: the broker's farewell takes up to half a second,
// a client's up to one where nobody answers; and the machine may be busy.
const closeLimit = 3 * time.Second

// A lifecycleFound is what playLifecycle found.
type lifecycleFound struct {
	Scenes, Ends int64
	Worst        map[string]time.Duration // by who was closed
	Before, Now  usage
}

func lifecycle(_ context.Context, b *bench) (outcome, error) {
	var found lifecycleFound
	if err := b.run(task{Part: "lifecycle"}, &found, nil); err != nil {
		return outcome{}, err
	}
	return outcome{
		times: found.Scenes,
		found: fmt.Sprintf("%d ends opened; slowest Close of a broker %v, of a client %v, Shutdown %v; "+
			"goroutines %d → %d, descriptors %d → %d, threads %d → %d, memory %d → %d MiB",
			found.Ends, brief(found.Worst["broker"]), brief(found.Worst["client"]), brief(found.Worst["shutdown"]),
			found.Before.Goroutines, found.Now.Goroutines, found.Before.Descriptors, found.Now.Descriptors,
			found.Before.Threads, found.Now.Threads, found.Before.Resident>>20, found.Now.Resident>>20),
	}, nil
}

func playLifecycle(t task) error {
	stop := untilToldTo()
	shared, err := zmq4.NewContext()
	if err != nil {
		return err
	}
	found := lifecycleFound{Worst: make(map[string]time.Duration)}
	rng := rand.New(rand.NewPCG(t.Seed, 0))
	round := func() error {
		const atOnce = 4
		var work sync.WaitGroup
		var mu sync.Mutex
		var failed error
		for range atOnce {
			s := &scene{rand: rand.New(rand.NewPCG(rng.Uint64(), 0)), worst: make(map[string]time.Duration)}
			if rng.IntN(3) == 0 {
				s.context = shared
			}
			work.Go(func() {
				err := s.play()
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
				found.Scenes++
				found.Ends += s.ends
				for what, d := range s.worst {
					found.Worst[what] = max(found.Worst[what], d)
				}
			})
		}
		if err := finish(patience, "a round", func() error { work.Wait(); return nil }); err != nil {
			return err
		}
		return failed
	}
	const warmUp = 5
	for range warmUp {
		if err := round(); err != nil {
			return err
		}
	}
	if found.Before, err = use(); err != nil {
		return err
	}
	for once := true; once || !closed(stop); once = false {
		if err := round(); err != nil {
			return err
		}
	}
	if err := leaked(found.Before); err != nil {
		return err
	}
	if found.Now, err = use(); err != nil {
		return err
	}
	if err := shared.Term(); err != nil {
		return err
	}
	return tell(found)
}

// A scene is a broker, a client, and what they do until they are closed.
type scene struct {
	rand    *rand.Rand
	context *zmq4.Context
	broker  *zpipes.Broker
	client  *zpipes.Client
	ends    int64

	mu    sync.Mutex
	worst map[string]time.Duration
}

func (s *scene) play() (err error) {
	cfg := zpipes.BrokerConfig{Context: s.context}
	switch s.rand.IntN(6) {
	case 0:
		cfg.Endpoints = []string{} // inproc alone
	case 1:
		cfg.Endpoints = []string{fmt.Sprintf("unix://@/zpipes/torture-%d-%x", os.Getpid(), s.rand.Uint64())}
	}
	if s.broker, err = cfg.NewBroker(""); err != nil {
		return err
	}
	endpoints := s.broker.Endpoints()
	at := append([]string{s.broker.Name()}, endpoints...)[s.rand.IntN(1+len(endpoints))]
	s.client, err = zpipes.ClientConfig{Timeout: time.Second}.NewClient(at)
	if err != nil {
		return err
	}
	var load sync.WaitGroup
	errs := make(chan error, 10)
	start := func(f func() error) { load.Go(func() { errs <- f() }) }
	if s.rand.IntN(2) == 0 {
		size := 1 + s.rand.IntN(100_000)
		start(func() error { return s.stream(size) })
	}
	if s.rand.IntN(2) == 0 {
		start(s.queue)
	}
	if s.rand.IntN(2) == 0 {
		start(s.opens)
	}
	if s.rand.IntN(4) == 0 {
		start(func() error { s.client.Ping(background); return nil })
	}
	time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Microsecond)

	var ending sync.WaitGroup
	steps := []func(){s.closeBroker, s.closeClient, s.shutdown}
	s.rand.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	if s.rand.IntN(3) == 0 {
		for _, f := range steps {
			ending.Go(f)
		}
	} else {
		for _, f := range steps {
			f()
		}
	}
	ending.Wait()
	load.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	for what, d := range s.worst {
		if d > closeLimit {
			err = errors.Join(err, fmt.Errorf("to close a %s took %v", what, d))
		}
	}
	return err
}

func (s *scene) timed(what string, f func()) {
	began := time.Now()
	f()
	took := time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worst[what] = max(s.worst[what], took)
}

func (s *scene) closeBroker() { s.timed("broker", func() { s.broker.Close() }) }
func (s *scene) closeClient() { s.timed("client", func() { s.client.Close() }) }

func (s *scene) shutdown() {
	ctx, cancel := context.WithTimeout(background, 5*time.Millisecond)
	defer cancel()
	s.timed("shutdown", func() { s.broker.Shutdown(ctx) })
}

// opened counts an end that could be opened.
func (s *scene) opened(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.ends++
	}
	return err == nil
}

// stream passes data through a stream, until something ends that. What is read must be
// what was written, and all of it where the end is clean.
func (s *scene) stream(size int) error {
	r, err := s.client.OpenReader(background, "stream")
	if !s.opened(err) {
		return nil
	}
	w, err := s.client.OpenWriter(background, "stream")
	if !s.opened(err) {
		r.Close()
		return nil
	}
	var reading sync.WaitGroup
	var written int64
	var failed error
	var o oracle
	reading.Go(func() {
		failed = o.readAll(r, 64<<10)
		r.Close()
	})
	b := make([]byte, size)
	for range 100 {
		fill(b, o.seed, written)
		n, err := w.Write(b)
		written += int64(n)
		if err != nil {
			break
		}
	}
	w.Close()
	reading.Wait()
	switch {
	case o.off > written || failed == nil && o.off < written:
		return fmt.Errorf("a stream of %d bytes, of which %d were read, has the end %w", written, o.off, failed)
	case failed == nil, errors.Is(failed, zpipes.ErrBrokerGone), errors.Is(failed, io.ErrUnexpectedEOF), errors.Is(failed, os.ErrClosed):
		return nil
	}
	return failed
}

// queue sends chunks and receives them, in order, until something ends that.
func (s *scene) queue() error {
	q, err := s.client.OpenQueue(background, "queue")
	if !s.opened(err) {
		return nil
	}
	defer q.Close()
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for i := range 3000 {
			if q.Send(background, strconv.AppendInt(nil, int64(i), 10)) != nil {
				return
			}
		}
	})
	for i := range 3000 {
		chunk, err := q.Receive(background)
		if err != nil {
			return nil
		}
		if string(chunk) != strconv.Itoa(i) {
			return fmt.Errorf("received %q, want %d", chunk, i)
		}
	}
	return nil
}

// opens opens and closes ends, until something ends that.
func (s *scene) opens() error {
	for i := range 100 {
		r, err := s.client.OpenReader(background, "open"+strconv.Itoa(i%3))
		if !s.opened(err) {
			return nil
		}
		if i%2 == 0 {
			r.Close()
		} else {
			r.CloseWithError(errors.New("enough"))
		}
	}
	return nil
}
