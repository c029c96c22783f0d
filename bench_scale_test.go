//go:build !core

package zpipes

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// What takes how long at a broker with so many pipes, half of them queues: an open, what
// it says of itself, its end; and how long others wait for its registry and its loop at
// most meanwhile. How long a goroutine that has nothing to do with it waits for another one
// says how much of that is the scheduler's, the collector's and the machine's.
//
//	go test -run - -bench ManyPipes -benchtime 1x -v .
func BenchmarkManyPipes(b *testing.B) {
	for _, n := range []int{1e4, 1e5, 1e6} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				benchmarkManyPipes(b, n)
			}
		})
	}
}

func benchmarkManyPipes(b *testing.B, n int) {
	br, err := BrokerConfig{Endpoints: []string{}, MaxPipes: 2 * n, ForgetQueues: time.Hour}.NewBroker("")
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	c := br.Client()
	far, err := ClientConfig{Timeout: 20 * time.Second}.NewClient(br.Endpoints()[0])
	if err != nil {
		b.Fatal(err)
	}
	report := func(what string, f func()) {
		registry := probe(func() { br.pipes.refusal() })
		loop := probe(func() {
			if br.serving() {
				far.Ping(b.Context())
			}
		})
		there, back := make(chan bool), make(chan bool)
		defer close(there)
		go func() {
			for range there {
				back <- true
			}
		}()
		other := probe(func() { there <- true; <-back })
		began := time.Now()
		f()
		took := time.Since(began)
		b.Logf("%8d pipes, %-18s %10v; at most, the registry was held for %8v, a ping took %8v, two goroutines elsewhere %8v",
			n, what, took.Round(time.Microsecond), registry(), loop(), other())
	}
	ends := make([]*Reader, 0, n/2)
	report("open", func() {
		for i := range n / 2 {
			r, err := c.OpenReader(b.Context(), fmt.Sprint("pipe-", i))
			if err != nil {
				b.Fatal(err)
			}
			ends = append(ends, r)
			br.pipes.use(fmt.Sprint("queue-", i), true, time.Now(), func(*chunkQueue) *cause { return nil })
		}
	})
	report("nothing", func() { time.Sleep(time.Second) })
	report("Stats", func() { br.Stats() })
	report("Pipes", func() { br.Pipes() })
	report("Status over ZeroMQ", func() {
		if s, err := far.Status(b.Context()); err != nil || len(s.Pipes) != 2*(n/2) {
			b.Errorf("%d pipes, %v", len(s.Pipes), err)
		}
	})
	report("Close of a tenth", func() {
		for _, i := range rand.Perm(n / 2)[:n/10] {
			ends[i].Close()
		}
	})
	far.Close()
	report("Broker.Close", func() { br.Close() })
	report("Close of the rest", func() {
		for _, r := range ends {
			r.Close()
		}
	})
}

// probe calls f all the time until the function that it returns is called, which says
// how long it took at most, but for the first times.
func probe(f func()) func() time.Duration {
	var worst []time.Duration
	stop := make(chan struct{})
	var wg sync.WaitGroup
	f()
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			f()
			worst = append(worst, time.Since(began))
			time.Sleep(50 * time.Microsecond)
		}
	})
	return func() time.Duration {
		close(stop)
		wg.Wait()
		return slices.Max(append(worst, 0))
	}
}

// For how long a client that has so many ends holds up the others when it is dropped: at
// most, and in all.
//
//	go test -run - -bench DropOfAClient -benchtime 10x .
func BenchmarkDropOfAClient(b *testing.B) {
	for _, ends := range []int{1 << 10, 1 << 15} {
		b.Run(fmt.Sprint(ends), func(b *testing.B) {
			var longest, all time.Duration
			for range b.N {
				st := newStage(nil)
				st.held = true
				st.pipes = newRegistry(ends, 1<<20, 1<<20)
				c := st.call()
				c.session.agreed = true
				for channel := range uint32(ends) {
					m := message{id: msgInput, block: hasBlock, channel: channel + 1, text: fmt.Append(nil, "pipe-", channel)}
					c.session.handle(m.append(nil), st.now)
				}
				timed := func(f func()) {
					began := time.Now()
					f()
					took := time.Since(began)
					longest, all = max(longest, took), all+took
				}
				timed(func() { c.session.drop(cause{code: causeVanished}, nil) })
				for len(st.posted) > 0 {
					x := st.posted[0]
					st.posted = st.posted[1:]
					x.letter().posted = false
					timed(func() { x.resume(st.now) })
				}
			}
			b.ReportMetric(longest.Seconds()*1e3, "ms-at-most")
			b.ReportMetric(all.Seconds()*1e3/float64(b.N), "ms-in-all")
		})
	}
}
