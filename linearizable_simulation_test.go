package zpipes

import (
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The histories of simulated queues are linearizable: what was sent, received and given
// back can be put into an order that a queue of one chunk at a time would have. Times
// are steps.
func TestLinearizableSimulation(t *testing.T) {
	count := make(map[string]int)
	histories, operations := 0, 0
	simulate(t, func(s *sim) world {
		return &tapedWorld{begin: func() *queueWorld {
			w := newQueueWorld(s, count)
			w.tape = &tape{ops: make(map[*chunkQueue][]porcupine.Operation), rows: make(map[*row]int)}
			return w
		}, histories: &histories, operations: &operations}
	})
	t.Logf("checked %d histories of %d operations", histories, operations)
}

// A tapedWorld is one world of queues after the other, none of which gets old: the
// checker's work grows faster than a history does.
type tapedWorld struct {
	*queueWorld
	begin                 func() *queueWorld
	histories, operations *int
}

const tapedSteps = 100

func (w *tapedWorld) step() {
	if w.queueWorld == nil || w.n == tapedSteps {
		w.end()
		w.queueWorld = w.begin()
	}
	w.queueWorld.step()
}

func (w *tapedWorld) end() {
	if w.queueWorld == nil {
		return
	}
	for s, b := range w.books {
		if b.readers > 0 { // nobody knows when one of bytes has taken a chunk
			continue
		}
		history := w.tape.history(s)
		*w.histories++
		*w.operations += len(history)
		got := porcupine.CheckOperationsTimeout(queueModel, history, 10*time.Second)
		if got == porcupine.Illegal {
			for _, op := range history {
				w.note("%d to %d: %+v", op.Call, op.Return, op.Input)
			}
		}
		w.check(got != porcupine.Illegal, "what happened to %q is not what a queue does", s.name)
	}
	w.queueWorld.end()
}

// A tape records the histories of a world's queues.
type tape struct {
	ops  map[*chunkQueue][]porcupine.Operation
	sent []*piece
	rows map[*row]int // numbers the senders
}

func (t *tape) begin(p *piece) {
	if t != nil && p.color > 0 {
		t.sent = append(t.sent, p)
	}
}

func (t *tape) send(p *piece, now int) {
	if t != nil {
		p.confirmed = now
	}
}

func (t *tape) receive(p *piece, at, now int) {
	if p.since < at { // it was there for a READ before this one, which gave it back
		t.passes(p, nil, now)
	}
	p.out = true
	t.record(p, opReceive, at, now)
}

func (t *tape) giveBack(p *piece, now int) {
	t.record(p, opGiveBack, now, now)
	p.out, p.holder = false, nil
}

// passes records who has a piece. What was handed out, and comes back before its
// receiver was told, was away as well.
func (t *tape) passes(p *piece, to any, now int) {
	if to == p.holder {
		return
	}
	if p.holder != nil && !p.out {
		t.record(p, opReceive, p.since, p.since)
		t.record(p, opGiveBack, now, now)
	}
	p.holder, p.since = to, now
}

func (t *tape) record(p *piece, what opKind, at, now int) {
	if t == nil || p.color == 0 {
		return
	}
	t.ops[p.queue] = append(t.ops[p.queue], porcupine.Operation{
		Input: queueOp{what, t.row(p), p.number}, Call: int64(at), Return: int64(now),
	})
}

func (t *tape) row(p *piece) int {
	if t.rows[p.line] == 0 {
		t.rows[p.line] = len(t.rows) + 1
	}
	return t.rows[p.line]
}

// history is what happened to a queue. A chunk of which its sender heard nothing may
// have been taken at any time after it was sent.
func (t *tape) history(s *chunkQueue) []porcupine.Operation {
	ops := t.ops[s]
	for _, p := range t.sent {
		if p.queue != s || !p.taken {
			continue
		}
		op := porcupine.Operation{Input: queueOp{opSend, t.row(p), p.number}, Call: int64(p.sentAt), Return: math.MaxInt64}
		if p.confirmed > 0 {
			op.Return = int64(p.confirmed)
		}
		ops = append(ops, op)
		if p.holder != nil && !p.out { // who will hear of it
			op.Input, op.Call, op.Return = queueOp{opReceive, t.row(p), p.number}, int64(p.since), math.MaxInt64
			ops = append(ops, op)
		}
	}
	return ops
}
