package ring

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The reader is told of each mark once, with the bytes behind it, however they are cut.
func TestMarks(t *testing.T) {
	e := newEnds(t, 1000)
	rng := rand.New(rand.NewPCG(1, 2))
	var want, got []uint64
	b := make([]byte, 300)
	for e.r.Count() < 1_000_000 {
		for range rng.IntN(10) {
			if rng.IntN(3) > 0 {
				e.w.Mark()
				want = append(want, e.w.Written())
			}
			if _, err := e.w.Write(b[:rng.IntN(len(b))]); err != nil {
				t.Fatal(err)
			}
		}
		for range rng.IntN(10) {
			n, err := e.r.Ready(1 + rng.IntN(300))
			if n > 0 {
				err = e.r.Marks(n, func(at int) { got = append(got, e.r.Count()+uint64(at)) })
			}
			if err == nil && n > 0 {
				err = e.r.Consume(n)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	want = slices.Compact(want)
	want = slices.DeleteFunc(want, func(at uint64) bool { return at >= e.r.Count() })
	if !slices.Equal(got, want) {
		t.Fatalf("%d marks, want %d", len(got), len(want))
	}
}

// Where there are too many, the last ones are left out; later ones are told again.
func TestMarksThatAreTooMany(t *testing.T) {
	e := newEnds(t, 4*mostMarks)
	for range 2 * mostMarks {
		e.w.Mark()
		if _, err := e.w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.w.Push(); err != nil {
		t.Fatal(err)
	}
	marks := 0
	drain := func() {
		for {
			n, err := e.r.Ready(100)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				return
			}
			if err := e.r.Marks(n, func(at int) { marks++ }); err != nil {
				t.Fatal(err)
			}
			if err := e.r.Consume(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if drain(); marks != mostMarks {
		t.Errorf("%d marks", marks)
	}
	e.w.Mark()
	if _, err := e.w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := e.w.Push(); err != nil {
		t.Fatal(err)
	}
	if drain(); marks != mostMarks+1 {
		t.Errorf("%d marks", marks)
	}
}

// No mark that an honest writer can't have made is taken.
func TestMarksThatCantBe(t *testing.T) {
	for name, spoil := range map[string]func(m *marks){
		"too many":   func(m *marks) { m.told.store(math.MaxUint64) },
		"fewer":      func(m *marks) { m.told.store(0) },
		"before":     func(m *marks) { m.at[1].store(0) },
		"twice":      func(m *marks) { m.at[2].store(2); m.at[1].store(2); m.told.store(3) },
		"back again": func(m *marks) { m.at[1].store(3); m.at[2].store(2); m.told.store(3) },
	} {
		e := newEnds(t, 100)
		e.w.Mark()
		e.w.Write([]byte("ab"))
		if n, err := e.r.Ready(2); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if err := e.r.Marks(2, func(int) {}); err != nil {
			t.Fatal(err)
		}
		e.r.Consume(2)
		e.w.Mark()
		e.w.Write([]byte("cd"))
		spoil(e.r.marks())
		n, err := e.r.Ready(2)
		if err == nil {
			err = e.r.Marks(n, func(int) {})
		}
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := e.r.Ready(2); !errors.Is(err, ErrBroken) {
			t.Errorf("%s, then: %v", name, err)
		}
	}
}
