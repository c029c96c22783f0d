package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/zpipes/zpipes"
)

// Beside the jobs, which measure speed, a Part can hold many pipes that are idle;
// see scale. This is about zpipes alone.

// Span is the pipes number First to First+Count-1.
type Span struct {
	Task
	First, Count int
}

func (s Span) pipe(i int) string { return fmt.Sprint("pipe ", s.First+i) }

// client plays a task and returns this process's client.
func (p *Part) client(t Task) (*zpipes.Client, error) {
	if err := p.play(t); err != nil {
		return nil, err
	}
	transport, ok := p.transport.(*pipes)
	if !ok {
		return nil, errors.New("only zpipes has clients")
	}
	return transport.client()
}

// OpenReaders opens the reading ends of a span, one after the other, and then has
// a goroutine read from each. It returns how long the opening took.
func (p *Part) OpenReaders(s Span, took *time.Duration) error {
	c, err := p.client(s.Task)
	if err != nil {
		return err
	}
	start := time.Now()
	readers := make([]*zpipes.Reader, s.Count)
	for i := range readers {
		if readers[i], err = c.OpenReader(context.Background(), s.pipe(i)); err != nil {
			return err
		}
	}
	*took = time.Since(start)
	for _, r := range readers {
		p.read(&reading{r, make([]byte, s.Size)})
	}
	return nil
}

// OpenWriters opens the writing ends of a span, one after the other.
func (p *Part) OpenWriters(s Span, took *time.Duration) error {
	c, err := p.client(s.Task)
	if err != nil {
		return err
	}
	start := time.Now()
	p.idle = make([]*zpipes.Writer, s.Count)
	for i := range p.idle {
		if p.idle[i], err = c.OpenWriter(context.Background(), s.pipe(i)); err != nil {
			return err
		}
	}
	*took = time.Since(start)
	return nil
}

// Number writes each pipe's number into it, and returns what that was in all.
func (p *Part) Number(s Span, written *Total) error {
	for i, w := range p.idle {
		b := newRecord(s.Size)
		binary.LittleEndian.PutUint64(b, uint64(s.First+i))
		if _, err := w.Write(b); err != nil {
			return err
		}
		*written = written.plus(Total{int64(s.Size), uint64(s.First + i)})
	}
	for _, w := range p.idle {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Heap collects garbage, and returns how much of Go's heap and stacks is in use.
// With trim set it gives the system back all else.
func (p *Part) Heap(trim bool, n *int64) error {
	if trim {
		debug.FreeOSMemory()
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	*n = int64(m.HeapAlloc + m.StackInuse)
	return nil
}
