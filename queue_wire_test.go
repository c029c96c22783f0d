package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// A texter is a client of the text interface, or of the base protocol: a bare socket.
type texter struct {
	*rig
	socket *zmq4.Socket
}

func (r *rig) texter(b *Broker) *texter {
	return &texter{r, wireSocket(r, b.Endpoints()[1], "")}
}

func (x *texter) say(frames ...string) {
	x.Helper()
	var message [][]byte
	for _, f := range frames {
		message = append(message, []byte(f))
	}
	if err := wireSend(x.socket, message...); err != nil {
		x.Fatal(err)
	}
}

// hears checks the next message. Behind ERROR anything may stand.
func (x *texter) hears(want ...string) {
	x.Helper()
	got, err := wireReceive(x.socket, dead)
	if err != nil {
		x.Fatalf("want %.40q: %v", want, err)
	}
	var frames []string
	for _, f := range got {
		frames = append(frames, string(f))
	}
	if want[0] == "ERROR" && len(frames) == 2 {
		frames = frames[:1]
	}
	if !slices.Equal(frames, want) {
		x.Fatalf("heard %.200q, want %.40q", frames, want)
	}
}

// does says a command that is answered OK.
func (x *texter) does(frames ...string) {
	x.Helper()
	x.say(frames...)
	x.hears("OK")
}

func (x *texter) hearsNothing() {
	x.Helper()
	if got, err := wireReceive(x.socket, 20*time.Millisecond); err == nil {
		x.Errorf("heard %.100q", got)
	}
}

func TestQueueAndText(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		x.does("OPEN", "q")
		q := r.queue("q")
		chunks := []string{"one", "", string(noise(1, 300_000))}
		for _, c := range chunks {
			x.does("WRITE", "q", c)
		}
		r.receives(q, chunks...)
		if err := q.Close(); err != nil {
			r.Fatal(err)
		}
		q = r.queue("q")
		r.send(q, chunks...)
		for _, c := range chunks {
			x.say("READ", "q")
			x.hears(c)
		}

		// Both wait in turn.
		x.say("READ", "q")
		r.awaitReceivers(b, "q", 1)
		receiving := inBackground(func() (int, error) {
			chunk, err := q.Receive(r.Context())
			return len(chunk), err
		})
		r.awaitReceivers(b, "q", 2)
		y := r.texter(b)
		y.does("WRITE", "q", "1")
		y.does("WRITE", "q", "22")
		x.hears("1")
		if got := r.within(soon, receiving); got.n != 2 || got.err != nil {
			r.Errorf("received %d bytes, %v", got.n, got.err)
		}
	})
}

func TestQueueSharedWithText(t *testing.T) {
	const each = 1000
	overBothWays(t, BrokerConfig{MaxPending: 2000}, ClientConfig{}, func(r *rig, b *Broker) {
		x, y := r.texter(b), r.texter(b)
		x.does("OPEN", "q")
		got := newTally(2 * each)
		var work sync.WaitGroup
		sender, receiver := r.queue("q"), r.queue("q")
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		work.Go(func() {
			for i := range each {
				r.send(sender, fmt.Sprint("go ", i))
			}
		})
		work.Go(func() {
			for i := range each {
				x.does("WRITE", "q", fmt.Sprint("text ", i))
			}
		})
		work.Go(func() {
			for chunk, err := range receiver.All(ctx) {
				if err == nil {
					got.add(string(chunk))
				}
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				y.say("READ", "q")
				chunk, err := wireReceive(y.socket, soon)
				switch {
				case err != nil && ctx.Err() == nil:
					t.Error(err)
					return
				case err == nil:
					got.add(string(chunk[0]))
				}
			}
		})
		got.await(r)
		cancel()
		work.Wait()
		got.once(r)
	})
}

