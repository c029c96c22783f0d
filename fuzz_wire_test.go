//go:build cgo && !core

package zpipes

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// FuzzWire has bare sockets send anything to a whole broker, over ipc and inproc, while
// a writer and a reader that know how to behave use it, too. The broker must go on
// answering, what is the neighbours' must arrive, and when all are gone, nothing may be
// left. Each step of the input is the socket and what it does (one byte), a length, and
// so many bytes.
func FuzzWire(f *testing.F) {
	hi := message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 10}}
	var all, base, queue []byte
	for _, m := range everyMessage() {
		m.channel = 1
		all = append(all, fuzzStep(wireFrame|1, m.append(nil)[2:])...)
		all = append(all, fuzzStep(wireReq|2, m.append(nil)[2:])...)
		plain := bare(m)
		base = append(base, fuzzStep(wireFrame|byte(m.id)%4, plain.append(nil)[2:])...)
	}
	f.Add(all)
	f.Add(base)
	for who := range byte(4) {
		queue = append(queue, fuzzStep(wireFrame|who, hi.append(nil)[2:])...)
		for i, m := range []message{
			{id: msgInput, text: []byte("q"), mode: modeQueue},
			{id: msgOutput, text: []byte("p")},
			{id: msgInput, text: []byte("p")},
			{id: msgWrite, chunk: packed("abc", "", "d")},
			{id: msgWrite, chunk: []byte("abc")},
			{id: msgRead, size: 2, flags: readAny},
			{id: msgRead, size: 1000, flags: readStream},
			{id: msgRead, flags: readReturn},
		} {
			m.block, m.channel = hasBlock, 1+uint32(i)%3
			queue = append(queue, fuzzStep(wireFrame|who, m.append(nil)[2:])...)
		}
		queue = append(queue, fuzzStep(wireLarge|who, (&message{id: msgWrite}).append(nil)[2:])...)
	}
	f.Add(queue)
	f.Add(append(slices.Clone(queue), fuzzStep(wireGone|1, nil)...))
	var jobs []byte
	for _, m := range jobTalk {
		jobs = append(jobs, fuzzStep(wireFrame|byte(m.size), m.append(nil)[2:])...)
		jobs = append(jobs, fuzzStep(wireFrame|2+byte(m.size), m.append(nil)[2:])...)
	}
	f.Add(jobs)
	f.Add(append(slices.Clone(jobs), fuzzStep(wireGone|1, nil)...))
	var text []byte
	for _, line := range []string{"TAKE\x00q", "DONE\x00q\x001-1", "OPEN\x00q", "WRITE\x00q\x00chunk", "READ\x00q", "READ\x00q", "CLOSE\x00p", "READ\x00q", "a\x00b\x00c\x00d\x00e\x00f\x00g"} {
		text = append(text, fuzzStep(wireText, []byte(line))...)
		text = append(text, fuzzStep(wireText|3, []byte(line))...)
		text = append(text, fuzzStep(wireListen, nil)...)
	}
	f.Add(text)

	f.Fuzz(func(t *testing.T, data []byte) {
		w := newFuzzWire(t)
		rd, wr := w.near.pipe("neighbour")
		reading := inBackground(func() (int, error) {
			var got bytes.Buffer
			_, err := got.ReadFrom(rd)
			if !bytes.Equal(got.Bytes(), fuzzNoise) {
				t.Errorf("the neighbour got %d bytes that are not the %d it was sent", got.Len(), len(fuzzNoise))
			}
			return got.Len(), err
		})
		half := len(fuzzNoise) / 2
		wr.Write(fuzzNoise[:half])
		if err := wr.Flush(); err != nil {
			t.Error(err)
		}
		w.play(data)
		wr.Write(fuzzNoise[half:])
		if err := wr.Close(); err != nil {
			t.Error(err)
		}
		if got := w.near.within(fuzzPatience, reading); got.err != nil {
			t.Error(got.err)
		}
		rd.Close()
		w.end()
	})
}

// What a step of FuzzWire does; the rest of the byte is who.
const (
	wireOps    = 7 << 2
	wireFrame  = 0 << 2 // sends a message
	wireText   = 1 << 2 // sends frames that are parted by NULs
	wireRaw    = 2 << 2 // sends a frame without the signature
	wireReq    = 3 << 2 // sends a message behind an empty frame, as a REQ does
	wireLarge  = 4 << 2 // sends a message with many zeros behind it
	wireGone   = 5 << 2 // closes its socket, and has another
	wireListen = 6 << 2 // takes what there is for it
	wireMany   = 7 << 2 // sends a frame for each byte
)

