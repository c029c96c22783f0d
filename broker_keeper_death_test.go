//go:build unix && !core

package zpipes

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whenever a broker is killed: what was flushed is there afterwards, and what was done and
// flushed is not.
func TestKeptQueueWhoseBrokerIsKilled(t *testing.T) {
	t.Parallel()
	name, dir := uniqueName(t), t.TempDir()
	sent, confirmed, said, settled := 0, make(map[string]bool), make(map[string]bool), make(map[string]bool)
	start := func() (*child, *Queue) {
		b := startChild(t, childTask{Part: "broker", Broker: name, Dir: dir, MaxPending: 4000}).ready()
		c, err := NewClient(name)
		check(t, err)
		t.Cleanup(func() { c.Close() })
		q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), c, "jobs")
		check(t, err)
		return b, q
	}
	for round := 0; round < 8 || round < 40 && len(settled) == 0; round++ { // it may be over before anything is done
		b, q := start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rand.IntN(200))*time.Millisecond)
		t.Cleanup(cancel)
		done := make(chan struct{})
		go func() { // a worker, who may lose its last words
			defer close(done)
			var last []string
			for j, err := range q.Jobs(ctx) {
				if err != nil {
					return
				}
				said[string(j.Data)] = true // the broker may hear it and die
				if j.Done() != nil {
					return
				}
				if last = append(last, string(j.Data)); len(last) == 10 {
					if q.Flush(ctx) != nil {
						return
					}
					for _, d := range last {
						settled[d] = true
					}
					last = nil
				}
			}
		}()
		var last []string
		for ctx.Err() == nil {
			last = append(last, fmt.Sprintf("%100d", sent))
			if sent++; q.Send(ctx, []byte(last[len(last)-1])) != nil {
				break
			}
			if len(last) == 20 {
				if q.Flush(ctx) != nil {
					break
				}
				for _, s := range last {
					confirmed[s] = true
				}
				last = nil
			}
		}
		b.kill()
		<-done
	}
	_, q := start()
	there := make(map[string]bool)
	for s := range said {
		delete(confirmed, s)
	}
	for len(confirmed) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
		got, err := q.Receive(ctx)
		cancel()
		if err != nil {
			break
		}
		there[string(got)] = true
		if settled[string(got)] {
			t.Errorf("%.120s is back, which was done", got)
		}
		delete(confirmed, string(got))
	}
	t.Logf("%d sent, %d done, %d found in the end", sent, len(settled), len(there))
	if len(confirmed) > 0 || len(settled) == 0 || len(there) == 0 {
		t.Errorf("%d are lost that were confirmed", len(confirmed))
	}
}

func init() { parts["poisoned"] = playPoisoned }

// playPoisoned is a broker's process that dies as soon as it has a job.
func playPoisoned(task childTask) int {
	ctx := context.Background()
	b, err := BrokerConfig{Dir: task.Dir, Endpoints: []string{}}.NewBroker("")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	q, err := QueueConfig{Durable: true, MaxDeliveries: 1}.OpenQueue(ctx, b.Client(), task.Pipe)
	if err == nil {
		err = q.Send(ctx, []byte("poison"))
	}
	if err == nil {
		err = q.Flush(ctx)
	}
	if err == nil {
		_, err = q.Take(ctx)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// A job at which the process of its broker ends counts as delivered, however soon that was, or it
// would be for ever.
func TestKeptJobThatEndsItsBrokerIsCounted(t *testing.T) {
	for i := range 5 {
		dir := filepath.Join(t.TempDir(), "queues")
		for line := range startChild(t, childTask{Part: "poisoned", Dir: dir, Pipe: "q"}).lines {
			t.Fatal(line)
		}
		b, err := BrokerConfig{Dir: dir, Endpoints: []string{}}.NewBroker("")
		check(t, err)
		n := 0
		for j, err := range b.Client().PeekJobs(t.Context(), "q") {
			check(t, err)
			if n++; j.State != JobTaken || j.Deliveries != 1 {
				t.Errorf("round %d: the job is %s, and was delivered %d times", i, j.State, j.Deliveries)
			}
		}
		if n != 1 {
			t.Errorf("round %d: %d jobs are there", i, n)
		}
		b.Close()
	}
}

func init() { parts["poor keeper"] = playPoorKeeper }

// lines hands on what is written, which nobody need read.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// playPoorKeeper is a broker's process that may open nothing more for a while: as a job comes back whose body is on the
// disk, and as a queue is deleted.
func playPoorKeeper(task childTask) int {
	ctx, logged := context.Background(), make(lines, 1000)
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	b, err := BrokerConfig{Dir: task.Dir, Endpoints: []string{}, Logger: slog.New(slog.NewTextHandler(logged, nil))}.NewBroker("")
	must(err)
	defer b.Close()
	var limit syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	poor := func(is bool) {
		now := limit
		if is {
			now.Cur = 0
		}
		must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now))
	}
	sends := func(chunk string) *Queue {
		q, err := QueueConfig{Durable: true}.OpenQueue(ctx, b.Client(), task.Pipe)
		must(err)
		must(q.Send(ctx, []byte(chunk)))
		must(q.Flush(ctx))
		return q
	}
	logs := func(what string) {
		for line := range logged {
			if strings.Contains(line, what) {
				return
			}
		}
	}

	q := sends("x")
	j, err := q.Take(ctx)
	must(err)
	poor(true)
	must(j.Return(0))
	taken := make(chan error, 1)
	go func() {
		j, err = q.Take(ctx)
		taken <- err
	}()
	logs("from the disk")
	poor(false)
	must(<-taken)
	fmt.Printf("%s %d\n", j.Data, j.Deliveries)

	poor(true)
	must(b.Client().DeleteQueue(ctx, task.Pipe))
	logs("deleted queue")
	poor(false)
	q = sends("y")
	j, err = q.Take(ctx)
	must(err)
	fmt.Printf("%s %d\n", j.Data, j.Deliveries)
	return 0
}

// While no descriptor is left, who wants jobs that are on the disk waits for them, and a queue that is deleted goes later.
func TestKeptQueueWithoutDescriptors(t *testing.T) {
	t.Parallel()
	c := startChild(t, childTask{Part: "poor keeper", Dir: filepath.Join(t.TempDir(), "queues"), Pipe: "q"})
	for _, want := range []string{"x 2", "y 1"} {
		if got := c.line(); got != want {
			t.Fatalf("the broker's process said %q, want %q", got, want)
		}
	}
}