func TestQueueReadersAndWriters(t *testing.T) {
	const ends, chunks, size = 3, 300, 1000
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		q := r.queue("q")
		var writing, reading sync.WaitGroup
		for i := range ends { // a stream takes one
			w := r.writer("q")
			writing.Go(func() {
				for range chunks {
					w.Write(bytes.Repeat([]byte{byte('a' + i)}, size))
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		counts := make([][256]int, ends)
		var readers []*Reader
		for range ends {
			readers = append(readers, r.reader("q"))
		}
		var total atomic.Int64
		for i, rd := range readers {
			rd.SetReadDeadline(time.Now().Add(20 * time.Second))
			reading.Go(func() {
				b := make([]byte, 700)
				for {
					n, err := rd.Read(b)
					for _, c := range b[:n] {
						counts[i][c]++
					}
					if total.Add(int64(n)) == ends*chunks*size {
						for _, rd := range readers {
							rd.Close()
						}
					}
					if err != nil {
						if !errors.Is(err, os.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		writing.Wait()
		reading.Wait()
		r.receivesNothing(q, 20*time.Millisecond)
		for c := range ends {
			n := 0
			for i := range ends {
				n += counts[i]['a'+c]
			}
			if n != chunks*size {
				r.Errorf("%d bytes of writer %d were read, want %d", n, c, chunks*size)
			}
		}
	})
}

// The base protocol at a queue.
func TestQueueAndOldClients(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		q := r.queue("q")
		bare := func(m wireMessage) string { return string(m.encode()) }
		w := r.texter(b)
		w.say(bare(wireMessage{name: "OUTPUT", text: "q"}))
		w.hears(bare(wireMessage{name: "OUTPUT_OK"}))
		w.say(bare(wireMessage{name: "WRITE", text: "from C"}))
		w.hears(bare(wireMessage{name: "WRITE_OK"})) // without a reader
		r.receives(q, "from C")

		rd := r.texter(b)
		rd.say(bare(wireMessage{name: "INPUT", text: "q"}))
		rd.hears(bare(wireMessage{name: "INPUT_OK"}))
		rd.say(bare(wireMessage{name: "READ", size: 5, timeout: 1}))
		rd.hears(bare(wireMessage{name: "READ_TIMEOUT"}))
		rd.say(bare(wireMessage{name: "READ", size: 5}))
		r.send(q, "abc", "defgh")
		rd.hears(bare(wireMessage{name: "READ_OK", text: "abcde"}))
		rd.say(bare(wireMessage{name: "CLOSE"}))
		rd.hears(bare(wireMessage{name: "CLOSE_OK"}))
		r.receives(q, "fgh")

		rd.say(bare(wireMessage{name: "INPUT", text: "q"}))
		rd.hears(bare(wireMessage{name: "INPUT_OK"}))
		rd.say(bare(wireMessage{name: "READ", size: 5}))
		x := r.texter(b)
		x.say("READ", "q")
		r.awaitReceivers(b, "q", 2)
		if err := r.client.DeleteQueue(r.Context(), "q"); err != nil {
			r.Fatal(err)
		}
		x.hears("ERROR")
		got, err := wireReceive(rd.socket, soon)
		if err != nil || !strings.HasPrefix(string(got[0]), "\xaa\xa0\x0b") {
			r.Errorf("READ was answered %q, %v, want READ_FAILED", got, err)
		}
		rd.say(bare(wireMessage{name: "READ", size: 5}))
		rd.hears(bare(wireMessage{name: "READ_END"}))
		w.say(bare(wireMessage{name: "WRITE", text: "x"}))
		got, err = wireReceive(w.socket, soon)
		if err != nil || !strings.HasPrefix(string(got[0]), "\xaa\xa0\x0f") {
			r.Errorf("WRITE was answered %q, %v, want WRITE_FAILED", got, err)
		}
	})
}

func TestQueueClosedByText(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x, y := r.texter(b), r.texter(b)
		x.does("OPEN", "q")
		y.does("OPEN", "q")
		y.say("READ", "q")
		r.awaitReceivers(b, "q", 1)
		x.does("CLOSE", "q")
		y.hearsNothing() // who has it open itself
		x.does("CLOSE", "q")
		y.hears("ERROR")
		y.say("READ", "q")
		y.hears("ERROR")

		// A Queue keeps it, and has it afterwards.
		q := r.queue("q")
		x.does("OPEN", "q")
		x.does("WRITE", "q", "kept")
		x.does("CLOSE", "q")
		x.say("CLOSE", "q")
		x.hears("ERROR")
		r.receives(q, "kept")
		if err := q.Close(); err != nil {
			r.Error(err)
		}

		// With the last one the chunks go.
		x.does("OPEN", "q")
		x.does("WRITE", "q", "gone")
		x.does("CLOSE", "q")
		r.receivesNothing(r.queue("q"), 20*time.Millisecond)
	})
}

func TestTextAtAStream(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		rd, w := r.pipe("p")
		x := r.texter(b)
		for _, command := range [][]string{{"OPEN", "p"}, {"WRITE", "p", "x"}, {"READ", "p"}, {"CLOSE", "p"}} {
			x.say(command...)
			x.hears("ERROR")
		}
		if _, err := r.client.OpenQueue(r.Context(), "p"); !errors.Is(err, ErrPipeMode) {
			r.Errorf("OpenQueue: %v", err)
		}
		go func() { w.WriteString("undisturbed"); w.Close() }()
		if got, err := io.ReadAll(rd); string(got) != "undisturbed" || err != nil {
			r.Errorf("read %q, %v", got, err)
		}
		x.does("OPEN", "p") // the stream is over
	})
}

func TestTextCountsForMaxPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPipes: 1})
	x := (&rig{T: t}).texter(b)
	x.does("OPEN", "a")
	x.say("OPEN", "b")
	x.hears("ERROR")
	x.does("CLOSE", "a")
	x.does("OPEN", "b")
}

