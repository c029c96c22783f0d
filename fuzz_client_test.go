//go:build cgo && !core

package zpipes

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// FuzzClient has a lying broker say anything to a client that opens a reader, a writer
// and a queue, and asks for this and that. All calls must return in their time. What is
// read and received must have been said on that channel, in that order; io.EOF must
// have been said, too; what Flush and Close confirm must have been confirmed; what
// arrives at the liar must be what was written; and no more than was asked for may pile
// up. The input is how the liar greets (one byte), and then for each lie to whom it is
// told (one byte), a length, and so many bytes.
func FuzzClient(f *testing.F) {
	script := func(greeting byte, lies ...message) {
		b := []byte{greeting}
		for _, m := range lies {
			b = append(b, fuzzStep(lieTo(m.channel), m.append(nil)[2:])...)
		}
		f.Add(b)
	}
	const r, w, q = 1, 2, 3
	honest := []message{
		{id: msgReadOK, channel: r, chunk: []byte("hello")},
		{id: msgWriteOK, channel: w, count: 1 << 20},
		{id: msgReadOK, channel: q, chunk: packed("abc")},
		{id: msgReadOK, channel: q, chunk: packed("", "d")},
		{id: msgWriteOK, channel: q, count: 1},
		{id: msgWriteOK, channel: w},
		{id: msgReadEnd, channel: r},
		{id: msgReadFailed, channel: q, code: causeDeleted},
		{id: msgWriteFailed, channel: w, code: causeAborted, cause: []byte("disk full")},
		{id: msgReadFailed, channel: r, code: causeVanished},
		{id: msgReadTimeout, channel: q},
		{id: msgCloseOK, channel: w},
		{id: msgInvalid, channel: r},
	}
	for i := range honest {
		honest[i].block = hasBlock
	}
	var plain []message
	for _, m := range honest {
		plain = append(plain, message{id: m.id, channel: m.channel, chunk: m.chunk, text: []byte("why")})
	}
	script(lieAgrees|lieOpens|lieBeats|lieCloses, honest...)
	script(lieAgrees|lieOpens|lieBeats|lieCloses|lieLater, honest...)
	script(lieAgrees|lieBeats, everyMessage()...)
	script(lieBare|lieOpens|lieBeats|lieCloses, plain...)
	script(lieBare|lieOpens, plain...)
	script(lieNothing, everyMessage()...)
	script(lieLittle|lieOpens|lieBeats|lieCloses, slices.Repeat(honest[1:2], 40)...)
	for _, greeting := range []byte{lieAgrees, lieBare} {
		much := message{id: msgReadOK, block: hasBlock, chunk: fuzzNoise[:200]}
		if greeting == lieBare {
			much.block = noBlock
		}
		b := []byte{greeting | lieOpens | lieBeats | lieCloses | lieLater}
		f.Add(append(b, fuzzStep(lieToReader|lieLarge, much.append(nil)[2:])...))
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		l := startFuzzLiar(t, data[0], data[1:])
		var calls sync.WaitGroup
		for _, call := range []func(){l.reads, l.writes, l.queues, l.asks} {
			calls.Go(call)
		}
		// The longest is an open, then deadlines, then two Closes that are not answered.
		l.within(fuzzPatience, inBackground(func() (int, error) { calls.Wait(); return 0, nil }))
		l.within(fuzzPatience, inBackground(func() (int, error) { return 0, l.client.Close() }))
	})
}

// How the liar greets.
const (
	lieGreeting = 3
	lieAgrees   = 0 // to the extension
	lieLittle   = 1 // the same, with small windows
	lieBare     = 2 // as an base-protocol broker
	lieNothing  = 3 // not at all, but for what the input has

	lieOpens  = 1 << 2 // it answers opens
	lieBeats  = 1 << 3 // it answers heartbeats, as long as it has lies to tell
	lieCloses = 1 << 4 // it answers CLOSE
	lieLater  = 1 << 5 // the reader reads on only when all lies are told
)

// To whom a lie is told; what is left of the byte, with bit 3 set it has no signature.
const (
	lieToSender = iota // who spoke last
	lieToReader
	lieToWriter
	lieToQueue
	lieVerbatim          // on the channel that is in it
	lieAtOnce   = 1 << 4 // and the next one, too
	lieRaw      = 1 << 3
	lieLarge    = 1 << 5 // the chunk is repeated

	largeLie = 40 // times
)

func lieTo(channel uint32) byte {
	if channel > lieToQueue {
		return lieVerbatim
	}
	return byte(channel)
}

const (
	fuzzWindow = 1000
	fuzzWait   = 60 * time.Millisecond // deadlines and the like
)

