package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// A modelJob is what is expected of a job.
type modelJob struct {
	Info
	sent int64
	key  string
}

func (j modelJob) body() []byte {
	b := make([]byte, j.Size)
	x := j.ID*0x9e3779b97f4a7c15 + 1
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (i % 8 * 8))
	}
	return b
}

type snapshot struct {
	jobs   map[uint64]modelJob
	keys   map[uint64]Key // of all jobs that ever were
	config string
	nextID uint64
}

// A history appends random operations to a log, and knows which states a crash may leave.
type history struct {
	r       *rand.Rand
	log     *Log
	most    int // jobs
	keyless bool
	synced  bool // the last group has more than that jobs are taken

	mu        sync.Mutex
	now       snapshot
	states    []snapshot // the last one that is safe, and those after it
	begun     bool       // the queue was made for sure
	overtakes bool       // the disk may be full, so that others overtake Puts
	waiting   int        // for how many operations
	err       error
	full      error
	told      chan struct{}
}

func newHistory(r *rand.Rand) *history {
	return &history{r: r, most: 30, now: newSnapshot(), told: make(chan struct{}, 1)}
}

func (*history) Gather() {}

func (h *history) Committed(puts, others int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting -= puts + others
	h.tell()
}

func (h *history) Stalled(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = err
	h.tell()
}

func (h *history) Failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	h.tell()
}

func (h *history) tell() {
	select {
	case h.told <- struct{}{}:
	default:
	}
}

// settled waits until all is committed, or can't be.
func (h *history) settled() error {
	for {
		h.mu.Lock()
		left, err, full := h.waiting, h.err, h.full
		h.mu.Unlock()
		if left == 0 || err != nil || full != nil {
			return errors.Join(err, full)
		}
		<-h.told
	}
}

func newSnapshot() snapshot {
	return snapshot{jobs: make(map[uint64]modelJob), keys: make(map[uint64]Key), nextID: 1}
}

func (s snapshot) clone() snapshot {
	s.jobs, s.keys = maps.Clone(s.jobs), maps.Clone(s.keys)
	return s
}

// apply has the model do what the log is about to be told.
func (s *snapshot) apply(o Op) {
	j, ok := s.jobs[o.ID]
	switch o.Kind {
	case Put:
		s.jobs[o.ID] = modelJob{Info{ID: o.ID, Size: len(o.Body), Last: Put, Due: o.Due}, o.Sent, o.Text}
		s.nextID = max(s.nextID, o.ID+1)
		if o.Text != "" {
			s.keys[o.ID] = Key{o.Text, o.ID, o.Sent}
		}
	case Taken, Returned, Dead:
		if ok {
			j.Last, j.Deliveries, j.Due, j.Reason = o.Kind, o.Deliveries, 0, ""
			if o.Kind == Returned {
				j.Due = o.Due
			}
			if o.Kind == Dead {
				j.Reason = o.Text
			}
			s.jobs[o.ID] = j
		}
	case Done:
		delete(s.jobs, o.ID)
	case Config:
		s.config = string(o.Body)
	case Gone:
		s.nextID = max(s.nextID, o.ID+1)
		s.keys[o.ID] = Key{o.Text, o.ID, o.Sent}
	}
}

// group makes some operations that are appended together.
func (h *history) group() []Op {
	var ops []Op
	ids := slices.Sorted(maps.Keys(h.now.jobs))
	if len(ids) > 0 && h.r.IntN(6) == 0 { // is not synced
		return []Op{{Kind: Taken, ID: ids[h.r.IntN(len(ids))], Deliveries: h.r.Uint32N(5)}}
	}
	for range h.r.IntN(5) {
		if len(ids) == 0 {
			break
		}
		i := 0
		if h.r.IntN(3) == 0 {
			i = h.r.IntN(len(ids))
		}
		o := Op{ID: ids[i], Deliveries: uint32(h.r.IntN(5))}
		switch n := h.r.IntN(10); {
		case n < 5 || len(ids) > h.most:
			o = Op{Kind: Done, ID: o.ID}
			ids = slices.Delete(ids, i, i+1)
		case n < 7:
			o.Kind = Taken
		case n < 8:
			o.Kind, o.Due = Returned, h.r.Int64N(3)
		case n < 9:
			o.Kind, o.Text = Dead, []string{"", "why"}[h.r.IntN(2)]
		default:
			o = Op{Kind: Config, Body: fmt.Append(nil, h.r.IntN(100))}
		}
		ops = append(ops, o)
	}
	next := h.now.nextID + uint64(h.r.IntN(10)/9)
	if !h.keyless && h.r.IntN(10) == 0 {
		ops = append(ops, Op{Kind: Gone, ID: next, Sent: h.r.Int64(), Text: "key"})
		next++
	}
	for range h.r.IntN(4) {
		o := Op{Kind: Put, ID: next, Sent: h.r.Int64(), Due: h.r.Int64N(3), Text: []string{"", "key"}[h.r.IntN(2)]}
		if h.keyless {
			o.Text = ""
		}
		next++
		size := h.r.IntN(120)
		if h.r.IntN(20) == 0 {
			size = 1000 + h.r.IntN(3000)
		}
		j := modelJob{Info: Info{ID: o.ID, Size: size}}
		o.Body = j.body()
		ops = append(ops, o)
	}
	return ops
}

