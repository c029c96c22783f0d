//go:build linux && !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// byRing is the near way, on which every stream goes into a ring at once.
var byRing = way{name: "rings", moves: true, apart: true, start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
	name := uniqueName(t)
	c := startChild(t, childTask{Part: "broker", Broker: name, MaxPending: cfg.MaxPending, Backlog: cfg.Backlog, Rings: true}).ready()
	return name, c.kill
}}

func init() { ways = append(ways, byRing) }

func ringRig(t *testing.T, cfg BrokerConfig) *rig {
	r := &rig{T: t, way: byRing}
	r.broker, r.kill = byRing.start(t, cfg)
	r.client = r.newClient(ClientConfig{})
	return r
}

// moved writes and reads until the stream goes through a ring, and returns how many bytes.
func (r *rig) moved(rd *Reader, w *Writer) int {
	r.Helper()
	n := 0
	eventually(r, "a ring", func() bool {
		if _, err := w.Write([]byte("x")); err != nil {
			r.Fatal(err)
		}
		if _, err := rd.Read(make([]byte, 1)); err != nil {
			r.Fatal(err)
		}
		n++
		w.pipe.mu.Lock()
		defer w.pipe.mu.Unlock()
		return w.pipe.ring != nil && w.pipe.ring.answered && w.pipe.ring.ahead == 0
	})
	return n
}

func TestRingStream(t *testing.T) {
	r := ringRig(t, BrokerConfig{})
	rd, w := r.pipe("stream")
	sent := make([]byte, 20<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(rng.Uint32())
	}
	done := make(chan error, 1)
	go func() {
		for b := sent; len(b) > 0; {
			n := min(len(b), 1+rng.IntN(100))
			if rng.IntN(10) == 0 {
				n = min(len(b), 1+rng.IntN(200_000))
			}
			if _, err := w.Write(b[:n]); err != nil {
				done <- err
				return
			}
			if b = b[n:]; rng.IntN(1000) == 0 {
				if err := w.Flush(); err != nil {
					done <- err
					return
				}
			}
		}
		done <- w.Close()
	}()
	begin := time.Now()
	var got bytes.Buffer
	half, lengths := make([]byte, 100_000), rand.New(rand.NewPCG(3, 4))
	for got.Len() < len(sent)/2 {
		n, err := rd.Read(half[:1+lengths.IntN(len(half))])
		if err != nil {
			t.Fatal(err)
		}
		got.Write(half[:n])
	}
	if !rd.hasRing() {
		t.Error("it did not go through a ring")
	}
	if _, err := io.Copy(&got, rd); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Fatal("other bytes")
	}
}

// Room and confirmation count the same bytes in a ring as anywhere else.
func TestRingIsExact(t *testing.T) {
	const pending = 100_000
	r := ringRig(t, BrokerConfig{MaxPending: pending})
	rd, w := r.pipe("exact")
	r.moved(rd, w)
	window := r.client.cfg.Window
	in, out := 0, 0
	write := func(n int) {
		t.Helper()
		if n, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(n, err)
		}
		in += n
	}
	read := func(n int) {
		t.Helper()
		if _, err := io.ReadFull(rd, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		out += n
	}
	write(pending)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	write(10)
	w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var undelivered *UndeliveredError
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 10 {
		t.Error("10 bytes more than the broker takes:", err)
	}
	w.SetWriteDeadline(time.Time{})
	flushed := r.begin(func() (int, error) { return 0, w.Flush() })
	read(9)
	select {
	case got := <-flushed:
		t.Error("one byte is still too much:", got)
	case <-time.After(20 * time.Millisecond):
	}
	read(1)
	if got := r.within(soon, flushed); got.err != nil {
		t.Error(got.err)
	}
	r.fills(w, window)
	in += window
	r.fills(w, 0)
	read(1)
	r.fills(w, 1)
	in++
	read(in - out)
	r.fills(w, pending+window)
	in += pending + window
	w.SetWriteDeadline(time.Time{})
	blocked := r.begin(func() (int, error) { return w.Write(make([]byte, 100)) })
	read(in - out)
	if got := r.within(soon, blocked); got.n != 100 || got.err != nil {
		t.Error("a Write that waited for room:", got)
	}
	if !rd.hasRing() || !w.hasRing() {
		t.Error("it did not go through a ring")
	}
}

// A ring that carries nothing is given back, and the stream goes on as if nothing had been.
func TestRingIsGivenBack(t *testing.T) {
	t.Parallel()
	r := &rig{T: t, way: byRing}
	r.broker = uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: r.broker, Rings: true, Quick: true}).ready()
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("back")
	for range 2 {
		r.moved(rd, w)
		eventually(t, "no ring", func() bool { return !rd.hasRing() && !w.hasRing() })
	}
	if _, err := w.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	go w.Close()
	if b, err := io.ReadAll(rd); string(b) != "end" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

