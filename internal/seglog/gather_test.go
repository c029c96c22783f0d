package seglog

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shared has senders put jobs, each when its last one is confirmed and so long has passed, on a disk whose syncs
// take so long. It says how many jobs a commit had, and how long it took until the first of them was done.
func shared(t *testing.T, jobs int, sync time.Duration, after ...time.Duration) (each float64, first time.Duration) {
	fs := newMemFS()
	commits := 0
	fs.setFault(func(_ int, what opKind) error {
		if what == opSync {
			commits++
			time.Sleep(sync)
		}
		return nil
	})
	s := must[*Store](t)(Open("/d", Options{FS: fs}))
	defer s.Close()
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	c.await(t, "the queue", func() bool { return c.others == 1 })
	commits = 0
	first = putAll(t, l, c, jobs, after)
	return float64(len(after)*jobs) / float64(commits), first
}

func putAll(t *testing.T, l *Log, c *counter, jobs int, after []time.Duration) (first time.Duration) {
	start := time.Now()
	var all sync.WaitGroup
	var mu sync.Mutex
	id := 0
	for i, pause := range after {
		all.Go(func() {
			for range jobs {
				mu.Lock()
				id++
				mine := id
				l.Append(Op{Kind: Put, ID: uint64(mine)})
				mu.Unlock()
				c.await(t, "a job", func() bool { return c.puts >= mine })
				time.Sleep(pause)
			}
			if i == 0 {
				first = time.Since(start)
			}
		})
	}
	all.Wait()
	return first
}

// Senders elsewhere, who come again a moment after they were told, share all commits, and not every other one.
func TestCommitsWaitForThoseWhoComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, jobs = 16, 20
		after := make([]time.Duration, senders)
		for i := range after {
			after[i] = 2*time.Millisecond + time.Duration(i)*10*time.Microsecond
		}
		if each, _ := shared(t, jobs, 10*time.Millisecond, after...); each < senders*3/4 {
			t.Errorf("%.1f jobs a commit, of %d senders", each, senders)
		}
	})
}

// Who comes too late is not waited for time and again.
func TestCommitsDoNotWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const jobs, sync = 300, 10 * time.Millisecond
		_, took := shared(t, jobs, sync, 0, 7*time.Millisecond)
		if most := jobs * (sync + sync/30); took > most {
			t.Errorf("%d jobs of a sender that never pauses took %v, expected %v at most", jobs, took, most)
		}
	})
}

// A job that is taken and done at once costs one write, and one that is not done is soon written.
func TestLazyTakenIsWrittenWithWhatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		s := must[*Store](t)(Open("/d", Options{FS: fs}))
		defer s.Close()
		l, c := filled(t, s, "q", 2, 1)
		var ops []opKind
		fs.setFault(func(_ int, what opKind) error { ops = append(ops, what); return nil })
		l.Append(Op{Kind: Taken, ID: 1, Deliveries: 1, Lazy: true})
		synctest.Wait()
		l.Append(Op{Kind: Done, ID: 1})
		synctest.Wait()
		if want := []opKind{opWrite, opSync}; !slices.Equal(ops, want) || c.others != 3 {
			t.Errorf("operations %v, expected %v; %d are committed", ops, want, c.others)
		}
		ops = nil
		l.Append(Op{Kind: Taken, ID: 2, Deliveries: 1, Lazy: true})
		time.Sleep(2 * lazyAfter)
		synctest.Wait()
		if info, _ := l.Next(2); info.Last != Taken || !slices.Equal(ops, []opKind{opWrite}) {
			t.Errorf("operations %v, and the log knows %v", ops, info.Last)
		}
	})
}

// What is lazy is committed when the log is closed.
func TestLazyTakenIsWrittenAtTheEnd(t *testing.T) {
	s := must[*Store](t)(Open("/d", Options{FS: newMemFS()}))
	l, _ := filled(t, s, "q", 1, 1)
	l.Append(Op{Kind: Taken, ID: 1, Deliveries: 1, Lazy: true})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := must[*Log](t)(s.Load("q", newCounter(), noAccount{}))
	if info, _ := again.Next(1); info.Last != Taken {
		t.Errorf("the log knows %v", info.Last)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
