package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/zpipes/zpipes"
)

func readCommand() *cli.Command {
	t := new(transfer)
	return &cli.Command{
		Name:      "read",
		Usage:     "read a pipe to standard output, or into a program",
		ArgsUsage: "PIPE [-- PROGRAM [ARG...]]",
		Description: `Writes what comes through the pipe to standard output, until its writer has closed it.
The exit status is 0 then, and never if something is missing: it is 5 if the writer died or
gave up, and 4 if the broker did.

With a PROGRAM, that reads it on its standard input. The exit status is 0 only if the program's
is as well, and 1 if only that is not. A program never takes a part for the whole: if
something is missing, it is ended (TERM) before its input.

If standard output ends first, as in zpipes read p | head -1, or the program without an error,
or with --bytes, this ends with status 0, and the writer is told that its reader has left.`,
		Flags: t.flags(),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			own, p, err := splitProgram(cmd.Args().Slice())
			if err != nil {
				return err
			}
			pipe, err := oneOf(cmd, own, "pipe")
			if err != nil {
				return err
			}
			if err := (output{}).usable(); err != nil {
				return err
			}
			return withClient(ctx, cmd, t.timeout, func(ctx context.Context, c *zpipes.Client) error {
				if p != nil {
					return readInto(ctx, cmd, t, c, pipe, p)
				}
				ctx, cancel := withReader(ctx, os.Stdout)
				defer cancel()
				r, err := c.OpenReader(ctx, pipe)
				if err != nil {
					return causeOf(ctx, err)
				}
				return read(ctx, cmd, t, r, output{}, nil)
			})
		},
	}
}

// readInto reads a pipe into a program.
func readInto(ctx context.Context, cmd *cli.Command, t *transfer, c *zpipes.Client, pipe string, p *program) error {
	r, err := c.OpenReader(ctx, pipe)
	if err != nil {
		return causeOf(ctx, err)
	}
	in, err := p.input()
	if err != nil {
		r.CloseWithError(err)
		return err
	}
	defer in.Close()
	defer p.end() // before it finds the end of its input
	reading, cancel := withReader(ctx, in)
	defer cancel()
	return read(reading, cmd, t, r, programInput{in}, func(err error) error {
		cancel() // nobody is to hold the file
		if err == nil {
			in.Close()
		} else if !errors.Is(err, errNoOutput) {
			return err
		}
		if failed := p.wait(ctx); failed != nil {
			return failed
		}
		return err
	})
}

// programInput is a program's standard input.
type programInput struct{ *os.File }

func (i programInput) Write(b []byte) (int, error) {
	n, err := i.File.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		err = errNoOutput
	}
	return n, err
}

// read copies a pipe, and closes it. settle, if there is one, says what becomes of the
// copying's error.
func read(ctx context.Context, cmd *cli.Command, t *transfer, r *zpipes.Reader, dst io.Writer, settle func(error) error) error {
	total := int64(-1)
	var src io.Reader = r
	if cmd.IsSet("bytes") {
		total = int64(t.bytes)
		src = io.LimitReader(r, total)
	}
	g := newGauge(cmd, total, settle == nil && isTerminal(os.Stdout))
	defer g.end()
	err := until(ctx, func() error {
		_, err := io.Copy(newMeter(ctx, dst, t.rate, g), src)
		return err
	})
	if settle != nil {
		err = settle(err)
	}
	if err != nil {
		r.CloseWithError(err)
		return err
	}
	return r.Close()
}
