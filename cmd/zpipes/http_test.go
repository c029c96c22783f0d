package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/trace"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zpipes/zpipes"
)

type pageRig struct {
	*testing.T
	*site
	client *zpipes.Client // of the broker
	stop   func()
	http   http.Client
}

func newPageRig(t *testing.T) *pageRig {
	t.Helper()
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return servePage(t, b, 200*time.Millisecond)
}

// aPage is what the tests serve where nothing else is said.
var aPage = pageConfig{address: "127.0.0.1:0", pprof: true}

func serveHTTP(ctx context.Context, cfg pageConfig, b *zpipes.Broker) (way string, stop func(), err error) {
	l, err := openLobby(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", nil, err
	}
	way, stop = l.serve(ctx, b, nil)
	return way, stop, nil
}

func servePage(t *testing.T, b *zpipes.Broker, patience time.Duration) *pageRig {
	t.Helper()
	return servePageAs(t, b, patience, aPage)
}

func servePageAs(t *testing.T, b *zpipes.Broker, patience time.Duration, cfg pageConfig) *pageRig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gate, err := newGate(l.Addr(), "127.0.0.1", cfg.tokenFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(b, nil, l.Addr(), gate, cfg)
	r := &pageRig{T: t, site: s, client: b.Client()}
	r.http.Transport = &http.Transport{DisableKeepAlives: true}
	r.patience = patience
	r.stop = r.start(t.Context(), l, nil)
	t.Cleanup(r.stop)
	return r
}

func (r *pageRig) get(path string, header ...string) *http.Response {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), "GET", r.url+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.gate.token)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
		q.Header.Set(header[i], header[i+1])
	}
	a, err := r.http.Do(q)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { a.Body.Close() })
	return a
}

func (r *pageRig) text(path string) string {
	r.Helper()
	text, err := io.ReadAll(r.get(path).Body)
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

func (r *pageRig) writer(pipe string) *zpipes.Writer {
	r.Helper()
	w, err := r.client.OpenWriter(r.Context(), pipe)
	if err != nil {
		r.Fatal(err)
	}
	return w
}

// look is a process that asks for the status at the path of a socket, and prints the
// first line of the answer.
func look() {
	c, err := net.Dial("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(c, "GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	fmt.Println(bufio.NewReader(c).ReadString('\n'))
}

// listen is a process that serves at a path.
func listen() {
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return
	}
	os.Stdout.WriteString("listening\n")
	for {
		if _, err := l.Accept(); err != nil {
			return
		}
	}
}

func TestHTTPPaths(t *testing.T) {
	r := newPageRig(t)
	if _, err := r.writer("a pipe").Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	r.sampler.sample(t.Context())
	for _, test := range []struct {
		path, kind, has string
		code            int
	}{
		{"", "text/html", "<bdi>a pipe</bdi>", 200},
		{"page.js", "javascript", "EventSource", 200},
		{"style.css", "text/css", "prefers-color-scheme: dark", 200},
		{"icon.svg", "image/svg+xml", "<svg", 200},
		{"status.json", "application/json", `"queued_bytes": 4`, 200},
		{"healthz", "text/plain", "ok", 200},
		{"metrics", "text/plain", `zpipes_pipe_queued_bytes{mode="stream",pipe="a pipe"} 4`, 200},
		{"debug/pprof/", "text/html", "goroutine", 200},
		{"debug/pprof/goroutine?debug=1", "text/plain", "goroutine profile", 200},
		{"debug/pprof/cmdline", "text/plain", "test", 200},
		{"web/page.js", "text/plain", "not found", 404},
		{"nothing", "text/plain", "not found", 404},
	} {
		a := r.get(test.path)
		text, err := io.ReadAll(a.Body)
		if a.StatusCode != test.code || !strings.Contains(a.Header.Get("Content-Type"), test.kind) ||
			!strings.Contains(string(text), test.has) || err != nil {
			t.Errorf("/%s: %d, %v, %v, %.300s", test.path, a.StatusCode, a.Header, err, text)
		}
		if policy := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
			t.Errorf("/%s: the policy is %q", test.path, policy)
		}
	}
	q, err := http.NewRequest("POST", r.url+"status.json", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.gate.token)
	a, err := r.http.Do(q)
	if err != nil || a.StatusCode != http.StatusMethodNotAllowed {
		t.Error("POST:", a.StatusCode, err)
	}
	var s zpipes.Status
	if err := json.Unmarshal([]byte(r.text("status.json")), &s); err != nil || len(s.Pipes) != 1 {
		t.Error(s, err)
	}
}

