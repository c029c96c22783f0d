//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Several goroutines use a broker through the library at the same time, and what they
// saw must be linearizable. There are as many short histories of each kind, over each
// way to a broker, as -rapid.checks says.

// A recorder collects a history.
type recorder struct {
	mu    sync.Mutex
	began time.Time
	ops   []porcupine.Operation
}

func (h *recorder) now() int64 { return time.Since(h.began).Nanoseconds() }

// add records what was called at that time and returned just now.
func (h *recorder) add(input, output any, called int64) { h.addUntil(input, output, called, h.now()) }

// addUnknown records what may have been done, or may be done some time.
func (h *recorder) addUnknown(input, output any, called int64) {
	h.addUntil(input, output, called, math.MaxInt64)
}

func (h *recorder) addUntil(input, output any, called, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{Input: input, Output: output, Call: called, Return: returned})
}

// overHistories records histories over all ways that have queues, and checks them.
func overHistories(t *testing.T, model func(way) porcupine.Model, record func(r *rig, clients []*Client, name string, h *recorder)) {
	rounds, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String())
	if err != nil {
		t.Fatal(err)
	}
	rounds = effort(rounds)
	overAllWays(t, func(r *rig) {
		if r.base {
			r.Skip("has no queues, and no answers that say why")
		}
		r.busy()
		clients := []*Client{r.client, r.newClient(ClientConfig{})}
		operations := 0
		for i := range rounds {
			h := &recorder{began: time.Now()}
			record(r, clients, fmt.Sprintf("p%d", i), h)
			operations += len(h.ops)
			if got := porcupine.CheckOperationsTimeout(model(r.way), h.ops, 10*time.Second); got == porcupine.Illegal {
				for _, op := range h.ops {
					r.Logf("%10d to %10d: %+v %v", op.Call, op.Return, op.Input, op.Output)
				}
				r.Fatal("no order explains this history")
			}
		}
		r.Logf("checked %d histories of %d operations", rounds, operations)
	})
}

// together runs n goroutines, and waits for them.
func together(n int, f func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i) })
	}
	group.Wait()
}

// hurried is a context, which now and then ends soon.
func hurried(ctx context.Context) (context.Context, context.CancelFunc) {
	if rand.IntN(8) == 0 {
		return context.WithTimeout(ctx, time.Duration(rand.IntN(200))*time.Microsecond)
	}
	return context.WithCancel(ctx)
}

// Several open and close both ends of one name.
func TestLinearizableNames(t *testing.T) {
	t.Parallel()
	model := func(way) porcupine.Model { return nameModel }
	overHistories(t, model, func(r *rig, clients []*Client, name string, h *recorder) {
		together(4, func(who int) {
			for i := range 4 {
				number := 1 + 10*who + i
				r.openAndClose(clients[who%2], name, number, h)
			}
		})
	})
}

func (r *rig) openAndClose(c *Client, name string, number int, h *recorder) {
	ctx, cancel := hurried(r.Context())
	defer cancel()
	open, kind := func() (io.Closer, error) { return c.OpenReader(ctx, name) }, opOpenReader
	if rand.IntN(2) == 0 {
		open, kind = func() (io.Closer, error) { return c.OpenWriter(ctx, name) }, opOpenWriter
	}
	called := h.now()
	end, err := open()
	switch {
	case err == nil:
		h.add(nameOp{kind, number}, nil, called)
		called = h.now()
		if w, ok := end.(*Writer); ok {
			w.SetWriteDeadline(time.Unix(1, 0)) // it does not matter who learns of this end
		}
		var undelivered *UndeliveredError
		if err := end.Close(); err != nil && !errors.As(err, &undelivered) {
			r.Error(err)
		}
		h.add(nameOp{opClose, number}, nil, called)
	case errors.Is(err, ErrPipeBusy):
		h.add(nameOp{kind, number}, errBusy, called)
	case errors.Is(err, context.DeadlineExceeded):
		// It may be opened still, and then the client closes it.
		h.addUnknown(nameOp{kind, number}, errUnknown, called)
		h.addUnknown(nameOp{opClose, number}, nil, called)
	default:
		r.Error(err)
	}
}

