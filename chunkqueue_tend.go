package zpipes

// A tending is what somebody may do with a queue's jobs from outside.
type tending byte

const (
	tendPurgeReady tending = iota + 1
	tendPurgeDelayed
	tendPurgeDead
	tendRedrive // dead jobs wait again, as if they had never been delivered
)

// A chore is a tending that is under way: it concerns as many jobs as there were when it began, one
// after the other, since these may be millions.
type chore struct {
	what tending
	left int   // jobs
	n    int   // it has concerned so many
	upTo int64 // it is over when so many operations are committed
	done func(n int)
}

// tend has done called, with mu held, when it has concerned so many jobs, which is committed; with -1 if the queue is
// void before that. done must not block.
func (s *chunkQueue) tend(what tending, done func(n int)) {
	s.chores.push(&chore{what: what, left: s.count, done: done})
	s.settle()
}

// mostNoted is how many operations may wait to be committed before a chore goes on.
const mostNoted = 4096

// toil does a little of what may be much: it has jobs come back of who has left, or goes on with the
// first chore. It says whether it did, and otherwise goes on when something is committed or loaded.
func (s *chunkQueue) toil() bool {
	if s.leaving.len() > 0 {
		s.leaveJobs(s.leaving.pop(), 1)
		return true
	}
	if s.chores.len() == 0 {
		return false
	}
	c := *s.chores.front()
	switch {
	case s.void:
		c.n = -1
		fallthrough
	case c.left == 0 && s.committedNotes() >= c.upTo:
		s.chores.pop()
		c.done(c.n)
		return true
	case c.left == 0:
		return false
	}
	if s.noting.len() >= mostNoted || s.purging() && s.disk.asked {
		return false
	}
	j := s.pick(c.what)
	if j == nil {
		c.left = 0
		return true
	}
	c.left--
	c.n++
	if c.what == tendRedrive {
		j.deliveries = 0
		s.note(jobOp{kind: opReturned, id: j.id}, nil)
		s.soon(j)
	} else {
		s.letGo(j)
		s.note(jobOp{kind: opDone, id: j.id}, nil)
	}
	c.upTo = s.notes
	return true
}

// purging says that what waits in turn is being dropped: no more of it is loaded.
func (s *chunkQueue) purging() bool {
	if s.chores.len() == 0 {
		return false
	}
	c := *s.chores.front()
	return c.what == tendPurgeReady && c.left > 0
}

// pick takes the first job out that this concerns; nil: there is none.
func (s *chunkQueue) pick(what tending) *job {
	state := jobDead
	switch what {
	case tendPurgeReady:
		return s.popReady()
	case tendPurgeDelayed:
		state = jobDelayed
	}
	if first := s.shelves[state].first; first != nil {
		return s.takeUp(first)
	}
	return nil
}

// popReady takes out the next of the jobs that wait in turn, wherever it is. None are being loaded.
func (s *chunkQueue) popReady() *job {
	d := &s.disk
	switch {
	case s.inMemory():
		return s.popInMemory()
	case s.front.len() > 0:
		d.missing--
		return s.front.pop()
	case d.wanted.len() > 0:
		return d.wanted.pop()
	case d.jobs == 0:
		return nil
	}
	d.jobs--
	return s.nextResting()
}
