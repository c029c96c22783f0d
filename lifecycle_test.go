package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A stream that the broker's end has torn is not a clean one, though its writer
// had closed.
func TestBrokerCloseTearsWhatIsUnread(t *testing.T) {
	for _, end := range []func(b *Broker){
		func(b *Broker) { b.Close() },
		func(b *Broker) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			b.Shutdown(ctx)
		},
	} {
		b := startBroker(t, BrokerConfig{})
		r := &rig{T: t, client: b.Client()}
		rd, w := r.pipe("p")
		w.Write(make([]byte, 1000))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := rd.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		end(b)
		if _, err := io.ReadAll(rd); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("the reader got %v", err)
		}
		r.client.Close()
	}
}

// The writer's Close, answered just before the broker closes, is not an error.
func TestBrokerCloseBehindTheLastReader(t *testing.T) {
	for range 50 {
		b := startBroker(t, BrokerConfig{})
		c, err := NewClient(b.Endpoints()[1])
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{T: t, client: b.Client()}
		rd := r.reader("p")
		w, err := c.OpenWriter(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString("x")
		done := inBackground(func() (int, error) { return 0, w.Close() })
		if _, err := io.ReadAll(rd); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if got := r.within(soon, done); got.err != nil {
			t.Fatalf("Close: %v", got.err)
		}
		c.Close()
	}
}

func TestSmallestWindow(t *testing.T) {
	overWays(t, BrokerConfig{}, ClientConfig{Window: 1}, func(r *rig) {
		rd, w := r.pipe("p")
		go func() { w.WriteString("hello"); w.Close() }()
		if got, err := io.ReadAll(rd); string(got) != "hello" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
	})
}

func TestOldBrokerReadAheadIsBounded(t *testing.T) {
	b := startOldBroker(t)
	r := &rig{T: t, broker: b.endpoint}
	r.client = r.newClient(ClientConfig{Window: 100})
	rd, w := r.pipe("p")
	w.Write(make([]byte, 100))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		w.Write(make([]byte, 100))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rd.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// Another pipe's way there and back leaves time for what was asked too much.
	r.writer("q")
	rd.pipe.mu.Lock()
	defer rd.pipe.mu.Unlock()
	if n := rd.pipe.buf.n; n > 400 {
		t.Errorf("a window of 100 bytes holds %d, want at most 400", n)
	}
}

// atOldBroker is a client with a short beat at an base-protocol broker that drops who is silent for six of them.
func atOldBroker(t *testing.T, cfg ClientConfig) (*rig, *oldBroker) {
	t.Helper()
	cfg.Heartbeat = 250 * time.Millisecond
	b := startOldBroker(t, func(b *oldBroker) { b.clientTimeout = 5 * cfg.Heartbeat })
	r := &rig{T: t, broker: b.endpoint, kill: b.Close}
	r.client = r.newClient(cfg)
	t.Cleanup(func() {
		for _, v := range b.violations() {
			t.Errorf("the client broke the old protocol: %s", v)
		}
	})
	return r, b
}

// zbroker aborts if a PING comes behind a WRITE that waits for its reader.
func TestOldBrokerWriteWaitsForItsReader(t *testing.T) {
	r, b := atOldBroker(t, ClientConfig{})
	for _, data := range []string{"", "hello"} {
		w := r.writer("p" + data)
		if _, err := w.WriteString(data); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * b.clientTimeout / 2) // who is silent is dropped, and who sends PINGs ends the broker
		rd := r.reader("p" + data)
		go func() { w.WriteString(", world"); w.Close() }()
		if got, err := io.ReadAll(rd); string(got) != data+", world" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

func TestOldBrokerDiesUnderAWriteThatWaits(t *testing.T) {
	r, _ := atOldBroker(t, ClientConfig{})
	w := r.writer("p")
	w.WriteString("hello")
	r.kill()
	done := inBackground(func() (int, error) { return 0, w.Flush() })
	if got := r.within(soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("Flush: %v", got.err)
	}
}

// At zbroker, a READ behind which came a PING is answered with nothing.
func TestOldBrokerReadWaitsThroughBeats(t *testing.T) {
	for _, size := range []int{1, 3, 1 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			r, b := atOldBroker(t, ClientConfig{ReadSize: size})
			rd, w := r.pipe("p")
			data := noise(9, 3*maxBaseReads)
			done := inBackground(func() (int, error) {
				got, err := io.ReadAll(rd)
				if err == nil && string(got) != string(data) {
					err = errors.New("not what was written")
				}
				return len(got), err
			})
			for i := range 3 {
				time.Sleep(3 * b.clientTimeout / 2) // each beat empties a READ
				w.Write(data[i*maxBaseReads : (i+1)*maxBaseReads])
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if got := r.within(soon, done); got.err != nil {
				t.Errorf("%d of %d bytes: %v", got.n, len(data), got.err)
			}
		})
	}
}

// An end that nothing was written to closes in order, and its name is free, if nobody
// came to read it.
func TestOldBrokerWriterClosesUnused(t *testing.T) {
	r, _ := atOldBroker(t, ClientConfig{})
	for range 3 {
		w := r.writer("p")
		w.SetWriteDeadline(time.Now())
		var undelivered *UndeliveredError
		if err := w.Close(); !errors.As(err, &undelivered) {
			t.Error(err)
		}
	}
}

// A last record that is shorter than half of ReadSize.
func TestOldBrokerShortLastRecord(t *testing.T) {
	for _, size := range []int{5, 600 << 10, 1 << 20, 3 << 20} {
		r, _ := atOldBroker(t, ClientConfig{ReadSize: size})
		rd, w := r.pipe("p")
		go func() { w.WriteString("abc"); w.Close() }()
		rd.SetReadDeadline(time.Now().Add(soon))
		if got, err := io.ReadAll(rd); string(got) != "abc" || err != nil {
			t.Errorf("with READs of %d: %q, %v", size, got, err)
		}
	}
}

func TestReadSizeOfRecords(t *testing.T) {
	b := startOldBroker(t)
	r := &rig{T: t, broker: b.endpoint}
	r.client = r.newClient(ClientConfig{ReadSize: 1000})
	rd, w := r.pipe("p")
	data := noise(9, 500_000)
	go func() { w.Write(data); w.Close() }()
	if got, err := io.ReadAll(rd); string(got) != string(data) || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestInprocClientsOfAClosingBroker(t *testing.T) {
	for i := range 100 {
		b := startBroker(t, BrokerConfig{Endpoints: []string{}})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				c, err := ClientConfig{Timeout: 20 * time.Millisecond}.NewClient(b.Endpoints()[0])
				if err != nil {
					t.Error(err)
					return
				}
				opened := inBackground(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
				time.Sleep(time.Duration(i%40) * 10 * time.Microsecond)
				c.Close()
				<-opened
			})
		}
		time.Sleep(time.Duration(i%37) * 10 * time.Microsecond)
		(&rig{T: t}).within(soon, inBackground(func() (int, error) { return 0, b.Close() }))
		wg.Wait()
	}
}

