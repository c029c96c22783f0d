package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

const defaultBroker = "local"

// A transfer is what the commands that move data have in common.
type transfer struct {
	timeout  duration
	bytes    size
	rate     size
	progress bool
}

func timeoutFlag(d *duration) cli.Flag {
	return &cli.GenericFlag{Name: "timeout", Value: d, Usage: "give up after `DURATION`, and wait so long for a broker (else 5s)"}
}

func (t *transfer) flags() []cli.Flag {
	return []cli.Flag{
		timeoutFlag(&t.timeout),
		&cli.GenericFlag{Name: "bytes", Value: &t.bytes, Usage: "end after `SIZE` bytes, such as 100 or 1MiB"},
		&cli.GenericFlag{Name: "rate-limit", Value: &t.rate, Usage: "at most `SIZE` bytes in a second"},
		&cli.BoolFlag{Name: "progress", Destination: &t.progress,
			Usage: "show progress on standard error, terminal or not; --progress=false: never (else on a terminal, after a second)"},
	}
}

// brokerName is what --broker or ZPIPES_BROKER say, if anything.
func brokerName(cmd *cli.Command) string { return cmp.Or(cmd.String("broker"), defaultBroker) }

// connect returns a client of the broker that --broker names. Nothing is sent yet.
func connect(cmd *cli.Command, timeout duration) (*zpipes.Client, error) {
	trust, _ := cmd.Value("trust-user").(users)
	c, err := zpipes.ClientConfig{Timeout: time.Duration(timeout), TrustUIDs: trust.ints()}.NewClient(brokerName(cmd))
	if err != nil {
		return nil, usageError{err.Error()}
	}
	return c, nil
}

// oneName returns the only argument.
func oneName(cmd *cli.Command, what string) (string, error) {
	switch cmd.NArg() {
	case 0:
		return "", usageError{fmt.Sprintf("which %s? zpipes %s %s", what, cmd.Name, cmd.ArgsUsage)}
	case 1:
		return cmd.Args().First(), nil
	}
	return "", usageError{fmt.Sprintf("%s takes one %s, not %d", cmd.Name, what, cmd.NArg())}
}

func noArguments(cmd *cli.Command) error {
	if cmd.NArg() > 0 {
		return usageError{fmt.Sprintf("%s takes no argument such as %q", cmd.Name, cmd.Args().First())}
	}
	return nil
}

// completePipes offers the names of the pipes that there are, where a broker answers soon.
func completePipes(mode zpipes.Mode) cli.ShellCompleteFunc {
	return func(ctx context.Context, cmd *cli.Command) {
		cli.DefaultCompleteWithFlags(ctx, cmd)
		if cmd.NArg() > 0 {
			return
		}
		c, err := connect(cmd, duration(300*time.Millisecond))
		if err != nil {
			return
		}
		defer c.Close()
		status, err := c.Status(ctx)
		if err != nil {
			return
		}
		for _, p := range status.Pipes {
			if p.Mode == mode {
				fmt.Fprintln(cmd.Root().Writer, p.Name)
			}
		}
	}
}
