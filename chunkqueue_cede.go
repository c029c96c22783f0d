package zpipes

// A queue that has another home, at another broker, is ceded: nobody opens it here any more, nobody
// sends to it, and all that it has goes over, job by job. What somebody has taken comes back before, or is done.

// cede has the queue hand its jobs over to the home at that broker. wake is told that there may be some, and
// its users that it is over.
func (s *chunkQueue) cede(at string, wake func()) {
	s.ceded, s.homeAt, s.moves, s.mover = true, at, wake, nil
	s.end(cause{causeBrokerGone, "the queue is at " + at + " now; open it again"}, true)
	wake()
}

// keepOn ends that: it is the only home again. Whoever had it open is told that it was over, and has to open it anew.
func (s *chunkQueue) keepOn() {
	if !s.ceded {
		return
	}
	for s.tellOne() {
	}
	if s.ceded, s.homeAt, s.moves, s.mover = false, "", nil, nil; s.void {
		return // as it was before
	}
	s.over, s.emptied = nil, false
	if s.payer != nil {
		s.payer.queues.Add(1)
	}
	s.settle()
}

// ended is why nothing that l sends is taken any more; nil: it is.
func (s *chunkQueue) ended(l *senderQueue) *cause {
	if l.over != nil {
		return l.over
	}
	return s.over
}

// renew has a sender that was told so send again, where the queue goes on.
func (s *chunkQueue) renew(l *senderQueue) {
	if l.over != nil && s.over == nil {
		l.over, l.settled, l.window, l.unsure = nil, l.pushed, 0, 0
	}
}

// away is why the queue can't be used here; nil: it can.
func (s *chunkQueue) away() *cause {
	switch {
	case s.void: // it can't be read from the disk, or not yet
		return s.over
	case s.ceded:
		return &causeIsAway
	}
	return nil
}

// lift takes out jobs to be handed over, of so many bytes, or one; bodies may be on the disk. They are
// l's until settleLifted or unlift. The log is told nothing: there they are what they were.
func (s *chunkQueue) lift(l *senderQueue, most int) (jobs []seenJob) {
	s.mover = l
	add := func(j seenJob, own *job) {
		l.taken++
		s.setAside(&aside{job: own, state: jobTaken, holder: l, turn: l.taken})
		most -= j.size()
		jobs = append(jobs, j)
	}
	for most > 0 && s.available() {
		j := s.popInMemory()
		own := *j
		s.part(&own)
		add(seenJob{job: *j}, &own)
	}
	for _, state := range []jobState{jobDelayed, jobDead} {
		for a := s.shelves[state].first; a != nil && most > 0; a = s.shelves[state].first {
			j := s.see(a)
			add(j, s.takeUp(a))
		}
	}
	if len(jobs) > 0 { // else nothing has changed, and moves would have it lifted once more
		s.settle()
	}
	return jobs
}

// lifted is a job that l has lifted, and has still; nil: the queue has none any more.
func (s *chunkQueue) lifted(l *senderQueue, id uint64) *aside {
	if a := s.aside[id]; a != nil && a.holder == l {
		return a
	}
	return nil
}

// settleLifted says that the other home has those jobs. Their keys are its matter from now on: it may hand the
// jobs back. Where the queue is not ceded as it was when they were lifted, they may be handed back just now, and stay.
func (s *chunkQueue) settleLifted(l *senderQueue, jobs []seenJob) {
	if s.mover != l {
		s.unlift(l, jobs)
		return
	}
	for _, j := range jobs {
		if a := s.lifted(l, j.id); a != nil {
			j := s.takeUp(a)
			if s.once.ids[j.key()].id == j.id {
				delete(s.once.ids, j.key())
			}
			s.letGo(j)
			s.note(jobOp{kind: opDone, id: j.id, text: "handed over"}, nil)
		}
	}
	s.settle()
}

