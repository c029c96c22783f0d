//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A kept is a directory with the queues of a broker that is started again and again.
type kept struct {
	*testing.T
	cfg    BrokerConfig
	broker *Broker
}

func newKept(t *testing.T, cfg BrokerConfig) *kept {
	cfg.Dir = filepath.Join(t.TempDir(), "queues")
	if cfg.Endpoints == nil {
		cfg.Endpoints = []string{}
	}
	k := &kept{T: t, cfg: cfg}
	k.start()
	t.Cleanup(func() { k.broker.Close() })
	return k
}

func (k *kept) start() {
	k.Helper()
	b, err := k.cfg.NewBroker("")
	if err != nil {
		k.Fatal(err)
	}
	k.broker = b
}

func (k *kept) restart() {
	k.Helper()
	k.broker.Close()
	k.start()
}

func (k *kept) queue(name string, cfg QueueConfig) *Queue {
	k.Helper()
	cfg.Durable = true
	q, err := cfg.OpenQueue(k.Context(), k.broker.Client(), name)
	if err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() { q.Close() })
	return q
}

func (k *kept) sends(q *Queue, chunks ...string) {
	k.Helper()
	for _, c := range chunks {
		if err := q.Send(k.Context(), []byte(c)); err != nil {
			k.Fatal(err)
		}
	}
	if err := q.Flush(k.Context()); err != nil {
		k.Fatal(err)
	}
}

func (k *kept) takes(q *Queue, want string, deliveries int) *Job {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), 2*soon)
	defer cancel()
	j, err := q.Take(ctx)
	if err != nil {
		k.Fatal(err)
	}
	if string(j.Data) != want || j.Deliveries != deliveries {
		k.Fatalf("took %q, delivered %d times, want %q and %d", j.Data, j.Deliveries, want, deliveries)
	}
	return j
}

