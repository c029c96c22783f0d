//go:build unix && !core

package zpipes

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientNoBroker(t *testing.T) {
	t.Parallel()
	brokers := []string{"nobody-has-this-name", "inproc://zpipes/nobody", "unix://@/zpipes/nobody"}
	if haveZeroMQ {
		brokers = append(brokers, "tcp://127.0.0.1:1")
	}
	for _, broker := range brokers {
		c, err := ClientConfig{Timeout: 100 * time.Millisecond}.NewClient(broker)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.OpenReader(t.Context(), "p")
		var oe *OpError
		if !errors.Is(err, ErrNoBroker) || !errors.As(err, &oe) || !oe.Timeout() {
			t.Errorf("%s: %v", broker, err)
		}
		if took := time.Since(start); took < 100*time.Millisecond || took >= soon {
			t.Errorf("%s: gave up after %v", broker, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := c.OpenWriter(ctx, "p"); !errors.Is(err, ErrNoBroker) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, with a deadline: %v", broker, err)
		}
		cancel()
		if _, err := c.OpenWriter(ctx, "p"); !errors.Is(err, ErrNoBroker) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, after the deadline: %v", broker, err)
		}
		c.Close()
		if _, err := c.OpenReader(t.Context(), "p"); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: open on a closed client: %v", broker, err)
		}
	}
}

func TestClientCloseUnblocks(t *testing.T) {
	t.Parallel()
	c, err := NewClient("nobody-has-this-name")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t}
	done := r.begin(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
	c.Close()
	if got := r.within(soon, done); !errors.Is(got.err, os.ErrClosed) {
		t.Errorf("open: %v", got.err)
	}

	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		w.WriteString("delivered by Close")
		other := r.newReader("other")
		r.begin(func() (int, error) { return other.Read(make([]byte, 1)) })
		if err := r.client.Close(); err != nil {
			r.Error(err)
		}
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Read: %v", err)
		}
		if _, err := w.WriteString("x"); !errors.Is(err, os.ErrClosed) {
			r.Errorf("Write: %v", err)
		}
		if err := r.client.Close(); err != nil {
			r.Errorf("second Close: %v", err)
		}
	})
}

func TestClientBrokerGone(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		if r.base {
			r.client = r.newClient(ClientConfig{Heartbeat: 100 * time.Millisecond})
		}
		rd, w := r.pipe("p")
		w.WriteString("x")
		if _, err := io.ReadFull(rd, make([]byte, 1)); err != nil {
			r.Fatal(err)
		}
		w2 := r.writer("nobody reads")
		w2.WriteString("x")
		reading := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
		writing := r.begin(func() (int, error) { return w2.Write(make([]byte, 4<<20)) })
		flushing := r.begin(func() (int, error) { return 0, w2.Flush() })
		r.kill()
		for _, done := range []<-chan result{reading, writing, flushing} {
			if got := r.within(dead+soon, done); !errors.Is(got.err, ErrBrokerGone) {
				r.Errorf("a blocked call returned %v", got.err)
			}
		}
		var undelivered *UndeliveredError
		if err := w2.Close(); !errors.Is(err, ErrBrokerGone) || !errors.As(err, &undelivered) {
			r.Errorf("Close: %v", err)
		}
		if err := r.writeUntilError(w); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Write: %v", err)
		}
		if err := w.Close(); !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Close: %v", err)
		}
		if err := rd.Close(); err != nil {
			r.Errorf("Close of the reader: %v", err)
		}
	})
}

func TestClientBrokerThatStopsAnswering(t *testing.T) {
	t.Parallel()
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd := r.reader("p")
	done := r.begin(func() (int, error) { return rd.Read(make([]byte, 1)) })
	broker.pause()
	if got := r.within(dead+soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("Read: %v", got.err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.client.OpenReader(ctx, "p"); !errors.Is(err, ErrNoBroker) {
		t.Errorf("open: %v", err)
	}
	broker.signal(syscall.SIGCONT)
	if _, err := r.client.OpenReader(t.Context(), "q"); err != nil {
		t.Errorf("open after it went on: %v", err)
	}
}

func TestClientPing(t *testing.T) {
	overAllWays(t, func(r *rig) {
		d, err := r.client.Ping(r.Context())
		if err != nil || d < 0 || d > soon {
			r.Errorf("Ping: %v, %v", d, err)
		}
	})
}

// What was made in a synctest bubble is used in no other one, nor outside.
func TestClientInSynctestBubbles(t *testing.T) {
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
