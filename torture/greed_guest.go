package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// errands are what the process of a guest can be asked for, in files of their own.
var errands = map[string]func(*host, errand) (tally, error){}

func init() { parts["greed"] = runErrands }

func runErrands(task) error {
	in := json.NewDecoder(os.Stdin)
	for h := new(host); ; {
		var e errand
		if err := in.Decode(&e); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		run := errands[e.Do]
		if run == nil {
			return fmt.Errorf("there is no errand %q", e.Do)
		}
		t, err := run(h, e)
		if err != nil {
			t.Error = err.Error()
		}
		if err := tell(t); err != nil {
			return err
		}
	}
}

// A walk is the neighbour's: to and fro all the time.
type walk struct {
	mu    sync.Mutex // guards what follows
	began time.Time  // the round trip that is not over
	lap   laps
	err   error
}

type laps []time.Duration

// A lap says how long round trips took, by the slower way.
type lap struct {
	Count          int
	P50, P99, Most time.Duration
}

func (l lap) or(m lap) lap {
	return lap{l.Count + m.Count, max(l.P50, m.P50), max(l.P99, m.P99), max(l.Most, m.Most)}
}

// client is one of the library's that has patience with a slow machine.
func client(endpoint string) (*zpipes.Client, error) {
	return zpipes.ClientConfig{Timeout: errandTime / 2, Heartbeat: hanging}.NewClient(endpoint)
}

// mortalClient is client for a process that is going to be killed, of which the broker learns
// within two seconds.
func mortalClient(endpoint string) (*zpipes.Client, error) {
	return zpipes.ClientConfig{Timeout: errandTime / 2}.NewClient(endpoint)
}

const (
	walkEvery = 3 * time.Millisecond
	walkSize  = 64

	neighbourEnds = 4
)

func init() {
	errands["neighbour"] = func(h *host, e errand) (t tally, err error) {
		c, err := client(e.Endpoint)
		if err != nil {
			return t, err
		}
		name := "neighbour at " + e.Endpoint
		r, err := c.OpenReader(background, name)
		if err != nil {
			return t, err
		}
		w, err := c.OpenWriter(background, name)
		if err != nil {
			return t, err
		}
		k := new(walk)
		h.walks = append(h.walks, k)
		go k.run(r, w)
		return t, nil
	}
	errands["lap"] = func(h *host, e errand) (t tally, err error) {
		least := math.MaxInt
		for _, k := range h.walks {
			l, failed := k.done()
			t.Lap, err = t.Lap.or(l), errors.Join(err, failed)
			least = min(least, l.Count)
		}
		t.Lap.Count = least
		return t, err
	}
}

func (k *walk) run(r *zpipes.Reader, w *zpipes.Writer) {
	tick := time.NewTicker(walkEvery)
	defer tick.Stop()
	for b := make([]byte, walkSize); ; <-tick.C {
		began := time.Now()
		k.mu.Lock()
		k.began = began
		k.mu.Unlock()
		err := errors.Join(r.SetReadDeadline(began.Add(2*hanging)), w.SetWriteDeadline(began.Add(2*hanging)))
		if err == nil {
			_, err = w.Write(b)
		}
		if err == nil {
			err = w.Flush()
		}
		if err == nil {
			_, err = io.ReadFull(r, b)
		}
		k.mu.Lock()
		k.lap, k.began = append(k.lap, time.Since(began)), time.Time{}
		if err != nil {
			k.err = fmt.Errorf("the neighbour: %w", err)
		}
		k.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// done ends a lap and begins the next.
func (k *walk) done() (lap, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	took := k.lap
	k.lap = nil
	if !k.began.IsZero() {
		took = append(took, time.Since(k.began))
	}
	if k.err != nil || len(took) == 0 {
		return lap{}, k.err
	}
	return took.lap(), nil
}

// lap is of one at least.
func (l laps) lap() lap {
	slices.Sort(l)
	at := func(q float64) time.Duration { return l[int(math.Ceil(q*float64(len(l))))-1] }
	return lap{len(l), at(0.5), at(0.99), l[len(l)-1]}
}