// A fuzzLiar is a broker that says what an input has.
type fuzzLiar struct {
	*rig
	router   *zmq4.Socket
	greeting byte
	lies     []byte
	told     chan struct{} // closed when there are no more lies

	mu    sync.Mutex // guards what follows
	last  lieEnd
	idle  int               // for how many rounds nothing has come
	names map[string]lieEnd // of the pipes that were opened last
	said  map[lieEnd]*lieSaid
}

// A lieEnd is a client's connection and a channel on it.
type lieEnd struct {
	id      string
	channel uint32
}

// A lieSaid is what passed there.
type lieSaid struct {
	asked  bool   // a READ has come, or a WRITE to the stream
	data   []byte // in READ_OKs
	ended  bool   // by READ_END
	acks   int    // WRITE_OKs
	counts int    // the sum of what they counted
	took   []byte // in WRITEs
	writes int
}

func startFuzzLiar(t *testing.T, greeting byte, lies []byte) *fuzzLiar {
	router, endpoint := wireRouter(t)
	l := &fuzzLiar{
		rig: &rig{T: t, broker: endpoint}, router: router, greeting: greeting, lies: lies,
		told: make(chan struct{}), names: make(map[string]lieEnd), said: make(map[lieEnd]*lieSaid),
	}
	keepListening(t, router, l.listen)
	l.client = l.newClient(ClientConfig{Timeout: 2 * fuzzWait, Heartbeat: fuzzWait, Window: fuzzWindow})
	return l
}

