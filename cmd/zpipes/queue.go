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
	var timeout duration
	return &cli.Command{
		Name:      "send",
		Usage:     "send chunks into a queue",
		ArgsUsage: "QUEUE [CHUNK...]",
		Description: `Each CHUNK goes into the queue whole (put -- before one that begins with -). Without any,
each line of standard input is one, without its end. Waits only while the queue is full, not
for a receiver, and ends when the broker has all.`,
		Flags: []cli.Flag{timeoutFlag(&timeout),
			&cli.BoolFlag{Name: "null", Aliases: []string{"0"}, Usage: "chunks on standard input end with a NUL byte, not with a line"}},
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
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				return send(ctx, cmd, c, name)
			})
		},
	}
}

func send(ctx context.Context, cmd *cli.Command, c *zpipes.Client, name string) error {
	q, err := c.OpenQueue(ctx, name)
	if err != nil {
		return causeOf(ctx, err)
	}
	if cmd.NArg() > 1 {
		err = until(ctx, func() error { return sendArguments(ctx, q, cmd.Args().Tail()) })
		return settle(ctx, q, err)
	}
	watched, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	go watch(watched, lost, func() error { return broken(watched, q) })
	in := &counted{}
	err = until(watched, func() error { return sendInput(watched, q, in, delimiter(cmd)) })
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

func sendArguments(ctx context.Context, q *zpipes.Queue, chunks []string) error {
	for _, chunk := range chunks {
		if err := q.Send(ctx, []byte(chunk)); err != nil {
			return err
		}
	}
	return nil
}

// longest is more than a queue takes by default, so that the queue's own error is met.
const longest = 32 << 20

func sendInput(ctx context.Context, q *zpipes.Queue, from *counted, end byte) error {
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
		if err := q.Send(ctx, in.Bytes()); err != nil {
			return err
		}
		from.sent.Add(int64(len(in.Bytes())) + 1)
	}
	if err := in.Err(); err != nil {
		return hintError{fmt.Errorf("standard input, behind chunk %d: %w", n, err), "Those before it were sent."}
	}
	return nil
}
