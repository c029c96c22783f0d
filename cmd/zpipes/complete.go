package main

import (
	"bufio"
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

// The scripts have the shell ask "zpipes __complete SHELL ..." what could follow. They
// evaluate nothing of what is on the line, nor of the names that they get.
//
//go:embed completion
var completion embed.FS

var shells = []string{"bash", "fish", "zsh"}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands, flags and names in bash, zsh or fish",
		ArgsUsage: strings.Join(shells, "|"),
		Description: `For bash, put into ~/.bashrc:    source <(zpipes completion bash)
For zsh, into ~/.zshrc, behind compinit:    source <(zpipes completion zsh)
For fish, into ~/.config/fish/config.fish:    zpipes completion fish | source`,
		Action: func(_ context.Context, cmd *cli.Command) error {
			shell, err := oneName(cmd, "shell")
			if err != nil {
				return err
			}
			if !slices.Contains(shells, shell) {
				return usageError{fmt.Sprintf("there is no script for %s, but for bash, zsh and fish", quoted(shell))}
			}
			script, err := completion.ReadFile("completion/zpipes." + shell)
			if err != nil {
				return err
			}
			_, err = output{}.Write(script)
			return err
		},
	}
}

// completeName is a command that is in no list.
const completeName = "__complete"

// soon is how long somebody who has pressed TAB waits for a broker.
const soon = 300 * time.Millisecond

// complete prints what could follow: the word files where those can, or else names, and
// then each word. For bash args are the line up to the cursor and COMP_WORDBREAKS, and the
// answer is words as they are to be typed, in a line each; for the others the words on the
// line, and words that end with NUL, which the shell quotes by itself.
func complete(args []string) {
	time.AfterFunc(2*soon, func() { os.Exit(0) }) // whatever it is that takes so long
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	switch {
	case len(args) == 3 && args[0] == "bash":
		completeBash(out, args[1], args[2])
	case len(args) > 1 && (args[0] == "zsh" || args[0] == "fish"):
		last := len(args) - 1
		files, words := candidates(args[1:last], args[last])
		fmt.Fprintf(out, "%s\x00", kindOf(files))
		for _, w := range words {
			// To fish, a tab ends the word, and what begins with ~ is a directory.
			if args[0] == "zsh" || !strings.Contains(w, "\t") && !strings.HasPrefix(w, "~") {
				fmt.Fprintf(out, "%s\x00", w)
			}
		}
	}
}

func kindOf(files bool) string {
	if files {
		return "files"
	}
	return "names"
}

func completeBash(out io.Writer, text, breaks string) {
	l := readBashLine(text, breaks)
	if l.redirect {
		fmt.Fprintln(out, kindOf(true))
		return
	}
	if l.unknown || len(l.words) == 0 {
		return
	}
	files, words := candidates(l.words[1:], l.current)
	fmt.Fprintln(out, kindOf(files))
	for _, w := range words {
		if strings.HasPrefix(w, l.current) {
			if offer, ok := l.offer(w); ok {
				fmt.Fprintln(out, offer)
			}
		}
	}
}

// fileFlags are those whose value is a file.
var fileFlags = []string{"--config", "--key", "--cluster", "--public", "--dir", "--http-token-file", "--http-cert", "--http-key"}

// queueCommands are those whose first argument is a queue.
var queueCommands = []string{"send", "receive", "work", "jobs", "peek", "purge", "redrive", "delete"}

// candidates says what the word behind others could be: files, or one of words. Those
// need not begin with what there is of it.
func candidates(before []string, current string) (files bool, words []string) {
	l := &line{root: app(new(bool))}
	for _, w := range before {
		l.take(w) // a mistake before does not matter here
	}
	n := len(l.args)
	name := ""
	if l.command != nil {
		name = l.command.Name
	}
	switch {
	case l.wants != "":
		return slices.Contains(fileFlags, l.wants), nil
	case slices.Contains(l.args, "--") && runsProgram(l.command):
		return true, nil
	case !l.literal && slices.ContainsFunc(fileFlags, func(f string) bool { return strings.HasPrefix(current, f+"=") }):
		return true, nil
	case !l.literal && strings.HasPrefix(current, "-"):
		for _, f := range l.known() {
			for _, name := range f.Names() {
				if len(name) > 1 {
					words = append(words, "--"+name)
				}
			}
		}
	case name == "", name == "help" && n == 0:
		for _, c := range l.root.Commands {
			words = append(words, c.Name)
		}
	case name == "completion" && n == 0:
		words = shells
	case name == "cluster" && n == 0:
		words = []string{"status", "leave"}
	case (name == "read" || name == "write") && n == 0:
		words = l.pipes(zpipes.ModeStream, zpipes.ModeBroadcast)
	case slices.Contains(queueCommands, name) && n == 0:
		words = l.pipes(zpipes.ModeQueue)
	case (name == "connect" || name == "listen") && n == 0, name == "forward" && n < 2:
		words = l.pipes(zpipes.ModeListener)
	case name == "write", name == "repair":
		files = true
	}
	return files, words
}

// pipes are the names of those that the broker on the line has, if it answers soon.
func (l *line) pipes(modes ...zpipes.Mode) (names []string) {
	l.command.Action = func(ctx context.Context, cmd *cli.Command) error {
		c, err := connect(cmd, duration(soon))
		if err != nil {
			return err
		}
		defer c.Close()
		status, err := c.Status(ctx)
		for _, p := range status.Pipes {
			if slices.Contains(modes, p.Mode) && (l.literal || !strings.HasPrefix(p.Name, "-")) {
				names = append(names, p.Name)
			}
		}
		return err
	}
	l.help, l.version = false, false
	l.root.Writer, l.root.ErrWriter = io.Discard, io.Discard
	l.root.Run(context.Background(), l.canonical())
	return names
}
