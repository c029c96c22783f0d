//go:build unix && !core

package zpipes

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// older is a door to a broker's door, through which clients and the broker know of each
// other's abilities only these, as if one of them were an earlier version. Descriptors do not
// pass.
func older(t *testing.T, door string, abilities uint32) (endpoint string) {
	return passing(t, door, func(frame []byte) []byte {
		if m, err := parse(frame); err == nil && m.block == hasBlock && (m.id == msgPing || m.id == msgPingOK) {
			m.hello.able &= abilities
			return m.append(nil)
		}
		return frame
	})
}

// passing is a door to a broker's door, through which all messages pass in both directions, as change makes them.
func passing(t *testing.T, door string, change func(frame []byte) []byte) (endpoint string) {
	return passingEach(t, door, func() func([]byte) []byte { return change })
}

// passingEach is passing, with a change for each connection.
func passingEach(t *testing.T, door string, changes func() func(frame []byte) []byte) (endpoint string) {
	path := filepath.Join(t.TempDir(), "passing")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards conns
	var conns []net.Conn
	pass := func(from, to net.Conn, change func([]byte) []byte) {
		defer to.Close()
		for {
			frame, err := readFramed(from)
			if err != nil {
				return
			}
			if _, err := to.Write(framed(change(frame))); err != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			broker, err := net.Dial("unix", strings.TrimPrefix(door, nearScheme))
			if err != nil {
				t.Error(err)
				client.Close()
				return
			}
			mu.Lock()
			conns = append(conns, client, broker)
			mu.Unlock()
			change := changes()
			all.Go(func() { pass(client, broker, change) })
			all.Go(func() { pass(broker, client, change) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return nearScheme + path
}

// An earlier version at one end of a connection takes nothing from those who are there but
// what it can't do itself.
func TestClientOfOtherAbilities(t *testing.T) {
	t.Parallel()
	for name, able := range map[string]uint32{"none": 0, "here": ableHere, "all": abilities} {
		for with, alone := range map[string]bool{"like it": false, "of today": true} {
			t.Run(name+", with one "+with, func(t *testing.T) {
				t.Parallel()
				b := startBroker(t, BrokerConfig{})
				door := nearDoorOf(t, b)
				w := &rig{T: t, broker: older(t, door, able)}
				r := &rig{T: t, broker: w.broker}
				if alone {
					r.broker = door
				}
				w.client, r.client = w.newClient(patient), r.newClient(patient)
				meetsOlder(w, r)
				meetsOlder(r, w)
			})
		}
	}
}

// meetsOlder plays what two clients do with each other.
func meetsOlder(a, b *rig) {
	ctx, cancel := context.WithTimeout(a.Context(), 4*soon)
	defer cancel()
	must := func(what string, err error) {
		a.Helper()
		if err != nil {
			a.Fatalf("%s: %v", what, err)
		}
	}
	data := noise(3, 3<<20)

	rd, w := b.reader("whole"), a.writer("whole")
	read := inBackground(func() (int, error) {
		got, err := io.ReadAll(rd)
		if err == nil && string(got) != string(data) {
			err = errors.New("other bytes")
		}
		return len(got), err
	})
	for rest := data; len(rest) > 0; rest = rest[min(len(rest), 100_000):] {
		_, err := w.Write(rest[:min(len(rest), 100_000)])
		must("Write", err)
	}
	must("Flush", w.Flush())
	must("Close", w.Close())
	if got := b.within(4*soon, read); got.err != nil {
		a.Errorf("%d bytes of a whole stream, %v", got.n, got.err)
	}
	rd.Close()

	w, rd = a.writer("torn"), b.reader("torn")
	_, err := w.Write(data[:1000])
	must("Write", err)
	must("Flush", w.Flush())
	must("CloseWithError", w.CloseWithError(errors.New("why")))
	if got, err := io.ReadAll(rd); len(got) != 1000 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "why") {
		a.Errorf("%d bytes of a torn stream, %v", len(got), err)
	}
	rd.Close()

	w, rd = a.writer("left"), b.reader("left")
	must("CloseWithError", rd.CloseWithError(errors.New("enough")))
	eventually(a, "its reader has left", func() bool { _, err = w.Write(data[:1]); return err != nil })
	if !errors.Is(err, io.ErrClosedPipe) || !strings.Contains(err.Error(), "enough") {
		a.Errorf("the reader left: %v", err)
	}
	w.Close()

	// An open that is given up leaves its name free.
	w = a.writer("busy")
	if _, err := b.client.OpenWriter(ctx, "busy"); !errors.Is(err, ErrPipeBusy) {
		a.Errorf("a second writer: %v", err)
	}
	must("CloseWithError", w.CloseWithError(errors.New("for nothing")))

	from, to := b.queue("queue"), a.queue("queue")
	must("Send", to.Send(ctx, data[:1]))
	must("Send", to.Send(ctx, data[:100_000]))
	must("Flush", to.Flush(ctx))
	for _, n := range []int{1, 100_000} {
		got, err := from.Receive(ctx)
		must("Receive", err)
		if len(got) != n {
			a.Errorf("a chunk of %d bytes, not %d", len(got), n)
		}
	}
	must("DeleteQueue", a.client.DeleteQueue(ctx, "queue"))
	if err := b.client.DeleteQueue(ctx, "queue"); !errors.Is(err, fs.ErrNotExist) {
		a.Errorf("a queue that is not there was deleted: %v", err)
	}
	from.Close()
	to.Close()

	_, err = a.client.Ping(ctx)
	must("Ping", err)
	status, err := b.client.Status(ctx)
	must("Status", err)
	if len(status.Pipes) > 0 {
		a.Errorf("left behind: %+v", status.Pipes)
	}
}

// Clients of earlier versions read a broadcast as they do a stream, and their status knows no
// kind of a pipe that they don't.
func TestClientOfAnEarlierVersionAtABroadcast(t *testing.T) {
	for _, able := range []uint32{0, ableHere} {
		b := startBroker(t, BrokerConfig{})
		now := &rig{T: t, broker: b.Name()}
		then := &rig{T: t, broker: older(t, nearDoorOf(t, b), able)}
		now.client, then.client = now.newClient(patient), then.newClient(patient)
		if _, err := then.client.OpenBroadcast(t.Context(), "p"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a broadcast of one who knows none: %v", err)
		}
		l, err := now.client.Listen(t.Context(), "l")
		if err != nil {
			t.Fatal(err)
		}
		w := now.broadcast("p", BroadcastConfig{Keep: 100, Readers: 2})
		first, second := then.reader("p"), then.reader("p")
		write(t, w, "one")
		flush(t, w)
		late := then.reader("p")
		status, err := then.client.Status(t.Context())
		if err != nil || len(status.Pipes) != 2 || status.Pipes[0].Mode != ModeStream || status.Pipes[1].Mode != ModeStream {
			t.Errorf("the status: %+v, %v", status.Pipes, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for _, rd := range []*Reader{first, second, late} {
			then.getsRest(rd, "one", io.EOF)
		}
		l.Close()
	}
}

// Workers and brokers of which one knows jobs one by one alone.
func TestJobsOneByOneAtAnEarlierVersion(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, broker: older(t, nearDoorOf(t, b), abilities&^ableLots)}
	r.client = r.newClient(patient)
	q := r.queue("q")
	const many = 20
	for range many {
		r.send(q, "x")
	}
	r.flush(q)
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			j, err := q.Take(t.Context())
			if err == nil {
				err = errors.Join(j.Done(), q.Flush(t.Context()))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, err := r.client.Status(t.Context()); err != nil || len(s.Pipes) != 1 || s.Pipes[0].Chunks != 0 {
		t.Errorf("the status: %+v, %v", s.Pipes, err)
	}
}

// What a broker of an earlier version does not know of jobs is an error that says so, and what it knows of
// queues works.
func TestJobsAtABrokerOfAnEarlierVersion(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	r := &rig{T: t, broker: older(t, nearDoorOf(t, b), abilities&^ableJobs)}
	r.client = r.newClient(patient)
	ctx := t.Context()
	q := r.queue("q")
	r.send(q, "x")
	r.flush(q)
	_, take := q.Take(ctx)
	_, open := QueueConfig{MaxDeliveries: 3}.OpenQueue(ctx, r.client, "q")
	_, redrive := r.client.RedriveJobs(ctx, "q")
	_, purge := r.client.PurgeJobs(ctx, "q", JobReady)
	errs := map[string]error{
		"Take": take, "OpenQueue": open, "RedriveJobs": redrive, "PurgeJobs": purge,
		"SendAfter": q.SendAfter(ctx, time.Second, nil), "SendOnce": q.SendOnce(ctx, "id", nil),
	}
	for _, err := range r.client.PeekJobs(ctx, "q") {
		errs["PeekJobs"] = err
	}
	for what, err := range errs {
		var op *OpError
		if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &op) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(errs) != 7 {
		t.Errorf("only %d calls failed", len(errs))
	}
	r.receives(q, "x")
}

// A broker of an earlier version says one thing at a time over a connection, and all is looked at beside each other
// all the same.
func TestPeekJobsBesideStatusAtABrokerOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	var refused atomic.Int32
	r := &rig{T: t, broker: passingEach(t, nearDoorOf(t, b), func() func([]byte) []byte {
		var mu sync.Mutex // guards what follows: channels
		said, refuses := make(map[uint32]bool), make(map[uint32]bool)
		return func(frame []byte) []byte {
			m, err := parse(frame)
			mu.Lock()
			defer mu.Unlock()
			switch report := m.mode == modeStatus || m.mode == modePeek; {
			case err != nil:
			case m.id == msgInput && report && len(said) == 0:
				said[m.channel] = true
			case m.id == msgInput && report: // this broker refuses it for another reason
				refuses[m.channel] = true
				m.mode, m.text = modePeek, []byte("nothing")
				return m.append(nil)
			case m.id == msgInputFailed && refuses[m.channel]:
				refused.Add(1)
				m.code = causeBusy
				return m.append(nil)
			case m.id == msgInputFailed || m.id == msgCloseOK:
				delete(said, m.channel)
			}
			return frame
		}
	})}
	r.client = r.newClient(patient)
	q := r.queue("q")
	r.send(q, "x", "y")
	r.flush(q)
	jobs := 0
	for _, err := range r.client.PeekJobs(t.Context(), "q") {
		check(t, err)
		jobs++
		r.peeks("q", "ready x 0", "ready y 0")
		s, err := r.client.Status(t.Context())
		if err != nil || len(s.Pipes) != 1 {
			t.Errorf("the status has %d pipes, %v", len(s.Pipes), err)
		}
	}
	if jobs != 2 || refused.Load() == 0 {
		t.Errorf("%d jobs, and %d looks were refused", jobs, refused.Load())
	}
	eventually(t, "no connection stays that was made for a look", func() bool { return b.Stats().Clients == 1 })
}
