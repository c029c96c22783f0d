//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// overConnections runs a test for each way that has connections. Between brokers, listeners are
// where readers are.
func overConnections(t *testing.T, broker BrokerConfig, test func(r *rig)) {
	overWaysAndMachines(t, broker, ClientConfig{}, func(r *rig) {
		if !r.base {
			test(r)
		}
	})
}

func (r *rig) listen(name string) *Listener {
	r.Helper()
	l, err := r.readers().Listen(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { l.Close() })
	if r.machines {
		awaitOffers(r, processBrokers.find(r.broker), name, 1)
	}
	return l
}

// awaitOffers waits until a broker knows that so many listen at that name.
func awaitOffers(t testing.TB, b *Broker, name string, want int) {
	t.Helper()
	var known atomic.Int64
	stop := b.pipes.exchange.seek(thingListener, name, func(_ time.Time, all []offering) { known.Store(int64(len(all))) })
	defer stop()
	eventually(t, "the listeners are known", func() bool { return known.Load() == int64(want) })
}

func (r *rig) dial(name string) *Conn {
	r.Helper()
	n, err := r.client.Dial(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { n.CloseWithError(errors.New("the test is over")) })
	return n
}

func (r *rig) accept(l *Listener) *Conn {
	r.Helper()
	n, err := l.Accept()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { n.(*Conn).CloseWithError(errors.New("the test is over")) })
	return n.(*Conn)
}

// connection makes one, each end of which is another client's.
func (r *rig) connection() (dialled, accepted *Conn) {
	r.Helper()
	there := *r
	if r.machines {
		there.reads = r.newClientOf(r.second, ClientConfig{})
	} else {
		there.client = r.newClient(ClientConfig{})
	}
	l := there.listen("svc")
	dialled = r.dial("svc")
	accepted = there.accept(l)
	return dialled, accepted
}

func (r *rig) checkOp(err error, op string, is error) {
	r.Helper()
	var e *net.OpError
	if !errors.As(err, &e) || e.Op != op || e.Net != "zpipes" || !errors.Is(err, is) {
		r.Errorf("%s: %v, want a net.OpError around %v", op, err, is)
	}
}

func TestDialWhereNobodyListens(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		r.connected()
		start := time.Now()
		n, err := r.client.Dial(r.Context(), "svc")
		took := time.Since(start)
		r.checkOp(err, "dial", ErrNoListener)
		r.checkOp(err, "dial", syscall.ECONNREFUSED)
		if n != nil || took > soon/2 { // else it takes ClientConfig's Timeout
			r.Errorf("%v after %v", n, took)
		}
		if n, err := r.client.DialContext(r.Context(), "tcp", "svc:80"); n != nil || !errors.Is(err, ErrNoListener) {
			r.Errorf("DialContext: %v, %v", n, err)
		}
		l := r.listen("svc")
		l.Close()
		_, err = r.client.Dial(r.Context(), "svc")
		r.checkOp(err, "dial", ErrNoListener)
		r.writer("stream")
		_, err = r.client.Dial(r.Context(), "stream")
		r.checkOp(err, "dial", ErrPipeMode)
		_, err = r.client.Listen(r.Context(), "stream")
		r.checkOp(err, "listen", ErrPipeMode)
		if r.machines { // where the name is free
			return
		}
		r.listen("svc")
		_, err = r.client.OpenWriter(r.Context(), "svc")
		if !errors.Is(err, ErrPipeMode) {
			r.Errorf("a Writer of a listener's name: %v", err)
		}
		_, err = r.client.OpenQueue(r.Context(), "svc")
		if !errors.Is(err, ErrPipeMode) {
			r.Errorf("a Queue of a listener's name: %v", err)
		}
	})
}

func TestDialAtABrokerWithoutConnections(t *testing.T) {
	overAllWays(t, func(r *rig) {
		if r.base {
			_, err := r.client.Dial(r.Context(), "svc")
			r.checkOp(err, "dial", errors.ErrUnsupported)
			_, err = r.client.Listen(r.Context(), "svc")
			r.checkOp(err, "listen", errors.ErrUnsupported)
		}
	})
}

