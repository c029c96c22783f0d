//go:build cgo && !core

package zpipes

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
