package main

import (
	"strings"
	"testing"
	"time"
)

// What rivals say is believed only if it can be true.
func TestChronicle(t *testing.T) {
	held := func(id uint64, from, to int64, words int64) deed {
		return deed{What: "held", Role: "writer", Writer: id, From: from, To: to, Words: words}
	}
	left := func(id uint64, from, to int64, words int64, why string) deed {
		return deed{What: "left", Role: "writer", Writer: id, From: from, To: to, Words: words, Why: why, Closing: why == ""}
	}
	heard := func(reader, id uint64, from, to int64, words int64, why string) deed {
		return deed{What: "left", Role: "reader", Reader: reader, Writer: id, From: from, To: to, Words: words, Why: why}
	}
	for name, test := range map[string]struct {
		deeds []deed
		want  string
	}{
		"one after the other": {[]deed{
			held(1, 1, 2, 1), left(1, 3, 4, 1, ""), heard(9, 1, 0, 5, 1, "end"), held(2, 6, 7, 1), left(2, 8, 9, 1, ""), heard(10, 2, 5, 9, 1, "end"),
		}, ""},
		"at the same time, perhaps":           {[]deed{held(1, 1, 9, 1), held(2, 2, 10, 1), left(1, 1, 9, 1, "late")}, ""},
		"no word of the first one's end":      {[]deed{held(1, 1, 2, 1), held(2, 3, 4, 1)}, ""},
		"both":                                {[]deed{held(1, 1, 2, 1), held(2, 3, 4, 1), held(1, 5, 6, 2)}, "two writers"},
		"both, and then the first one leaves": {[]deed{held(1, 1, 2, 1), held(2, 3, 4, 1), held(1, 5, 6, 2), left(1, 7, 8, 2, "")}, "two writers"},
		"two readers of one writer":           {[]deed{held(1, 1, 2, 1), heard(9, 1, 0, 5, 1, "left"), heard(10, 1, 0, 5, 1, "left")}, "DOUBLED"},
		"less than confirmed":                 {[]deed{held(1, 1, 2, 5), heard(9, 1, 0, 5, 4, "torn")}, "LOST"},
		"less, since it left":                 {[]deed{held(1, 1, 2, 5), heard(9, 1, 0, 5, 4, "left")}, ""},
		"a clean end of a torn stream":        {[]deed{held(1, 1, 2, 1), left(1, 2, 3, 1, "torn"), heard(9, 1, 0, 5, 1, "end")}, "SILENT"},
		"a clean end too early":               {[]deed{held(1, 1, 2, 1), left(1, 3, 4, 2, ""), heard(9, 1, 0, 5, 1, "end")}, "SILENT"},
		"no clean end of a closed stream":     {[]deed{held(1, 1, 2, 1), left(1, 3, 4, 1, ""), heard(9, 1, 0, 5, 1, "torn")}, "LOST"},
	} {
		h := &chronicle{deeds: test.deeds}
		err := h.judge(newGraveyard(new(bench)))
		if err == nil {
			err = h.linearizable()
		}
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// Time in which this process stood still is nobody's fault; all other time counts.
func TestAllowance(t *testing.T) {
	a := allow(time.Second)
	a.looked = a.looked.Add(-time.Hour)
	if a.usedUp() {
		t.Error("an hour in which nobody looked counts")
	}
	for n := 0; !a.usedUp(); n++ {
		if a.looked = a.looked.Add(-lookEvery); n > 1000 {
			t.Fatal("it is never used up")
		}
	}
}
