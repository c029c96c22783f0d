package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// frames reads server-sent events.
func (r *pageRig) frames() func() (v pageView) {
	r.Helper()
	a := r.get("events")
	if kind := a.Header.Get("Content-Type"); a.StatusCode != 200 || kind != "text/event-stream" {
		r.Fatal(a.Status, kind)
	}
	lines := bufio.NewReader(a.Body)
	return func() (v pageView) {
		r.Helper()
		line, err := lines.ReadString('\n')
		if err == nil {
			_, err = lines.ReadString('\n') // the empty one after it
		}
		data, found := strings.CutPrefix(line, "data: ")
		if err != nil || !found || json.Unmarshal([]byte(data), &v) != nil {
			r.Fatalf("%v, %q", err, line)
		}
		return v
	}
}

func TestHTTPEvents(t *testing.T) {
	r := newPageRig(t)
	next, other := r.frames(), r.frames()
	if v := next(); len(v.Pipes) != 0 || v.State != "serving" {
		t.Fatal(v)
	}
	w := r.writer("news")
	eventually(t, "the pipe is shown", func() bool { v := next(); return len(v.Pipes) == 1 && v.Pipes[0].Name == "news" })
	eventually(t, "to the other viewer too", func() bool { return len(other().Pipes) == 1 })
	w.Close()
	eventually(t, "the pipe has gone", func() bool { v := next(); return len(v.Pipes) == 0 && v.Events[0].Kind == "went" })
}

func TestHTTPTooManyViewers(t *testing.T) {
	r := newPageRig(t)
	for range maxViewers {
		r.frames()
	}
	if a := r.get("events"); a.StatusCode != 503 {
		t.Error(a.Status)
	}
}

// stickViewer has a viewer ask for events and not read them, until it is dropped.
func (r *pageRig) stickViewer() {
	r.Helper()
	for i := range maxRows {
		r.writer(fmt.Sprintf("%03d", i) + strings.Repeat("\x01", 250))
	}
	r.sampler.sample(r.Context())
	c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(r.url, "http://"), "/"))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	c.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(c, "GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", r.gate.token)
	eventually(r.T, "it looks on", func() bool { return r.viewers() > 0 })
	eventually(r.T, "it is dropped", func() bool { r.sampler.publish(); return r.viewers() == 0 })
}

func (r *pageRig) viewers() int {
	r.sampler.mu.Lock()
	defer r.sampler.mu.Unlock()
	return len(r.sampler.viewers)
}

func TestHTTPSlowViewer(t *testing.T) {
	r := newPageRig(t)
	r.stickViewer()
	eventually(t, "its request ends", func() bool {
		if !r.busy.TryLock() {
			return false
		}
		r.busy.Unlock()
		return true
	})
}

func TestHTTPStopsForSlowViewer(t *testing.T) {
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := servePage(t, b, time.Hour)
	r.stickViewer()
	start := time.Now()
	r.stop()
	if took := time.Since(start); took > soonest {
		t.Error("it took", took)
	}
}
