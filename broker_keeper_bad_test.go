//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// segments are the files of the only queue that is kept.
func (k *kept) segments() []string {
	k.Helper()
	found, err := filepath.Glob(filepath.Join(k.cfg.Dir, "*", "*.log"))
	if check(k, err); len(found) == 0 {
		k.Fatal("nothing is on the disk")
	}
	return found
}

// rots changes a bit of a job while no broker runs.
func (k *kept) rots(body string) {
	k.Helper()
	rot(k, k.segments(), body)
}

// rot changes a bit of a job that is in one of these files, in place.
func rot(t testing.TB, segments []string, body string) {
	t.Helper()
	for _, path := range segments {
		text, err := os.ReadFile(path)
		check(t, err)
		if i := bytes.Index(text, []byte(body)); i >= 0 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteAt([]byte{text[i] ^ 1}, int64(i))
			check(t, errors.Join(err, f.Close()))
			return
		}
	}
	t.Fatalf("%q is nowhere", body)
}

func (k *kept) open(queue string) error {
	q, err := k.broker.Client().OpenQueue(k.Context(), queue)
	if err == nil {
		q.Close()
	}
	return err
}

func (k *kept) refused(queue string) {
	k.Helper()
	eventually(k, "it is refused", func() bool {
		err := k.open(queue)
		return err != nil && strings.Contains(err.Error(), "can't be used")
	})
}

// A rotten job that is read only when somebody wants it, since an index has all else, has the queue refused from then
// on: it is not read again and again. Who only looks at jobs is told, too.
func TestKeptQueueOfWhichAJobIsRotten(t *testing.T) {
	t.Parallel()
	for _, state := range []JobState{JobReady, JobDelayed, JobDead} {
		t.Run(string(state), func(t *testing.T) {
			k := newKept(t, BrokerConfig{Endpoints: []string{}})
			q := k.queue("q", QueueConfig{})
			k.sends(q, "the first", "this one rots")
			for range 40 { // what is no larger than that has no index
				k.sends(q, string(make([]byte, 50_000)))
			}
			check(t, k.takes(q, "the first", 1).Return(0))
			first, bad := k.takes(q, "the first", 2), k.takes(q, "this one rots", 1)
			check(t, first.Return(0))
			switch state {
			case JobReady:
				check(t, bad.Return(0))
			case JobDelayed:
				check(t, bad.Return(time.Millisecond))
			case JobDead:
				check(t, bad.Reject("for the test"))
			}
			check(t, q.Close())
			k.broker.Close()
			k.rots("this one rots")
			k.start()

			c, err := NewClient(k.broker.Endpoints()[0])
			check(t, err)
			defer c.Close()
			for _, c := range []*Client{k.broker.Client(), c} { // directly, and over a connection
				n := 0
				for _, err = range c.PeekJobs(t.Context(), "q") {
					n++
				}
				if t.Log(err); err == nil {
					t.Error("nobody is told of a job that can't be read")
				}
				if state == JobDead && n != 41+1 { // the error is one
					t.Errorf("a look shows %d of the others", n-1)
				}
			}
			if state == JobDead { // which nobody else wants
				check(t, k.open("q"))
				if n, err := c.PurgeJobs(t.Context(), "q", JobDead); n != 1 || err != nil {
					t.Errorf("%d are purged, %v", n, err)
				}
				for _, err := range c.PeekJobs(t.Context(), "q") {
					check(t, err)
				}
				return
			}
			if q, err := k.broker.Client().OpenQueue(t.Context(), "q"); err == nil { // nobody has looked yet
				for err == nil {
					_, err = q.Receive(t.Context())
				}
				if !errors.Is(err, ErrBrokerGone) {
					t.Error(err)
				}
			}
			k.refused("q")
			if err := k.open("q"); err == nil || !strings.Contains(err.Error(), filepath.Base(k.segments()[0])) {
				t.Errorf("it is not said what is to be repaired: %v", err)
			}
			k.broker.Close()
			_, err = RepairQueues(k.cfg.Dir)
			check(t, err)
			k.start()
			k.takes(k.queue("q", QueueConfig{}), "the first", 3)
		})
	}
}

// One that fails as soon as it is there is left alone for longer each time.
func TestKeptQueueThatFailsAgainAndAgain(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.sends(q, "x")
	began := time.Now()
	const times = 5
	for range times {
		q.queue.log.(*keptQueue).Failed(errors.New("the disk is bad"))
		eventually(t, "it is over", func() bool { return q.Send(t.Context(), nil) != nil })
		eventually(t, "it is there", func() (there bool) {
			again, err := k.broker.Client().OpenQueue(t.Context(), "q")
			if err == nil {
				q = again
			}
			return err == nil
		})
	}
	least := time.Duration(0)
	for n := range times - 1 {
		least += reloadFirst << n
	}
	if took := time.Since(began); took < least {
		t.Errorf("it was read %d times within %v; the pauses are %v", times, took, least)
	}
	k.takes(k.queue("q", QueueConfig{}), "x", 1)
}

