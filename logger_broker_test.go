//go:build cgo && !core

package zpipes

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// nonsense sends so many frames that are none, and waits until they were seen.
func nonsense(t *testing.T, b *Broker, n int64) {
	t.Helper()
	s := wireSocket(t, b.Endpoints()[1], "")
	before := b.Stats().Violations
	for range n {
		wireSend(s, []byte("nonsense"))
	}
	eventuallyWithin(t, 4*soon, fmt.Sprintf("%d violations are seen", n), func() bool { return b.Stats().Violations >= before+n })
}

func TestLoggerThatHangs(t *testing.T) {
	before := goleak.IgnoreCurrent()
	hangs := make(chan struct{})
	log := slog.New(handlerFunc(func(slog.Record) { <-hangs }))
	b, err := BrokerConfig{Logger: log}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ClientConfig{Logger: log}.NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	nonsense(t, b, 2*maxLines)
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Client().OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // so that Close has nothing to tell
		t.Error(err)
	}
	for _, end := range []io.Closer{c, b} {
		if got := (&rig{T: t}).within(soon, inBackground(func() (int, error) { return 0, end.Close() })); got.err != nil {
			t.Errorf("%T: %v", end, got.err)
		}
	}
	close(hangs)
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestLoggerInAFlood(t *testing.T) {
	var lines, told int64
	log := slog.New(handlerFunc(func(r slog.Record) {
		switch r.Message {
		case "protocol violation":
			lines++
		case "lines left out":
			r.Attrs(func(a slog.Attr) bool {
				if a.Key == "count" {
					told += a.Value.Int64()
				}
				return true
			})
		}
	}))
	b := startBroker(t, BrokerConfig{Logger: log})
	const frames = 900 // libzmq holds 1000 back
	began := time.Now()
	nonsense(t, b, frames)
	took := time.Since(began)
	b.Close()
	if most := lineBurst + int64(took/lineEvery) + 1; lines < lineBurst || lines > most {
		t.Errorf("%d lines in %v, want %d to %d", lines, took, lineBurst, most)
	}
	if lines+told != frames {
		t.Errorf("%d lines and %d told to be left out, of %d", lines, told, frames)
	}
}
