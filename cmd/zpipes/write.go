package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func writeCommand() *cli.Command {
	t := new(transfer)
	b := new(broadcast)
	return &cli.Command{
		Name:      "write",
		Usage:     "write standard input, files, or what a program writes, into a pipe",
		ArgsUsage: "PIPE [FILE... | -- PROGRAM [ARG...]]",
		Description: `Writes the files, one behind the other, into the pipe and closes it; - is standard input,
and so is no FILE at all. Waits for a reader, and ends when the broker has all: then the
reader gets it even if this machine's other processes end, unless the broker or the reader does.

With a PROGRAM, what that writes to its standard output goes into the pipe. If it fails, so
does this, and the reader is told; in program | zpipes write PIPE nobody would know.

Whatever keeps it from the end (a signal, a file that can't be read, a program that fails,
--timeout) also reaches the reader as an error, and not as the end of the data; a reader that
is only about to come is waited for, if there is nothing to write, for two seconds. When the
reader leaves first, the exit status is 5.

With --broadcast any number of zpipes read get all that is written from when they come;
nobody need be there, and who leaves is not waited for.`,
		Flags: append(t.flags(), b.flags()...),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			own, p, failed := splitProgram(cmd.Args().Slice())
			var usage usageError
			if errors.As(failed, &usage) {
				return failed
			}
			if len(own) == 0 {
				return usageError{"which pipe? zpipes write " + cmd.ArgsUsage}
			}
			pipe, err := checkName(own[0], "pipe")
			if err != nil {
				return err
			}
			if err := b.check(cmd); err != nil {
				return err
			}
			in := &input{size: -1}
			switch {
			case p != nil && len(own) > 1:
				return usageError{"either files or a program, not both"}
			case p == nil:
				in, failed = openInput(own[1:])
			}
			if failed != nil {
				if !errors.As(failed, new(hintError)) {
					failed = hintError{failed, "Nothing was written."}
				}
				failed = tell(ctx, failed)
				tear(ctx, cmd, t.timeout, b, pipe, failed)
				return failed
			}
			return write(ctx, cmd, t, b, pipe, in, p)
		},
	}
}

// readerTime is how long one that has nothing to write waits for a reader to tell: it may
// have been started at the same moment, and would wait for ever.
const readerTime = 2 * time.Second

// tear tells the reader that nothing will come.
func tear(ctx context.Context, cmd *cli.Command, timeout duration, b *broadcast, pipe string, why error) {
	c, err := connect(cmd, timeout)
	if err != nil {
		return
	}
	defer c.Close()
	if w, err := b.open(ctx, c, pipe); err == nil {
		b.awaitReaderBriefly(ctx, c, pipe)
		w.CloseWithError(why)
	}
}

func write(ctx context.Context, cmd *cli.Command, t *transfer, b *broadcast, pipe string, in *input, p *program) error {
	ctx, cancel := withTimeout(ctx, time.Duration(t.timeout))
	defer cancel()
	c, err := connect(cmd, t.timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := b.open(ctx, c, pipe)
	if err != nil {
		return causeOf(ctx, err)
	}
	if p != nil {
		out, err := p.output()
		if err != nil {
			err = tell(ctx, hintError{err, "Nothing was written."})
			b.awaitReaderBriefly(ctx, c, pipe)
			w.CloseWithError(err)
			return err
		}
		defer p.end()
		defer out.Close()
		in.Reader = out
	}
	var src io.Reader = in
	total := in.size
	if cmd.IsSet("bytes") {
		src = io.LimitReader(in, int64(t.bytes))
		if total < 0 || total > int64(t.bytes) {
			total = int64(t.bytes)
		}
	}
	g := newGauge(cmd, total, in.typed)
	defer g.end()
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	watching, enough := context.WithCancel(ctx)
	defer enough()
	go watch(watching, lost, w.Flush)
	err = until(ctx, func() error {
		n, err := io.Copy(newMeter(ctx, w, t.rate, g), src)
		enough()
		switch {
		case err == nil:
			w.SetWriteDeadline(time.Now().Add(forever)) // Close delivers for as long as it takes
			return w.Close()
		case opOf(err) != nil: // the pipe's own
			return err
		case n > 0:
			w.Flush()
			return err
		}
		failed := errors.As(err, new(programError))
		if failed && !b.on {
			err = hintError{err, "The reader is told as soon as there is one."}
		}
		if ctx.Err() == nil {
			err = tell(ctx, err)
		}
		if failed {
			return cmp.Or(b.awaitReader(ctx, c, pipe), err)
		}
		b.awaitReaderBriefly(ctx, c, pipe)
		return err // for the reader to know, also if it comes later
	})
	if failed := p.failure(); err != nil && failed != nil && !errors.Is(err, failed) {
		err = fmt.Errorf("%w; %w", failed, err) // such as: no reader came in time to be told
	}
	if err != nil {
		w.CloseWithError(err) // the reader shall not take this for the end
	}
	return err
}

const forever = 100 * 365 * 24 * time.Hour

// watch notices, while there is nothing to write, that the other side has gone: look tells.
func watch(ctx context.Context, lost context.CancelCauseFunc, look func() error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := look(); err != nil && !errors.Is(err, os.ErrClosed) && ctx.Err() == nil {
			lost(err)
			return
		}
	}
}

// awaitReader is for what fails before anything was written: CloseWithError waits for
// nobody, and the reader shall learn of it. Nobody need be there to read a broadcast.
func (b *broadcast) awaitReader(ctx context.Context, c *zpipes.Client, pipe string) error {
	for pause := 50 * time.Millisecond; !b.on; pause = min(2*pause, time.Second) {
		p, err := c.Stat(ctx, pipe)
		switch {
		case errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission):
			return nil // the broker does not tell
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case p.Reader || p.Mode == zpipes.ModeQueue:
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (b *broadcast) awaitReaderBriefly(ctx context.Context, c *zpipes.Client, pipe string) {
	ctx, cancel := context.WithTimeout(ctx, readerTime)
	defer cancel()
	b.awaitReader(ctx, c, pipe)
}

// An input is several files, one behind the other.
type input struct {
	io.Reader
	size  int64 // -1: who knows
	typed bool  // by somebody at a terminal
}

// openInput opens all files, so that a name that is wrong shows before anything is sent.
func openInput(names []string) (*input, error) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	in := new(input)
	var readers []io.Reader
	for _, name := range names {
		file := os.Stdin
		if name != "-" {
			var err error
			if file, err = os.Open(name); err != nil {
				return nil, err
			}
		} else if err := closedError(file); err != nil {
			return nil, err
		}
		in.typed = in.typed || file == os.Stdin && isTerminal(file)
		info, err := file.Stat()
		switch {
		case err == nil && info.IsDir():
			return nil, hintError{fmt.Errorf("%s is a directory", visible(file.Name())), "Pack it: zpipes write PIPE -- tar c DIRECTORY"}
		case err != nil || !info.Mode().IsRegular():
			in.size = -1
		case in.size >= 0:
			read, _ := file.Seek(0, io.SeekCurrent) // by who had standard input before
			in.size += max(0, info.Size()-read)
		}
		readers = append(readers, file)
	}
	if in.size == 0 { // as what is in /proc has it
		in.size = -1
	}
	in.Reader = io.MultiReader(readers...)
	return in, nil
}
