package seglog

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A table is a map that is sorted.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table table
		model := make(map[uint64]entry)
		ids := rapid.Uint64Range(0, 700)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				e := entry{offset: rapid.Uint32().Draw(t, "offset")}
				table.put(id, e)
				model[id] = e
			},
			"run": func(t *rapid.T) {
				first := ids.Draw(t, "first")
				for id := first; id < first+200; id++ {
					table.put(id, entry{size: uint32(id)})
					model[id] = entry{size: uint32(id)}
				}
			},
			"remove": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				table.remove(id)
				delete(model, id)
			},
			"drain": func(t *rapid.T) {
				first, n := ids.Draw(t, "first"), rapid.Uint64Range(0, 300).Draw(t, "n")
				for id := first; id < first+n; id++ {
					table.remove(id)
					delete(model, id)
				}
			},
			"": func(t *rapid.T) {
				var found []uint64
				for id, e := table.next(0); e != nil; id, e = table.next(id + 1) {
					if *e != model[id] || *table.get(id) != model[id] {
						t.Fatalf("%d is %+v, expected %+v", id, *e, model[id])
					}
					found = append(found, id)
				}
				if len(found) != len(model) || table.count != len(model) || !slices.IsSorted(found) {
					t.Fatalf("found %v (%d), expected %v", found, table.count, model)
				}
				if id := ids.Draw(t, "get"); (table.get(id) != nil) != (slices.Index(found, id) >= 0) {
					t.Fatalf("get(%d)", id)
				}
			},
		})
	})
}

// A mark keeps what it is made of.
func TestMark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.SampledFrom([]Kind{Put, Taken, Returned, Dead}).Draw(t, "last")
		head, deliveries := rapid.IntRange(0, 1023).Draw(t, "head"), rapid.Uint32().Draw(t, "deliveries")
		m := newMark(last, head, deliveries)
		if m.last() != last || m.head() != head || m.deliveries() != min(deliveries, maxDeliveries) {
			t.Fatalf("%v %d %d", m.last(), m.head(), m.deliveries())
		}
	})
}

// A record is read as it was written, with and without its body.
func TestRecord(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		o := Op{Kind: Kind(r.IntN(int(Gone)) + 1), ID: r.Uint64(), Text: string(make([]byte, r.IntN(MaxText+1)))}
		fields := o.fields()
		if fields&hasSent != 0 {
			o.Sent = r.Int64()
		}
		if optionalOf[o.Kind]&hasText == 0 {
			o.Text = ""
		}
		if optionalOf[o.Kind]&hasDue != 0 {
			o.Due = r.Int64N(2)
		}
		if fields&hasDeliveries != 0 {
			o.Deliveries = r.Uint32()
		}
		if fields&hasBody != 0 {
			o.Body = make([]byte, r.IntN(9))
		}
		b := appendRecord(nil, &o)
		for _, bodies := range []bool{true, false} {
			rec, n := parseRecord(b, bodies)
			got, want := rec.Op, o
			if len(got.Body) != len(want.Body) && bodies || rec.size != len(want.Body) {
				t.Fatalf("%+v has a body of %d bytes", o, rec.size)
			}
			got.Body, want.Body = nil, nil
			if got.Kind != want.Kind || got.ID != want.ID || got.Sent != want.Sent || got.Due != want.Due ||
				got.Deliveries != want.Deliveries || got.Text != want.Text {
				t.Fatalf("%+v read as %+v", o, rec.Op)
			}
			whole := bodies || rec.indexed()
			if whole && n != len(b) || !whole && n != len(b)-len(o.Body) || rec.head != len(b)-len(o.Body) {
				t.Fatalf("%+v has %d bytes, not %d", o, len(b), n)
			}
		}
		for n := range b {
			if rec, m := parseRecord(b[:n], true); m > n {
				t.Fatalf("%d bytes of %d read as %d: %+v", n, len(b), m, rec)
			}
		}
	}
}

// A million jobs take little memory, also where others came and went between them.
func TestTableMemory(t *testing.T) {
	measure := func(fill func(*table)) float64 {
		var before, after runtime.MemStats
		for range 3 { // what pools and finalizers of earlier tests still have goes in turns
			runtime.GC()
		}
		runtime.ReadMemStats(&before)
		var table table
		fill(&table)
		runtime.GC()
		runtime.ReadMemStats(&after)
		defer runtime.KeepAlive(&table)
		return float64(int64(after.HeapAlloc-before.HeapAlloc)) / float64(table.count)
	}
	const million = 1_000_000
	if n := measure(func(t *table) {
		for id := range uint64(million) {
			t.put(id, entry{})
		}
	}); n > 18 {
		t.Errorf("%.1f bytes a job", n)
	}
	if n := measure(func(t *table) {
		for id := range uint64(2 * million) {
			t.put(id, entry{})
			if id%5000 != 0 {
				t.remove(id)
			}
		}
	}); n > 250 {
		t.Errorf("%.1f bytes for one of 5,000", n)
	}
}
