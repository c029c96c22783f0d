package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	dto "github.com/prometheus/client_model/go"

	"github.com/zpipes/zpipes"
)

func TestPageShowsJobs(t *testing.T) {
	p := newPlay()
	v := p.pass(zpipes.PipeInfo{
		Name: "mail", Mode: zpipes.ModeQueue, Chunks: 10, Users: 2, Taken: 1, Delayed: 2, Dead: 3, Oldest: 150 * time.Second, Handed: 1234,
		Durable: true, Disk: 6 << 20, Syncs: 4, Syncing: 5 * time.Millisecond,
	})
	const want = "queue, 10 chunks, 2 users, 1 taken, 2 delayed, 3 dead, oldest 2 min 30 s, 1,234 delivered, 6 MiB on the disk, a sync takes 1.2 ms"
	if got := v.Pipes[0].Ends; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	there := showQueue(zpipes.PipeInfo{Name: "mail", Mode: zpipes.ModeQueue, Users: 1, HomeAt: "b@host"})
	if elsewhere := "queue at b@host, 0 chunks here, 1 user here"; there != elsewhere {
		t.Errorf("%q, want %q", there, elsewhere)
	}
	got := make(map[string]float64)
	for _, m := range p.measure() {
		var read dto.Metric
		if err := m.Write(&read); err != nil {
			t.Fatal(err)
		}
		name := nameIn.FindStringSubmatch(m.Desc().String())[1]
		for _, l := range read.Label {
			if l.GetName() == "state" {
				name += " " + l.GetValue()
			}
		}
		got[name] = read.GetGauge().GetValue() + read.GetCounter().GetValue()
	}
	for name, value := range map[string]float64{
		"zpipes_pipe_jobs ready": 4, "zpipes_pipe_jobs taken": 1, "zpipes_pipe_jobs delayed": 2, "zpipes_pipe_jobs dead": 3,
		"zpipes_pipe_oldest_seconds": 150, "zpipes_pipe_deliveries_total": 1234, "zpipes_pipe_disk_bytes": 6 << 20,
		"zpipes_pipe_syncs_total": 4, "zpipes_pipe_sync_seconds_total": 0.005, "zpipes_dead_jobs": 3, "zpipes_disk_bytes": 6 << 20,
	} {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
}

// How long syncs take is told of the latest ones, of one that does not end, and for all queues
// together, also of those that have no series of their own.
func TestPageShowsSyncs(t *testing.T) {
	p := newPlay()
	sync := func(n int64, took time.Duration) string {
		v := p.pass(zpipes.PipeInfo{Name: "mail", Mode: zpipes.ModeQueue, Durable: true, Syncs: n, Syncing: took})
		_, text, _ := strings.Cut(v.Pipes[0].Ends, "on the disk")
		return text
	}
	const ms = time.Millisecond
	total := time.Duration(0)
	for i, step := range []struct {
		n    int64
		took time.Duration // the sync that is under way included
		want string
	}{
		{0, 0, ""},
		{1000, 1000 * ms, ", a sync takes 1.0 ms"},
		{1000, 1000 * ms, ", a sync takes 1.0 ms"}, // there was none
		{1010, 1500 * ms, ", a sync takes 50.0 ms"},
		{1010, 2400 * ms, ", a sync takes 900.0 ms"}, // and takes longer
		{1010, 3400 * ms, ", a sync takes 1900.0 ms"},
		{1011, 3500 * ms, ", a sync takes 2000.0 ms"},
		{2, 4 * ms, ", a sync takes 2.0 ms"}, // its log was read anew
	} {
		if got := sync(step.n, step.took); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
		if total = max(total, step.took); p.syncing < total {
			t.Errorf("step %d: %v in all, want %v", i, p.syncing, total)
		}
	}
	p.pass() // it is gone, and the total stays
	got := make(map[string]float64)
	for _, m := range p.measure() {
		var read dto.Metric
		if err := m.Write(&read); err != nil {
			t.Fatal(err)
		}
		got[nameIn.FindStringSubmatch(m.Desc().String())[1]] = read.GetCounter().GetValue()
	}
	if n, seconds := got["zpipes_syncs_total"], got["zpipes_sync_seconds_total"]; n != 1013 || seconds != 3.504 {
		t.Errorf("%v syncs took %v s, want 1013 and 3.504", n, seconds)
	}
}

// A queue that can't be used stands before all others, with why, and is counted.
func TestPageShowsWhatCannotBeUsed(t *testing.T) {
	p := newPlay()
	v := p.pass(zpipes.PipeInfo{Name: "good", Mode: zpipes.ModeQueue, Queued: 1, Chunks: 1}, zpipes.PipeInfo{
		Name: "bad", Mode: zpipes.ModeQueue, Durable: true, Unusable: "it is\x1b corrupt",
	})
	if r := v.Pipes[0]; r.Name != "bad" || r.Ends != "queue that can't be used" || r.Wait != `it is\x1b corrupt` || !r.Stuck || v.Pipes[1].Stuck {
		t.Errorf("%+v", v.Pipes)
	}
	if sum := sumUp(sortedTracks(p.tracks, p.now), p.now); sum.unusable != 1 {
		t.Errorf("%d are counted", sum.unusable)
	}
}

// newJobsRig serves a page and a door, of a broker with a durable queue in which a job is dead, one
// waits, and one is not due.
func newJobsRig(t *testing.T, queue string) (r *pageRig, q *zpipes.Queue) {
	b, err := zpipes.BrokerConfig{Endpoints: []string{}, Dir: filepath.Join(t.TempDir(), "queues")}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cfg := aPage
	cfg.door = true
	r = servePageAs(t, b, 200*time.Millisecond, cfg)
	q, err = zpipes.QueueConfig{Durable: true}.OpenQueue(t.Context(), r.client, queue)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(q.Send(t.Context(), []byte("no good")))
	j, err := q.Take(t.Context())
	must(err)
	must(j.Reject("<b>bad</b>"))
	must(q.Send(t.Context(), []byte("<b>ready</b>")))
	must(q.SendAfter(t.Context(), time.Hour, []byte("later")))
	must(q.Flush(t.Context()))
	return r, q
}

func TestPageTendsJobs(t *testing.T) {
	const name = "a/b %"
	r, _ := newJobsRig(t, name)
	at := "jobs/" + url.PathEscape(name)
	text := r.text(at)
	for _, want := range []string{`"state":"dead"`, `"data":"no good"`, `delivered once`, `"state":"delayed"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	for _, test := range []struct {
		path, header string
		code         int
	}{
		{at + "?do=redrive", "", 401}, {at + "?do=purge&state=dead", "evil", 403}, {at, "", 400}, {at + "?do=dance", "", 400},
		{at + "?do=purge", "", 409}, {at + "?do=purge&state=taken", "", 409}, {"jobs/none?do=redrive", "", 404},
	} {
		header := []string{"Sec-Fetch-Site", "same-origin"}
		switch {
		case test.code == 401:
			header = []string{"Authorization", ""}
		case test.header != "":
			header = []string{"Sec-Fetch-Site", "cross-site"}
		}
		if a := r.post(test.path, "", header...); a.StatusCode != test.code {
			t.Errorf("POST %s: %s, want %d", test.path, a.Status, test.code)
		}
	}
	q, err := http.NewRequestWithContext(t.Context(), "HEAD", r.url+at+"?do=purge&state=dead", nil) // which only looks
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.gate.token)
	if a, err := r.http.Do(q); err != nil {
		t.Error(err)
	} else if a.Body.Close(); a.StatusCode != 200 {
		t.Error("HEAD:", a.Status)
	}
	if again := r.text(at); again[:20] != text[:20] || strings.Count(again, `"state"`) != 3 {
		t.Errorf("something has changed: %s", again)
	}
	if a := r.get("jobs/none"); a.StatusCode != 404 {
		t.Error(a.Status)
	}
	if a := newPageRig(t).get("jobs/none"); a.StatusCode != 404 {
		t.Error("jobs without a door:", a.Status)
	} else if text, _ := io.ReadAll(a.Body); strings.Contains(string(text), "queue") {
		t.Errorf("%s", text)
	}
}

// What concerns very many jobs, or a slow disk, may take longer than other answers: here, looking for
// a broker that is not there.
func TestPageHasTimeForJobs(t *testing.T) {
	r, _ := newJobsRig(t, "mail")
	slow, err := zpipes.ClientConfig{Timeout: httpReadTime + time.Second}.NewClient("nobody-is-there")
	if err != nil {
		t.Fatal(err)
	}
	r.ends.Close()
	r.ends = slow
	if a := r.get("jobs/mail"); a.StatusCode != http.StatusConflict {
		t.Error(a.Status)
	} else if text, _ := io.ReadAll(a.Body); !strings.Contains(string(text), "no broker answered") || strings.Contains(string(text), "canceled") {
		t.Errorf("%s", text)
	}
}

func TestJobsInBrowser(t *testing.T) {
	r, q := newJobsRig(t, "mail")
	b := newPageBrowser(r, 1200, 900)
	eventually(t, "the page shows them", func() bool {
		ends := b.text("#rows .ends")
		return strings.Contains(ends, "3 chunks, 1 user, 1 delayed, 1 dead") && strings.Contains(ends, "on the disk")
	})
	click := func(id string) { b.evaluate(`document.getElementById('` + id + `').click()`) }
	set := func(id, value string) {
		b.evaluate(`(() => { const e = document.getElementById('` + id + `'); e.value = ` + fmt.Sprintf("%q", value) +
			`; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()`)
	}
	if b.evaluate(`document.getElementById('jobs').hidden`) != "true" {
		t.Error("a pipe has no jobs")
	}
	set("kind", "queues")
	set("name", "mail")
	click("peek")
	eventually(t, "they are listed", func() bool { return b.text("#peeked bdi") == "no good|<b>ready</b>|later" })
	if !strings.Contains(b.text("#peeked .dead span"), "<b>bad</b>") || b.evaluate(`document.querySelectorAll('#peeked bdi b, #peeked span b').length`) != "0" {
		t.Errorf("the dead one is shown as %q", b.text("#peeked .dead"))
	}
	click("redrive")
	eventually(t, "it waits again", func() bool { return b.text("#tended") == "1 job" && b.text("#peeked .dead") == "" })
	set("those", "delayed")
	b.evaluate(`window.confirm = (text) => { window.asked = text; return false; }`)
	click("purge")
	eventually(t, "it is asked whether to", func() bool {
		return b.evaluate(`window.asked`) == "Drop all jobs of mail that are delayed?" && b.text("#tended") == ""
	})
	b.evaluate(`window.confirm = () => true`)
	click("purge")
	eventually(t, "the delayed one is gone", func() bool { return b.text("#peeked bdi") == "no good|<b>ready</b>" })
	for range 2 {
		if _, err := q.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	click("peek")
	eventually(t, "there are none", func() bool { return b.text("#tended") == "there are none" })
	set("name", "none")
	click("redrive")
	eventually(t, "there is no such queue", func() bool { return b.text("#tended") == "there is no such queue" })
	for _, width := range []int64{360, 1200} {
		b.do(chromedp.EmulateViewport(width, 800))
		if wide := b.evaluate(`document.documentElement.scrollWidth > innerWidth`); wide != "false" {
			t.Errorf("the page is wider than a screen of %d", width)
		}
	}
	for _, c := range b.complaints() {
		if !strings.Contains(c, "404") { // what it was to meet
			t.Error("the browser complains:", c)
		}
	}
}
