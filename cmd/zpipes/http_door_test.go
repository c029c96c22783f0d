package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/zpipes/zpipes"
)

// newDoorRig serves a page and a door.
func newDoorRig(t *testing.T) *pageRig {
	t.Helper()
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cfg := aPage
	cfg.door = true
	return servePageAs(t, b, 200*time.Millisecond, cfg)
}

// post sends a body through the door.
func (r *pageRig) post(path, body string, header ...string) *http.Response {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), "POST", r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+r.gate.token)
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	a, err := r.http.Do(q)
	if err != nil {
		r.Fatal(err)
	}
	a.Body.Close()
	return a
}

func TestDoorBesideThePage(t *testing.T) {
	r := newDoorRig(t)
	if a := r.post("queues/q", "a job"); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	for _, header := range [][]string{
		{"Authorization", ""}, {"Authorization", "Bearer " + r.gate.token[1:]}, {"Authorization", "", "Cookie", "zpipes=" + r.gate.cookie.Value},
	} {
		if a := r.get("queues/q", header...); a.StatusCode != 401 {
			t.Errorf("%q: %s", header, a.Status)
		}
		if a := r.post("queues/q", "more", header...); a.StatusCode != 401 {
			t.Errorf("%q: %s", header, a.Status)
		}
	}
	if a := r.get("queues/q?token="+r.gate.token, "Authorization", ""); a.StatusCode != 401 {
		t.Error("a token in the address opens the door:", a.Status)
	}
	if a := r.get("queues/q", "Host", "evil.example"); a.StatusCode != 421 {
		t.Error(a.Status)
	}
	for _, dest := range []string{"document", "iframe", "empty"} {
		if a := r.get("queues/q", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", dest); a.StatusCode != 403 {
			t.Errorf("another site's page as %s: %s", dest, a.Status)
		}
	}
	a := r.get("queues/q", "Authorization", "", "Cookie", r.gate.cookie.Name+"="+r.gate.cookie.Value)
	if text, _ := io.ReadAll(a.Body); string(text) != "a job" || !strings.HasPrefix(a.Header.Get("Content-Security-Policy"), "sandbox;") {
		t.Errorf("%s, %q, %q", a.Status, text, a.Header)
	}
	if a := newPageRig(t).get("queues/q"); a.StatusCode != 404 {
		t.Error("a door that nobody wanted:", a.Status)
	}
}