// A text client that dies takes along at most what its READs waited for.
func TestTextReaderDies(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		q := r.queue("q")
		const reads = 5
		for range reads {
			x.say("READ", "q")
		}
		r.awaitReceivers(b, "q", reads)
		x.socket.Close()
		r.numbers(q, 100)
		chunks := r.drain(b, q)
		slices.Sort(chunks)
		if n := len(chunks); n < 100-reads || n != len(slices.Compact(chunks)) {
			r.Errorf("received %q", chunks)
		}
	})
}

// What a client says that breaks the rules ends its hold on the queue; nothing that
// it was sent is lost, and nobody else is disturbed.
func TestQueueHostileClients(t *testing.T) {
	open := message{id: msgInput, mode: modeQueue, text: []byte("q")}
	read := message{id: msgRead, flags: readAny, size: 10}
	record := string(appendRecord(nil, []byte("evil")))
	for name, says := range map[string][]message{
		"records cut short":         {open, {id: msgWrite, chunk: []byte(record + record[:6])}},
		"a record without its head": {open, {id: msgWrite, chunk: []byte{0, 0}}},
		"a record of 4 GiB":         {open, {id: msgWrite, chunk: []byte("\xff\xff\xff\xffevil")}},
		"no record":                 {open, {id: msgWrite}},
		"too large a record":        {open, {id: msgWrite, chunk: appendRecord(nil, make([]byte, 2<<20))}},
		"too much":                  {open, {id: msgWrite, chunk: appendRecord(nil, make([]byte, 1<<20))}, {id: msgWrite, chunk: appendRecord(nil, make([]byte, 1<<20))}, {id: msgWrite, chunk: appendRecord(nil, make([]byte, 1<<20))}},
		"a count of nothing":        {open, {id: msgRead, flags: readAny, size: 1, count: 1}},
		"too high a count":          {open, read, {id: msgRead, flags: readAny, size: 1, count: 1 << 31}},
		"too high a count, later":   {open, read, read, {id: msgRead, flags: readReturn}, {id: msgRead, flags: readAny, count: 1}},
		"a second open":             {open, read, open},
		"an open for writing":       {open, read, {id: msgOutput, text: []byte("q")}},
		"a broker's message":        {open, read, {id: msgReadOK, chunk: []byte(record)}},
		"an unknown mode":           {{id: msgInput, mode: 7, text: []byte("q")}, read},
		"nothing open":              {read},
		"a reader's WRITE":          {{id: msgInput, text: []byte("q")}, read, {id: msgWrite, chunk: []byte(record)}},
	} {
		t.Run(name, func(t *testing.T) {
			r, b := overWire(t, BrokerConfig{ClientTimeout: 100 * time.Millisecond}, ClientConfig{})
			q := r.queue("q")
			r.numbers(q, 3)
			s := wireGreet(t, b.Endpoints()[1], "")
			for _, m := range says {
				m.block, m.channel = hasBlock, 1
				if err := wireSend(s, m.append(nil)); err != nil {
					t.Fatal(err)
				}
			}
			// The last answer is INVALID, or that the open is refused.
			for id := messageID(0); id != msgInvalid && id != msgInputFailed; {
				frames, err := wireReceive(s, soon)
				if err != nil {
					t.Fatalf("no INVALID: %v", err)
				}
				m, err := parse(frames[0])
				if err != nil {
					t.Fatal(err)
				}
				id = m.id
			}
			if name == "a reader's WRITE" { // which changes nothing
				s.Close()
				r.awaitClients(b, 1)
			}
			r.receivesRange(q, 0, 3)
			if name != "too much" { // of which some was taken
				r.receivesNothing(q, 20*time.Millisecond)
			}
		})
	}
}

