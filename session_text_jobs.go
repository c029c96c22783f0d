package zpipes

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// takeJob has a TAKE get a job; see take. The queue's mu is held.
func (c *command) takeJob(j *job) {
	if c.sender.takes--; j == nil {
		return
	}
	sent := *j // it may come back, and go to another one, before it is sent
	c.queue.take(j, &c.sender.senderQueue)
	c.got = &sent
}

// unseen returns a job that was not sent.
func (c *command) unseen() {
	s := c.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.act(&c.sender.senderQueue, c.got.id, c.got.deliveries, act{kind: actUnseen}) {
		c.sender.said++
	}
}

// settles says that it says what becomes of a job.
func (c *command) settles() bool {
	return c.verb == textDone || c.verb == textReturn || c.verb == textExtend
}

// settleWhere is DONE, RETURN or EXTEND, where the job is.
func (c *command) settleWhere(now time.Time) *cause {
	ref, ok := parseJobID(string(c.rest[0]))
	if !ok {
		return &cause{causeAborted, fmt.Sprintf("%.40q is no id of a job", c.rest[0])}
	}
	do := act{kind: actDone}
	switch c.verb {
	case textReturn:
		do.kind = actReturn
	case textExtend:
		do.kind = actExtend
	}
	if len(c.rest) == 2 {
		ms, err := strconv.ParseUint(string(c.rest[1]), 10, 32)
		if err != nil {
			return &cause{causeAborted, fmt.Sprintf("%.40q is no number of milliseconds up to 4294967295", c.rest[1])}
		}
		do.delay = time.Duration(ms) * time.Millisecond
	}
	s, at := c.holder(ref)
	switch {
	case s != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.settle(s, ref, do)
	case at != 0 && c.inquiry == nil:
		_, why := c.pass(at)
		return why
	}
	return c.text.session.pipes.use(c.name, false, now, func(s *chunkQueue) *cause { return c.settle(s, ref, do) })
}

// settle says what becomes of a job. The queue's mu is held.
func (c *command) settle(s *chunkQueue, ref wireJob, do act) *cause {
	c.sender = c.text.sender(s)
	if a := s.aside[ref.id]; a != nil && a.holder == &c.sender.senderQueue && ref.delivery == 0 {
		ref.delivery = a.deliveries
	}
	if ref.incarnation != s.incarnation || !s.act(&c.sender.senderQueue, ref.id, ref.delivery, do) {
		return &cause{causeAborted, "the job is not this client's, or not any more"}
	}
	if do.kind != actExtend { // which nobody waits for
		c.sender.said++
		c.upTo, c.queue = c.sender.said, s
	}
	return nil
}

// works says that somebody waits for a job, has one, or for what it said of one to be committed. The
// queue's mu is held.
func (l *textSender) works() bool { return l.takes > 0 || l.has.n > 0 || l.acts < l.said }

// works says that the client has jobs, and its connection, which is their lease, is there. It can't
// show more of itself.
func (s *session) works() bool {
	if s.text == nil || s.presence != present {
		return false
	}
	for _, f := range s.text.far {
		if len(f.jobs) > 0 {
			return true
		}
	}
	for _, l := range s.text.senders {
		l.queue.mu.Lock()
		has := l.has.n > 0 && !l.queue.void
		l.queue.mu.Unlock()
		if has {
			return true
		}
	}
	return false
}

// jobID is what names a job for ever.
func jobID(incarnation, id uint64) string {
	var b [len("3w5e11264sgsf-18446744073709551615")]byte
	return string(strconv.AppendUint(append(strconv.AppendUint(b[:0], incarnation, 36), '-'), id, 10))
}

// parseJobID reads a job's id; with a dot and a number behind it, it names that delivery.
func parseJobID(text string) (ref wireJob, ok bool) {
	name, delivery, one := strings.Cut(text, ".")
	incarnation, id, _ := strings.Cut(name, "-")
	var wrong [3]error
	ref.incarnation, wrong[0] = strconv.ParseUint(incarnation, 36, 64)
	ref.id, wrong[1] = strconv.ParseUint(id, 10, 64)
	if one {
		var n uint64
		n, wrong[2] = strconv.ParseUint(delivery, 10, 32)
		ref.delivery = uint32(n)
	}
	return ref, wrong == [3]error{} && one == (ref.delivery > 0)
}
