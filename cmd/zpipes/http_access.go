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
	"net/netip"
	"net/url"
	"os"
	"strings"
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
		return nil, fmt.Errorf("the page is not encrypted, and %v is not of this machine alone: it is served there only with a --http-token-file", at)
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

// admits says whether who asks has the token, or what the page gave for it.
func (g *gate) admits(w http.ResponseWriter, r *http.Request) bool {
	if g.token == "" {
		return true
	}
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return same(token, g.token)
	}
	if given, err := r.Cookie(g.cookie.Name); err == nil && same(given.Value, g.cookie.Value) {
		return true
	}
	if r.URL.Path != "/" || !same(r.URL.Query().Get("token"), g.token) {
		return false
	}
	http.SetCookie(w, &g.cookie) // for what comes next; the script takes the token out of the address
	return true
}

// same compares in a time that tells nothing.
func same(given, want string) bool {
	x, y := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// knownHost says whether the browser was led here by a name that is ours. A name of
// somebody else's that leads to loopback makes his page one of this site (DNS rebinding).
func (g *gate) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return !g.local || err == nil && ip.IsLoopback() || host == "" || // none: no browser
		strings.EqualFold(host, "localhost") || strings.EqualFold(host, g.host)
}

// foreign says that a browser asks on behalf of another site's page. Of these only a link
// to the page itself may be followed, in a window of its own.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		if from, err := url.Parse(origin); err != nil || !strings.EqualFold(from.Host, r.Host) {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate" ||
		cmp.Or(r.Header.Get("Sec-Fetch-Dest"), "document") != "document"
}
