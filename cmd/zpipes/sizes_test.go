package main

import (
	"testing"
	"time"
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
