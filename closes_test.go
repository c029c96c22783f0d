package zpipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The end of a stream is part of it, also where it is all there is.
func TestEmptyStream(t *testing.T) {
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
			r.Errorf("Close behind a reader: %v", err)
		}
	})
}

// If nobody has learnt of the end, Close says so, and nobody takes it for one.
func TestEmptyStreamThatNobodyReads(t *testing.T) {
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
		if r.old {
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
func TestEmptyStreamIntoAQueue(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.old {
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

// Who closes second waits for who closes first; and Client.Close says what became of it.
func TestWhoClosesSecondWaits(t *testing.T) {
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

func TestWhoClosesAQueueSecondWaits(t *testing.T) {
	r, b := overWire(t, BrokerConfig{MaxPending: 100}, ClientConfig{})
	c := r.newClient(ClientConfig{})
	q, err := c.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one waits until there is room
		if err := q.Send(t.Context(), make([]byte, 90)); err != nil {
			t.Fatal(err)
		}
	}
	first := r.begin(func() (int, error) { return 0, q.Close() })
	second := r.begin(func() (int, error) { return 0, q.Close() })
	all := r.begin(func() (int, error) { return 0, c.Close() })
	receiver, err := b.Client().OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	for range 2 {
		if _, err := receiver.Receive(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, done := range []<-chan result{first, second, all} {
		if got := r.within(soon, done); got.err != nil {
			t.Error(got.err)
		}
	}
}

// A call of others closes what calls it.
func TestCloseWithinACallback(t *testing.T) {
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

// CloseWithError ends a Close that still delivers.
func TestCloseWithErrorEndsAClose(t *testing.T) {
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
// exit behind it.
func TestCloseWithErrorThenExit(t *testing.T) {
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

// Shutdown that was cut short by Close says so.
func TestShutdownCutShort(t *testing.T) {
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

// A deadline may be set behind the end of a stream, as with other connections.
func TestDeadlineBehindTheEnd(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.Close()
		if _, err := io.ReadAll(rd); err != nil {
			r.Fatal(err)
		}
		if err := rd.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			r.Errorf("behind io.EOF: %v", err)
		}
		rd.Close()
		if err := rd.SetReadDeadline(time.Time{}); !errors.Is(err, os.ErrClosed) {
			r.Errorf("behind Close: %v", err)
		}
		if err := w.SetWriteDeadline(time.Time{}); !errors.Is(err, os.ErrClosed) {
			r.Errorf("behind a Writer's Close: %v", err)
		}
	})
}

// What was made in a synctest bubble is used in no other one, nor outside.
func TestSynctestBubbles(t *testing.T) {
	const env = "ZPIPES_TEST_BUBBLES"
	if os.Getenv(env) == "" { // the fault would end this process
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%.500s", err, out)
		}
		return
	}
	use := func(t *testing.T) {
		b := startBroker(t, BrokerConfig{})
		r := &rig{T: t, broker: b.Name()}
		r.client = r.newClient(ClientConfig{})
		q := r.queue("q")
		for range 5 {
			done := inBackground(func() (int, error) { _, err := q.Receive(t.Context()); return 0, err })
			for waits := false; !waits; { // without sleeping: time stands still in a bubble
				for p := range b.Pipes() {
					waits = waits || p.Reads
				}
			}
			r.send(q, "x")
			if got := <-done; got.err != nil {
				t.Fatal(got.err)
			}
		}
		rd, w := r.pipe("p")
		w.SetWriteDeadline(time.Now().Add(time.Hour))
		read := inBackground(func() (int, error) { return rd.Read(make([]byte, 1)) })
		w.WriteString("x")
		if got := <-read; got.err != nil {
			t.Fatal(got.err)
		}
	}
	for range 20 { // a pool has a slot for each processor
		synctest.Test(t, use)
		t.Run("outside", use)
	}
}
