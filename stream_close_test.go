//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// Who closes second waits for who closes first; and Client.Close says what became of it.
func TestStreamWhoClosesSecondWaits(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		c := r.newClient(ClientConfig{})
		w, err := c.OpenWriter(r.Context(), "p")
		if err != nil {
			r.Fatal(err)
		}
		w.WriteString("hello")
		first := r.begin(func() (int, error) { return 0, w.Close() })
		second := r.begin(func() (int, error) { return 0, w.Close() })
		all := r.begin(func() (int, error) { return 0, c.Close() })
		again := r.begin(func() (int, error) { return 0, c.Close() })
		rd := r.reader("p")
		got, err := io.ReadAll(rd)
		if string(got) != "hello" || err != nil {
			r.Errorf("the reader got %q, %v", got, err)
		}
		for _, done := range []<-chan result{first, second, all, again} {
			if got := r.within(soon, done); got.err != nil {
				r.Error(got.err)
			}
		}

		c = r.newClient(ClientConfig{})
		if w, err = c.OpenWriter(r.Context(), "nobody reads this"); err != nil {
			r.Fatal(err)
		}
		w.WriteString("hello")
		first = r.begin(func() (int, error) { return 0, w.Close() })
		second = r.begin(func() (int, error) { return 0, w.Close() })
		all = r.begin(func() (int, error) { return 0, c.Close() })
		again = r.begin(func() (int, error) { return 0, c.Close() })
		w.SetWriteDeadline(time.Now())
		var undelivered *UndeliveredError
		for _, done := range []<-chan result{first, all} {
			if got := r.within(soon, done); !errors.As(got.err, &undelivered) || undelivered.Bytes != 5 {
				r.Errorf("a Close that could not deliver: %v", got.err)
			}
		}
		for _, done := range []<-chan result{second, again} {
			if got := r.within(soon, done); got.err != nil {
				r.Errorf("a second Close: %v", got.err)
			}
		}
	})
}

// A call of others closes what calls it.
func TestStreamCloseWithinACallback(t *testing.T) {
	overAllWays(t, func(r *rig) {
		c := r.newClient(ClientConfig{})
		w, err := c.OpenWriter(r.Context(), "p")
		if err != nil {
			r.Fatal(err)
		}
		rd, err := c.OpenReader(r.Context(), "p")
		if err != nil {
			r.Fatal(err)
		}
		w.WriteString("x")
		if err := w.Flush(); err != nil {
			r.Fatal(err)
		}
		done := make(chan result, 1)
		go func() {
			_, err := rd.WriteTo(writerFunc(func(b []byte) (int, error) {
				rd.Close()
				c.Close()
				return len(b), nil
			}))
			done <- result{0, err}
		}()
		if got := r.within(soon, done); !errors.Is(got.err, os.ErrClosed) {
			r.Errorf("WriteTo: %v", got.err)
		}
	})
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestStreamCloseUnblocks(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		reading := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
		rd.Close()
		if got := r.within(soon, reading); !errors.Is(got.err, os.ErrClosed) {
			r.Errorf("Read: %v", got.err)
		}
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Read after Close: %v", err)
		}
		w.Close()

		w2 := r.writer("nobody reads")
		w2.WriteString("x")
		writing := r.begin(func() (int, error) { return w2.Write(make([]byte, 4<<20)) })
		flushing := r.begin(func() (int, error) { return 0, w2.Flush() })
		w2.SetWriteDeadline(time.Now().Add(time.Hour))
		closing := r.begin(func() (int, error) { return 0, w2.Close() })
		for _, done := range []<-chan result{writing, flushing} {
			if got := r.within(soon, done); !errors.Is(got.err, os.ErrClosed) {
				r.Errorf("a blocked call returned %v", got.err)
			}
		}
		w2.SetWriteDeadline(time.Unix(1, 0))
		var undelivered *UndeliveredError
		if got := r.within(soon, closing); !errors.As(got.err, &undelivered) {
			r.Errorf("Close: %v", got.err)
		}
		if err := w2.Close(); err != nil {
			r.Errorf("second Close: %v", err)
		}
	})
}

func TestStreamCloseGivesUp(t *testing.T) {
	t.Parallel()
	overWays(t, BrokerConfig{}, ClientConfig{Timeout: 200 * time.Millisecond}, func(r *rig) {
		r.connected()
		w := r.writer("p")
		n, err := w.Write([]byte("nobody takes this"))
		if err != nil {
			r.Fatal(err)
		}
		start := time.Now()
		err = w.Close()
		var undelivered *UndeliveredError
		if !errors.As(err, &undelivered) || undelivered.Bytes != int64(n) || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("Close: %v, want %d bytes undelivered", err, n)
		}
		if took := time.Since(start); took < 200*time.Millisecond {
			r.Errorf("Close gave up after %v", took)
		}
		if r.base {
			return // whose reader would find a pipe that is there until it expires
		}
		rd := r.reader("p") // another pipe of that name
		rd.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := rd.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("the next reader got %d, %v", n, err)
		}
	})
}

func TestStreamCloseGivesUpUnderAReaderThatStays(t *testing.T) {
	t.Parallel()
	overWays(t, BrokerConfig{MaxPending: 10_000}, ClientConfig{Timeout: 200 * time.Millisecond}, func(r *rig) {
		if r.base {
			r.Skip("the base broker takes all that is written, without bound")
		}
		r.connected()
		rd, w := r.pipe("p")
		data := noise(6, 50_000)
		for rest := data; len(rest) > 0; rest = rest[5000:] {
			if _, err := w.Write(rest[:5000]); err != nil {
				r.Fatal(err)
			}
		}
		var undelivered *UndeliveredError
		if err := w.Close(); !errors.As(err, &undelivered) {
			r.Fatalf("Close: %v", err)
		}
		got, err := io.ReadAll(rd)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			r.Errorf("the reader got %v", err)
		}
		if !bytes.HasPrefix(data, got) || int64(len(data)-len(got)) > undelivered.Bytes {
			r.Errorf("the reader got %d of %d bytes; undelivered %d", len(got), len(data), undelivered.Bytes)
		}
	})
}

func TestStreamCloseIsShortenedByAWriteDeadline(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, client: b.Client()}
	w := r.writer("p")
	w.WriteString("nobody reads this")
	done := r.begin(func() (int, error) { return 0, w.Close() })
	if err := w.SetWriteDeadline(time.Now()); err != nil {
		t.Error(err)
	}
	var undelivered *UndeliveredError
	if got := r.within(soon, done); !errors.As(got.err, &undelivered) {
		t.Errorf("Close: %v", got.err)
	}
	if err := w.SetWriteDeadline(time.Now()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("SetWriteDeadline: %v", err)
	}
}