// Several send to a queue and receive from it.
func TestLinearizableQueues(t *testing.T) {
	t.Parallel()
	const senders, receivers, chunks = 3, 2, 4
	model := func(w way) porcupine.Model {
		if w.name == "direct" {
			return queueModel
		}
		return bagModel
	}
	overHistories(t, model, func(r *rig, clients []*Client, name string, h *recorder) {
		ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
		defer cancel()
		due := &balance{senders: senders, settled: cancel}
		together(senders+receivers, func(who int) {
			q, err := clients[who%2].OpenQueue(r.Context(), name)
			if err != nil {
				r.Error(err)
				return
			}
			defer q.Close()
			if who >= senders {
				r.receiveAll(ctx, q, h, due)
				return
			}
			for i := range chunks {
				r.sendOne(q, who+1, i+1, h, due)
			}
			due.change(0, -1)
		})
		if due.chunks > 0 {
			r.Errorf("%d chunks did not come", due.chunks)
		}
	})
}

// A balance is how many confirmed chunks have not come. It is settled when there are
// none, and nobody sends any more.
type balance struct {
	mu              sync.Mutex
	chunks, senders int
	settled         func()
}

func (b *balance) change(chunks, senders int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chunks += chunks
	b.senders += senders
	if b.chunks <= 0 && b.senders == 0 {
		b.settled()
	}
}

func (r *rig) receiveAll(ctx context.Context, q *Queue, h *recorder, due *balance) {
	for {
		called := h.now()
		chunk, err := q.Receive(ctx)
		if err != nil {
			return
		}
		op := queueOp{kind: opReceive}
		if _, err := fmt.Sscan(string(chunk), &op.sender, &op.chunk); err != nil {
			r.Errorf("%q came: %v", chunk, err)
		}
		h.add(op, nil, called)
		due.change(-1, 0)
	}
}

// sendOne sends a chunk and flushes, unless the deadline comes first.
func (r *rig) sendOne(q *Queue, sender, number int, h *recorder, due *balance) {
	ctx, cancel := hurried(r.Context())
	defer cancel()
	op, called := queueOp{opSend, sender, number}, h.now()
	err := q.Send(ctx, fmt.Appendf(nil, "%d %d", sender, number))
	if errors.Is(err, context.DeadlineExceeded) {
		return // it is not in the queue
	}
	if err == nil {
		if err = q.Flush(ctx); errors.Is(err, context.DeadlineExceeded) {
			h.addUnknown(op, nil, called)
			return
		}
	}
	if err != nil {
		r.Error(err)
	}
	h.add(op, nil, called)
	due.change(1, 0)
}

// One writes and one reads.
func TestLinearizableStreams(t *testing.T) {
	t.Parallel()
	model := func(way) porcupine.Model { return streamModel }
	overHistories(t, model, func(r *rig, clients []*Client, name string, h *recorder) {
		w, err := clients[0].OpenWriter(r.Context(), name)
		if err != nil {
			r.Fatal(err)
		}
		rd, err := clients[1].OpenReader(r.Context(), name)
		if err != nil {
			r.Fatal(err)
		}
		defer rd.Close()
		together(2, func(who int) {
			if who == 0 {
				r.writeAll(w, h)
			} else {
				r.readAll(rd, h)
			}
		})
	})
}

func (r *rig) writeAll(w *Writer, h *recorder) {
	var source stream
	// Where streams move into rings, at least so many writes go that way.
	for i, moved := 0, 0; i < 6 || r.moves && moved < 3; i++ {
		if w.hasRing() {
			moved++
		} else if i > 1000 {
			r.Error("the stream does not move into a ring")
			break
		}
		b := source.next(1 + rand.IntN(3*pinAbove))
		called := h.now()
		if _, err := w.Write(b); err != nil {
			r.Error(err)
		}
		if err := w.Flush(); err != nil {
			r.Error(err)
		}
		h.add(streamOp{opWrite, len(b)}, nil, called)
	}
	called := h.now()
	if err := w.Close(); err != nil {
		r.Error(err)
	}
	h.add(streamOp{kind: opClose}, nil, called)
}

func (r *rig) readAll(rd *Reader, h *recorder) {
	var want stream
	b := make([]byte, 2*pinAbove)
	for {
		called := h.now()
		n, err := rd.Read(b[:1+rand.IntN(len(b))])
		if n > 0 {
			h.add(streamOp{opRead, n}, nil, called)
			if !bytes.Equal(b[:n], want.next(n)) {
				r.Error("other bytes than were written")
			}
		}
		if err == io.EOF {
			h.add(streamOp{kind: opEnd}, nil, called)
			return
		}
		if err != nil {
			r.Error(err)
			return
		}
	}
}
