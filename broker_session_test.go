//go:build cgo && !core

package zpipes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Libzmq's own routing ids begin with a zero, but so may one that a client has chosen.
var heirsIDs = []string{"\x00\x01\x02\x03\x04", "chosen"}

// Who comes with a dead client's routing id has nothing of what that one had.
func TestBrokerHeirHasNothing(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for _, id := range heirsIDs {
			dead := mustDialRaw(t, endpoint, id)
			dead.say(message{id: msgInput, text: []byte("p")})
			dead.hears(t, msgInputOK)
			dead.Close()
			// As long as libzmq has not forgotten the one, it has no ear for the other.
			var frame string
			eventually(t, fmt.Sprintf("a READ of %q is answered", id), func() (so bool) {
				heir := mustDialRaw(t, endpoint, id)
				defer heir.Close()
				heir.say(message{id: msgRead, size: 1})
				var err error
				frame, err = heir.receive(100 * time.Millisecond)
				return err == nil
			})
			if m, err := parse([]byte(frame)); err != nil || m.id != msgInvalid {
				t.Errorf("%q was answered %x", id, frame)
			}
		}
	})
}

// What a dead client waited for does not go to who connects with its routing id, and has
// said nothing yet.
func TestBrokerHeirGetsNoAnswers(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for i, id := range heirsIDs {
			name := []byte(fmt.Sprint("p", i))
			dead := mustDialRaw(t, endpoint, id)
			dead.say(message{id: msgInput, text: name})
			dead.hears(t, msgInputOK)
			dead.say(message{id: msgRead, size: 6})
			w := mustDialRaw(t, endpoint, "")
			w.say(message{id: msgOutput, text: name})
			w.hears(t, msgOutputOK)
			dead.Close()
			heirs := make([]*rawPeer, 20)
			for i := range heirs { // one of them comes at the right moment
				heirs[i] = mustDialRaw(t, endpoint, id)
				w.say(message{id: msgPing}) // has the broker meet it
				w.hears(t, msgPingOK)
			}
			w.say(message{id: msgWrite, chunk: []byte("secret")})
			if frame, err := w.receive(soon); err != nil {
				t.Error(err)
			} else if m, _ := parse([]byte(frame)); m.id != msgWriteFailed && m.id != msgWriteOK {
				t.Errorf("WRITE was answered %x", frame)
			}
			for _, h := range heirs {
				if frame, err := h.receive(20 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("an heir heard %q, %v", frame, err)
				}
				h.Close()
			}
		}
	})
}

// Whose connection has ended while it waited is missed as soon as anybody else, however
// long it may be silent.
func TestBrokerConnectionThatEndsWhileItsClientWaits(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		r, text := mustDialRaw(t, endpoint, ""), mustDialRaw(t, endpoint, "")
		r.say(message{id: msgInput, text: []byte("p")})
		r.hears(t, msgInputOK)
		r.say(message{id: msgRead, size: 1})
		text.send(textOpen, "q")
		if ok, err := text.receive(soon); ok != textOK {
			t.Fatal(ok, err)
		}
		text.send(textRead, "q")
		w := mustDialRaw(t, endpoint, "")
		w.say(message{id: msgPing})
		w.hears(t, msgPingOK)
		if n := b.Stats().Clients; n != 3 {
			t.Errorf("%d clients are there", n)
		}
		r.Close()
		text.Close()
		eventuallyWithin(t, dead+soon, "both are missed", func() bool { return b.Stats().Clients == 1 })
		r = mustDialRaw(t, endpoint, "")
		r.say(message{id: msgInput, text: []byte("p")})
		r.hears(t, msgInputOK)
	})
}

// What a client wrote before it left is taken, though nobody can be told.
func TestBrokerTakesLastWords(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		const clients, chunks = 20, 5
		for range clients {
			c := mustDialRaw(t, endpoint, "")
			c.send(textOpen, "q")
			for range chunks {
				c.send(textWrite, "q", "x")
			}
			c.Close()
		}
		eventually(t, "all chunks are in the queue", func() bool {
			for p := range b.Pipes() {
				return p.Chunks == clients*chunks
			}
			return false
		})
		eventually(t, "all clients are forgotten", func() bool { return b.Stats().Clients == 0 })
	})
}

