package door_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

func TestContentType(t *testing.T) {
	everyWay(t, func(r *rig) {
		const bytes = "application/octet-stream"
		for said, want := range map[string]string{
			"application/x-tar": "application/x-tar", "text/plain; charset=koi8-r": "text/plain; charset=koi8-r", "image/png": "image/png",
			"": bytes, "application/x-www-form-urlencoded": bytes, "multipart/form-data; boundary=x": bytes, "nonsense": bytes,
			"text/html": bytes, "TEXT/HTML; charset=utf-8": bytes, "application/xhtml+xml": bytes, "image/svg+xml": bytes,
			"text/javascript": bytes, "application/xml": bytes, "text/plain; x=" + strings.Repeat("y", 300): bytes,
			"text/plain; x=\"\u009b31m\"": bytes,
		} {
			for _, first := range []string{"writer", "reader"} {
				var got http.Header
				var reading sync.WaitGroup
				reads := func() { reading.Go(func() { got = r.wants(200, "some", "GET", "/pipes/p", "") }) }
				if first == "reader" {
					reads()
					r.has("p", read)
				}
				var writing sync.WaitGroup
				writing.Go(func() { r.wants(200, "", "PUT", "/pipes/p", "some", "Content-Type", said) })
				if first == "writer" {
					r.has("p", written)
					reads()
				}
				writing.Wait()
				reading.Wait()
				if got.Get("Content-Type") != want || got.Get("X-Content-Type-Options") != "nosniff" ||
					!strings.HasPrefix(got.Get("Content-Security-Policy"), "sandbox;") {
					r.Errorf("%q, the %s first: %q, want %q", said, first, got, want)
				}
			}
		}
		// One refused says nothing, and one over does not either.
		r.writer("p").WriteString("other")
		r.wants(409, "busy", "PUT", "/pipes/p", "some", "Content-Type", "image/png")
		if h := r.wants(200, "", "HEAD", "/pipes/p", ""); h.Get("Content-Type") != bytes {
			r.Errorf("%q", h)
		}
	})
}

func TestHead(t *testing.T) {
	everyWay(t, func(r *rig) {
		r.wants(404, "", "HEAD", "/pipes/p", "")
		r.wants(404, "", "HEAD", "/queues/q", "")
		w := r.writer("p")
		rd := r.reader("p")
		if _, err := w.WriteString("some"); err != nil || w.Flush() != nil {
			r.Fatal(err)
		}
		h := r.wants(200, "", "HEAD", "/pipes/p", "")
		if h.Get("Zpipes-Reader") != "true" || h.Get("Zpipes-Writer") != "true" || h.Get("Zpipes-Queued-Bytes") != "4" || h.Get("Accept-Ranges") != "none" {
			r.Errorf("%q", h)
		}
		rd.Close()
		r.wants(200, "", "POST", "/queues/q", "a job")
		h = r.wants(200, "", "HEAD", "/queues/q", "")
		if h.Get("Zpipes-Queued-Chunks") != "1" || h.Get("Zpipes-Queued-Bytes") != "5" || h.Get("Zpipes-Users") != "0" {
			r.Errorf("%q", h)
		}
		r.wants(200, "a job", "GET", "/queues/q", "")
	})
}

func TestNames(t *testing.T) {
	everyWay(t, func(r *rig) {
		for _, name := range []string{"a/b", "two words", "a%2Fb", "?x=1", "caf\xe9", "%", "..", "ж", "a//b/", strings.Repeat("n", 255)} {
			r.wants(200, "", "POST", "/queues/"+url.PathEscape(name), "for "+name)
			r.has(name, func(p zpipes.PipeInfo) bool { return p.Chunks == 1 })
		}
		r.wants(200, "", "POST", "/queues/left/as/it/is", "x")
		r.has("left/as/it/is", func(p zpipes.PipeInfo) bool { return p.Chunks == 1 })
		for _, name := range []string{"", "%00", strings.Repeat("n", 256)} {
			for _, path := range []string{"/pipes/", "/queues/"} {
				for _, method := range []string{"GET", "PUT"} {
					r.wants(400, "bad name", method, path+name, "")
				}
			}
		}
		r.wants(404, "", "GET", "/", "")
		r.wants(404, "", "GET", "/other/name", "")
	})
}