// What a broker says of a queue out of turn ends the connection; it neither hangs a
// call nor ends up in somebody's data.
func TestQueueBrokerSpeaksOutOfTurn(t *testing.T) {
	record := appendRecord(nil, []byte("EVIL"))
	for name, test := range map[string]struct {
		on   messageID // what the client says
		says []message // what it hears thereupon
	}{
		"records cut short":              {msgRead, []message{{id: msgReadOK, chunk: append(record, 0, 0, 0, 9, 1)}}},
		"a record of 4 GiB":              {msgRead, []message{{id: msgReadOK, chunk: []byte("\xff\xff\xff\xffEVIL")}}},
		"READ_OK without a record":       {msgRead, []message{{id: msgReadOK}}},
		"READ_OK unasked":                {msgWrite, []message{{id: msgReadOK, chunk: record}}},
		"READ_TIMEOUT unasked":           {msgRead, []message{{id: msgReadTimeout}}},
		"WRITE_OK unasked":               {msgInput, []message{{id: msgWriteOK, count: 2}}},
		"WRITE_OK that counts too much":  {msgWrite, []message{{id: msgWriteOK, count: 2}}},
		"WRITE_OK that counts very much": {msgWrite, []message{{id: msgWriteOK, count: 1<<32 - 1}}},
		"WRITE_OK that counts nothing":   {msgWrite, []message{{id: msgWriteOK}}},
		"WRITE_TIMEOUT":                  {msgWrite, []message{{id: msgWriteTimeout}}},
		"INPUT_OK again":                 {msgInput, []message{{id: msgInputOK, mode: modeQueue}}},
		"INPUT_FAILED behind INPUT_OK":   {msgInput, []message{{id: msgInputFailed}}},
		"OUTPUT_OK":                      {msgInput, []message{{id: msgOutputOK}}},
		"CLOSE_OK unasked":               {msgInput, []message{{id: msgCloseOK}}},
		"a client's message":             {msgInput, []message{{id: msgRead}}},
		"INVALID":                        {msgRead, []message{{id: msgInvalid}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLiar(t, func(l *liar, m message) {
				for _, says := range test.says {
					if says.channel = m.channel; m.id == test.on {
						l.say(says)
					}
				}
			})
			l.connected()
			q, err := l.rig.client.OpenQueue(t.Context(), "q")
			if err != nil {
				if !errors.Is(err, ErrBrokerGone) {
					t.Errorf("OpenQueue: %v", err)
				}
				return
			}
			sent := q.Send(t.Context(), []byte("good")) == nil
			flush := func() {
				err := l.within(soon, inBackground(func() (int, error) { return 0, q.Flush(t.Context()) })).err
				if sent && !errors.Is(err, ErrBrokerGone) {
					t.Errorf("Flush: %v", err)
				}
			}
			if test.on != msgRead {
				flush()
			}
			got := l.within(soon, inBackground(func() (int, error) {
				chunk, err := q.Receive(t.Context())
				return len(chunk), err
			}))
			if got.n != 0 || !errors.Is(got.err, ErrBrokerGone) {
				t.Errorf("received %d bytes, %v", got.n, got.err)
			}
			flush()
			var undelivered *UndeliveredError
			err = l.within(soon, inBackground(func() (int, error) { return 0, q.Close() })).err
			if sent != errors.As(err, &undelivered) {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// A broker that answers nothing about a queue but the open hangs no call for longer
// than that may take.
func TestQueueBrokerAnswersNothing(t *testing.T) {
	l := startLiar(t, func(*liar, message) {})
	q, err := l.rig.client.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := q.Send(ctx, []byte("x")); err != nil {
		t.Errorf("Send: %v", err)
	}
	if _, err := q.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive: %v", err)
	}
	if err := q.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush: %v", err)
	}
	waiting := l.begin(func() (int, error) { _, err := q.Receive(context.Background()); return 0, err })
	var undelivered *UndeliveredError
	if got := l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, q.Close() })); !errors.As(got.err, &undelivered) || undelivered.Bytes != 1 {
		t.Errorf("Close: %v", got.err)
	}
	l.within(soon, waiting)
	if got := l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, l.rig.client.Close() })); got.err != nil {
		t.Errorf("Client.Close: %v", got.err)
	}
}

// A Queue that has received more than it was asked for one by one has nothing left
// behind at the broker with which it would take a chunk that it does not want.
func TestQueueLeavesNoRequestBehind(t *testing.T) {
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		x.does("OPEN", "q")
		q := r.queue("q")
		chunks := []string{"one", "", string(noise(1, 300_000))}
		for range 20 {
			for _, c := range chunks {
				x.does("WRITE", "q", c)
			}
			r.receives(q, chunks...)
			r.send(q, chunks...)
			for _, c := range chunks {
				x.say("READ", "q")
				x.hears(c)
			}
		}
	})
}
