package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A size is a number of bytes: 4096, 64K or 64KiB, 64kB, 1.5GiB. It is a flag's value
// and one of the config file's.
type size int64

var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "kib": 1 << 10, "kb": 1e3,
	"m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9,
	"t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

func parseSize(text string) (size, error) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && !unicode.IsDigit(r) })
	if end < 0 {
		end = len(text)
	}
	unit, known := units[strings.ToLower(strings.TrimSpace(text[end:]))]
	n, err := strconv.ParseFloat(text[:end], 64)
	switch {
	case err != nil || !known:
		return 0, fmt.Errorf("%q is no size; write for example 4096, 64KiB or 1.5MB", text)
	case n*unit >= math.MaxInt64:
		return 0, fmt.Errorf("%s is too large", text)
	}
	return size(n * unit), nil
}

func (s *size) UnmarshalText(text []byte) (err error) {
	*s, err = parseSize(string(text))
	return err
}

func (s *size) Set(text string) error { return s.UnmarshalText([]byte(text)) }
func (s *size) Get() any              { return *s }

func (s *size) String() string {
	if s == nil || *s == 0 {
		return ""
	}
	return strings.ReplaceAll(bytesText(int64(*s)), " ", "")
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	unit := 0
	for f >= 1<<10 && unit < 4 {
		f /= 1 << 10
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + "KMGT"[unit-1:unit] + "iB"
}

// ageText is a duration for people.
func ageText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// A duration is one that is not negative.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if unit, number := time.ParseDuration(string(text) + "s"); err != nil && number == nil && unit >= 0 {
		return fmt.Errorf("%q has no unit; write for example %ss or %sms", text, text, text)
	}
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration; write for example 500ms, 10s or 1h30m", text)
	}
	*d = duration(v)
	return nil
}

func (d *duration) Set(text string) error { return d.UnmarshalText([]byte(text)) }
func (d *duration) Get() any              { return *d }

func (d *duration) String() string {
	if d == nil || *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// A count is a number from 1 on. 0 is none given.
type count int

func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is no number", text)
	}
	if n < 1 {
		return fmt.Errorf("the count must be at least 1, not %d", n)
	}
	*c = count(n)
	return nil
}

func (c *count) Get() any { return *c }

func (c *count) String() string {
	if c == nil || *c == 0 {
		return ""
	}
	return strconv.Itoa(int(*c))
}
