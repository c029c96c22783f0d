package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zpipes/zpipes"
)

// Config holds the options of a door; a zero field means its default.
type Config struct {
	Guard Guard // who may come in

	// MaxRequests is how many requests are served at a time; default 256. The
	// next ones are refused with status 503.
	MaxRequests int

	// MaxChunk is how many bytes the body of a chunk for a queue may have;
	// default 1 MiB. All of them are in memory until the queue has room.
	MaxChunk int64

	// Logger gets a line when a chunk was lost that a queue had given away. nil:
	// silence.
	Logger *slog.Logger
}

const (
	defaultRequests = 256
	defaultChunk    = 1 << 20
)

// New returns a door to the pipes and queues of the client's broker, with
// default settings: for this machine alone. The client stays the caller's, to
// be closed when no request is being served any more.
func New(c *zpipes.Client) http.Handler {
	h, _ := Config{}.New(c)
	return h
}

// New is the function New with the settings of cfg. The error says what is
// wrong with them.
func (cfg Config) New(c *zpipes.Client) (http.Handler, error) {
	err := cfg.Guard.check()
	if cfg.MaxRequests < 0 || cfg.MaxChunk < 0 {
		err = errors.New("a negative value in Config; use zero for the default")
	}
	if err != nil {
		return nil, fmt.Errorf("door: %w", err)
	}
	if cfg.MaxRequests == 0 {
		cfg.MaxRequests = defaultRequests
	}
	if cfg.MaxChunk == 0 {
		cfg.MaxChunk = defaultChunk
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &handler{cfg: cfg, client: c, turns: make(chan struct{}, cfg.MaxRequests),
		meetings: meetings{streams: make(map[string]*stream)}}, nil
}

type handler struct {
	cfg    Config
	client *zpipes.Client
	turns  chan struct{} // holds one for each request that is being served
	meetings
}

// serve is what answers a request: with an error, if it has answered nothing yet.
type serve func(w http.ResponseWriter, r *http.Request, name string) error

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Nothing that comes out of a pipe may run as a page or script of this origin.
	header := w.Header()
	header.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Accept-Ranges", "none")
	if no := h.cfg.Guard.Check(r); no != nil {
		no.ServeHTTP(w, r)
		return
	}
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	default:
		header.Set("Retry-After", "1")
		http.Error(w, "too many requests at a time; try again", http.StatusServiceUnavailable)
		return
	}
	name, act, err := h.route(w, r)
	if err == nil {
		unhurried(w)
		err = act(w, r, name)
	}
	if err != nil {
		refuse(w, err)
	}
}

// route finds what a request is about.
func (h *handler) route(w http.ResponseWriter, r *http.Request) (name string, act serve, err error) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if name, err = url.PathUnescape(name); err != nil {
		return "", nil, &problem{http.StatusBadRequest, err.Error()}
	}
	var acts map[string]serve
	switch kind {
	case "pipes":
		acts = map[string]serve{"GET": h.read, "HEAD": h.describe(zpipes.ModeStream), "PUT": h.write, "POST": h.write}
	case "queues":
		acts = map[string]serve{"GET": h.receive, "HEAD": h.describe(zpipes.ModeQueue), "PUT": h.send, "POST": h.send}
	default:
		return "", nil, &problem{http.StatusNotFound, "there is /pipes/NAME, and /queues/NAME"}
	}
	act = acts[r.Method]
	takes := r.Method == http.MethodGet
	switch {
	case act == nil:
		w.Header().Set("Allow", "GET, HEAD, POST, PUT")
		err = &problem{http.StatusMethodNotAllowed, "use GET, HEAD, POST or PUT"}
	case takes && r.Header.Get("Range") != "":
		act = refuseRange
	case r.Header.Get("Content-Range") != "":
		err = &problem{http.StatusBadRequest, "there are no ranges, and no upload can be resumed"}
	case takes && r.ContentLength != 0:
		err = &problem{http.StatusBadRequest, "a GET has no body here"} // behind one it does not show that a client has gone
	case takes && !wanted(r):
		err = &problem{http.StatusForbidden, "this is for programs, and to be looked at or saved by people; not to run, and not to be fetched ahead of its use"}
	}
	return name, act, err
}

// refuseRange breaks off behind the words: for curl, which is to resume a download, a 416
// that is whole means that it has all.
func refuseRange(w http.ResponseWriter, _ *http.Request, _ string) error {
	http.Error(w, "what is read is gone: there are no ranges, and no download can be resumed", http.StatusRequestedRangeNotSatisfiable)
	tear(w)
	return nil
}

