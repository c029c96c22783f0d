package door_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zpipes/zpipes/door"
)

const token = "0123456789abcdef"

func TestGuard(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv6loopback, Port: 80}
	public := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
	unix := &net.UnixAddr{Name: "/run/door", Net: "unix"}
	bearer := []string{"Authorization", "Bearer " + token}
	ours := func(r *http.Request) bool { return r.Header.Get("Cookie") == "ours" }
	for _, test := range []struct {
		guard  door.Guard
		at     net.Addr
		tls    bool
		host   string
		header []string
		want   int
	}{
		// This machine.
		{at: loopback, host: "localhost:80"},
		{at: loopback, host: "127.0.0.1:80"},
		{at: loopback, host: "[::1]:80"},
		{at: loopback, host: "LOCALHOST"},
		{at: unix, host: "localhost"},
		{at: unix, host: ""},
		{at: loopback, host: "localhost", header: []string{"X-Forwarded-For", "192.0.2.7"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Via", "1.1 proxy"}, want: 403},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", want: 401},
		{guard: door.Guard{Token: token}, at: unix, host: "localhost", want: 401},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: bearer},

		// A name that leads here.
		{at: loopback, host: "evil.example", want: 421},
		{at: loopback, host: "evil.example:80", want: 421},
		{at: loopback, host: "127.0.0.1.evil.example", want: 421},
		{at: loopback, host: "192.0.2.1", want: 421},
		{at: unix, host: "evil.example", want: 421},
		{guard: door.Guard{Token: token}, at: loopback, host: "evil.example", header: bearer, want: 421},
		{guard: door.Guard{Hosts: []string{"files.example"}}, at: loopback, host: "Files.example:80"},
		{guard: door.Guard{Hosts: []string{"files.example"}}, at: loopback, host: "evil.example", want: 421},

		// Other machines.
		{at: public, host: "192.0.2.1", want: 403},
		{at: public, host: "localhost", want: 403},
		{at: public, host: "192.0.2.1", tls: true, want: 403},
		{at: nil, host: "localhost", want: 403},
		{guard: door.Guard{Token: token}, at: public, host: "192.0.2.1", header: bearer, want: 403},
		{guard: door.Guard{Token: token}, at: public, host: "192.0.2.1", tls: true, header: bearer},
		{guard: door.Guard{Token: token}, at: public, host: "192.0.2.1", tls: true, want: 401},
		{guard: door.Guard{Token: token, BehindProxy: true}, at: public, host: "192.0.2.1", header: bearer},
		{guard: door.Guard{Token: token, BehindProxy: true}, at: public, host: "192.0.2.1", want: 401},
		{guard: door.Guard{Token: token, BehindProxy: true}, at: loopback, host: "localhost",
			header: append([]string{"X-Forwarded-For", "192.0.2.7"}, bearer...)},
		{guard: door.Guard{Token: token, Hosts: []string{"files.example"}}, at: public, host: "files.example", tls: true, header: bearer},
		{guard: door.Guard{Token: token, Hosts: []string{"files.example"}}, at: public, host: "evil.example", tls: true, header: bearer, want: 421},

		// The token.
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: []string{"Authorization", "bearer " + token}},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: []string{"Authorization", "Bearer " + token[1:]}, want: 401},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: []string{"Authorization", "Bearer " + token + "0"}, want: 401},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: []string{"Authorization", "Bearer "}, want: 401},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: []string{"Authorization", "Basic " + token}, want: 401},
		{guard: door.Guard{Admit: ours}, at: loopback, host: "localhost", header: []string{"Authorization", "Bearer "}, want: 401},
		{guard: door.Guard{Admit: ours}, at: loopback, host: "localhost", header: []string{"Cookie", "ours"}},
		{guard: door.Guard{Admit: ours}, at: public, host: "192.0.2.1", tls: true, header: []string{"Cookie", "ours"}},
		{guard: door.Guard{Admit: ours}, at: public, host: "192.0.2.1", header: []string{"Cookie", "ours"}, want: 403},
		{guard: door.Guard{Admit: ours, Token: token}, at: loopback, host: "localhost", header: bearer},

		// Other pages.
		{at: loopback, host: "localhost", header: []string{"Sec-Fetch-Site", "cross-site"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Sec-Fetch-Site", "same-site"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Origin", "http://evil.example"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Origin", "http://localhost:81"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Origin", "null"}, want: 403},
		{at: loopback, host: "localhost", header: []string{"Origin", "http://localhost"}},
		{at: loopback, host: "localhost", header: []string{"Sec-Fetch-Site", "same-origin"}},
		{at: loopback, host: "localhost", header: []string{"Sec-Fetch-Site", "none"}},
		{guard: door.Guard{Token: token}, at: loopback, host: "localhost", header: append([]string{"Sec-Fetch-Site", "cross-site"}, bearer...), want: 403},
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "OPTIONS", "DELETE"} {
			r := httptest.NewRequest(method, "/pipes/p", nil)
			if test.at != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, test.at))
			}
			r.Host = test.host
			if test.tls {
				r.TLS = new(tls.ConnectionState)
			}
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			got := 0
			if no := test.guard.Check(r); no != nil {
				got = no.Status
			}
			if got != test.want {
				t.Errorf("%s, %+v: %d", method, test, got)
			}
		}
	}
}

// The door asks its guard, whatever is asked of it.
func TestDoorIsGuarded(t *testing.T) {
	r := newRig(t, door.Config{Guard: door.Guard{Token: token}}, nil)
	r.writer("p").WriteString("some")
	for _, method := range []string{"GET", "HEAD", "PUT", "POST", "OPTIONS", "DELETE"} {
		for _, path := range []string{"/pipes/p", "/queues/q", "/", "/other"} {
			if h := r.wants(401, "", method, path, ""); h.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%q", h)
			}
			r.wants(421, "", method, path, "", "Authorization", "Bearer "+token, "Host", "evil.example")
			r.wants(403, "", method, path, "", "Authorization", "Bearer "+token, "Sec-Fetch-Site", "cross-site")
		}
	}
	r.curl("/pipes/p").ends(0, "401")
	r.curl("-f", "--oauth2-bearer", strings.ToUpper(token), "/pipes/p").ends(22, "401")
	r.curl("-f", "--oauth2-bearer", token, "-d", "a job", "/queues/q").ends(0, "200")
}

// A browser may fetch nothing ahead of its use, and make nothing a part of a page.
func TestWhatBrowsersMayNot(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	r.wants(200, "", "POST", "/queues/q", "a job")
	for _, header := range [][]string{
		{"Sec-Purpose", "prefetch"}, {"Sec-Purpose", "prefetch;prerender"}, {"Sec-Fetch-Dest", "script"}, {"Sec-Fetch-Dest", "iframe"},
		{"Sec-Fetch-Dest", "serviceworker"}, {"Sec-Fetch-Dest", "style"}, {"Sec-Fetch-Dest", "image"},
	} {
		r.wants(403, "", "GET", "/queues/q", "", append(header, "Sec-Fetch-Site", "same-origin")...)
	}
	r.wants(200, "a job", "GET", "/queues/q", "", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin")
}
