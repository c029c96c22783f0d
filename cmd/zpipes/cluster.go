package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func clusterCommand() *cli.Command {
	var timeout duration
	return &cli.Command{
		Name:      "cluster",
		Usage:     "show the brokers that act as one with this one, or have it leave them",
		ArgsUsage: "status|leave",
		Description: `A broker that was started with --cluster acts as one with those of other hosts.

  zpipes cluster status   lists them as this broker sees them: linked, or missing and why
  zpipes cluster leave    has this broker go on alone until it is started again; the others forget it

The exit status of "status" is 1 if one is missing.`,
		Flags: []cli.Flag{timeoutFlag(&timeout)},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			what := cmd.Args().First()
			if cmd.NArg() != 1 || what != "status" && what != "leave" {
				return usageError{"what about the cluster? zpipes cluster status, or zpipes cluster leave"}
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				if what == "leave" {
					return causeOf(ctx, c.LeaveCluster(ctx))
				}
				status, err := c.Status(ctx)
				if err != nil {
					return causeOf(ctx, err)
				}
				return showMembers(output{}, status, time.Now())
			})
		},
	}
}

func showMembers(out io.Writer, status zpipes.Status, now time.Time) error {
	if len(status.Members) == 0 {
		return hintError{fmt.Errorf("broker %s belongs to no cluster", quoted(status.Name)), "Start it with --cluster FILE and --join HOST."}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BROKER\tADDRESS\tSTATE\tFOR\tROUND TRIP")
	missing := 0
	for _, m := range status.Members {
		state, trip := m.State, "-"
		if m.State == zpipes.MemberMissing {
			missing++
		}
		if m.Why != "" {
			state += ": " + visible(m.Why)
		}
		if m.RTT > 0 {
			trip = m.RTT.Round(10 * time.Microsecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", visible(m.Name), visible(m.Address), state, ageText(now.Sub(m.Since)), trip)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if missing > 0 {
		return hintError{fmt.Errorf("%s missing", showMany(missing, "broker")), "docs/MACHINES.md, \"Brokers of several hosts\", says what to look at."}
	}
	return nil
}
