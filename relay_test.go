//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Ends of one name at different brokers, whichever comes first.
func TestStreamBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	for i, first := range []role{reader, writer} {
		name := "pipe of " + first.String()
		var r *Reader
		var w *Writer
		open := func(x role) {
			var err error
			if x == reader {
				r, err = brokers[0].Client().OpenReader(t.Context(), name)
			} else {
				w, err = brokers[1+i].Client().OpenWriter(t.Context(), name)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		open(first)
		open(1 - first)
		sent := noise(1, 3<<20)
		done := inBackground(func() (int, error) {
			n, err := w.Write(sent)
			return n, errors.Join(err, w.Close())
		})
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if wrote := <-done; wrote.err != nil || wrote.n != len(sent) {
			t.Errorf("wrote %d, %v", wrote.n, wrote.err)
		}
		r.Close()
	}
	for _, b := range brokers {
		eventually(t, "nothing is left", func() bool {
			return holds(b) == 0
		})
	}
}

// holds is how many pipes a broker has, and writers of other brokers.
func holds(b *Broker) int {
	b.pipes.mu.Lock()
	defer b.pipes.mu.Unlock()
	return b.pipes.all.len() + len(b.pipes.far)
}

// Nothing is confirmed before the reader's broker has it.
func TestFlushBetweenBrokers(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, err := brokers[0].Client().OpenWriter(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer w.CloseWithError(errors.New("the test is over"))
	w.WriteString("hello")
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var undelivered *UndeliveredError
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 5 {
		t.Errorf("Flush without a reader: %v", err)
	}
	w.SetWriteDeadline(time.Time{})
	r, err := brokers[1].Client().OpenReader(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	c.cut(brokers[0], brokers[1])
	b := make([]byte, 10)
	if n, err := r.Read(b); string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	w.WriteString("more")
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 4 {
		t.Errorf("Flush while they are cut off: %v", err)
	}
	w.SetWriteDeadline(time.Time{})
	c.heal(brokers[0], brokers[1])
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	if n, err := r.Read(b); string(b[:n]) != "more" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// A stream goes on where its connections break, or nothing passes for a while.
func TestStreamsGoOn(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, r := streamBetween(t, ClientConfig{Timeout: time.Minute}.client(t, brokers[0]), brokers[1])
	sent := noise(2, 32<<20)
	half := make(chan bool)
	var breaks atomic.Int32
	done := inBackground(func() (int, error) {
		n, err := w.Write(sent[:len(sent)/2])
		close(half)
		for err == nil && (n < len(sent) || breaks.Load() < 2) { // after its end once more
			k := 0
			k, err = w.Write(sent[n%len(sent):][:1<<20])
			n += k
		}
		return n, errors.Join(err, w.Close())
	})
	got := make(chan []byte)
	go func() {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	for came := int64(0); ; {
		select {
		case b := <-got:
			wrote := <-done
			check(t, wrote.err)
			if want := bytes.Repeat(sent, 1+wrote.n/len(sent))[:wrote.n]; !bytes.Equal(b, want) {
				t.Errorf("%d bytes came, of %d, or other ones", len(b), len(want))
			}
			return
		case <-half:
			half = nil
			c.cut(brokers[0], brokers[1])
			time.Sleep(deadAfter + time.Second) // until both have missed each other
			c.heal(brokers[0], brokers[1])
		case <-time.After(20 * time.Millisecond):
			if c.severAgain(brokers[0], brokers[1], &came) {
				breaks.Add(1)
			}
		}
	}
}

// A writer whose last word has arrived, and whose broker does not get the answer, has closed.
func TestStreamsCloseOnce(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, r := streamBetween(t, ClientConfig{Timeout: time.Minute}.client(t, brokers[0]), brokers[1])
	_, err := io.WriteString(w, "all of it")
	check(t, err)
	check(t, w.Flush())
	c.cutFrom(brokers[1], brokers[0])
	closed := inBackground(func() (int, error) { return 0, w.Close() })
	if b, err := io.ReadAll(r); err != nil || string(b) != "all of it" {
		t.Errorf("read %q, %v", b, err)
	}
	c.sever(brokers[0], brokers[1])
	c.heal(brokers[0], brokers[1])
	if c := <-closed; c.err != nil {
		t.Error(c.err)
	}
}

// streamBetween opens a stream from a client to another broker's.
func streamBetween(t *testing.T, from *Client, to *Broker) (*Writer, *Reader) {
	t.Helper()
	r, err := to.Client().OpenReader(t.Context(), "pipe")
	check(t, err)
	t.Cleanup(func() { r.Close() })
	w, err := from.OpenWriter(t.Context(), "pipe")
	check(t, err)
	return w, r
}

// client is a client of a broker in this process.
func (cfg ClientConfig) client(t testing.TB, b *Broker) *Client {
	c, err := cfg.NewClient(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A far end of whatever kind: what its process does, or suffers, is told.
func TestEndsBetweenBrokersAreTold(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	open := func(name string) (*Reader, *Writer) {
		r, err := brokers[0].Client().OpenReader(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		w, err := brokers[1].Client().OpenWriter(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString("hello")
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	r, w := open("reader leaves")
	r.CloseWithError(errors.New("no more, thanks"))
	eventually(t, "the writer learns of it", func() bool {
		_, err := w.WriteString("x")
		return errors.Is(err, io.ErrClosedPipe) && strings.Contains(err.Error(), "no more, thanks")
	})
	w.Close()

	r, w = open("writer gives up")
	w.CloseWithError(errors.New("that was it"))
	b, err := io.ReadAll(r)
	if string(b) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "that was it") {
		t.Errorf("%q, %v", b, err)
	}
	r.Close()

	r, w = open("broker ends")
	brokers[1].Close()
	b, err = io.ReadAll(r)
	if string(b) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := w.WriteString("x"); !errors.Is(err, ErrBrokerGone) {
		t.Error(err)
	}
	r.Close()
	eventually(t, "nothing is left", func() bool { return holds(brokers[0]) == 0 })
}

// Where the other broker can't be reached for too long, both ends are told, and which it is.
func TestPatienceBetweenBrokers(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	c.patience = 3 * time.Second
	brokers := c.meshed(t, 2)
	r, err := brokers[0].Client().OpenReader(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := brokers[1].Client().OpenWriter(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	w.WriteString("hello")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for info := range brokers[0].Pipes() {
		if info.WriterAt != brokers[1].mesh.name || info.ReaderAt != "" {
			t.Errorf("%+v", info)
		}
	}
	for info := range brokers[1].Pipes() {
		if info.ReaderAt != brokers[0].mesh.name+" ("+brokers[0].mesh.port.Address()+")" || info.WriterAt != "" {
			t.Errorf("%+v", info)
		}
	}
	c.cut(brokers[0], brokers[1])
	began := time.Now()
	w.WriteString("more") // before either side is told
	b, err := io.ReadAll(r)
	if string(b) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), brokers[1].mesh.name) {
		t.Errorf("%q, %v", b, err)
	}
	var undelivered *UndeliveredError
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 4 || !errors.Is(err, io.ErrClosedPipe) || !strings.Contains(err.Error(), brokers[0].mesh.name) {
		t.Error(err)
	}
	if took := time.Since(began); took < c.patience || took > c.patience+dead+soon {
		t.Errorf("told after %v", took)
	}
	w.Close()
}

// Two readers of one name can be open at brokers that do not see each other. When they do, one
// of them is told, and the other one meets the writer.
func TestConflictBetweenBrokers(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	for i := range 2 {
		c.cut(brokers[i], brokers[2])
	}
	eventuallyWithin(t, dead+soon, "they miss each other", func() bool {
		return !brokers[2].linkedWith(brokers[0]) && !brokers[2].linkedWith(brokers[1])
	})
	var readers [2]*Reader
	said := make(chan error, 2)
	for i, b := range []*Broker{brokers[0], brokers[2]} {
		r, err := b.Client().OpenReader(t.Context(), "pipe")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers[i] = r
		go func() {
			b, err := io.ReadAll(r)
			if err == nil && string(b) != "hello" {
				t.Errorf("read %q", b)
			}
			said <- err
		}()
	}
	for i := range 2 {
		c.heal(brokers[i], brokers[2])
	}
	if err := <-said; !errors.Is(err, ErrPipeBusy) {
		t.Errorf("the first one says %v", err)
	}
	w, err := brokers[1].Client().OpenWriter(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	w.WriteString("hello")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-said; err != nil {
		t.Errorf("the second one says %v", err)
	}
}

// Clients of other processes, and of earlier versions, at either end. (Here they are in this
// process, over a connection in memory or ZeroMQ.)
func TestRemoteClientsBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	for i, way := range []func(*Broker) *Client{
		(*Broker).Client,
		func(b *Broker) *Client { return ClientConfig{}.clientOf(t, memoryEndpoint(b.name)) },
	} {
		for j, other := range []func(*Broker) *Client{
			(*Broker).Client,
			func(b *Broker) *Client { return ClientConfig{}.clientOf(t, memoryEndpoint(b.name)) },
		} {
			name := string(rune('a'+i)) + string(rune('a'+j))
			r, err := way(brokers[0]).OpenReader(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			w, err := other(brokers[1]).OpenWriter(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			sent := noise(3, 5<<20)
			done := inBackground(func() (int, error) {
				n, err := w.Write(sent)
				return n, errors.Join(err, w.Flush(), w.Close())
			})
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: got %d bytes, %v", name, len(got), err)
			}
			if wrote := <-done; wrote.err != nil || wrote.n != len(sent) {
				t.Errorf("%s: wrote %d, %v", name, wrote.n, wrote.err)
			}
			r.Close()
		}
	}
}

func (cfg ClientConfig) clientOf(t testing.TB, endpoint string) *Client {
	c := newClient(cfg.withDefaults(), endpoint, endpoint, nil)
	t.Cleanup(func() { c.Close() })
	return c
}

// A stream that has little to say gets its turn among others that always have more than there is room for.
func TestStreamBesideBusyOnes(t *testing.T) {
	t.Parallel()
	(&rig{T: t}).busy()
	c := newTestCluster()
	c.slow = 128 << 10
	brokers := c.meshed(t, 2)
	a, b := brokers[0].Client(), brokers[1].Client()
	open := func(name string) (*Writer, *Reader) {
		w, err := a.OpenWriter(t.Context(), name)
		check(t, err)
		r, err := b.OpenReader(t.Context(), name)
		check(t, err)
		return w, r
	}
	var busy sync.WaitGroup
	var stop atomic.Bool
	for i := range 2 * bulkConns { // so that there are such on each connection
		w, r := open(fmt.Sprint("busy", i))
		busy.Go(func() {
			for data := noise(uint64(i), 1<<20); !stop.Load(); {
				w.Write(data)
			}
			w.CloseWithError(io.ErrUnexpectedEOF)
		})
		busy.Go(func() { io.Copy(io.Discard, r) })
	}
	eventually(t, "they are busy", func() bool { return brokers[1].Stats().BytesIn > 4<<20 })
	for i := range 2 * bulkConns {
		w, r := open(fmt.Sprint("small", i))
		w.SetWriteDeadline(time.Now().Add(4 * soon))
		_, err := w.WriteString("x")
		if err = errors.Join(err, w.Flush(), w.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	busy.Wait()
}

// However many streams have room at the other broker, no more of them waits to leave than a
// slow way carries in about a second.
func TestStreamsShareASlowWay(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	c.slow = 32 << 10
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	const streams, size = 20, 512 << 10
	patient := ClientConfig{Timeout: time.Minute}.client(t, a)
	var all sync.WaitGroup
	for i := range streams {
		name := fmt.Sprint("slow", i)
		data := noise(uint64(i), size)
		w, err := patient.OpenWriter(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Client().OpenReader(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if _, err := w.Write(data); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	a.mesh.mu.Lock()
	bulk := a.mesh.fellows[b.mesh.id].bulkClient()
	a.mesh.mu.Unlock()
	most := 0
	for {
		select {
		case <-done:
			if limit := flightPaces*firstPace + firstPace; most == 0 || most > limit {
				t.Errorf("%d bytes waited to leave, %d may", most, limit)
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		bulk.mu.Lock()
		for k := range bulk.conns {
			f := k.transport.(*far)
			f.out.Lock()
			most = max(most, f.unsent)
			f.out.Unlock()
		}
		bulk.mu.Unlock()
	}
}
