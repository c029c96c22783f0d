package main

import (
	"context"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func deleteCommand() *cli.Command {
	var timeout duration
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a queue, and what is in it",
		ArgsUsage: "QUEUE",
		Description: `Deletes the queue and all chunks in it. Whoever has it open gets an error. The exit status is
1 if there is no such queue. (A stream goes by itself when its ends have left.)`,
		Flags: []cli.Flag{timeoutFlag(&timeout)},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			name, err := oneName(cmd, "queue")
			if err != nil {
				return err
			}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				return causeOf(ctx, c.DeleteQueue(ctx, name))
			})
		},
	}
}