// What is behind /queues/ is a name as it is: to be led elsewhere is a success for curl.
func TestDoorTakesNamesAsTheyAre(t *testing.T) {
	r := newDoorRig(t)
	r.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, name := range []string{"/a", "a//b", "a/", "a/../b", "./a", "a/.", "%2Fa"} {
		if a := r.post("queues/"+name, "for "+name); a.StatusCode != 200 {
			t.Errorf("%s: %s", name, a.Status)
			continue
		}
		name = strings.ReplaceAll(name, "%2F", "/")
		if p, err := r.client.Stat(t.Context(), name); err != nil || p.Chunks == 0 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for path, want := range map[string]int{"queues": 400, "pipes": 400, "/queues/a": 404, "./queues/a": 404, "x/../queues/a": 404, "/status.json": 404} {
		if a := r.post(path, "lost"); a.StatusCode != want {
			t.Errorf("%s: %s", path, a.Status)
		}
		if a := r.get(path); a.StatusCode != want {
			t.Errorf("GET %s: %s", path, a.Status)
		}
	}
}

// Those who wait at the door leave room for the page.
func TestDoorLeavesRoomForThePage(t *testing.T) {
	r := newDoorRig(t)
	at := strings.Trim(strings.TrimPrefix(r.url, "http://"), "/")
	for i := range maxDoor {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /pipes/p%d HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", i, r.gate.token)
	}
	eventually(t, "all of them wait", func() bool { return r.broker.Stats().Pipes == maxDoor })
	if a := r.get("pipes/more"); a.StatusCode != 503 {
		t.Error(a.Status)
	}
	if a := r.get("status.json"); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	r.stop()
	eventually(t, "they have gone", func() bool { return r.broker.Stats().Pipes == 0 })
}

func TestDoorForOtherMachines(t *testing.T) {
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	file := func(name string, kind string, bytes []byte) string {
		path := filepath.Join(dir, name)
		if kind != "" {
			bytes = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes})
		}
		if err := os.WriteFile(path, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const token = "0123456789abcdef"
	tokens := file("token", "", []byte(token))
	one := httptest.NewTLSServer(nil) // it has a certificate
	defer one.Close()
	key, err := x509.MarshalPKCS8PrivateKey(one.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, keys := file("cert", "CERTIFICATE", one.Certificate().Raw), file("key", "PRIVATE KEY", key)
	for _, test := range []struct {
		cfg  pageConfig
		want string // of the error
	}{
		{pageConfig{address: "0.0.0.0:0", door: true}, "--http-token-file"},
		{pageConfig{address: "0.0.0.0:0", door: true, tokenFile: tokens}, "only with TLS"},
		{pageConfig{address: "0.0.0.0:0", door: true, cert: cert, key: keys}, "--http-token-file"},
		{pageConfig{address: "0.0.0.0:0", door: true, tokenFile: tokens, cert: cert}, "certificate"},
		{pageConfig{address: "0.0.0.0:0", door: true, tokenFile: tokens, cert: cert, key: cert}, "certificate"},
		{pageConfig{address: filepath.Join(dir, "s"), door: true, proxied: true}, "--http-token-file"},
		{pageConfig{address: "0.0.0.0:0", door: true, tokenFile: tokens, cert: cert, key: keys}, ""},
		{pageConfig{address: "0.0.0.0:0", door: true, tokenFile: tokens, proxied: true, hosts: []string{"files.example"}}, ""},
	} {
		way, stop, err := serveHTTP(t.Context(), test.cfg, b)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %q, %v", test.cfg, way, err)
		}
		if err != nil {
			continue
		}
		url, _, _ := strings.Cut(way, " ")
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		ask := func(host, token string) int {
			q, _ := http.NewRequest("POST", url+"queues/q", strings.NewReader("a job"))
			q.Host = host
			q.Header.Set("Authorization", "Bearer "+token)
			q.Header.Set("X-Forwarded-For", "192.0.2.7")
			a, err := c.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			return a.StatusCode
		}
		if strings.HasPrefix(url, "https://") != (test.cfg.cert != "") {
			t.Error(url)
		}
		if code := ask("localhost", token); code != 200 {
			t.Errorf("%s: %d", url, code)
		}
		if code := ask("localhost", "0123456789abcdeg"); code != 401 {
			t.Errorf("%s: %d", url, code)
		}
		if code := ask("files.example", token); (code == 200) != test.cfg.proxied {
			t.Errorf("%s: %d", url, code)
		}
		if code := ask("evil.example", token); code != 421 {
			t.Errorf("%s: %d", url, code)
		}
		stop()
	}
}

func TestDoorInBrowser(t *testing.T) {
	r := newDoorRig(t)
	b := newPageBrowser(r, 1200, 900)
	eventually(t, "the page is there", func() bool { return b.text("#state") == "serving" })
	click := func(id string) { b.evaluate(`document.getElementById('` + id + `').click()`) }
	set := func(id, value string) {
		b.evaluate(`(() => { const e = document.getElementById('` + id + `'); e.value = ` + fmt.Sprintf("%q", value) +
			`; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()`)
	}
	const hostile = "<b>it's</b> <script>alert(1)</script>"
	set("name", hostile)
	set("text", hostile)
	click("send")
	eventually(t, "it waits", func() bool { return b.text("#sent") == "waiting for a reader" })
	click("read")
	eventually(t, "it has come", func() bool {
		return strings.HasSuffix(b.text("#had"), "this was all") && b.text("#got") == hostile && strings.HasPrefix(b.text("#sent"), "a reader is there")
	})
	if b.evaluate(`document.querySelector('#got').children.length + document.scripts.length`) != "2" {
		t.Error("it was taken for HTML")
	}
	if curl := b.text("#sends"); !strings.Contains(curl, "-T FILE '"+r.url+"pipes/%3Cb%3Eit%27s") {
		t.Error(curl)
	}

	set("name", "..") // which would be the page itself
	click("read")
	eventually(t, "it says why not", func() bool { return strings.HasPrefix(b.text("#had"), "no browser can ask") && b.text("#got") == "" })
	if curl := b.text("#reads"); !strings.Contains(curl, "'"+r.url+"pipes/%2E%2E'") {
		t.Error(curl)
	}

	set("name", "torn")
	click("read")
	w := r.writer("torn")
	if _, err := w.WriteString("half"); err != nil || w.Flush() != nil {
		t.Fatal(err)
	}
	eventually(t, "half of it has come", func() bool { return b.text("#got") == "half" })
	w.CloseWithError(io.ErrNoProgress)
	eventually(t, "it is not all", func() bool { return strings.Contains(b.text("#had"), "not all") })

	click("read")
	eventually(t, "it waits", func() bool { return r.broker.Stats().Pipes == 1 })
	click("unread")
	eventually(t, "it has left", func() bool { return b.text("#had") == "stopped" && r.broker.Stats().Pipes == 0 })

	set("kind", "queues")
	set("name", "jobs")
	set("text", "a job")
	click("send")
	eventually(t, "the queue has it", func() bool { return b.text("#sent") == "the queue has it" })
	click("read")
	eventually(t, "it has come", func() bool { return b.text("#got") == "a job" })
	set("kind", "pipes")
	click("read")
	eventually(t, "it is no pipe", func() bool { return strings.Contains(b.text("#had"), "this is a queue") })
	for _, width := range []int64{360, 1200} {
		b.do(chromedp.EmulateViewport(width, 800))
		if wide := b.evaluate(`document.documentElement.scrollWidth > innerWidth`); wide != "false" {
			t.Errorf("the page is wider than a screen of %d", width)
		}
	}
	for _, c := range b.complaints() {
		if !strings.Contains(c, "409") && !strings.Contains(c, "ERR_INCOMPLETE_CHUNKED_ENCODING") { // what it was to meet
			t.Error("the browser complains:", c)
		}
	}

	// What is in a pipe does not run, whatever it says that it is.
	var writing sync.WaitGroup
	writing.Go(func() {
		r.post("pipes/page", "<script>document.title = 'ran'</script>text", "Content-Type", "text/html")
	})
	b.evaluate(`(window.page = open('pipes/page')) !== null`)
	writing.Wait()
	if b.evaluate(`(() => { try { return window.page.document.title } catch { return '' } })()`) == "ran" {
		t.Error("it ran")
	}
}

// attack is the page of somebody else's, which tries to read and to write at a door.
const attack = `<!DOCTYPE html><meta charset="utf-8"><body><script>
const door = %q;
const tries = [];
for (const path of ['queues/secret', 'pipes/secret', 'queues/theirs', 'pipes/theirs']) {
  for (const mode of ['cors', 'no-cors']) {
    tries.push(fetch(door + path, { mode, credentials: 'include' }).then((a) => a.text()));
    tries.push(fetch(door + path, { mode, credentials: 'include', method: 'POST', body: 'theirs' }).then((a) => a.text()));
  }
  tries.push(fetch(door + path, { credentials: 'include', method: 'PUT', body: 'theirs' }));
  for (const tag of ['img', 'script', 'iframe', 'video']) {
    const e = document.createElement(tag);
    tries.push(new Promise((done) => { e.onload = e.onerror = () => done(''); }));
    e.src = door + path;
    document.body.append(e);
  }
  const inside = document.createElement('iframe');
  inside.name = path;
  document.body.append(inside);
  const form = document.createElement('form');
  Object.assign(form, { action: door + path, method: 'POST', enctype: 'text/plain', target: path });
  form.innerHTML = '<input name="theirs" value="theirs">';
  document.body.append(form);
  tries.push(new Promise((done) => { inside.onload = () => done(''); }));
  form.submit();
  tries.push(navigator.sendBeacon(door + path, 'theirs'));
}
Promise.allSettled(tries).then((all) => {
  document.title = all.some((t) => String(t.value).includes('precious')) ? 'it was read' : 'all was tried';
});
</script>`

func TestDoorOtherOriginsInBrowser(t *testing.T) {
	r := newDoorRig(t)
	b := newPageBrowser(r, 800, 600) // which has the page's cookie now
	eventually(t, "the page is there", func() bool { return b.text("#state") == "serving" })
	if a := r.post("queues/secret", "precious"); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	w := r.writer("secret-pipe")
	defer w.CloseWithError(io.ErrNoProgress)
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, strings.ReplaceAll(attack, "pipes/secret", "pipes/secret-pipe"), r.url)
	}))
	defer theirs.Close()
	if _, err := w.WriteString("precious"); err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		for p := range r.broker.Pipes() {
			switch {
			case p.Name == "secret" && p.Chunks == 1 && p.BytesIn == 8 && p.BytesOut == 0:
			case p.Name == "secret-pipe" && p.BytesIn == 8 && p.BytesOut == 0 && !p.Reader:
			default:
				t.Errorf("%s: %+v", when, p)
			}
		}
		if s := r.broker.Stats(); s.Opened != 2 {
			t.Errorf("%s: %d ends were opened, not 2", when, s.Opened)
		}
	}
	_, port, _ := net.SplitHostPort(theirs.Listener.Addr().String())
	for _, origin := range []string{"http://127.0.0.1:" + port, "http://localhost:" + port} { // same-site, cross-site
		b.do(chromedp.Navigate(origin))
		eventually(t, "all was tried from "+origin, func() bool { return b.evaluate(`document.title`) != "" })
		if title := b.evaluate(`document.title`); title != "all was tried" {
			t.Error(origin, title)
		}
		same(origin)
		b.evaluate(`location.href = '` + r.url + `queues/secret'`) // a link
		eventually(t, "the link was refused", func() bool { return strings.Contains(b.text("body"), "another origin") })
		same("a link of " + origin)
	}
}
