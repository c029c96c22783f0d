package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

func init() { parts["signals"] = playSignals }

// lateLimit is how late a deadline may be on a busy machine.
const lateLimit = 2 * time.Second

// A signalsFound is what playSignals found.
type signalsFound struct {
	Signals, Deadlines, Opens int64
	Bytes, Chunks             int64
	Late                      time.Duration
}

var harmless = []syscall.Signal{syscall.SIGUSR1, syscall.SIGURG, syscall.SIGALRM, syscall.SIGWINCH}

func signals(_ context.Context, b *bench) (outcome, error) {
	var found signalsFound
	var sent int64
	err := b.run(task{Part: "signals"}, &found, func(c *child, done <-chan struct{}) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !closed(done) {
			<-tick.C
			c.signal(harmless[sent%int64(len(harmless))])
			sent++
		}
	})
	if err != nil {
		return outcome{}, err
	}
	if found.Signals == 0 {
		return outcome{}, errors.New("no signal arrived")
	}
	return outcome{
		times: sent,
		found: fmt.Sprintf("no error; %d MiB and %d chunks arrived, %d ends opened; of %d deadlines none early, the latest by %v",
			found.Bytes>>20, found.Chunks, found.Opens, found.Deadlines, brief(found.Late)),
	}, nil
}

func playSignals(t task) error {
	stop := untilToldTo()
	var got atomic.Int64
	arrived := make(chan os.Signal, 100)
	for _, s := range harmless {
		signal.Notify(arrived, s)
	}
	defer signal.Stop(arrived)
	go func() {
		for range arrived {
			got.Add(1)
		}
	}()
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	broker, err := zpipes.NewBroker("")
	if err != nil {
		return err
	}
	defer broker.Close()
	say("ready")

	var mu sync.Mutex
	var found signalsFound
	var failed error
	var work sync.WaitGroup
	for i, at := range append(broker.Endpoints()[1:], broker.Name()) {
		client, err := zpipes.NewClient(at)
		if err != nil {
			return err
		}
		defer client.Close()
		w := &interrupted{client: client, stop: stop, prefix: strconv.Itoa(i), rand: rand.New(rand.NewPCG(t.Seed, uint64(i)))}
		for _, f := range []func(*signalsFound) error{w.stream, w.queue, w.deadlines, w.opens} {
			work.Go(func() {
				var own signalsFound
				err := f(&own)
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
				found.Deadlines += own.Deadlines
				found.Opens += own.Opens
				found.Bytes += own.Bytes
				found.Chunks += own.Chunks
				found.Late = max(found.Late, own.Late)
			})
		}
	}
	<-stop
	if err := finish(patience, "work under signals", func() error { work.Wait(); return nil }); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	found.Signals = got.Load()
	return tell(found)
}

// An interrupted is a client that works on, and whose calls must not fail.
type interrupted struct {
	client *zpipes.Client
	stop   <-chan struct{}
	prefix string // of its pipes' names
	rand   *rand.Rand
}

func (w *interrupted) stream(found *signalsFound) error {
	rd, err := w.client.OpenReader(background, w.prefix+"stream")
	if err != nil {
		return err
	}
	wr, err := w.client.OpenWriter(background, w.prefix+"stream")
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() {
		b := make([]byte, 30_000)
		var at int64
		var err error
		for n := 0; err == nil && !closed(w.stop); at += int64(n) {
			fill(b, 0, at)
			n, err = wr.Write(b)
		}
		written <- errors.Join(err, wr.Close())
	}()
	var o oracle
	err = o.readAll(rd, 100_000)
	found.Bytes = o.off
	return errors.Join(err, rd.Close(), <-written)
}

func (w *interrupted) queue(found *signalsFound) error {
	q, err := w.client.OpenQueue(background, w.prefix+"queue")
	if err != nil {
		return err
	}
	const batch = 100
	for !closed(w.stop) {
		for i := range batch {
			if err := q.Send(background, strconv.AppendInt(nil, int64(i), 10)); err != nil {
				return err
			}
		}
		if err := q.Flush(background); err != nil {
			return err
		}
		for i := range batch {
			chunk, err := q.Receive(background)
			if err != nil {
				return err
			}
			if string(chunk) != strconv.Itoa(i) {
				return fmt.Errorf("received %q, want %d", chunk, i)
			}
		}
		found.Chunks += batch
	}
	return q.Close()
}

// deadlines lets Reads and Receives time out.
func (w *interrupted) deadlines(found *signalsFound) error {
	rd, err := w.client.OpenReader(background, w.prefix+"silent")
	if err != nil {
		return err
	}
	q, err := w.client.OpenQueue(background, w.prefix+"empty")
	if err != nil {
		return err
	}
	for !closed(w.stop) {
		at := time.Now().Add(time.Duration(w.rand.IntN(20_000)) * time.Microsecond)
		rd.SetReadDeadline(at)
		if n, err := rd.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("a Read with a deadline returned %d, %w", n, err)
		}
		if err := found.late(at); err != nil {
			return err
		}
		at = time.Now().Add(time.Duration(w.rand.IntN(20_000)) * time.Microsecond)
		ctx, cancel := context.WithDeadline(background, at)
		_, err := q.Receive(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a Receive with a deadline returned %w", err)
		}
		if err := found.late(at); err != nil {
			return err
		}
	}
	return errors.Join(rd.Close(), q.Close())
}

func (f *signalsFound) late(at time.Time) error {
	by := time.Since(at)
	f.Deadlines++
	f.Late = max(f.Late, by)
	if by < 0 || by > lateLimit {
		return fmt.Errorf("a deadline was late by %v", by)
	}
	return nil
}

func (w *interrupted) opens(found *signalsFound) error {
	for !closed(w.stop) {
		rd, err := w.client.OpenReader(background, w.prefix+"open")
		if err == nil {
			err = rd.Close()
		}
		if err == nil {
			_, err = w.client.Ping(background)
		}
		if err != nil {
			return err
		}
		found.Opens++
	}
	return nil
}