// A worker that gives up a READ by closing its socket, as one does in ZeroMQ, leaves
// nothing behind.
func TestBrokerTextClientsThatGiveUp(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, b *Broker, endpoint string) {
		for range 300 {
			c := mustDialRaw(t, endpoint, "")
			c.send(textOpen, "jobs")
			if ok, err := c.receive(soon); ok != textOK {
				t.Fatal(ok, err)
			}
			c.send(textRead, "jobs")
			c.Close()
		}
		eventuallyWithin(t, dead+soon, "all are missed", func() bool { return b.Stats().Clients == 0 })
		for p := range b.Pipes() {
			if p.Reads {
				t.Errorf("there is %+v", p)
			}
		}
		r, w := mustDialRaw(t, endpoint, ""), mustDialRaw(t, endpoint, "")
		r.send(textRead, "jobs")
		w.send(textWrite, "jobs", "one")
		if got, err := r.receive(soon); got != "one" {
			t.Errorf("%q, %v; want the chunk", got, err)
		}
		if ok, err := w.receive(soon); ok != textOK {
			t.Error(ok, err)
		}
	})
}

// What libzmq would give out as routing ids, had nobody seeded rand, is known. A client
// that takes them before others come would abort the broker's process.
func TestBrokerRoutingIDsAreNotKnown(t *testing.T) {
	name := uniqueName(t)
	startChild(t, childTask{Part: "broker", Broker: name}).ready()
	endpoint := defaultEndpoint(name)
	// The first numbers of rand, as libzmq makes ids of them, for its first sockets.
	for _, first := range []uint32{0x6b8b4567, 0xe43c9869, 0xf4b0dc51, 0x2ae8944a, 0xa38e1f29, 0xbd1b58ba, 0xaeb141f2, 0x79e2a9e3} {
		for i := range uint32(40) {
			mustDialRaw(t, endpoint, "\x00"+string(binary.BigEndian.AppendUint32(nil, first+i)))
		}
	}
	for range 40 {
		p, err := dialRaw(endpoint, "")
		if err != nil {
			t.Fatal("the broker is gone: ", err)
		}
		p.say(message{id: msgPing})
		p.hears(t, msgPingOK)
		p.Close()
	}
}

// A broker that is late each time it looks misses the dead all the same.
func TestBrokerThatIsLateMissesTheDead(t *testing.T) {
	now := time.Now()
	s := newSession(new(zmqHost), newRegistry(1, 1, 1), nil, time.Hour, now)
	s.presence = absent
	b := &zmqHost{order: []*session{s}}
	b.Broker = new(Broker)
	const late = 2 * minBeat
	for end := now.Add(2 * lastWords); b.look(s, now); {
		due := now.Add(sweepEvery)
		now = due.Add(late)
		b.lateFrom, b.lateTo, b.unexcused = due, now, 1
		b.excuse()
		if now.After(end) {
			t.Fatal("it is not missed")
		}
	}
}

// However many clients are lost at once, or a broker that was late has to excuse: others have
// their turn in between, and who was excused stays.
func TestBrokerLosesManyInSteps(t *testing.T) {
	const many = 2*sweepMost + dropStep + 1
	now := time.Now()
	b := &zmqHost{sessions: make(map[string]*session), nextSweep: now}
	b.Broker = &Broker{pipes: newRegistry(1, 1, 1)}
	for i := range many {
		s := newSession(b, b.pipes, fmt.Append(nil, i), time.Second, now)
		s.place = i
		b.order = append(b.order, s)
		b.sessions[string(s.id)] = s
	}
	stands := now.Add(time.Hour) // after which it goes on
	for turns := 0; b.nextSweep.Before(stands); turns++ {
		if b.sweep(stands); turns > many/sweepMost+1 {
			t.Fatal("it does not come to an end")
		}
		for _, s := range b.order[:b.unexcused] {
			if s.heard != now {
				t.Fatalf("turn %d: one more than %d was excused", turns, sweepMost)
			}
		}
	}
	if len(b.order) != many {
		t.Errorf("%d of %d are left, though the broker was not there", len(b.order), many)
	}
	last := b.order[many-1]
	for _, s := range b.order {
		b.lose(s)
		b.lose(s)
	}
	if b.dropLost(); len(b.order) != many-dropStep || b.nextLook(stands) != stands {
		t.Errorf("%d were dropped at once, and it looks again after %v", many-len(b.order), b.nextLook(stands).Sub(stands))
	}
	if b.known(last.id) != nil || !last.gone {
		t.Error("one who is lost, and says more, is known")
	}
	for b.lost.len() > 0 {
		b.dropLost()
	}
	if len(b.order)+len(b.sessions) > 0 {
		t.Errorf("%d are left", len(b.order))
	}
}

