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
		raw, err := newRawClient("ipc://@/zpipes/"+u.broker, "")
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
func introduce(raw *rawClient, name string) (requests [][]byte, err error) {
	agreed := name == "raw-agreed" || name == "raw-opens"
	if agreed {
		raw.send(hello(time.Minute))
		if err := raw.expect(idPingOK); err != nil {
			return nil, err
		}
	}
	write := writeFrame([]byte("stale stale stale"), agreed)
	switch name {
	case "raw-opens":
		return [][]byte{openFrame(idOutput, name, agreed), write, closeFrame()}, nil
	case "raw-read":
		raw.send(openFrame(idInput, name, agreed))
		return [][]byte{readFrame(1, agreed)}, raw.expect(idInputOK)
	}
	raw.send(openFrame(idOutput, name, agreed))
	return [][]byte{write}, raw.expect(idOutputOK)
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
func (s *strangers) flood(raw *rawClient, requests [][]byte) {
	defer raw.close()
	refused := int64(0)
	for {
		select {
		case <-s.stop:
			s.mu.Lock()
			s.refused += refused
			s.mu.Unlock()
			return
		default:
		}
		for i := range 20 * len(requests) {
			raw.send(requests[i%len(requests)])
		}
		for got := raw.receive(0); got != nil; got = raw.receive(0) {
			if len(got[0]) > 2 && got[0][2] == idInvalid {
				refused++
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// close returns how many stale requests the brokers have refused.
func (s *strangers) close() int64 {
	s.closing.Do(func() { close(s.stop) })
	s.all.Wait()
	return s.refused
}
