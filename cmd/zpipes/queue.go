package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func sendCommand() *cli.Command {
	var timeout, after duration
	return &cli.Command{
		Name:      "send",
		Usage:     "send chunks into a queue",
		ArgsUsage: "QUEUE [CHUNK...]",
		Description: `Each CHUNK goes into the queue whole (put -- before one that begins with -). Without any,
each line of standard input is one, without its end. Waits only while the queue is full, not
for a receiver, and ends when the broker has all.`,
		Flags: []cli.Flag{timeoutFlag(&timeout),
			&cli.BoolFlag{Name: "durable", Usage: "the queue outlives the broker, which keeps it on the disk (zpipes broker --dir)"},
			&cli.BoolFlag{Name: "null", Aliases: []string{"0"}, Usage: "chunks on standard input end with a NUL byte, not with a line"},
			&cli.GenericFlag{Name: "after", Value: &after, Usage: "nobody gets the chunks before `DURATION` has passed"},
			&cli.StringFlag{Name: "once", Usage: "send the CHUNK once, however often it is sent with this `ID` within ten minutes"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() == 0 {
				return usageError{"which queue? zpipes send QUEUE [CHUNK...]"}
			}
			name, err := checkName(cmd.Args().First(), "queue")
			if err != nil {
				return err
			}
			if err := closedError(os.Stdin); cmd.NArg() == 1 && err != nil {
				return err
			}
			if cmd.IsSet("once") && (cmd.NArg() != 2 || after > 0) {
				return usageError{"--once is for one CHUNK, and not together with --after"}
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				return send(ctx, cmd, c, name, time.Duration(after))
			})
		},
	}
}

func send(ctx context.Context, cmd *cli.Command, c *zpipes.Client, name string, after time.Duration) error {
	q, err := zpipes.QueueConfig{Durable: cmd.Bool("durable")}.OpenQueue(ctx, c, name)
	if err != nil {
		return causeOf(ctx, err)
	}
	put := func(ctx context.Context, chunk []byte) error { return q.SendAfter(ctx, after, chunk) }
	if id := cmd.String("once"); cmd.IsSet("once") {
		put = func(ctx context.Context, chunk []byte) error { return q.SendOnce(ctx, id, chunk) }
	}
	if cmd.NArg() > 1 {
		err = until(ctx, func() error { return sendArguments(ctx, put, cmd.Args().Tail()) })
		return settle(ctx, q, err)
	}
	watched, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	go watch(watched, lost, func() error { return broken(watched, q) })
	in := &counted{}
	err = until(watched, func() error { return sendInput(watched, put, in, delimiter(cmd)) })
	lost(nil)
	if err = settle(ctx, q, err); err != nil {
		return in.report(err)
	}
	return nil
}

// broken says that nothing can be sent into the queue any more. With a context that has
// ended, Send puts nothing into it, and says so or why it could not.
func broken(ctx context.Context, q *zpipes.Queue) error {
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := q.Send(over, nil); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// counted is standard input, of which more may have been read than was sent.
type counted struct{ read, sent atomic.Int64 }

func (c *counted) Read(b []byte) (int, error) {
	n, err := os.Stdin.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// report adds what of the input is nowhere.
func (c *counted) report(err error) error {
	if n := c.read.Load() - c.sent.Load(); n > 0 {
		return fmt.Errorf("%w; %d bytes that were read from standard input were not sent", err, n)
	}
	return err
}

// settle waits until what was sent is confirmed, but after a signal not for long.
func settle(ctx context.Context, q *zpipes.Queue, err error) error {
	if ctx.Err() != nil {
		var cancel func()
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
	}
	flushed := q.Flush(ctx)
	var left *zpipes.UndeliveredError
	if err == nil {
		return causeOf(ctx, flushed)
	} else if errors.As(flushed, &left) {
		return fmt.Errorf("%w; up to %d bytes of chunks are not in the queue", err, left.Bytes)
	}
	return err
}

func delimiter(cmd *cli.Command) byte {
	if cmd.Bool("null") {
		return 0
	}
	return '\n'
}

// A sending puts a chunk into a queue.
type sending func(ctx context.Context, chunk []byte) error

func sendArguments(ctx context.Context, put sending, chunks []string) error {
	for _, chunk := range chunks {
		if err := put(ctx, []byte(chunk)); err != nil {
			return err
		}
	}
	return nil
}

// longest is more than a queue takes by default, so that the queue's own error is met.
const longest = 32 << 20

func sendInput(ctx context.Context, put sending, from *counted, end byte) error {
	in := bufio.NewScanner(from)
	in.Buffer(make([]byte, 64<<10), longest)
	in.Split(func(data []byte, last bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, end); i >= 0 {
			return i + 1, data[:i], nil
		} else if last && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	n := 0
	for ; in.Scan(); n++ {
		if err := put(ctx, in.Bytes()); err != nil {
			return err
		}
		from.sent.Add(int64(len(in.Bytes())) + 1)
	}
	if err := in.Err(); err != nil {
		return hintError{fmt.Errorf("standard input, behind chunk %d: %w", n, err), "Those before it were sent."}
	}
	return nil
}
