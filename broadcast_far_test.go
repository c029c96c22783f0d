//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// farBroadcast opens one at a broker, and readers at others, each of which knows that it is open
// when the writer goes on.
func farBroadcast(t *testing.T, cfg BroadcastConfig, at *Broker, readers ...*Broker) (*Writer, []*Reader) {
	t.Helper()
	cfg.Readers = max(cfg.Readers, len(readers))
	w, err := cfg.OpenBroadcast(t.Context(), at.Client(), "cast")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.CloseWithError(errors.New("the test is over")) })
	all := make([]*Reader, len(readers))
	for i, b := range readers {
		all[i] = farListener(t, b)
	}
	return w, all
}

// farListener opens a reader of a broadcast of which its broker may not have heard yet, so that
// there can be one alone.
func farListener(t *testing.T, b *Broker) *Reader {
	t.Helper()
	var r *Reader
	eventually(t, "a reader is open", func() bool {
		var err error
		r, err = b.Client().OpenReader(t.Context(), "cast")
		if err != nil && !errors.Is(err, ErrPipeBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Cleanup(func() { r.Close() })
	return r
}

// reads says that the next bytes of a reader are those.
func reads(t testing.TB, r *Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	r.SetReadDeadline(time.Now().Add(dead + soon))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v; want %q", b[:n], err, want)
	}
	r.SetReadDeadline(time.Time{})
}

// endsWith says that those are a reader's last bytes, and what comes behind.
func endsWith(t testing.TB, r *Reader, want string, end error) error {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(dead + soon))
	b, err := io.ReadAll(r)
	if err == nil {
		err = io.EOF
	}
	if string(b) != want || !errors.Is(err, end) {
		t.Errorf("%q, %v; want %q, %v", b, err, want, end)
	}
	return err
}

// castInfo is what a broker has of the broadcast.
func castInfo(b *Broker) PipeInfo {
	for info := range b.Pipes() {
		if info.Name == "cast" {
			return info
		}
	}
	return PipeInfo{}
}

// Readers at all brokers get all, however often connections break, and one copy goes to each
// broker.
func TestBroadcastBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	a, b := brokers[0], brokers[1]
	w, readers := farBroadcast(t, BroadcastConfig{}, a, a, b, b, b, brokers[2])
	sent := noise(1, 16<<20)
	var all sync.WaitGroup
	for i, r := range readers {
		all.Go(func() {
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("reader %d got %d bytes of %d, %v", i, len(got), len(sent), err)
			}
			r.Close()
		})
	}
	done := inBackground(func() (int, error) {
		n, err := w.Write(sent[:len(sent)/2])
		for rest := sent[n:]; err == nil && len(rest) > 0; { // and small ones
			var k int
			k, err = w.Write(rest[:min(len(rest), 1+n%5000)])
			rest, n = rest[k:], n+k
		}
		return n, errors.Join(err, w.Close())
	})
	came := int64(0)
	for over := false; !over; {
		select {
		case wrote := <-done:
			if wrote.err != nil || wrote.n != len(sent) {
				t.Errorf("wrote %d, %v", wrote.n, wrote.err)
			}
			over = true
		case <-time.After(30 * time.Millisecond):
			c.severAgain(a, b, &came)
		}
	}
	all.Wait()
	for i, b := range brokers {
		eventually(t, fmt.Sprint("nothing is left at ", i), func() bool { return holds(b) == 0 })
	}
	if in := b.Stats().BytesIn; in != int64(len(sent)) {
		t.Errorf("%d bytes came to a broker with three readers, %d were sent", in, len(sent))
	}
}

