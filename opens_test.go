package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// able returns a client that shows of each end that its open has returned.
func (st *stage) able() *caller {
	st.t.Helper()
	c := st.call()
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities | 1<<31}}).gets("PING_OK")
	return c
}

// show says that the open has returned, which has no answer.
func (l *line) show() *line { return l.send(message{id: msgRead, flags: readHere}) }

func TestAbilitiesAreWhatBothSidesKnow(t *testing.T) {
	st := newStage(t)
	for sent, want := range map[uint32]uint32{0: 0, abilities: abilities, abilities | 1<<31: abilities, 1 << 31: 0} {
		c := st.call()
		c.deliver((&message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 100, able: sent}}).append(nil))
		if got := c.hellos()[0].hello.able; got != want {
			t.Errorf("able to do %#x, and the broker names %#x, want %#x", sent, got, want)
		}
	}
}

// Nothing is confirmed because of a reader whose open has not returned, and whether it
// fails or its client dies, it was never there.
func TestReaderThatWasNeverThere(t *testing.T) {
	for name, fail := range map[string]func(l *line){
		"given up":   func(l *line) { l.closeWith(causeNever, "").gets("CLOSE_OK") },
		"vanished":   func(l *line) { l.gone() },
		"took leave": func(l *line) { l.on(0).close() },
		"violation":  func(l *line) { l.input("p").gets("INVALID") },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			w := st.old().output("p").gets("OUTPUT_OK").write("kept", 0).waits()
			inside := st.insideReader
			r := st.able().on(1).input("p").gets("INPUT_OK")
			w.waits()
			if _, why := inside("p"); why == nil || why.code != causeBusy {
				t.Errorf("a second reader: %v", why)
			}
			fail(r)
			w.waits()
			r = st.able().on(1).input("p").gets("INPUT_OK")
			w.waits()
			r.show()
			w.gets("WRITE_OK").close().gets("CLOSE_OK")
			r.read(10, 0).gets(`READ_OK "kept"`).read(10, 0).gets("READ_END").close().gets("CLOSE_OK")
			st.leavesNothing()
		})
	}
}

func (st *stage) insideReader(name string) (*pipe, *cause) {
	return st.pipes.open(name, reader, 0, func() {}, st.now)
}

// Likewise a reader that waits learns nothing of a writer that was never there.
func TestWriterThatWasNeverThere(t *testing.T) {
	for name, fail := range map[string]func(l *line){
		"given up": func(l *line) { l.closeWith(causeNever, "").gets("CLOSE_OK") },
		"vanished": func(l *line) { l.gone() },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			r := st.able().on(1).input("p").gets("INPUT_OK").show().read(3, 0).waits()
			fail(st.able().on(1).output("p").gets("OUTPUT_OK"))
			r.waits()
			w := st.able().on(1).output("p").gets("OUTPUT_OK").write("abc", 0).gets("WRITE_OK")
			r.gets(`READ_OK "abc"`)
			w.close().gets("CLOSE_OK")
			r.read(3, 0).gets("READ_END")
			st.leavesNothing()
		})
	}
}

// A pipe that only had ends that were never there is not there.
func TestPipeThatWasNeverThere(t *testing.T) {
	st := newStage(t)
	c := st.able()
	c.on(1).input("p").gets("INPUT_OK")
	c.on(2).output("p").gets("OUTPUT_OK")
	c.on(1).closeWith(causeNever, "").gets("CLOSE_OK")
	c.on(2).closeWith(causeNever, "").gets("CLOSE_OK")
	if n := st.pipes.allPipes.len(); n > 0 {
		t.Errorf("%d pipes are left", n)
	}
	c.on(3).queue("q").gets("INPUT_OK").closeWith(causeNever, "").gets("CLOSE_OK")
	c.on(4).queue("used").gets("INPUT_OK")
	c.text("OPEN", "used")
	c.texts = false
	c.on(4).closeWith(causeNever, "").gets("CLOSE_OK")
	if st.pipes.queues["q"] != nil || st.pipes.queues["used"] == nil {
		t.Error("queues are left that were never open, or gone that somebody uses")
	}
	st.leavesNothing()
}

// Whoever has shown that it is there has been there; and so has a client that can't
// show it.
func TestEndsThatWereThere(t *testing.T) {
	for name, open := range map[string]func(st *stage) *line{
		"shown":         func(st *stage) *line { return st.able().on(1).input("p").gets("INPUT_OK").show().waits() },
		"read":          func(st *stage) *line { return st.able().on(1).input("p").gets("INPUT_OK").read(99, 0).waits() },
		"extension":     func(st *stage) *line { return st.modern().on(1).input("p").gets("INPUT_OK") },
		"base protocol": func(st *stage) *line { return st.old().input("p").gets("INPUT_OK") },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			w := st.modern().on(1).output("p").gets("OUTPUT_OK").write("abc", 0).waits()
			r := open(st)
			w.gets("WRITE_OK")
			if r.agreed {
				r.closeWith(causeNever, "the open was given up")
				w.gets(`WRITE_FAILED aborted "the open was given up"`)
			} else {
				r.close()
				w.gets("WRITE_FAILED closed")
			}
		})
	}
}

