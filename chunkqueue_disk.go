package zpipes

import (
	"encoding/json"
	"time"
)

// A jobLog keeps a queue on the disk. Its methods are called with the queue's mu held and must
// not block.
type jobLog interface {
	// append has something kept; what it was told comes back as committed.
	append(jobOp)
	// next is the first job from an id on that is kept, was to be handed out at once, and of
	// which nothing was said since; and how many bytes it has.
	next(id uint64) (j uint64, n int, ok bool)
	// load has jobs brought back with their bodies, as loaded.
	load(ids []uint64)
	// read returns jobs with their bodies, as far as they are there. It waits for the disk: mu is
	// not held.
	read(ids []uint64) (map[uint64]job, error)
	// remove deletes all that is kept.
	remove()
	stats() logStats
}

// logStats are the numbers of a log.
type logStats struct {
	size    int64         // what it takes on the disk
	syncs   int64         // since the broker began
	syncing time.Duration // how long these took
}

func (s *chunkQueue) kept() logStats {
	if s.log == nil {
		return logStats{}
	}
	return s.log.stats()
}

// onDisk is what a queue with a log does not have in memory: bodies of jobs that somebody has
// taken, that are not due, or are dead; and beyond a limit all that waits in turn, of which it
// only knows how many they are.
type onDisk struct {
	waiting int // size of what waits in memory for its turn
	unsure  int // of what waits to be committed

	jobs    int     // how many wait in turn that are not in memory
	from    uint64  // the first of them has this id or a later one
	since   int64   // when that which was the first was sent; 0: nobody knows
	line    jobList // those that are loaded: what senders have in line is older
	missing int     // how many in front are without their bodies
	wanted  jobList // jobs whose turn is behind those, likewise
	loading []*job  // what load was asked for
	early   int     // the first of these are in front, the others nowhere else
	asked   bool

	config bool // the rules are being written down
	stale  bool // and have changed since
}

const (
	// keptJob is what a job of a queue with a log costs in memory, wherever it is, and asideJob
	// what it costs beside that if the queue has it at hand.
	keptJob  = 16
	asideJob = 200
)

// costs is what the queue holds in memory.
func (s *chunkQueue) costs() int {
	if s.log == nil {
		return s.held
	}
	d := &s.disk
	return d.waiting + d.unsure + s.count*keptJob + (len(s.aside)+d.missing+d.wanted.len())*asideJob
}

// costOf is what a job costs that is put into the queue.
func (s *chunkQueue) costOf(j *job) int {
	switch {
	case s.log == nil:
		return j.size()
	case j.due() > 0:
		return j.size() + keptJob + asideJob
	}
	return j.size() + keptJob
}

// length is how many bytes a job has, here or on the disk.
func (j *job) length() int { return len(j.data) + j.away }

// part leaves a job's body to the disk.
func (s *chunkQueue) part(j *job) {
	if s.log != nil {
		j.rests, j.away, j.data = true, j.length(), nil
	}
}

// stay counts what waits for its turn in memory.
func (s *chunkQueue) stay(n int) {
	if s.log != nil {
		s.disk.waiting += n
		s.pay()
	}
}

// crowded says that jobs which come now wait on the disk alone: there is enough in memory, or
// there are others which did, and are older.
func (s *chunkQueue) crowded() bool {
	d := &s.disk
	return s.log != nil && (d.jobs > 0 || d.asked || d.line.len() > 0 || d.waiting >= s.limit)
}

// spill leaves a job that waits in turn to the disk.
func (s *chunkQueue) spill(id uint64, sent int64) {
	if s.disk.jobs++; s.disk.jobs == 1 {
		s.disk.from, s.disk.since = id, sent
	}
}

// soon has a job wait behind those that have come back, and before all others.
func (s *chunkQueue) soon(j *job) {
	if s.log == nil {
		s.front.push(j)
		return
	}
	s.disk.wanted.push(j)
	s.pay()
}

// again has jobs wait before all others. Nobody gets another one while the first is without its body.
func (s *chunkQueue) again(jobs ...*job) {
	for _, j := range jobs {
		s.inFront(j)
	}
	s.front.unshift(jobs)
}

// inFront counts a job that comes into front.
func (s *chunkQueue) inFront(j *job) {
	if j.rests {
		s.disk.missing++
		s.pay()
	} else {
		s.stay(j.size())
	}
}

