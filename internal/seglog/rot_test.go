package seglog

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// played is a store with two queues, one with a random history, closed or killed at its end.
func played(seed uint64, through func(FS) FS, closed bool) (fs *memFS, h *history, err error) {
	r := rand.New(rand.NewPCG(seed, 5))
	fs = newMemFS()
	s, err := testStore(through(fs), 2048)
	if err != nil {
		return nil, nil, err
	}
	other := newHistory(r)
	if err := other.begin(s, "other"); err != nil {
		return nil, nil, err
	}
	h = newHistory(r)
	if err := h.begin(s, "q"); err != nil {
		return nil, nil, err
	}
	var before []snapshot
	for range 40 {
		before = h.states
		if err := h.append(h.group()); err != nil {
			return nil, nil, err
		}
	}
	if !closed {
		h.states = append(slices.Clone(before), h.states...) // the last batch may look torn
		fs.setFault(func(int, opKind) error { return errors.New("killed") })
	}
	s.Close()
	fs.setFault(nil)
	return fs.crash(survivesKill, nil), h, nil
}

// A flipped bit is noticed, or changes nothing; other queues are as before, and a repair saves all
// that was not hit.
func TestRot(t *testing.T) {
	noticed, harmless := 0, 0
	for seed := range uint64(effort(t, 2)) {
		for _, closed := range []bool{true, false} {
			fs, h, err := played(seed, func(fs FS) FS { return fs }, closed)
			if err != nil {
				t.Fatal(err)
			}
			for i := range effort(t, 150) {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				rotten := fs.crash(survivesKill, nil)
				if i%3 == 0 {
					rotten.removeIndexes("/d/2")
				}
				where := rotten.flip(r, "/d/2")
				err := flipped(rotten, h.states)
				if errors.Is(err, ErrCorrupt) {
					noticed++
					err = repaired(rotten, h.states, mostPuts(fs))
				} else {
					harmless++
				}
				if err != nil {
					t.Fatalf("seed %d, closed %v, flip %d (%s): %v", seed, closed, i, where, err)
				}
			}
		}
	}
	t.Logf("%d noticed, %d harmless", noticed, harmless)
	if noticed < harmless {
		t.Error("most should be noticed")
	}
}

func (m *memFS) removeIndexes(dir string) {
	for name := range m.dirs[dir].now {
		if strings.HasSuffix(name, indexSuffix) {
			m.Remove(filepath.Join(dir, name))
		}
	}
}

// flip flips a bit of a queue's files, and says which.
func (m *memFS) flip(r *rand.Rand, dir string) string {
	files := m.dirs[dir].now
	names := slices.Sorted(maps.Keys(files))
	size := 0
	for _, n := range names {
		size += len(files[n].now)
	}
	at := r.IntN(size)
	for _, n := range names {
		if b := files[n].now; at < len(b) {
			b[at] ^= 1 << r.IntN(8)
			return fmt.Sprintf("%s at %d of %d", n, at, len(b))
		} else {
			at -= len(b)
		}
	}
	return ""
}

// flipped opens and reads what was changed. The other queue must be there.
func flipped(fs *memFS, states []snapshot) error {
	s, err := testStore(fs, 2048)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Load("other", newHistory(nil), noAccount{}); err != nil {
		return fmt.Errorf("the other queue: %v", err)
	}
	for _, f := range s.Queues() {
		if f.Err != nil {
			return f.Err
		}
	}
	l, err := s.Load("q", newHistory(nil), noAccount{})
	if err != nil {
		return err
	}
	_, err = expected(l, states)
	return err
}