func TestClientOfABrokerThatDoesNotComeUp(t *testing.T) {
	name := uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: name}).ready()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := NewBroker(name); !errors.Is(err, ErrBrokerExists) {
				t.Errorf("a second broker: %v", err)
			}
		}
	})
	for range 50 {
		c, err := NewClient(name)
		if err != nil {
			t.Fatal(err)
		}
		rd, err := c.OpenReader(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		if rd.link == nil {
			t.Error("opened at a broker that did not come up")
		}
		c.Close()
	}
	close(stop)
	wg.Wait()
}

func TestOpenAfterOneThatWasGivenUp(t *testing.T) {
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	if _, err := r.client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	broker.pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.client.OpenReader(ctx, "p"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open at a stopped broker: %v", err)
	}
	done := r.begin(func() (int, error) { _, err := r.client.OpenReader(context.Background(), "p"); return 0, err })
	broker.signal(syscall.SIGCONT)
	if got := r.within(soon, done); got.err != nil {
		t.Errorf("the next open: %v", got.err)
	}
}

func TestChannelsWrapAround(t *testing.T) {
	k := &conn{session: 1, last: math.MaxUint32 - 1, links: map[uint32]channelLink{1: new(streamLink), 2: new(streamLink)}}
	for _, want := range []uint32{math.MaxUint32, 3, 4} { // 0 is the connection's own
		if got := k.newChannel(); got != want {
			t.Errorf("channel %d, want %d", got, want)
		}
	}
}

// A client that names a long heartbeat does not hold its pipes for as long once
// its connection is gone.
func TestDeadClientWithALongHeartbeat(t *testing.T) {
	b := startBroker(t, BrokerConfig{ClientTimeout: 100 * time.Millisecond})
	s := wireSocket(t, b.Endpoints()[1], "")
	hi := message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: math.MaxUint32}}
	open := message{id: msgOutput, block: hasBlock, channel: 1, text: []byte("p")}
	for _, m := range []message{hi, open} {
		wireSend(s, m.append(nil))
		if _, err := wireReceive(s, soon); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	eventually(t, "the pipe is there no more", func() bool { return b.Stats().Pipes == 0 })
}

func TestOrderlyClientsDoNotExpire(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{}) // it would expire within dead
	rd, w := r.pipe("p")
	w.Close()
	rd.Close()
	r.client.Close()
	eventually(t, "no client is left", func() bool { return b.Stats().Clients == 0 })
	if n := b.Stats().Expired; n != 0 {
		t.Errorf("%d clients expired", n)
	}
}

func TestClientCloseDuringOpen(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	for i := range 200 {
		c, err := NewClient(b.Endpoints()[i%2])
		if err != nil {
			t.Fatal(err)
		}
		opened := inBackground(func() (int, error) {
			_, err := c.OpenReader(context.Background(), fmt.Sprint(i))
			return 0, err
		})
		time.Sleep(time.Duration(i%60) * 10 * time.Microsecond)
		c.Close()
		if got := <-opened; got.err != nil && !errors.Is(got.err, os.ErrClosed) {
			t.Fatalf("open: %v", got.err)
		}
	}
}

type panicker struct{}

func (panicker) Write([]byte) (int, error) { panic("out of paper") }

func TestWriteToSurvivesAPanic(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		go w.WriteString("x")
		func() {
			defer func() { recover() }()
			rd.WriteTo(panicker{})
		}()
		if n, err := rd.Read(make([]byte, 1)); n != 1 || err != nil {
			r.Errorf("Read: %d, %v", n, err)
		}
	})
}

func TestWriteDeadlineShortensClose(t *testing.T) {
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
