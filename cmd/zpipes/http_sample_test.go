package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/zpipes/zpipes"
)

// A play is a sampler that is shown made-up samples.
type play struct {
	*sampler
	now   time.Time
	stats zpipes.BrokerStats
}

func newPlay() *play {
	return &play{
		sampler: &sampler{tracks: make(map[string]*track), viewers: make(map[chan []byte]bool)},
		now:     time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// pass lets a second pass, and takes a sample.
func (p *play) pass(pipes ...zpipes.PipeInfo) *pageView {
	p.now = p.now.Add(time.Second)
	p.take(p.now, true, p.stats, slices.Values(pipes), slices.Values(p.members))
	return p.look()
}

func (p *play) events() (all []string) {
	for _, e := range p.look().Events {
		all = append(all, strings.Join(strings.Fields(e.Kind+" "+e.Name+" "+e.Text), " "))
	}
	return all
}

func TestPageWhoWaits(t *testing.T) {
	const queue = zpipes.ModeQueue
	for _, test := range []struct {
		what  string
		info  zpipes.PipeInfo
		moves int64 // bytes out a second
		want  string
		stuck bool
	}{
		{"a writer alone", zpipes.PipeInfo{Writer: true, Writes: true}, 0, "writer has waited 42 s for a reader", true},
		{"a full pipe", zpipes.PipeInfo{Writer: true, Reader: true, Writes: true}, 0, "writer has waited 42 s for room", true},
		{"a busy pipe", zpipes.PipeInfo{Writer: true, Reader: true, Writes: true}, 1, "", false},
		{"a reader alone", zpipes.PipeInfo{Reader: true, Reads: true}, 0, "reader has waited 42 s for a writer", false},
		{"an idle writer", zpipes.PipeInfo{Writer: true, Reader: true, Reads: true}, 0, "no new bytes for 42 s", false},
		{"nobody waits", zpipes.PipeInfo{Writer: true}, 0, "", false},
		{"an empty queue", zpipes.PipeInfo{Mode: queue, Reads: true}, 0, "a receiver has waited 42 s for a chunk", false},
		{"a full queue", zpipes.PipeInfo{Mode: queue, Writes: true}, 0, "a sender has waited 42 s for room", true},
	} {
		p := newPlay()
		info := test.info
		info.Name = "x"
		for range 42 {
			p.pass(info)
			info.BytesOut += test.moves
			info.Age += time.Second
		}
		v := p.pass(info)
		if got := v.Pipes[0]; got.Wait != test.want || got.Stuck != test.stuck {
			t.Errorf("%s: %q, %v", test.what, got.Wait, got.Stuck)
		}
		if info.Reads, info.Writes = false, false; p.pass(info).Pipes[0].Wait != "" {
			t.Errorf("%s: it waits still", test.what)
		}
	}
}

func TestPageEvents(t *testing.T) {
	p := newPlay()
	a := zpipes.PipeInfo{Name: "a", Age: 10 * time.Second, BytesIn: 2048}
	p.pass(a)
	if got := p.events(); got != nil {
		t.Errorf("of the first sample: %q", got)
	}
	p.pass(a, zpipes.PipeInfo{Name: "b", Mode: zpipes.ModeQueue})
	p.stats.Expired, p.stats.Refused = 1, 3
	p.pass(zpipes.PipeInfo{Name: "a"}) // another one
	want := []string{
		"trouble 3 opens were refused", "trouble a client expired", "came a stream",
		"went b queue, after 0 s and 0 B", "went a stream, after 10 s and 2 KiB", "came b queue",
	}
	if got := p.events(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	p.take(p.now.Add(time.Second), false, p.stats, slices.Values([]zpipes.PipeInfo(nil)), slices.Values(p.members))
	if v := p.look(); v.State != "closing" || v.Events[0].Text != "the broker is shutting down" {
		t.Errorf("%+v", v)
	}
}

func TestPageRates(t *testing.T) {
	p := newPlay()
	idle, busy := zpipes.PipeInfo{Name: "idle", Queued: 7, BytesIn: 1 << 30}, zpipes.PipeInfo{Name: "busy"}
	p.pass(idle)
	for range 2 * graphPoints {
		busy.BytesIn += 2048
		busy.BytesOut += 1024
		p.stats.BytesIn += 2048
		p.pass(idle, busy)
	}
	v := p.look()
	if v.Pipes[0].Name != "idle" || v.Pipes[0].Graph != nil || v.Pipes[0].In != "0 B/s" {
		t.Errorf("%+v", v.Pipes[0])
	}
	if b := v.Pipes[1]; b.In != "2 KiB/s" || b.Out != "1 KiB/s" || b.Graph.Peak != "2 KiB/s" || b.Graph.In[0] != 100 || b.Graph.Out[graphPoints-1] != 50 {
		t.Errorf("%+v", b)
	}
	if v.Total.Peak != "2 KiB/s" || v.Facts[1].Value != "2 KiB/s" {
		t.Errorf("%+v", v)
	}
	for range graphPoints {
		p.pass(idle, busy)
	}
	if v := p.look(); v.Pipes[1].Graph != nil {
		t.Errorf("a minute later: %+v", v.Pipes[1])
	}
}

func TestPageOfManyPipes(t *testing.T) {
	p := newPlay()
	var pipes []zpipes.PipeInfo
	for i := range 10000 {
		pipes = append(pipes, zpipes.PipeInfo{Name: fmt.Sprintf("%05d", i) + strings.Repeat("\xff", 250), Queued: i})
	}
	p.pass()
	start := time.Now()
	v := p.pass(pipes...)
	t.Log("10,000 pipes take", time.Since(start))
	if len(v.Pipes) != maxRows || !strings.HasPrefix(v.Pipes[0].Name, "09999") || v.More != "and 9,950 more, which wait for less than these" {
		t.Error(len(v.Pipes), v.Pipes[0], v.More)
	}
	if len(v.Events) != maxNamed+1 || v.Events[0].Text != "9,995 more pipes" {
		t.Errorf("%+v", v.Events)
	}
	p.mu.Lock()
	size := len(p.frame())
	p.mu.Unlock()
	if size > 200_000 {
		t.Error("a sample has", size, "bytes")
	}
	for range maxEvents {
		p.pass()
		p.pass(pipes[:20]...)
	}
	if v = p.look(); len(v.Events) != maxEvents || len(p.tracks) != 20 {
		t.Error(len(v.Events), len(p.tracks))
	}
}

// Those who wait are seen, however many busy pipes there are, and all are counted.
func TestPageShowsFirstWhoWaits(t *testing.T) {
	for _, test := range []struct {
		what  string
		waits zpipes.PipeInfo
		stuck bool
	}{
		{"writers without a reader", zpipes.PipeInfo{Writer: true, Writes: true, Queued: 4}, true},
		{"writers without room", zpipes.PipeInfo{Writer: true, Reader: true, Writes: true, Queued: 4}, true},
		{"senders", zpipes.PipeInfo{Mode: zpipes.ModeQueue, Writes: true, Queued: 4, Chunks: 1}, true},
		{"readers without a writer", zpipes.PipeInfo{Reader: true, Reads: true}, false},
	} {
		p := newPlay()
		for second := range 5 {
			var pipes []zpipes.PipeInfo
			for i := range 500 {
				busy := zpipes.PipeInfo{Writer: true, Reader: true, Queued: 1 << 20, BytesIn: int64(second) << 20, BytesOut: int64(second) << 20}
				if i%3 == 1 {
					busy = test.waits
				}
				busy.Name = fmt.Sprintf("%03d", i)
				pipes = append(pipes, busy)
			}
			p.pass(pipes...)
		}
		v := p.look()
		for _, row := range v.Pipes {
			if row.Wait == "" || row.Stuck != test.stuck {
				t.Fatalf("%s: %+v is shown before them", test.what, row)
			}
		}
		if !strings.HasPrefix(v.More, "and 450 more") {
			t.Error(v.More)
		}
		got := make(map[string]float64)
		measured := 0
		for _, m := range p.measure() {
			var read dto.Metric
			if err := m.Write(&read); err != nil {
				t.Fatal(err)
			}
			if len(read.Label) == 0 {
				got[nameIn.FindStringSubmatch(m.Desc().String())[1]] = read.GetGauge().GetValue() + read.GetCounter().GetValue()
			} else if strings.Contains(m.Desc().String(), "pipe_wait_seconds") && read.GetGauge().GetValue() > 0 {
				measured++
			}
		}
		want := map[string]float64{"zpipes_pipes_stuck": 0, "zpipes_stuck_seconds_max": 0, "zpipes_pipes_waiting_to_write": 0, "zpipes_pipes_waiting_to_read": 167}
		if test.stuck {
			want = map[string]float64{"zpipes_pipes_stuck": 167, "zpipes_stuck_seconds_max": 4, "zpipes_pipes_waiting_to_write": 167, "zpipes_pipes_waiting_to_read": 0}
		}
		want["zpipes_queued_bytes"] = float64(333<<20 + 167*test.waits.Queued)
		want["zpipes_queued_chunks"] = float64(167 * test.waits.Chunks)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %v, want %v", test.what, name, got[name], value)
			}
		}
		if measured != maxMeasured {
			t.Errorf("%s: %d of them have series of their own", test.what, measured)
		}
	}
}

var nameIn = regexp.MustCompile(`fqName: "(\w+)"`)

func TestPageShowsRefusals(t *testing.T) {
	p := newPlay()
	p.pass()
	p.stats.Denied = 2
	v := p.pass()
	if got := p.events(); !slices.Equal(got, []string{"trouble 2 clients were refused"}) {
		t.Errorf("%q", got)
	}
	if !slices.Contains(v.Facts, pageFact{"clients refused", "2", true}) {
		t.Errorf("%+v", v.Facts)
	}
	for _, m := range p.measure() {
		var read dto.Metric
		if m.Write(&read); strings.Contains(m.Desc().String(), `"zpipes_clients_denied_total"`) && read.GetCounter().GetValue() == 2 {
			return
		}
	}
	t.Error("no metric tells it")
}

func TestPageMetricsAreBounded(t *testing.T) {
	r := newPageRig(t)
	for i := range maxMeasured + 50 {
		r.writer(fmt.Sprintf("%d\n\"\xff<&\u202e", i))
	}
	r.sampler.sample(t.Context())
	text := r.text("metrics")
	if n := strings.Count(text, "\nzpipes_pipe_queued_bytes{"); n != maxMeasured {
		t.Error(n, "series")
	}
	if !strings.Contains(text, "\nzpipes_pipes_without_series 50\n") || !strings.Contains(text, "\nzpipes_pipes 150\n") {
		t.Error(text)
	}
}

func TestPageNames(t *testing.T) {
	seen := make(map[string]string)
	for name, want := range map[string]string{
		"plain name":                   "plain name",
		"Grüße, 世界":                    "Grüße, 世界",
		"<script>alert(1)</script>":    "<script>alert(1)</script>",
		"a\nb\t\x1b[31m":               `a\nb\t\x1b[31m`,
		`a\nb`:                         `a\\nb`,
		"\xff\xfe":                     `\xff\xfe`,
		"\u202egnp.exe":                `\u202egnp.exe`,
		"no\u00a0break\u200b\ufeff":    `no\u00a0break\u200b\ufeff`,
		"\ufffd":                       "\ufffd",
		strings.Repeat("\x80", 255):    strings.Repeat(`\x80`, 255),
		`"quotes" and 'others' &amp; `: `"quotes" and 'others' &amp; `,
	} {
		got := showName(name)
		if got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
		if other, taken := seen[got]; taken {
			t.Errorf("%q and %q look alike", name, other)
		}
		seen[got] = name
	}
}

func TestPageHostileNames(t *testing.T) {
	r := newPageRig(t)
	for _, name := range []string{"<script>alert(1)</script>", "</bdi><img src=x onerror=alert(1)>", "\xff\"'&\r\n\r\ndata: x"} {
		r.writer(name)
	}
	r.sampler.sample(t.Context())
	if text := r.text(""); strings.Contains(text, "<script>") || strings.Contains(text, "<img src=x") ||
		!strings.Contains(text, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error(text)
	}
	if v := r.frames()(); len(v.Pipes) != 3 {
		t.Errorf("%+v", v)
	}
}

func TestPageTexts(t *testing.T) {
	for got, want := range map[string]string{
		showTime(42400 * time.Millisecond): "42 s",
		showTime(150 * time.Second):        "2 min 30 s",
		showTime(150 * time.Minute):        "2 h 30 min",
		showTime(50 * time.Hour):           "2 days 2 h",
		showCount(999):                     "999",
		showCount(1234567):                 "1,234,567",
		showMany(1, "chunk"):               "1 chunk",
		showMany(1000, "chunk"):            "1,000 chunks",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
