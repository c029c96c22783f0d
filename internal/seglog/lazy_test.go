package seglog

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

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

// A gatherer says that somebody is about to append more, until it is told otherwise.
type gatherer struct {
	*counter
	asked, done chan struct{}
}

func (g *gatherer) Gather() {
	g.asked <- struct{}{}
	<-g.done
}

// What is appended in one go is committed together, also where the first of it wakes the committer. Nobody is asked where there
// is nothing to commit: who closes the log may be in the middle of something itself.
func TestCommitsWaitForWhoAppendsMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100
		fs := newMemFS()
		s := must[*Store](t)(Open("/d", Options{FS: fs}))
		filled(t, s, "q", many, 1)
		s.Close()
		s = must[*Store](t)(Open("/d", Options{FS: fs}))
		g := &gatherer{newCounter(), make(chan struct{}, 10), make(chan struct{})}
		l := must[*Log](t)(s.Load("q", g, noAccount{}))
		var ops []opKind
		fs.setFault(func(_ int, what opKind) error {
			if what != opOpen {
				ops = append(ops, what)
			}
			return nil
		})
		for id := range uint64(many) {
			l.Append(Op{Kind: Done, ID: id + 1})
			synctest.Wait()
		}
		if len(ops) > 0 || len(g.asked) != 1 {
			t.Errorf("operations %v while more is appended; asked %d times", ops, len(g.asked))
		}
		close(g.done)
		g.await(t, "all", func() bool { return g.others == many })
		if want := []opKind{opWrite, opSync}; !slices.Equal(ops, want) {
			t.Errorf("operations %v, expected %v", ops, want)
		}
		before := len(g.asked)
		if err := s.Close(); err != nil || len(g.asked) != before {
			t.Errorf("Close: %v; asked %d times more", err, len(g.asked)-before)
		}
	})
}
