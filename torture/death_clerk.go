package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

// A clerk is who uses a queue in this process: it receives all that it can get, sends,
// and keeps the record of both.
type clerk struct {
	seed     uint64 // of its own chunks
	rand     *rand.Rand
	from, to *zpipes.Queue
	stop     context.CancelFunc // ends the receiving
	enough   chan struct{}      // closed when it is to send no more
	sent     chan int64         // gets how many there were; sendErr is known then
	sendErr  error
	received chan struct{} // closed when it receives no more; err is known then
	err      error

	mu    sync.Mutex // guards what follows
	got   []chunkID
	count map[string]int // of them by sender
}

// users is how many of the queue's users are a clerk.
const users = 2

func (c *cycle) newClerk(ctx context.Context, at interface {
	client(*rand.Rand) *zpipes.Client
}, queue string) (*clerk, error) {
	from, err := at.client(c.rand).OpenQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	to, err := at.client(c.rand).OpenQueue(ctx, queue)
	if err != nil {
		from.Close()
		return nil, err
	}
	return &clerk{
		seed: c.rand.Uint64(), rand: c.fork(), from: from, to: to, stop: func() {}, count: make(map[string]int),
		enough: make(chan struct{}), sent: make(chan int64, 1), received: make(chan struct{}),
	}, nil
}

func (k *clerk) close() {
	k.stop()
	k.from.Close()
	k.to.Close()
}

// send sends until it is told that it is enough, or as many, and flushes.
func (k *clerk) send(ctx context.Context, most int64) {
	n := int64(0)
	for n < most {
		if closed(k.enough) {
			break
		}
		if k.sendErr = k.to.Send(ctx, newChunk(k.rand, k.seed, n)); k.sendErr != nil {
			break
		}
		if n++; k.rand.IntN(8) == 0 {
			time.Sleep(time.Duration(k.rand.IntN(2000)) * time.Microsecond)
		}
	}
	if k.sendErr == nil {
		k.sendErr = k.to.Flush(ctx)
	}
	k.sent <- n
}

// sentAll waits until all that was sent is confirmed, and returns how many chunks.
func (k *clerk) sentAll() (int64, error) {
	return within(patience, "a sender", func() (int64, error) {
		n := <-k.sent
		return n, k.sendErr
	})
}

// receive receives until the queue is deleted or the clerk stops.
func (k *clerk) receive(ctx context.Context) {
	ctx, k.stop = context.WithCancel(ctx)
	go func() {
		defer close(k.received)
		for b, err := range k.from.All(ctx) {
			var id chunkID
			if err == nil {
				id, err = readChunk(b)
			}
			if err != nil {
				k.err = err
				return
			}
			k.mu.Lock()
			k.got = append(k.got, id)
			k.count[id.sender]++
			k.mu.Unlock()
		}
	}()
}

// list is what it has received.
func (k *clerk) list() []chunkID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// judgeChunks compares what a clerk got with what victims say that are dead, or that
// went on and are done. sure is how many chunks of each sender are confirmed. It returns
// how many chunks came again.
func judgeChunks(own []chunkID, victims []witness, sure map[string]int64, dead bool) (again int64, err error) {
	here, err := once(own)
	if err != nil {
		return 0, err
	}
	there := make(map[chunkID]bool)
	unsaid := 0 // receivers that may have got a chunk and died before they could say so
	for _, l := range victims {
		if l.wrong != "" {
			return 0, errors.New("the victim: " + l.wrong)
		}
		cameBack := false
		for _, id := range l.got {
			if there[id] {
				return 0, fmt.Errorf("chunk %v came twice to one process", id)
			}
			there[id] = true
			if cameBack && !here[id] {
				return 0, fmt.Errorf("chunk %v did not come back, but one that was received before it did", id)
			}
			if cameBack = here[id]; cameBack {
				again++
			}
		}
		if cameBack && dead && l.said["left"] > 0 {
			return 0, fmt.Errorf("chunks came back from a receiver that closed, up to %v", l.got[len(l.got)-1])
		}
		if dead && !l.over() {
			unsaid++
		}
	}
	top := make(map[string]int64)
	for sender, n := range sure {
		top[sender] = n
	}
	for _, all := range []map[chunkID]bool{here, there} {
		for id := range all {
			top[id.sender] = max(top[id.sender], id.number+1)
		}
	}
	var lost []chunkID
	for sender, n := range top {
		for i := range n {
			if id := (chunkID{sender, i}); !here[id] && !there[id] {
				lost = append(lost, id)
			}
		}
	}
	if len(lost) > unsaid {
		return 0, fmt.Errorf("LOST: %d chunks, such as %v (%d receivers may have died with one; sure were %v)", len(lost), lost[0], unsaid, sure)
	}
	return again, nil
}

// catchUp waits until the clerk has noted a chunk that it sends now. By then it has noted
// all that the queue had, but for what somebody was given who is dead, and comes back.
func (k *clerk) catchUp(ctx context.Context, c *cycle) error {
	last := c.rand.Uint64()
	if err := k.to.Send(ctx, newChunk(c.rand, last, 0)); err != nil {
		return err
	}
	return k.gets(senderName(last), 1)
}

// once returns the chunks that a receiver has got, each of which came once.
func once(got []chunkID) (map[chunkID]bool, error) {
	all := make(map[chunkID]bool)
	for _, id := range got {
		if all[id] {
			return nil, fmt.Errorf("chunk %v came twice to a receiver that lives", id)
		}
		all[id] = true
	}
	return all, nil
}

// gets waits until the clerk has received so many chunks of a sender.
func (k *clerk) gets(sender string, n int) error {
	got := 0
	err := eventually(patience, "a clerk", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		got = k.count[sender]
		return got >= n
	})
	if err != nil {
		return fmt.Errorf("LOST: %w: it has %d chunks of %d", err, got, n)
	}
	return nil
}

// of is what the clerk has received of a sender.
func (k *clerk) of(sender string) []chunkID {
	return slices.DeleteFunc(k.list(), func(id chunkID) bool { return id.sender != sender })
}

// inOrder says whether the chunks of each sender came in the order in which they were
// sent, and each once.
func inOrder(got []chunkID) error {
	last := make(map[string]int64)
	for _, id := range got {
		if before, ok := last[id.sender]; ok && id.number <= before {
			return fmt.Errorf("chunk %v came behind number %d", id, before)
		}
		last[id.sender] = id.number
	}
	return nil
}
