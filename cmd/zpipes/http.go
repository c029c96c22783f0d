package main

import (
	"bytes"
	"context"
	"crypto/tls"
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
	"strings"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

//go:embed web
var webFiles embed.FS

var indexPage = template.Must(template.ParseFS(webFiles, "web/index.html"))

const (
	// httpAnswerTime is how long an answer may take that does not go on and on.
	httpAnswerTime = 30 * time.Second
	// httpReadTime is how long a request may take to come, and to be answered: with the reading, net/http
	// ends its context.
	httpReadTime = 10 * time.Second
	// httpFarewell is how long stop waits for answers to end by themselves.
	httpFarewell = 500 * time.Millisecond
	// maxAnswers is how many answers of one kind that take a while are made at a time.
	maxAnswers = 4
	// maxDoor is how many requests are served at a time to those who write and read.
	maxDoor = 256
	// maxProfile is for how many seconds a profile or a trace may be made.
	maxProfile = 60
)

// pageConfig says where the page about a broker is served, and to whom.
type pageConfig struct {
	address   string // HOST:PORT, where no host means loopback, or a path
	tokenFile string // empty: over TCP a token is made
	pprof     bool
	users     []int // who may connect to the broker, besides root and who runs it

	door      bool     // pipes and queues are served, too
	cert, key string   // files, for TLS
	proxied   bool     // something in front has TLS
	hosts     []string // names by which it is reached, besides that of the address
}

// A lobby is where the page about a broker is to be served. What is wrong with its address
// or its token shows here, before there is a broker that others come to.
type lobby struct {
	net.Listener
	gate *gate
	cfg  pageConfig
	tls  *tls.Config // nil: without
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
	if err == nil {
		err = cfg.check(gate)
	}
	var tls *tls.Config
	if err == nil {
		tls, err = cfg.tls()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	gate.cookie.Secure = tls != nil
	return &lobby{l, gate, cfg, tls}, nil
}

// check says what others could do at the door that they must not.
func (cfg *pageConfig) check(g *gate) error {
	switch {
	case cfg.proxied && g.token == "":
		return errors.New("behind a proxy all come from this machine: with --http-behind-proxy a --http-token-file has to say who may")
	case cfg.door && !g.local && cfg.cert == "" && !cfg.proxied:
		return errors.New("the door is for other machines only with TLS: give --http-cert and --http-key, or, if a proxy in front of it has TLS, --http-behind-proxy")
	}
	return nil
}

// tls reads the certificate; nil if there is none.
func (cfg *pageConfig) tls() (*tls.Config, error) {
	if cfg.cert == "" && cfg.key == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.cert, cfg.key)
	if err != nil {
		return nil, hintError{fmt.Errorf("the page's certificate: %w", err), "Give the files of both: --http-cert CERT.pem --http-key KEY.pem"}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// serve serves the page about the broker, and its metrics, until stop is called or ctx
// ends. It returns what tells people how to get there. stop returns when all has ended.
func (l *lobby) serve(ctx context.Context, b *zpipes.Broker, log *slog.Logger) (way string, stop func()) {
	s := newSite(b, log, l.Addr(), l.gate, l.cfg)
	return s.way(), s.start(ctx, l.Listener, l.tls)
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
	guard   door.Guard
	door    http.Handler   // nil: there is none
	ends    *zpipes.Client // the door's
	url     string         // of the page, without a token
	busy    sync.RWMutex   // read-held by each request

	patience time.Duration // viewerPatience, but in tests
}

func newSite(b *zpipes.Broker, log *slog.Logger, addr net.Addr, gate *gate, cfg pageConfig) *site {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = sparing(log)
	s := &site{broker: b, log: log, cfg: cfg, gate: gate, mux: http.NewServeMux(), patience: viewerPatience, ends: b.Client()}
	s.guard = gate.guard(cfg.hosts, cfg.proxied || !cfg.door)
	s.health = health{direct: b.Client(), endpoints: b.Endpoints(), log: log}
	s.sampler = newSampler(b, &s.health)
	s.url = "http://localhost/"
	if at, ok := addr.(*net.TCPAddr); ok {
		host := gate.host
		if at.IP.IsUnspecified() {
			host = "localhost"
		}
		scheme := "http://"
		if cfg.cert != "" {
			scheme = "https://"
		}
		s.url = scheme + net.JoinHostPort(host, fmt.Sprint(at.Port)) + "/"
	}

	s.mux.HandleFunc("GET /{$}", s.index)
	if cfg.door {
		var err error
		if s.door, err = (door.Config{Guard: s.guard, MaxRequests: maxDoor, Logger: log}).New(s.ends); err != nil {
			panic(err) // openLobby has looked
		}
		jobs := atMost(maxAnswers, s.jobs)
		s.mux.HandleFunc("GET /jobs/", jobs)
		s.mux.HandleFunc("POST /jobs/", jobs)
	}
	for _, name := range []string{"page.js", "door.js", "style.css", "icon.svg"} {
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

// way says how to get to the page, and through the door.
func (s *site) way() string {
	if s.door == nil {
		return s.pageWay()
	}
	curl := s.curl()
	if s.cfg.tokenFile == "" {
		curl = strings.Replace(curl, "TOKEN", s.gate.token, 1)
	}
	return fmt.Sprintf("%s\n  %s -f -T FILE %spipes/NAME", s.pageWay(), curl, s.url)
}

// curl is how that gets in; TOKEN stands for a token that was made.
func (s *site) curl() string {
	switch network, path, _, _ := pageAddress(s.cfg.address); {
	case network == "unix" && s.cfg.tokenFile != "":
		return fmt.Sprintf(`curl --unix-socket %s --oauth2-bearer "$(cat %s)"`, visible(path), visible(s.cfg.tokenFile))
	case network == "unix":
		return "curl --unix-socket " + visible(path)
	case s.cfg.tokenFile != "":
		return fmt.Sprintf(`curl --oauth2-bearer "$(cat %s)"`, visible(s.cfg.tokenFile))
	}
	return "curl --oauth2-bearer TOKEN"
}

func (s *site) pageWay() string {
	switch network, path, _, _ := pageAddress(s.cfg.address); {
	case network == "unix":
		return fmt.Sprintf("%s (curl --unix-socket %s %s)", visible(path), visible(path), s.url)
	case s.cfg.tokenFile != "":
		return fmt.Sprintf("%s (with the token in %s)", s.url, visible(s.cfg.tokenFile))
	}
	return s.url + "?token=" + s.gate.token
}

// start serves on l until the function that it returns is called or ctx ends.
func (s *site) start(ctx context.Context, l net.Listener, secret *tls.Config) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.health.ctx = ctx
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       httpReadTime,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withPageConn,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	var running sync.WaitGroup
	running.Go(func() { s.sampler.run(ctx) })
	running.Go(s.health.watch)
	held := &pageListener{Listener: l, users: s.cfg.users, log: s.log}
	if s.door != nil {
		held.extra = maxDoor
	}
	l = held
	if secret != nil {
		l = tls.NewListener(l, secret)
	}
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
		s.ends.Close()
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
	switch no := s.guard.Check(unlinked(r)); {
	case no != nil && no.Status == http.StatusUnauthorized && r.URL.Path != healthPath:
		no.Reason = "this wants the token: take the address that the broker has printed, or send Authorization: Bearer TOKEN"
		no.ServeHTTP(w, r)
	case no != nil && no.Status != http.StatusUnauthorized:
		no.ServeHTTP(w, r)
	default:
		if r.URL.Path != healthPath {
			stays(r)
		}
		if s.gate.asks(r) {
			http.SetCookie(w, &s.gate.cookie) // for what comes next; the script takes the token out of the address
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(httpAnswerTime))
		s.handler(r.URL.EscapedPath()).ServeHTTP(w, r)
	}
}

var noPlace = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "there is nothing at a path with //, /./ or /../ in it", http.StatusNotFound)
})

// handler is what serves a path. The mux would lead from //pipes/a and /pipes//a to /pipes/a: for
// curl -f that is a success, though nothing was written. What is behind /pipes/ is a name as it is.
func (s *site) handler(path string) http.Handler {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case s.door != nil && (first == "pipes" || first == "queues"):
		return s.door
	case strings.Contains(path, "//") || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../"):
		return noPlace
	}
	return s.mux
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
		Profiles, Door bool
		Curl           string
	}{s.sampler.look(), s.cfg.pprof, s.door != nil, s.curl()}); err != nil {
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
	harmlessJSON{w}.Write(append(text, '\n')) // curl prints it
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
