package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v3"
)

// built is set by who builds a release: go build -ldflags "-X main.built=v1.2.3".
var built string

func version() string {
	if built != "" {
		return built
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the versions of zpipes, ZeroMQ and Go",
		Action: func(_ context.Context, cmd *cli.Command) error {
			return printVersion(cmd)
		},
	}
}

func printVersion(cmd *cli.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	_, err := fmt.Fprintf(output{}, "zpipes %s, %s, %s %s/%s\n",
		version(), zeroMQ(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
