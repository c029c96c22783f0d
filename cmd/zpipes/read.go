package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func readCommand() *cli.Command {
	t := new(transfer)
	return &cli.Command{
		Name:      "read",
		Usage:     "read a pipe to standard output",
		ArgsUsage: "PIPE",
		Description: `Writes what comes through the pipe to standard output, until its writer has closed it.
The exit status is 0 then, and never if something is missing: it is 5 if the writer died or
gave up, and 4 if the broker did.

If standard output ends first, as in zpipes read p | head -1, or with --bytes, this ends with
status 0, and the writer is told that its reader has left.`,
		Flags:         t.flags(),
		ShellComplete: completePipes(zpipes.ModeStream),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			pipe, err := oneName(cmd, "pipe")
			if err != nil {
				return err
			}
			return read(ctx, cmd, t, pipe)
		},
	}
}

// errNoOutput is that nobody reads standard output any more. It ends a command in peace.
var errNoOutput = errors.New("nobody reads the output any more")

// withOutput returns a context that ends when nobody reads standard output any more.
func withOutput(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	hangup(os.Stdout, func() { cancel(errNoOutput) })
	return ctx, func() { cancel(nil) }
}

// output is standard output, whose errors say what they are.
type output struct{}

func (output) Write(b []byte) (int, error) {
	n, err := os.Stdout.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errNoOutput
	} else if err != nil {
		err = hintError{err, "The output is not complete."}
	}
	return n, err
}

func read(ctx context.Context, cmd *cli.Command, t *transfer, pipe string) error {
	ctx, cancel := withTimeout(ctx, time.Duration(t.timeout))
	defer cancel()
	ctx, cancel = withOutput(ctx)
	defer cancel()
	c, err := connect(cmd, t.timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.OpenReader(ctx, pipe)
	if err != nil {
		return causeOf(ctx, err)
	}
	total := int64(-1)
	var src io.Reader = r
	if cmd.IsSet("bytes") {
		total = int64(t.bytes)
		src = io.LimitReader(r, total)
	}
	g := newGauge(cmd, total, isTerminal(os.Stdout))
	defer g.end()
	err = until(ctx, func() error {
		_, err := io.Copy(newMeter(ctx, output{}, t.rate, g), src)
		return err
	})
	if err != nil {
		r.CloseWithError(err)
		return err
	}
	return r.Close()
}
