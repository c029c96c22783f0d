//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func (r *rig) configured(name string, cfg QueueConfig) (q *Queue) {
	r.Helper()
	r.opens(func() (err error) { q, err = cfg.OpenQueue(r.Context(), r.client, name); return err })
	r.Cleanup(func() { q.Close() })
	return q
}

func (r *rig) takes(q *Queue, want string, deliveries int) *Job {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 4*soon)
	defer cancel()
	j, err := q.Take(ctx)
	if err != nil {
		r.Fatalf("Take: %v; want %q", err, want)
	}
	if string(j.Data) != want || j.Deliveries != deliveries {
		r.Fatalf("took %.40q for the %d. time, want %.40q for the %d.", j.Data, j.Deliveries, want, deliveries)
	}
	return j
}

func (r *rig) takesNothing(q *Queue, wait time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if j, err := q.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		r.Fatalf("took %v, %v; want nothing", j, err)
	}
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// lost wants the job's lease to be lost, and to be told so.
func (r *rig) lost(j *Job) {
	r.Helper()
	select {
	case <-j.Context().Done():
	case <-time.After(4 * soon):
		r.Fatal("the lease is not lost")
	}
	if why := context.Cause(j.Context()); !errors.Is(why, ErrLeaseLost) {
		r.Fatalf("the lease was lost because of %v", why)
	}
	if err := j.Done(); !errors.Is(err, ErrLeaseLost) {
		r.Fatalf("Done without a lease: %v", err)
	}
}

// peeks wants a queue to have these jobs, as "state data deliveries".
func (r *rig) peeks(queue string, want ...string) []JobInfo {
	r.Helper()
	var infos []JobInfo
	var got []string
	for j, err := range r.client.PeekJobs(r.Context(), queue) {
		r.ok(err)
		infos = append(infos, j)
		got = append(got, fmt.Sprintf("%s %s %d", j.State, j.Data, j.Deliveries))
	}
	if !slices.Equal(got, want) {
		r.Fatalf("the jobs are %q, want %q", got, want)
	}
	return infos
}

func TestTakeLeavesTheJobInTheQueue(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		a, b := r.queue("jobs"), r.queue("jobs")
		start := time.Now()
		r.send(a, "1", "2", "")
		r.flush(a)
		one := r.takes(a, "1", 1)
		if age := time.Since(one.Sent); age < -time.Second || one.Sent.Before(start.Add(-time.Second)) {
			r.Errorf("sent %v ago", age)
		}
		two := r.takes(b, "2", 1)
		infos := r.peeks("jobs", "taken 1 1", "taken 2 1", "ready  0")
		if infos[0].ID != one.ID || one.ID == two.ID {
			r.Errorf("the ids are %q, %q, and by a look %q", one.ID, two.ID, infos[0].ID)
		}
		one.Data[0] = 'x' // it is the worker's
		r.ok(one.Return(0))
		r.flush(a)
		again := r.takes(b, "1", 2)
		if again.ID != one.ID {
			r.Errorf("job %q became %q", one.ID, again.ID)
		}
		if err := one.Done(); !errors.Is(err, ErrLeaseLost) {
			r.Errorf("Done of a job that was returned: %v", err)
		}
		r.ok(two.Done())
		r.ok(again.Done())
		if err := again.Done(); !errors.Is(err, ErrLeaseLost) {
			r.Errorf("a second Done: %v", err)
		}
		r.flush(b)
		r.peeks("jobs", "ready  0")
		r.receives(a, "") // which is Take and Done
		r.flush(a)
		eventually(r, "nothing is left", func() bool {
			for range r.client.PeekJobs(r.Context(), "jobs") {
				return false
			}
			info, err := r.client.Stat(r.Context(), "jobs")
			return err == nil && info.Chunks == 0 && info.Taken == 0
		})
	})
}

