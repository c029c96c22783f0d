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

// A deadline may be set after the end of a stream, as with other connections.
func TestStreamDeadlineAfterTheEnd(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.Close()
		if _, err := io.ReadAll(rd); err != nil {
			r.Fatal(err)
		}
		if err := rd.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			r.Errorf("after io.EOF: %v", err)
		}
		rd.Close()
		if err := rd.SetReadDeadline(time.Time{}); !errors.Is(err, os.ErrClosed) {
			r.Errorf("after Close: %v", err)
		}
		if err := w.SetWriteDeadline(time.Time{}); !errors.Is(err, os.ErrClosed) {
			r.Errorf("after a Writer's Close: %v", err)
		}
	})
}

func TestStreamDeadlines(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		b := make([]byte, 10)
		read := func() (int, error) { return rd.Read(b) }

		rd.SetReadDeadline(time.Unix(1, 0))
		if n, err := rd.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("Read after the deadline: %d, %v", n, err)
		} else if ne := (*OpError)(nil); !errors.As(err, &ne) || !ne.Timeout() {
			r.Errorf("%v is no timeout", err)
		}

		start := time.Now()
		rd.SetReadDeadline(start.Add(60 * time.Millisecond))
		got := r.within(soon, inBackground(read))
		if took := time.Since(start); !errors.Is(got.err, os.ErrDeadlineExceeded) || took < 60*time.Millisecond {
			r.Errorf("Read returned %v after %v, want the deadline after 60ms", got.err, took)
		}

		// Moved closer while a Read is blocked; and what comes later is not lost.
		rd.SetReadDeadline(time.Now().Add(time.Hour))
		done := r.begin(read)
		rd.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if got := r.within(soon, done); !errors.Is(got.err, os.ErrDeadlineExceeded) {
			r.Errorf("Read with a moved deadline: %v", got.err)
		}
		rd.SetReadDeadline(time.Time{})
		done = r.begin(read)
		w.WriteString("y")
		if got := r.within(soon, done); got.n != 1 || got.err != nil {
			r.Errorf("Read with no deadline: %v", got)
		}
	})
}

func TestStreamWriteDeadlineLosesNothing(t *testing.T) {
	overWays(t, BrokerConfig{MaxPending: 64 << 10}, ClientConfig{}, func(r *rig) {
		if r.base {
			r.Skip("the base broker takes all that is written, without bound")
		}
		rd, w := r.pipe("p")
		data := noise(5, 2<<20)
		var written int
		go func() {
			for {
				w.SetWriteDeadline(time.Now().Add(3 * time.Millisecond))
				n, err := w.Write(data[written:])
				written += n
				if err == nil {
					break
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
					break
				}
			}
			w.SetWriteDeadline(time.Time{})
			w.Close()
		}()
		var got []byte
		b := make([]byte, 30_000)
		for {
			rd.SetReadDeadline(time.Now().Add(time.Millisecond))
			n, err := rd.Read(b)
			got = append(got, b[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				r.Fatal(err)
			}
		}
		if !bytes.Equal(got, data) {
			r.Errorf("read %d bytes that are not the %d written", len(got), len(data))
		}
	})
}
