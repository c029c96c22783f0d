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
	"strconv"
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
	// maxAnswers is how many answers of one kind that take a while are made at a time.
	maxAnswers = 4
	// maxProfile is for how many seconds a profile or a trace may be made.
	maxProfile = 60
)

// pageConfig says where the page about a broker is served, and to whom.
type pageConfig struct {
	address   string // HOST:PORT, where no host means loopback, or a path
	tokenFile string // empty: over TCP a token is made
	pprof     bool
	users     []int // who may connect to the broker, besides root and who runs it
}

// A lobby is where the page about a broker is to be served. What is wrong with its address
// or its token shows here, before there is a broker that others come to.
type lobby struct {
	net.Listener
	gate *gate
	cfg  pageConfig
}

func openLobby(ctx context.Context, cfg pageConfig, log *slog.Logger) (*lobby, error) {
	network, address, host, err := pageAddress(cfg.address)
	if err != nil {
		return nil, err
	}
	var l net.Listener
	if network == "unix" {
		l, err = listenUnix(address, cfg.users)
	} else {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
	}
	if err != nil {
		return nil, hintError{fmt.Errorf("the page for browsers: %w", err),
			"Give --http an address that is free, such as 127.0.0.1:8080, or a path for a socket."}
	}
	gate, err := newGate(l.Addr(), host, cfg.tokenFile, log)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &lobby{l, gate, cfg}, nil
}

// serve serves the page about the broker, and its metrics, until stop is called or ctx
// ends. It returns what tells people how to get there. stop returns when all has ended.
func (l *lobby) serve(ctx context.Context, b *zpipes.Broker, log *slog.Logger) (way string, stop func()) {
	s := newSite(b, log, l.Addr(), l.gate, l.cfg)
	return s.way(), s.start(ctx, l.Listener)
}

// A site is all that is served over HTTP for one broker.
type site struct {
	broker  *zpipes.Broker
	log     *slog.Logger
	sampler *sampler
	health  health
	mux     *http.ServeMux
	cfg     pageConfig
	gate    *gate
	url     string       // of the page, without a token
	busy    sync.RWMutex // read-held by each request

	patience time.Duration // viewerPatience, but in tests
}

func newSite(b *zpipes.Broker, log *slog.Logger, addr net.Addr, gate *gate, cfg pageConfig) *site {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = sparing(log)
	s := &site{broker: b, log: log, cfg: cfg, gate: gate, mux: http.NewServeMux(), patience: viewerPatience}
	s.health = health{direct: b.Client(), endpoints: b.Endpoints(), log: log}
	s.sampler = newSampler(b, &s.health)
	s.url = "http://localhost/"
	if at, ok := addr.(*net.TCPAddr); ok {
		host := gate.host
		if at.IP.IsUnspecified() {
			host = "localhost"
		}
		s.url = "http://" + net.JoinHostPort(host, fmt.Sprint(at.Port)) + "/"
	}

	s.mux.HandleFunc("GET /{$}", s.index)
	for _, name := range []string{"page.js", "style.css", "icon.svg"} {
		s.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, webFiles, "web/"+name)
		})
	}
	s.mux.HandleFunc("GET /events", s.events)
	s.mux.HandleFunc("GET /status.json", atMost(maxAnswers, s.status))
	s.mux.HandleFunc("GET "+healthPath, s.healthz)
	s.mux.Handle("GET /metrics", s.metrics())
	for path, profile := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		s.mux.HandleFunc("GET /debug/pprof/"+path, atMost(maxAnswers, s.profile(profile)))
	}
	return s
}

// healthPath is for whoever can connect: it tells nothing but whether the broker is up.
const healthPath = "/healthz"

// way says how to get to the page.
func (s *site) way() string {
	switch network, path, _, _ := pageAddress(s.cfg.address); {
	case network == "unix":
		return fmt.Sprintf("%s (curl --unix-socket %s %s)", path, path, s.url)
	case s.cfg.tokenFile != "":
		return fmt.Sprintf("%s (with the token in %s)", s.url, s.cfg.tokenFile)
	}
	return s.url + "?token=" + s.gate.token
}

// start serves on l until the function that it returns is called or ctx ends.
func (s *site) start(ctx context.Context, l net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.health.ctx = ctx
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withPageConn,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var running sync.WaitGroup
	running.Go(func() { s.sampler.run(ctx) })
	running.Go(s.health.watch)
	running.Go(func() {
		if err := server.Serve(&pageListener{Listener: l, users: s.cfg.users, log: s.log}); !errors.Is(err, http.ErrServerClosed) {
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
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case !s.gate.knownHost(r.Host):
		http.Error(w, "this is served to localhost only", http.StatusMisdirectedRequest)
	case foreign(r):
		http.Error(w, "another site's page asks", http.StatusForbidden)
	case r.URL.Path != healthPath && !s.gate.admits(w, r):
		h.Set("WWW-Authenticate", "Bearer")
		h.Set("Connection", "close")
		http.Error(w, "this wants the token: take the address that the broker has printed, or send Authorization: Bearer TOKEN",
			http.StatusUnauthorized)
	default:
		if r.URL.Path != healthPath {
			stays(r)
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(httpAnswerTime))
		s.mux.ServeHTTP(w, r)
	}
}

// atMost has some answers be made at a time, and refuses more.
func atMost(n int, h http.HandlerFunc) http.HandlerFunc {
	turns := make(chan struct{}, n)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
			h(w, r)
		default:
			http.Error(w, "too many ask for this at once", http.StatusServiceUnavailable)
		}
	}
}

func (s *site) index(w http.ResponseWriter, r *http.Request) {
	var page bytes.Buffer
	if err := indexPage.Execute(&page, struct {
		*pageView
		Profiles bool
	}{s.sampler.look(), s.cfg.pprof}); err != nil {
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
	if s.health.check() != nil {
		http.Error(w, "the broker is not healthy; its log says why", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// profile shows the program's insides, where that is wanted.
func (s *site) profile(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.pprof {
			http.Error(w, "there are no profiles; zpipes broker --http-pprof has them", http.StatusNotFound)
			return
		}
		if seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil && !(seconds <= maxProfile) {
			http.Error(w, fmt.Sprintf("at most seconds=%d", maxProfile), http.StatusBadRequest)
			return
		}
		unhurried(w).SetWriteDeadline(time.Now().Add(maxProfile*time.Second + httpAnswerTime))
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
