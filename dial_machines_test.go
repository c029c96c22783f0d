//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func listenAt(t testing.TB, b *Broker, name string) *Listener {
	t.Helper()
	l, err := ClientConfig{}.client(t, b).Listen(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connected makes a connection from one broker to a listener at another one.
func connectedFrom(t testing.TB, b *Broker, l *Listener) (dialled, accepted *Conn) {
	t.Helper()
	awaitOffers(t, b, l.addr.Name, 1)
	n, err := ClientConfig{}.client(t, b).Dial(t.Context(), l.addr.Name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.CloseWithError(errors.New("the test is over"))
		a.(*Conn).CloseWithError(errors.New("the test is over"))
	})
	return n, a.(*Conn)
}

// noConnections waits until a broker has nothing of any.
func noConnections(t testing.TB, b *Broker) {
	t.Helper()
	eventually(t, "nothing is left", func() bool {
		b.pipes.mu.Lock()
		defer b.pipes.mu.Unlock()
		return b.pipes.halves == 0 && len(b.pipes.far) == 0
	})
}

// Who listens at the dialler's own broker goes first; others take turns; and who has gone is passed over.
func TestDialElsewhere(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	accepted := make(chan int, 100)
	serve := func(i int) *Listener {
		l := listenAt(t, brokers[i], "svc")
		go func() {
			for {
				n, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- i
				n.Close()
			}
		}()
		return l
	}
	client := ClientConfig{}.client(t, brokers[0])
	dials := func(n int) (by [3]int) {
		for range n {
			n, err := client.Dial(t.Context(), "svc")
			if err != nil {
				t.Fatal(err)
			}
			by[<-accepted]++
			n.Close()
		}
		return by
	}
	if _, err := client.Dial(t.Context(), "svc"); !errors.Is(err, ErrNoListener) {
		t.Errorf("a dial where nobody listens: %v", err)
	}
	first, second := serve(1), serve(2)
	awaitOffers(t, brokers[0], "svc", 2)
	eventually(t, "they take turns", func() bool { return dials(4) == [3]int{0, 2, 2} }) // as soon as all registrars know both
	own := serve(0)
	if by := dials(4); by != [3]int{4} {
		t.Errorf("they have accepted %v", by)
	}
	own.Close()
	first.Close() // nobody has told this broker yet
	if by := dials(4); by != [3]int{0, 0, 4} {
		t.Errorf("they have accepted %v", by)
	}
	second.Close()
	if _, err := client.Dial(t.Context(), "svc"); !errors.Is(err, ErrNoListener) {
		t.Errorf("a dial where nobody listens any more: %v", err)
	}
	for _, b := range brokers {
		noConnections(t, b)
	}
}