func (k *kept) info(name string) PipeInfo {
	k.Helper()
	info, ok := k.broker.pipes.lookUp(name, time.Now())
	if !ok {
		k.Fatalf("there is no %s", name)
	}
	return info
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A job that comes back is the next one, however many others are in memory.
func TestKeptJobThatComesBackIsNext(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	for _, cfg := range []QueueConfig{{}, {MaxDeliveries: 100}} {
		name := fmt.Sprint("q", cfg.MaxDeliveries)
		q, other := k.queue(name, cfg), k.queue(name, cfg)
		k.sends(q, "a", "b", "c", "d")
		j := k.takes(q, "a", 1)
		for n := 2; n < 20; n++ {
			check(t, j.Return(0))
			j = k.takes(q, "a", n)
		}
		k.takes(q, "b", 1)
		check(t, q.Close())
		k.takes(other, "a", 20)
		k.takes(other, "b", 2)
		k.takes(other, "c", 1)
	}
}

// How long the oldest job has waited is known after a restart, too, though nobody has asked for it yet.
func TestKeptQueueKnowsItsOldest(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	sent := time.Now()
	k.sends(q, "a", "b")
	check(t, q.Close())
	for n := range 2 {
		k.restart()
		least := time.Since(sent)
		info := k.info("q")
		if most := time.Since(sent) + time.Second; info.Oldest < least-time.Second || info.Oldest > most || info.Oldest <= 0 {
			t.Errorf("the oldest has waited for %v, and should have for %v", info.Oldest, least)
		}
		q = k.queue("q", QueueConfig{})
		check(t, k.takes(q, "a", 1+n).Return(0)) // which is still the oldest
		check(t, q.Close())
	}
}

// What was flushed is there when the broker is started again, and what was done and flushed
// is not; each job as it was.
func TestKeptQueueOutlivesItsBroker(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	cfg := QueueConfig{Lease: time.Hour, MaxDeliveries: 3}
	q := k.queue("q", cfg)
	k.sends(q, "done", "taken", "returned", "later", "dead", "", "ready")
	check(t, q.SendOnce(k.Context(), "key", []byte("once")))
	check(t, q.SendAfter(k.Context(), time.Hour, []byte("next hour")))
	check(t, k.takes(q, "done", 1).Done())
	taken := k.takes(q, "taken", 1)
	returned, later := k.takes(q, "returned", 1), k.takes(q, "later", 1)
	check(t, k.takes(q, "dead", 1).Reject("no good"))
	check(t, returned.Return(0))
	check(t, later.Return(time.Hour))
	check(t, q.Flush(k.Context()))
	id := taken.ID
	k.restart()

	if info := k.info("q"); info.Chunks != 8 || info.Delayed != 2 || info.Dead != 1 || info.Taken != 1 {
		t.Errorf("there is %+v", info)
	}
	q = k.queue("q", QueueConfig{})
	check(t, q.SendOnce(k.Context(), "key", []byte("twice"))) // which it still knows
	check(t, q.Flush(k.Context()))
	k.takes(q, "returned", 2)
	k.takes(q, "", 1)
	k.takes(q, "ready", 1)
	k.takes(q, "once", 1)
	k.sends(q, "new")
	k.takes(q, "new", 1)
	for j, err := range k.broker.Client().PeekJobs(k.Context(), "q") {
		check(t, err)
		switch {
		case j.State == JobDead && j.Reason != "no good":
			t.Errorf("it died of %q", j.Reason)
		case string(j.Data) == "next hour" && (j.State != JobDelayed || j.Sent.IsZero()):
			t.Errorf("a job of the next hour is %+v", j)
		case j.State == JobDelayed && len(j.Data) == 0:
			t.Errorf("nothing is in %+v", j)
		case j.ID == id && j.State != JobTaken:
			t.Errorf("what was taken is %s", j.State)
		}
	}
	n, err := k.broker.Client().RedriveJobs(k.Context(), "q")
	if check(t, err); n != 1 {
		t.Errorf("%d are redriven", n)
	}
	k.takes(q, "dead", 1)
}

// A worker whose lease is its connection has lost its job when the broker is started again, but
// for a while nobody else has it, either.
func TestKeptJobOfAWorkerThatIsGone(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.sends(q, "job")
	k.takes(q, "job", 1)
	k.restart()
	q = k.queue("q", QueueConfig{})
	k.takes(q, "job", 2)
}

// In memory is no more of a queue than MaxPending, and all of it comes out in order, also when the
// broker was started again in the middle.
func TestKeptQueueLargerThanMemory(t *testing.T) {
	const size, n = 1000, 3000
	k := newKept(t, BrokerConfig{MaxPending: 16 * size})
	q := k.queue("q", QueueConfig{})
	chunk := func(i int) []byte { return append(noise(uint64(i), size-8), fmt.Sprintf("%8d", i)...) }
	for i := range n {
		check(t, q.Send(t.Context(), chunk(i)))
	}
	check(t, q.Flush(t.Context()))
	next := 0
	receive := func(upTo int) {
		t.Helper()
		for ; next < upTo; next++ {
			got, err := q.Receive(t.Context())
			if check(t, err); !bytes.Equal(got, chunk(next)) {
				t.Fatalf("received %.20q..., want number %d", got[size-8:], next)
			}
			s := q.queue
			s.mu.Lock()
			if in := s.disk.waiting + s.disk.unsure; in > 2*s.limit {
				t.Errorf("%d bytes of %d are in memory", in, s.held)
			}
			s.mu.Unlock()
		}
	}
	receive(n / 3)
	check(t, q.Flush(t.Context()))
	k.restart()
	q = k.queue("q", QueueConfig{})
	receive(n)
	if info := k.info("q"); info.Chunks != 0 || info.Queued != 0 {
		t.Errorf("what is left is %+v", info)
	}
}

func TestKeptQueueIsDeleted(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	k.sends(k.queue("q", QueueConfig{}), "x")
	c := k.broker.Client()
	check(t, c.DeleteQueue(t.Context(), "q"))
	q, err := c.OpenQueue(t.Context(), "q") // the name is free
	check(t, err)
	check(t, q.Close())
	eventually(t, "the directory is empty", func() bool { return len(k.broker.keeper.store.Queues()) == 0 && !k.onDisk() })
	k.restart()
	if n := k.broker.Stats().Pipes; n != 0 {
		t.Errorf("there are %d", n)
	}
}

// One whose log has failed just then is deleted as well, whether what is on the disk is read again before or not.
func TestKeptQueueIsDeletedAsItFails(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	c := k.broker.Client()
	for i := range 20 {
		q := k.queue("q", QueueConfig{})
		k.sends(q, "x")
		log := q.queue.log.(*keptQueue)
		if i == 0 {
			log.once.Do(func() { log.log.Close() }) // as if the rest of its end were yet to come
		} else {
			log.Failed(errors.New("the disk is away"))
		}
		eventually(t, "it is deleted", func() bool { return c.DeleteQueue(t.Context(), "q") == nil })
		eventually(t, "the directory is empty", func() bool { return len(k.broker.keeper.store.Queues()) == 0 && !k.onDisk() })
	}
	k.restart()
	if n := k.broker.Stats().Pipes; n != 0 {
		t.Errorf("there are %d", n)
	}
}

func (k *kept) onDisk() bool {
	found, _ := filepath.Glob(filepath.Join(k.cfg.Dir, "*", "*.log"))
	return len(found) > 0
}

func TestKeptQueueAndTheOrdinary(t *testing.T) {
	k := newKept(t, BrokerConfig{ForgetQueues: time.Millisecond})
	c := k.broker.Client()
	q, err := c.OpenQueue(t.Context(), "memory")
	check(t, err)
	defer q.Close()
	k.sends(q, "x")
	if _, err := (QueueConfig{Durable: true}).OpenQueue(t.Context(), c, "memory"); !errors.Is(err, ErrPipeMode) {
		t.Errorf("a queue that is there is made durable: %v", err)
	}
	without := startBroker(t, BrokerConfig{Endpoints: []string{}})
	if _, err := (QueueConfig{Durable: true}).OpenQueue(t.Context(), without.Client(), "q"); !errors.Is(err, ErrPipeMode) {
		t.Errorf("durable at a broker without a directory: %v", err)
	}
	if _, ok := without.pipes.lookUp("q", time.Now()); ok {
		t.Error("an open that failed has left a queue")
	}
	check(t, k.queue("durable", QueueConfig{}).Close())
	check(t, q.Close())
	eventually(t, "the ordinary queue is forgotten", func() bool {
		_, ok := k.broker.pipes.lookUp("memory", time.Now())
		return !ok
	})
	k.info("durable")
	k.restart()
	k.info("durable")
}

// Whoever makes a queue durable leaves it as others have opened it before.
func TestKeptQueueIsAsItWasOpened(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	want := QueueConfig{Lease: time.Hour, MaxDeliveries: 7, MaxBytes: 100_000}
	q, err := want.OpenQueue(t.Context(), k.broker.Client(), "q")
	check(t, err)
	defer q.Close()
	for range 2 {
		s := k.queue("q", QueueConfig{}).queue
		s.mu.Lock()
		if got := (QueueConfig{Lease: s.rules.lease, MaxDeliveries: s.rules.maxDeliveries, MaxBytes: int64(s.room)}); got != want {
			t.Errorf("it is %+v, want %+v", got, want)
		}
		s.mu.Unlock()
		k.restart()
	}
}

// A queue whose log is not as it was written is refused, and no other one.
func TestKeptQueueThatIsCorrupt(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	k.sends(k.queue("bad", QueueConfig{}), "one", "two", "three")
	bad, err := filepath.Glob(filepath.Join(k.cfg.Dir, "*", "*.log"))
	if check(t, err); len(bad) != 1 {
		t.Fatalf("the log is in %q", bad)
	}
	k.sends(k.queue("good", QueueConfig{}), "good")
	k.broker.Close()
	text, err := os.ReadFile(bad[0])
	check(t, err)
	text[bytes.Index(text, []byte("two"))] ^= 1
	check(t, os.WriteFile(bad[0], text, 0o600))
	k.start()
	if _, err := k.broker.Client().OpenQueue(t.Context(), "bad"); err == nil {
		t.Error("a corrupt queue is open")
	} else {
		t.Log(err)
	}
	if info := k.info("bad"); !info.Durable || !strings.Contains(info.Unusable, bad[0]) {
		t.Errorf("it is not said why it is refused: %+v", info)
	}
	k.takes(k.queue("good", QueueConfig{}), "good", 1)
	if info := k.info("good"); info.Unusable != "" {
		t.Errorf("%+v", info)
	}
	k.broker.Close()

	repaired, err := RepairQueues(k.cfg.Dir)
	if check(t, err); len(repaired) != 1 || repaired[0].Name != "bad" || repaired[0].Jobs != 2 || len(repaired[0].Bad) == 0 {
		t.Fatalf("repaired: %+v", repaired)
	}
	if again, err := RepairQueues(k.cfg.Dir); len(again) > 0 || err != nil {
		t.Errorf("repaired again: %+v, %v", again, err)
	}
	k.start()
	q := k.queue("bad", QueueConfig{})
	k.takes(q, "one", 1)
	k.takes(q, "three", 1)
}

func TestKeptQueuesBelongToOneBroker(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	if b, err := k.cfg.NewBroker(""); err == nil {
		b.Close()
		t.Error("two brokers keep their queues in one directory")
	}
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	if _, err := (BrokerConfig{Dir: file}).NewBroker(""); err == nil {
		t.Error("a broker keeps its queues in a file")
	}
}

// Without room on the disk what is sent waits, while jobs are taken and done; then it goes on.
func TestKeptQueueWithoutRoom(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{MaxDisk: 32 << 20})
	q := k.queue("q", QueueConfig{})
	chunk := bytes.Repeat([]byte("x"), 100_000)
	sent := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := q.Send(ctx, chunk)
		if err == nil {
			err = q.Flush(ctx)
		}
		cancel()
		if sent++; errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if check(t, err); sent > 1000 {
			t.Fatal("there is no bound")
		}
	}
	t.Logf("%d chunks have room", sent)
	for range sent {
		j := k.takes(q, string(chunk), 1)
		check(t, j.Done())
	}
	check(t, q.Flush(t.Context()))
	k.sends(q, "goes on")
	k.takes(q, "goes on", 1)
}

