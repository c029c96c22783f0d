//go:build cgo && !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

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
	t.Parallel()
	const each = 1000
	overBothWays(t, BrokerConfig{MaxPending: 2000}, ClientConfig{}, func(r *rig, b *Broker) {
		r.busy()
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
				for ctx.Err() == nil {
					chunk, err := wireReceive(y.socket, 50*time.Millisecond)
					if err == nil {
						got.add(string(chunk[0]))
						break
					}
					if err != errWireSilence {
						t.Error(err)
						return
					}
				}
			}
		})
		got.await(r)
		cancel()
		work.Wait()
		got.once(r)
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

func TestQueueTextAtAStream(t *testing.T) {
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

func TestQueueTextCountsForMaxPipes(t *testing.T) {
	b := startBroker(t, BrokerConfig{MaxPipes: 1})
	x := (&rig{T: t}).texter(b)
	x.does("OPEN", "a")
	x.say("OPEN", "b")
	x.hears("ERROR")
	x.does("CLOSE", "a")
	x.does("OPEN", "b")
}

// A text client that dies takes along at most what its READs waited for.
func TestQueueTextReaderDies(t *testing.T) {
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

// The base protocol at a queue.
func TestQueueAndBaseClients(t *testing.T) {
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

// What a client says that breaks the rules ends its hold on the queue; nothing that
// it was sent is lost, and nobody else is disturbed.
func TestQueueHostileClients(t *testing.T) {
	t.Parallel()
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