// Who waits for a writer has one, wherever that comes; who comes later gets what is kept, from
// the begin of a Write.
func TestBroadcastBetweenBrokersLateAndEarly(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	early, err := brokers[1].Client().OpenReader(t.Context(), "cast")
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	w, _ := farBroadcast(t, BroadcastConfig{Keep: 10, Readers: 1}, brokers[0])
	for _, s := range []string{"one", "two", "three", "four"} {
		write(t, w, s)
		flush(t, w)
	}
	for i, b := range []*Broker{brokers[2], brokers[2], brokers[1], brokers[0]} {
		if i == 2 { // its broker may be behind
			eventually(t, "the other broker has all", func() bool { return castInfo(brokers[1]).BytesIn == 15 })
		}
		late := farListener(t, b)
		reads(t, late, "threefour")
	}
	reads(t, early, "onetwothreefour")
	for _, b := range brokers[1:] {
		if info := castInfo(b); info.Mode != ModeBroadcast || !strings.HasPrefix(info.WriterAt, brokers[0].mesh.name) {
			t.Errorf("%+v", info)
		}
	}
	eventually(t, "the writer's broker knows of all", func() bool { return castInfo(brokers[0]).Readers == 5 })
	w.Close()
	endsWith(t, early, "", io.EOF)
}

// Readers is about those at all brokers together.
func TestBroadcastBetweenBrokersWaitsForReaders(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, readers := farBroadcast(t, BroadcastConfig{Readers: 3}, brokers[0], brokers[1], brokers[1])
	write(t, w, "hello")
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var undelivered *UndeliveredError
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 5 {
		t.Errorf("Flush with two readers of three: %v", err)
	}
	w.SetWriteDeadline(time.Time{})
	readers = append(readers, farListener(t, brokers[1]))
	flush(t, w)
	for _, r := range readers {
		reads(t, r, "hello")
		r.Close()
	}
	eventually(t, "they have gone", func() bool { return castInfo(brokers[0]).Readers == 0 && holds(brokers[1]) == 0 })
	again := farListener(t, brokers[1])
	write(t, w, "again")
	flush(t, w)
	reads(t, again, "again")
	w.CloseWithError(errors.New("that was it"))
	if err := endsWith(t, again, "", io.ErrUnexpectedEOF); !strings.Contains(err.Error(), "that was it") {
		t.Error(err)
	}
}

// One that stands still at another host holds the writer up for the patience, and alone is left
// behind.
func TestBroadcastBetweenBrokersLeavesTheSlowBehind(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	patience := 2 * time.Second // so that on a busy machine nobody else stands still for so long
	defer func(d time.Duration) { farGrace = d }(farGrace)
	farGrace = time.Minute
	w, readers := farBroadcast(t, BroadcastConfig{Patience: patience}, brokers[0], brokers[0], brokers[1], brokers[1])
	slow := readers[2]
	sent := noise(2, 8<<20)
	var all sync.WaitGroup
	for _, r := range readers[:2] {
		all.Go(func() {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(sent), err)
			}
		})
	}
	began := time.Now()
	if _, err := w.Write(sent); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < patience {
		t.Errorf("it was held up for %v", took)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	slow.SetReadDeadline(time.Now().Add(soon))
	got, err := io.ReadAll(slow)
	var missed *MissedError
	if !bytes.HasPrefix(sent, got) || !errors.Is(err, ErrTooSlow) || !errors.As(err, &missed) || missed.Bytes == 0 {
		t.Errorf("the slow one got %d bytes, %v", len(got), err)
	}
}

// What was on its way to readers that are left behind counts as had, and not also as missed.
func TestBroadcastMissedBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	defer func(d time.Duration) { farGrace = d }(farGrace)
	farGrace = 100 * time.Millisecond // far less than a link is silent before it is lost
	w, readers := farBroadcast(t, BroadcastConfig{Patience: 100 * time.Millisecond}, brokers[0], brokers[0], brokers[1])
	write(t, w, "hello")
	for _, r := range readers {
		reads(t, r, "hello")
	}
	c.cut(brokers[0], brokers[1])
	go io.Copy(io.Discard, readers[0])
	sent := noise(3, defaultMaxPending+1<<17)
	write(t, w, string(sent))
	flush(t, w) // by then the other host is left behind
	c.heal(brokers[0], brokers[1])
	readers[1].SetReadDeadline(time.Now().Add(c.patience + dead + soon))
	b, err := io.ReadAll(readers[1])
	var missed *MissedError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // the machine was so slow that the link was lost
	case !bytes.HasPrefix(sent, b) || !errors.As(err, &missed) || missed.Bytes == 0 || len(b)+int(missed.Bytes) != len(sent):
		t.Errorf("got %d bytes of %d, %v", len(b), len(sent), err)
	}
}

