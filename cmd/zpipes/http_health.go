package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes"
)

const (
	// pingTime is how long the broker has to answer at each of its endpoints.
	pingTime = 2 * time.Second
	// healthLasts is how long a verdict stays good, so that asking for it is no load.
	healthLasts = time.Second
	// healthEvery is how often it is looked after where nobody asks.
	healthEvery = 5 * time.Second
)

// health is whether the broker answers: directly, which tells whether it is shutting
// down, and at each of its endpoints, as other programs need it.
type health struct {
	direct    *zpipes.Client
	endpoints []string
	log       *slog.Logger
	ctx       context.Context // until the page ends

	asking sync.Mutex // one question at a time
	latest atomic.Pointer[verdict]
}

type verdict struct {
	at  time.Time
	err error // nil: it is healthy
}

// check asks, or returns a verdict that is new. It goes on asking if the one who wants to
// know has gone: others wait for the same answer.
func (h *health) check() error {
	h.asking.Lock()
	defer h.asking.Unlock()
	last := h.latest.Load()
	if last != nil && time.Since(last.at) < healthLasts {
		return last.err
	}
	err := h.ask(h.ctx)
	if h.ctx.Err() != nil {
		return err // the page ends; it says nothing about the broker
	}
	switch well := last == nil || last.err == nil; {
	case well && err != nil:
		h.log.Warn("not healthy", "error", err)
	case !well && err == nil:
		h.log.Info("healthy again")
	}
	h.latest.Store(&verdict{time.Now(), err})
	return err
}

// watch keeps the verdict new.
func (h *health) watch() {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	defer h.direct.Close()
	for {
		select {
		case <-tick.C:
			h.check()
		case <-h.ctx.Done():
			return
		}
	}
}

// ailment is what the latest verdict says is wrong.
func (h *health) ailment() error {
	if v := h.latest.Load(); v != nil {
		return v.err
	}
	return nil
}

func (h *health) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	if _, err := h.direct.Ping(ctx); err != nil {
		return err
	}
	errs := make([]error, len(h.endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range h.endpoints {
		asked.Go(func() { errs[i] = pingAt(ctx, endpoint) })
	}
	asked.Wait()
	return errors.Join(errs...)
}

// pingAt connects anew, since the way there may be gone.
func pingAt(ctx context.Context, endpoint string) error {
	if path, ipc := strings.CutPrefix(endpoint, "ipc://"); ipc && tellsPeers {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return err
		}
		_, pid, ok := unixPeer(c)
		c.Close()
		if ok && pid != os.Getpid() {
			return fmt.Errorf("at %s there is another process, %d", endpoint, pid)
		}
	}
	c, err := zpipes.ClientConfig{Timeout: pingTime}.NewClient(endpoint)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ping(ctx)
	return err
}