func TestMethods(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	for _, method := range []string{"DELETE", "PATCH", "OPTIONS", "TRACE", "MOVE"} {
		for _, path := range []string{"/pipes/p", "/queues/p"} {
			if h := r.wants(405, "", method, path, ""); h.Get("Allow") == "" {
				t.Error("it does not say what to use")
			}
		}
	}
	r.wants(400, "body", "GET", "/pipes/p", "a body")
}

func TestMounted(t *testing.T) {
	r := newRig(t, door.Config{}, func(s *httptest.Server) {
		mux := http.NewServeMux()
		mux.Handle("/api/", http.StripPrefix("/api", s.Config.Handler))
		s.Config.Handler = mux
	})
	r.wants(200, "", "POST", "/api/queues/a%2Fb", "x")
	r.wants(200, "x", "GET", "/api/queues/a%2Fb", "")
}

// The uploader is held up as soon as the reader stands still, and nothing is lost.
func TestBackPressure(t *testing.T) {
	everyWay(t, func(r *rig) {
		const all = 128 << 20
		var sent atomic.Int64
		body := io.LimitReader(readerFunc(func(b []byte) (int, error) {
			sent.Add(int64(len(b)))
			return len(b), nil
		}), all)
		rd := r.reader("p")
		var writing sync.WaitGroup
		writing.Go(func() {
			if a, text, err := r.do("PUT", "/pipes/p", body); err != nil || a.StatusCode != 200 {
				r.Error(a, text, err)
			}
		})
		r.has("p", waits)
		before := int64(-1)
		eventually(r, "it stands still", func() bool {
			now := sent.Load()
			still := now == before
			before = now
			return still && func() bool { p, err := r.client.Stat(r.Context(), "p"); return err == nil && p.Writes }()
		})
		if before > 64<<20 { // most of it is in the buffers of the system
			r.Errorf("%d bytes were taken, which nobody reads", before)
		}
		if n, err := io.Copy(io.Discard, rd); n != all || err != nil {
			r.Error(n, err)
		}
		writing.Wait()
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestTooManyRequests(t *testing.T) {
	r := newRig(t, door.Config{MaxRequests: 2}, nil)
	rd := r.curl("/pipes/p")
	w := r.curl("-T", "-", "/pipes/p")
	r.has("p", both)
	if h := r.wants(503, "too many", "GET", "/queues/q", ""); h.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	w.in.Close()
	rd.ends(0, "200")
	w.ends(0, "200")
	r.wants(204, "", "GET", "/queues/q", "")
}

// A stream that is torn is an answer that fails, also by HTTP/2, and whatever a
// middleware does.
func TestTornStreams(t *testing.T) {
	for name, change := range map[string]func(*httptest.Server){
		"HTTP/1.1": nil,
		"HTTP/2":   withTLS,
		"a middleware that recovers": func(s *httptest.Server) {
			h := s.Config.Handler
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { recover() }()
				h.ServeHTTP(w, r)
			})
		},
		"HTTP/2 and a middleware that recovers": func(s *httptest.Server) {
			h := s.Config.Handler
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { recover() }()
				h.ServeHTTP(w, r)
			})
			withTLS(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, door.Config{}, change)
			for _, text := range []string{"", "some", strings.Repeat("much ", 100000)} {
				w := r.writer("p")
				var reading sync.WaitGroup
				reading.Go(func() {
					if a, got, err := r.do("GET", "/pipes/p", nil); err == nil || a.StatusCode != 200 || got != text {
						r.Errorf("%s, %d bytes of %d, %v", a.Status, len(got), len(text), err)
					}
				})
				if _, err := w.WriteString(text); err != nil || w.Flush() != nil {
					r.Fatal(err)
				}
				r.has("p", both)
				w.CloseWithError(errors.New("out of paper"))
				reading.Wait()
			}
			// And what is whole is whole.
			w := r.writer("p")
			var closing sync.WaitGroup
			closing.Go(func() {
				w.WriteString("all")
				if err := w.Close(); err != nil {
					r.Error(err)
				}
			})
			r.wants(200, "all", "GET", "/pipes/p", "")
			closing.Wait()
		})
	}
}

