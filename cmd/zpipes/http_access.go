package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/zpipes/zpipes/door"
)

// leastToken is how long a token has to be, so that nobody guesses it.
const leastToken = 16

// A gate decides who sees the page: nobody whom the broker turns away. Every user of a
// machine can connect to its loopback addresses, and what a proxy forwards comes from
// there as well, so over TCP it wants a token. Over a Unix socket it is asked of the
// system who connects (see pageListener), and a token is wanted where one was given.
type gate struct {
	token  string // empty: none is wanted
	cookie http.Cookie
	local  bool   // it is served to this machine alone
	host   string // as the address had it
}

// newGate makes a token for TCP where there is no file with one.
func newGate(at net.Addr, host, tokenFile string, log *slog.Logger) (*gate, error) {
	g := &gate{local: true, host: host}
	tcp, _ := at.(*net.TCPAddr)
	if tcp != nil {
		g.local = tcp.IP.IsLoopback()
	}
	switch {
	case tokenFile != "":
		text, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("the page's token: %w", err)
		}
		if g.token = strings.TrimSpace(string(text)); len(g.token) < leastToken || strings.ContainsFunc(g.token, unfit) {
			return nil, fmt.Errorf("the page's token: %s has to hold %d or more letters and digits", tokenFile, leastToken)
		}
		if info, err := os.Stat(tokenFile); err == nil && info.Mode().Perm()&0o004 != 0 {
			log.Warn("every user can read the page's token", "file", tokenFile)
		}
	case tcp != nil && !g.local:
		return nil, fmt.Errorf("%v is not of this machine alone: the page is served there only with a --http-token-file", at)
	case tcp != nil:
		g.token = rand.Text()
	}
	// What the browser keeps is not the token itself. Cookies are for all ports of a
	// host, so each port has a name of its own.
	seal := hmac.New(sha256.New, []byte(g.token))
	seal.Write([]byte("zpipes page"))
	g.cookie = http.Cookie{Name: "zpipes", Value: hex.EncodeToString(seal.Sum(nil)), HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if tcp != nil {
		g.cookie.Name = fmt.Sprintf("zpipes-%d", tcp.Port)
	}
	return g, nil
}

// unfit says that a header or an address has no place for the character.
func unfit(r rune) bool { return r <= ' ' || r >= 0x7f }

// guard is who the page and the door let in: with the token, or with what the page gave
// for it. proxied says that what is in front of them has TLS.
func (g *gate) guard(hosts []string, proxied bool) door.Guard {
	guard := door.Guard{Token: g.token, Hosts: hosts, BehindProxy: proxied}
	if g.local {
		guard.Hosts = append([]string{g.host}, hosts...)
	}
	if g.token != "" {
		guard.Admit = g.admits
	}
	return guard
}

// admits says whether who asks has what the page gave for the token, or is about to get
// that.
func (g *gate) admits(r *http.Request) bool {
	given, err := r.Cookie(g.cookie.Name)
	return err == nil && same(given.Value, g.cookie.Value) || g.asks(r)
}

// asks says whether the address of the page has the token in it.
func (g *gate) asks(r *http.Request) bool {
	return g.token != "" && r.URL.Path == "/" && same(r.URL.Query().Get("token"), g.token)
}

// same compares in a time that tells nothing but the length.
func same(given, want string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(want)) == 1
}

// unlinked takes from a request that another site's page leads to this page by a link, in
// a window of its own, which is all that one may do.
func unlinked(r *http.Request) *http.Request {
	if r.Method != http.MethodGet || r.URL.Path != "/" || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Mode") != "navigate" ||
		cmp.Or(r.Header.Get("Sec-Fetch-Dest"), "document") != "document" {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Del("Sec-Fetch-Site")
	return r
}
