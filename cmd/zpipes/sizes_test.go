package main

import (
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "17": 17, "17B": 17, "4K": 4096, "4k": 4096, "4KiB": 4096, "4kB": 4000, "4 KB": 4000,
		"1.5M": 3 << 19, "2GiB": 2 << 30, "1TB": 1e12,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "1X", "1..5", "9999999T", "1e3", "0x10"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func TestSizesAreForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 5 << 40: "5 TiB", 5 << 50: "5120 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		900 * time.Millisecond: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s",
		25*time.Hour + 3*time.Minute: "25h03m", 49 * time.Hour: "2d",
	} {
		if got := ageText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// A pipe of the same name as one before is another one, and has not been stuck.
func TestTopKnowsPipesApart(t *testing.T) {
	s := &screen{seen: make(map[string]sight)}
	start := time.Now()
	look := func(after, age time.Duration, out int64) row {
		p := zpipes.PipeInfo{Name: "p", Age: age, Queued: 1, BytesIn: out + 1, BytesOut: out}
		return s.rows([]zpipes.PipeInfo{p}, start.Add(after))[0]
	}
	look(0, time.Second, 100)
	if r := look(2*time.Second, 3*time.Second, 300); r.stuck != 0 || r.outRate != 100 {
		t.Errorf("one that moves: %+v", r)
	}
	if r := look(6*time.Second, 7*time.Second, 300); r.stuck != 4*time.Second || r.outRate != 0 {
		t.Errorf("one that does not: %+v", r)
	}
	if r := look(8*time.Second, time.Second, 300); r.stuck != 0 {
		t.Errorf("another one: %+v", r)
	}
}
