package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

// A broadcast is what zpipes write has beside an ordinary stream's options.
type broadcast struct {
	on       bool
	keep     size
	readers  int
	patience duration
}

func (b *broadcast) flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "broadcast", Destination: &b.on, Usage: "write to any number of readers"},
		&cli.GenericFlag{Name: "keep", Value: &b.keep, Usage: "with --broadcast: a reader that comes late gets the last `SIZE` bytes first"},
		&cli.IntFlag{Name: "readers", Destination: &b.readers, HideDefault: true, Usage: "with --broadcast: wait for `N` readers"},
		&cli.GenericFlag{Name: "patience", Value: &b.patience, Usage: "with --broadcast: leave a reader behind that holds this up for `DURATION`"},
	}
}

func (b *broadcast) check(cmd *cli.Command) error {
	for _, flag := range []string{"keep", "readers", "patience"} {
		if cmd.IsSet(flag) && !b.on {
			return usageError{"--" + flag + " is for --broadcast"}
		}
	}
	if b.readers < 0 {
		return usageError{"--readers is a number of readers"}
	}
	return nil
}

func (b *broadcast) open(ctx context.Context, c *zpipes.Client, pipe string) (*zpipes.Writer, error) {
	if !b.on {
		return c.OpenWriter(ctx, pipe)
	}
	cfg := zpipes.BroadcastConfig{Keep: int(b.keep), Readers: b.readers, Patience: time.Duration(b.patience)}
	return cfg.OpenBroadcast(ctx, c, pipe)
}
