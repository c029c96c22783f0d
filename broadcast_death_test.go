//go:build unix && !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	parts["caster"] = playCaster
	parts["listener"] = playListener
}

// playCaster writes and flushes a broadcast, for which Count readers have to come, and leaves
// it open.
func playCaster(task childTask) int {
	c, err := NewClient(task.Broker)
	if err == nil {
		var w *Writer
		if w, err = (BroadcastConfig{Readers: task.Count}).OpenBroadcast(context.Background(), c, task.Pipe); err == nil {
			if _, err = w.WriteString(task.Data); err == nil {
				err = w.Flush()
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// playListener reads to the end, and says what came of it.
func playListener(task childTask) int {
	// It has not to be taken for dead while it stands still.
	c, err := ClientConfig{Heartbeat: 10 * time.Second}.NewClient(task.Broker)
	var r *Reader
	if err == nil {
		r, err = c.OpenReader(context.Background(), task.Pipe)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	n, err := io.Copy(io.Discard, r)
	var missed *MissedError
	if !errors.As(err, &missed) {
		missed = new(MissedError)
	}
	fmt.Println(n, missed.Bytes, errors.Is(err, ErrTooSlow))
	return 0
}

// overDeaths is overBroadcasts where another process can take part.
func overDeaths(t *testing.T, cfg BrokerConfig, test func(r *rig, s syscall.Signal)) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		overBroadcasts(t, cfg, ClientConfig{}, func(r *rig) {
			if strings.HasPrefix(r.broker, "inproc://") {
				r.Skip("somebody is another process")
			}
			test(r, signal)
		})
	}
}

// The readers of a writer that dies get what it had confirmed, and no clean end.
func TestBroadcastDeathOfTheWriter(t *testing.T) {
	t.Parallel()
	overDeaths(t, BrokerConfig{}, func(r *rig, s syscall.Signal) {
		const readers = 3
		w := startChild(r, childTask{Part: "caster", Broker: r.broker, Pipe: "p", Data: "acknowledged", Count: readers})
		var all []*Reader
		r.awaitBroadcast("p")
		for range readers {
			all = append(all, r.reader("p"))
		}
		r.gets(all[0], "ack")
		w.ready()
		w.signal(s)
		died := time.Now()
		r.getsRest(all[0], "nowledged", io.ErrUnexpectedEOF)
		for _, rd := range all[1:] {
			r.getsRest(rd, "acknowledged", io.ErrUnexpectedEOF)
		}
		if took := time.Since(died); took > dead+soon {
			r.Errorf("%v was noticed after %v", s, took)
		}
		r.broadcast("p", BroadcastConfig{}) // the name is free
	})
}

// A reader that dies holds the writer up until that is known, and the others miss nothing.
func TestBroadcastDeathOfAReader(t *testing.T) {
	t.Parallel()
	overDeaths(t, BrokerConfig{MaxPending: 64 << 10}, func(r *rig, s syscall.Signal) {
		const size = 4 << 20
		w := r.broadcast("p", BroadcastConfig{Readers: 2})
		dies := startChild(r, childTask{Part: "reader", Broker: r.broker, Pipe: "p"}).ready()
		rd := r.reader("p")
		reading := inBackground(func() (int, error) {
			n, err := io.Copy(io.Discard, rd)
			return int(n), err
		})
		writing := r.begin(func() (int, error) { return w.Write(make([]byte, size)) })
		dies.signal(s)
		if got := r.within(dead+soon, writing); got.err != nil {
			r.Fatalf("Write: %v", got.err)
		}
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		if got := r.within(soon, reading); got.n != size || got.err != nil {
			r.Errorf("the other one got %d bytes of %d, %v", got.n, size, got.err)
		}
	})
}

// A process that stands still holds the writer up for the patience, and when it goes on
// it gets what there was for it, and learns what it has missed.
func TestBroadcastPatienceWithAProcess(t *testing.T) {
	t.Parallel()
	overDeaths(t, BrokerConfig{MaxPending: 64 << 10}, func(r *rig, s syscall.Signal) {
		if s == syscall.SIGKILL {
			return
		}
		const size, patience = 4 << 20, 2 * time.Second
		w := r.broadcast("p", BroadcastConfig{Readers: 1, Patience: patience})
		stands := startChild(r, childTask{Part: "listener", Broker: r.broker, Pipe: "p"}).ready()
		stands.pause()
		goes := r.reader("p")
		reading := inBackground(func() (int, error) {
			n, err := io.Copy(io.Discard, goes)
			return int(n), err
		})
		began := time.Now()
		if _, err := w.Write(make([]byte, size)); err != nil {
			r.Fatal(err)
		}
		if took := time.Since(began); took < patience || took > patience+soon {
			r.Errorf("the writer was held up for %v", took)
		}
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		if got := r.within(soon, reading); got.n != size || got.err != nil {
			r.Errorf("the one that goes on got %d bytes, %v", got.n, got.err)
		}
		stands.signal(syscall.SIGCONT)
		var n, missed int
		var slow bool
		said := stands.line()
		if _, err := fmt.Sscan(said, &n, &missed, &slow); err != nil || !slow || missed <= 0 || n+missed > size {
			r.Errorf("the one that stood still says %q: bytes, missed, too slow", said)
		}
	})
}
