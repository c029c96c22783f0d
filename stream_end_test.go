//go:build unix && !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStreamDeathOfTheWriter(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
			if r.base || strings.HasPrefix(r.broker, "inproc://") {
				r.Skip("the writer is another process")
			}
			w := startChild(r, childTask{Part: "writer", Broker: r.broker, Pipe: "p", Data: "acknowledged"})
			rd := r.reader("p")
			w.ready()
			w.signal(signal)
			start := time.Now()
			got, err := io.ReadAll(rd)
			if took := time.Since(start); took > dead+soon {
				r.Errorf("%v was noticed after %v", signal, took)
			}
			if string(got) != "acknowledged" || !errors.Is(err, io.ErrUnexpectedEOF) {
				r.Errorf("the reader got %q, %v", got, err)
			}
			if _, err := r.client.OpenWriter(r.Context(), "p"); err != nil {
				r.Errorf("the name is not free: %v", err)
			}
		})
	}
}

func TestStreamDeathOfTheReader(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
			if r.base || strings.HasPrefix(r.broker, "inproc://") {
				r.Skip("the reader is another process")
			}
			rd := startChild(r, childTask{Part: "reader", Broker: r.broker, Pipe: "p"}).ready()
			w := r.writer("p")
			done := r.begin(func() (int, error) { return w.Write(make([]byte, 4<<20)) })
			rd.signal(signal)
			if got := r.within(dead+soon, done); !errors.Is(got.err, io.ErrClosedPipe) {
				r.Errorf("Write: %v", got.err)
			}
		})
	}
}

// The end of a stream is part of it, also where it is all there is.
func TestStreamEmpty(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		w := r.writer("late reader")
		if n, err := io.Copy(w, bytes.NewReader(nil)); n != 0 || err != nil {
			r.Fatal(n, err)
		}
		if err := w.Flush(); err != nil {
			r.Errorf("Flush of nothing: %v", err)
		}
		closed := r.begin(func() (int, error) { return 0, w.Close() })
		rd := r.reader("late reader")
		if n, err := rd.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			r.Errorf("Read: %d, %v", n, err)
		}
		if got := r.within(soon, closed); got.err != nil {
			r.Errorf("Close: %v", got.err)
		}

		rd, w = r.pipe("early reader")
		if err := w.Close(); err != nil {
			r.Errorf("Close: %v", err)
		}
		if n, err := rd.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			r.Errorf("Read: %d, %v", n, err)
		}

		rd, w = r.pipe("reader that leaves")
		rd.Close()
		if err := w.Close(); err != nil {
			r.Errorf("Close after a reader: %v", err)
		}
	})
}

// If nobody has learnt of the end, Close says so, and nobody takes it for one.
func TestStreamEmptyThatNobodyReads(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		w := r.writer("p")
		w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		err := w.Close()
		var undelivered *UndeliveredError
		if !errors.As(err, &undelivered) || undelivered.Bytes != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("Close: %v", err)
		}
		if strings.Contains(err.Error(), "0 bytes") {
			r.Errorf("an error that sounds like none: %v", err)
		}
		if r.base {
			return // it notices later
		}
		rd := r.reader("p")
		rd.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("a reader that came later: %v", err)
		}
	})
}

// Into a queue an empty stream is nothing, and its end needs nobody.
func TestStreamEmptyIntoAQueue(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		if r.base {
			r.Skip("has no queues")
		}
		q := r.queue("q")
		w := r.writer("q")
		if err := w.Close(); err != nil {
			r.Errorf("Close: %v", err)
		}
		r.receivesNothing(q, 50*time.Millisecond)
	})
}

// CloseWithError ends a Close that still delivers.
// Who takes the deadline of a Close away leaves it the client's Timeout.
func TestStreamCloseWithoutADeadlineAnyMore(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	c, err := ClientConfig{Timeout: 100 * time.Millisecond}.NewClient(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, "x")
	w.SetWriteDeadline(time.Now().Add(time.Hour))
	closed := make(chan error, 1)
	go func() { closed <- w.Close() }()
	eventually(t, "a Close that waits", w.delivers)
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-closed:
		var undelivered *UndeliveredError
		if !errors.As(err, &undelivered) || undelivered.Bytes != 1 {
			t.Error(err)
		}
	case <-time.After(soon):
		t.Error("Close still waits")
		w.SetWriteDeadline(time.Unix(1, 0))
		<-closed
	}
}

