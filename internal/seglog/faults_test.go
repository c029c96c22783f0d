package seglog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

// Whatever operation fails, and however: what was confirmed stays, what passes is waited
// out, and what does not ends the log, which can be opened again.
func TestFaults(t *testing.T) {
	faults := map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EMFILE": syscall.EMFILE, "short": errShort}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(effort(t, 1)) {
				for op := 1; ; op++ {
					r := rand.New(rand.NewPCG(seed, 3))
					reached, err := faulty(r, op, 1+int(seed%3), fault)
					if err != nil {
						t.Fatalf("seed %d, operation %d: %v", seed, op, err)
					}
					if !reached {
						break
					}
				}
			}
		})
	}
}

// A sync that fails is final, whatever it says, and the log can be loaded again.
func TestSyncFails(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		fs := newMemFS()
		s := must[*Store](t)(testStore(fs, 1<<20))
		l, c := filled(t, s, "q", 1, 1)
		syncs := 0
		fs.setFault(func(_ int, what opKind) error {
			if what != opSync {
				return nil
			}
			if syncs++; syncs > 1 {
				return nil
			}
			return fault
		})
		l.Append(Op{Kind: Put, ID: 2})
		c.mu.Lock()
		for c.fail == nil {
			c.changed.Wait()
		}
		c.mu.Unlock()
		if err := l.Append(Op{Kind: Put, ID: 3}); !errors.Is(err, fault) || c.puts != 1 || syncs != 1 {
			t.Errorf("after a sync has failed, append says %v; %d confirmed, %d syncs", err, c.puts, syncs)
		}
		if err := l.Close(); !errors.Is(err, fault) {
			t.Errorf("close: %v", err)
		}
		c = newCounter()
		l = must[*Log](t)(s.Load("q", c, noAccount{}))
		found := l.Stats().Jobs
		l.Append(Op{Kind: Put, ID: l.NextID()})
		c.await(t, "going on", func() bool { return c.puts == 1 })
		s = must[*Store](t)(testStore(fs.crash(survivesNothing, nil), 1<<20))
		l = must[*Log](t)(s.Load("q", newCounter(), noAccount{}))
		if n := l.Stats().Jobs; n != found+1 {
			t.Errorf("%d jobs survive of %d", n, found+1)
		}
	}
}

// A segment that could not be begun does not count when a crash brings it back: the one before it has
// gone on.
func TestSegmentNotBegun(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(testStore(fs, 4096))
	l, c := filled(t, s, "q", 3, 100)
	fs.setFault(func(_ int, what opKind) error {
		if what == opSyncDir {
			return syscall.EMFILE
		}
		return nil
	})
	l.Append(Op{Kind: Put, ID: 4, Body: make([]byte, 4096)})
	c.await(t, "stalling", func() bool { return c.stalled != nil })
	l.Append(Op{Kind: Done, ID: 1})
	c.await(t, "an acknowledgement", func() bool { return c.others == 2 })
	r := rand.New(rand.NewPCG(1, 1))
	back := 0
	for range 200 {
		after := fs.crash(survival(r.IntN(int(survivals)+1)), r)
		if after.dirs["/d/1"].now["00000002.log"] != nil {
			back++
		}
		s := must[*Store](t)(testStore(after, 4096))
		l := must[*Log](t)(s.Load("q", newCounter(), noAccount{}))
		if info, _ := l.Next(0); info.ID != 2 {
			t.Fatalf("job %d is there", info.ID)
		}
	}
	if back == 0 {
		t.Error("it never came back")
	}
	s.Close()
}

// faulty plays a history in which some operations from the given one on fail.
func faulty(r *rand.Rand, first, times int, fault error) (reached bool, err error) {
	const most = 1024
	fs := newMemFS()
	fs.setFault(func(op int, what opKind) error {
		if op < first || op >= first+times {
			return nil
		}
		reached = true
		if fault == errShort && what != opWrite {
			return nil
		}
		return fault
	})
	h := newHistory(r)
	h.overtakes = true
	s, err := testStore(fs, most)
	if err != nil {
		return reached, nil // there was nothing to lose
	}
	defer func() { s.Close() }()
	if err := h.waitOut(h.begin(s, "q")); err != nil {
		return reached, nil
	}
	h.begun = true
	for range 25 {
		err := h.waitOut(h.append(h.group()))
		if err == nil {
			continue
		}
		if h.log != nil {
			h.log.Close()
		}
		if err := h.reopen(s); err != nil {
			return reached, err
		}
	}
	s.Close()
	after := fs.crash(survivesNothing, r)
	s, err = testStore(after, most)
	if err != nil {
		return reached, err
	}
	l, err := s.Load("q", newHistory(nil), noAccount{})
	if err != nil {
		return reached, err
	}
	_, err = expected(l, h.states)
	return reached, err
}

