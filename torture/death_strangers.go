package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// Strangers are raw clients whose broker dies under them. Their sockets connect again
// by themselves, and deliver what they still have to the broker that comes next: WRITEs
// and READs of pipes that it does not know, but whose names are in use there, and opens
// by a client that it has not agreed with.
type strangers struct {
	stop    chan struct{}
	all     sync.WaitGroup
	closing sync.Once

	mu      sync.Mutex // guards refused
	refused int64      // requests that were answered INVALID
}

// strangersPipes are those that they use.
var strangersPipes = []string{"raw-old", "raw-agreed", "raw-read", "raw-opens"}

func newStrangers() *strangers { return &strangers{stop: make(chan struct{})} }

// come has them open their pipes and begin.
func (s *strangers) come(ctx context.Context, u *customers, c *cycle) error {
	for _, name := range strangersPipes {
		raw, err := rawConfig{returns: true}.connect(u.ipc())
		if err != nil {
			return err
		}
		requests, err := introduce(raw, name)
		if err == nil && name != "raw-opens" {
			err = s.otherEnd(ctx, u.client(c.rand), name)
		}
		if err != nil {
			raw.close()
			return fmt.Errorf("%q: %w", name, err)
		}
		s.all.Go(func() { s.flood(raw, requests) })
	}
	return nil
}

// introduce opens a stranger's pipe, and returns what it will ask for.
func introduce(raw *rawClient, name string) (requests [][][]byte, err error) {
	if name == "raw-agreed" || name == "raw-opens" {
		if _, err := raw.ask(idPingOK, hello(time.Minute)); err != nil {
			return nil, err
		}
		raw.extended = true
	}
	write := raw.write(1, []byte("stale stale stale"))
	switch name {
	case "raw-opens":
		return [][][]byte{raw.output(1, name), write, raw.closing(1)}, nil
	case "raw-read":
		_, err = raw.ask(idInputOK, raw.input(1, name, modeBytes))
		return [][][]byte{raw.read(1, 1, 0)}, err
	}
	_, err = raw.ask(idOutputOK, raw.output(1, name))
	return [][][]byte{write}, err
}

// otherEnd opens the other end of a stranger's pipe, and uses it until the broker dies.
func (s *strangers) otherEnd(ctx context.Context, client *zpipes.Client, name string) error {
	if name == "raw-read" {
		w, err := client.OpenWriter(ctx, name)
		if err != nil {
			return err
		}
		s.all.Go(func() {
			defer w.Close()
			for {
				if _, err := w.WriteString("not stale"); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		return nil
	}
	r, err := client.OpenReader(ctx, name)
	if err != nil {
		return err
	}
	s.all.Go(func() {
		defer r.Close()
		io.Copy(io.Discard, r)
	})
	return nil
}

// flood sends requests without ever waiting for an answer.
func (s *strangers) flood(raw *rawClient, requests [][][]byte) {
	defer raw.close()
	refused := int64(0)
	for !closed(s.stop) {
		for i := range 20 * len(requests) {
			raw.put(requests[i%len(requests)])
		}
		for got, _ := raw.get(); got != nil; got, _ = raw.get() {
			if got.id() == idInvalid {
				refused++
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused += refused
}

// close returns how many stale requests the brokers have refused.
func (s *strangers) close() int64 {
	s.closing.Do(func() { close(s.stop) })
	s.all.Wait()
	return s.refused
}
