package door

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A Guard says who may come in. The zero Guard lets in who comes over a Unix
// socket, whose permissions then decide, or from this machine to a loopback
// address, which is any user of the machine; and so whomever a proxy there
// lets in that does not say that it is one, as nginx does not by default.
// Whatever it says, pages of other
// origins may not: neither those that a browser names as such, nor those that
// have got a name of their own to lead here (DNS rebinding).
type Guard struct {
	// Token is what callers have to send as "Authorization: Bearer TOKEN"; at
	// least 16 characters. Without one, and without Admit, nobody comes in who
	// does not come from this machine.
	Token string

	// Admit, if set, is asked about those who come without the Token: a program
	// that knows its users by itself lets them in here.
	Admit func(*http.Request) bool

	// Hosts are the names by which this is reached, without ports, such as
	// "files.example.com". Requests for others are refused. localhost and
	// loopback addresses are among them always; without Hosts, so is any name at
	// an address that other machines can reach.
	Hosts []string

	// BehindProxy says that a proxy in front of this has TLS. Else who comes
	// from another machine has to use TLS with this very server.
	BehindProxy bool
}

// leastToken is how long a token has to be, so that nobody guesses it.
const leastToken = 16

func (g *Guard) check() error {
	switch {
	case g.Token != "" && len(g.Token) < leastToken:
		return fmt.Errorf("the Token has %d characters; it needs %d, so that nobody guesses it", len(g.Token), leastToken)
	case g.BehindProxy && g.Token == "" && g.Admit == nil:
		return errors.New("behind a proxy all come from this machine; a Token, or Admit, has to say who may")
	}
	return nil
}

// A Refusal is the answer to a request that may not come in.
type Refusal struct {
	Status int
	Reason string
}

// ServeHTTP answers.
func (no *Refusal) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if no.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Connection", "close") // also of one who would send much
	http.Error(w, no.Reason, no.Status)
}

// Check returns why the request may not come in, or nil. Which of the server's
// addresses it came to, it has from http.LocalAddrContextKey.
func (g *Guard) Check(r *http.Request) *Refusal {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	local := isLocal(at)
	open := g.Token == "" && g.Admit == nil
	switch {
	case !g.knows(r.Host, local):
		return &Refusal{http.StatusMisdirectedRequest, "this is not served under that name"}
	case crossOrigin(r):
		return &Refusal{http.StatusForbidden, "a page of another origin asks"}
	case !local && open:
		return &Refusal{http.StatusForbidden, "this is for its own machine; others need a token, and there is none"}
	case !local && r.TLS == nil && !g.BehindProxy:
		return &Refusal{http.StatusForbidden, "this is for its own machine; others have to use TLS"}
	case open && proxied(r):
		return &Refusal{http.StatusForbidden, "this is for its own machine, and a proxy asks; others need a token, and there is none"}
	case !open && !g.knowsToken(r) && (g.Admit == nil || !g.Admit(r)):
		return &Refusal{http.StatusUnauthorized, "a token is wanted: send Authorization: Bearer TOKEN"}
	}
	return nil
}

func isLocal(at net.Addr) bool {
	if tcp, ok := at.(*net.TCPAddr); ok {
		return tcp.IP.IsLoopback()
	}
	_, unix := at.(*net.UnixAddr)
	return unix
}

// knows says whether the host is one of ours. A name of somebody else's that leads to
// this machine makes his page one of this origin.
func (g *Guard) knows(host string, local bool) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return host == "" || // no browser
		err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost") ||
		!local && len(g.Hosts) == 0 ||
		slices.ContainsFunc(g.Hosts, func(ours string) bool { return strings.EqualFold(ours, host) })
}

// crossOrigin says that a browser asks on behalf of another origin's page. A mere GET
// changes something here, too: who reads takes away.
func crossOrigin(r *http.Request) bool {
	writes := *r
	writes.Method = http.MethodPost
	return new(http.CrossOriginProtection).Check(&writes) != nil
}

// proxied says that a proxy passes on what others ask.
func proxied(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"} {
		if r.Header[header] != nil {
			return true
		}
	}
	return false
}

func (g *Guard) knowsToken(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return g.Token != "" && strings.EqualFold(scheme, "Bearer") &&
		subtle.ConstantTimeCompare([]byte(token), []byte(g.Token)) == 1
}
