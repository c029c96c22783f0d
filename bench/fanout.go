package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/zpipes/zpipes"
)

// One writer, and readers that each get all: a broadcast of zpipes, and what one would do
// instead. The i-th reader is of the same stream as all others.

// broadcasts are zpipes'.
type broadcasts struct{ pipes }

// reader is opened when it is first read from, since only one can wait for the writer. It
// has a client of its own, as where each is another process.
func (b *broadcasts) reader(int) (source, error) {
	c, err := b.newClient()
	if err != nil {
		return nil, err
	}
	open := func() (io.Reader, error) { return openListener(c, b.name(0)) }
	return newReading(&opening{open: open}, b.Size), nil
}

// openListener opens a reader of a broadcast, which may not be there yet.
func openListener(c *zpipes.Client, name string) (*zpipes.Reader, error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r, err := c.OpenReader(context.Background(), name)
		if !errors.Is(err, zpipes.ErrPipeBusy) || time.Now().After(end) {
			return r, err
		}
	}
}

func (b *broadcasts) writer(int) (io.Writer, error) {
	c, err := b.client()
	if err != nil {
		return nil, err
	}
	return zpipes.BroadcastConfig{Readers: b.Streams}.OpenBroadcast(context.Background(), c, b.name(0))
}

// toEach has a stream for each reader, and writes to one after the other.
type toEach struct{ transport }

func (e toEach) writer(int) (io.Writer, error) {
	var all eachWriter
	for i := range e.transport.(interface{ streams() int }).streams() {
		w, err := e.transport.writer(i)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (p *goPipes) streams() int    { return p.Streams }
func (u unixSockets) streams() int { return u.Streams }

type eachWriter []io.Writer

func (e eachWriter) Write(b []byte) (int, error) {
	for _, w := range e {
		if n, err := w.Write(b); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// natsToAll is NATS' own way: all subscribe to one subject. Each tells the writer how much it
// has got, which keeps within a window of the slowest.
type natsToAll struct{ nats }

func (n *natsToAll) reader(i int) (source, error) { return n.subscribe(n.subject(0), n.ack(i)) }

func (n *natsToAll) writer(int) (io.Writer, error) {
	acks := make([]string, n.Streams)
	for i := range acks {
		acks[i] = n.ack(i)
	}
	return n.publisher(n.subject(0), acks...)
}

// writeToAll is the job of a writer all of whose readers get all.
func writeToAll(p *Part) error {
	w, err := p.transport.writer(0)
	if err == nil {
		p.write(w, 0, p.task.Streams)
	}
	return err
}
