//go:build !core

package zpipes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"time"

	"github.com/zpipes/zpipes/internal/seglog"
)

// QueueConfig says how a queue treats its jobs. Fields that are zero leave it as
// it is, or as it is by default. It belongs to the queue, not to who opens it:
// what was said last counts for all.
type QueueConfig struct {
	// Durable queues outlive the broker. The open fails with ErrPipeMode if the
	// queue exists and is not durable, or if the broker keeps none.
	Durable bool

	// Lease is for how long a job is a worker's that has taken it and says nothing
	// (see Job.Extend); then it goes to another one. By default, and in any case,
	// it ends when the worker's connection does. It begins when the job is handed
	// out.
	Lease time.Duration

	// MaxDeliveries is how often a job is handed out at most. One that comes back
	// after that is dead: it stays in the queue, to be looked at (PeekJobs), and
	// nobody gets it (until RedriveJobs). By default there is no limit.
	MaxDeliveries int

	// MaxBytes is how much the queue holds before Send waits, also of dead jobs
	// and of those that are not due; by default 1 GiB if it
	// is durable, else BrokerConfig.MaxPending.
	MaxBytes int64
}

func (cfg QueueConfig) check() error {
	if cfg.Lease < 0 || cfg.MaxDeliveries < 0 || cfg.MaxBytes < 0 {
		return fmt.Errorf("a QueueConfig with a negative field: %+v", cfg)
	}
	return nil
}

func (cfg QueueConfig) settings() queueSettings {
	return queueSettings{
		durable: cfg.Durable, lease: cfg.Lease, maxDeliveries: min(cfg.MaxDeliveries, math.MaxInt32),
		maxBytes: int(min(cfg.MaxBytes, math.MaxInt)),
	}
}

// OpenQueue is Client.OpenQueue for a queue that is to be as cfg says. If it
// can't be, the error is ErrPipeMode, or errors.ErrUnsupported if the broker is
// of a version that knows no jobs.
func (cfg QueueConfig) OpenQueue(ctx context.Context, c *Client, queue string) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, c.opError("open queue", queue, err)
	}
	return c.openQueue(ctx, queue, modeQueue, cfg.settings())
}

