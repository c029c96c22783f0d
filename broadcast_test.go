//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func (r *rig) broadcast(name string, cfg BroadcastConfig) *Writer {
	r.Helper()
	w, err := cfg.OpenBroadcast(r.Context(), r.client, name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { w.SetWriteDeadline(time.Unix(1, 0)); w.Close() })
	return w
}

// awaitBroadcast waits until somebody writes one.
func (r *rig) awaitBroadcast(name string) {
	r.Helper()
	eventually(r, "a broadcast", func() bool {
		s, err := r.client.Status(r.Context())
		return err == nil && slices.ContainsFunc(s.Pipes, func(p PipeInfo) bool { return p.Name == name && p.Writer })
	})
}

// overBroadcasts is overWays but for the base protocol, which has none.
func overBroadcasts(t *testing.T, broker BrokerConfig, client ClientConfig, test func(r *rig)) {
	t.Helper()
	overWays(t, broker, client, func(r *rig) {
		if !r.base {
			test(r)
			return
		}
		if _, err := r.client.OpenBroadcast(r.Context(), "p"); !errors.Is(err, errors.ErrUnsupported) {
			r.Errorf("at a broker of the base protocol: %v", err)
		}
	})
}

// gets says that the next bytes of a reader are those.
func (r *rig) gets(rd *Reader, want string) {
	r.Helper()
	b := make([]byte, len(want))
	rd.SetReadDeadline(time.Now().Add(soon))
	if n, err := io.ReadFull(rd, b); err != nil || string(b) != want {
		r.Fatalf("%q, %v; want %q", b[:n], err, want)
	}
	rd.SetReadDeadline(time.Time{})
}

// getsRest says that those are the last bytes, and what comes behind.
func (r *rig) getsRest(rd *Reader, want string, end error) {
	r.Helper()
	rd.SetReadDeadline(time.Now().Add(soon))
	b, err := io.ReadAll(rd)
	if err == nil {
		err = io.EOF
	}
	if string(b) != want || !errors.Is(err, end) {
		r.Errorf("%q, %v; want %q, %v", b, err, want, end)
	}
}

func write(t testing.TB, w *Writer, s string) {
	t.Helper()
	if _, err := w.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Each reader gets all, in whichever way it reads, and knows the end.
func TestBroadcastToAll(t *testing.T) {
	t.Parallel()
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
		const readers = 4
		rnd := scripted(1)
		data := make([]byte, 2<<20)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		w := r.broadcast("p", BroadcastConfig{Readers: readers})
		var wg sync.WaitGroup
		for i := range readers {
			rd := r.reader("p")
			wg.Go(func() {
				var got bytes.Buffer
				var err error
				switch i {
				case 0:
					_, err = rd.WriteTo(&got)
				case 1:
					_, err = io.Copy(&got, struct{ io.Reader }{rd})
				default:
					b := make([]byte, 1+i*1777)
					for err == nil {
						var n int
						n, err = rd.Read(b)
						got.Write(b[:n])
					}
					if err == io.EOF {
						err = nil
					}
				}
				if err != nil || !bytes.Equal(got.Bytes(), data) {
					r.Errorf("reader %d got %d bytes of %d, %v", i, got.Len(), len(data), err)
				}
			})
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(1<<rnd.IntN(19)))
			if n%3 == 0 {
				if k, err := w.ReadFrom(bytes.NewReader(rest[:n])); k != int64(n) || err != nil {
					r.Fatal(k, err)
				}
			} else if _, err := w.Write(rest[:n]); err != nil {
				r.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		wg.Wait()
	})
}

// Without Readers a writer waits for nobody, and a reader begins with the next Write.
func TestBroadcastLateReaderBeginsAtAWrite(t *testing.T) {
	overBroadcasts(t, BrokerConfig{MaxPending: 100}, ClientConfig{Window: 100}, func(r *rig) {
		w := r.broadcast("p", BroadcastConfig{})
		write(r, w, strings.Repeat("unheard", 1000))
		flush(r, w)
		first := r.reader("p")
		write(r, w, "one.")
		flush(r, w)
		second := r.reader("p")
		write(r, w, "two.")
		r.gets(first, "one.two.")
		r.gets(second, "two.")

		// In the middle of a Write.
		rest := r.begin(func() (int, error) { return w.Write(bytes.Repeat([]byte("x"), 5000)) })
		r.gets(first, "xxx")
		third := r.reader("p")
		for _, rd := range []*Reader{first, second} {
			go io.Copy(io.Discard, io.LimitReader(rd, 5000-3))
		}
		if got := r.within(soon, rest); got.err != nil {
			r.Fatal(got.err)
		}
		flush(r, w)
		write(r, w, "three.")
		flush(r, w)
		r.gets(third, "three.")
	})
}

