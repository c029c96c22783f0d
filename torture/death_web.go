package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// web kills or stops an HTTP server or client, while this process makes requests of it or
// answers them.
func (g *graveyard) web(ctx context.Context, h *house, c *cycle, s syscall.Signal, f fate) error {
	f.Roles = "h"
	name, role, start := c.name("web"), "web clients", h.answer
	if f.Listens {
		role, start = "web servers", h.browse
	}
	dying := make(chan struct{})
	learned, err := start(ctx, name, c.fork(), dying)
	if err != nil {
		return err
	}
	v, err := startVictim("web", h.at(f), name, c.rand.Uint64(), f)
	if err != nil {
		return err
	}
	defer v.kill()
	died, err := v.strike(s, c.rand)
	close(dying)
	if err == nil {
		err = h.hears(ctx, v)
	}
	if err != nil {
		return err
	}
	at, err := learned()
	v.mu.Lock()
	l := v.ledgers[0]
	if err == nil && l.wrong != "" {
		err = errors.New("the victim: " + l.wrong)
	}
	if err == nil && s == syscall.SIGKILL {
		err = g.judgeDead(l, f)
	}
	g.died(role, l.moment(), 0)
	v.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%q, one of %s: %w", name, role, err)
	}
	if at.After(died) {
		g.took(f.way(), at.Sub(died))
	}
	v.kill()
	return c.anotherCall(ctx, h, name, nil)
}

// browse makes requests of a server until one fails. The result waits until it has, and says
// when that was.
func (h *house) browse(ctx context.Context, name string, r *rand.Rand, dying <-chan struct{}) (func() (time.Time, error), error) {
	web := browser(h.client(r))
	type end struct {
		at  time.Time
		err error
	}
	ended := make(chan end, 1)
	go func() {
		for {
			err := visit(ctx, web, name, r)
			if errors.Is(err, zpipes.ErrNoListener) && !closed(dying) { // it does not listen yet
				time.Sleep(time.Millisecond)
			} else if err != nil {
				ended <- end{time.Now(), err}
				return
			}
		}
	}()
	return func() (time.Time, error) {
		defer web.CloseIdleConnections()
		e, err := within(notice, "a request of a server that is dead", func() (end, error) { return <-ended, nil })
		if errors.As(e.err, new(wrongBytes)) {
			err = e.err
		}
		return e.at, err
	}, nil
}

// answer has a server answer requests. The result waits until it has no connection any more,
// and says since when.
func (h *house) answer(ctx context.Context, name string, r *rand.Rand, _ <-chan struct{}) (func() (time.Time, error), error) {
	l, err := h.client(r).Listen(ctx, name)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards all below
	var wrong error
	var last time.Time
	open := 0
	s := &http.Server{
		Handler: site{func(err error) {
			mu.Lock()
			defer mu.Unlock()
			wrong = err
		}},
		ConnState: func(_ net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			switch state {
			case http.StateNew:
				open++
			case http.StateClosed:
				open--
				last = time.Now()
			}
		},
	}
	go s.Serve(l)
	return func() (time.Time, error) {
		defer s.Close()
		err := eventually(notice, "a server of a client that is dead", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return open == 0 && h.pipe(name).Connections == 0
		})
		mu.Lock()
		defer mu.Unlock()
		return last, errors.Join(err, wrong)
	}, nil
}

// post sends so much to a server by each way, and gets it back; nobody dies.
func (h *house) post(ctx context.Context, size int64) (string, error) {
	learned, err := h.answer(ctx, "post", rand.New(rand.NewPCG(1, 2)), nil)
	if err != nil {
		return "", err
	}
	var found []string
	for i, way := range []string{"directly", "over ipc", "near"} {
		web := browser(h.clients[i])
		began := time.Now()
		if err := post(ctx, web, "post", size, uint64(i)); err != nil {
			return "", fmt.Errorf("a POST %s: %w", way, err)
		}
		web.CloseIdleConnections()
		found = append(found, fmt.Sprintf("%s %.0f MB/s", way, 2*float64(size)/1e6/time.Since(began).Seconds()))
	}
	_, err = learned()
	return fmt.Sprintf("POSTs of %s there and back: %s", mebibytes(size), strings.Join(found, ", ")), err
}