// waitOut tries again until what waits for room has gone through.
func (h *history) waitOut(err error) error {
	if h.log == nil {
		return err
	}
	h.log.tryAgain()
	for {
		h.mu.Lock()
		left, failed := h.waiting, h.err
		h.mu.Unlock()
		if left == 0 && failed == nil {
			h.confirmed()
		}
		if left == 0 || failed != nil {
			return failed
		}
		<-h.told
	}
}

// reopen opens the log again after it has failed. That may fail for a while, too.
func (h *history) reopen(s *Store) (err error) {
	for range 6 {
		h.err, h.full, h.waiting = nil, nil, 0
		select {
		case <-h.told:
		default:
		}
		if h.log, err = s.Load("q", h, noAccount{}); err == nil {
			i, err := expected(h.log, h.states)
			if err != nil {
				return fmt.Errorf("opened again: %w", err)
			}
			h.now = h.states[i].clone()
			h.now.nextID = h.log.NextID()
			h.states = []snapshot{h.now.clone()}
			return nil
		}
		if errors.Is(err, ErrCorrupt) {
			return err
		}
	}
	return err
}

// A queue of which nobody can say just now whose it is might be made anew, and the jobs of the earlier one put aside.
func TestOpenOfWhatCannotBeRead(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(testStore(fs, 1<<20))
	filled(t, s, "q", 1, 1)
	s.Close()
	for _, what := range []opKind{opOpen, opRead} {
		fs.setFault(func(_ int, is opKind) error {
			if is == what {
				return syscall.EACCES
			}
			return nil
		})
		if s, err := testStore(fs, 1<<20); !errors.Is(err, syscall.EACCES) {
			t.Errorf("opened, with %+v, %v", s.Queues(), err)
		}
	}
	fs.setFault(nil)
	if found := must[*Store](t)(testStore(fs, 1<<20)).Queues(); len(found) != 1 || found[0].Name != "q" {
		t.Errorf("there are %+v", found)
	}
}

// A queue is deleted as soon as its directory has another name: what of it can't be removed then is not in the way, and
// gone when the store is opened the next time.
func TestDeletedQueueWhoseFilesStay(t *testing.T) {
	for _, closed := range []bool{false, true} {
		fs := newMemFS()
		s := must[*Store](t)(testStore(fs, 1<<20))
		l, _ := filled(t, s, "q", 3, 10)
		if closed {
			l.Close()
		}
		fs.setFault(func(_ int, what opKind) error {
			if what == opRemove {
				return syscall.EIO
			}
			return nil
		})
		err := error(nil)
		if closed {
			err = s.Remove("q")
		} else {
			err = l.Delete()
		}
		if err != nil {
			t.Error(err)
		}
		fs.setFault(nil)
		s = nameIsFree(t, fs, s)
		if err := s.Remove("q"); err == nil {
			t.Error("a queue that is open is removed")
		}
		s.Close()
		for dir := range s.fs.(*memFS).dirs {
			if strings.HasSuffix(dir, goneSuffix) {
				t.Errorf("%s is there", dir)
			}
		}
	}
}

// A deletion that fails because there is no descriptor can be tried again.
func TestDeletedQueueWithoutDescriptors(t *testing.T) {
	fs := newMemFS()
	s := must[*Store](t)(testStore(fs, 1<<20))
	l, _ := filled(t, s, "q", 3, 10)
	fs.setFault(func(_ int, what opKind) error {
		if what == opSyncDir {
			return syscall.EMFILE
		}
		return nil
	})
	for _, remove := range []func() error{l.Delete, func() error { return s.Remove("q") }} {
		if err := remove(); !Passing(err) {
			t.Fatal(err)
		}
	}
	fs.setFault(nil)
	if err := s.Remove("q"); err != nil {
		t.Fatal(err)
	}
	nameIsFree(t, fs, s)
}

// nameIsFree checks that a new queue takes a deleted one's name, and has what is its own after a
// loss of power. It returns the store that has been opened then.
func nameIsFree(t *testing.T, fs *memFS, s *Store) *Store {
	t.Helper()
	filled(t, s, "q", 1, 1)
	s.Close()
	s = must[*Store](t)(testStore(fs.crash(survivesNothing, nil), 1<<20))
	l := must[*Log](t)(s.Load("q", newCounter(), noAccount{}))
	if n := l.Stats().Jobs; n != 1 {
		t.Errorf("%d jobs", n)
	}
	return s
}