func TestConnCarriesBothDirections(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		r.busy()
		a, b := r.connection()
		var s stream
		data := s.next(3 << 20)
		go func() {
			io.Copy(b, b)
			b.Close()
		}()
		go func() {
			a.Write(data)
			if err := a.CloseWrite(); err != nil {
				r.Error(err)
			}
		}()
		got, err := io.ReadAll(a)
		if err != nil || !bytes.Equal(got, data) {
			r.Errorf("%d bytes came back, %v", len(got), err)
		}
		if r.machines {
			if who := b.Peer(); who != (Access{UID: -1, GID: -1, PID: -1, Op: "dial", Pipe: "svc"}) {
				r.Errorf("the dialler is %+v", who)
			}
			if who := a.Peer(); who != (Access{UID: -1, GID: -1, PID: -1, Op: "listen", Pipe: "svc"}) {
				r.Errorf("the listener is %+v", who)
			}
			return
		}
		if who := b.Peer(); who.PID <= 0 || who.UID != os.Getuid() || who.Op != "dial" || who.Pipe != "svc" {
			r.Errorf("the dialler is %+v", who)
		}
		if who := a.Peer(); who.PID <= 0 || who.UID != os.Getuid() || who.Op != "listen" {
			r.Errorf("the listener is %+v", who)
		}
		if a.RemoteAddr().Network() != "zpipes" || a.RemoteAddr().String() != r.broker+"/svc" || a.LocalAddr() != b.RemoteAddr() {
			r.Errorf("addresses %v and %v", a.RemoteAddr(), b.LocalAddr())
		}
	})
}

// Close returns at once, and the other side reads all the same.
func TestConnCloseDelivers(t *testing.T) {
	overConnections(t, BrokerConfig{MaxPending: 64 << 10}, func(r *rig) {
		a, b := r.connection()
		var s stream
		data := s.next(200 << 10) // more than the broker takes
		if n, err := a.Write(data); n != len(data) || err != nil {
			r.Fatal(n, err)
		}
		blocked := r.begin(func() (int, error) { return a.Read(make([]byte, 1)) })
		start := time.Now()
		if err := a.Close(); err != nil || time.Since(start) > soon/2 {
			r.Errorf("Close: %v after %v", err, time.Since(start))
		}
		r.checkOp(r.within(soon, blocked).err, "read", net.ErrClosed)
		_, err := a.Write(data)
		r.checkOp(err, "write", net.ErrClosed)
		_, err = a.Read(data)
		r.checkOp(err, "read", net.ErrClosed)
		r.checkOp(a.SetDeadline(time.Now()), "set", net.ErrClosed)
		if err := a.Close(); err != nil {
			r.Errorf("a second Close: %v", err)
		}
		eventually(r, "an error of Write", func() bool { _, err = b.Write([]byte("x")); return err != nil })
		r.checkOp(err, "write", io.ErrClosedPipe)
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, data) {
			r.Errorf("%d bytes of %d, %v", len(got), len(data), err)
		}
		if err := r.client.Close(); err != nil {
			r.Errorf("Client.Close: %v", err)
		}
	})
}

// Client.Close waits for what Conn.Close still delivers, and tells what it did not.
func TestConnCloseThatDeliversNothingIsTold(t *testing.T) {
	t.Parallel()
	overWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.base {
			return
		}
		r.listen("svc")
		here := r.newClient(ClientConfig{Timeout: 200 * time.Millisecond})
		var n *Conn
		eventually(r, "a connection", func() (done bool) {
			var err error
			n, err = here.Dial(r.Context(), "svc")
			return err == nil
		})
		n.Write([]byte("hello"))
		n.Close()
		var undelivered *UndeliveredError
		if err := here.Close(); !errors.As(err, &undelivered) || undelivered.Bytes != 5 {
			r.Errorf("Client.Close: %v", err)
		}
	})
}