// A WRITE of nothing asks whether a reader is there; into a queue it is a chunk only for
// those who do not know better.
func TestWriteOfNothing(t *testing.T) {
	st := newStage(t)
	w := st.able().on(1).output("p").gets("OUTPUT_OK").write("", 0).waits()
	st.old().input("p").gets("INPUT_OK")
	w.gets("WRITE_OK")
	q := st.able().on(1).queue("q").gets("INPUT_OK")
	st.able().on(1).output("q").gets("OUTPUT_OK").write("", 0).gets("WRITE_OK")
	q.show().ask(1, 0).waits()
	st.modern().on(1).output("q").gets("OUTPUT_OK").write("", 0).gets("WRITE_OK")
	q.gets(bring(""))
}

// A broker that comes up in this process during the last moments of a wait is used, or
// it is not; but a nil error means that something was done.
func TestBrokerThatComesUpDuringAWait(t *testing.T) {
	const wait = 60 * time.Millisecond
	calls := map[string]func(ctx context.Context, c *Client) error{
		"reader": func(ctx context.Context, c *Client) error {
			r, err := c.OpenReader(ctx, "r")
			if err == nil {
				err = r.SetReadDeadline(time.Time{})
			}
			return err
		},
		"writer": func(ctx context.Context, c *Client) error {
			w, err := c.OpenWriter(ctx, "w")
			if err == nil {
				_, err = w.WriteString("x")
				w.SetWriteDeadline(time.Unix(1, 0))
			}
			return err
		},
		"queue": func(ctx context.Context, c *Client) error {
			q, err := c.OpenQueue(ctx, "q")
			if err == nil {
				err = q.Send(context.Background(), nil)
			}
			return err
		},
		"delete": func(ctx context.Context, c *Client) error {
			err := c.DeleteQueue(ctx, "none")
			if err == nil {
				t.Error("a queue that does not exist was deleted")
			} else if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		},
		"status": func(ctx context.Context, c *Client) error {
			s, err := c.Status(ctx)
			if err == nil && s.Name == "" {
				t.Error("the status of nobody")
			}
			return err
		},
		"ping": func(ctx context.Context, c *Client) error {
			_, err := c.Ping(ctx)
			return err
		},
	}
	for name, call := range calls {
		for _, byContext := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, context %v", name, byContext), func(t *testing.T) {
				t.Parallel()
				for range 5 {
					broker := uniqueName(t)
					ctx, cfg := context.Background(), ClientConfig{Timeout: wait}
					if byContext {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, wait)
						defer cancel()
						cfg.Timeout = time.Minute
					}
					c, err := cfg.NewClient(broker)
					if err != nil {
						t.Fatal(err)
					}
					var group sync.WaitGroup
					group.Go(func() {
						time.Sleep(wait*3/4 + rand.N(wait/2))
						b, err := BrokerConfig{Endpoints: []string{}}.NewBroker(broker)
						if err != nil {
							t.Error(err)
							return
						}
						t.Cleanup(func() { b.Close() })
					})
					ended := os.ErrDeadlineExceeded
					if byContext {
						ended = context.DeadlineExceeded
					}
					if err := call(ctx, c); err != nil && !(errors.Is(err, ErrNoBroker) && errors.Is(err, ended)) {
						t.Errorf("want nil, or ErrNoBroker and the end of the time: %v", err)
					}
					group.Wait()
					c.Close()
				}
			})
		}
	}
}