func TestTakeWaitsAndIsCancelled(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		a, b := r.queue("jobs"), r.queue("jobs")
		r.takesNothing(a, 10*time.Millisecond)
		came := make(chan *Job)
		for range 2 {
			go func() {
				j, err := a.Take(r.Context())
				if err != nil {
					r.Error(err)
				}
				came <- j
			}()
		}
		r.send(b, "1", "2")
		for range 2 {
			if j := <-came; j == nil || j.Deliveries != 1 || j.Done() != nil {
				r.Fatalf("took %+v", j)
			}
		}
		r.flush(a)
		r.takesNothing(a, 10*time.Millisecond)
		r.send(b, "3")
		r.takes(b, "3", 1) // though a has asked first
	})
}

func TestJobsComeBackWhenTheWorkerCloses(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		a, b := r.queue("jobs"), r.queue("jobs")
		r.send(b, "1", "2")
		r.flush(b)
		one, two := r.takes(a, "1", 1), r.takes(a, "2", 1)
		context := two.Context()
		r.ok(one.Done())
		go a.Take(r.Context())
		eventually(r, "somebody waits for a job", func() bool {
			info, err := r.client.Stat(r.Context(), "jobs")
			return err == nil && info.Reads
		})
		r.ok(a.Close())
		<-context.Done()
		r.lost(two)
		r.takes(b, "2", 2)
		r.takesNothing(b, 10*time.Millisecond)
	})
}

// A Take that is given up is not one who waits.
func TestTakeThatIsGivenUpTakesNoJob(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		a, b := r.queue("jobs"), r.queue("jobs")
		r.takesNothing(a, 10*time.Millisecond)
		eventually(r, "nobody waits any more", func() bool {
			info, err := r.client.Stat(r.Context(), "jobs")
			return err == nil && !info.Reads
		})
		r.send(b, "1")
		r.takes(b, "1", 1)
	})
}

func TestJobsLeaseHasATime(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		var a *Queue
		var two *Job
		lease, name := 300*time.Millisecond, "jobs"
		for ; ; lease, name = 2*lease, name+"'" {
			a = r.configured(name, QueueConfig{Lease: lease})
			r.send(a, "2")
			begun := time.Now()
			two = r.takes(a, "2", 1)
			err := two.Extend(time.Hour)
			r.flush(a)
			if time.Since(begun) < lease { // else it may have ended before
				r.ok(err)
				break
			}
		}
		b := r.queue(name)
		r.send(a, "1")
		begun := time.Now()
		one := r.takes(a, "1", 1)
		r.takes(b, "1", 2)
		if took := time.Since(begun); took < lease {
			r.Errorf("the lease of %v ended after %v", lease, took)
		}
		r.lost(one)
		r.ok(two.Done())
		r.flush(a)
		if err := one.Extend(time.Hour); !errors.Is(err, ErrLeaseLost) {
			r.Errorf("Extend without a lease: %v", err)
		}
	})
}

func TestJobsThatFailDie(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		q := r.configured("jobs", QueueConfig{MaxDeliveries: 2})
		r.send(q, "1", "2", "3")
		r.ok(r.takes(q, "1", 1).Return(0))
		r.ok(r.takes(q, "1", 2).Return(time.Hour))
		r.ok(r.takes(q, "2", 1).Reject("no such file"))
		r.ok(r.takes(q, "3", 1).Return(time.Hour))
		r.flush(q)
		infos := r.peeks("jobs", "dead 1 2", "dead 2 1", "delayed 3 1")
		if infos[0].Reason == "" || infos[1].Reason != "no such file" || time.Until(infos[2].Until) < 50*time.Minute {
			r.Errorf("the jobs are %+v", infos)
		}
		n, err := r.client.RedriveJobs(r.Context(), "jobs")
		if n != 2 || err != nil {
			r.Errorf("%d are driven again, %v", n, err)
		}
		r.takes(q, "1", 1)
		r.ok(r.takes(q, "2", 1).Reject(""))
		r.flush(q)
		n, err = r.client.PurgeJobs(r.Context(), "jobs", JobReady, JobDelayed, JobDead)
		if n != 2 || err != nil {
			r.Errorf("%d are purged, %v", n, err)
		}
		r.peeks("jobs", "taken 1 1")
		if _, err := r.client.PurgeJobs(r.Context(), "none", JobDead); !errors.Is(err, fs.ErrNotExist) {
			r.Errorf("purging no queue: %v", err)
		}
		for _, err := range r.client.PeekJobs(r.Context(), "none") {
			if !errors.Is(err, fs.ErrNotExist) {
				r.Errorf("a look at no queue: %v", err)
			}
		}
		l, err := r.client.Listen(r.Context(), "port")
		if err != nil {
			r.Fatal(err)
		}
		defer l.Close()
		for _, err := range r.client.PeekJobs(r.Context(), "port") {
			if !errors.Is(err, ErrPipeMode) || !strings.Contains(err.Error(), "listens") {
				r.Errorf("a look at a listener: %v", err)
			}
		}
	})
}