// repaired repairs, and compares: all jobs are there but those of one batch.
func repaired(fs *memFS, states []snapshot, most int) error {
	s, err := testStore(fs, 2048)
	if err != nil {
		return err
	}
	defer s.Close()
	var broken Found
	for _, f := range s.Queues() {
		if f.Dir == "/d/2" {
			broken = f
		}
	}
	if broken.Dir == "" {
		return errors.New("the corrupt queue is not listed")
	}
	report, err := s.Repair(broken)
	if err != nil {
		return err
	}
	if len(report.Bad) == 0 {
		return errors.New("nothing bad was reported")
	}
	l, err := s.Load("q", newHistory(nil), noAccount{})
	if err != nil {
		return err
	}
	found, err := read(l)
	if err != nil {
		return err
	}
	least := -1
	for _, state := range states {
		missing := 0
		for id, j := range state.jobs {
			f, ok := found.jobs[id]
			if !ok {
				missing++
			} else if f.sent != j.sent || f.key != j.key || f.Size != j.Size {
				return fmt.Errorf("job %+v is %+v", j, f)
			}
		}
		if least < 0 || missing < least {
			least = missing
		}
	}
	if found.config == "" {
		return errors.New("the configuration is lost")
	}
	if least > most {
		return fmt.Errorf("%d jobs are missing", least)
	}
	// The same is found at the next start, and what was there is aside.
	s.Close()
	again, err := testStore(fs.crash(survivesNothing, nil), 2048)
	if err != nil {
		return err
	}
	defer again.Close()
	if l, err = again.Load("q", newHistory(nil), noAccount{}); err != nil {
		return err
	}
	if _, err := expected(l, []snapshot{found}); err != nil {
		return err
	}
	if fs.dirs[report.Aside] == nil {
		return fmt.Errorf("there is no %s", report.Aside)
	}
	return nil
}

// mostPuts is how many jobs a batch has at most.
func mostPuts(fs *memFS) (most int) {
	for name, f := range fs.dirs["/d/2"].now {
		if _, ok := segmentNumber(name, logSuffix); !ok {
			continue
		}
		h, _ := parseHeader(f.now[:headerSize])
		scanSegment(&memHandle{fs, f}, headerSize, int64(len(f.now)), h.salt, 0, func(_ int64, b []byte) error {
			n := 0
			eachRecord(b, func(r *record, _ int, _ []byte) {
				if r.Kind == Put {
					n++
				}
			})
			most = max(most, n)
			return nil
		})
	}
	return most
}

// What was cut off as torn stays away, also when what is written in its place ends where a batch behind
// it begins.
func TestTornStaysAway(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(testStore(fs, 1<<20))
	l, c := filled(t, s, "q", 2, 10)
	at := l.Stats().Size
	for id := range uint64(2) {
		l.Append(Op{Kind: Taken, ID: id + 1, Deliveries: 1})
		c.await(t, "taken", func() bool { return c.others == int(id)+2 })
	}
	fs = fs.crash(survivesKill, nil)
	fs.dirs["/d/1"].now["00000001.log"].now[at+batchHead] ^= 1
	s = must[*Store](t)(testStore(fs, 1<<20))
	c = newCounter()
	l = must[*Log](t)(s.Load("q", c, noAccount{}))
	for id := range uint64(2) {
		if info, _ := l.Next(id + 1); info.Last != Put {
			t.Fatalf("%+v", info)
		}
	}
	l.Append(Op{Kind: Taken, ID: 1, Deliveries: 1})
	c.await(t, "taken", func() bool { return c.others == 1 })
	s = must[*Store](t)(testStore(fs.crash(survivesKill, nil), 1<<20))
	l = must[*Log](t)(s.Load("q", c, noAccount{}))
	if info, _ := l.Next(1); info.Last != Taken {
		t.Errorf("%+v", info)
	}
	if info, _ := l.Next(2); info.Last != Put {
		t.Errorf("what was torn is there again: %+v", info)
	}
}