// A broker that shuts down leaves what is kept for the next one.
func TestKeptQueueInAShutdown(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.sends(q, "x")
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	check(t, k.broker.Shutdown(ctx))
	k.start()
	k.takes(k.queue("q", QueueConfig{}), "x", 1)
}

// A client of the base protocol has a WRITE answered when the chunk is on the disk, though its timeout
// is shorter; and one that leaves meanwhile takes nothing with it.
func TestKeptQueueOfOneWithATimeout(t *testing.T) {
	const n = 30
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	w := "w > OUTPUT \"q\"\nw < OUTPUT_OK\n" + strings.Repeat("w > WRITE \"a\" 1\nw < WRITE_OK\n", n)
	for range n {
		w += "v > OUTPUT \"q\"\nv < OUTPUT_OK\nv > WRITE \"b\" 1\nv > CLOSE\nv gone\n"
	}
	scriptPlay(t, func() (scriptConn, error) { return &scriptTransport{transport: joined(t, k.broker)}, nil }, "script", w)
	k.sends(q, "last")
	for got := ""; got != "last"; {
		j, err := q.Take(t.Context())
		check(t, err)
		got = string(j.Data)
	}
}

// A name is free at once, and what comes under it then is kept, and not what was there.
func TestKeptQueueIsMadeAgainAtOnce(t *testing.T) {
	t.Parallel()
	k := newKept(t, BrokerConfig{})
	c := k.broker.Client()
	for i := range 10 {
		k.sends(k.queue("q", QueueConfig{MaxDeliveries: i + 1}), fmt.Sprint("old ", i))
		check(t, c.DeleteQueue(t.Context(), "q"))
		if i%3 == 0 { // also one that had no turn yet
			k.queue("q", QueueConfig{})
			check(t, c.DeleteQueue(t.Context(), "q"))
		}
	}
	q := k.queue("q", QueueConfig{MaxDeliveries: 7})
	check(t, q.Send(t.Context(), []byte("new")))
	id := k.takes(q, "new", 1).ID
	check(t, q.Flush(t.Context()))
	k.restart()
	q = k.queue("q", QueueConfig{})
	if j := k.takes(q, "new", 2); j.ID != id {
		t.Errorf("the job is %s, and was %s", j.ID, id)
	}
	if info := k.info("q"); info.Chunks != 1 || !info.Durable || q.queue.rules.maxDeliveries != 7 {
		t.Errorf("there is %+v, with %+v", info, q.queue.rules)
	}
}

