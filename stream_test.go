package zpipes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// noise returns n reproducible random bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	src.Read(b)
	return b
}

// bulk is how much a test moves; the base protocol moves it byte by byte.
func (r *rig) bulk(n int) int {
	if r.old {
		return min(n, 20_000)
	}
	return n
}

func TestStreamKeepsBytesAndOrder(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		data := noise(1, r.bulk(3<<20))
		go func() {
			rnd := rand.New(rand.NewPCG(1, 2))
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rnd.IntN(1<<rnd.IntN(19)))
				if _, err := w.Write(rest[:n]); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		rnd := rand.New(rand.NewPCG(3, 4))
		var got []byte
		for {
			b := make([]byte, 1+rnd.IntN(1<<rnd.IntN(19)))
			n, err := rd.Read(b)
			got = append(got, b[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				r.Fatal(err)
			}
		}
		if !bytes.Equal(got, data) {
			r.Errorf("read %d bytes that are not the %d written", len(got), len(data))
		}
		if n, err := rd.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			r.Errorf("Read after the end: %d, %v; want 0, EOF", n, err)
		}
	})
}

func TestReadReturnsWhatIsThere(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		b := make([]byte, 100)
		for _, s := range []string{"a", "bc", "def"} {
			if _, err := w.WriteString(s); err != nil {
				r.Fatal(err)
			}
			for got := ""; got != s; {
				n, err := rd.Read(b)
				if n == 0 || err != nil {
					r.Fatalf("Read: %d, %v", n, err)
				}
				if got += string(b[:n]); !strings.HasPrefix(s, got) {
					r.Fatalf("read %q of %q", got, s)
				}
			}
		}
	})
}

func TestEmptyReadAndWrite(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		if n, err := rd.Read(nil); n != 0 || err != nil {
			r.Errorf("Read of nothing: %d, %v", n, err)
		}
		if n, err := w.Write(nil); n != 0 || err != nil {
			r.Errorf("Write of nothing: %d, %v", n, err)
		}
		if err := w.Flush(); err != nil {
			r.Errorf("Flush of nothing: %v", err)
		}
	})
}

func TestIotestReader(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		content := noise(2, 3000)
		go func() { w.Write(content); w.Close() }()
		if err := iotest.TestReader(rd, content); err != nil {
			r.Error(err)
		}
	})
}

func TestStandardStreams(t *testing.T) {
	type record struct {
		ID   int
		Text string
	}
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		lines := 300
		go func() {
			z := gzip.NewWriter(w)
			enc := json.NewEncoder(z)
			for i := range lines {
				enc.Encode(record{i, strings.Repeat("x", i)})
			}
			z.Close()
			w.Close()
		}()
		z, err := gzip.NewReader(bufio.NewReader(rd))
		if err != nil {
			r.Fatal(err)
		}
		dec := json.NewDecoder(z)
		for i := range lines {
			var got record
			if err := dec.Decode(&got); err != nil || got.ID != i || len(got.Text) != i {
				r.Fatalf("record %d: %+v, %v", i, got, err)
			}
		}
		if _, err := dec.Token(); err != io.EOF {
			r.Errorf("behind the last record: %v, want EOF", err)
		}
	})
}

func TestCopyThroughReadFromAndWriteTo(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		data := noise(3, r.bulk(2<<20))
		go func() {
			n, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(data)))
			if n != int64(len(data)) || err != nil {
				t.Errorf("copied in %d, %v", n, err)
			}
			w.Close()
		}()
		var got bytes.Buffer
		if n, err := io.Copy(&got, rd); n != int64(len(data)) || err != nil {
			r.Errorf("copied out %d, %v", n, err)
		}
		if !bytes.Equal(got.Bytes(), data) {
			r.Error("the bytes differ")
		}
	})
}

func TestWriteToKeepsWhatWasNotTaken(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		go func() { w.WriteString("hello, world"); w.Close() }()
		full := errors.New("full")
		n, err := io.Copy(&limitedWriter{left: 5, err: full}, rd)
		if n != 5 || !errors.Is(err, full) {
			r.Errorf("Copy: %d, %v", n, err)
		}
		rest, err := io.ReadAll(rd)
		if string(rest) != ", world" || err != nil {
			r.Errorf("the rest is %q, %v", rest, err)
		}
	})
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.left)
	w.left -= n
	if n < len(b) {
		return n, w.err
	}
	return n, nil
}

