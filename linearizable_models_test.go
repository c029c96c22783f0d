package zpipes

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// The models accept what may happen, and nothing else. Operations that are written in
// one line have the same time.
func TestLinearizabilityModels(t *testing.T) {
	type ops = []porcupine.Operation
	at := func(call, ret int64, input, output any) porcupine.Operation {
		return porcupine.Operation{Input: input, Output: output, Call: call, Return: ret}
	}
	const forever = math.MaxInt64
	chunk := func(kind opKind, n int) queueOp { return queueOp{kind, 1, n} }
	for name, test := range map[string]struct {
		model   porcupine.Model
		history ops
		want    bool
	}{
		"in order": {queueModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opSend, 2), nil),
			at(5, 6, chunk(opReceive, 1), nil), at(7, 8, chunk(opReceive, 2), nil),
		}, true},
		"out of order": {queueModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opSend, 2), nil),
			at(5, 6, chunk(opReceive, 2), nil), at(7, 8, chunk(opReceive, 1), nil),
		}, false},
		"out of order at the same time": {queueModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opSend, 2), nil),
			at(5, 8, chunk(opReceive, 2), nil), at(6, 7, chunk(opReceive, 1), nil),
		}, true},
		"received twice": {queueModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opReceive, 1), nil), at(5, 6, chunk(opReceive, 1), nil),
		}, false},
		"given back": {queueModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opReceive, 1), nil),
			at(5, 5, chunk(opGiveBack, 1), nil), at(6, 7, chunk(opReceive, 1), nil),
		}, true},
		"before it was sent": {queueModel, ops{at(1, 2, chunk(opReceive, 1), nil), at(3, 4, chunk(opSend, 1), nil)}, false},
		"not known to be sent": {queueModel, ops{
			at(1, forever, chunk(opSend, 1), nil), at(5, 6, chunk(opReceive, 1), nil),
		}, true},
		"from a bag in any order": {bagModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opSend, 2), nil), at(5, 6, chunk(opReceive, 2), nil),
		}, true},
		"twice from a bag": {bagModel, ops{
			at(1, 2, chunk(opSend, 1), nil), at(3, 4, chunk(opReceive, 1), nil), at(5, 6, chunk(opReceive, 1), nil),
		}, false},

		"two readers": {nameModel, ops{at(1, 2, nameOp{opOpenReader, 1}, nil), at(3, 4, nameOp{opOpenReader, 2}, nil)}, false},
		"a second reader is refused": {nameModel, ops{
			at(1, 2, nameOp{opOpenReader, 1}, nil), at(3, 4, nameOp{opOpenReader, 2}, errBusy),
		}, true},
		"refused for nobody": {nameModel, ops{at(3, 4, nameOp{opOpenReader, 2}, errBusy)}, false},
		"free when the writer has left": {nameModel, ops{
			at(1, 2, nameOp{opOpenReader, 1}, nil), at(1, 2, nameOp{opOpenWriter, 2}, nil),
			at(3, 4, nameOp{opClose, 2}, nil), at(5, 6, nameOp{opOpenReader, 3}, nil),
		}, true},
		"busy when the writer has left": {nameModel, ops{
			at(1, 2, nameOp{opOpenReader, 1}, nil), at(1, 2, nameOp{opOpenWriter, 2}, nil),
			at(3, 4, nameOp{opClose, 2}, nil), at(5, 6, nameOp{opOpenReader, 3}, errBusy),
		}, false},
		"refused for one that may be there": {nameModel, ops{
			at(1, forever, nameOp{opOpenReader, 1}, errUnknown), at(3, 4, nameOp{opOpenReader, 2}, errBusy),
		}, true},

		"a stream to its end": {streamModel, ops{
			at(1, 4, streamOp{opWrite, 5}, nil), at(2, 3, streamOp{opRead, 2}, nil), at(5, 6, streamOp{opRead, 3}, nil),
			at(5, 8, streamOp{kind: opClose}, nil), at(7, 9, streamOp{kind: opEnd}, nil),
		}, true},
		"more than was written": {streamModel, ops{at(1, 2, streamOp{opWrite, 5}, nil), at(3, 4, streamOp{opRead, 6}, nil)}, false},
		"an end before all was read": {streamModel, ops{
			at(1, 2, streamOp{opWrite, 5}, nil), at(3, 4, streamOp{kind: opClose}, nil), at(5, 6, streamOp{kind: opEnd}, nil),
		}, false},
	} {
		if got := porcupine.CheckOperations(test.model, test.history); got != test.want {
			t.Errorf("%s: accepted: %v", name, got)
		}
	}
}