// A client that is lost is told nothing more: until it is dropped, which may take some turns where
// many are, it takes neither memory nor lines of the log.
func TestBrokerTellsTheLostNothing(t *testing.T) {
	b := &zmqHost{sessions: make(map[string]*session)}
	b.Broker = &Broker{log: newAsyncLog(nil), pipes: newRegistry(1, 1, 1)}
	s := newSession(b, b.pipes, []byte("c"), time.Second, time.Now())
	s.keep([][]byte{[]byte("first")}) // it takes no answers
	for n := 0; !s.lost; n++ {
		if b.reply(s, make([]byte, 1<<10)); n > 2*maxBacklog/64 {
			t.Fatal("it may have any number of answers")
		}
	}
	kept := len(s.backlog)
	for range 100 {
		if b.reply(s, []byte("more")) {
			t.Fatal("it is told more")
		}
	}
	if n := b.pipes.violations.Load(); n != 1 || len(s.backlog) != kept {
		t.Errorf("%d violations, and %d answers more are kept", n, len(s.backlog)-kept)
	}
}

// Of whose connection the system tells nothing, since it has just ended, is not taken for
// one of this process.
func TestBrokerConnectionOfWhichNothingIsKnown(t *testing.T) {
	_, address := new(zmqHost).connection(&packet{about: map[string]string{descriptor: "7"}})
	if who, ok := peerOf(address); ok || who.UID == os.Getuid() {
		t.Errorf("it is %+v, %v", who, ok)
	}
}

// A process that was stopped for so long that the broker dropped it must not
// believe that it is still connected, nor leave anything behind.
func TestBrokerClientThatWasDropped(t *testing.T) {
	t.Parallel()
	r, b := overWire(t, BrokerConfig{}, ClientConfig{})
	rd, w := r.pipe("p")
	w.WriteString("x")
	if _, err := io.ReadFull(rd, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, childTask{Part: "writer", Broker: b.Name(), Pipe: "q"})
	r.reader("q")
	c.ready()
	c.pause()
	eventuallyWithin(t, dead+soon, "it is dropped", func() bool { return b.Stats().Expired > 0 })
	c.signal(syscall.SIGCONT)
	r.awaitClients(b, 1)
	if _, err := r.client.OpenWriter(t.Context(), "q"); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

// Who takes another's routing id starts from nothing.
func TestBrokerRoutingIDIsNotInherited(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	for i := range 3 {
		s := wireGreet(t, b.Endpoints()[1], "chosen")
		open := message{id: msgOutput, text: []byte("p"), block: hasBlock, channel: 1}
		wireSend(s, open.append(nil))
		got, err := wireReceive(s, soon)
		if err != nil {
			t.Fatal(i, err)
		}
		if m, _ := parse(got[0]); m.id != msgOutputOK {
			t.Errorf("OUTPUT was answered %d %q", m.id, m.text)
		}
		s.Close()
	}
}

// A client that does not take its answers must not make the broker grow.
func TestBrokerAnswersNobodyTakes(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{})
	c := b.Client()
	defer c.Close()
	w, err := c.OpenWriter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	w.SetWriteDeadline(time.Now().Add(time.Second))
	s := wireSocket(t, b.Endpoints()[1], "")
	wireSend(s, (&message{id: msgInput, text: []byte("p")}).append(nil))
	for range 2000 {
		wireSend(s, (&message{id: msgRead, size: 100_000}).append(nil))
	}
	var total int
	for {
		n, err := w.Write(make([]byte, 100_000))
		total += n
		if err != nil {
			break
		}
	}
	// What ZeroMQ and the kernel hold for a client that does not read.
	if limit := 64 << 20; total > limit {
		t.Errorf("%d bytes were taken for a client that reads none", total)
	}
}

