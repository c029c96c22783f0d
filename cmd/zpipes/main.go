// Command zpipes is named pipes for the shell: a broker, and the ends of its pipes and
// queues, each a process that reads its standard input or writes its standard output.
//
//	zpipes broker &
//	zpipes read greetings &
//	echo hello | zpipes write greetings
//
// See docs/SHELL.md, and zpipes help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
)

func main() {
	// The live heap is tiny, so that the collector would run all the time.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	// Instead of the signal there is an error to deal with: the writer is to be told. To
	// ignore the signal would have the programs that this one starts ignore it, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(os.Args))
}

func run(args []string) (code int) {
	defer func() {
		if p := recover(); p != nil {
			complain(os.Stderr, hintError{fmt.Errorf("internal error: %v", p), "This is a bug of zpipes; please report it."})
			code = exitError
		}
	}()
	if len(args) > 1 && args[1] == completeName {
		complete(args[2:])
		return 0
	}
	ctx, stop := withSignals(context.Background())
	defer stop()
	var started bool
	root := app(&started)
	l, err := parse(root, args[1:])
	if err == nil {
		err = root.Run(ctx, l.canonical())
	}
	var usage usageError
	if err != nil && !started && !errors.As(err, &usage) {
		err = usageError{parserSays(err)}
	}
	if err == nil {
		err = output{}.failure()
	}
	if errors.Is(err, errNoOutput) {
		return 0 // as head has it, which wants no more
	}
	if err != nil && !errors.As(err, new(toldError)) {
		lastWord(ctx, err)
	}
	return exitCode(err)
}

// wrongValue is how the command line package says that it can't read the value of a flag.
var wrongValue = regexp.MustCompile(`(?s)^invalid value "(?:[^"\\]|\\.)*" for flag -(\S+): (.*)$`)

func parserSays(err error) string {
	text := strings.TrimSuffix(err.Error(), "\n")
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return dashed(m[1]) + ": " + m[2]
	}
	return text
}

const about = `Programs on one machine find each other by the name of a pipe; a broker, which any of them
may run, holds the pipes. A pipe has one writer, one reader, and an end; a broadcast, any
number of readers that each get all. A queue has any number of senders and receivers.

  zpipes broker &
  zpipes read greetings &
  echo hello | zpipes write greetings

Exit status:
  0 done    1 error    2 wrong usage    3 the pipe is busy    4 no broker
  5 the other end vanished    124 timeout    129, 130, 143 ended by HUP, INT, TERM`

// gentle are the commands that have something to bring to an end, or to give back, when a
// signal has told them to go. Of the others none waits for who reads its output.
var gentle = []string{"broker", "write", "read", "send", "receive", "work", "connect", "listen", "forward"}

// app is the command line. started is set as soon as a command has begun: errors before
// that are the command line's.
func app(started *bool) *cli.Command {
	root := &cli.Command{
		Name:        "zpipes",
		Usage:       "named pipes for the shell",
		Description: about,
		HideVersion: true, // there is a command
		Writer:      output{},
		Flags: []cli.Flag{&cli.StringFlag{
			Name: "broker", Aliases: []string{"b"}, Value: defaultBroker, Sources: cli.EnvVars("ZPIPES_BROKER"),
			Usage: "`NAME` or endpoint of the broker",
		}, &cli.GenericFlag{
			Name: "trust-user", Value: new(users), Sources: cli.EnvVars("ZPIPES_TRUST_USER"),
			Usage: "use a broker that `USER` (name or number) runs; else only root's and one's own",
		}, &cli.StringFlag{
			Name: "key", Sources: cli.EnvVars("ZPIPES_KEY"),
			Usage: "encrypt tcp with the secret in `FILE`, which zpipes key makes",
		}, &cli.StringFlag{
			Name: "broker-key", Sources: cli.EnvVars("ZPIPES_BROKER_KEY"),
			Usage: "the broker's public `KEY`, where --key is not its secret but one of your own",
		}, &cli.BoolFlag{
			Name: "version", Local: true, HideDefault: true, Usage: "the same as the command version",
		}},
		Commands: []*cli.Command{
			brokerCommand(), writeCommand(), readCommand(), sendCommand(), receiveCommand(), workCommand(),
			jobsCommand(), peekCommand(), purgeCommand(), redriveCommand(),
			connectCommand(), listenCommand(), forwardCommand(),
			deleteCommand(), repairCommand(), lsCommand(), topCommand(), pingCommand(), clusterCommand(), keyCommand(), benchCommand(),
			completionCommand(), versionCommand(), helpCommand(),
		},
		ExitErrHandler:  func(context.Context, *cli.Command, error) {}, // run does it
		OnUsageError:    func(_ context.Context, _ *cli.Command, err error, _ bool) error { return err },
		HideHelpCommand: true, // there is one of our own
		Action: func(_ context.Context, cmd *cli.Command) error {
			cmd.Root().Writer = os.Stderr
			cli.ShowRootCommandHelp(cmd)
			return usageError{"which command?"}
		},
	}
	for _, c := range root.Commands {
		act := c.Action
		c.HideHelpCommand = true // a pipe may be called help
		c.OnUsageError = root.OnUsageError
		c.Action = func(ctx context.Context, cmd *cli.Command) error {
			*started = true
			if !slices.Contains(gentle, c.Name) {
				defer context.AfterFunc(ctx, func() {
					time.Sleep(spoolTime)
					os.Exit(exitCode(context.Cause(ctx)))
				})()
			}
			return act(ctx, cmd)
		}
	}
	return root
}
