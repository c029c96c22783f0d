package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// The chunks of queues say who sent them and as which, and all else in them follows from
// that.

// A chunkID is a chunk's sender and its number among that sender's.
type chunkID struct {
	sender string
	number int64
}

const chunkHeader = 3 * 8

// newChunk makes a chunk of some size.
func newChunk(r *rand.Rand, sender uint64, number int64) []byte {
	size := r.IntN(256)
	switch r.IntN(64) {
	case 0:
		size = r.IntN(200 << 10)
	case 1, 2, 3, 4, 5, 6:
		size = r.IntN(4 << 10)
	}
	b := make([]byte, chunkHeader+size)
	binary.LittleEndian.PutUint64(b, sender)
	binary.LittleEndian.PutUint64(b[8:], uint64(number))
	binary.LittleEndian.PutUint64(b[16:], uint64(size))
	fill(b[chunkHeader:], sender+uint64(number), 0)
	return b
}

// readChunk tells whose a chunk is, if it is whole.
func readChunk(b []byte) (chunkID, error) {
	if len(b) < chunkHeader {
		return chunkID{}, wrongBytes{fmt.Errorf("a chunk of %d bytes", len(b))}
	}
	sender, number := binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
	id := chunkID{senderName(sender), number}
	right := make([]byte, len(b)-chunkHeader)
	fill(right, sender+uint64(number), 0)
	if size := binary.LittleEndian.Uint64(b[16:]); size != uint64(len(right)) || !bytes.Equal(b[chunkHeader:], right) {
		return id, wrongBytes{fmt.Errorf("chunk %v of %d bytes, which should have %d, is damaged", id, len(right), size)}
	}
	return id, nil
}

func senderName(seed uint64) string { return strconv.FormatUint(seed, 36) }

// send puts chunks into the queue, as a victim.
func (a *actor) send() error {
	ctx := background
	q, err := a.client.OpenQueue(ctx, a.queue)
	if err != nil {
		return err
	}
	a.say("opened", 0, "")
	most := 1 << (2 + a.rand.IntN(16))
	if a.finite {
		most = 200
	}
	n, target := int64(0), 1+a.rand.Int64N(int64(most))
	for ; n < target; a.pause() {
		if err := q.Send(ctx, newChunk(a.rand, a.seed, n)); err != nil {
			return err
		}
		if n++; a.rand.IntN(20) == 0 {
			a.say("flushing", n, "")
			if err := q.Flush(ctx); err != nil {
				return err
			}
			a.say("confirmed", n, "")
		}
	}
	a.say("closing", n, "")
	if err := q.Close(); err != nil {
		return err
	}
	a.say("closed", n, "")
	return nil
}

// finiteChunks is how many chunks a victim receives the second time.
const finiteChunks = 20

// receive takes chunks out of the queue, as a victim.
func (a *actor) receive() error {
	ctx := background
	q, err := a.client.OpenQueue(ctx, a.queue)
	if err != nil {
		return err
	}
	a.say("opened", 0, "")
	target := a.rand.Int64N(1 << (2 + a.rand.IntN(16)))
	if a.finite {
		target = finiteChunks
	}
	for range target {
		b, err := q.Receive(ctx)
		if err != nil {
			return err
		}
		id, err := readChunk(b)
		if err != nil {
			a.say("wrong", 0, err.Error())
			return nil
		}
		a.say("got", id.number, id.sender)
		a.pause()
	}
	a.say("leaving", 0, "")
	if err := q.Close(); err != nil {
		return err
	}
	a.say("left", 0, "")
	return nil
}