// A queue that can't be read when the broker starts is refused until it can be, and holds nobody up.
func TestKeptQueueThatCannotBeReadAtFirst(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	for range 200 {
		k.sends(q, string(make([]byte, 100_000)))
	}
	check(t, q.Close())
	k.broker.Close()
	first := k.segments()[0]
	if len(k.segments()) < 2 {
		t.Fatal("all is in one segment")
	}
	check(t, os.Rename(first, first+"-away"))
	check(t, os.Mkdir(first, 0o700))
	k.start()
	k.refused("q")
	for _, err := range k.broker.Client().PeekJobs(t.Context(), "q") {
		if err == nil || !strings.Contains(err.Error(), "can't be used now") {
			t.Errorf("a look at jobs that can't be read: %v", err)
		}
	}
	c, err := NewClient(k.broker.Endpoints()[0])
	check(t, err)
	defer c.Close()
	status, err := c.Status(t.Context())
	if check(t, err); len(status.Pipes) != 1 || !status.Pipes[0].Durable || !strings.Contains(status.Pipes[0].Unusable, "can't be used now") {
		t.Errorf("the status has of it %+v", status.Pipes)
	}
	k.sends(k.queue("another", QueueConfig{}), "x")
	check(t, os.Remove(first))
	check(t, os.Rename(first+"-away", first))
	eventuallyWithin(t, reloadMost+4*soon, "it is there", func() bool { return k.open("q") == nil })
	k.takes(k.queue("q", QueueConfig{}), string(make([]byte, 100_000)), 1)
}

// A queue whose turn on the disk has just come, and that is deleted before it has begun, leaves the name to the next one.
func TestKeptQueueIsDeletedAsItsTurnComes(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	gone := &keptQueue{keeper: k.broker.keeper, queue: newChunkQueue("q", noLimit, noLimit, time.Time{})}
	gone.remove()
	q := k.queue("q", QueueConfig{})
	check(t, q.Send(t.Context(), []byte("x")))
	ctx, cancel := context.WithTimeout(t.Context(), 4*soon)
	defer cancel()
	check(t, q.Flush(ctx))
}

// A chunk may be empty, wherever it has been, and is known to be as old as it is.
func TestKeptQueueOfEmptyChunks(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	began := time.Now()
	q := k.queue("q", QueueConfig{})
	receives := func(what func()) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 4*soon)
		defer cancel()
		got := make(chan error, 1)
		go func() {
			chunk, err := q.Receive(ctx)
			if err == nil && len(chunk) > 0 {
				err = errors.New("it is not empty")
			}
			got <- err
		}()
		what()
		check(t, <-got)
	}
	waits := func() {
		eventually(t, "somebody waits", func() bool { return k.info("q").Reads })
	}

	k.sends(q, "")
	j := k.takes(q, "", 1)
	receives(func() { waits(); check(t, j.Return(0)) })
	receives(func() { waits(); k.sends(q, "") })

	k.sends(q, "", "", "")
	check(t, k.takes(q, "", 1).Return(time.Millisecond))
	check(t, q.Close())
	k.restart()
	q = k.queue("q", QueueConfig{})
	receives(func() {}) // which is not in memory yet
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 4*soon)
		defer cancel()
		j, err := q.Take(ctx)
		if check(t, err); len(j.Data) != 0 || j.Sent.Before(began.Add(-time.Minute)) {
			t.Errorf("took %q, sent at %v", j.Data, j.Sent)
		}
	}
}

// What a log would not take confirms nothing else in its place.
func TestKeptQueueOfWhichTheLogTakesNoMore(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.sends(q, "x")
	s := q.queue
	s.mu.Lock()
	s.note(jobOp{kind: opGone}, nil) // of no key
	s.mu.Unlock()
	if err := errors.Join(q.Send(t.Context(), []byte("y")), q.Flush(t.Context())); !errors.Is(err, ErrBrokerGone) {
		t.Errorf("behind what is not written: %v", err)
	}
	eventually(t, "it is there", func() bool { return k.open("q") == nil })
	k.takes(k.queue("q", QueueConfig{}), "x", 1)
}

// A durable queue of which nothing could be written at all leaves its name free.
func TestKeptQueueThatCannotBegin(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	check(t, os.WriteFile(filepath.Join(k.cfg.Dir, "1"), nil, 0o600)) // where it would be
	q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), k.broker.Client(), "q")
	for err == nil {
		err = errors.Join(q.Send(t.Context(), []byte("lost")), q.Flush(t.Context()))
	}
	if !errors.Is(err, ErrBrokerGone) {
		t.Error(err)
	}
	eventually(t, "the name is free", func() bool {
		q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), k.broker.Client(), "q")
		return err == nil && q.Close() == nil
	})
	k.sends(k.queue("q", QueueConfig{}), "x")
	k.restart()
	k.takes(k.queue("q", QueueConfig{}), "x", 1)
}

// One that has been read again when its name is gone costs nobody anything.
func TestKeptQueueThatIsReadAgainInVain(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "broker")}})
	c, err := NewClient(k.broker.Endpoints()[1])
	check(t, err)
	defer c.Close()
	q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), c, "q")
	check(t, err)
	check(t, q.SendOnce(t.Context(), "once", []byte("x")))
	check(t, q.Flush(t.Context()))
	check(t, q.Close())
	mine := k.broker.accountOf(user{os.Getuid(), ""})
	costs := func() bool {
		return mine.held.Load() != 0 || mine.queues.Load() != 0 || mine.disk.Load() != 0 || k.broker.keeper.disk.used.Load() != 0
	}
	old := k.broker.pipes.queueNamed("q")
	if !costs() || old == nil {
		t.Fatal("it costs nothing")
	}
	log := old.log.(*keptQueue).log
	k.broker.pipes.unkeep(old)
	check(t, log.Close())
	if costs() {
		t.Fatal("it costs something when it is over")
	}
	k.broker.keeper.reload(old, errors.New("for the test"), 0)
	if costs() {
		t.Errorf("held %d, queues %d, on the disk %d", mine.held.Load(), mine.queues.Load(), mine.disk.Load())
	}
}