// A look at jobs takes as long as its caller likes, and does not gather them first.
func TestPeekJobsLooksWhileItYields(t *testing.T) {
	t.Parallel()
	quick := patient
	quick.Timeout = time.Second
	overQueueWays(t, BrokerConfig{MaxPending: 8 << 20}, quick, func(r *rig) {
		q := r.queue("jobs")
		large := strings.Repeat("x", 8<<10)
		for range 300 {
			r.send(q, large)
		}
		r.flush(q)
		seen, last := 0, ""
		r.opens(func() error {
			for j, err := range r.client.PeekJobs(r.Context(), "jobs") {
				if err != nil {
					return err
				}
				last = string(j.Data)
				if seen++; seen > 1 {
					continue
				}
				r.send(q, "last")
				r.flush(q)
				for range r.client.PeekJobs(r.Context(), "jobs") {
					break
				}
				r.opens(func() error {
					_, err := r.client.Stat(r.Context(), "jobs")
					return err
				})
				time.Sleep(quick.Timeout * 3 / 2)
			}
			return nil
		})
		if seen != 301 || last != "last" {
			r.Errorf("%d jobs were seen, and at the end %.10q", seen, last)
		}
	})
}

// Nobody is given a job early, however long it is to wait.
func TestJobsThatWaitForYears(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		const year = 365 * 24 * time.Hour
		q := r.queue("jobs")
		r.send(q, "1")
		r.ok(r.takes(q, "1", 1).Return(2 * year))
		begun := time.Now()
		r.ok(q.SendAfter(r.Context(), 3*year, []byte("2")))
		r.flush(q)
		for i, j := range r.peeks("jobs", "delayed 1 1", "delayed 2 0") {
			if wait := j.Until.Sub(begun); wait < time.Duration(i+2)*year-soon || wait > time.Duration(i+2)*year+soon {
				r.Errorf("job %s waits for %v", j.Data, wait)
			}
		}
	})
}

func TestSendAfterAndOnce(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		const delay = 200 * time.Millisecond
		q := r.queue("jobs")
		r.ok(q.SendAfter(r.Context(), time.Hour, []byte("too late")))
		r.ok(q.SendAfter(r.Context(), 0, []byte("now")))
		for range 3 {
			r.ok(q.SendOnce(r.Context(), "id", []byte("once")))
		}
		r.send(q, "then")
		r.flush(q)
		r.takes(q, "now", 1)
		r.receives(q, "once", "then")
		begun := time.Now()
		r.ok(q.SendAfter(r.Context(), delay, []byte("later")))
		r.receives(q, "later")
		if took := time.Since(begun); took < delay {
			r.Errorf("what was to come after %v came after %v", delay, took)
		}
		for _, id := range []string{"", string(make([]byte, 256))} {
			if err := q.SendOnce(r.Context(), id, nil); !errors.Is(err, ErrBadName) {
				r.Errorf("an id of %d bytes: %v", len(id), err)
			}
		}
	})
}