func TestConcurrentWritesStayWhole(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		const writers = 4
		size, rounds := 100_000, 10
		if r.old {
			size, rounds = 500, 5
		}
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				b := bytes.Repeat([]byte{byte('a' + i)}, size)
				for range rounds {
					if n, err := w.Write(b); n != size || err != nil {
						t.Errorf("Write: %d, %v", n, err)
					}
				}
			})
		}
		go func() { wg.Wait(); w.Close() }()
		b := make([]byte, size)
		for i := range writers * rounds {
			if _, err := io.ReadFull(rd, b); err != nil {
				r.Fatal(err)
			}
			if bytes.Count(b, b[:1]) != size {
				r.Fatalf("write %d is interleaved with another", i)
			}
		}
	})
}

func TestManyPipesAtOnce(t *testing.T) {
	overAllWays(t, func(r *rig) {
		pipes, most := 100, 200_000
		if r.old {
			pipes, most = 20, 2000
		}
		var wg sync.WaitGroup
		for i := range pipes {
			wg.Go(func() {
				name := fmt.Sprint("pipe ", i)
				data := noise(uint64(i), rand.IntN(most))
				w, err := r.client.OpenWriter(context.Background(), name)
				if err != nil {
					t.Error(err)
					return
				}
				rd, err := r.client.OpenReader(context.Background(), name)
				if err != nil {
					t.Error(err)
					return
				}
				wg.Go(func() {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 1+rand.IntN(10_000))
						w.Write(rest[:n])
						rest = rest[n:]
					}
					if err := w.Close(); err != nil {
						t.Error(err)
					}
				})
				h := sha256.New()
				if n, err := io.Copy(h, rd); n != int64(len(data)) || err != nil {
					t.Errorf("%s: copied %d of %d, %v", name, n, len(data), err)
				}
				if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("%s: the sums differ", name)
				}
				rd.Close()
			})
		}
		wg.Wait()
	})
}

func TestCloseWithErrorReachesTheReader(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.old {
			r.Skip("the old protocol has no cause")
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

func TestCloseWithErrorReachesTheWriter(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		rd.CloseWithError(errors.New("had enough: " + strings.Repeat("é", 200)))
		err := r.writeUntilError(w)
		if !errors.Is(err, io.ErrClosedPipe) {
			r.Errorf("the writer got %v", err)
		}
		if !r.old && (!strings.Contains(err.Error(), "had enough") || strings.Contains(err.Error(), "\ufffd")) {
			r.Errorf("the writer got %q", err)
		}
	})
}

