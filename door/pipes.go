package door

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

var errLeft = errors.New("the HTTP client has gone")

// read serves a stream from its writer to the client.
func (h *handler) read(w http.ResponseWriter, r *http.Request, name string) error {
	if !r.ProtoAtLeast(1, 1) {
		return &problem{http.StatusHTTPVersionNotSupported, "HTTP/1.0 can't tell a whole stream from a torn one; a proxy in front of this has to use 1.1"}
	}
	if err := h.only(r, name, zpipes.ModeStream); err != nil {
		return err
	}
	s := h.meet(name)
	p, err := h.client.OpenReader(r.Context(), name)
	if err != nil {
		h.decline(name, s, false)
		return err
	}
	part := sync.OnceFunc(func() { h.part(name, s, false) })
	out := &download{w: w, control: http.NewResponseController(w), kind: s.kind}
	stop := whenGone(r.Context(), func() {
		part() // before the name is free
		p.CloseWithError(errLeft)
		out.control.SetWriteDeadline(past)
	})
	defer stop()
	_, err = p.WriteTo(out)
	part()
	if err == nil {
		out.begin()
		p.Close()
		return nil
	}
	if out.failed != nil {
		err = errLeft
	}
	p.CloseWithError(err)
	out.begin()
	tear(w)
	return nil
}

// A download is the body of an answer. Each Write leaves at once.
type download struct {
	w       http.ResponseWriter
	control *http.ResponseController
	kind    func() string // of what comes; there is something
	begun   bool
	failed  error
}

// begin sends the header, if that has not been done. From then on no status can tell that
// something went wrong.
func (d *download) begin() {
	if d.begun {
		return
	}
	d.begun = true
	d.w.Header().Set("Content-Type", d.kind())
	d.w.WriteHeader(http.StatusOK)
}

func (d *download) Write(b []byte) (int, error) {
	d.begin()
	n, err := d.w.Write(b)
	if err == nil {
		err = d.control.Flush()
	}
	d.failed = err
	return n, err
}

// forever is for a Close that delivers for as long as it takes.
const forever = 100 * 365 * 24 * time.Hour

// glance is how often it is looked whether the other side is still there.
const glance = 200 * time.Millisecond

// write serves a stream from the client to its reader. The server asks for the body with
// the first Read of it (Expect: 100-continue), and so when this is the pipe's writer.
func (h *handler) write(w http.ResponseWriter, r *http.Request, name string) error {
	open, many, err := h.opening(r.URL.Query())
	if err != nil {
		return err
	}
	if err := h.only(r, name, zpipes.ModeStream); err != nil {
		return err
	}
	s, err := h.bring(name)
	if err != nil {
		return err
	}
	p, err := open(r.Context(), name)
	if err != nil {
		h.decline(name, s, true)
		return err
	}
	defer h.part(name, s, true)
	s.say(kindOf(r.Header), many)
	control := http.NewResponseController(w)
	stop := whenGone(r.Context(), func() {
		p.CloseWithError(errLeft)
		control.SetReadDeadline(past)
	})
	defer stop()

	// A reader that leaves ends the reading of a body of which nothing comes, and a
	// connection that is closed here the waiting for a reader.
	var lost error
	var looking sync.WaitGroup
	enough := make(chan struct{})
	looking.Go(func() {
		every(glance, enough, func() bool {
			err := p.Flush()
			if errors.Is(err, io.ErrClosedPipe) || errors.Is(err, zpipes.ErrBrokerGone) {
				lost = err
				control.SetReadDeadline(past)
			}
			return err == nil
		})
	})
	looking.Go(func() {
		every(glance, enough, func() bool {
			closed := errors.Is(control.SetWriteDeadline(time.Time{}), net.ErrClosed)
			if closed {
				p.CloseWithError(errLeft)
			}
			return !closed
		})
	})
	in := &upload{Reader: r.Body}
	buf := buffers.Get().(*[128 << 10]byte)
	_, err = io.CopyBuffer(struct{ io.Writer }{p}, in, buf[:])
	buffers.Put(buf)
	close(enough)
	if err == nil {
		p.SetWriteDeadline(time.Now().Add(forever))
		err = p.Close()
	} else {
		p.CloseWithError(err)
	}
	looking.Wait()
	if lost != nil && err != nil {
		err = lost
	}
	switch {
	case err == nil:
		w.Header().Set("Content-Length", "0")
	case errors.Is(err, io.ErrClosedPipe):
		return &problem{http.StatusGone, "the reader has left before the end: " + err.Error()}
	case in.failed != nil && lost == nil:
		return &problem{http.StatusBadRequest, "the upload broke off: " + in.failed.Error()}
	}
	return err
}

// mostPatience is a BroadcastConfig's.
const mostPatience = 1000 * time.Hour

// opening says how the pipe is opened that an upload goes to: with ?broadcast, for many readers.
func (h *handler) opening(query url.Values) (open func(context.Context, string) (*zpipes.Writer, error), many bool, err error) {
	number := func(key string) int {
		n, wrong := 0, error(nil)
		if query.Has(key) {
			n, wrong = strconv.Atoi(query.Get(key))
		}
		if wrong != nil || n < 0 || n > math.MaxInt32 {
			err = &problem{http.StatusBadRequest, key + " is a number"}
		}
		return n
	}
	cfg := zpipes.BroadcastConfig{Keep: number("keep"), Readers: number("readers")}
	if err == nil && query.Has("patience") {
		if cfg.Patience, err = parseTime("patience", query.Get("patience")); err == nil && cfg.Patience == 0 {
			cfg.Patience = time.Millisecond // 0 is for ever
		}
		if cfg.Patience > mostPatience {
			err = &problem{http.StatusBadRequest, "patience is at most " + mostPatience.String()}
		}
	}
	switch many = query.Has("broadcast"); {
	case err != nil:
		return nil, false, err
	case many:
		return func(ctx context.Context, name string) (*zpipes.Writer, error) {
			return cfg.OpenBroadcast(ctx, h.client, name)
		}, true, nil
	case query.Has("keep") || query.Has("readers") || query.Has("patience"):
		return nil, false, &problem{http.StatusBadRequest, "keep, readers and patience are for ?broadcast"}
	}
	return h.client.OpenWriter, false, nil
}

// every calls look again and again until that returns false, or enough is closed.
func every(d time.Duration, enough <-chan struct{}, look func() bool) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !look() {
				return
			}
		case <-enough:
			return
		}
	}
}

// buffers are for uploads: 128 KiB take in few calls what a fast client sends. ReadFrom would ask
// for 2 KiB after each Read that did not fill it, and those of a socket seldom do.
var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// An upload is a body, and the error that it ended with.
type upload struct {
	io.Reader
	failed error
}

func (u *upload) Read(b []byte) (int, error) {
	n, err := u.Reader.Read(b)
	if err != nil && err != io.EOF {
		u.failed = err
	}
	return n, err
}