func TestHTTP2(t *testing.T) {
	r := newRig(t, door.Config{}, withTLS)
	rd := r.reader("p")
	var writing sync.WaitGroup
	writing.Go(func() {
		body, in := io.Pipe() // says nothing
		a, text, err := r.do("PUT", "/pipes/p", body)
		if err != nil || a.StatusCode != 410 || a.ProtoMajor != 2 {
			r.Error(a, text, err)
		}
		in.Close()
	})
	r.has("p", both)
	rd.Close()
	writing.Wait()
	r.wants(200, "", "POST", "/queues/q", "a job")
	r.wants(200, "a job", "GET", "/queues/q", "")
}

// Why somebody has left is his own text, which curl shows on a terminal.
func TestReasonsOfOthersAreHarmless(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	rd := r.reader("p")
	var writing sync.WaitGroup
	writing.Go(func() {
		body, in := io.Pipe()
		defer in.Close()
		a, text, err := r.do("PUT", "/pipes/p", body)
		if err != nil || a.StatusCode != 410 || !strings.Contains(text, "full \ufffd]0;disk\ufffd\ufffd\u00e9") {
			r.Errorf("%v %q %v", a, text, err)
		}
	})
	r.has("p", both)
	rd.CloseWithError(errors.New("full \x1b]0;disk\a\u009b\u00e9"))
	writing.Wait()
}

// The deadlines of a server are not for streams.
func TestServerWithDeadlines(t *testing.T) {
	r := newRig(t, door.Config{}, func(s *httptest.Server) {
		s.Config.ReadTimeout, s.Config.WriteTimeout = 300e6, 300e6
	})
	rd, w := r.curl("-f", "/pipes/p"), r.curl("-f", "-T", "-", "/pipes/p")
	r.has("p", both)
	r.curl("-f", "/queues/q?wait=1s").ends(0, "204") // longer than that
	io.WriteString(w.in, "late")
	w.in.Close()
	w.ends(0, "200")
	if got, _ := rd.ends(0, "200"); got != "late" {
		t.Errorf("%q", got)
	}
}

// All that waits ends with its server. The rig looks for what is left.
func TestServerThatCloses(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	for i := range 5 {
		r.curl(fmt.Sprint("/pipes/p", i))
		r.curl("-T", "-", fmt.Sprint("/pipes/w", i))
		r.curl("-T", "/dev/zero", fmt.Sprint("/pipes/z", i))
		r.curl(fmt.Sprintf("/queues/q%d?follow", i))
		r.has(fmt.Sprint("p", i), read)
		r.has(fmt.Sprint("w", i), written)
		r.has(fmt.Sprint("q", i), func(q zpipes.PipeInfo) bool { return q.Reads })
		r.has(fmt.Sprint("z", i), waits)
	}
	r.server.CloseClientConnections()
	r.server.Close()
	eventually(t, "nothing is left", func() bool { return r.broker.Stats().Pipes == 0 })
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := newRig(t, door.Config{}, func(s *httptest.Server) {
		s.Listener.Close()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s.Listener = l
	})
	r.url = "http://localhost"
	r.curl("--unix-socket", path, "-d", "a job", "/queues/q").ends(0, "200")
	r.curl("--unix-socket", path, "-H", "Host: evil.example", "/queues/q").ends(0, "421")
	if got, _ := r.curl("--unix-socket", path, "/queues/q").ends(0, "200"); got != "a job" {
		t.Errorf("%q", got)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []door.Config{
		{Guard: door.Guard{Token: "short"}}, {Guard: door.Guard{BehindProxy: true}}, {MaxRequests: -1}, {MaxChunk: -1},
	} {
		if _, err := cfg.New(nil); err == nil {
			t.Errorf("%+v is fine", cfg)
		}
	}
}

// A chunk whose receiver has gone is for another one.
func TestChunkThatComesBack(t *testing.T) {
	for _, path := range []string{"/queues/q", "/queues/q?follow"} {
		r := newRig(t, door.Config{}, func(s *httptest.Server) {
			s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
				c.(*net.TCPConn).SetWriteBuffer(4 << 10)
				return ctx
			}
		})
		chunk := strings.Repeat("much ", 200000)
		r.wants(200, "", "POST", "/queues/q", chunk)
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		r.has("q", func(q zpipes.PipeInfo) bool { return q.Chunks == 0 })
		c.Close()
		r.has("q", func(q zpipes.PipeInfo) bool { return q.Chunks == 1 })
		r.wants(200, chunk, "GET", "/queues/q", "")
	}
}