func TestCloseWithErrorOfNilIsClose(t *testing.T) {
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

// writeUntilError writes single bytes until that fails.
func (r *rig) writeUntilError(w *Writer) error {
	r.Helper()
	for end := time.Now().Add(soon); time.Now().Before(end); {
		if _, err := w.WriteString("x"); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	r.Fatal("no Write failed")
	return nil
}

func TestReaderLeavesABlockedWriter(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.old {
			r.Skip("the old broker takes all that is written, without bound")
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

func TestReaderLeavesAnIdleWriter(t *testing.T) {
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

func TestDeadlines(t *testing.T) {
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
		got := r.within(soon, r.begin(read))
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

func TestWriteDeadlineLosesNothing(t *testing.T) {
	overWays(t, BrokerConfig{MaxPending: 64 << 10}, ClientConfig{}, func(r *rig) {
		if r.old {
			r.Skip("the old broker takes all that is written, without bound")
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

func TestCloseUnblocks(t *testing.T) {
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

func TestCloseGivesUp(t *testing.T) {
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
		if r.old {
			return // whose reader would find a pipe that is there until it expires
		}
		rd := r.reader("p") // another pipe of that name
		rd.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := rd.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("the next reader got %d, %v", n, err)
		}
	})
}

func TestCloseGivesUpUnderAReaderThatStays(t *testing.T) {
	overWays(t, BrokerConfig{MaxPending: 10_000}, ClientConfig{Timeout: 200 * time.Millisecond}, func(r *rig) {
		if r.old {
			r.Skip("the old broker takes all that is written, without bound")
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

func TestWindowAndMaxPendingCountTheSame(t *testing.T) {
	const window, pending = 200_000, 300_000
	overWays(t, BrokerConfig{MaxPending: pending}, ClientConfig{Window: window}, func(r *rig) {
		if r.old {
			r.Skip("the old broker takes all that is written, without bound")
		}
		r.fills(r.writer("no reader"), window)
		_, w := r.pipe("p")
		r.fills(w, window+pending)
	})
}

// fills writes so many bytes, which must be all that there is room for.
func (r *rig) fills(w *Writer, n int) {
	r.Helper()
	w.SetWriteDeadline(time.Time{})
	if _, err := w.Write(make([]byte, n)); err != nil {
		r.Errorf("a Write of %d bytes: %v", n, err)
	}
	w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := w.Write(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		r.Errorf("one byte more: %d, %v", n, err)
	}
}

// fill writes until there is no room left, or seems to be, and returns how much went in.
func fill(w *Writer) (total int) {
	b := make([]byte, 1000)
	for {
		w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := w.Write(b)
		total += n
		if err != nil {
			return total
		}
	}
}

func TestBusyAndBadNames(t *testing.T) {
	overAllWays(t, func(r *rig) {
		r.pipe("p")
		if _, err := r.client.OpenReader(r.Context(), "p"); !errors.Is(err, ErrPipeBusy) {
			r.Errorf("second reader: %v", err)
		}
		_, err := r.client.OpenWriter(r.Context(), "p")
		if !errors.Is(err, ErrPipeBusy) {
			r.Errorf("second writer: %v", err)
		}
		var oe *OpError
		if !errors.As(err, &oe) || oe.Op != "open writer" || oe.Pipe != "p" || oe.Broker != r.broker {
			r.Errorf("the error is %#v", err)
		}
		for _, name := range []string{"", "a\x00b", strings.Repeat("n", 256)} {
			if _, err := r.client.OpenReader(r.Context(), name); !errors.Is(err, ErrBadName) {
				r.Errorf("reader of %q: %v", name, err)
			}
		}
	})
}

func TestNameIsFreeAtOnce(t *testing.T) {
	overAllWays(t, func(r *rig) {
		other := r.newClient(ClientConfig{})
		for i := range 20 {
			w, err := r.client.OpenWriter(r.Context(), "p")
			if err != nil {
				r.Fatal(i, err)
			}
			rd, err := other.OpenReader(r.Context(), "p")
			if err != nil {
				r.Fatal(i, err)
			}
			fmt.Fprint(w, i)
			if err := w.Close(); err != nil {
				r.Fatal(i, err)
			}
			if got, err := io.ReadAll(rd); string(got) != fmt.Sprint(i) || err != nil {
				r.Fatalf("read %q, %v", got, err)
			}
			rd.Close()
			r.client, other = other, r.client
		}
	})
}

func TestIdleEndsStayConnected(t *testing.T) {
	// Who forgot its heartbeats would be dropped twice over.
	overWays(t, BrokerConfig{}, ClientConfig{Heartbeat: 250 * time.Millisecond}, func(r *rig) {
		rd, w := r.pipe("p")
		done := r.begin(func() (int, error) { return rd.Read(make([]byte, 10)) })
		select {
		case got := <-done:
			r.Fatalf("Read returned %v", got)
		case <-time.After(2 * time.Second):
		}
		w.WriteString("x")
		if got := r.within(soon, done); got.n != 1 || got.err != nil {
			r.Errorf("Read: %v", got)
		}
	})
}

func TestPing(t *testing.T) {
	overAllWays(t, func(r *rig) {
		d, err := r.client.Ping(r.Context())
		if err != nil || d < 0 || d > soon {
			r.Errorf("Ping: %v, %v", d, err)
		}
	})
}

// A goroutine that writes all the time leaves others that share its Writer their turn.
func TestWritesTakeTurns(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPending: 1})
	c, err := ClientConfig{Window: 1}.NewClient(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w.pipe.mu.Lock()
	room := w.pipe.room()
	w.pipe.mu.Unlock()
	waiting := func(n int) func() bool {
		return func() bool {
			w.pipe.mu.Lock()
			defer w.pipe.mu.Unlock()
			return w.busy && w.turns.len() == n
		}
	}
	var writers sync.WaitGroup
	writers.Go(func() {
		w.Write(make([]byte, room+1)) // one byte too many
		for range 5 {
			w.WriteString("0")
		}
	})
	eventually(t, "a Write waits for room", waiting(0))
	for i := range 3 {
		writers.Go(func() { w.WriteString(string(rune('1' + i))) })
		eventually(t, "a Write waits for its turn", waiting(i+1))
	}
	w.SetWriteDeadline(time.Now().Add(soon))
	got := make([]byte, room+1+3+5)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	if s := string(got[room+1:]); s != "12300000" {
		t.Errorf("they were written in the order %s", s)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
