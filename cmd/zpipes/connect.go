package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func connectCommand() *cli.Command {
	var timeout duration
	return &cli.Command{
		Name:      "connect",
		Usage:     "connect standard input and output to who listens at a name",
		ArgsUsage: "NAME",
		Description: `Connects to a listener (zpipes listen, or a program), as nc -U does to a socket: what comes
on standard input goes there, and what comes from there to standard output. The end of the
input is told to the other side, and what that still has to say is read.

The exit status is 0 if both directions came to their end, or the other side closed and had
taken all that there was; 5 if something is missing: the other side died, gave up, or did not
read all of the input; 1 if nobody listens.`,
		Flags: []cli.Flag{timeoutFlag(&timeout)},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			name, err := oneName(cmd, "listener")
			if err != nil {
				return err
			}
			if err := closedError(os.Stdin); err != nil {
				return err
			}
			if err := (output{}).usable(); err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				n, err := c.Dial(ctx, name)
				if err != nil {
					return causeOf(ctx, err)
				}
				ctx, cancel := withReader(ctx, os.Stdout)
				defer cancel()
				return causeOf(ctx, couple(ctx, newPipeSide(n), &standardSide{Writer: output{}}))
			})
		},
	}
}

// standardSide is this program's standard files, which stay open.
type standardSide struct {
	io.Writer
	waits atomic.Bool // for the input
}

func (s *standardSide) Read(b []byte) (int, error) {
	s.waits.Store(true)
	defer s.waits.Store(false)
	return os.Stdin.Read(b)
}

// CloseRead leaves a Read that waits for input, for which nobody is there any more, and says so. Where there is some,
// who reads it finds out that it is not taken.
func (s *standardSide) CloseRead() error {
	if s.waits.Load() && !readable(os.Stdin) {
		return errors.ErrUnsupported
	}
	return errUnread
}

func (*standardSide) CloseWrite() error { return nil }
func (*standardSide) Close() error      { return nil }
func (*standardSide) tear(error)        {}
func (*standardSide) gone() bool        { return false }