// One that can't be is no deleted one: whoever hands jobs over to it would drop them.
func TestKeptQueueThatCannotBeMadeIsNotDeleted(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.broker.pipes.unkeep(k.broker.pipes.queueNamed("q"))
	if err := q.Send(t.Context(), []byte("x")); !errors.Is(err, ErrBrokerGone) {
		t.Error(err)
	}
}

// A queue that can't be read now, can be later.
func TestKeptQueueIsReadAgain(t *testing.T) {
	k := newKept(t, BrokerConfig{})
	q := k.queue("q", QueueConfig{})
	k.sends(q, "x")
	dirs, err := filepath.Glob(filepath.Join(k.cfg.Dir, "[0-9]*"))
	if check(t, err); len(dirs) != 1 {
		t.Fatalf("the queue is in %q", dirs)
	}
	check(t, os.Rename(dirs[0], dirs[0]+"-away"))
	q.queue.log.(*keptQueue).Failed(errors.New("the disk is away"))
	eventually(t, "it is over", func() bool { return q.Send(t.Context(), nil) != nil })
	eventually(t, "it is refused", func() bool {
		_, err := k.broker.Client().OpenQueue(t.Context(), "q")
		return err != nil && strings.Contains(err.Error(), "can't be used")
	})
	check(t, os.Rename(dirs[0]+"-away", dirs[0]))
	eventually(t, "it is there", func() bool {
		q, err := k.broker.Client().OpenQueue(t.Context(), "q")
		if err != nil {
			return false
		}
		q.Close()
		return true
	})
	k.takes(k.queue("q", QueueConfig{}), "x", 1)
}