// What a writer has published before its death is read, and what the broker has said
// before its own.
func TestRingDeaths(t *testing.T) {
	t.Run("of the writer", func(t *testing.T) {
		r := ringRig(t, BrokerConfig{})
		data := strings.Repeat("0123456789", 10_000)
		rd := r.reader("deaths")
		c := startChild(t, childTask{Part: "ring writer", Broker: r.broker, Pipe: "deaths", Data: data})
		got := make([]byte, 1)
		if _, err := io.ReadFull(rd, got); err != nil {
			t.Fatal(err)
		}
		c.ready()
		c.kill()
		began := time.Now()
		b, err := io.ReadAll(rd)
		if !errors.Is(err, io.ErrUnexpectedEOF) || string(b) != data {
			t.Errorf("%d bytes of %d, %v", len(b), len(data), err)
		}
		t.Log("after", time.Since(began))
	})
	t.Run("of the broker", func(t *testing.T) {
		r := ringRig(t, BrokerConfig{})
		rd, w := r.pipe("deaths")
		r.moved(rd, w)
		sent := make([]byte, 500_000)
		if _, err := w.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		r.kill()
		eventually(t, "the end", func() bool { return w.Flush() != nil })
		b, err := io.ReadAll(rd)
		if !errors.Is(err, ErrBrokerGone) || len(b) != len(sent) {
			t.Errorf("%d bytes of %d, %v", len(b), len(sent), err)
		}
		if _, err := w.Write(sent); !errors.Is(err, ErrBrokerGone) {
			t.Error(err)
		}
	})
}

// childsWriter is what a child writes with.
func childsWriter(task childTask) (*Client, *Writer) {
	c, err := NewClient(task.Broker)
	if err != nil {
		panic(err)
	}
	w, err := c.OpenWriter(context.Background(), task.Pipe)
	if err != nil {
		panic(err)
	}
	return c, w
}

// A byte that moves the stream, and then data.
func init() {
	parts["ring writer"] = func(task childTask) int {
		_, w := childsWriter(task)
		w.WriteString("x")
		for !w.hasRing() {
			time.Sleep(time.Millisecond)
		}
		if _, err := w.WriteString(task.Data); err != nil {
			panic(err)
		}
		if err := w.Flush(); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		select {}
	}
	// A process that may open nothing more moves no stream, and nobody notices.
	parts["poor"] = func(task childTask) int {
		c, w := childsWriter(task)
		r, err := c.OpenReader(context.Background(), task.Pipe)
		if err != nil {
			panic(err)
		}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		limit.Cur = 0
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
		data := bytes.Repeat([]byte("poor"), 1<<20)
		go func() { w.Write(data); w.Close() }()
		got, err := io.ReadAll(r)
		fmt.Println("ready", bytes.Equal(got, data), err, w.hasRing() || r.hasRing())
		return 0
	}
}

func init() {
	parts["poor broker"] = func(task childTask) int {
		moveAtOnce = true
		b, err := BrokerConfig{Endpoints: []string{task.Broker}}.NewBroker("")
		if err != nil {
			panic(err)
		}
		c, w := childsWriter(task)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
			panic(err)
		}
		var own, now syscall.Stat_t
		if err := syscall.Fstat(0, &own); err != nil {
			panic(err)
		}
		for left := range 4 { // a ring needs three
			var taken []int
			for {
				d, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
				if err != nil {
					break
				}
				taken = append(taken, d)
			}
			closeDescriptors(taken[:left])
			data := bytes.Repeat([]byte("poor"), 1<<20)
			go func() { w.Write(data); w.Close() }()
			r, err := c.OpenReader(context.Background(), task.Pipe)
			if err != nil {
				panic(err)
			}
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, data) || err != nil {
				fmt.Println(left, "left:", len(got), err)
			}
			if err := syscall.Fstat(0, &now); err != nil || now.Ino != own.Ino || now.Dev != own.Dev {
				fmt.Println(left, "left: standard input is gone:", err)
			}
			closeDescriptors(taken[left:])
			r.Close()
			if w, err = c.OpenWriter(context.Background(), task.Pipe); err != nil {
				panic(err)
			}
		}
		b.Close()
		fmt.Println("ready")
		return 0
	}
}

// Where a broker has no descriptor for a ring, or not enough of them, streams go on in
// messages, and it closes no descriptor but its own.
func TestRingBrokerWithoutDescriptors(t *testing.T) {
	startChild(t, childTask{Part: "poor broker", Broker: "unix://" + filepath.Join(t.TempDir(), "s"), Pipe: "poor"}).ready()
}

func TestRingWithoutDescriptors(t *testing.T) {
	r := ringRig(t, BrokerConfig{})
	c := startChild(t, childTask{Part: "poor", Broker: r.broker, Pipe: "poor"})
	if got := c.line(); got != "ready true <nil> false" {
		t.Errorf("it says %q", got)
	}
}

// rings has brokers of this process move every stream at once.
func rings(t testing.TB) {
	moveAtOnce = true
	t.Cleanup(func() { moveAtOnce = false })
}

