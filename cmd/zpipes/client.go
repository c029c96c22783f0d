package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
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
	cfg := zpipes.ClientConfig{Timeout: time.Duration(timeout), TrustUIDs: trust.ints(), BrokerKey: cmd.String("broker-key")}
	var err error
	if cfg.Key, err = readKey(cmd.String("key")); err != nil {
		return nil, err
	}
	c, err := cfg.NewClient(brokerName(cmd))
	switch {
	case errors.Is(err, zpipes.ErrBadName) && strings.Contains(err.Error(), "ClientConfig.Key"):
		return nil, usageError{fmt.Sprintf("%s is not on this machine, so it needs a key: --key FILE or ZPIPES_KEY", visible(brokerName(cmd)))}
	case errors.Is(err, errors.ErrUnsupported):
		return nil, err
	case err != nil:
		return nil, usageError{err.Error()}
	}
	return c, nil
}

// withClient has f use a client of that broker, for as long as --timeout allows.
func withClient(ctx context.Context, cmd *cli.Command, timeout duration, f func(context.Context, *zpipes.Client) error) error {
	ctx, cancel := withTimeout(ctx, time.Duration(timeout))
	defer cancel()
	c, err := connect(cmd, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

// oneName returns the only argument.
func oneName(cmd *cli.Command, what string) (string, error) {
	return oneOf(cmd, cmd.Args().Slice(), what)
}

func oneOf(cmd *cli.Command, args []string, what string) (string, error) {
	switch len(args) {
	case 0:
		return "", usageError{fmt.Sprintf("which %s? zpipes %s %s", what, cmd.Name, cmd.ArgsUsage)}
	case 1:
		return checkName(args[0], what)
	}
	return "", usageError{fmt.Sprintf("%s takes one %s, not %d", cmd.Name, what, len(args))}
}

// checkName refuses what is most often a variable that is not set.
func checkName(name, what string) (string, error) {
	if name == "" {
		return "", usageError{fmt.Sprintf("the name of the %s is empty", what)}
	}
	return name, nil
}

func noArguments(cmd *cli.Command) error {
	if cmd.NArg() > 0 {
		return usageError{fmt.Sprintf("%s takes no argument such as %s", cmd.Name, quoted(cmd.Args().First()))}
	}
	return nil
}
