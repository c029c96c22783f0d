package main

import (
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
	return &cli.Command{
		Name:      "write",
		Usage:     "write standard input, or files, into a pipe",
		ArgsUsage: "PIPE [FILE...]",
		Description: `Writes the files, one behind the other, into the pipe and closes it; - is standard input,
and so is no FILE at all. Waits for a reader, and ends when the broker has all: then the
reader gets it even if this machine's other processes end, unless the broker or the reader does.

Whatever keeps it from the end (a signal, a file that can't be read, --timeout) also reaches
the reader as an error, and not as the end of the data. When the reader leaves first, the
exit status is 5.`,
		Flags:         t.flags(),
		ShellComplete: completePipes(zpipes.ModeStream),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() == 0 {
				return usageError{"which pipe? zpipes write PIPE [FILE...]"}
			}
			in, err := openInput(cmd.Args().Tail())
			if err != nil {
				return err
			}
			return write(ctx, cmd, t, cmd.Args().First(), in)
		},
	}
}

func write(ctx context.Context, cmd *cli.Command, t *transfer, pipe string, in *input) error {
	ctx, cancel := withTimeout(ctx, time.Duration(t.timeout))
	defer cancel()
	c, err := connect(cmd, t.timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := c.OpenWriter(ctx, pipe)
	if err != nil {
		return causeOf(ctx, err)
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
	go watch(watching, w, lost)
	err = until(ctx, func() error {
		n, err := io.Copy(newMeter(ctx, w, t.rate, g), src)
		enough()
		if err == nil && n == 0 {
			err = awaitReader(ctx, c, pipe)
		}
		if err == nil {
			err = flush(w)
		}
		return err
	})
	if err != nil {
		w.CloseWithError(err) // the reader shall not take this for the end
		return err
	}
	return w.Close()
}

// flush delivers for as long as it takes, which Close would not do. A reader that left
// with all that there was has had enough, as one with --bytes has.
func flush(w *zpipes.Writer) error {
	err := w.Flush()
	var left *zpipes.UndeliveredError
	if errors.Is(err, io.ErrClosedPipe) && !errors.As(err, &left) {
		return nil
	}
	return err
}

// watch notices that the reader or the broker has gone while there is nothing to write.
func watch(ctx context.Context, w *zpipes.Writer, lost context.CancelCauseFunc) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := w.Flush(); err != nil && !errors.Is(err, os.ErrClosed) && ctx.Err() == nil {
			lost(err)
			return
		}
	}
}

// awaitReader is for streams without a byte: the library closes them at once, and a
// reader that comes later would wait for another writer.
func awaitReader(ctx context.Context, c *zpipes.Client, pipe string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := c.Status(ctx)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
			return nil // the broker does not tell
		} else if err != nil {
			return err
		}
		for _, p := range status.Pipes {
			if p.Name == pipe && (p.Reader || p.Mode == zpipes.ModeQueue) {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
				return nil, hintError{err, "Nothing was written."}
			}
		}
		in.typed = in.typed || file == os.Stdin && isTerminal(file)
		info, err := file.Stat()
		switch {
		case err == nil && info.IsDir():
			return nil, hintError{fmt.Errorf("%s is a directory", file.Name()), "Pack it: tar c DIRECTORY | zpipes write PIPE"}
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