// A host that can't be reached holds the writer up for the patience; its readers are told that
// they have missed something.
func TestBroadcastToAHostThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, readers := farBroadcast(t, BroadcastConfig{Patience: 2 * time.Second}, brokers[0], brokers[0], brokers[1])
	write(t, w, "hello")
	for _, r := range readers {
		reads(t, r, "hello")
	}
	c.cut(brokers[0], brokers[1])
	sent := noise(3, 8<<20)
	got := inBackground(func() (int, error) {
		b, err := io.ReadAll(readers[0])
		if !bytes.Equal(b, sent) {
			t.Error("other bytes")
		}
		return len(b), err
	})
	if _, err := w.Write(sent); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if r := <-got; r.err != nil {
		t.Errorf("got %d, %v", r.n, r.err)
	}
	c.heal(brokers[0], brokers[1])
	readers[1].SetReadDeadline(time.Now().Add(c.patience + dead + soon))
	b, err := io.ReadAll(readers[1])
	if !bytes.HasPrefix(sent, b) || len(b) == len(sent) || !errors.Is(err, ErrTooSlow) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d bytes of %d, %v", len(b), len(sent), err)
	}
}

// A broker that ends takes its readers with it, or the writer; nobody else notices more than that.
func TestBroadcastWhoseBrokersEnd(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	w, readers := farBroadcast(t, BroadcastConfig{}, brokers[0], brokers[1], brokers[2])
	write(t, w, "hello")
	for _, r := range readers {
		reads(t, r, "hello")
	}
	brokers[1].Close()
	endsWith(t, readers[0], "", ErrBrokerGone)
	write(t, w, "more")
	flush(t, w)
	reads(t, readers[1], "more")
	brokers[0].Close()
	endsWith(t, readers[1], "", io.ErrUnexpectedEOF)
	readers[1].Close()
	eventually(t, "nothing is left", func() bool { return holds(brokers[2]) == 0 })
}

// A reader at another host gets what was written before the writer has left, and its broker's
// Shutdown waits for that.
func TestBroadcastWhoseBrokerShutsDown(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, readers := farBroadcast(t, BroadcastConfig{}, brokers[0], brokers[1])
	write(t, w, "first")
	reads(t, readers[0], "first")
	c.cut(brokers[0], brokers[1])
	write(t, w, "hello")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	done := inBackground(func() (int, error) { return 0, brokers[0].Shutdown(t.Context()) })
	select {
	case <-done:
		t.Error("it did not wait")
	case <-time.After(100 * time.Millisecond):
	}
	c.heal(brokers[0], brokers[1])
	endsWith(t, readers[0], "hello", io.EOF)
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}

// Two writers of one name, at different brokers: who has readers stays.
func TestBroadcastsConflictBetweenBrokers(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	w, readers := farBroadcast(t, BroadcastConfig{}, brokers[0], brokers[1])
	write(t, w, "hello")
	reads(t, readers[0], "hello")
	second, err := brokers[2].Client().OpenBroadcast(t.Context(), "cast")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	eventually(t, "the second one is told", func() bool {
		_, err := second.WriteString("x")
		return errors.Is(err, ErrPipeBusy)
	})
	if _, err := brokers[1].Client().OpenWriter(t.Context(), "cast"); !errors.Is(err, ErrPipeBusy) {
		t.Errorf("a stream's writer beside its readers: %v", err)
	}
	write(t, w, "more")
	reads(t, readers[0], "more")
}