// tear ends the answer so that nobody takes it for the whole. The deadline is for a
// server with a middleware that makes a usual end of the panic: it can't write one.
func tear(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	c.Flush()
	c.SetWriteDeadline(past)
	panic(http.ErrAbortHandler)
}

// wanted says whether somebody wants to have this: not a browser that guesses what will be
// wanted (reading takes away), nor one that would make it part of a page.
func wanted(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "", "empty", "document":
		return !strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch")
	}
	return false
}

// A problem is an error that has a status of its own.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	text := strings.TrimPrefix(err.Error(), "zpipes: ")
	http.Error(w, strings.Map(printable, text), status)
}

// printable leaves a terminal on which curl shows a reason of somebody else's nothing to obey.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

func statusOf(err error) int {
	var p *problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p.status
	case errors.Is(err, zpipes.ErrBadName):
		return http.StatusBadRequest
	case errors.Is(err, fs.ErrPermission):
		return http.StatusForbidden
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.Is(err, zpipes.ErrPipeBusy), errors.Is(err, zpipes.ErrPipeMode):
		return http.StatusConflict
	case errors.Is(err, io.ErrClosedPipe):
		return http.StatusGone
	case errors.Is(err, zpipes.ErrTooLarge), errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errors.ErrUnsupported):
		return http.StatusNotImplemented
	case errors.Is(err, zpipes.ErrTooManyPipes):
		return http.StatusServiceUnavailable
	case errors.Is(err, zpipes.ErrNoBroker), errors.Is(err, zpipes.ErrBrokerGone), errors.Is(err, os.ErrClosed):
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// describe tells what is there.
func (h *handler) describe(mode zpipes.Mode) serve {
	return func(w http.ResponseWriter, r *http.Request, name string) error {
		info, err := h.client.Stat(r.Context(), name)
		if err != nil {
			return err
		}
		if !fits(info.Mode, mode) {
			return wrongMode(info.Mode)
		}
		header := w.Header()
		set := func(key string, n int) { header.Set("Zpipes-"+key, strconv.Itoa(n)) }
		set("Queued-Bytes", info.Queued)
		header.Set("Content-Type", plainType)
		if mode == zpipes.ModeQueue {
			set("Queued-Chunks", info.Chunks)
			set("Users", info.Users)
			return nil
		}
		if info.Mode == zpipes.ModeBroadcast {
			set("Readers", info.Readers)
			set("Lag-Bytes", info.Lag)
		} else {
			header.Set("Zpipes-Reader", strconv.FormatBool(info.Reader))
		}
		header.Set("Zpipes-Writer", strconv.FormatBool(info.Writer))
		header.Set("Content-Type", h.typeOf(name))
		return nil
	}
}

// only refuses what is there and of another mode. The bytes of a queue would do for a
// stream, so that no open says it.
func (h *handler) only(r *http.Request, name string, mode zpipes.Mode) error {
	switch info, err := h.client.Stat(r.Context(), name); {
	case err == nil && !fits(info.Mode, mode):
		return wrongMode(info.Mode)
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		return nil // where the broker does not tell, the open has to do
	default:
		return err
	}
}

// fits says that what is of one mode is served where another is: broadcasts are pipes.
func fits(is, where zpipes.Mode) bool {
	return is == where || is == zpipes.ModeBroadcast && where == zpipes.ModeStream
}

func wrongMode(is zpipes.Mode) error {
	switch is {
	case zpipes.ModeListener:
		return &problem{http.StatusConflict, "somebody listens at this name: it is neither a stream nor a queue"}
	case zpipes.ModeQueue:
		return &problem{http.StatusConflict, "this is a queue, not a stream: it is at /queues/NAME"}
	}
	return &problem{http.StatusConflict, "this is a stream, not a queue: it is at /pipes/NAME"}
}

// unhurried lifts the deadlines that the server may have: a stream takes as long as it
// takes.
func unhurried(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{})
	c.SetWriteDeadline(time.Time{})
}

// past is a deadline that unblocks.
var past = time.Unix(1, 0)

// whenGone calls f when the client has gone, or the server ends. stop has returned after f.
func whenGone(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() { defer close(done); f() })
	return func() {
		if !cancel() {
			<-done
		}
	}
}