func TestHTTPAsksForOthers(t *testing.T) {
	r := newPageRig(t)
	_, port, _ := net.SplitHostPort(strings.Trim(strings.TrimPrefix(r.url, "http://"), "/"))
	for _, test := range []struct {
		code   int
		header []string
	}{
		{200, nil},
		{200, []string{"Host", "localhost:" + port}},
		{200, []string{"Host", "LOCALHOST"}},
		{200, []string{"Host", "[::1]:1"}},
		{421, []string{"Host", "evil.example:" + port}},
		{421, []string{"Host", "127.0.0.1.evil.example"}},
		{421, []string{"Host", "192.168.1.1"}},
		{200, []string{"Sec-Fetch-Site", "same-origin"}},
		{200, []string{"Sec-Fetch-Site", "none"}},
		{403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}},
		{200, []string{"Host", "localhost", "Origin", "http://localhost"}},
		{403, []string{"Host", "localhost", "Origin", "http://evil.example"}},
		{403, []string{"Host", "localhost", "Origin", "null"}},
		{403, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}},
		{403, []string{"Sec-Fetch-Site", "same-site"}},
	} {
		if a := r.get("status.json", test.header...); a.StatusCode != test.code {
			t.Errorf("%q: %d, want %d", test.header, a.StatusCode, test.code)
		}
	}
}

func TestHTTPAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"8080": "tcp 127.0.0.1:8080", ":8080": "tcp 127.0.0.1:8080", "localhost:80": "tcp localhost:80",
		"0.0.0.0:80": "tcp 0.0.0.0:80", "[::]:80": "tcp [::]:80",
		"unix:/run/x": "unix /run/x", "./x": "unix ./x", "/run/x": "unix /run/x",
		"": "", "localhost:": "", "::1": "", "unix:x": "", "unix:": "",
	} {
		network, got, _, err := pageAddress(addr)
		if err == nil {
			got = network + " " + got
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", addr, got, err, want)
		}
	}
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	way, stop, err := serveHTTP(t.Context(), pageConfig{address: "0"}, b)
	if err != nil || !strings.HasPrefix(way, "http://127.0.0.1:") {
		t.Fatal(way, err)
	}
	at, _ := url.Parse(way)
	if _, _, err := serveHTTP(t.Context(), pageConfig{address: at.Host}, b); err == nil {
		t.Errorf("%s is served twice", way)
	}
	stop()
	stop()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	way, stop, err = serveHTTP(t.Context(), pageConfig{address: "0.0.0.0:0", tokenFile: token}, b)
	if err != nil || !strings.HasPrefix(way, "http://localhost:") || strings.Contains(way, "0123456789abcdef") {
		t.Fatal(way, err)
	}
	stop()
}

func TestHTTPHealth(t *testing.T) {
	r := newPageRig(t)
	if a := r.get("healthz"); a.StatusCode != 200 {
		t.Error("of a healthy broker:", a.Status)
	}
	w := r.writer("unread") // keeps the broker from ending
	rd, err := r.client.OpenReader(t.Context(), "unread")
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, err := w.WriteString("some"); err != nil || w.Flush() != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.broker.Shutdown(ctx) }()
	eventually(t, "one that shuts down is not healthy", func() bool { return r.get("healthz").StatusCode == 503 })
	cancel()
	<-ended
	eventually(t, "a closed broker is not healthy", func() bool { return r.get("healthz").StatusCode == 503 })
	eventually(t, "the page says so", func() bool { return strings.Contains(r.text(""), `class="closing"`) })
	if text := r.text("metrics"); !strings.Contains(text, "zpipes_broker_up 0") {
		t.Error(text)
	}
}

func TestHTTPStop(t *testing.T) {
	for _, how := range []string{"stop", "context"} {
		t.Run(how, func(t *testing.T) {
			r := newPageRig(t)
			before := goleak.IgnoreCurrent() // the site's own included, so start another
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			way, stop, err := serveHTTP(ctx, aPage, r.broker)
			if err != nil {
				t.Fatal(err)
			}
			page, token, _ := strings.Cut(way, "?token=")
			r.url, r.gate.token = page, token
			busy := make(chan error, 1)
			go func() {
				q, _ := http.NewRequest("GET", page+"debug/pprof/trace?seconds=60", nil)
				q.Header.Set("Authorization", "Bearer "+token)
				a, err := r.http.Do(q)
				if err == nil {
					_, err = io.Copy(io.Discard, a.Body)
					a.Body.Close()
				}
				busy <- err
			}()
			eventually(t, "a trace is being made", trace.IsEnabled)
			a := r.get("events")
			start := time.Now()
			if how == "context" {
				cancel()
			}
			stop()
			if took := time.Since(start); took > soonest {
				t.Error("it took", took)
			}
			io.Copy(io.Discard, a.Body)
			a.Body.Close()
			<-busy
			goleak.VerifyNone(t, before)
		})
	}
}