// ringsHere starts a broker in this process that moves every stream at once, and a client
// that comes by its near door.
func ringsHere(t *testing.T) (*Broker, *rig) {
	rings(t)
	b := startBroker(t, BrokerConfig{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "s")}})
	r := &rig{T: t, way: byRing, broker: b.Endpoints()[len(b.Endpoints())-1]}
	r.client = r.newClient(ClientConfig{})
	return b, r
}

// What is in a ring is counted as what is in the broker, and a Shutdown lets it be read.
func TestRingShutdown(t *testing.T) {
	b, r := ringsHere(t)
	rd, w := r.pipe("shutdown")
	n := int64(r.moved(rd, w))
	data := bytes.Repeat([]byte("data"), 100_000)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range b.Pipes() {
		if i.Queued != len(data) || i.BytesIn != n+int64(len(data)) || i.BytesOut != n {
			t.Errorf("%+v", i)
		}
	}
	if s := b.Stats(); s.BytesIn != n+int64(len(data)) || s.BytesOut != n {
		t.Errorf("%+v", s)
	}
	over := inBackground(func() (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		return 0, b.Shutdown(ctx)
	})
	more := 0 // bytes that it took before it knew, and that may be read
	eventually(t, "an error", func() bool {
		k, err := w.WriteString("x")
		more += k
		return errors.Is(err, ErrBrokerGone)
	})
	got, err := io.ReadAll(rd)
	if !bytes.HasPrefix(got, data) || len(got) > len(data)+more || !errors.Is(err, ErrBrokerGone) {
		t.Errorf("%d bytes of %d and %d, %v", len(got), len(data), more, err)
	}
	rd.Close()
	if got := r.within(2*soon, over); got.err != nil {
		t.Error("Shutdown:", got.err)
	}
	b.rings.mu.Lock()
	defer b.rings.mu.Unlock()
	if len(b.rings.of) > 0 {
		t.Errorf("%d rings are left", len(b.rings.of))
	}
}

// A reader that leaves is told to the writer at once, also one that waits for room.
func TestRingReaderLeaves(t *testing.T) {
	_, r := ringsHere(t)
	rd, w := r.pipe("leaves")
	r.moved(rd, w)
	blocked := inBackground(func() (int, error) { return w.Write(make([]byte, 4<<20)) })
	eventually(t, "a full ring", func() bool {
		w.pipe.mu.Lock()
		defer w.pipe.mu.Unlock()
		return w.busy && w.pipe.writer.want > 0
	})
	rd.CloseWithError(errors.New("enough"))
	if got := r.within(soon, blocked); !errors.Is(got.err, io.ErrClosedPipe) || !strings.Contains(got.err.Error(), "enough") {
		t.Error(got)
	}
	var undelivered *UndeliveredError
	if err := w.Close(); !errors.As(err, &undelivered) || undelivered.Bytes != int64(r.client.cfg.Window) {
		t.Error(err)
	}
}

// A call that waits for what comes through a ring is unblocked by all that unblocks one
// which waits for messages, and several of them take turns.
func TestRingReadWaits(t *testing.T) {
	b, r := ringsHere(t)
	rd, w := r.pipe("waits")
	r.moved(rd, w)
	read := func() (int, error) { return rd.Read(make([]byte, 1)) }
	waits := func() {
		t.Helper()
		eventually(t, "one that waits for the bell", func() bool {
			rd.pipe.mu.Lock()
			defer rd.pipe.mu.Unlock()
			return rd.hears != nil
		})
	}
	for range 100 {
		blocked := inBackground(read)
		waits()
		rd.SetReadDeadline(time.Unix(1, 0))
		if got := r.within(soon, blocked); !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Fatal(got)
		}
		rd.SetReadDeadline(time.Time{})
		blocked = inBackground(read)
		waits()
		w.WriteString("x")
		if got := r.within(soon, blocked); got.n != 1 || got.err != nil {
			t.Fatal(got)
		}
		all := []chan result{inBackground(read), inBackground(read), inBackground(read)}
		for range all {
			w.WriteString("x")
		}
		for _, one := range all {
			if got := r.within(soon, one); got.n != 1 || got.err != nil {
				t.Fatal(got)
			}
		}
	}
	blocked := inBackground(read)
	second := inBackground(read)
	waits()
	rd.Close()
	for _, one := range []chan result{blocked, second} {
		if got := r.within(soon, one); !errors.Is(got.err, os.ErrClosed) {
			t.Error("closed:", got)
		}
	}
	for _, end := range []struct {
		name string
		how  func(w *Writer)
		want error
	}{
		{"the writer closes", func(w *Writer) { w.Close() }, io.EOF},
		{"the writer gives up", func(w *Writer) { w.CloseWithError(errors.New("enough")) }, io.ErrUnexpectedEOF},
		{"the broker closes", func(*Writer) { b.Close() }, ErrBrokerGone},
	} {
		rd, w = r.pipe(end.name)
		r.moved(rd, w)
		blocked := inBackground(read)
		waits()
		end.how(w)
		if got := r.within(soon, blocked); !errors.Is(got.err, end.want) {
			t.Errorf("%s: %v", end.name, got.err)
		}
	}
}
