//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

func TestBrokerShutdownLetsReadersDrain(t *testing.T) {
	for _, where := range []string{"direct", "ipc"} {
		t.Run(where, func(t *testing.T) {
			b := startBroker(t, BrokerConfig{})
			broker := b.Name()
			if where == "ipc" {
				broker = b.Endpoints()[1]
			}
			r := &rig{T: t, broker: broker}
			r.client = r.newClient(ClientConfig{})
			rd, w := r.pipe("p")
			data := noise(7, 500_000)
			w.Write(data)
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			down := r.begin(func() (int, error) { return 0, b.Shutdown(context.Background()) })
			if err := r.writeUntilError(w); !errors.Is(err, ErrBrokerGone) {
				t.Errorf("Write: %v", err)
			}
			if _, err := r.client.OpenWriter(t.Context(), "other"); err == nil {
				t.Error("an open was not refused")
			}
			got, err := io.ReadAll(rd)
			if !bytes.Equal(got, data) || !errors.Is(err, ErrBrokerGone) {
				t.Errorf("the reader got %d bytes, %v", len(got), err)
			}
			if got := r.within(soon, down); got.err != nil {
				t.Errorf("Shutdown: %v", got.err)
			}
		})
	}
}

func TestBrokerShutdownGivesUp(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	rd, _ := r.pipe("p")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w, err := b.Client().OpenWriter(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	stuck := r.reader("q")
	w.WriteString("never read")
	if err := b.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	for _, end := range []*Reader{rd, stuck} {
		if _, err := io.ReadAll(end); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("Read: %v", err)
		}
	}
}

// Shutdown that was cut short by Close says so.
func TestBrokerShutdownCutShort(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, broker: b.Name()}
	r.client = r.newClient(ClientConfig{})
	_, w := r.pipe("p")
	w.WriteString("unread")
	down := r.begin(func() (int, error) { return 0, b.Shutdown(context.Background()) })
	b.Close()
	if got := r.within(soon, down); !errors.Is(got.err, os.ErrClosed) {
		t.Errorf("Shutdown: %v", got.err)
	}
	if err := b.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown of a broker that is closed: %v", err)
	}
}

// A stream that the broker's end has torn is not a clean one, though its writer
// had closed.
func TestBrokerCloseTearsWhatIsUnread(t *testing.T) {
	for _, end := range []func(b *Broker){
		func(b *Broker) { b.Close() },
		func(b *Broker) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			b.Shutdown(ctx)
		},
	} {
		b := startBroker(t, BrokerConfig{})
		r := &rig{T: t, client: b.Client()}
		rd, w := r.pipe("p")
		w.Write(make([]byte, 1000))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		end(b)
		if _, err := io.ReadAll(rd); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("the reader got %v", err)
		}
		r.client.Close()
	}
}

// The writer's Close, answered just before the broker closes, is not an error.
func TestBrokerCloseAfterTheLastReader(t *testing.T) {
	for range 50 {
		b := startBroker(t, BrokerConfig{})
		c, err := NewClient(b.Endpoints()[1])
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{T: t, client: b.Client()}
		rd := r.reader("p")
		w, err := c.OpenWriter(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString("x")
		done := inBackground(func() (int, error) { return 0, w.Close() })
		if _, err := io.ReadAll(rd); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if got := r.within(soon, done); got.err != nil {
			t.Fatalf("Close: %v", got.err)
		}
		c.Close()
	}
}

func TestBrokerClosesUnderInprocClients(t *testing.T) {
	for i := range 100 {
		b := startBroker(t, BrokerConfig{Endpoints: []string{}})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				c, err := ClientConfig{Timeout: 20 * time.Millisecond}.NewClient(b.Endpoints()[0])
				if err != nil {
					t.Error(err)
					return
				}
				opened := inBackground(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
				time.Sleep(time.Duration(i%40) * 10 * time.Microsecond)
				c.Close()
				<-opened
			})
		}
		time.Sleep(time.Duration(i%37) * 10 * time.Microsecond)
		(&rig{T: t}).within(soon, inBackground(func() (int, error) { return 0, b.Close() }))
		wg.Wait()
	}
}