func TestQueueConfigIsChecked(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		if _, err := (QueueConfig{Lease: -1}).OpenQueue(r.Context(), r.client, "jobs"); err == nil {
			r.Error("a negative lease is none")
		}
		_, err := QueueConfig{Durable: true}.OpenQueue(r.Context(), r.client, "jobs")
		if !errors.Is(err, ErrPipeMode) {
			r.Errorf("a durable queue where there are none: %v", err)
		}
		eventually(r, "no queue is left of an open that failed", func() bool {
			_, err := r.client.Stat(r.Context(), "jobs")
			return errors.Is(err, fs.ErrNotExist)
		})
	})
}

func TestJobsOfABrokerThatIsGone(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, ClientConfig{Timeout: soon / 4}, func(r *rig) {
		q := r.queue("jobs")
		r.send(q, "1")
		j := r.takes(q, "1", 1)
		r.kill()
		<-j.Context().Done()
		if _, err := q.Take(r.Context()); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Take without a broker: %v", err)
		}
		if err := j.Done(); err == nil {
			r.Error("done, though nobody knows")
		}
	})
}

func TestJobThatComesBackToItsWorker(t *testing.T) {
	t.Parallel()
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		lease, name := 200*time.Millisecond, "jobs"
		for ; ; lease, name = 2*lease, name+"'" {
			a := r.configured(name, QueueConfig{Lease: lease})
			r.send(a, "1")
			r.flush(a)
			begun := time.Now()
			one := r.takes(a, "1", 1)
			two := r.takes(a, "1", 2) // waits for the lease to end
			r.lost(one)
			err := two.Done()
			r.flush(a)
			if time.Since(begun) < 2*lease { // else the second one may have ended as well
				r.ok(err)
				break
			}
		}
	})
}

func TestSendAfterAbsurdlyLong(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, patient, func(r *rig) {
		q := r.queue("jobs")
		r.ok(q.SendAfter(r.Context(), 1<<63-1, []byte("1")))
		r.flush(q)
		r.peeks("jobs", "delayed 1 0")
	})
}

// However many wait for whatever of one Queue, each of them hears that the queue is gone.
func TestTakesOfAQueueThatIsDeleted(t *testing.T) {
	t.Parallel()
	const many, room = 3 * settleMost, 1000
	overQueueWays(t, BrokerConfig{MaxPending: room}, ClientConfig{Window: room}, func(r *rig) {
		q := r.queue("jobs")
		r.ok(q.SendAfter(r.Context(), time.Hour, make([]byte, room))) // which leaves no room
		r.ok(q.Flush(r.Context()))
		r.send(q, string(make([]byte, room))) // in the window
		var calls []<-chan result
		wait := func(f func() error) {
			calls = append(calls, inBackground(func() (int, error) { return 0, f() }))
		}
		for range many {
			wait(func() error { _, err := q.Take(r.Context()); return err })
		}
		for range 3 {
			wait(func() error { return q.Send(r.Context(), make([]byte, room)) })
			wait(func() error { return q.Flush(r.Context()) })
		}
		eventually(r, "all wait", func() bool {
			q.queue.mu.Lock()
			defer q.queue.mu.Unlock()
			return len(q.takes) == many && q.senders.Len() == 3 && q.flushes.Len() == 3
		})
		r.ok(r.client.DeleteQueue(r.Context(), "jobs"))
		for _, call := range calls {
			if err := r.within(4*soon, call).err; !errors.Is(err, io.ErrClosedPipe) {
				r.Fatalf("a call that waited: %v", err)
			}
		}
	})
}

