package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	"github.com/zpipes/zpipes"
)

// What is stuck: the page and top mean the same.
func TestStuck(t *testing.T) {
	const queue = zpipes.ModeQueue
	for _, test := range []struct {
		what  string
		info  zpipes.PipeInfo
		moves int64 // bytes out a second
		stuck bool
	}{
		{"a queue that nobody has sent to", zpipes.PipeInfo{Mode: queue, Users: 1}, 0, false},
		{"a receiver at an empty queue", zpipes.PipeInfo{Mode: queue, Users: 1, Reads: true}, 0, false},
		{"chunks that wait for somebody to come", zpipes.PipeInfo{Mode: queue, Chunks: 3, Queued: 30}, 0, false},
		{"chunks that wait while a worker works", zpipes.PipeInfo{Mode: queue, Chunks: 3, Queued: 30, Users: 2}, 0, false},
		{"chunks that one who waits does not get", zpipes.PipeInfo{Mode: queue, Chunks: 3, Queued: 30, Users: 1, Reads: true}, 0, true},
		{"a full queue", zpipes.PipeInfo{Mode: queue, Chunks: 3, Queued: 30, Users: 1, Writes: true}, 0, true},
		{"a full queue that is emptied", zpipes.PipeInfo{Mode: queue, Chunks: 3, Queued: 30, Users: 2, Writes: true}, 5, false},
		{"a stream that waits for data", zpipes.PipeInfo{Reader: true, Writer: true, Reads: true}, 0, false},
		{"a reader without a writer", zpipes.PipeInfo{Reader: true, Reads: true}, 0, false},
		{"a writer without a reader", zpipes.PipeInfo{Writer: true, Writes: true}, 0, true},
		{"a reader that does not read", zpipes.PipeInfo{Reader: true, Writer: true, Queued: 7}, 0, true},
		{"a busy stream", zpipes.PipeInfo{Reader: true, Writer: true, Queued: 7, Writes: true}, 1000, false},
	} {
		s, p, now := screen{seen: make(map[string]sight)}, newPlay(), time.Unix(1e9, 0)
		info := test.info
		info.Name = "x"
		look := func() (bool, bool) {
			now = now.Add(time.Second)
			info.Age += time.Second
			info.BytesOut += test.moves
			return s.rows([]zpipes.PipeInfo{info}, now)[0].stuck > 0, p.pass(info).Pipes[0].Stuck
		}
		for range 10 {
			top, page := look()
			if wait := info.Age > stuckAfter; top != (test.stuck && wait) || page != top {
				t.Errorf("%s, for %v: stuck at top %v, on the page %v", test.what, info.Age, top, page)
			}
		}
		// One that was idle for long, and has something for a moment.
		busy := info
		info = zpipes.PipeInfo{Name: "x", Mode: info.Mode, Age: info.Age, Writer: info.Writer, Reader: info.Reader, BytesOut: info.BytesOut}
		for range 10 {
			look()
		}
		busy.Age, info = info.Age, busy
		if top, page := look(); top || page {
			t.Errorf("%s, just now: stuck at top %v, on the page %v", test.what, top, page)
		}
	}
}

func TestTopIsAsWideAsTheScreen(t *testing.T) {
	rows := []row{
		{PipeInfo: zpipes.PipeInfo{Name: strings.Repeat("long", 63), Writer: true, Writes: true, Queued: 12345}, stuck: 5 * time.Second},
		{PipeInfo: zpipes.PipeInfo{Name: strings.Repeat("\xff", 255), Mode: zpipes.ModeQueue, Users: 10, Chunks: 12345, Queued: 999999}},
		{PipeInfo: zpipes.PipeInfo{Name: "short", Reader: true, Writer: true}},
		{PipeInfo: zpipes.PipeInfo{Name: strings.Repeat("長", 85), Reader: true, Writer: true}}, // two columns each
	}
	for _, width := range []int{80, 100, 120, 200, 2000} {
		lines := strings.Split(table(rows, width), "\n")
		for _, line := range lines {
			if n := uniseg.StringWidth(line); n > width {
				t.Errorf("%d on a screen of %d: %s", n, width, line)
			}
		}
		for i, want := range []string{"STATE", "STUCK for 5s, waits for a reader", "-", "-", "-"} {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("on a screen of %d: %q does not end with %q", width, lines[i], want)
			}
		}
		for _, c := range columns {
			if gone := !strings.Contains(lines[0], c.title); gone && (c.goes == 0 || width >= 120) {
				t.Errorf("on a screen of %d there is no %s", width, c.title)
			}
		}
		if !strings.Contains(lines[1], "12.1 KiB") || !strings.HasPrefix(lines[3], "short ") {
			t.Errorf("on a screen of %d: %q", width, lines)
		}
	}
	if text := table(rows[2:3], 80); !strings.Contains(text, "MODE") || strings.Contains(text, "…") {
		t.Error(text)
	}
	// What of a name is left out is in the middle.
	if got := clip("abcdefghij", 5); got != "ab…ij" {
		t.Error(got)
	}
	if got := clip("長い名前", 5); got != "長…前" {
		t.Error(got)
	}
	for n := range 12 {
		for _, name := range []string{"abcdefghij", "長い名前です", "e\u0301e\u0301e\u0301e\u0301e\u0301"} {
			if got := uniseg.StringWidth(clip(name, n)); n > 0 && got > n {
				t.Error(name, n, got)
			}
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
