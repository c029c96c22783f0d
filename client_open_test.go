//go:build unix && !core

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

func TestClientOpenWaitsForABroker(t *testing.T) {
	for where, start := range map[string]func(name string){
		"another process": func(name string) { startChild(t, childTask{Part: "broker", Broker: name}).ready() },
		"this process": func(name string) {
			b, err := BrokerConfig{Endpoints: []string{}}.NewBroker(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
		},
	} {
		t.Run(where, func(t *testing.T) {
			name := uniqueName(t)
			c, err := NewClient(name)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r := &rig{T: t}
			done := r.begin(func() (int, error) { _, err := c.OpenReader(context.Background(), "p"); return 0, err })
			start(name)
			if got := r.within(soon, done); got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

func TestClientOpenAfterTheBrokerCameBack(t *testing.T) {
	name := uniqueName(t)
	c, err := NewClient(name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
		rd, err := c.OpenReader(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		broker.kill()
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("Read: %v", err)
		}
	}
}

// A broker that comes up in this process during the last moments of a wait is used, or
// it is not; but a nil error means that something was done.
func TestClientWaitDuringWhichABrokerComesUp(t *testing.T) {
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
func TestClientOpenReaderOfAQueueAtABusyBroker(t *testing.T) {
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
func TestClientOpenThatFailsIsUndone(t *testing.T) {
	t.Parallel()
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
		(&rig{T: t, client: c}).connected()
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

	var s Status
	eventually(t, "an answer within a short time", func() bool { s, err = c.Status(t.Context()); return err == nil })
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
func TestClientOpensThatAreGivenUp(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		if r.base {
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

func TestClientOpenAtABrokerThatDoesNotComeUp(t *testing.T) {
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

func TestClientOpenAfterOneThatWasGivenUp(t *testing.T) {
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

func TestClientOpenDuringClose(t *testing.T) {
	t.Parallel()
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

// Who opens an end of a name that has just been a queue's opens a stream.
func TestClientOpenAsAQueueIsDeleted(t *testing.T) {
	b := startBroker(t, BrokerConfig{Endpoints: []string{}})
	r := &rig{T: t, broker: b.Endpoints()[0]}
	r.client = r.newClient(ClientConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	queues := inBackground(func() (n int, err error) {
		for c := b.Client(); ctx.Err() == nil; n++ {
			q, err := c.OpenQueue(ctx, "p")
			if errors.Is(err, ErrPipeMode) || ctx.Err() != nil {
				continue
			}
			if err != nil {
				return n, err
			}
			c.DeleteQueue(ctx, "p")
			q.Close()
		}
		return n, nil
	})
	for range effort(2000) {
		rd, err := r.client.OpenReader(ctx, "p")
		if err != nil {
			t.Error(err)
			break
		}
		rd.Close()
	}
	cancel()
	if got := <-queues; got.err != nil {
		t.Error(got.err)
	}
}
