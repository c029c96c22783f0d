//go:build linux && !core

package zpipes

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What takes how long at a broker with so many pipes, half of them queues: an open, what
// it says of itself to another process, its end; and how long others wait for its registry
// and its loop at most meanwhile. How long a goroutine that has nothing to do with it waits
// for another one says how much of that is the scheduler's, the collector's and the
// machine's. And of opens and closes is said how long one took at most, and how much of a
// processor's time one used at most: a lock is held for no more than that, whatever its
// holder has to wait for.
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
	br, err := BrokerConfig{MaxPipes: 2 * n, ForgetQueues: time.Hour}.NewBroker("")
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	c := br.Client()
	far, err := ClientConfig{Timeout: 20 * time.Second}.NewClient(br.Endpoints()[0])
	if err != nil {
		b.Fatal(err)
	}
	var calls longest
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
		calls = longest{}
		began := time.Now()
		f()
		took := time.Since(began)
		b.Logf("%8d pipes, %-18s %10v; at most, the registry was waited for %8v, a ping took %8v, two goroutines elsewhere %8v%v",
			n, what, took.Round(time.Microsecond), registry(), loop(), other(), calls)
	}
	ends := make([]*Reader, 0, n/2)
	report("open", func() {
		for i := range n / 2 {
			pipe, queue := fmt.Sprint("pipe-", i), fmt.Sprint("queue-", i)
			calls.measure(func() {
				r, err := c.OpenReader(b.Context(), pipe)
				if err != nil {
					b.Fatal(err)
				}
				ends = append(ends, r)
			})
			calls.measure(func() {
				br.pipes.use(queue, true, time.Now(), func(*chunkQueue) *cause { return nil })
			})
		}
	})
	report("nothing", func() { time.Sleep(time.Second) })
	report("Stats", func() { br.Stats() })
	report("Pipes", func() { br.Pipes() })
	report("Status over ZeroMQ", func() {
		i := slices.IndexFunc(br.Endpoints(), func(e string) bool { return strings.HasPrefix(e, "ipc://") })
		task, _ := json.Marshal(childTask{Part: "asker", Broker: br.Endpoints()[max(0, i)]})
		asker := exec.Command(os.Args[0])
		asker.Env = append(os.Environ(), childEnv+"="+string(task))
		if out, err := asker.CombinedOutput(); err != nil || string(out) != fmt.Sprint(2*(n/2)) {
			b.Errorf("%.200s, %v", out, err)
		}
	})
	report("Close of a tenth", func() {
		for _, i := range rand.Perm(n / 2)[:n/10] {
			calls.measure(func() { ends[i].Close() })
		}
	})
	far.Close()
	report("Broker.Close", func() { br.Close() })
	report("Close of the rest", func() {
		for _, r := range ends {
			calls.measure(func() { r.Close() })
		}
	})
}

func init() {
	parts["asker"] = func(task childTask) int {
		c, err := ClientConfig{Timeout: time.Minute}.NewClient(task.Broker)
		if err != nil {
			return 1
		}
		defer c.Close()
		s, err := c.Status(context.Background())
		if err != nil {
			fmt.Print(err)
			return 1
		}
		fmt.Print(len(s.Pipes))
		return 0
	}
}

// longest is how long a call took at most, and how much of a processor's time one used.
type longest struct {
	took, used  time.Duration
	calls, much int // much: those that used more than a millisecond
}

func (l *longest) measure(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, used := time.Now(), threadTime()
	f()
	used = threadTime() - used
	if l.calls++; used > time.Millisecond {
		l.much++
	}
	l.used, l.took = max(l.used, used), max(l.took, time.Since(began))
}

func (l longest) String() string {
	if l.took == 0 {
		return ""
	}
	return fmt.Sprintf(", a call %8v, and one had a processor for %8v (%d of %d for more than 1 ms)", l.took, l.used, l.much, l.calls)
}

func threadTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
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
					c.session.receive(m.append(nil), false, nil, st.now)
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

// The same for a client that waits by text as often as it may.
//
//	go test -run - -bench DropOfATextClient -benchtime 10x .
func BenchmarkDropOfATextClient(b *testing.B) {
	var longest time.Duration
	for range b.N {
		st := newStage(nil)
		st.held = true
		c := st.call()
		c.texts = true
		c.session.handleText([][]byte{[]byte("OPEN"), []byte("q")}, st.now)
		for range maxQueued {
			c.session.handleText([][]byte{[]byte("READ"), []byte("q")}, st.now)
		}
		began := time.Now()
		c.session.drop(cause{code: causeVanished}, nil)
		longest = max(longest, time.Since(began))
	}
	b.ReportMetric(longest.Seconds()*1e3, "ms-at-most")
}

// For how long the broker's loop is held up where many jobs of many queues are due at the same time.
//
//	go test -run - -bench TickOfManyQueues -benchtime 10x .
func BenchmarkTickOfManyQueues(b *testing.B) {
	const queues, jobs = 256, settleMost
	var longest time.Duration
	for range b.N {
		st := newStageOf(nil, 2*queues*jobs*leastChunk, 1<<20)
		st.pipes.maxPipes = queues
		due := st.now.Add(time.Hour)
		for i := range queues {
			l := &senderQueue{wake: func() {}}
			s, why := st.pipes.enter(fmt.Sprint(i), l, true, st.now)
			if why != nil {
				b.Fatal(why)
			}
			for range jobs {
				s.pushJob(l, &job{terms: &terms{due: due.UnixNano()}})
			}
		}
		for st.now = due; !st.pipes.alarms.next().IsZero(); {
			began := time.Now()
			st.pipes.tick(st.now)
			longest = max(longest, time.Since(began))
		}
	}
	b.ReportMetric(longest.Seconds()*1e3, "ms-at-most")
}