// refill has jobs loaded that are next on the disk, while there is little in memory.
func (s *chunkQueue) refill() {
	d := &s.disk
	if s.log == nil || s.void || d.asked || s.purging() || d.missing+d.wanted.len() == 0 && (d.jobs == 0 || d.waiting > s.limit/2) {
		return
	}
	n := d.waiting
	room := func() bool { return n < s.limit || s.front.len() == 0 || d.missing > 0 && len(d.loading) == 0 }
	load := func(j *job) {
		n += j.size()
		d.loading = append(d.loading, j)
	}
	for j := s.front.first; len(d.loading) < d.missing && room(); j = j.next {
		if j.rests {
			load(j)
		}
	}
	for d.wanted.len() > 0 && len(d.loading) == d.missing && room() {
		j := d.wanted.pop()
		if s.inFront(j); j.rests {
			load(j)
		}
		s.front.push(j)
	}
	for d.early = len(d.loading); d.wanted.len() == 0 && d.jobs > 0 && n < s.limit; d.jobs-- {
		j := s.nextResting()
		if j == nil {
			break
		}
		load(j)
	}
	ids := make([]uint64, len(d.loading))
	for i, j := range d.loading {
		ids[i] = j.id
	}
	if len(ids) > 0 {
		d.asked = true
		s.log.load(ids)
	}
	s.pay()
}

// loaded brings what load was asked for. It says which job is missing; 0: none.
func (s *chunkQueue) loaded(bodies map[uint64]job) (missing uint64) {
	d := &s.disk
	for i, j := range d.loading {
		b, ok := bodies[j.id]
		if !ok {
			missing = j.id
			continue
		}
		j.data, j.sent = b.data[min(int(j.read), len(b.data)):], b.sent
		j.rests, j.away = false, 0
		if i < d.early {
			d.missing--
		} else {
			d.line.push(j)
		}
		s.stay(j.size())
	}
	d.loading, d.asked = nil, false
	s.settle()
	return missing
}

// nextResting is the next job that waits in turn and is not in memory; nil: there is none. It has to be
// taken from their number.
func (s *chunkQueue) nextResting() *job {
	id, length, ok := s.log.next(s.disk.from)
	if !ok {
		return nil
	}
	s.disk.from = id + 1
	return &job{id: id, rests: true, away: length}
}

// resting are the next jobs behind an id that wait in turn and are in no line: as many as have
// so many bytes, and one at least.
func (s *chunkQueue) resting(after uint64, most int) (jobs []*job) {
	for _, j := range s.disk.loading[min(s.disk.early, len(s.disk.loading)):] {
		if j.id > after {
			jobs = append(jobs, j)
		}
	}
	for j := s.disk.wanted.first; j != nil; j = j.next {
		if j.id > after {
			jobs = append(jobs, j)
		}
	}
	from := max(s.disk.from, after+1)
	for n := 0; n < s.disk.jobs && most >= 0; n++ {
		id, length, ok := s.log.next(from)
		if !ok {
			break
		}
		from = id + 1
		j := &job{id: id, rests: true, away: length}
		most -= j.size()
		jobs = append(jobs, j)
	}
	return jobs
}

// mostUnwritten is how many operations may wait to be written down before nobody is given anything, since each delivery
// makes some: a disk may stand still for long.
const mostUnwritten = 1 << 16

// writeConfig has the log know the rules, once at a time, however often they change.
func (s *chunkQueue) writeConfig() {
	if s.disk.stale = s.disk.config; !s.disk.stale {
		s.disk.config = true
		s.noteThen(jobOp{kind: opConfig, data: s.config()}, noted{then: s.configWritten})
	}
}

func (s *chunkQueue) configWritten() {
	if s.disk.config = false; s.disk.stale {
		s.writeConfig()
	}
}

// durableRoom is how much a durable queue holds by default before senders wait.
const durableRoom = 1 << 30

// A queueConfig is what a log keeps of a queue's rules.
type queueConfig struct {
	Lease         time.Duration `json:"lease,omitzero"`
	MaxDeliveries int           `json:"max_deliveries,omitzero"`
	MaxBytes      int           `json:"max_bytes"`
	Owner         string        `json:"owner,omitempty"` // the payer's
}

func (s *chunkQueue) config() []byte {
	c := queueConfig{Lease: s.rules.lease, MaxDeliveries: s.rules.maxDeliveries, MaxBytes: s.room}
	if s.payer != nil {
		c.Owner = s.payer.owner
	}
	text, _ := json.Marshal(c) // it has no field that could fail
	return text
}

// obey sets the rules that a log has kept, and says who has made the queue.
func (s *chunkQueue) obey(config []byte) (owner string, err error) {
	var c queueConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return "", err
	}
	s.setRules(jobRules{lease: c.Lease, maxDeliveries: c.MaxDeliveries}, c.MaxBytes)
	return c.Owner, nil
}
