package door

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/zpipes/zpipes"
)

// shortly is how long a GET waits for a chunk where it does not say: a broker elsewhere
// needs a moment to answer.
const shortly = 200 * time.Millisecond

// farewell is how long it may take to give a chunk back that its receiver did not get.
const farewell = 2 * time.Second

// send puts the body into a queue, as a chunk, once all of it is there.
func (h *handler) send(w http.ResponseWriter, r *http.Request, name string) error {
	if r.ContentLength > h.cfg.MaxChunk {
		return &http.MaxBytesError{Limit: h.cfg.MaxChunk}
	}
	if r.Header.Get("Expect") != "" { // the body is worth some words
		if err := h.only(r, name, zpipes.ModeQueue); err != nil {
			return err
		}
	}
	chunk, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxChunk))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return err
		}
		return &problem{http.StatusBadRequest, "the upload broke off: " + err.Error()}
	}
	q, err := h.client.OpenQueue(r.Context(), name)
	if err != nil {
		return err
	}
	defer q.Close()
	if err := q.Send(r.Context(), chunk); err != nil {
		return err
	}
	if err := q.Flush(r.Context()); err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	return nil
}

// receive answers with a chunk of a queue, or one after the other.
func (h *handler) receive(w http.ResponseWriter, r *http.Request, name string) error {
	query := r.URL.Query()
	follow := query.Has("follow")
	wait, err := waiting(query, follow)
	if err != nil {
		return err
	}
	if follow && !r.ProtoAtLeast(1, 1) {
		return &problem{http.StatusHTTPVersionNotSupported, "HTTP/1.0 can't tell where what follows ends"}
	}
	q, err := h.client.OpenQueue(r.Context(), name)
	if err != nil {
		return err
	}
	defer q.Close()
	control := http.NewResponseController(w)
	stop := whenGone(r.Context(), func() { control.SetWriteDeadline(past) })
	defer stop()
	w.Header().Set("Content-Type", plainType)
	if !follow {
		chunk, err := next(r.Context(), q, wait)
		if chunk == nil {
			if err == nil {
				w.WriteHeader(http.StatusNoContent)
			}
			return err
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(chunk)))
		if r.Context().Err() != nil || give(w, control, chunk) != nil {
			h.putBack(q, name, chunk)
		}
		return nil
	}
	end := byte('\n')
	if query.Has("null") {
		end = 0
	}
	out := &download{w: w, control: control, kind: func() string { return plainType }}
	out.begin()
	for control.Flush() == nil {
		chunk, err := next(r.Context(), q, wait)
		if err != nil {
			tear(w)
		}
		if chunk == nil {
			return nil
		}
		if r.Context().Err() != nil || give(w, control, append(chunk[:len(chunk):len(chunk)], end)) != nil {
			h.putBack(q, name, chunk)
			break
		}
	}
	tear(w)
	return nil
}

// waiting is how long the request waits for a chunk: ?wait=10s, or ?wait=10.
func waiting(query url.Values, follow bool) (time.Duration, error) {
	switch {
	case query.Has("wait"):
	case follow:
		return forever, nil
	default:
		return shortly, nil
	}
	d, err := parseTime("wait", query.Get("wait"))
	return max(d, time.Millisecond), err // the broker has to be asked
}

// parseTime takes a time: 10s, or 10.
func parseTime(key, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, wrong := strconv.ParseUint(text, 10, 31); wrong == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, &problem{http.StatusBadRequest, key + " is a time such as 10s, or a number of seconds"}
	}
	return d, nil
}

// next takes a chunk; nil if none has come in time.
func next(ctx context.Context, q *zpipes.Queue, wait time.Duration) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	chunk, err := q.Receive(limited)
	switch {
	case err == nil && chunk == nil:
		return []byte{}, nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return nil, nil
	}
	return chunk, err
}

func give(w io.Writer, control *http.ResponseController, chunk []byte) error {
	if _, err := w.Write(chunk); err != nil {
		return err
	}
	return control.Flush()
}

// putBack is for a chunk whose receiver has gone: it is for another one.
func (h *handler) putBack(q *zpipes.Queue, name string, chunk []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	err := q.Send(ctx, chunk)
	if err == nil {
		err = q.Flush(ctx)
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		h.cfg.Logger.Error("a chunk is lost: its receiver has gone, and the queue does not take it back", "queue", name, "bytes", len(chunk), "error", err)
	}
}