// A dial that was given up is not accepted, and leaves nothing at either broker.
func TestDialElsewhereGivenUp(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := []*Broker{c.broker(t), c.broker(t, func(cfg *BrokerConfig) { cfg.Backlog = 1 })}
	c.awaitLinks(t, brokers...)
	l := listenAt(t, brokers[1], "svc")
	awaitOffers(t, brokers[0], "svc", 1)
	client := ClientConfig{}.client(t, brokers[0])
	n, err := client.Dial(t.Context(), "svc")
	if err != nil {
		t.Fatal(err)
	}
	waiting := func() int {
		info, _ := brokers[1].Client().Stat(t.Context(), "svc")
		return info.Waiting
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := inBackground(func() (int, error) { _, err := client.Dial(ctx, "svc"); return 0, err })
	eventually(t, "the second waits", func() bool { return waiting() == 2 })
	cancel()
	if err := (<-done).err; !errors.Is(err, context.Canceled) {
		t.Errorf("a dial that was given up: %v", err)
	}
	eventually(t, "it is gone", func() bool { return waiting() == 1 })
	n.Close()
	eventually(t, "the first is gone, too", func() bool { return waiting() == 0 })
	l.Close()
	for _, b := range brokers {
		noConnections(t, b)
	}
}

// Connections go on where those between the brokers break, or nothing passes for a while.
func TestConnsElsewhereGoOn(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := connectedFrom(t, brokers[0], listenAt(t, brokers[1], "svc"))
	go func() {
		io.Copy(b, b)
		b.Close()
	}()
	sent := noise(1, 8<<20)
	go func() {
		a.Write(sent)
		a.CloseWrite()
	}()
	got := make([]byte, 0, len(sent))
	for i := 0; ; i++ {
		piece := make([]byte, min(1<<20, max(1, len(sent)-len(got))))
		n, err := io.ReadFull(a, piece)
		if got = append(got, piece[:n]...); err != nil {
			if err != io.EOF {
				t.Errorf("Read: %v", err)
			}
			break
		}
		switch i {
		case 1, 5:
			c.sever(brokers[0], brokers[1])
		case 3:
			c.cut(brokers[0], brokers[1])
			time.AfterFunc(time.Second, func() { c.heal(brokers[0], brokers[1]) })
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, of %d", len(got), len(sent))
	}
	a.Close()
	for _, b := range brokers {
		noConnections(t, b)
	}
}

// Where the other broker stays out of reach, both ends are told which, and nothing is left.
func TestConnsElsewhereAreTold(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	c.patience = 2 * time.Second
	brokers := c.meshed(t, 3)
	l := listenAt(t, brokers[1], "svc")
	a, b := connectedFrom(t, brokers[0], l)
	other, _ := connectedFrom(t, brokers[2], l)
	blocked := []<-chan result{
		inBackground(func() (int, error) { return a.Read(make([]byte, 1)) }),
		inBackground(func() (int, error) { return b.Read(make([]byte, 1)) }),
	}
	c.cut(brokers[0], brokers[1])
	a.Write([]byte("lost"))
	for i, done := range blocked {
		select {
		case got := <-done:
			if !errors.Is(got.err, io.ErrUnexpectedEOF) || !strings.Contains(got.err.Error(), brokers[1-i].mesh.name) {
				t.Errorf("end %d: %v", i, got.err)
			}
		case <-time.After(c.patience + deadAfter + 2*soon):
			t.Fatalf("end %d was not told", i)
		}
	}
	eventuallyWithin(t, c.patience+soon, "an error of Write", func() bool { _, err := b.Write([]byte("x")); return err != nil })
	eventuallyWithin(t, c.patience+soon, "an error of Write", func() bool { _, err := a.Write([]byte("x")); return err != nil })
	c.heal(brokers[0], brokers[1])
	// A broker that ends takes its connections along at once.
	brokers[1].Close()
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a broker that has ended: %v", err)
	}
	a.Close()
	other.Close()
	noConnections(t, brokers[0])
	noConnections(t, brokers[2])
	if _, err := (ClientConfig{}).client(t, brokers[0]).Dial(t.Context(), "svc"); err == nil {
		t.Error("a dial where nobody is any more")
	}
}

// A process that dies at one host is told at the other.
func TestConnsElsewhereOfClientsThatDie(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	l := listenAt(t, brokers[1], "svc")
	awaitOffers(t, brokers[0], "svc", 1)
	dialler := ClientConfig{}.clientOf(t, memoryEndpoint(brokers[0].Name()))
	n, err := dialler.Dial(t.Context(), "svc")
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	n.w.link.conn.kill("the test")
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a process that has died: %v", err)
	}
}

func TestHTTPElsewhere(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	l := listenAt(t, brokers[1], "svc")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { io.Copy(w, q.Body) })}
	go server.Serve(l)
	awaitOffers(t, brokers[0], "svc", 1)
	transport := &http.Transport{DialContext: ClientConfig{}.client(t, brokers[0]).DialContext}
	defer transport.CloseIdleConnections()
	for range 3 {
		sent := noise(1, 1<<20)
		answer, err := (&http.Client{Transport: transport}).Post("http://svc/", "application/octet-stream", bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
