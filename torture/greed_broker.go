package main

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/zpipes/zpipes"
)

// A brokerState is what the broker's process says of itself, and a state that and what
// the system says of it.
type brokerState struct {
	Running   int64 // goroutines
	Endpoints []string
	Stats     zpipes.BrokerStats
}

type state struct {
	usage
	brokerState
}

// look has the broker's process give back what memory it can, and says what it has.
func (f *feast) look() (s state, err error) {
	got, err := f.ask(f.broker, errand{Do: "look"})
	if err != nil {
		return s, err
	}
	s.brokerState = got.Broker
	s.usage, err = f.broker.process().usage()
	s.Goroutines = got.Broker.Running
	return s, err
}

// clientTimeout is short, so that one need not wait long until the broker has forgotten
// who left without a word.
const clientTimeout = time.Second

// quietTimeout is for trials in which clients of the base protocol wait for each other, on
// a busy machine too. Who leaves is forgotten before, since its connection is.
const quietTimeout = settling / 2

func init() {
	errands["serve"] = func(h *host, e errand) (t tally, err error) {
		cfg := zpipes.BrokerConfig{
			ClientTimeout: cmp.Or(e.Timeout, clientTimeout),
			MaxPipes:      int(e.Count),
			PerClient:     zpipes.Limits{Pipes: int(e.Count), Pending: e.Size},
			PerUser:       zpipes.Limits{Pipes: int(e.Count)},
			Endpoints:     []string{"ipc://@/zpipes/" + e.Pipe, "tcp://127.0.0.1:*"},
		}
		switch e.Kind {
		case "shared context":
			cfg.Context, err = rawContext()
		case "few descriptors":
			cfg.AllowUIDs = []int{otherUser}
			err = limitDescriptors(doorDescriptors)
		}
		if err == nil {
			h.broker, err = cfg.NewBroker(e.Pipe)
		}
		if err == nil {
			t.Broker.Endpoints = h.broker.Endpoints()
		}
		return t, err
	}
	errands["starve"] = func(h *host, e errand) (t tally, err error) {
		h.feed = starve(int(e.Count))
		return t, nil
	}
	errands["feed up"] = func(h *host, e errand) (t tally, err error) {
		h.feed()
		return t, nil
	}
	errands["tidy"] = func(h *host, e errand) (t tally, err error) {
		runtime.GC() // what is in a sync.Pool stays through one collection
		debug.FreeOSMemory()
		return tally{Times: int64(runtime.NumGoroutine())}, nil
	}
	errands["look"] = func(h *host, e errand) (t tally, err error) {
		runtime.GC()
		debug.FreeOSMemory()
		t.Broker.Running = int64(runtime.NumGoroutine())
		t.Broker.Stats = h.broker.Stats()
		return t, nil
	}
}

// A host is what a guest's process keeps between its errands.
type host struct {
	broker *zpipes.Broker // of the broker's process
	walks  []*walk        // of the neighbour's
	crew   *crew          // of readers'
	rings  *partInRings   // of who uses these
	feed   func()         // gives back what starve has taken
	kept   []any          // what is not to be closed, or collected
}
