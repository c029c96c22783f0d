package intest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
	"go.uber.org/goleak"
)

// Nothing outlives the brokers: no goroutine is left when the tests are over.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe returns the two ends of a pipe of a broker that lives as long as the test.
func pipe(t *testing.T) (*zpipes.Reader, *zpipes.Writer) {
	t.Helper()
	broker, err := zpipes.NewBroker("") // a name that nobody else has
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	client := broker.Client()
	r, err := client.OpenReader(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.OpenWriter(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// total stands for the code under test. It knows readers, not pipes.
func total(events io.Reader) (sum int, err error) {
	for dec := json.NewDecoder(events); ; {
		var event struct{ Amount int }
		if err := dec.Decode(&event); err == io.EOF {
			return sum, nil
		} else if err != nil {
			return sum, err
		}
		sum += event.Amount
	}
}

func TestTotal(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	sent := make(chan error, 1)
	go func() {
		enc := json.NewEncoder(w)
		for amount := range 1000 {
			if err := enc.Encode(map[string]int{"Amount": amount}); err != nil {
				sent <- err
				return
			}
		}
		sent <- w.Close()
	}()
	sum, err := total(r)
	if sum != 499_500 || err != nil {
		t.Errorf("total = %d, %v", sum, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// What does the code do when the other side fails half-way? It must not take that for the end.
func TestTotalOfTornStream(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	if _, err := io.WriteString(w, `{"Amount": 1}`); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // from here on the reader gets it, whatever happens to the writer
		t.Fatal(err)
	}
	w.CloseWithError(errors.New("out of paper"))
	if sum, err := total(r); sum != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("total = %d, %v", sum, err)
	}
}

// A deadline ends a wait, not the stream.
func TestSlowWriter(t *testing.T) {
	t.Parallel()
	r, w := pipe(t)
	r.SetReadDeadline(time.Now())
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	r.SetReadDeadline(time.Time{})
	if _, err := io.WriteString(w, "late"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := r.Read(buf); !bytes.Equal(buf[:n], []byte("late")) || err != nil {
		t.Errorf("Read: %q, %v", buf[:n], err)
	}
}
