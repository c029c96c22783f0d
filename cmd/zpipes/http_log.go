package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// A sparingHandler passes on a few lines of log at once and then one in a while, with
// how many it has left out: they are caused by anybody who connects.
type sparingHandler struct {
	slog.Handler
	*allowance
}

type allowance struct {
	lines   *rate.Limiter
	leftOut atomic.Int64
}

func sparing(log *slog.Logger) *slog.Logger {
	a := &allowance{lines: rate.NewLimiter(0.1, 10)}
	return slog.New(sparingHandler{log.Handler(), a})
}

func (h sparingHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.lines.Allow() {
		h.leftOut.Add(1)
		return nil
	}
	if n := h.leftOut.Swap(0); n > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("left_out", n))
	}
	return h.Handler.Handle(ctx, r)
}

func (h sparingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sparingHandler{h.Handler.WithAttrs(attrs), h.allowance}
}

func (h sparingHandler) WithGroup(name string) slog.Handler {
	return sparingHandler{h.Handler.WithGroup(name), h.allowance}
}
