package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func benchCommand() *cli.Command {
	var sizes []string
	var asJSON bool
	long := duration(time.Second)
	return &cli.Command{
		Name:  "bench",
		Usage: "measure how fast a pipe of a broker is",
		Description: `Has a writer and a reader, each with a connection of its own, send data through a pipe of the
broker, in writes of each size for a while, and prints the rates. Both run in this process; for
figures of three processes, and beside other software, see docs/BENCHMARKS.md.`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "size", Destination: &sizes, Value: []string{"64", "1KiB", "64KiB", "1MiB"}, Usage: "write `SIZE` bytes at once; may be repeated"},
			&cli.GenericFlag{Name: "duration", Aliases: []string{"d"}, Value: &long, Usage: "measure each size for a `DURATION`"},
			&cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print JSON"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			var all []measurement
			for _, text := range sizes {
				n, err := parseSize(text)
				if err != nil {
					return usageError{err.Error()}
				}
				if n < 1 || n > 1<<30 {
					return usageError{fmt.Sprintf("a write has from 1 byte to 1GiB, not %s", text)}
				}
				all = append(all, measurement{Size: int(n)})
			}
			for i := range all {
				if err := all[i].run(ctx, cmd, time.Duration(long)); err != nil {
					return causeOf(ctx, err)
				}
			}
			if asJSON {
				out := json.NewEncoder(output{})
				out.SetIndent("", "  ")
				return out.Encode(all)
			}
			w := tabwriter.NewWriter(output{}, 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "SIZE\tMB/s\twrites/s\t")
			for _, m := range all {
				fmt.Fprintf(w, "%s\t%.0f\t%.0f\t\n", bytesText(int64(m.Size)), m.BytesPerSecond/1e6, m.WritesPerSecond)
			}
			return w.Flush()
		},
	}
}

type measurement struct {
	Size            int     `json:"write_size"`
	Bytes           int64   `json:"bytes"`
	Seconds         float64 `json:"seconds"`
	BytesPerSecond  float64 `json:"bytes_per_second"`
	WritesPerSecond float64 `json:"writes_per_second"`
}

// run measures from the first write to the reader's end.
func (m *measurement) run(ctx context.Context, cmd *cli.Command, long time.Duration) error {
	from, err := connect(cmd, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := connect(cmd, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	pipe := fmt.Sprintf("bench-%d-%d", os.Getpid(), m.Size)
	r, err := to.OpenReader(ctx, pipe)
	if err != nil {
		return err
	}
	w, err := from.OpenWriter(ctx, pipe)
	if err != nil {
		return err
	}
	begin := time.Now()
	go m.write(ctx, w, begin.Add(long))
	err = until(ctx, func() error {
		n, err := io.Copy(io.Discard, r)
		m.Bytes = n
		return err
	})
	if err != nil {
		return err
	}
	m.Seconds = time.Since(begin).Seconds()
	m.BytesPerSecond = float64(m.Bytes) / m.Seconds
	m.WritesPerSecond = m.BytesPerSecond / float64(m.Size)
	return nil
}

// write fills the pipe until end. The reader gets its error.
func (m *measurement) write(ctx context.Context, w *zpipes.Writer, end time.Time) {
	data := make([]byte, m.Size)
	for n := 0; ctx.Err() == nil; n++ {
		if m.Size*n%(64<<10) < m.Size && time.Now().After(end) { // not for each small one
			break
		}
		if _, err := w.Write(data); err != nil {
			w.CloseWithError(err)
			return
		}
	}
	if err := w.Close(); err != nil {
		w.CloseWithError(err)
	}
}