// unlift puts jobs back as they were.
func (s *chunkQueue) unlift(l *senderQueue, jobs []seenJob) {
	var front []*job
	for _, j := range jobs {
		switch a := s.lifted(l, j.id); {
		case a == nil:
		case j.state == jobReady:
			front = append(front, s.takeUp(a))
		default:
			s.setAside(&aside{job: s.takeUp(a), state: j.state, at: j.at, reason: j.reason})
		}
	}
	s.again(front...)
	s.settle()
}

// recall has some jobs come back that others than l have taken, so many at most, and says whether there were any.
func (s *chunkQueue) recall(l *senderQueue, most int) (some bool) {
	for _, a := range s.aside {
		if most == 0 {
			break
		}
		if a.state == jobTaken && a.holder != l {
			s.lose(a)
			s.back(a, 0, nil)
			some = true
			most--
		}
	}
	return some
}

// settings are those that make another queue as this one is.
func (s *chunkQueue) settings() queueSettings {
	set := queueSettings{lease: s.rules.lease, maxDeliveries: s.rules.maxDeliveries}
	if s.room != s.limit {
		set.maxBytes = s.room
	}
	return set
}

// bare says that a ceded queue has nothing any more, nor its log anything to do. One that is void may have something
// on the disk.
func (s *chunkQueue) bare() bool {
	return !s.void && s.count == 0 && s.lent == 0 && s.uncommitted() == 0
}

// goneKeys are the keys that the queue remembers whose jobs have gone. Where some are there still, not all of
// these are known.
func (s *chunkQueue) goneKeys() (keys []seenJob) {
	bare := s.bare()
	for _, k := range s.once.order.all() {
		if now := s.once.ids[k.key]; now.id != k.id || !bare && !now.gone {
			continue
		}
		keys = append(keys, seenJob{job: job{sent: k.sent, terms: &terms{key: k.key}}, state: keyAlone})
	}
	return keys
}

// handedTerms are those of a job that was in another home.
type handedTerms struct {
	sent       int64
	deliveries uint32
	state      jobState // or keyAlone
	reason     string
}

// keyAlone is in place of a jobState where a job has gone, and its key is remembered.
const keyAlone = jobStates

// receiveHanded does what there is to do with a job that was in another home, and says whether that was
// all: else it waits as others do. The other home lets go of what is confirmed, so that has to wait until the
// log knows what the job was.
func (s *chunkQueue) receiveHanded(p *putting) bool {
	t := p.handed()
	if t == nil || t.state != jobDead && t.deliveries == 0 {
		return false
	}
	a := &aside{job: p.job, state: jobReady}
	o := jobOp{kind: opReturned, id: p.id, deliveries: t.deliveries}
	switch {
	case t.state == jobDead:
		a.state, a.reason = jobDead, t.reason
		o.kind, o.text = opDead, t.reason
	case p.due() > s.time().UnixNano():
		a.state, a.at = jobDelayed, p.due()
		o.due = p.due()
	}
	if s.log != nil {
		from := p.from
		from.handing++
		s.noteThen(o, noted{then: func() { s.handedOn(from) }})
	}
	if s.part(p.job); a.state == jobReady {
		s.soon(p.job)
	} else {
		s.setAside(a)
	}
	return true
}

// rememberGone remembers the key of a job that was in another home, and is gone.
func (s *chunkQueue) rememberGone(l *senderQueue, key string, sent int64) {
	s.lastID++
	s.restoreKey(key, s.lastID, sent)
	if s.log != nil {
		l.handing++
		s.noteThen(jobOp{kind: opGone, id: s.lastID, sent: sent, text: key}, noted{then: func() { s.handedOn(l) }})
	}
}

// handedOn confirms what has arrived of a sender's, if nothing more of it has to be written down.
func (s *chunkQueue) handedOn(l *senderQueue) {
	for l.handing--; l.handing == 0 && l.arrived.len() > 0; {
		if n := l.arrived.pop(); !l.left {
			s.confirm(l, n)
		}
	}
}
