//go:build linux

package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// secrets are what only those see who may use the broker.
var secrets = []string{"", "status.json", "metrics", "events", "page.js", "debug/pprof/", "debug/pprof/cmdline", "debug/pprof/trace?seconds=1"}

// bare asks as somebody who knows nothing.
func (r *pageRig) bare(path string, header ...string) *http.Response {
	r.Helper()
	return r.get(path, append([]string{"Authorization", ""}, header...)...)
}

func TestHTTPWantsToken(t *testing.T) {
	r := newPageRig(t)
	for _, path := range secrets {
		for _, header := range [][]string{
			nil,
			{"Authorization", "Bearer " + r.gate.token[1:]},
			{"Authorization", "Basic " + r.gate.token},
			{"X-Forwarded-For", "127.0.0.1"},
			{"Cookie", r.gate.cookie.Name + "=" + r.gate.token},
			{"Cookie", "zpipes=" + r.gate.cookie.Value},
		} {
			if a := r.bare(path, header...); a.StatusCode != 401 || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("/%s with %q: %s", path, header, a.Status)
			}
		}
		if a := r.bare(path + "?token="); a.StatusCode != 401 {
			t.Errorf("/%s with an empty token: %s", path, a.Status)
		}
	}
	a := r.bare("healthz")
	if text, _ := io.ReadAll(a.Body); a.StatusCode != 200 || string(text) != "ok\n" {
		t.Errorf("healthz: %s, %q", a.Status, text)
	}
}

func TestHTTPTokenBecomesCookie(t *testing.T) {
	r := newPageRig(t)
	if a := r.bare("status.json?token=" + r.gate.token); a.StatusCode != 401 {
		t.Error("a token in the address opens more than the page:", a.Status)
	}
	a := r.bare("?token=" + r.gate.token)
	set := a.Cookies()
	if a.StatusCode != 200 || len(set) != 1 || !set[0].HttpOnly || set[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("%s, %q", a.Status, a.Header)
	}
	if strings.Contains(set[0].Value, r.gate.token) {
		t.Error("the cookie has the token in it")
	}
	for _, path := range secrets {
		if path == "events" {
			continue
		}
		if a := r.bare(path, "Cookie", set[0].Name+"="+set[0].Value); a.StatusCode != 200 {
			t.Errorf("/%s with the cookie: %s", path, a.Status)
		}
	}
	jar, _ := cookiejar.New(nil)
	c := http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range []string{r.way(), r.url + "status.json"} {
		a, err := c.Get(url)
		if err != nil || a.StatusCode != 200 {
			t.Fatal(url, a, err)
		}
		a.Body.Close()
	}
}

func TestHTTPTokenFiles(t *testing.T) {
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "short": "0123456789", "blank": "0123456789 abcdefghi", "control": "0123456789\x01abcdefghi"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := serveHTTP(t.Context(), pageConfig{address: "0", tokenFile: file}, b); err == nil {
			t.Errorf("%q is taken for a token", text)
		}
	}
	if _, _, err := serveHTTP(t.Context(), pageConfig{address: "0", tokenFile: filepath.Join(dir, "none")}, b); err == nil {
		t.Error("there is no such file")
	}
	if _, _, err := serveHTTP(t.Context(), pageConfig{address: "0.0.0.0:0"}, b); err == nil || !strings.Contains(err.Error(), "--http-token-file") {
		t.Error("the page is for all machines:", err)
	}
}

// What another site's page has the browser do.
func TestHTTPOtherSites(t *testing.T) {
	r := newPageRig(t)
	site := func(where, mode, dest string) []string {
		return []string{"Sec-Fetch-Site", where, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", dest}
	}
	for _, where := range []string{"cross-site", "same-site"} {
		for _, path := range secrets {
			want := 403
			if path == "" {
				want = 200
			}
			if a := r.get(path, site(where, "navigate", "document")...); a.StatusCode != want {
				t.Errorf("a link from %s to /%s: %s", where, path, a.Status)
			}
			if a := r.get(path, site(where, "navigate", "iframe")...); a.StatusCode != 403 {
				t.Errorf("a frame of %s with /%s: %s", where, path, a.Status)
			}
			if a := r.get(path, site(where, "no-cors", "image")...); a.StatusCode != 403 {
				t.Errorf("an image of %s at /%s: %s", where, path, a.Status)
			}
		}
	}
	h := r.get("").Header
	if !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || h.Get("X-Frame-Options") != "DENY" ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%q", h)
	}
}

func TestHTTPProfiles(t *testing.T) {
	r := newPageRig(t)
	for _, path := range []string{"profile", "trace", "heap", "goroutine", "mutex"} {
		for _, seconds := range []string{"61", "86400", "1e9", "inf", "NaN"} {
			if a := r.get("debug/pprof/" + path + "?seconds=" + seconds); a.StatusCode != 400 {
				t.Errorf("%s of %s seconds: %s", path, seconds, a.Status)
			}
		}
	}
	r.cfg.pprof = false
	for _, path := range []string{"", "cmdline", "profile?seconds=1", "trace?seconds=1", "heap", "symbol"} {
		if a := r.get("debug/pprof/" + path); a.StatusCode != 404 {
			t.Errorf("%s, which nobody wanted: %s", path, a.Status)
		}
	}
	if strings.Contains(r.text(""), "pprof") {
		t.Error("the page leads to profiles that there are not")
	}
}

