package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

// queueCommand is a command with a queue's name, and perhaps flags.
func queueCommand(name, usage, description string, flags []cli.Flag,
	act func(ctx context.Context, cmd *cli.Command, c *zpipes.Client, queue string) error) *cli.Command {
	var timeout duration
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "QUEUE", Description: description,
		Flags: append([]cli.Flag{timeoutFlag(&timeout)}, flags...),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			queue, err := oneName(cmd, "queue")
			if err != nil {
				return err
			}
			if err := (output{}).usable(); err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				return causeOf(ctx, act(ctx, cmd, c, queue))
			})
		},
	}
}

func jobsCommand() *cli.Command {
	return queueCommand("jobs", "count the jobs of a queue",
		`Says how many jobs of the queue are ready, not due yet (delayed), with a worker (taken) and dead,
and since when the oldest one is ready.`, nil,
		func(ctx context.Context, _ *cli.Command, c *zpipes.Client, queue string) error {
			p, err := c.Stat(ctx, queue)
			handed := fmt.Sprint(p.Handed)
			if errors.Is(err, fs.ErrNotExist) || err == nil && (p.HomeAt != "" || p.Unusable != "") {
				p, err = countJobs(c.PeekJobs(ctx, queue)) // of another broker's queue, or why one can't be read
				handed = "-"
			}
			if err != nil {
				return err
			}
			if p.Mode != zpipes.ModeQueue {
				return fmt.Errorf("%s is no queue", visible(queue))
			}
			oldest := "-"
			if p.Oldest > 0 {
				oldest = ageText(p.Oldest)
			}
			w := tabwriter.NewWriter(output{}, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "READY\tDELAYED\tTAKEN\tDEAD\tOLDEST\tDELIVERIES")
			fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\n", p.Chunks-p.Delayed-p.Taken-p.Dead, p.Delayed, p.Taken, p.Dead, oldest, handed)
			return w.Flush()
		})
}

// countJobs is what there is to tell of a queue with those jobs.
func countJobs(jobs iter.Seq2[zpipes.JobInfo, error]) (zpipes.PipeInfo, error) {
	p := zpipes.PipeInfo{Mode: zpipes.ModeQueue}
	for j, err := range jobs {
		if err != nil {
			return p, err
		}
		p.Chunks++
		switch j.State {
		case zpipes.JobDelayed:
			p.Delayed++
		case zpipes.JobTaken:
			p.Taken++
		case zpipes.JobDead:
			p.Dead++
		default:
			p.Oldest = max(p.Oldest, time.Since(j.Sent))
		}
	}
	return p, nil
}

// peeked is how much of a job a list shows.
const peeked = 60

// listedAtOnce is how many of them stand in line before they are printed.
const listedAtOnce = 1000

func peekCommand() *cli.Command {
	return queueCommand("peek", "look at the jobs of a queue",
		`Lists the jobs of the queue, in the order in which they came, and takes none: the id, the state,
how often it was handed out, its age, why it is dead, and how it begins. With --json, all of each
job, in a line for each.`,
		[]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		func(ctx context.Context, cmd *cli.Command, c *zpipes.Client, queue string) error {
			if !cmd.Bool("json") {
				return listJobs(c.PeekJobs(ctx, queue))
			}
			out := json.NewEncoder(harmlessJSON{output{}})
			for j, err := range c.PeekJobs(ctx, queue) {
				if err == nil {
					err = out.Encode(j)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
}

// listJobs prints a table, so many lines at once.
func listJobs(jobs iter.Seq2[zpipes.JobInfo, error]) error {
	w := tabwriter.NewWriter(output{}, 0, 0, 2, ' ', 0)
	const head = "ID\tSTATE\tDELIVERIES\tAGE\tREASON\tJOB\n"
	n := 0
	for j, err := range jobs {
		if err != nil {
			w.Flush()
			return err
		}
		if n == 0 {
			fmt.Fprint(w, head)
		}
		reason := "-"
		if j.Reason != "" {
			reason = visible(j.Reason)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", visible(j.ID), visible(string(j.State)), j.Deliveries, ageText(time.Since(j.Sent)), reason,
			visible(string(j.Data[:min(len(j.Data), peeked)])))
		if n++; n%listedAtOnce == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		fmt.Fprint(w, head)
	}
	return w.Flush()
}

func purgeCommand() *cli.Command {
	return queueCommand("purge", "drop the jobs of a queue",
		`Drops all jobs of the queue but those that a worker has, or with --ready, --delayed or --dead only
these, and prints how many. The queue stays.`,
		[]cli.Flag{
			&cli.BoolFlag{Name: "ready", Usage: "those that wait for their turn"},
			&cli.BoolFlag{Name: "delayed", Usage: "those that are not due yet"},
			&cli.BoolFlag{Name: "dead", Usage: "those that nobody gets any more"},
		},
		func(ctx context.Context, cmd *cli.Command, c *zpipes.Client, queue string) error {
			all := []zpipes.JobState{zpipes.JobReady, zpipes.JobDelayed, zpipes.JobDead}
			var states []zpipes.JobState
			for _, s := range all {
				if cmd.Bool(string(s)) {
					states = append(states, s)
				}
			}
			if states == nil {
				states = all
			}
			n, err := c.PurgeJobs(ctx, queue, states...)
			return counts(n, err)
		})
}

func redriveCommand() *cli.Command {
	return queueCommand("redrive", "have the dead jobs of a queue wait again",
		"Has all dead jobs of the queue wait again, as if they had never been delivered, and prints how many.", nil,
		func(ctx context.Context, _ *cli.Command, c *zpipes.Client, queue string) error {
			n, err := c.RedriveJobs(ctx, queue)
			return counts(n, err)
		})
}

func counts(n int, err error) error {
	if err == nil {
		_, err = fmt.Fprintln(output{}, n)
	}
	return err
}