// The bytes of a queue's chunks are the loop's matter, also in this process. If it has no
// time for them, the Reader is not open.
func TestReaderOfAQueueAtABusyBroker(t *testing.T) {
	busy := make(chan struct{})
	b := startBroker(t, BrokerConfig{Endpoints: []string{}, Allow: func(Access) error { <-busy; return nil }})
	c, err := ClientConfig{Timeout: 50 * time.Millisecond}.NewClient(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q, err := c.OpenQueue(t.Context(), "jobs")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(q.Send(t.Context(), []byte("job")), q.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	_, err = c.OpenReader(t.Context(), "jobs")
	close(busy)
	if !errors.Is(err, ErrNoBroker) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("OpenReader: %v", err)
	}
	if chunk, err := q.Receive(t.Context()); string(chunk) != "job" {
		t.Errorf("the job is gone: %q, %v", chunk, err)
	}
}

// A broker stands still while something is opened there. The open fails, and when the
// broker goes on, that leaves no trace.
func TestOpenThatFailsIsUndone(t *testing.T) {
	broker := uniqueName(t)
	child := startChild(t, childTask{Part: "broker", Broker: broker}).ready()
	r := &rig{T: t, broker: broker}
	r.client = r.newClient(ClientConfig{})
	waiting, delivering := r.reader("waiting"), r.writer("delivering")
	read := r.begin(func() (int, error) { return waiting.Read(make([]byte, 10)) })
	delivering.WriteString("all of it")
	flushed := r.begin(func() (int, error) { return 0, delivering.Flush() })

	const patience = 100 * time.Millisecond
	c := r.newClient(ClientConfig{Timeout: patience})
	closed := r.newClient(ClientConfig{})
	for _, c := range []*Client{c, closed} {
		if _, err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	child.pause()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := c.OpenWriter(ctx, "waiting")
	if !errors.Is(err, ErrNoBroker) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OpenWriter: %v", err)
	}
	if _, err := c.OpenReader(t.Context(), "delivering"); !errors.Is(err, ErrNoBroker) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("OpenReader: %v", err)
	}
	if _, err := c.OpenQueue(t.Context(), "queue"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("OpenQueue: %v", err)
	}
	opening := r.begin(func() (int, error) { _, err := closed.OpenWriter(t.Context(), "other"); return 0, err })
	time.Sleep(patience)
	closed.Close()
	if got := r.within(dead, opening); !errors.Is(got.err, os.ErrClosed) {
		t.Errorf("OpenWriter of a client that is closed: %v", got.err)
	}
	child.signal(syscall.SIGCONT)

	if _, err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status(t.Context())
	if err != nil || len(s.Pipes) != 2 {
		t.Errorf("of the failed opens there is something left: %+v, %v", s.Pipes, err)
	}
	select {
	case got := <-read:
		t.Errorf("the reader met a writer that was never there: %v", got)
	case got := <-flushed:
		t.Errorf("Flush was confirmed for a reader that was never there: %v", got)
	default:
	}
	rd := r.reader("delivering")
	if got := r.within(dead, flushed); got.err != nil {
		t.Error(got.err)
	}
	delivering.Close()
	if got, err := io.ReadAll(rd); string(got) != "all of it" || err != nil {
		t.Errorf("the reader that came got %q, %v", got, err)
	}
	w := r.writer("waiting")
	w.WriteString("x")
	if got := r.within(dead, read); got.n != 1 || got.err != nil {
		t.Errorf("the reader that waited: %v", got)
	}
}

// Opens are given up at any moment, also at that at which the answer comes.
func TestOpensThatAreGivenUp(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.old {
			r.Skip("can't be told that an open was given up")
		}
		partners := r.newClient(ClientConfig{})
		begun, failed := 0, 0
		for i := range 60 {
			name := fmt.Sprint("p", i)
			rd, err := partners.OpenReader(r.Context(), name)
			if err != nil {
				r.Fatal(err)
			}
			got := inBackground(func() (int, error) { b, err := io.ReadAll(rd); return len(b), err })
			var w *Writer
			for ; w == nil; begun++ {
				ctx, cancel := context.WithTimeout(r.Context(), rand.N(400*time.Microsecond))
				if w, err = r.client.OpenWriter(ctx, name); err != nil {
					failed++
				}
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					r.Fatal(err)
				}
			}
			w.WriteString("x")
			if err := w.Close(); err != nil {
				r.Fatal(err)
			}
			if got := r.within(dead, got); got.n != 1 || got.err != nil {
				r.Fatalf("the reader met another end: %v", got)
			}
			rd.Close()

			if w, err = partners.OpenWriter(r.Context(), name); err != nil {
				r.Fatal(err)
			}
			w.WriteString("x")
			closed := inBackground(func() (int, error) { return 0, w.Close() })
			for rd = nil; rd == nil; begun++ {
				select {
				case got := <-closed:
					r.Fatalf("closed without a reader: %v", got)
				default:
				}
				ctx, cancel := context.WithTimeout(r.Context(), rand.N(400*time.Microsecond))
				if rd, err = r.client.OpenReader(ctx, name); err != nil {
					failed++
				}
				cancel()
			}
			if b, err := io.ReadAll(rd); string(b) != "x" || err != nil {
				r.Fatalf("%q, %v", b, err)
			}
			if got := r.within(dead, closed); got.err != nil {
				r.Fatal(got.err)
			}
			rd.Close()
		}
		r.Logf("%d of %d opens were given up", failed, begun)
	})
}