func TestStreamCloseWithErrorEndsAClose(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		w := r.writer("p")
		w.WriteString("hello")
		closing := r.begin(func() (int, error) { return 0, w.Close() })
		reason := errors.New("changed my mind")
		start := time.Now()
		if err := w.CloseWithError(reason); err != nil {
			r.Errorf("CloseWithError: %v", err)
		}
		if took := time.Since(start); took > soon {
			r.Errorf("CloseWithError took %v", took)
		}
		var undelivered *UndeliveredError
		if got := r.within(soon, closing); !errors.As(got.err, &undelivered) || undelivered.Bytes != 5 || !errors.Is(got.err, reason) {
			r.Errorf("Close: %v", got.err)
		}
	})
}

// What CloseWithError says has arrived at the broker when it returns: the process may
// exit after it.
func TestStreamCloseWithErrorThenExit(t *testing.T) {
	t.Parallel()
	r, _ := overWire(t, BrokerConfig{}, ClientConfig{})
	for range 5 {
		rd := r.reader("p")
		c := startChild(t, childTask{Part: "quitter", Broker: r.broker, Pipe: "p", Data: "disk full"})
		if _, err := io.ReadAll(rd); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("the reader got %v", err)
		}
		c.cmd.Wait()
		rd.Close()
	}
}

func TestStreamCloseWithErrorReachesTheReader(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.base {
			r.Skip("the base protocol has no cause")
		}
		rd, w := r.pipe("p")
		w.WriteString("confirmed")
		if err := w.Flush(); err != nil {
			r.Fatal(err)
		}
		w.CloseWithError(errors.New("disk on fire"))
		got, err := io.ReadAll(rd)
		if string(got) != "confirmed" {
			r.Errorf("read %q", got)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "disk on fire") {
			r.Errorf("the reader got %v", err)
		}
		if _, err := w.WriteString("x"); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Write after CloseWithError: %v", err)
		}
		if err := w.Close(); err != nil {
			r.Errorf("Close after CloseWithError: %v", err)
		}
	})
}

func TestStreamCloseWithErrorReachesTheWriter(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		rd.CloseWithError(errors.New("had enough: " + strings.Repeat("é", 200)))
		err := r.writeUntilError(w)
		if !errors.Is(err, io.ErrClosedPipe) {
			r.Errorf("the writer got %v", err)
		}
		if !r.base && (!strings.Contains(err.Error(), "had enough") || strings.Contains(err.Error(), "\ufffd")) {
			r.Errorf("the writer got %q", err)
		}
	})
}

func TestStreamCloseWithErrorOfNilIsClose(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.WriteString("all")
		if err := w.CloseWithError(nil); err != nil {
			r.Error(err)
		}
		if got, err := io.ReadAll(rd); string(got) != "all" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
		if err := rd.CloseWithError(nil); err != nil {
			r.Error(err)
		}
	})
}

func TestStreamReaderLeavesABlockedWriter(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		if r.base {
			r.Skip("the base broker takes all that is written, without bound")
		}
		rd, w := r.pipe("p")
		accepted := fill(w)
		w.SetWriteDeadline(time.Time{})
		done := r.begin(func() (int, error) { return w.Write(make([]byte, 1000)) })
		rd.Close()
		if got := r.within(soon, done); !errors.Is(got.err, io.ErrClosedPipe) {
			r.Errorf("Write: %v", got.err)
		}
		var undelivered *UndeliveredError
		if err := w.Close(); !errors.As(err, &undelivered) || undelivered.Bytes <= 0 || undelivered.Bytes > int64(accepted) {
			r.Errorf("Close: %v, of %d bytes accepted", err, accepted)
		}
	})
}

func TestStreamReaderLeavesAnIdleWriter(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.WriteString("x")
		if err := w.Flush(); err != nil {
			r.Fatal(err)
		}
		rd.Close()
		if err := r.writeUntilError(w); !errors.Is(err, io.ErrClosedPipe) {
			r.Errorf("Write: %v", err)
		}
	})
}
