package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func lsCommand() *cli.Command {
	var timeout duration
	var asJSON bool
	return &cli.Command{
		Name:  "ls",
		Usage: "list the pipes of a broker",
		Description: `Lists the pipes: mode, ends, bytes queued, bytes ever in and out, age, and what is up; and to people at a
terminal, how many clients are connected, and how many of them near, which is without ZeroMQ. With
--json, everything that the broker says of itself.`,
		Flags: []cli.Flag{timeoutFlag(&timeout), &cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print JSON"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				status, err := c.Status(ctx)
				if err != nil {
					return causeOf(ctx, err)
				}
				if asJSON {
					out := json.NewEncoder(harmlessJSON{output{}})
					out.SetIndent("", "  ")
					return out.Encode(status)
				}
				return list(output{}, status)
			})
		},
	}
}

func list(out io.Writer, status zpipes.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PIPE\tMODE\tENDS\tQUEUED\tIN\tOUT\tAGE\tSTATE")
	for _, p := range status.Pipes {
		is := state(p)
		if p.Unusable != "" {
			is = harmless(p.Unusable)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", visible(p.Name), p.Mode, ends(p), queued(p),
			bytesText(p.BytesIn), bytesText(p.BytesOut), ageText(p.Age), is)
	}
	if isTerminal(os.Stdout) { // programs get a line for each pipe alone
		fmt.Fprintf(w, "\n%s\n", census(status.Stats))
	}
	return w.Flush()
}

// census is how much there is, and which way clients came.
func census(s zpipes.BrokerStats) string {
	return fmt.Sprintf("%s, %s (%d near)", showMany(s.Pipes, "pipe"), showMany(s.Clients, "client"), s.Near)
}

func ends(p zpipes.PipeInfo) string {
	switch {
	case p.Mode == zpipes.ModeListener:
		return fmt.Sprintf("listeners %d, connections %d", p.Listeners, p.Connections)
	case p.Mode == zpipes.ModeQueue:
		return end(showMany(p.Users, "user"), p.HomeAt)
	case p.Mode == zpipes.ModeBroadcast:
		return broadcastEnds(p)
	case p.Reader && p.Writer:
		return end("writer", p.WriterAt) + ", " + end("reader", p.ReaderAt)
	case p.Writer:
		return end("writer", p.WriterAt)
	case p.Reader:
		return end("reader", p.ReaderAt)
	}
	return "none"
}

func end(which, at string) string {
	if at == "" {
		return which
	}
	return which + " at " + visible(at)
}

func broadcastEnds(p zpipes.PipeInfo) string {
	readers := showMany(p.Readers, "reader")
	if p.Lag > 0 {
		readers += ", " + bytesText(int64(p.Lag)) + " behind"
	}
	if p.Writer {
		return "writer, " + readers
	}
	return readers
}

func queued(p zpipes.PipeInfo) string {
	if p.Mode == zpipes.ModeQueue {
		return fmt.Sprintf("%s in %d", bytesText(int64(p.Queued)), p.Chunks)
	}
	return bytesText(int64(p.Queued))
}

// state is what the pipe waits for, as far as it does.
func state(p zpipes.PipeInfo) string {
	switch {
	case p.Unusable != "":
		return "can't be used"
	case p.Mode == zpipes.ModeListener && p.Waiting > 0:
		return fmt.Sprintf("%d not accepted", p.Waiting)
	case p.Mode == zpipes.ModeListener && p.Reads:
		return "waits for connections"
	case p.Mode == zpipes.ModeListener:
		return "-"
	case p.Mode == zpipes.ModeQueue && p.Writes:
		return "full"
	case p.Mode == zpipes.ModeQueue && p.Users == 0 && p.Chunks > 0:
		return "nobody is there"
	case p.Mode == zpipes.ModeQueue && p.Reads:
		return "waits for chunks"
	case p.Mode == zpipes.ModeQueue:
		return "-"
	case p.Mode == zpipes.ModeBroadcast && !p.Reader && !p.Writes:
		return "nobody reads"
	case !p.Reader:
		return "waits for a reader"
	case !p.Writer:
		return "waits for a writer"
	case p.Writes:
		return "full"
	case p.Reads:
		return "waits for data"
	}
	return "-"
}
