package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

//go:embed web
var webFiles embed.FS

var indexPage = template.Must(template.ParseFS(webFiles, "web/index.html"))

const (
	// httpAnswerTime is how long an answer may take that does not go on and on.
	httpAnswerTime = 30 * time.Second
	// httpFarewell is how long stop waits for answers to end by themselves.
	httpFarewell = 500 * time.Millisecond
)

// serveHTTP serves a page about the broker, and its metrics, until stop is called
// or ctx ends. An addr without a host means loopback. stop returns when all has
// ended.
func serveHTTP(ctx context.Context, addr string, b *zpipes.Broker, log *slog.Logger) (url string, stop func(), err error) {
	addr, host, err := httpAddress(addr)
	if err != nil {
		return "", nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("the page for browsers: %w", err)
	}
	s := newSite(b, log, l.Addr(), host)
	stop = s.start(ctx, l)
	return s.url, stop, nil
}

// httpAddress completes an address, and returns the host in it.
func httpAddress(addr string) (complete, host string, err error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr // a mere port
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("the page for browsers: %w", err)
	}
	if port == "" {
		return "", "", fmt.Errorf("the page for browsers: %q has no port; say 8080, or HOST:8080", addr)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), host, nil
}

// A site is all that is served over HTTP for one broker.
type site struct {
	broker  *zpipes.Broker
	log     *slog.Logger
	sampler *sampler
	health  health
	mux     *http.ServeMux
	url     string
	host    string       // as it was named
	local   bool         // it listens on loopback alone
	busy    sync.RWMutex // read-held by each request

	patience time.Duration // viewerPatience, but in tests
}

func newSite(b *zpipes.Broker, log *slog.Logger, addr net.Addr, host string) *site {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &site{broker: b, log: log, host: host, sampler: newSampler(b), mux: http.NewServeMux(), patience: viewerPatience}
	s.health.direct, s.health.endpoint = s.sampler.client, b.Endpoints()[0]
	at := addr.(*net.TCPAddr).AddrPort()
	s.local = at.Addr().IsLoopback()
	shown := host
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		shown = "localhost"
	}
	s.url = "http://" + net.JoinHostPort(shown, fmt.Sprint(at.Port())) + "/"

	s.mux.HandleFunc("GET /{$}", s.index)
	for _, name := range []string{"page.js", "style.css", "icon.svg"} {
		s.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, webFiles, "web/"+name)
		})
	}
	s.mux.HandleFunc("GET /events", s.events)
	s.mux.HandleFunc("GET /status.json", s.status)
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.Handle("GET /metrics", s.metrics())
	s.mux.HandleFunc("GET /debug/pprof/", s.profile(pprof.Index))
	s.mux.HandleFunc("GET /debug/pprof/cmdline", s.profile(pprof.Cmdline))
	s.mux.HandleFunc("GET /debug/pprof/profile", s.profile(pprof.Profile))
	s.mux.HandleFunc("GET /debug/pprof/symbol", s.profile(pprof.Symbol))
	s.mux.HandleFunc("GET /debug/pprof/trace", s.profile(pprof.Trace))
	return s
}

// start serves on l until the function that it returns is called or ctx ends.
func (s *site) start(ctx context.Context, l net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var running sync.WaitGroup
	running.Go(func() { s.sampler.run(ctx) })
	running.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the page for browsers has ended", "error", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		farewell, done := context.WithTimeout(context.Background(), httpFarewell)
		defer done()
		if server.Shutdown(farewell) != nil {
			server.Close() // fails the writes of those that are left
		}
		s.busy.Lock() // when the last one has returned
		defer s.busy.Unlock()
		running.Wait()
	})
	context.AfterFunc(ctx, stop)
	s.log.Debug("page for browsers", "url", s.url) // the caller tells people
	return stop
}

// ServeHTTP refuses what a page of somebody else's may have sent here, and sets
// what all answers have in common.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.busy.RLock()
	defer s.busy.RUnlock()
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case s.local && !s.knownHost(r.Host):
		// A name of the attacker's that leads to loopback: DNS rebinding.
		http.Error(w, "this is served to localhost only", http.StatusMisdirectedRequest)
	case foreign(r):
		http.Error(w, "another site's page asks", http.StatusForbidden)
	default:
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(httpAnswerTime))
		s.mux.ServeHTTP(w, r)
	}
}

func (s *site) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "" || // none: no browser
		strings.EqualFold(host, "localhost") || strings.EqualFold(host, s.host)
}

// foreign says that a browser fetches this for the page of another site. A link
// to here is no such case.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

func (s *site) index(w http.ResponseWriter, r *http.Request) {
	var page bytes.Buffer
	if err := indexPage.Execute(&page, s.sampler.look()); err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(page.Bytes())
}

func (s *site) status(w http.ResponseWriter, r *http.Request) {
	text, err := json.MarshalIndent(s.broker.Status(), "", "  ")
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n'))
}

func (s *site) healthz(w http.ResponseWriter, r *http.Request) {
	if err := s.health.check(r.Context()); err != nil {
		s.log.Warn("not healthy", "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// profile shows the program's insides to its own machine only.
func (s *site) profile(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "profiles are served over loopback only", http.StatusForbidden)
			return
		}
		unhurried(w) // it may have asked for minutes
		h(w, r)
	}
}

// unhurried lifts the deadlines, for an answer that takes long.
func unhurried(w http.ResponseWriter) *http.ResponseController {
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{})
	c.SetWriteDeadline(time.Time{})
	return c
}

func (s *site) fail(w http.ResponseWriter, err error) {
	s.log.Error("the page for browsers", "error", err)
	http.Error(w, "it can't be shown; the broker's log says why", http.StatusInternalServerError)
}

// health asks the broker directly, which tells whether it is shutting down, and the
// way other programs do, so that one whose loop hangs is found out.
type health struct {
	direct   *zpipes.Client
	endpoint string
	mu       sync.Mutex // one question at a time
	asked    time.Time
	err      error
}

// check asks at most once a second, whoever wants to know.
func (h *health) check(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.asked) < time.Second {
		return h.err
	}
	err := h.ask(ctx)
	if ctx.Err() == nil { // else it says nothing about the broker
		h.asked, h.err = time.Now(), err
	}
	return err
}

func (h *health) ask(ctx context.Context) error {
	if _, err := h.direct.Ping(ctx); err != nil {
		return err
	}
	c, err := zpipes.ClientConfig{Timeout: 2 * time.Second}.NewClient(h.endpoint)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ping(ctx)
	return err
}