// A client that closes is not counted until it would have expired.
func TestBrokerClientsTakeTheirLeave(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c, err := ClientConfig{Heartbeat: time.Minute}.NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenReader(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	if n := b.Stats().Clients; n != 1 {
		t.Errorf("%d clients", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client is counted no more", func() bool { return b.Stats().Clients == 0 })
	if n := b.Stats().Expired; n != 0 {
		t.Errorf("%d clients have expired", n)
	}
}

// A client of the text interface that waits has no way to show that it lives, but its
// process must.
func TestBrokerDeadTextClientThatWaited(t *testing.T) {
	t.Parallel()
	b := startBroker(t, BrokerConfig{ClientTimeout: 100 * time.Millisecond})
	c := startChild(t, childTask{Part: "bare", Broker: b.Endpoints()[1], Pipe: "q"})
	if got := c.line(); got != "<nil>" {
		t.Fatal(got)
	}
	r := &rig{T: t}
	r.awaitReceivers(b, "q", 1)
	time.Sleep(300 * time.Millisecond)
	if n := b.Stats().Clients; n != 1 {
		t.Errorf("%d clients while it waits", n)
	}
	c.kill()
	eventually(t, "it is forgotten", func() bool { return b.Stats().Clients == 0 })
}

// A client that names a long heartbeat does not hold its pipes for as long once
// its connection is gone.
func TestBrokerDeadClientWithALongHeartbeat(t *testing.T) {
	t.Parallel()
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

func TestBrokerOrderlyClientsDoNotExpire(t *testing.T) {
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

// Who asks for the status and does not read it holds no more than a piece.
func TestStatusThatNobodyReads(t *testing.T) {
	b := startBroker(t, BrokerConfig{})
	c := b.Client()
	defer c.Close()
	const pipes, many = 4000, 20
	for i := range pipes {
		if _, err := c.OpenReader(t.Context(), fmt.Sprintf("%s%05d", strings.Repeat("\x01", 250), i)); err != nil {
			t.Fatal(err)
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for range many {
		s := wireGreet(t, b.Endpoints()[1], "")
		wireSend(s, (&message{id: msgInput, block: hasBlock, channel: 1, mode: modeStatus}).append(nil))
		if _, err := wireReceive(s, soon); err != nil {
			t.Fatal(err)
		}
	}
	b.reporter.mu.Lock()
	done := b.reporter.done
	b.reporter.mu.Unlock()
	if done != nil {
		<-done
	}
	if grown := heap() - before; grown > many<<20 {
		t.Errorf("the broker holds %d KiB for each of %d statuses", grown>>10/many, many)
	}
	far, err := NewClient(b.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if s, err := far.Status(t.Context()); err != nil || len(s.Pipes) != pipes {
		t.Errorf("%d pipes of %d, %v", len(s.Pipes), pipes, err)
	}
}

// What a client asks for and takes back is forgotten though Allow hangs, and so is a
// client that is gone.
func TestBrokerAllowQuestionsThatAreTakenBack(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	b := startBroker(t, BrokerConfig{Allow: func(Access) error { <-hangs; return nil }})
	defer close(hangs)
	idle := func() int { // what lies about beside those that Allow is asked
		b.gate.mu.Lock()
		defer b.gate.mu.Unlock()
		n := b.gate.turns.Len()
		for _, a := range b.gate.askers {
			if n += a.waiting.Len(); a.running == 0 {
				n++
			}
		}
		return n
	}
	input := (&message{id: msgInput, block: hasBlock, channel: 1, text: []byte("p")}).append(nil)
	leave := (&message{id: msgClose, block: hasBlock, channel: 1}).append(nil)
	ping := (&message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, session: 1}}).append(nil)
	for i := range maxAsking/maxAskingEach + 10 {
		s := wireGreet(t, b.Endpoints()[1], "")
		for range 50 {
			wireSend(s, input)
			wireSend(s, leave)
		}
		wireSend(s, input)
		wireSend(s, []byte(textOpen), []byte("q"))
		wireSend(s, ping)
		for m := (message{}); m.id != msgPingOK; {
			frames, err := wireReceive(s, soon)
			if err != nil {
				t.Fatal(err)
			}
			m, _ = parse(frames[0])
		}
		if n := idle(); n > 4*(i+1) { // each waits for two answers, and is one whose turn may come
			t.Fatalf("%d clients and questions wait", n)
		}
		s.Close()
	}
	eventuallyWithin(t, dead+soon, "all clients are gone", func() bool { return b.Stats().Clients == 0 })
	if n := idle(); n != 0 {
		t.Errorf("%d clients and questions are remembered", n)
	}
}