// A Job is a chunk of a queue that somebody works on. It stays in the queue, and
// nobody else gets it, until Done; or until it comes back, by Return, by the end
// of its lease (QueueConfig.Lease), because the Queue is closed, or because the
// worker's process dies. The methods may be called concurrently.
type Job struct {
	// ID names the job, and no other one ever. It stays the same however often
	// the job is delivered.
	ID   string
	Data []byte

	// Deliveries is how often the job was handed out, this time included.
	Deliveries int
	// Sent is when the broker got the job, by its clock.
	Sent time.Time

	queue *Queue
	ref   jobRef

	// What follows is guarded by the queue's mu.
	settled bool // by a call of its own
	over    bool // it is not this worker's any more
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

// A jobRef names a job, and one delivery of it.
type jobRef struct {
	incarnation, id uint64
	delivery        uint32
}

// Take returns the next job, and leaves it in the queue. It waits for one as
// Receive does, with the same errors, and errors.ErrUnsupported if the broker is
// of a version that knows no jobs. A worker asks for no more jobs than there are
// Takes: what it has not taken, others can.
func (q *Queue) Take(ctx context.Context) (*Job, error) {
	if err := q.knowJobs(); err != nil {
		return nil, q.fail("take", err)
	}
	got, err := q.obtain(ctx, true)
	if err != nil {
		return nil, q.fail("take", err)
	}
	if got.lent {
		got.job.Data = bytes.Clone(got.job.Data) // what the queue has stays as it is
	}
	return got.job, nil
}

// knowJobs is why the broker knows none, if it does not.
func (q *Queue) knowJobs() error {
	if q.link == nil || q.link.conn.able&ableJobs != 0 {
		return nil
	}
	return errNoJobs
}

var errNoJobs = fmt.Errorf("%w: the broker's version knows no jobs", errors.ErrUnsupported)

// Jobs yields the jobs that Take returns, until Take fails; it yields that error
// last. It takes no job that it does not yield.
func (q *Queue) Jobs(ctx context.Context) iter.Seq2[*Job, error] {
	return func(yield func(*Job, error) bool) {
		for {
			j, err := q.Take(ctx)
			if !yield(j, err) || err != nil {
				return
			}
		}
	}
}

// begin makes a job of what was handed out. queue.mu is held.
func (q *Queue) begin(d *job) got {
	s := q.queue
	j := &Job{
		ID: jobID(s.incarnation, d.id), Data: d.data, Deliveries: int(d.deliveries), Sent: time.Unix(0, d.sent),
		queue: q, ref: jobRef{s.incarnation, d.id, d.deliveries},
	}
	if q.woken++; q.link == nil {
		s.take(d, &q.sender)
	}
	if q.jobs == nil {
		q.jobs = make(map[uint64]*Job)
	}
	if earlier := q.jobs[d.id]; earlier != nil { // the broker has yet to say that its lease has ended
		q.drop(earlier, ErrLeaseLost)
	}
	q.jobs[d.id] = j
	return got{job: j, lent: q.link == nil && d.data != nil}
}

// lose is told by the queue, or the broker, that a job is not here any more. queue.mu is held.
func (q *Queue) lose(id uint64, delivery uint32) {
	if j := q.jobs[id]; j != nil && j.ref.delivery == delivery {
		q.drop(j, ErrLeaseLost)
	}
}

// drop ends a job's lease. queue.mu is held.
func (q *Queue) drop(j *Job, why error) {
	delete(q.jobs, j.ref.id)
	if j.over = true; j.cancel != nil {
		j.cancel(why)
	}
}

// loseJobs ends all leases. queue.mu is held.
func (q *Queue) loseJobs() {
	for _, j := range q.jobs {
		q.drop(j, ErrLeaseLost)
	}
}

// Context ends when the job is this worker's no more: with the cause ErrLeaseLost
// (see context.Cause) if the lease was lost, so that the work may be stopped,
// and after Done, Return and Reject. Until then it has no deadline and no values.
func (j *Job) Context() context.Context {
	s := j.queue.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.ctx == nil {
		j.ctx, j.cancel = context.WithCancelCause(context.Background())
		switch {
		case j.settled:
			j.cancel(nil)
		case j.over:
			j.cancel(ErrLeaseLost)
		}
	}
	return j.ctx
}

// Done says that the work is done: the job is gone from the queue. Like Send it
// returns once that is in this end's window; Flush and Close tell whether the
// broker knows. Until it does, the job may still be given to another worker if
// this process dies.
//
// The error is an *OpError around ErrLeaseLost if the job is not this worker's
// any more, which may also become clear only later: then the next Flush, or
// Close, says so. After the broker has gone, Done looks for it once more, for up
// to ClientConfig.Timeout, since a durable queue takes the word of who had a job
// before; the error may then be that of OpenQueue.
func (j *Job) Done() error { return j.say("done", act{kind: actDone}) }

// Return gives the job back, for any worker: after a delay, or if that is 0, as
// the next one. Otherwise it is like Done.
func (j *Job) Return(delay time.Duration) error {
	return j.say("return", act{kind: actReturn, delay: max(0, delay)})
}

// Reject says that the job can't be done: it is dead (see
// QueueConfig.MaxDeliveries), for that reason, of which 255 bytes are kept.
// Otherwise it is like Done.
func (j *Job) Reject(reason string) error {
	return j.say("reject", act{kind: actReject, reason: shortText(reason)})
}

// Extend has the lease end so long from now, and with 0, as long as a lease of
// the queue is. Where it has no time (see QueueConfig.Lease), it stays without.
// The error is that of Done.
func (j *Job) Extend(d time.Duration) error {
	return j.say("extend", act{kind: actExtend, delay: max(0, d)})
}

func (j *Job) say(op string, do act) error {
	q := j.queue
	q.queue.mu.Lock()
	gone, err := q.say(j, do)
	q.queue.mu.Unlock()
	if gone {
		err = q.sayElsewhere(j.ref, do)
	}
	return q.fail(op, err)
}

// maxActs is how many acts may be unconfirmed: no more than a broker has answers to give (maxQueued).
const maxActs = 4096

// say does, or sends, what is to become of a job. gone says that the broker is. queue.mu is held.
func (q *Queue) say(j *Job, do act) (gone bool, err error) {
	for q.acted-q.sender.acts >= maxActs && !j.over && !q.closed {
		q.await(context.Background())
	}
	switch {
	case j.settled:
		return false, ErrLeaseLost
	case j.over:
		gone = !q.closed && q.queue.over != nil && q.queue.over.code == causeBrokerGone && do.kind != actExtend
		j.settled = gone
		return gone, ErrLeaseLost
	}
	if do.kind != actExtend {
		j.settled = true
		q.drop(j, nil)
	}
	return false, q.act(j.ref, do)
}

// act is say for a job that is only known by name.
func (q *Queue) act(ref jobRef, do act) error {
	if do.kind != actExtend {
		q.acted++
	}
	switch s := q.queue; {
	case q.link != nil:
		q.link.act(ref, do)
	case ref.incarnation != s.incarnation || !s.act(&q.sender, ref.id, ref.delivery, do):
		if do.kind != actExtend {
			q.acted--
		}
		return ErrLeaseLost
	}
	return nil
}

// sayElsewhere looks whether the queue is there again, and still waits for this worker's word.
func (q *Queue) sayElsewhere(ref jobRef, do act) error {
	ctx, cancel := context.WithTimeout(context.Background(), q.client.cfg.Timeout)
	defer cancel()
	again, err := q.client.openQueue(ctx, q.queue.name, modeKnown, queueSettings{})
	if errors.Is(err, fs.ErrNotExist) {
		return ErrLeaseLost
	}
	if err != nil {
		return err
	}
	defer again.Close()
	again.queue.mu.Lock()
	err = again.knowJobs()
	if err == nil {
		err = again.act(ref, do)
	}
	if err == nil {
		err = again.drain(ctx, false)
	}
	again.queue.mu.Unlock()
	return err
}

// SendAfter is Send for a chunk that nobody gets before the delay has passed.
// Other chunks may overtake it. An error may also be errors.ErrUnsupported, if
// the broker is of a version that knows no jobs.
func (q *Queue) SendAfter(ctx context.Context, delay time.Duration, chunk []byte) error {
	if delay <= 0 {
		return q.Send(ctx, chunk)
	}
	return q.send(ctx, chunk, &terms{due: nanosAfter(time.Now(), delay)})
}

// SendOnce is Send for a chunk that is put into the queue once, however often it
// is sent: a chunk of the same id that came in the last ten minutes, or of the
// last 65536 with an id, is in its place, though it may be gone from the queue by
// now. So a chunk of which nobody knows whether it has arrived (see
// UndeliveredError) can be sent again. The id has 1 to 255 bytes, else the error
// is ErrBadName; and it may be errors.ErrUnsupported as with SendAfter.
func (q *Queue) SendOnce(ctx context.Context, id string, chunk []byte) error {
	if len(id) == 0 || len(id) > maxString {
		return q.fail("send", fmt.Errorf("%w: the id of a job has 1 to %d bytes, this one %d", ErrBadName, maxString, len(id)))
	}
	return q.send(ctx, chunk, &terms{key: id})
}

// JobState says where a job is.
type JobState string

const (
	JobReady   JobState = "ready"   // it waits for its turn
	JobTaken   JobState = "taken"   // a worker has it
	JobDelayed JobState = "delayed" // it is not due yet
	JobDead    JobState = "dead"    // nobody gets it any more, see QueueConfig.MaxDeliveries
)

var jobStateNames = [jobStates]JobState{JobReady, JobTaken, JobDelayed, JobDead}

// JobInfo describes a job at one moment.
type JobInfo struct {
	ID         string    `json:"id"`
	State      JobState  `json:"state"`
	Data       []byte    `json:"data"`
	Deliveries int       `json:"deliveries"`       // how often it was handed out
	Sent       time.Time `json:"sent"`             // when the broker got it
	Until      time.Time `json:"until,omitzero"`   // when a lease ends, or a job is due, if it has a time
	Reason     string    `json:"reason,omitempty"` // why it is dead
}

// jobInfos are the next jobs behind that number, and where to go on; 0: these were the last. Those that are not as they
// were written are left out, and of the first of them is the error.
func jobInfos(s *chunkQueue, after uint64) (infos []JobInfo, next uint64, err error) {
	s.mu.Lock()
	why, all, log := s.away(), s.peek(after, reportPiece), s.log
	s.mu.Unlock()
	if why != nil { // it was not when the look began
		return nil, 0, why.openError()
	}
	err = readAway(all, log)
	if err != nil && !errors.Is(err, seglog.ErrCorrupt) {
		return nil, 0, err
	}
	infos = make([]JobInfo, 0, len(all))
	for _, j := range all {
		next = j.id
		if err != nil && j.rests && j.data == nil {
			continue
		}
		info := JobInfo{
			ID: jobID(s.incarnation, j.id), State: jobStateNames[j.state], Data: j.data,
			Deliveries: int(j.deliveries), Sent: time.Unix(0, j.sent), Reason: j.reason,
		}
		if j.at > 0 {
			info.Until = time.Unix(0, j.at)
		}
		infos = append(infos, info)
	}
	return infos, next, err
}

// readAway reads the bodies of those jobs that are on the disk alone. One that has gone meanwhile
// is without.
func readAway(jobs []seenJob, log jobLog) error {
	var ids []uint64
	for i := range jobs {
		if jobs[i].rests {
			ids = append(ids, jobs[i].id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	bodies, err := log.read(ids)
	for i := range jobs {
		if b, ok := bodies[jobs[i].id]; ok {
			jobs[i].data, jobs[i].sent = b.data[min(int(jobs[i].read), len(b.data)):], b.sent
		}
	}
	return err
}

// PeekJobs yields the jobs of a queue, in the order in which they came, but for
// those on their way to a Receive. It takes none. Of those that come or go while
// it looks, it yields some. It looks while it yields, for as long as that takes
// and ctx lasts, and holds no more than some jobs at once, however many there
// are. The errors are those of Status, fs.ErrNotExist if there is no such queue,
// or none any more, and that of a broker that can't read its disk. A job that is
// not as it was written there is left out, and the error comes behind all others.
func (c *Client) PeekJobs(ctx context.Context, queue string) iter.Seq2[JobInfo, error] {
	return func(yield func(JobInfo, error) bool) {
		err := c.peek(ctx, queue, func(j JobInfo) bool { return yield(j, nil) })
		if err != nil && c.closing.Err() != nil {
			err = os.ErrClosed
		}
		if err != nil {
			yield(JobInfo{}, c.opError("peek jobs", queue, err))
		}
	}
}

// peek calls each with the jobs of a queue, until that is false.
func (c *Client) peek(ctx context.Context, queue string, each func(JobInfo) bool) error {
	var s *chunkQueue // which is here,
	var r *Reader     // or what is said of it elsewhere,
	var end func()    // until then
	remote := func(ctx context.Context, endpoint string) (err error) {
		if err := c.peeking.Acquire(ctx, 1); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				c.peeking.Release(1)
			}
		}()
		r, end, err = c.openReport(ctx, endpoint, modePeek, queue)
		return err
	}
	err := c.reachPipe(ctx, queue, func(ctx context.Context, b *Broker) error {
		return b.atHome(ctx, queue, false, func() error {
			var why *cause
			if s, why = b.pipes.lookAt(queue); why != nil {
				return why.openError()
			}
			return nil
		}, func(endpoint string) error { return remote(ctx, endpoint) })
	}, func(ctx context.Context) error { return remote(ctx, c.endpoint) })
	switch {
	case err != nil:
		return err
	case r != nil:
		defer c.peeking.Release(1)
		defer end()
		return peekElsewhere(ctx, r, each)
	}
	for next, failed := uint64(0), error(nil); ; {
		var infos []JobInfo
		infos, next, err = jobInfos(s, next)
		if failed = cmp.Or(failed, err); next == 0 {
			return cmp.Or(ctx.Err(), failed)
		}
		for _, j := range infos {
			if err := cmp.Or(ctx.Err(), c.closing.Err()); err != nil || !each(j) {
				return err
			}
		}
	}
}

// peekElsewhere reads what the broker in another process says.
func peekElsewhere(ctx context.Context, r *Reader, each func(JobInfo) bool) (err error) {
	defer r.endWith(ctx)()
	text := json.NewDecoder(r)
	_, err = text.Token() // [
	for err == nil && text.More() {
		var j JobInfo
		if err = text.Decode(&j); err == nil {
			if err = ctx.Err(); err == nil && !each(j) {
				return nil
			}
		}
	}
	if err == nil {
		_, err = text.Token() // ], or why there is none
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	r.pipe.mu.Lock()
	defer r.pipe.mu.Unlock()
	if err != nil && r.pipe.writer.left && r.pipe.writer.cause.code == causeDeleted {
		return errDeleted
	}
	return err
}

// PurgeJobs drops all jobs of a queue that are in one of those states, and says
// how many; jobs that are taken stay. When it returns, that is on the disk if the
// queue is durable. The errors are those of PeekJobs, and io.ErrClosedPipe if the
// queue is deleted meanwhile.
func (c *Client) PurgeJobs(ctx context.Context, queue string, states ...JobState) (n int, err error) {
	for _, state := range states {
		tend := map[JobState]tending{JobReady: tendPurgeReady, JobDelayed: tendPurgeDelayed, JobDead: tendPurgeDead}[state]
		if tend == 0 {
			return n, c.opError("purge jobs", queue, fmt.Errorf("%q is no state of jobs that can be purged", state))
		}
		purged, err := c.tend(ctx, "purge jobs", queue, tend)
		if n += purged; err != nil {
			return n, err
		}
	}
	return n, nil
}

// RedriveJobs has all dead jobs of a queue wait again, as if they had never been
// delivered, and says how many. Otherwise it is like PurgeJobs.
func (c *Client) RedriveJobs(ctx context.Context, queue string) (n int, err error) {
	return c.tend(ctx, "redrive jobs", queue, tendRedrive)
}

func (c *Client) tend(ctx context.Context, op, queue string, what tending) (int, error) {
	q, err := c.openQueue(ctx, queue, modeKnown, queueSettings{})
	if err != nil {
		var e *OpError
		if errors.As(err, &e) {
			e.Op = op
		}
		return 0, err
	}
	defer q.Close()
	if err = q.knowJobs(); err != nil {
		return 0, q.fail(op, err)
	}
	q.queue.mu.Lock()
	defer q.queue.mu.Unlock()
	done := -1 // no result, since this may come when the call has returned
	tended := func(concerned int) {
		done = concerned
		q.sender.wake()
	}
	if q.link == nil {
		q.queue.tend(what, tended)
	} else {
		q.link.tend(what, tended)
	}
	for done < 0 {
		err := q.refusal()
		if q.closed { // with its Client
			err = os.ErrClosed
		}
		if err == nil {
			err = q.await(ctx)
		}
		if err != nil {
			return 0, q.fail(op, err)
		}
	}
	return done, nil
}