// Who comes late gets the last whole Writes, as far as they are no more than Keep.
func TestBroadcastKeep(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		w := r.broadcast("p", BroadcastConfig{Keep: 1000})
		all := ""
		for i, want := range []int{7, 14, 994, 994, 994} {
			for len(all) < []int{7, 14, 994, 1001, 10_003}[i] {
				s := fmt.Sprintf("%06d.", len(all)/7)
				write(r, w, s)
				all += s
			}
			flush(r, w)
			write(r, w, "")
			r.gets(r.reader("p"), all[len(all)-want:])
		}
		write(r, w, strings.Repeat("x", 1001))
		flush(r, w)
		rd := r.reader("p")
		write(r, w, "next")
		r.gets(rd, "next")
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		r.getsRest(rd, "", io.EOF)
	})
}

// Of Writes of single bytes, to tell where they begin takes as much as they do, and it counts likewise: a client that
// is held up sends no more than waits at the broker.
func TestBroadcastOfSingleBytes(t *testing.T) {
	t.Parallel()
	(&rig{T: t}).busy()
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	c := ClientConfig{Window: 4 << 20, Timeout: 5 * time.Minute}.clientOf(t, memoryEndpoint(b.Name()))
	w, err := BroadcastConfig{Keep: b.cfg.MaxPending}.OpenBroadcast(t.Context(), c, "p")
	if err != nil {
		t.Fatal(err)
	}
	rd, err := b.Client().OpenReader(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	write(t, w, strings.Repeat("x", b.cfg.MaxPending)) // all that there is room for
	flush(t, w)
	const more = 1 << 20
	for range more {
		write(t, w, "y")
	}
	if _, err := c.Ping(t.Context()); err != nil { // what may leave has left
		t.Error(err)
	}
	done := make(chan int64, 1)
	go func() {
		n, err := io.Copy(io.Discard, rd)
		if err != nil {
			t.Error(err)
		}
		done <- n
	}()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n := <-done; n != int64(b.cfg.MaxPending+more) {
		t.Errorf("%d bytes were read", n)
	}
}

// A writer that waits for readers gives all of them all; when none is left it waits for the
// next one.
func TestBroadcastReaders(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		w := r.broadcast("p", BroadcastConfig{Readers: 2})
		write(r, w, "one.")
		flushed := r.begin(func() (int, error) { return 0, w.Flush() })
		a := r.reader("p")
		write(r, w, "two.")
		b := r.reader("p")
		if got := r.within(soon, flushed); got.err != nil {
			r.Fatal(got.err)
		}
		r.gets(a, "one.two.")
		r.gets(b, "one.two.")
		a.Close()
		write(r, w, "three.")
		flush(r, w)
		b.Close()
		write(r, w, "four.")
		flushed = r.begin(func() (int, error) { return 0, w.Flush() })
		c := r.reader("p")
		if got := r.within(soon, flushed); got.err != nil {
			r.Fatal(got.err)
		}
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		r.getsRest(c, "four.", io.EOF)
	})
}

// A reader that stands still holds up the writer for the patience and no longer; others get
// all, and it is told what it has missed.
func TestBroadcastPatience(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Second // longer than a busy machine has the one that goes on wait
	overBroadcasts(t, BrokerConfig{MaxPending: 64 << 10}, ClientConfig{Window: 64 << 10}, func(r *rig) {
		const size = 3 << 20
		w := r.broadcast("p", BroadcastConfig{Readers: 3, Patience: patience})
		stopped, alsoStopped, goes := r.reader("p"), r.reader("p"), r.reader("p")
		var got int64
		var gotErr error
		done := make(chan bool)
		go func() {
			got, gotErr = io.Copy(io.Discard, goes)
			close(done)
		}()
		var longest time.Duration
		for range size / 1000 {
			start := time.Now()
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				r.Fatal(err)
			}
			longest = max(longest, time.Since(start))
		}
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		<-done
		if got != size/1000*1000 || gotErr != nil {
			r.Errorf("the reader that goes on got %d bytes, %v", got, gotErr)
		}
		if longest < patience/2 || longest > patience+soon {
			r.Errorf("a Write was held up for %v", longest)
		}
		for _, rd := range []*Reader{stopped, alsoStopped} {
			n, err := io.Copy(io.Discard, rd)
			var missed *MissedError
			if !errors.Is(err, ErrTooSlow) || !errors.As(err, &missed) {
				r.Fatalf("a reader that stood still got %d bytes, %v", n, err)
			}
			if missed.Bytes <= 0 || n+missed.Bytes > size {
				r.Errorf("%d bytes read and %d missed of %d", n, missed.Bytes, size)
			}
		}
	})
}