// unixPage serves the page at a path.
func unixPage(t *testing.T, cfg pageConfig) (path string, get func(path string) (int, string)) {
	t.Helper()
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	dir, err := os.MkdirTemp("", "page")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg.address = filepath.Join(dir, "s")
	way, stop, err := serveHTTP(t.Context(), cfg, b)
	if err != nil || !strings.HasPrefix(way, cfg.address) {
		t.Fatal(way, err)
	}
	t.Cleanup(func() {
		stop()
		if _, err := os.Lstat(cfg.address); !os.IsNotExist(err) {
			t.Error("its socket is left:", err)
		}
	})
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", cfg.address)
	}}}
	return cfg.address, func(path string) (int, string) {
		t.Helper()
		a, err := c.Get("http://localhost/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, _ := io.ReadAll(a.Body)
		return a.StatusCode, string(text)
	}
}

const strangersUID = 4242

func TestHTTPAtAPath(t *testing.T) {
	for _, test := range []struct {
		cfg  pageConfig
		mode os.FileMode
		want string // what a stranger gets of status.json
	}{
		{pageConfig{}, 0o600, "permission denied"},
		{pageConfig{users: []int{strangersUID + 1}}, 0o666, "HTTP/1.1 403 Forbidden"},
		{pageConfig{users: []int{strangersUID}}, 0o666, "HTTP/1.1 200 OK"},
	} {
		path, get := unixPage(t, test.cfg)
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != test.mode {
			t.Error(info, err)
		}
		if code, text := get("status.json"); code != 200 || !strings.Contains(text, `"endpoints"`) {
			t.Errorf("%d, %s", code, text)
		}
		if os.Geteuid() != 0 {
			continue // only root can start a process of another user
		}
		self := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"look", path}}
		self.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangersUID, Gid: strangersUID}}
		self.Dir = "/"
		text, _ := self.CombinedOutput()
		if !strings.Contains(string(text), test.want) {
			t.Errorf("with %+v a stranger gets %s", test.cfg, text)
		}
	}
}

func TestHTTPTokenAtAPath(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, get := unixPage(t, pageConfig{tokenFile: token}) // a proxy of this user connects, for anybody
	if code, _ := get("status.json"); code != 401 {
		t.Error("without the token:", code)
	}
	if code, _ := get("?token=0123456789abcdef"); code != 200 {
		t.Error("with the token:", code)
	}
}

func TestHTTPSocketOfOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, nil); err == nil {
		t.Error("one that is in use is taken over")
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	ours, err := listenUnix(path, nil)
	if err != nil {
		t.Fatal("one that was left behind keeps us from it:", err)
	}
	os.Remove(path)
	other, err := listenUnix(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the one that ends takes away another one's socket:", err)
	}
	other.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, nil); err == nil {
		t.Error("a file is taken over")
	}
}

func TestHTTPWhoMayLook(t *testing.T) {
	self, other := os.Geteuid(), os.Geteuid()+7
	for _, test := range []struct {
		uid, overflow int
		users         []int
		want          bool
	}{
		{0, -1, nil, true},
		{self, -1, nil, true},
		{other, -1, nil, false},
		{other, -1, []int{other}, true},
		{-1, -1, nil, false},
		{self, self, nil, false}, // it may be anybody
	} {
		if got := mayLook(test.uid, test.overflow, test.users); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// Somebody without a token holds as many connections as he can.
func TestHTTPIdleConnections(t *testing.T) {
	r := newPageRig(t)
	next := r.frames() // who may look on stays
	next()
	at := strings.Trim(strings.TrimPrefix(r.url, "http://"), "/")
	var held []net.Conn
	for range 3 * maxPageConns {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	if a := r.get("status.json"); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	if a := r.bare("healthz"); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	open := 0
	for _, c := range held {
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); os.IsTimeout(err) {
			open++
		}
	}
	if open > maxPageConns {
		t.Error(open, "idle connections are held")
	}
	w := r.writer("still there")
	defer w.CloseWithError(io.EOF)
	eventually(t, "who looks on gets on", func() bool { return len(next().Pipes) == 1 })
}

func TestHTTPConnectionsThatStay(t *testing.T) {
	l := &pageListener{}
	var trusted []*pageConn
	for range maxPageConns {
		c, _ := net.Pipe()
		held := l.hold(c)
		held.trust()
		trusted = append(trusted, held)
	}
	c, _ := net.Pipe()
	if l.hold(c) != nil {
		t.Error("there are more than the most")
	}
	trusted[0].Close()
	trusted[0].Close()
	for _, why := range []string{"there is room", "there is one to make it"} {
		if l.hold(c) == nil || l.conns != maxPageConns {
			t.Error(why, l.conns)
		}
	}
}

type countingHandler struct {
	slog.Handler
	lines   atomic.Int64
	leftOut atomic.Int64
}

func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.lines.Add(1)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "left_out" {
			h.leftOut.Add(a.Value.Int64())
		}
		return true
	})
	return nil
}
func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }

func TestHTTPLogIsBounded(t *testing.T) {
	count := &countingHandler{Handler: slog.DiscardHandler}
	log := sparing(slog.New(count))
	for range 10000 {
		log.Warn("something")
	}
	if n := count.lines.Load(); n < 1 || n > 20 {
		t.Error(n, "lines")
	}
	s := log.Handler().(sparingHandler)
	s.lines.SetBurst(1 << 20)
	s.lines.SetLimit(1 << 20)
	eventually(t, "the next line says what was left out", func() bool {
		log.Warn("something")
		return count.leftOut.Load() > 0
	})
	if n := count.leftOut.Load(); n < 9000 {
		t.Error(n, "are told to be left out")
	}
}