// maxLarge is how many large messages there are in an input, since they take long.
const maxLarge = 20

var fuzzNoise = noise(1, 100_000)

// fuzzPatience is for what must not hang, on a machine that is as busy as fuzzing makes it.
const fuzzPatience = 5 * time.Second

// A fuzzWire is a broker, its well-behaved client, and bare sockets.
type fuzzWire struct {
	t      *testing.T
	ctx    *zmq4.Context
	broker *Broker
	near   *rig
	far    [4]*fuzzSocket
}

type fuzzSocket struct {
	*zmq4.Socket
	pings int // that were sent and will be answered by PING_OK without a block
}

func newFuzzWire(t *testing.T) *fuzzWire {
	w := &fuzzWire{t: t, ctx: wireContext(t)}
	t.Cleanup(func() { wireTerm(w.ctx) })
	w.broker = startBroker(t, BrokerConfig{
		Context: w.ctx, ClientTimeout: 30 * time.Millisecond, MaxPending: 10_000, MaxMessage: leastMaxMessage, MaxPipes: 20,
	})
	w.near = &rig{T: t, broker: w.broker.Endpoints()[1]}
	w.near.client = w.near.newClient(ClientConfig{})
	t.Cleanup(func() {
		for _, s := range w.far {
			if s != nil {
				s.Close()
			}
		}
	})
	for i := range w.far {
		w.connect(i)
	}
	return w
}

func (w *fuzzWire) connect(i int) {
	s, err := w.ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		w.t.Fatal(err)
	}
	s.SetLinger(0)
	s.SetRcvhwm(10)
	s.SetReconnectIvl(time.Millisecond) // each message that is too large ends a connection
	if err := retryEINTR(func() error { return s.Connect(w.broker.Endpoints()[i%2]) }); err != nil {
		w.t.Fatal(err)
	}
	w.far[i] = &fuzzSocket{Socket: s}
}

func (w *fuzzWire) play(data []byte) {
	large := 0
	for len(data) >= 2 {
		op, n := data[0], int(data[1])
		data = data[2:]
		b := data[:min(n, len(data))]
		data = data[len(b):]
		s, message := w.far[op%4], append([]byte(signature), b...)
		switch op & wireOps {
		case wireText:
			s.say(bytes.Split(b, []byte{0})...)
		case wireRaw:
			s.say(b)
		case wireReq:
			s.say(nil, message)
		case wireLarge:
			if large++; large <= maxLarge {
				s.say(append(message, make([]byte, 2*n<<10)...))
			}
		case wireGone:
			s.Close()
			w.connect(int(op % 4))
		case wireListen:
			wireReceive(s.Socket, 0)
		case wireMany:
			if n > 0 {
				s.say(slices.Collect(slices.Chunk(b, 1))...)
			}
		default:
			s.say(message)
		}
	}
}

// say sends a message, unless the socket takes no more.
func (s *fuzzSocket) say(frames ...[]byte) {
	if len(frames) == 1 {
		if m, err := parse(frames[0]); err == nil && m.id == msgPing && m.block != hasBlock {
			s.pings++
		}
	}
	wireSend(s.Socket, frames...)
}

// heeded waits until the broker has handled what was sent: PING is always answered.
func (s *fuzzSocket) heeded() bool {
	s.say((&message{id: msgPing}).append(nil))
	for end := time.Now().Add(fuzzPatience); time.Now().Before(end); {
		frames, err := wireReceive(s.Socket, 100*time.Millisecond)
		if err != nil { // it may have been lost with the connection, behind too large a message
			s.pings = 0
			s.say((&message{id: msgPing}).append(nil))
			continue
		}
		m, err := parse(frames[0])
		if err == nil && len(frames) == 1 && m.id == msgPingOK && m.block == noBlock {
			if s.pings--; s.pings <= 0 {
				return true
			}
		}
	}
	return false
}

// end closes all, and looks for what is left.
func (w *fuzzWire) end() {
	for i, s := range w.far {
		if !s.heeded() {
			w.t.Errorf("socket %d gets no answer any more", i)
		}
		s.Close()
	}
	direct := w.broker.Client()
	defer direct.Close()
	w.near.client.Close()
	eventuallyWithin(w.t, fuzzPatience, "no pipe and no client is left", func() bool {
		// Who waits at a queue by text is never too silent.
		for p := range w.broker.Pipes() {
			if p.Mode == ModeQueue {
				direct.DeleteQueue(context.Background(), p.Name)
			}
		}
		stats := w.broker.Stats()
		return stats.Pipes == 0 && stats.Clients == 0
	})
}
