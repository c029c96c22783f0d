//go:build !core

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
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestStreamKeepsBytesAndOrder(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		r.busy()
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

func TestStreamReadReturnsWhatIsThere(t *testing.T) {
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

func TestStreamEmptyReadAndWrite(t *testing.T) {
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

func TestStreamIotestReader(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		content := noise(2, 3000)
		go func() { w.Write(content); w.Close() }()
		if err := iotest.TestReader(rd, content); err != nil {
			r.Error(err)
		}
	})
}

func TestStreamAsStandardStreams(t *testing.T) {
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
			r.Errorf("after the last record: %v, want EOF", err)
		}
	})
}

func TestStreamConcurrentWritesStayWhole(t *testing.T) {
	overAllWays(t, func(r *rig) {
		r.busy()
		rd, w := r.pipe("p")
		const writers = 4
		size, rounds := 100_000, 10
		if r.base {
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

func TestStreamManyPipesAtOnce(t *testing.T) {
	overWays(t, BrokerConfig{}, patient, func(r *rig) {
		r.busy()
		pipes, most := 100, 200_000
		if r.base {
			pipes, most = 20, 500 // each takes a round trip
		}
		var wg sync.WaitGroup
		for i := range pipes {
			wg.Go(func() {
				name := fmt.Sprint("pipe ", i)
				data := noise(uint64(i), rand.IntN(most))
				w, err := r.client.OpenWriter(context.Background(), name)
				if err != nil {
					r.Error(err)
					return
				}
				rd, err := r.client.OpenReader(context.Background(), name)
				if err != nil {
					r.Error(err)
					return
				}
				wg.Go(func() {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 1+rand.IntN(10_000))
						w.Write(rest[:n])
						rest = rest[n:]
					}
					if err := w.Close(); err != nil {
						r.Error(err)
					}
				})
				h := sha256.New()
				if n, err := io.Copy(h, rd); n != int64(len(data)) || err != nil {
					r.Errorf("%s: copied %d of %d, %v", name, n, len(data), err)
				}
				if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
					r.Errorf("%s: the sums differ", name)
				}
				rd.Close()
			})
		}
		wg.Wait()
	})
}

func TestStreamWindowAndMaxPendingCountTheSame(t *testing.T) {
	t.Parallel()
	const window, pending = 200_000, 300_000
	overWays(t, BrokerConfig{MaxPending: pending}, ClientConfig{Window: window}, func(r *rig) {
		if r.base {
			r.Skip("the old broker takes all that is written, without bound")
		}
		r.fills(r.writer("no reader"), window)
		_, w := r.pipe("p")
		r.fills(w, window+pending)
	})
}

func TestStreamBusyAndBadNames(t *testing.T) {
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

func TestStreamNameIsFreeAtOnce(t *testing.T) {
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

func TestStreamIdleEndsStayConnected(t *testing.T) {
	t.Parallel()
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

// A goroutine that writes all the time leaves others that share its Writer their turn.
func TestStreamWritesTakeTurns(t *testing.T) {
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

func TestStreamSmallestWindow(t *testing.T) {
	overWays(t, BrokerConfig{}, ClientConfig{Window: 1}, func(r *rig) {
		rd, w := r.pipe("p")
		go func() { w.WriteString("hello"); w.Close() }()
		if got, err := io.ReadAll(rd); string(got) != "hello" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
	})
}
