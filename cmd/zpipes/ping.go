package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func pingCommand() *cli.Command {
	var timeout duration
	n := count(5)
	every := duration(100 * time.Millisecond)
	return &cli.Command{
		Name:  "ping",
		Usage: "measure round trips to a broker",
		Description: `Asks the broker -c times for an answer, and prints the shortest, average and longest time that
it took, the 99th percentile, and at which endpoint it was reached. The exit status is 0 if it always answered, and 4 if not;
for a health check: zpipes ping -q -c 1 --timeout 1s`,
		Flags: []cli.Flag{timeoutFlag(&timeout),
			&cli.GenericFlag{Name: "count", Aliases: []string{"c"}, Value: &n, Usage: "ask `N` times"},
			&cli.GenericFlag{Name: "interval", Aliases: []string{"i"}, Value: &every, Usage: "wait a `DURATION` in between"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing, only exit"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				times := make([]time.Duration, 0, min(int(n), 1<<20))
				for i := range n {
					if i > 0 {
						if err := sleep(ctx, time.Duration(every)); err != nil {
							return err
						}
					}
					took, err := c.Ping(ctx)
					if err != nil {
						return causeOf(ctx, err)
					}
					times = append(times, took)
				}
				if cmd.Bool("quiet") {
					return nil
				}
				_, err := fmt.Fprintf(output{}, "broker %s at %s: %s\n", quoted(brokerName(cmd)), visible(c.Endpoint()), summary(times))
				return err
			})
		},
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// summary sorts times.
func summary(times []time.Duration) string {
	slices.Sort(times)
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	n := len(times)
	short := func(d time.Duration) time.Duration { return d.Round(100 * time.Nanosecond) }
	return fmt.Sprintf("%d round trips, min %v, average %v, max %v, p99 %v", n,
		short(times[0]), short(sum/time.Duration(n)), short(times[n-1]), short(times[(n*99+99)/100-1]))
}
