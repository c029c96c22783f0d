package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/zpipes/zpipes"
)

// Queues are transports too, where all writers send whole chunks into the same
// one, and each chunk gets to any one of the readers.

// queues is zpipes: each end is a Queue of its own, at one client for each process.
type queues struct{ pipes }

func (q *queues) open() (*zpipes.Queue, error) {
	c, err := q.client()
	if err != nil {
		return nil, err
	}
	return c.OpenQueue(context.Background(), q.Prefix+"queue")
}

func (q *queues) reader(int) (source, error) {
	queue, err := q.open()
	return queueEnd{queue}, err
}

func (q *queues) writer(int) (io.Writer, error) {
	queue, err := q.open()
	return queueEnd{queue}, err
}

type queueEnd struct{ *zpipes.Queue }

func (q queueEnd) next() ([]byte, error)       { return q.Receive(context.Background()) }
func (q queueEnd) Write(b []byte) (int, error) { return len(b), q.Send(context.Background(), b) }

// channel is Go's own queue for one process. As with the others, the sender keeps
// what it has sent.
type channel struct {
	Task
	chunks chan []byte
}

// channelBytes is how much a channel takes: as much as a queue of zpipes.
const channelBytes = 1 << 20

func (c *channel) serve() (string, error) {
	c.chunks = make(chan []byte, channelBytes/c.Size)
	return "", nil
}

func (c *channel) reader(int) (source, error)    { return c, nil }
func (c *channel) writer(int) (io.Writer, error) { return c, nil }
func (c *channel) next() ([]byte, error)         { return <-c.chunks, nil }

func (c *channel) Write(b []byte) (int, error) {
	c.chunks <- append([]byte(nil), b...)
	return len(b), nil
}

// natsGroup is a queue group of NATS: each message gets to one of its subscribers.
// It drops what these do not take in time, so writers keep within a window here as
// well. Each has a part of it, and each reader tells each writer what it has got.
type natsGroup struct{ nats }

// window is a writer's part.
func (n *natsGroup) window() uint64 { return natsWindow / uint64(n.Streams) }

// owed is how much of one writer's a reader gets before it says so: what all
// readers owe is a quarter of the window.
func (n *natsGroup) owed() uint64 { return n.window() / 4 / uint64(n.Streams) }

func (n *natsGroup) reader(int) (source, error) {
	conn, err := n.connect()
	if err != nil {
		return nil, err
	}
	s := &groupSource{conn: conn, owed: n.owed(), got: make([]uint64, n.Streams), acks: make([]string, n.Streams)}
	for i := range s.acks {
		s.acks[i] = n.subject(i) + ".ack"
	}
	s.arrived = make(chan *natsgo.Msg, natsWindow/n.Size+1)
	if _, err := conn.ChanQueueSubscribe("queue", "readers", s.arrived); err != nil {
		return nil, err
	}
	return s, conn.Flush()
}

type groupSource struct {
	conn    *natsgo.Conn
	arrived chan *natsgo.Msg
	owed    uint64
	got     []uint64 // bytes from each writer that it has not been told of
	acks    []string // subjects
}

func (s *groupSource) next() ([]byte, error) {
	b := (<-s.arrived).Data
	i := senderOf(b)
	if i >= len(s.got) {
		return nil, errWrong
	}
	if s.got[i] += uint64(len(b)); s.got[i] < s.owed {
		return b, nil
	}
	told := binary.LittleEndian.AppendUint64(nil, s.got[i])
	s.got[i] = 0
	return b, s.conn.Publish(s.acks[i], told)
}

func (n *natsGroup) writer(i int) (io.Writer, error) {
	conn, err := n.connect()
	if err != nil {
		return nil, err
	}
	w := &groupWriter{window: n.window()}
	w.natsWriter = natsWriter{conn: conn, subject: "queue", got: make([]atomic.Uint64, 1), acked: make(chan struct{}, 1)}
	_, err = conn.Subscribe(n.subject(i)+".ack", func(m *natsgo.Msg) {
		w.got[0].Add(binary.LittleEndian.Uint64(m.Data))
		w.wake()
	})
	if err != nil {
		return nil, err
	}
	return w, conn.Flush()
}

type groupWriter struct {
	natsWriter
	window uint64
}

func (w *groupWriter) Write(b []byte) (int, error) { return w.publish(b, w.window) }

