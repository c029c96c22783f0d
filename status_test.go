//go:build !core

package zpipes

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestSortPipes(t *testing.T) {
	for n := range 50 {
		pipes := make([]PipeInfo, n)
		for i := range pipes {
			name := strconv.Itoa(rand.IntN(n)) // now and then the same one: the names of those that went meanwhile are free
			pipes[i] = PipeInfo{Name: name, ReaderAt: name + "@there", BytesIn: int64(i)}
		}
		sortPipes(pipes)
		seen := make(map[int64]bool)
		for i, p := range pipes {
			if seen[p.BytesIn] = true; p.ReaderAt != p.Name+"@there" || i > 0 && pipes[i-1].Name > p.Name {
				t.Fatalf("at %d of %d there is %+v", i, n, p)
			}
		}
		if len(seen) != n {
			t.Fatalf("%d of %d are left", len(seen), n)
		}
	}
}

func TestStatusFromEverywhere(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		w := r.writer("unread")
		if _, err := w.Write([]byte("some bytes")); err != nil {
			r.Fatal(err)
		}
		r.send(r.queue("work"), "a", "bc")
		r.reader("waiting")
		var s Status
		eventually(r, "all is there", func() bool {
			var err error
			if s, err = r.client.Status(r.Context()); err != nil {
				r.Fatal(err)
			}
			return len(s.Pipes) == 3 && s.Pipes[0].Writes && s.Pipes[2].Chunks == 2
		})
		if s.Name == "" || len(s.Endpoints) == 0 || s.Uptime <= 0 || s.Version == "" || (s.ZeroMQ != "") != haveZeroMQ || s.Go == "" {
			r.Errorf("the status is %+v", s)
		}
		if s.Stats.Pipes != 3 || s.Stats.Opened < 3 || len(s.Pipes) != 3 {
			r.Fatalf("stats %+v, pipes %+v", s.Stats, s.Pipes)
		}
		unread, waiting, work := s.Pipes[0], s.Pipes[1], s.Pipes[2]
		if unread.Name != "unread" || unread.Mode != ModeStream || !unread.Writer || unread.Reader || !unread.Writes {
			r.Errorf("the writer's pipe: %+v", unread)
		}
		if waiting.Name != "waiting" || waiting.Writer || !waiting.Reader {
			r.Errorf("the reader's pipe: %+v", waiting)
		}
		if work.Name != "work" || work.Mode != ModeQueue || work.Users != 1 || work.Chunks != 2 || work.Queued != 3 {
			r.Errorf("the queue: %+v", work)
		}
	})
}

func TestStatusOfOnePipe(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if _, err := r.client.Stat(r.Context(), "p"); !errors.Is(err, fs.ErrNotExist) {
			r.Error("of nothing:", err)
		}
		if _, err := r.client.Stat(r.Context(), ""); !errors.Is(err, ErrBadName) {
			r.Error("of no name:", err)
		}
		rd := r.reader("p")
		r.send(r.queue("q\xff"), "a", "bc")
		if p, err := r.client.Stat(r.Context(), "p"); err != nil || p.Mode != ModeStream || !p.Reader || p.Writer {
			r.Error(p, err)
		}
		if q, err := r.client.Stat(r.Context(), "q\xff"); err != nil || q.Mode != ModeQueue || q.Chunks != 2 {
			r.Error(q, err)
		}
		rd.Close()
		if _, err := r.client.Stat(r.Context(), "p"); !errors.Is(err, fs.ErrNotExist) {
			r.Error("of what is over:", err)
		}
	})
}

// A name is any bytes: the status tells which, wherever it comes from.
func TestStatusOfNamesThatAreNotUTF8(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		names := []string{"cafe", "caf\u00e9", "caf\xe9", "caf\xe8", "caf\ufffd", "\xff\x01\n"}
		slices.Sort(names)
		for i, name := range names {
			if i%2 == 0 {
				r.reader(name)
			} else {
				r.queue(name)
			}
		}
		s, err := r.client.Status(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		var got []string
		for _, p := range s.Pipes {
			got = append(got, p.Name)
			if exact, err := base64.StdEncoding.DecodeString(p.NameBase64); err != nil || (p.NameBase64 != "") == utf8.ValidString(p.Name) ||
				len(exact) > 0 && string(exact) != p.Name {
				r.Errorf("%q is %q as base64", p.Name, exact)
			}
		}
		if !slices.Equal(got, names) {
			r.Errorf("pipes %q, want %q", got, names)
		}
	})
}

func TestStatusOfManyPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c := b.Client()
	defer c.Close()
	const pipes = 5000
	for i := range pipes {
		if _, err := c.OpenReader(t.Context(), string(noise(uint64(i), 100))+"x"); err != nil && !errors.Is(err, ErrBadName) {
			t.Fatal(err)
		}
	}
	far, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	s, err := far.Status(t.Context())
	if err != nil || len(s.Pipes) != s.Stats.Pipes || len(s.Pipes) < pipes/2 {
		t.Errorf("%d pipes of %d, %v", len(s.Pipes), s.Stats.Pipes, err)
	}
}

func TestStatusForManyAtOnce(t *testing.T) {
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.reader("p")
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				for range 10 {
					if s, err := r.client.Status(r.Context()); err != nil || len(s.Pipes) != 1 {
						r.Errorf("%d pipes, %v", len(s.Pipes), err)
					}
				}
			})
		}
		asking.Wait()
	})
}
