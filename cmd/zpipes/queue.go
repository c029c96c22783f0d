package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
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
		ShellComplete: completePipes(zpipes.ModeQueue),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() == 0 {
				return usageError{"which queue? zpipes send QUEUE [CHUNK...]"}
			}
			ctx, cancel := withTimeout(ctx, time.Duration(timeout))
			defer cancel()
			c, err := connect(cmd, timeout)
			if err != nil {
				return err
			}
			defer c.Close()
			q, err := c.OpenQueue(ctx, cmd.Args().First())
			if err != nil {
				return causeOf(ctx, err)
			}
			err = until(ctx, func() error {
				if cmd.NArg() > 1 {
					return sendArguments(ctx, q, cmd.Args().Tail())
				}
				return sendInput(ctx, q, delimiter(cmd))
			})
			return settle(ctx, q, err)
		},
	}
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

func sendInput(ctx context.Context, q *zpipes.Queue, end byte) error {
	in := bufio.NewScanner(os.Stdin)
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
	}
	if err := in.Err(); err != nil {
		return hintError{fmt.Errorf("standard input, behind chunk %d: %w", n, err), "Those before it were sent."}
	}
	return nil
}
