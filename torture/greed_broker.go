package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zpipes/zpipes"
)

// A brokerState is what the broker's process says of itself, and a state that and what
// the system says of it.
type brokerState struct {
	Endpoints  []string
	Goroutines int64
	Stats      zpipes.BrokerStats
}

type state struct {
	brokerState
	Resident, Threads, Descriptors int64
}

// look has the broker's process give back what memory it can, and says what it has.
func (f *feast) look() (s state, err error) {
	got, err := f.ask(f.broker, errand{Do: "look"})
	if err != nil {
		return s, err
	}
	s.brokerState = got.Broker
	if s.Resident, err = f.broker.status("VmRSS"); err != nil {
		return s, err
	}
	if s.Threads, err = f.broker.status("Threads"); err != nil {
		return s, err
	}
	entries, err := os.ReadDir(f.broker.proc("fd"))
	s.Descriptors = int64(len(entries))
	return s, err
}

func (g *guest) proc(name string) string {
	return fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, name)
}

// status returns a field of /proc/PID/status, in bytes where it is a size.
func (g *guest) status(field string) (int64, error) {
	text, err := os.ReadFile(g.proc("status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	line, _, _ := strings.Cut(rest, "\n")
	var n int64
	var unit string
	if fmt.Sscan(line, &n, &unit); unit == "kB" {
		n <<= 10
	}
	return n, nil
}

// peak is the most memory that was resident since forgetPeak.
func (g *guest) peak() (int64, error) { return g.status("VmHWM") }
func (g *guest) forgetPeak() error    { return os.WriteFile(g.proc("clear_refs"), []byte("5"), 0) }

// clientTimeout is short, so that one need not wait long until the broker has forgotten
// who left without a word.
const clientTimeout = time.Second

// quietTimeout is for trials in which clients of the old protocol wait for each other.
func (b *bench) quietTimeout() time.Duration {
	return max(2*clientTimeout, time.Duration(b.size(int64(6*time.Second))))
}

func init() {
	errands["serve"] = func(h *host, e errand) (t tally, err error) {
		cfg := zpipes.BrokerConfig{
			ClientTimeout: cmp.Or(e.Timeout, clientTimeout),
			MaxPipes:      int(e.Count),
			Endpoints:     []string{"ipc://@/zpipes/" + e.Pipe, "tcp://127.0.0.1:*"},
		}
		if e.Kind == "shared context" {
			cfg.Context, err = h.context()
		}
		if err == nil {
			h.broker, err = cfg.NewBroker(e.Pipe)
		}
		if err == nil {
			t.Broker.Endpoints = h.broker.Endpoints()
		}
		return t, err
	}
	errands["look"] = func(h *host, e errand) (t tally, err error) {
		runtime.GC()
		debug.FreeOSMemory()
		t.Broker.Goroutines = int64(runtime.NumGoroutine())
		t.Broker.Stats = h.broker.Stats()
		return t, nil
	}
}

// A host is what a guest's process keeps between its errands.
type host struct {
	broker *zpipes.Broker // of the broker's process
	walk   *walk          // of the neighbour's
	crew   *crew          // of readers'
	zmq    *zmq4.Context
	kept   []any // what is not to be closed, or collected
}

// context is the process's own, for bare clients.
func (h *host) context() (*zmq4.Context, error) {
	if h.zmq != nil {
		return h.zmq, nil
	}
	ctx, err := zmq4.NewContext()
	if err == nil {
		err = ctx.SetMaxSockets(8192)
	}
	h.zmq = ctx
	return ctx, err
}