// What a reader has got, and what it has missed, are all that had been written.
func TestBroadcastMissedBytes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPending: 1000})
	r := &rig{T: t, broker: b.Name(), client: b.Client()}
	defer r.client.Close()
	w := r.broadcast("p", BroadcastConfig{Patience: time.Millisecond})
	rd := r.reader("p")
	write(r, w, strings.Repeat("x", 1000))
	r.gets(rd, "xxx")
	write(r, w, strings.Repeat("y", 50))
	flush(r, w)
	_, err := rd.Read(make([]byte, 1))
	var missed *MissedError
	if !errors.As(err, &missed) || missed.Bytes != 1047 {
		t.Errorf("%v, want 1047 bytes missed", err)
	}
}

// What a Read or WriteTo had in hand when its Reader was left behind was not missed.
func TestBroadcastMissedInHand(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPending: 1000})
	r := &rig{T: t, broker: b.Name(), client: b.Client()}
	defer r.client.Close()
	const size = 2000
	w := r.broadcast("p", BroadcastConfig{Patience: 10 * time.Millisecond})
	rd := r.reader("p")
	write(r, w, strings.Repeat("x", 10))
	flush(r, w)
	first := true
	got, err := rd.WriteTo(writerFunc(func(b []byte) (int, error) {
		if first {
			first = false
			write(r, w, strings.Repeat("y", size-10))
			flush(r, w)
		}
		return len(b), nil
	}))
	var missed *MissedError
	if !errors.As(err, &missed) || got+missed.Bytes != size {
		t.Errorf("%d bytes, %v, of %d", got, err, size)
	}
}

// How a writer ends is each reader's end; how a reader does is nobody's.
func TestBroadcastEnds(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		w := r.broadcast("p", BroadcastConfig{})
		a, b, c := r.reader("p"), r.reader("p"), r.reader("p")
		write(r, w, "x")
		flush(r, w)
		c.CloseWithError(errors.New("enough"))
		write(r, w, "y")
		flush(r, w)
		r.gets(a, "xy")
		w.CloseWithError(errors.New("disk full"))
		r.getsRest(a, "", io.ErrUnexpectedEOF)
		r.getsRest(b, "xy", io.ErrUnexpectedEOF)
		if _, err := a.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "disk full") {
			r.Errorf("the reason is lost: %v", err)
		}
		if err := r.broadcast("p", BroadcastConfig{}).Close(); err != nil {
			r.Errorf("a writer nobody has heard can't close: %v", err)
		}
	})
}

// Very many readers each get all, and their coming and going costs nobody anything.
func TestBroadcastThousandReaders(t *testing.T) {
	t.Parallel()
	overBroadcasts(t, BrokerConfig{}, patient, func(r *rig) {
		const readers, size = 1000, 20_000
		data := noise(5, size)
		w := r.broadcast("p", BroadcastConfig{Readers: readers})
		var all sync.WaitGroup
		for range readers {
			rd := r.reader("p")
			all.Go(func() {
				if got, err := io.ReadAll(rd); err != nil || !bytes.Equal(got, data) {
					r.Errorf("a reader got %d bytes, %v", len(got), err)
				}
				rd.Close()
			})
		}
		for rest := data; len(rest) > 0; rest = rest[1000:] {
			if _, err := w.Write(rest[:1000]); err != nil {
				r.Fatal(err)
			}
		}
		w.SetWriteDeadline(time.Now().Add(4 * soon))
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		all.Wait()
	})
}