// It waits so long and no longer, also where a CloseWrite has more patience.
func TestClientCloseEndsACloseWrite(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		r.listen("svc")
		here := r.newClient(ClientConfig{Timeout: 200 * time.Millisecond})
		var n *Conn
		eventually(r, "a connection", func() bool {
			var err error
			n, err = here.Dial(r.Context(), "svc")
			return err == nil
		})
		n.Write([]byte("hello"))
		n.SetWriteDeadline(time.Now().Add(time.Hour))
		closing := r.begin(func() (int, error) { return 0, n.CloseWrite() })
		closed := r.begin(func() (int, error) { return 0, here.Close() })
		for what, c := range map[string]<-chan result{"Client.Close": closed, "CloseWrite": closing} {
			var undelivered *UndeliveredError
			if err := r.within(soon, c).err; !errors.As(err, &undelivered) || undelivered.Bytes != 5 {
				r.Errorf("%s: %v", what, err)
			}
		}
	})
}

// The deadline of a CloseWrite can be moved, as that of a Writer's Close; and a half that is closed keeps nobody from
// setting that of the other.
func TestConnDeadlineEndsACloseWrite(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		r.listen("svc")
		n := r.dial("svc")
		n.Write([]byte("hello"))
		n.SetWriteDeadline(time.Now().Add(time.Hour))
		closing := r.begin(func() (int, error) { return 0, n.CloseWrite() })
		eventually(r, "a CloseWrite that waits", n.w.delivers)
		if err := n.SetDeadline(time.Unix(1, 0)); err != nil {
			r.Errorf("SetDeadline beside a CloseWrite: %v", err)
		}
		var undelivered *UndeliveredError
		if err := r.within(soon, closing).err; !errors.As(err, &undelivered) || !errors.Is(err, os.ErrDeadlineExceeded) {
			r.Errorf("CloseWrite: %v", err)
		}
		_, err := n.Read(make([]byte, 1))
		r.checkOp(err, "read", os.ErrDeadlineExceeded)
		if err := n.SetDeadline(time.Time{}); err != nil {
			r.Errorf("SetDeadline behind a CloseWrite: %v", err)
		}
		n.Close()
		r.checkOp(n.SetReadDeadline(time.Time{}), "set", net.ErrClosed)
		r.checkOp(n.SetWriteDeadline(time.Time{}), "set", net.ErrClosed)
	})
}

// delivers says that Close or Flush waits.
func (w *Writer) delivers() bool {
	w.pipe.mu.Lock()
	defer w.pipe.mu.Unlock()
	return w.pipe.flushing > 0
}

func TestConnTorn(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		a, b := r.connection()
		a.CloseWithError(errors.New("disk full"))
		_, err := b.Read(make([]byte, 1))
		r.checkOp(err, "read", io.ErrUnexpectedEOF)
		if err != nil && !bytes.Contains([]byte(err.Error()), []byte("disk full")) {
			r.Errorf("no reason: %v", err)
		}
		eventually(r, "an error of Write", func() bool { _, err = b.Write([]byte("x")); return err != nil })
		r.checkOp(err, "write", io.ErrClosedPipe)
		b.Close()

		r.kill()
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err = r.client.Dial(ctx, "svc"); err == nil {
			r.Error("a dial at a broker that is gone")
		}
	})
}

func TestConnHalves(t *testing.T) {
	overConnections(t, BrokerConfig{}, func(r *rig) {
		a, b := r.connection()
		a.CloseRead()
		var err error
		eventually(r, "an error of Write", func() bool { _, err = b.Write([]byte("x")); return err != nil })
		r.checkOp(err, "write", io.ErrClosedPipe)
		_, err = a.Read(make([]byte, 1))
		r.checkOp(err, "read", net.ErrClosed)
		a.Write([]byte("abc"))
		if err := a.CloseWrite(); err != nil {
			r.Errorf("CloseWrite: %v", err)
		}
		if got, err := io.ReadAll(b); string(got) != "abc" || err != nil {
			r.Errorf("%q, %v", got, err)
		}
	})
}

func TestListenerCloseUnblocksAccept(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{}, func(r *rig) {
		l := r.listen("svc")
		blocked := r.begin(func() (int, error) { _, err := l.Accept(); return 0, err })
		l.Close()
		r.checkOp(r.within(soon, blocked).err, "accept", net.ErrClosed)
		_, err := l.Accept()
		r.checkOp(err, "accept", net.ErrClosed)

		if r.machines {
			return
		}
		// The name is free for anything.
		w := r.writer("svc")
		w.CloseWithError(io.EOF)
		l = r.listen("svc")
		blocked = r.begin(func() (int, error) { _, err := l.Accept(); return 0, err })
		r.kill()
		if err := r.within(dead+soon, blocked).err; !errors.Is(err, ErrBrokerGone) {
			r.Errorf("Accept without a broker: %v", err)
		}
	})
}

