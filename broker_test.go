//go:build cgo && !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

func TestBrokerSecondOfAName(t *testing.T) {
	overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.base || strings.Contains(r.broker, "://") {
			r.Skip("one way in this process and one in another are enough")
		}
		rd, w := r.pipe("p")
		if b, err := NewBroker(r.broker); !errors.Is(err, ErrBrokerExists) {
			r.Errorf("second broker: %v", err)
			b.Close()
		}
		go w.WriteString("undisturbed")
		if _, err := io.ReadFull(rd, make([]byte, 11)); err != nil {
			r.Error(err)
		}
	})
}

func TestBrokerComesBackUnderItsName(t *testing.T) {
	shared, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Term()
	for _, cfg := range []BrokerConfig{{}, {Context: shared}} {
		name := uniqueName(t)
		for range 30 {
			b, err := cfg.NewBroker(name)
			if err != nil {
				t.Fatal(err)
			}
			b.Close()
			if err := b.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		}
	}
}

func TestBrokerInASharedContext(t *testing.T) {
	ctx := wireContext(t)
	t.Cleanup(func() { wireTerm(ctx) })
	b := startBroker(t, BrokerConfig{Context: ctx, Endpoints: []string{}})
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetLinger(0)
	if err := retryEINTR(func() error { return s.Connect(b.Endpoints()[0]) }); err != nil {
		t.Fatal(err)
	}
	s.SendBytes((&message{id: msgPing}).append(nil), 0)
	if got, err := wireReceive(s, soon); err != nil || !bytes.Equal(got[0], (&message{id: msgPingOK}).append(nil)) {
		t.Errorf("PING was answered %x, %v", got, err)
	}
}

func TestBrokerMaxPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPipes: 2})
	c := b.Client()
	defer c.Close()
	for _, name := range []string{"a", "b"} {
		if _, err := c.OpenReader(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.OpenReader(t.Context(), "c"); !errors.Is(err, ErrTooManyPipes) {
		t.Errorf("third pipe: %v", err)
	}
	if _, err := c.OpenWriter(t.Context(), "a"); err != nil {
		t.Errorf("the other end of the first: %v", err)
	}
}

func TestBrokerStatsAndPipes(t *testing.T) {
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	before := b.Stats()
	rd, w := r.pipe("p")
	r.reader("another")
	w.WriteString("hello")
	w.Flush()
	io.ReadFull(rd, make([]byte, 2))
	got := b.Stats().Sub(before)
	want := BrokerStats{Pipes: 2, Clients: 1, Opened: 3, BytesIn: 5, BytesOut: 5}
	if got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
	pipes := slices.Collect(b.Pipes())
	if len(pipes) != 2 || pipes[0].Name != "another" || pipes[1].Name != "p" {
		t.Fatalf("the pipes are %+v", pipes)
	}
	if p := pipes[1]; !p.Reader || !p.Writer || p.Queued != 0 || p.BytesIn != 5 || p.Age <= 0 {
		t.Errorf("p is %+v", p)
	}
	if p := pipes[0]; !p.Reader || p.Writer {
		t.Errorf("another is %+v", p)
	}
}

func TestBrokerLogging(t *testing.T) {
	var lines logLines
	log := slog.New(slog.NewTextHandler(&lines, nil))
	b := startBroker(t, BrokerConfig{Logger: log, ClientTimeout: 50 * time.Millisecond})
	s := wireSocket(t, b.Endpoints()[1], "")
	wireSend(s, []byte("nonsense"))
	wireSend(s, (&message{id: msgInput, text: []byte("p")}).append(nil))
	for range 2 {
		if _, err := wireReceive(s, soon); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the client expires", func() bool { return b.Stats().Expired > 0 })
	b.Close()
	for _, want := range []string{"broker up", "protocol violation", "client expired", "broker down"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("nothing about %q in\n%s", want, lines.String())
		}
	}
}

func TestBrokerLifecycleLeavesNothing(t *testing.T) {
	count := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		return len(files)
	}
	cycle := func() {
		b, err := NewBroker("")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, where := range append(b.Endpoints(), b.Name()) {
			wg.Go(func() {
				c, err := ClientConfig{Timeout: 10 * time.Millisecond}.NewClient(where)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				name := fmt.Sprint("pipe of ", where)
				w, err := c.OpenWriter(context.Background(), name)
				if err != nil {
					return
				}
				go w.Write(make([]byte, 4<<20))
				if rd, err := c.OpenReader(context.Background(), name); err == nil {
					rd.Read(make([]byte, 1<<16))
				}
			})
		}
		wg.Wait()
		b.Close()
	}
	cycle()
	before := count()
	for range 20 {
		cycle()
	}
	eventually(t, fmt.Sprintf("%d descriptors again", before), func() bool { return count() <= before })
}

func TestBrokerForgetsAbandonedQueues(t *testing.T) {
	b := startBroker(t, BrokerConfig{ForgetQueues: 50 * time.Millisecond, Endpoints: []string{}})
	c := b.Client()
	defer c.Close()
	kept, err := c.OpenQueue(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	left, err := c.OpenQueue(t.Context(), "left")
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Send(t.Context(), []byte("lost")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one queue is left", func() bool {
		pipes := slices.Collect(b.Pipes())
		return len(pipes) == 1 && pipes[0].Name == "kept"
	})
	if d := time.Since(began); d < 50*time.Millisecond {
		t.Errorf("forgotten after %v", d)
	}
	if err := kept.Send(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