// A Shutdown lets all readers have what there is for them.
func TestBroadcastShutdown(t *testing.T) {
	for _, where := range []string{"direct", "over a connection"} {
		t.Run(where, func(t *testing.T) {
			b := startBroker(t, BrokerConfig{})
			r := &rig{T: t, broker: b.Name()}
			if where != "direct" {
				r.broker = b.Endpoints()[0]
			}
			r.client = r.newClient(ClientConfig{})
			w := r.broadcast("p", BroadcastConfig{Keep: 1000})
			readers := []*Reader{r.reader("p"), r.reader("p"), r.reader("p")}
			data := noise(7, 500_000)
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
			flush(r, w)
			r.gets(readers[0], string(data[:1000]))
			down := r.begin(func() (int, error) { return 0, b.Shutdown(t.Context()) })
			if err := r.writeUntilError(w); !errors.Is(err, ErrBrokerGone) {
				t.Errorf("Write: %v", err)
			}
			r.getsRest(readers[0], string(data[1000:]), ErrBrokerGone)
			r.getsRest(readers[1], string(data), ErrBrokerGone)
			readers[2].Close()
			if got := r.within(soon, down); got.err != nil {
				t.Errorf("Shutdown: %v", got.err)
			}
		})
	}
}

// Names belong to one kind of pipe, and one writer.
func TestBroadcastNames(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		ctx, c := r.Context(), r.client
		r.broadcast("p", BroadcastConfig{})
		r.writer("s")
		q, err := c.OpenQueue(ctx, "q")
		if err != nil {
			r.Fatal(err)
		}
		defer q.Close()
		for _, test := range []struct {
			what string
			open func() error
			want error
		}{
			{"a second broadcast", func() error { _, err := c.OpenBroadcast(ctx, "p"); return err }, ErrPipeBusy},
			{"a stream's writer", func() error { _, err := c.OpenWriter(ctx, "p"); return err }, ErrPipeBusy},
			{"a queue", func() error { _, err := c.OpenQueue(ctx, "p"); return err }, ErrPipeMode},
			{"a broadcast of a queue's name", func() error { _, err := c.OpenBroadcast(ctx, "q"); return err }, ErrPipeMode},
			{"a broadcast of a stream's name", func() error { _, err := c.OpenBroadcast(ctx, "s"); return err }, ErrPipeBusy},
			{"a name that is none", func() error { _, err := c.OpenBroadcast(ctx, ""); return err }, ErrBadName},
			{"too much to keep", func() error {
				_, err := BroadcastConfig{Keep: 1 << 30}.OpenBroadcast(ctx, c, "k")
				return err
			}, ErrTooManyPipes},
		} {
			if err := test.open(); !errors.Is(err, test.want) {
				r.Errorf("%s: %v, want %v", test.what, err, test.want)
			}
		}
		if _, err := (BroadcastConfig{Keep: -1}).OpenBroadcast(ctx, c, "k"); err == nil {
			r.Error("a negative Keep is taken")
		}
	})
}

// A reader that waits for a stream's writer is the first of a broadcast.
func TestBroadcastFindsAReaderThatWaits(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		rd := r.reader("p")
		waits := r.begin(func() (int, error) { return rd.Read(make([]byte, 10)) })
		if _, err := r.client.OpenReader(r.Context(), "p"); !errors.Is(err, ErrPipeBusy) {
			r.Errorf("a second reader before the writer: %v", err)
		}
		w := r.broadcast("p", BroadcastConfig{})
		second := r.reader("p")
		write(r, w, "x")
		if got := r.within(soon, waits); got.n != 1 || got.err != nil {
			r.Errorf("%d, %v", got.n, got.err)
		}
		r.gets(second, "x")
		if err := w.Close(); err != nil {
			r.Error(err)
		}
		r.getsRest(rd, "", io.EOF)
		r.getsRest(second, "", io.EOF)
		r.writer("p").CloseWithError(os.ErrInvalid) // the name is a stream's again
	})
}

func TestBroadcastInfo(t *testing.T) {
	overBroadcasts(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		w := r.broadcast("p", BroadcastConfig{Keep: 10})
		for range 3 {
			r.reader("p")
		}
		info := func() PipeInfo {
			s, err := r.client.Status(r.Context())
			if err != nil {
				r.Fatal(err)
			}
			i := slices.IndexFunc(s.Pipes, func(p PipeInfo) bool { return p.Name == "p" })
			if i < 0 {
				return PipeInfo{}
			}
			return s.Pipes[i]
		}
		if got := info(); got.Mode != ModeBroadcast || got.Readers != 3 || !got.Reader || !got.Writer || got.Lag != 0 {
			r.Errorf("%+v", got)
		}
		write(r, w, "hello")
		flush(r, w)
		eventually(r, "three readers have all, or will", func() bool {
			got := info()
			// Over a connection readers ask ahead only once somebody reads.
			return got.Queued == 5 && got.BytesIn == 5 && got.Lag == 5 && got.BytesOut == 0
		})
	})
}
