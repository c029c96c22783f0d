package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// A job is what is done with a transport: listen is the reader's part of it, dial
// the writer's, which comes second.
type job struct {
	listen, dial func(*Part) error
	timed        bool // calls are timed, whatever the rate
}

var jobs = map[string]job{
	// Writers write as much as they can, and readers add it up.
	"stream": {readStreams, writeStreams, false},
	// One writes as much as it can, and each reader gets all of it.
	"broadcast": {readStreams, writeToAll, false},
	// A write goes there over one stream and back over another.
	"ping-pong": {answerPings, sendPings, true},
	// Write and Flush, time and again.
	"flush": {readStreams, flushWrites, true},
	// A writing end is opened, on a client that is connected already.
	"open": {nothing, openWriters, true},
	// A client asks whether the broker is there, after a little while.
	"ping": {nothing, pingBroker, true},
	// A new client connects.
	"dial": {nothing, dialBroker, true},
	// A new connection is made.
	"connect": {serveWith(serveEcho), dialConnections, true},
	// Something goes there over a connection and comes back.
	"echo": {serveWith(serveEcho), callWith(callEcho), true},
	"rpc":  {serveWith(serveRPC), callWith(callRPC), true},
	"http": {serveWith(serveHTTP), callWith(callHTTP), true},
	"grpc": {serveWith(serveGRPC), callWith(callGRPC), true},
	// Writers send as many chunks as they can, and each gets to one of the readers.
	"queue": {receiveChunks, writeStreams, false},
	// A chunk is sent now and then, and its way to a reader is timed: where there is
	// nothing else, and where another writer sends as many as it can.
	"light":       {receiveChunks, sendChunks, true},
	"light, busy": {receiveChunks, sendAmong, true},
}

func nothing(*Part) error { return nil }

func readStreams(p *Part) error {
	for i := range p.task.Streams {
		s, err := p.transport.reader(i)
		if err != nil {
			return err
		}
		p.read(s)
	}
	return nil
}

func writeStreams(p *Part) (err error) {
	writers := make([]io.Writer, p.task.Streams)
	for i := range writers {
		if writers[i], err = p.transport.writer(i); err != nil {
			return err
		}
	}
	for i, w := range writers {
		p.write(w, i, 1)
	}
	return nil
}

func receiveChunks(p *Part) error {
	for i := range p.task.Streams {
		s, err := p.transport.reader(i)
		if err != nil {
			return err
		}
		p.read(chunks{s, p})
	}
	return nil
}

func sendChunks(p *Part) error {
	w, err := p.transport.writer(0)
	if err != nil {
		return err
	}
	p.sendLight(w)
	return nil
}

func sendAmong(p *Part) error {
	w, err := p.transport.writer(1)
	if err != nil {
		return err
	}
	p.write(w, 1, 1)
	return sendChunks(p)
}

func answerPings(p *Part) error {
	there, err := p.transport.reader(0)
	if err != nil {
		return err
	}
	go func() {
		// The first ping says that somebody listens for the answer.
		b, err := there.next()
		if err != nil {
			p.fail(err)
			return
		}
		back, err := p.transport.writer(1)
		for err == nil {
			if _, err = back.Write(b); err == nil {
				b, err = there.next()
			}
		}
		p.fail(err)
	}()
	return nil
}

func sendPings(p *Part) error {
	back, err := p.transport.reader(1)
	if err != nil {
		return err
	}
	there, err := p.transport.writer(0)
	if err != nil {
		return err
	}
	ping, pong, n := newRecord(p.task.Size), []byte(nil), uint64(0)
	p.repeat(func() (time.Duration, error) {
		n++
		binary.LittleEndian.PutUint64(ping, n)
		start := time.Now()
		if _, err := there.Write(ping); err != nil {
			return 0, err
		}
		for pong = pong[:0]; len(pong) < len(ping); {
			b, err := back.next()
			if err != nil {
				return 0, err
			}
			pong = append(pong, b...)
		}
		took := time.Since(start)
		if !bytes.Equal(ping, pong) {
			return 0, errWrong
		}
		return took, nil
	})
	return nil
}

func flushWrites(p *Part) error {
	w, err := p.transport.writer(0)
	if err != nil {
		return err
	}
	flusher, ok := w.(interface{ Flush() error })
	if !ok {
		return fmt.Errorf("%s has no Flush", p.task.Transport)
	}
	b, n := newRecord(p.task.Size), uint64(0)
	p.repeat(func() (time.Duration, error) {
		n++
		binary.LittleEndian.PutUint64(b, n)
		start := time.Now()
		_, err := w.Write(b)
		if err == nil {
			err = flusher.Flush()
		}
		took := time.Since(start)
		p.wrote(Total{int64(len(b)), n})
		return took, err
	})
	return nil
}

func openWriters(p *Part) error {
	c, err := p.client(p.task)
	if err != nil {
		return err
	}
	// It connects, and stays.
	if _, err := c.OpenWriter(context.Background(), "first"); err != nil {
		return err
	}
	p.repeat(func() (time.Duration, error) {
		start := time.Now()
		w, err := c.OpenWriter(context.Background(), "another")
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		return took, w.CloseWithError(errors.New("nobody reads it"))
	})
	return nil
}

func pingBroker(p *Part) error {
	c, err := p.client(p.task)
	if err != nil {
		return err
	}
	// It connects, and stays. Another such process may not be forgotten yet.
	if _, err := c.OpenWriter(context.Background(), fmt.Sprint("ping ", os.Getpid())); err != nil {
		return err
	}
	echo := func() error { return nil }
	if p.task.Beside != "" {
		beside, err := net.Dial("unix", p.task.Beside)
		if err != nil {
			return err
		}
		b := make([]byte, stampBytes)
		echo = func() error {
			start := time.Now()
			_, err := beside.Write(b)
			if err == nil {
				_, err = io.ReadFull(beside, b)
			}
			if p.recording.Load() {
				p.delays.add(time.Since(start))
			}
			return err
		}
	}
	p.repeat(func() (time.Duration, error) {
		if err := echo(); err != nil {
			return 0, err
		}
		time.Sleep(50 * time.Microsecond)
		return c.Ping(context.Background())
	})
	return nil
}

func dialBroker(p *Part) error {
	p.repeat(func() (time.Duration, error) {
		start := time.Now()
		c, err := p.task.newClient()
		if err != nil {
			return 0, err
		}
		_, err = c.Ping(context.Background())
		took := time.Since(start)
		return took, errors.Join(err, c.Close())
	})
	return nil
}