// A batch of another segment, which the file system may show behind the end of a file after a crash,
// is none of this one.
func TestForeignBatch(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(testStore(fs, 1<<20))
	for _, name := range []string{"a", "b"} {
		l, c := filled(t, s, name, 1, 10)
		l.Append(Op{Kind: Put, ID: 2})
		c.await(t, "a second batch", func() bool { return c.puts == 2 })
	}
	fs = fs.crash(survivesKill, nil)
	a, b := fs.dirs["/d/1"].now["00000001.log"], fs.dirs["/d/2"].now["00000001.log"]
	second := len(a.now) - batchHead - len(appendRecord(nil, &Op{Kind: Put, ID: 2}))
	copy(a.now[second:], b.now[second:])
	s = must[*Store](t)(testStore(fs, 1<<20))
	l := must[*Log](t)(s.Load("a", newCounter(), noAccount{}))
	if n := l.Stats().Jobs; n != 1 {
		t.Errorf("%d jobs", n)
	}
}

// A repair that a crash has ended counts if it was complete.
func TestRepairInterrupted(t *testing.T) {
	fs, _, err := played(1, func(fs FS) FS { return fs }, true)
	if err != nil {
		t.Fatal(err)
	}
	s := must[*Store](t)(testStore(fs, 2048))
	r := must[Repaired](t)(s.Repair(Found{Name: "q", Dir: "/d/2"}))
	if err := errors.Join(s.Close(), fs.Rename(r.Aside, "/d/2")); err != nil {
		t.Fatal(err)
	}
	s = must[*Store](t)(testStore(fs, 2048))
	defer s.Close()
	for _, f := range s.Queues() {
		if f.Err != nil || f.Name == "q" && f.Dir != "/d/3" {
			t.Errorf("found %+v", f)
		}
	}
	if fs.dirs[r.Aside] == nil {
		t.Errorf("there is no %s", r.Aside)
	}
}

// Without the synced offset in the batches, rot in the tail looks like a torn write, and is
// not noticed.
func TestRotMutant(t *testing.T) {
	for seed := range uint64(10) {
		fs, h, err := played(seed, func(fs FS) FS { return unprovenFS{fs} }, true)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			rotten := fs.crash(survivesKill, nil)
			rotten.flip(rand.New(rand.NewPCG(seed, uint64(i))), "/d/2")
			if err := flipped(rotten, h.states); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Log(err)
				return
			}
		}
	}
	t.Error("nothing was noticed")
}

// An unprovenFS has batches say that nothing was synced.
type unprovenFS struct{ FS }

func (u unprovenFS) Open(name string) (File, error)   { return unproven(name, u.FS.Open) }
func (u unprovenFS) Create(name string) (File, error) { return unproven(name, u.FS.Create) }

func unproven(name string, open func(string) (File, error)) (File, error) {
	f, err := open(name)
	if err != nil || !strings.HasSuffix(name, logSuffix) {
		return f, err
	}
	return unprovenFile{f}, nil
}

type unprovenFile struct{ File }

func (f unprovenFile) WriteAt(b []byte, at int64) (int, error) {
	if at >= headerSize && len(b) >= batchHead {
		b = slices.Clone(b)
		h, _ := parseBatch(b, le.Uint64(b[8:]), at)
		h.synced = 0
		h.seal(b)
	}
	return f.File.WriteAt(b, at)
}

// A queue of which a segment is missing is refused, and repaired.
func TestMissingSegment(t *testing.T) {
	fs, h, err := played(1, func(fs FS) FS { return fs }, true)
	if err != nil {
		t.Fatal(err)
	}
	run, err := findSegments(fs, "/d/2")
	if err != nil || len(run) < 3 {
		t.Fatal(run, err)
	}
	for i, number := range run[:len(run)-1] {
		broken := fs.crash(survivesKill, nil)
		if err := broken.Remove(segmentPath("/d/2", number)); err != nil {
			t.Fatal(err)
		}
		if err := flipped(broken, h.states); !errors.Is(err, ErrCorrupt) {
			t.Errorf("without %s: %v", filepath.Base(segmentPath("", number)), err)
		}
		s := must[*Store](t)(testStore(broken, 2048))
		r, err := s.Repair(Found{Name: "q", Dir: "/d/2"})
		if err != nil || i > 0 && len(r.Bad) == 0 {
			t.Errorf("repaired: %+v, %v", r, err)
		}
		if _, err := s.Load("q", newHistory(nil), noAccount{}); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
