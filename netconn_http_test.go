//go:build !core

package zpipes

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// serve has an http.Server serve a name, and returns it and a client of it.
func (r *rig) serve(name string, h http.Handler) (*http.Server, *http.Client) {
	r.Helper()
	there := *r
	there.client = r.newClient(ClientConfig{})
	s := &http.Server{Handler: h}
	l := there.listen(name)
	go s.Serve(l)
	transport := &http.Transport{DialContext: r.client.DialContext}
	r.Cleanup(func() { transport.CloseIdleConnections(); s.Close() })
	return s, &http.Client{Transport: transport}
}

// A pattern is an endless body that is quickly made.
type pattern struct{ at byte }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.at++
		b[i] = p.at
	}
	return len(b), nil
}

func TestConnCarriesHTTP(t *testing.T) {
	t.Parallel()
	size := int64(effort(64)) << 20
	overConnections(t, BrokerConfig{}, func(r *rig) {
		r.busy()
		mux := http.NewServeMux()
		mux.HandleFunc("POST /sum", func(w http.ResponseWriter, req *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, req.Body)
			fmt.Fprintf(w, "%d %v %x", n, err, h.Sum(nil))
		})
		mux.HandleFunc("GET /hijack", func(w http.ResponseWriter, req *http.Request) {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				r.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
			rw.Flush()
			line, _ := rw.ReadString('\n')
			io.WriteString(conn, line)
		})
		_, web := r.serve("web", mux)
		h := sha256.New()
		body := io.TeeReader(io.LimitReader(&pattern{}, size), h)
		resp, err := web.Post("http://web/sum", "application/octet-stream", body)
		if err != nil {
			r.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("%d <nil> %x", size, h.Sum(nil)); string(got) != want || err != nil {
			r.Errorf("got %q, %v, want %q", got, err, want)
		}

		// What is hijacked is a connection as others are.
		conn := r.dial("web")
		io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: web\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nonce more\n")
		br := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 101 {
			r.Fatalf("%v, %v", resp, err)
		}
		if rest, err := io.ReadAll(br); string(rest) != "once more\n" || err != nil {
			r.Errorf("the hijacked one said %q, %v", rest, err)
		}

		// And another server stands before it.
		target, _ := url.Parse("http://web")
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.Transport = web.Transport
		_, far := r.serve("proxy", proxy)
		resp, err = far.Post("http://proxy/sum", "", strings.NewReader("abc"))
		if err != nil {
			r.Fatal(err)
		}
		got, _ = io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("3 <nil> %x", sha256.Sum256([]byte("abc"))); string(got) != want {
			r.Errorf("through a proxy: %q, want %q", got, want)
		}
	})
}

func TestConnCarriesTLS(t *testing.T) {
	overConnections(t, BrokerConfig{}, func(r *rig) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			fmt.Fprint(w, req.Proto, " ", req.TLS != nil)
		}))
		s.Listener.Close()
		s.Listener = r.listen("web")
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		transport := s.Client().Transport.(*http.Transport)
		transport.DialContext = r.client.DialContext
		transport.TLSClientConfig.ServerName = "example.com"
		resp, err := s.Client().Get("https://web/")
		if err != nil {
			r.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); string(got) != "HTTP/2.0 true" || err != nil {
			r.Errorf("%q, %v", got, err)
		}
	})
}

// A server that closes waits neither for peers that read nothing nor for such as say nothing.
func TestConnServerClosesWithStuckPeers(t *testing.T) {
	const peers = 100
	overWaysInTurn(t, BrokerConfig{MaxPending: 64 << 10}, ClientConfig{}, func(r *rig) {
		r.busy()
		if r.base {
			return
		}
		for _, how := range []string{"Shutdown", "Close"} {
			writing := make(chan bool, peers)
			s, _ := r.serve(how, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				writing <- true
				for b := make([]byte, 64<<10); ; {
					if _, err := w.Write(b); err != nil {
						return
					}
				}
			}))
			for i := range peers {
				n := r.dial(how)
				if i%2 == 0 { // the others say nothing
					io.WriteString(n, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					<-writing
				}
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(r.Context(), 200*time.Millisecond)
			if how == "Shutdown" {
				if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					r.Errorf("Shutdown: %v", err)
				}
			}
			if err := s.Close(); err != nil {
				r.Errorf("Close: %v", err)
			}
			cancel()
			// It takes 0.2 s, of which Shutdown waits all; to deliver would take ClientConfig's Timeout.
			took := time.Since(start)
			r.Logf("%s of an http.Server with %d stuck peers: %v", how, peers, took)
			if took >= soon {
				r.Errorf("%s took %v", how, took)
			}
		}
	})
}