// What one user's queues take on the disk is bounded, and counted after a restart, too.
func TestKeptQueuesOfAUser(t *testing.T) {
	const most = 16 << 20
	k := newKept(t, BrokerConfig{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "broker")}, PerUser: Limits{Disk: most}})
	mine := func() *account { return k.broker.accountOf(user{os.Getuid(), ""}) }
	open := func(name string) *Queue {
		t.Helper()
		c, err := NewClient(k.broker.Endpoints()[1])
		check(t, err)
		t.Cleanup(func() { c.Close() })
		q, err := QueueConfig{Durable: true}.OpenQueue(t.Context(), c, name)
		check(t, err)
		return q
	}
	chunk, sent := bytes.Repeat([]byte("x"), 100_000), 0
	q := open("q")
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := q.Send(ctx, chunk)
		if err == nil {
			err = q.Flush(ctx)
		}
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if check(t, err); sent > most/len(chunk) {
			t.Fatal("there is no bound")
		}
		sent++
	}
	used := mine().disk.Load()
	if sent == 0 || used == 0 || used > most {
		t.Fatalf("%d chunks have room, and %d bytes are counted", sent, used)
	}
	k.sends(k.queue("the broker's own", QueueConfig{}), string(chunk)) // which nobody pays for
	k.restart()
	if again := mine().disk.Load(); again == 0 || again > most {
		t.Errorf("%d bytes are counted after the restart, and were %d", again, used)
	}
	q = open("q")
	for range sent {
		j, err := q.Take(t.Context())
		check(t, err)
		check(t, j.Done())
	}
	check(t, q.Flush(t.Context()))
	k.sends(q, "goes on")
	check(t, q.Close())
	check(t, k.broker.Client().DeleteQueue(t.Context(), "q"))
	eventually(t, "nothing is counted any more", func() bool { return mine().disk.Load() == 0 })
}