// append appends a group, and the states that may be found then.
func (h *history) append(ops []Op) error {
	h.mu.Lock()
	sync := false
	for _, o := range ops {
		if o.Kind == Put && h.overtakes && sync {
			h.states = append(h.states, h.now.clone()) // all the others come first
			h.overtakes = false
			defer func() { h.overtakes = true }()
		}
		h.now.apply(o)
		sync = sync || o.Kind != Taken
	}
	h.waiting += len(ops)
	h.states = append(h.states, h.now.clone())
	h.mu.Unlock()
	err := h.log.Append(ops...)
	if err == nil {
		err = h.settled()
	}
	if h.synced = sync; err == nil {
		h.confirmed()
	}
	return err
}

// confirmed says that the last group was committed.
func (h *history) confirmed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.synced {
		h.states = h.states[len(h.states)-1:]
	}
}

func (h *history) begin(s *Store, name string) error {
	h.now.config = "first"
	h.mu.Lock()
	h.waiting = 1
	h.states = []snapshot{h.now.clone()}
	h.mu.Unlock()
	var err error
	if h.log, err = s.Create(name, []byte(h.now.config), h, noAccount{}); err != nil {
		return err
	}
	if err := h.settled(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun = true
	return nil
}

type noAccount struct{}

func (noAccount) Charge(int64, bool) bool { return true }

// read is what a log has.
func read(l *Log) (snapshot, error) {
	s := newSnapshot()
	s.config, s.nextID = string(l.Config()), l.NextID()
	for _, k := range l.Keys() {
		s.keys[k.ID] = k
	}
	var ids []uint64
	for info, ok := l.Next(0); ok; info, ok = l.Next(info.ID + 1) {
		s.jobs[info.ID] = modelJob{Info: info}
		ids = append(ids, info.ID)
	}
	jobs, err := l.Read(ids...)
	if err != nil {
		return s, err
	}
	if len(jobs) != len(ids) {
		return s, fmt.Errorf("%d of %d jobs read", len(jobs), len(ids))
	}
	for _, j := range jobs {
		m := s.jobs[j.ID]
		if m.Info != j.Info {
			return s, fmt.Errorf("%+v read as %+v", m.Info, j.Info)
		}
		m.sent, m.key = j.Sent, j.Key
		if !bytes.Equal(j.Body, m.body()) {
			return s, fmt.Errorf("job %d has another body", j.ID)
		}
		s.jobs[j.ID] = m
	}
	return s, nil
}

func (s snapshot) equal(t snapshot) bool {
	return s.config == t.config && maps.Equal(s.keys, t.keys) && maps.Equal(s.jobs, t.jobs)
}

// expected says whether a log is in one of the states, and what is wrong.
func expected(l *Log, states []snapshot) (int, error) {
	s, err := read(l)
	if err != nil {
		return 0, err
	}
	for i := len(states) - 1; i >= 0; i-- {
		if s.equal(states[i]) {
			if s.nextID < states[i].nextID {
				return 0, fmt.Errorf("the next id is %d, though there was %d", s.nextID, states[i].nextID-1)
			}
			return i, nil
		}
	}
	return 0, fmt.Errorf("found %v\nexpected one of %v", s, states)
}

// testStore opens a store whose logs do nothing by themselves.
func testStore(fs FS, most int64) (*Store, error) {
	s, err := Open("/d", Options{FS: fs, SegmentBytes: most, KeyFor: math.MaxInt64})
	if err == nil {
		s.rest = time.Hour
	}
	return s, err
}

func must[T any](t testing.TB) func(T, error) T {
	return func(x T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}
