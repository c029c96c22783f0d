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