// A Client that closes does not wait for what is done with a queue's jobs, nor does who does it.
func TestPurgeOfAClientThatCloses(t *testing.T) {
	t.Parallel()
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		r.send(r.queue("jobs"), "x")
		r.ok(r.queue("jobs").Flush(r.Context()))
		s := b.pipes.queueNamed("jobs")
		s.mu.Lock()
		s.disk.asked = true // a purge waits for what is being loaded
		s.mu.Unlock()
		c := r.newClient(ClientConfig{})
		purge := r.begin(func() (int, error) { return c.PurgeJobs(r.Context(), "jobs", JobReady) })
		eventually(r, "it is under way", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.chores.len() > 0
		})
		r.ok(c.Close())
		if err := r.within(soon, purge).err; !errors.Is(err, os.ErrClosed) {
			r.Errorf("PurgeJobs: %v", err)
		}
	})
}

const manyLarge, largeJob = 24, 1 << 20

var takesManyLarge = BrokerConfig{MaxPending: 2 * manyLarge * largeJob, MaxMessage: largeJob}

// Workers that ask for many large jobs at once get them all: what one connection does not take yet stays in the queue.
func TestQueueTakesOfManyLargeJobs(t *testing.T) {
	overQueueWays(t, takesManyLarge, ClientConfig{Timeout: soon}, func(r *rig) { r.takesManyLarge(r.queue("q")) })
}

func (r *rig) takesManyLarge(q *Queue) {
	r.Helper()
	for i := range manyLarge {
		r.send(q, strings.Repeat(string(rune('a'+i)), largeJob))
	}
	r.flush(q)
	got := make(chan string, manyLarge)
	for range manyLarge {
		go func() {
			j, err := q.Take(r.Context())
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(j.Data)
		}()
	}
	seen := make(map[string]bool)
	for range manyLarge {
		text := <-got
		if len(text) != largeJob {
			r.Fatalf("%d jobs came, and then %.200s", len(seen), text)
		}
		seen[text[:1]] = true
	}
	if len(seen) != manyLarge {
		r.Errorf("%d different jobs of %d", len(seen), manyLarge)
	}
}

// What a worker has lost may be received by somebody who changes it; the worker has it as it was.
func TestJobThatSomebodyElseReceives(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		c := startBroker(t, BrokerConfig{}).Client()
		a, err := QueueConfig{Lease: 20 * time.Millisecond}.OpenQueue(t.Context(), c, "jobs")
		check(t, err)
		other, err := c.OpenQueue(t.Context(), "jobs")
		check(t, err)
		took := make(chan *Job, 1)
		receive := func() {
			chunk, err := other.Receive(t.Context())
			check(t, err)
			chunk[0] = 'y'
		}
		go func() {
			j, err := a.Take(t.Context())
			if err != nil {
				t.Error(err)
			}
			took <- j
		}()
		eventually(t, "it waits", func() bool {
			a.queue.mu.Lock()
			defer a.queue.mu.Unlock()
			return a.queue.demands.Len() > 0
		})
		check(t, other.Send(t.Context(), []byte("x")))
		if !waits {
			eventually(t, "its lease has ended", func() bool {
				a.queue.mu.Lock()
				defer a.queue.mu.Unlock()
				return a.queue.front.len() > 0
			})
		}
		receive()
		if j := <-took; string(j.Data) != "x" {
			t.Errorf("the worker has %q", j.Data)
		}
	}
}

func TestPeekJobsOfAQueueThatIsDeleted(t *testing.T) {
	overWays(t, BrokerConfig{MaxPending: 8 << 20}, ClientConfig{}, func(r *rig) {
		if r.base {
			r.Skip("it has no queues")
		}
		q := r.configured("jobs", QueueConfig{})
		for range 1500 { // more than is told ahead
			check(r, q.Send(r.Context(), make([]byte, 3000)))
		}
		check(r, q.Flush(r.Context()))
		var err error
		seen := 0
		for _, err = range r.client.PeekJobs(r.Context(), "jobs") {
			if seen++; seen == 1 {
				check(r, r.client.DeleteQueue(r.Context(), "jobs"))
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			r.Errorf("after %d jobs it ended with %v", seen, err)
		}
	})
}