func TestDialWaitsWhereTheBacklogIsFull(t *testing.T) {
	t.Parallel()
	overConnections(t, BrokerConfig{Backlog: 2}, func(r *rig) {
		l := r.listen("svc")
		first, second := r.dial("svc"), r.dial("svc")
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := r.client.Dial(ctx, "svc")
		r.checkOp(err, "dial", context.DeadlineExceeded)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, ErrNoBroker) {
			r.Errorf("it is %v", err)
		}
		dialled := r.begin(func() (int, error) {
			n, err := r.client.Dial(r.Context(), "svc")
			if err == nil {
				defer n.Close()
				n.Write([]byte("third"))
			}
			return 0, err
		})
		second.CloseWithError(errors.New("given up"))
		if err := r.within(soon, dialled).err; err != nil {
			r.Errorf("a dial for which there is room now: %v", err)
		}
		first.Write([]byte("first"))
		first.Close()
		for _, want := range []string{"first", "third"} {
			n := r.accept(l)
			n.SetReadDeadline(time.Now().Add(soon))
			if got, err := io.ReadAll(n); string(got) != want || err != nil {
				r.Errorf("accepted who sent %q, %v, want %q", got, err, want)
			}
		}
		r.begin(func() (int, error) { _, err := l.Accept(); return 0, err }) // nobody else is there
		info, err := r.readers().Stat(r.Context(), "svc")
		if err != nil || info.Mode != ModeListener || info.Listeners != 1 || info.Waiting != 0 || !info.Reads {
			r.Errorf("Stat: %+v, %v", info, err)
		}
	})
}

// A listener that starts later does not accept who has dialled before.
func TestListenerAcceptsNobodyOfBefore(t *testing.T) {
	overConnections(t, BrokerConfig{}, func(r *rig) {
		l := r.listen("svc")
		n := r.dial("svc")
		n.Write([]byte("x"))
		l.Close()
		_, err := n.Read(make([]byte, 1))
		r.checkOp(err, "read", io.ErrUnexpectedEOF)
		l = r.listen("svc")
		r.begin(func() (int, error) { _, err := l.Accept(); return 0, err })
	})
}

func TestListenersTakeTurns(t *testing.T) {
	overConnections(t, BrokerConfig{}, func(r *rig) {
		accepted := make(chan int, 100)
		for i := range 2 {
			there := *r
			if !r.machines {
				there.client = r.newClient(ClientConfig{})
			}
			l := there.listen("svc")
			for range 20 {
				go func() {
					if n, err := l.Accept(); err == nil {
						accepted <- i
						n.Close()
					}
				}()
			}
		}
		eventually(r, "Accepts that wait", func() bool {
			info, err := r.readers().Stat(r.Context(), "svc")
			return err == nil && info.Listeners == 2 && info.Reads
		})
		time.Sleep(50 * time.Millisecond) // until all of them do
		count := [2]int{}
		for range 20 {
			r.dial("svc")
			count[<-accepted]++
		}
		if count != [2]int{10, 10} {
			r.Errorf("they have accepted %v", count)
		}
	})
}

func TestDialContextTakesNamesAsNetDoes(t *testing.T) {
	overConnections(t, BrokerConfig{}, func(r *rig) {
		l := r.listen("svc")
		for _, a := range [][2]string{
			{"tcp", "svc:80"}, {"tcp", "svc"}, {"zpipes", "svc"}, {l.Addr().Network(), l.Addr().String()},
		} {
			if r.machines && a[0] == "zpipes" {
				a[1] = r.broker + "/svc" // as this side calls it
			}
			n, err := r.client.DialContext(r.Context(), a[0], a[1])
			if err != nil {
				r.Errorf("DialContext of %q: %v", a, err)
				continue
			}
			r.accept(l).Close()
			n.Close()
		}
	})
}