// workQueue is NATS JetStream with a work queue in memory, the nearest there is to
// a queue of zpipes: what is sent is confirmed, waits for a receiver, and goes when
// one has acknowledged it. Work queues take no other acknowledgement than one for
// each message.
type workQueue struct{ nats }

const (
	workStream   = "work"
	workConsumer = "readers"

	// workPending is how many messages all writers may have sent that are not
	// confirmed, workUnacked how many the readers may have that are not acknowledged,
	// and workBatch how many they ask for in advance. With more the backlog grows,
	// and with less somebody waits; both make it slower.
	workPending = 1000
	workUnacked = 20_000
	workBatch   = 4000
)

func (n *workQueue) serve() (string, error) {
	address, err := n.start(&server.Options{JetStream: true, StoreDir: n.Dir})
	if err != nil {
		return "", err
	}
	return address, n.create(jetstream.MemoryStorage)
}

// create makes the stream, and the readers' consumer.
func (n *workQueue) create(storage jetstream.StorageType) error {
	js, err := n.jetStream()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: workStream, Subjects: []string{"queue"},
		Retention: jetstream.WorkQueuePolicy, Storage: storage,
	})
	if err != nil {
		return err
	}
	_, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: workConsumer, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: workUnacked,
	})
	return err
}

func (n *workQueue) jetStream(options ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	conn, err := n.connect()
	if err != nil {
		return nil, err
	}
	return jetstream.New(conn, options...)
}

func (n *workQueue) reader(int) (source, error) {
	m, err := n.messages(workBatch / n.Streams)
	return workSource{m}, err
}

// messages asks for so many in advance.
func (n *workQueue) messages(ahead int) (jetstream.MessagesContext, error) {
	js, err := n.jetStream()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := js.Consumer(ctx, workStream, workConsumer)
	if err != nil {
		return nil, err
	}
	return c.Messages(jetstream.PullMaxMessages(ahead))
}

type workSource struct{ messages jetstream.MessagesContext }

func (s workSource) next() ([]byte, error) {
	m, err := s.messages.Next()
	if err != nil {
		return nil, err
	}
	return m.Data(), m.Ack()
}

func (n *workQueue) writer(int) (io.Writer, error) {
	w := new(workWriter)
	js, err := n.jetStream(jetstream.WithPublishAsyncMaxPending(workPending/n.Streams),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *natsgo.Msg, err error) { w.failed.Store(&err) }))
	w.js = js
	return w, err
}

type workWriter struct {
	js     jetstream.JetStream
	failed atomic.Pointer[error] // why a message was not confirmed
}

func (w *workWriter) Write(b []byte) (int, error) {
	if err := w.failed.Load(); err != nil {
		return 0, fmt.Errorf("not confirmed: %w", *err)
	}
	for {
		// It waits for room by itself, but only for a moment.
		if _, err := w.js.PublishAsync("queue", b); !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
			return len(b), err
		}
	}
}

// A light sender sends a chunk now and then. Such a chunk begins with when that
// was, instead of a number.
const (
	lightPause = 2 * time.Millisecond
	lightMark  = 1 << 63
)

// sendLight sends them until Stop.
func (p *Part) sendLight(w io.Writer) {
	p.work.Go(func() {
		b := newRecord(p.task.Size)
		for !p.stop.Load() {
			// By the clock of the system, which the receiver's process has too.
			stamp := uint64(time.Now().UnixNano()) | lightMark
			binary.LittleEndian.PutUint64(b, stamp)
			if _, err := w.Write(b); err != nil {
				p.fail(err)
				return
			}
			p.wrote(Total{int64(len(b)), stamp})
			time.Sleep(lightPause)
		}
	})
}

// chunks is a source of whole chunks: pieces of them are not what was sent. It
// times those of a light sender.
type chunks struct {
	source
	part *Part
}

func (c chunks) next() ([]byte, error) {
	b, err := c.source.next()
	if err != nil {
		return nil, err
	}
	if len(b) != c.part.task.Size {
		c.part.fail(fmt.Errorf("%w: a chunk of %d bytes", errWrong, len(b)))
		return b, nil
	}
	if n := binary.LittleEndian.Uint64(b); n&lightMark != 0 && c.part.recording.Load() {
		c.part.delays.add(time.Duration(uint64(time.Now().UnixNano()) - n&^lightMark))
		c.part.calls.Add(1)
	}
	return b, nil
}
