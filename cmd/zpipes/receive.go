package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func receiveCommand() *cli.Command {
	var timeout duration
	var n count
	wait := duration(200 * time.Millisecond)
	return &cli.Command{
		Name:      "receive",
		Usage:     "receive chunks from a queue",
		ArgsUsage: "QUEUE",
		Description: `Writes each chunk to standard output as one line, until the queue is empty: no chunk has come
for the time of --wait, 200ms, and the broker has none. With -n it waits for so many, with
--follow for ever.

Each chunk goes to one receiver. Nothing is lost in silence: no chunk is taken while nobody
reads the output, and one that could not be written out goes back to the queue, behind others,
and may then come twice. What has been written into a pipe is out of this program's hands. A
receiver that is killed (kill -9) between receiving a chunk and writing it loses that one.`,
		Flags: []cli.Flag{timeoutFlag(&timeout),
			&cli.GenericFlag{Name: "count", Aliases: []string{"n"}, Value: &n, Usage: "wait for `COUNT` chunks, and end"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "wait for more for ever"},
			&cli.BoolFlag{Name: "null", Aliases: []string{"0"}, Usage: "end each chunk with a NUL byte, not as a line"},
			&cli.GenericFlag{Name: "wait", Value: &wait, Usage: "take the queue for empty when no chunk has come for `DURATION`"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			name, err := oneName(cmd, "queue")
			if err != nil {
				return err
			}
			r := &receiver{name: name, out: output{}, end: delimiter(cmd), patience: max(time.Duration(wait), leastWait), count: int(n)}
			switch {
			case cmd.IsSet("wait") && (cmd.Bool("follow") || cmd.IsSet("count")):
				return usageError{"--wait says when a queue is empty; with -n or --follow it means nothing"}
			case cmd.Bool("follow") || r.count > 0:
				r.patience = 0
			}
			if err := (output{}).usable(); err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) (err error) {
				ctx, cancel := withReader(ctx, os.Stdout)
				defer cancel()
				r.c = c
				if r.q, err = c.OpenQueue(ctx, name); err != nil {
					return causeOf(ctx, err)
				}
				return r.run(ctx)
			})
		},
	}
}

// leastWait is for a --wait of 0: a broker that is asked at once has no time to answer.
const leastWait = time.Millisecond

// A receiver writes chunks to out.
type receiver struct {
	c        *zpipes.Client
	name     string
	q        *zpipes.Queue
	out      io.Writer
	end      byte
	count    int           // 0: any number
	patience time.Duration // 0: for ever

	mu     sync.Mutex
	inHand []byte // received and not written out
}

func (r *receiver) run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- r.receive(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
		select {
		case <-done:
		case <-time.After(100 * time.Millisecond): // it is stuck where it writes
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inHand != nil {
		return r.putBack(ctx, err)
	}
	return err
}

func (r *receiver) receive(ctx context.Context) error {
	var line bytes.Buffer
	for n := 0; r.count == 0 || n < r.count; n++ {
		chunk, err := r.next(ctx)
		if err != nil || chunk == nil {
			return err
		}
		line.Reset()
		line.Write(chunk)
		line.WriteByte(r.end)
		if _, err := r.out.Write(line.Bytes()); err != nil {
			return err
		}
		r.hold(nil)
	}
	return nil
}

// next returns the next chunk; nil if the queue is empty.
func (r *receiver) next(ctx context.Context) ([]byte, error) {
	for {
		chunk, err := r.nextSoon(ctx)
		switch {
		case err == nil:
			r.hold(chunk)
			return chunk, nil
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return nil, causeOf(ctx, err)
		}
		if empty, err := r.empty(ctx); empty || err != nil {
			return nil, causeOf(ctx, err)
		}
	}
}

func (r *receiver) nextSoon(ctx context.Context) ([]byte, error) {
	if r.patience > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, r.patience)
		defer cancel()
	}
	return r.q.Receive(ctx)
}

// empty asks the broker, which may only have been slow.
func (r *receiver) empty(ctx context.Context) (bool, error) {
	status, err := r.c.Status(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return true, nil // it does not tell
	} else if err != nil {
		return false, err
	}
	for _, p := range status.Pipes {
		if p.Name == r.name && p.Mode == zpipes.ModeQueue && p.Chunks > 0 {
			return false, nil
		}
	}
	return true, nil
}

func (r *receiver) hold(chunk []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inHand = chunk
}

// putBack returns the chunk that was not written out. It is the last thing that happens.
func (r *receiver) putBack(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := r.q.Send(ctx, r.inHand)
	if err == nil {
		err = r.q.Flush(ctx)
	}
	if err != nil {
		return hintError{fmt.Errorf("%w; a chunk of %d bytes, not written out, could not be put back: %w", why, len(r.inHand), err),
			"It is lost; those before it were written, those behind it are in the queue."}
	}
	return fmt.Errorf("%w; the chunk that was not written out is in the queue again, behind others", why)
}
