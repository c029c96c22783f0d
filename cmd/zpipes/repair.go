package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func repairCommand() *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "save what is left of corrupt durable queues",
		ArgsUsage: "DIRECTORY",
		Description: `Saves the jobs that can still be read in the DIRECTORY of a broker (--dir) that is not running. What
is lost may have said that a job was done, so some jobs may come again. What was there is put
aside, in a directory that is named, and queues that are whole are left alone.`,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() != 1 {
				return usageError{"which directory? zpipes repair DIRECTORY"}
			}
			repaired, err := zpipes.RepairQueues(cmd.Args().First())
			var text strings.Builder
			unknown := 0
			for _, r := range repaired {
				if r.Name == "" {
					unknown++
					fmt.Fprintf(&text, "%s: nothing says which queue this is: %s\n", visible(r.Dir), harmless(r.Bad[0].Error()))
					continue
				}
				fmt.Fprintf(&text, "%s: %d jobs are saved; what was there is in %s\n", quoted(r.Name), r.Jobs, visible(r.Aside))
				for _, bad := range r.Bad {
					fmt.Fprintf(&text, "  %s\n", harmless(bad.Error()))
				}
			}
			if err == nil && len(repaired) == 0 {
				text.WriteString("all queues are whole\n")
			}
			if unknown > 0 {
				err = errors.Join(err, fmt.Errorf("%s not repaired", showMany(unknown, "queue")))
			}
			_, werr := output{}.Write([]byte(text.String()))
			return errors.Join(err, werr)
		},
	}
}