// listen answers one message, and tells a lie; or tells one where none comes.
func (l *fuzzLiar) listen() {
	frames, err := wireReceive(l.router, 2*time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle++
	if err == nil {
		l.idle = 0
		m, err := parse(frames[1])
		if err != nil || len(frames) != 2 {
			l.Errorf("the client sent %x: %v", frames, err)
		}
		l.last = lieEnd{string(frames[0]), m.channel}
		l.answer(&m)
	}
	for l.last.id != "" && l.lie() {
	}
}

func (l *fuzzLiar) to(e lieEnd) *lieSaid {
	if l.said[e] == nil {
		l.said[e] = new(lieSaid)
	}
	return l.said[e]
}

// answer does what a broker should do, as far as the greeting says.
func (l *fuzzLiar) answer(m *message) {
	answer := message{block: m.block, channel: m.channel}
	on := byte(0xff)
	switch m.id {
	case msgPing:
		answer.id, on = msgPingOK, lieBeats
		if m.hello.session == 0 {
			on = 0xff
		}
		switch l.greeting & lieGreeting {
		case lieAgrees:
			answer.hello = hello{version: 1, session: 7, number: 1 << 20, pending: 1 << 20, total: 1 << 20}
		case lieLittle:
			answer.hello = hello{version: 1, session: 7, number: 10, pending: 10, total: 10}
		case lieBare:
			answer.block = noBlock
		case lieNothing:
			return
		}
		if l.lies == nil {
			on = 0
		}
	case msgInput, msgOutput:
		l.names[string(m.text)] = l.last
		*l.to(l.last) = lieSaid{}
		answer.id, on, answer.mode = msgInputOK, lieOpens, m.mode
		if m.id == msgOutput {
			answer.id = msgOutputOK
		}
	case msgRead:
		l.to(l.last).asked = true
		return
	case msgWrite:
		s := l.to(l.last)
		s.asked = s.asked || l.last == l.names["w"]
		s.writes++
		s.took = append(s.took, m.chunk...)
		return
	case msgClose:
		answer.id, on = msgCloseOK, lieCloses
	default:
		return
	}
	if l.greeting&on != 0 || on == 0xff {
		if l.greeting&lieGreeting == lieBare {
			answer.block = noBlock
		}
		wireSend(l.router, []byte(l.last.id), answer.append(nil))
	}
}

var lieNames = [8]string{lieToReader: "r", lieToWriter: "w", lieToQueue: "q"}

// lieRounds is for how many rounds a lie waits until its victim has asked for something,
// since one that comes before only ends the connection.
const lieRounds = 5

// lie tells the next one, and says whether another follows at once.
func (l *fuzzLiar) lie() (more bool) {
	if len(l.lies) < 2 {
		if l.lies != nil {
			l.lies = nil
			close(l.told)
		}
		return false
	}
	op, n := l.lies[0], int(l.lies[1])
	to, named := l.names[lieNames[op&7]]
	if lieNames[op&7] != "" && !l.to(to).asked && l.idle < lieRounds {
		return false
	}
	l.lies = l.lies[2:]
	frame := l.lies[:min(n, len(l.lies))]
	l.lies = l.lies[len(frame):]
	if op&lieRaw == 0 {
		frame = append([]byte(signature), frame...)
	}
	if !named {
		to = l.last
	}
	m, err := parse(frame)
	if err == nil {
		if op&7 == lieVerbatim {
			to.channel = m.channel
		}
		if op&lieLarge != 0 {
			m.chunk = bytes.Repeat(m.chunk, largeLie)
		}
		if m.block == hasBlock {
			m.channel = to.channel
		}
		if m.block == hasBlock || op&lieLarge != 0 {
			frame = m.append(nil)
		}
		s := l.to(lieEnd{to.id, m.channel})
		switch m.id {
		case msgReadOK:
			s.data = append(s.data, m.chunk...)
		case msgReadEnd:
			s.ended = true
		case msgWriteOK:
			s.acks++
			s.counts += int(m.count)
		}
	}
	wireSend(l.router, []byte(to.id), frame)
	return op&lieAtOnce != 0
}

// at returns what passed on the channel of a pipe that is open.
func (l *fuzzLiar) at(pipe string) lieSaid {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.to(l.names[pipe])
}

func (l *fuzzLiar) reads() {
	rd, err := l.client.OpenReader(context.Background(), "r")
	if err != nil {
		return
	}
	var got bytes.Buffer
	if l.greeting&lieLater != 0 {
		rd.SetReadDeadline(time.Now().Add(fuzzWait))
		io.CopyN(&got, rd, 1)
		select {
		case <-l.told:
		case <-time.After(fuzzWait):
		}
		rd.pipe.mu.Lock()
		if n := rd.pipe.buf.n; n > 4*fuzzWindow {
			l.Errorf("%d bytes have piled up", n)
		}
		rd.pipe.mu.Unlock()
	}
	rd.SetReadDeadline(time.Now().Add(fuzzWait))
	_, err = got.ReadFrom(rd)
	said := l.at("r")
	if !bytes.HasPrefix(said.data, got.Bytes()) {
		l.Errorf("read %q, and %q was said", got.Bytes(), said.data)
	}
	if err == nil && !said.ended {
		l.Error("a clean end that was not said")
	}
	rd.Close()
}

func (l *fuzzLiar) writes() {
	w, err := l.client.OpenWriter(context.Background(), "w")
	if err != nil {
		return
	}
	w.SetWriteDeadline(time.Now().Add(fuzzWait))
	n, _ := w.Write(fuzzNoise[:3*fuzzWindow])
	if w.Flush() == nil {
		l.confirmed("Flush", n)
	}
	more, _ := w.Write(fuzzNoise[n : n+10])
	if w.Close() == nil {
		l.confirmed("Close", n+more)
	}
	if said := l.at("w"); !bytes.HasPrefix(fuzzNoise, said.took) {
		l.Error("other bytes arrived than were written")
	}
}

// confirmed wants what confirms n bytes to have been said. (It may have been said before
// the bytes arrived, or if they never do.)
func (l *fuzzLiar) confirmed(what string, n int) {
	if said := l.at("w"); said.acks < said.writes || n > 0 && said.acks == 0 {
		l.Errorf("%s confirms %d bytes, with %d WRITEs and %d WRITE_OKs", what, n, said.writes, said.acks)
	}
}

func (l *fuzzLiar) queues() {
	q, err := l.client.OpenQueue(context.Background(), "q")
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), fuzzWait)
	defer cancel()
	sent := 0
	for _, chunk := range []string{"one", "", "three"} {
		if q.Send(ctx, []byte(chunk)) == nil {
			sent++
		}
	}
	var got [][]byte
	for chunk, err := range q.All(ctx) {
		if err == nil {
			got = append(got, chunk)
		}
	}
	flushing, stop := context.WithTimeout(context.Background(), fuzzWait)
	defer stop()
	flushed := q.Flush(flushing) == nil
	if said := l.at("q"); flushed && said.counts < sent {
		l.Errorf("Flush confirms %d chunks where WRITE_OKs counted %d", sent, said.counts)
	}
	// Some that came may be void.
	said := l.at("q").data
	for _, chunk := range got {
		_, rest, ok := bytes.Cut(said, appendRecord(nil, chunk))
		if !ok {
			l.Errorf("received %q, which was not said, or before", chunk)
		}
		said = rest
	}
	q.Close()
}

func (l *fuzzLiar) asks() {
	ctx, cancel := context.WithTimeout(context.Background(), fuzzWait)
	defer cancel()
	l.client.Ping(ctx)
	l.client.Status(ctx)
	l.client.DeleteQueue(ctx, "d")
}
