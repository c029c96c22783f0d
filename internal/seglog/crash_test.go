package seglog

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// effort is how often random tests do what they do: SEGLOG_EFFORT times.
func effort(t testing.TB, n int) int {
	if e := os.Getenv("SEGLOG_EFFORT"); e != "" {
		f, err := strconv.ParseFloat(e, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(float64(n) * f)
	}
	return n
}

// from is where seeds of random tests begin: at SEGLOG_FROM.
func from(t testing.TB) uint64 {
	n, err := strconv.ParseUint(cmp.Or(os.Getenv("SEGLOG_FROM"), "0"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A crash at any operation leaves what was confirmed, and of the rest, whole commits in
// their order.
func TestCrash(t *testing.T) {
	states, first := 0, from(t)
	for i := range uint64(effort(t, 2)) {
		n, err := crashes(first+i, func(fs *memFS) FS { return fs })
		if err != nil {
			t.Fatalf("seed %d: %v", first+i, err)
		}
		if states += n; i%10 == 9 {
			t.Logf("%d states", states)
		}
	}
	t.Logf("%d states", states)
}

// crashes plays a history and looks at what crashes leave.
func crashes(seed uint64, through func(*memFS) FS) (states int, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	fs := newMemFS()
	most := int64(512 << r.IntN(5))
	h := newHistory(r)
	h.keyless = seed%2 == 1
	at := rand.New(rand.NewPCG(seed, 2)) // of what the crashes need
	looking := true
	fs.hook = func() {
		h.mu.Lock()
		expect, begun := h.states, h.begun
		h.mu.Unlock()
		if !looking || err != nil {
			return
		}
		for what := range survivals + 1 {
			times := 3
			if what == survivesNothing || what == survivesAll {
				times = 1
			}
			for range times {
				states++
				after := fs.crash(what, at)
				if e := recovers(after, most, expect, begun, at, 1); e != nil && err == nil {
					err = fmt.Errorf("operation %d, survival %d: %w", fs.ops, what, e)
				}
			}
		}
	}
	s, e := testStore(through(fs), most)
	if e != nil {
		return states, e
	}
	if e := h.begin(s, "q"); e != nil {
		return states, e
	}
	for range 60 {
		if err != nil {
			break
		}
		if r.IntN(20) == 0 {
			h.log.beIdle()
		}
		if e := h.append(h.group()); e != nil {
			return states, e
		}
	}
	s.Close()
	looking = false
	return states, err
}

// recovers opens what a crash has left, and crashes while it does so up to deep times.
func recovers(fs *memFS, most int64, expect []snapshot, begun bool, r *rand.Rand, deep int) error {
	if deep > 0 && r.IntN(3) == 0 {
		stop := r.IntN(8) + 1
		crashed := fs.crash(survivesKill, nil)
		var after *memFS
		n := 0
		crashed.hook = func() {
			if n++; n == stop {
				after = crashed.crash(survival(r.IntN(int(survivals)+1)), r)
			}
		}
		if s, err := testStore(crashed, most); err == nil {
			s.Load("q", newHistory(nil), noAccount{})
		}
		if after != nil {
			return recovers(after, most, expect, begun, r, deep-1)
		}
	}
	return recoverOnce(fs, most, expect, begun, r)
}

// recoverOnce opens, looks, and goes on with what there is.
func recoverOnce(fs *memFS, most int64, expect []snapshot, begun bool, r *rand.Rand) error {
	s, err := testStore(fs, most)
	if err != nil {
		return err
	}
	defer s.Close()
	found := s.Queues()
	if len(found) == 0 && !begun {
		return nil
	}
	if len(found) != 1 || found[0].Name != "q" || found[0].Err != nil {
		return fmt.Errorf("found %v", found)
	}
	h := newHistory(nil)
	if h.log, err = s.Load("q", h, noAccount{}); err != nil {
		return err
	}
	i, err := expected(h.log, expect)
	if err != nil {
		return err
	}
	if r.IntN(4) > 0 {
		return nil
	}
	// It goes on, and what it has now stays.
	h.now = expect[i].clone()
	h.now.nextID = h.log.NextID()
	id := h.now.nextID
	if err := h.append([]Op{{Kind: Put, ID: id, Body: modelJob{Info: Info{ID: id, Size: 10}}.body()}}); err != nil {
		return err
	}
	again := fs.crash(survivesNothing, nil)
	s2, err := testStore(again, most)
	if err != nil {
		return err
	}
	defer s2.Close()
	l, err := s2.Load("q", newHistory(nil), noAccount{})
	if err != nil {
		return fmt.Errorf("after going on: %w", err)
	}
	if _, err = expected(l, h.states); err != nil {
		return fmt.Errorf("after going on: %w", err)
	}
	if err := s.Close(); err != nil || fs.open > 0 {
		return fmt.Errorf("closed: %v, with %d files open", err, fs.open)
	}
	return nil
}

// The rules of the log, left out one by one, are missed.
func TestCrashMutants(t *testing.T) {
	for name, through := range map[string]func(*memFS) FS{
		"no fsync":          func(fs *memFS) FS { fs.lies = true; return fs },
		"no directory sync": func(fs *memFS) FS { fs.dirLies = true; return fs },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				if _, err := crashes(seed, through); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("nothing was noticed")
		})
	}
}
