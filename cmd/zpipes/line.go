package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
)

// A line is a command line, sorted out word by word. The command line package gets it in
// a form that leaves nothing open (all flags as --name=value, then --, then the rest),
// since it takes -n1 for three flags and a chunk that begins with a blank for none. And a
// line that is not complete yet tells what can follow.
type line struct {
	root    *cli.Command
	command *cli.Command // nil: not named yet
	flags   []string
	args    []string // from "--" on, those are a program and its arguments; see runsProgram
	wants   string   // the flag whose value is to follow, with its dashes
	literal bool     // no flags can follow
	help    bool
	version bool
}

// runsProgram says that a command takes -- PROGRAM [ARG...] behind its own arguments.
func runsProgram(c *cli.Command) bool {
	return c != nil && (c.Name == "read" || c.Name == "write" || c.Name == "listen" || c.Name == "work")
}

func parse(root *cli.Command, words []string) (*line, error) {
	l := &line{root: root}
	for _, w := range words {
		if err := l.take(w); err != nil {
			return l, err
		}
	}
	if l.wants != "" {
		return l, usageError{l.wants + " needs a value behind it"}
	}
	return l, nil
}

// canonical is the line for the command line package.
func (l *line) canonical() []string {
	switch {
	case l.version:
		return []string{l.root.Name, "version"}
	case l.help && l.command != nil:
		return []string{l.root.Name, "help", l.command.Name}
	case l.help:
		return []string{l.root.Name, "help"}
	case l.command == nil:
		return []string{l.root.Name}
	}
	return slices.Concat([]string{l.root.Name, l.command.Name}, l.flags, []string{"--"}, l.args)
}

func (l *line) take(word string) error {
	switch {
	case l.wants != "":
		flag := l.wants
		l.wants = ""
		return l.set(flag, word)
	case l.literal:
		l.args = append(l.args, word)
	case word == "--":
		l.literal = true
		if runsProgram(l.command) && len(l.args) > 0 {
			l.args = append(l.args, word)
		}
	case strings.HasPrefix(word, "--"):
		name, value, given := strings.Cut(word, "=")
		f := l.lookup(name[2:])
		switch {
		case f == nil:
			return l.unknown(name)
		case !isBool(f) && !given:
			l.wants = name
			return nil
		case !given:
			value = "true"
		}
		return l.set(name, value)
	case len(word) > 1 && word[0] == '-':
		return l.takeShort(word)
	case l.version:
		return usageError{"--version takes no argument such as " + quoted(word)}
	case l.command == nil:
		if l.command = commandOf(l.root, word); l.command == nil {
			return usageError{fmt.Sprintf("there is no command %s%s", quoted(word), similar(l.root, word))}
		}
	default:
		l.args = append(l.args, word)
	}
	return nil
}

// takeShort takes flags of one letter, of which the last may have its value behind it.
func (l *line) takeShort(word string) error {
	if name, _, _ := strings.Cut(word[1:], "="); len(name) > 1 && l.lookup(name) != nil {
		return usageError{fmt.Sprintf("%s has two dashes: --%s", quoted(word), name)}
	}
	for i := 1; i < len(word); i++ {
		flag := "-" + word[i:i+1]
		f := l.lookup(flag[1:])
		rest := word[i+1:]
		switch {
		case f == nil:
			return l.unknown(word)
		case isBool(f):
			if err := l.set(flag, "true"); err != nil {
				return err
			}
			continue
		case rest == "":
			l.wants = flag
			return nil
		}
		return l.set(flag, strings.TrimPrefix(rest, "="))
	}
	return nil
}

func (l *line) set(flag, value string) error {
	name := strings.TrimLeft(flag, "-")
	f := l.lookup(name)
	on, err := strconv.ParseBool(value)
	switch {
	case isBool(f) && err != nil:
		return usageError{fmt.Sprintf("%s is true or false, not %s", flag, quoted(value))}
	case name == "help" || name == "h":
		l.help = on
	case name == "version":
		l.version = on
	case value == "" && f.Names()[0] == "broker":
		return usageError{flag + ": the name is empty"}
	case value == "": // most often a variable that is not set
		return usageError{flag + ": its value is empty"}
	default:
		l.flags = append(l.flags, "--"+name+"="+value)
	}
	return nil
}

var helpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}}

// known are the flags that may stand here.
func (l *line) known() []cli.Flag {
	flags := []cli.Flag{helpFlag}
	for _, f := range l.root.Flags {
		if local, ok := f.(cli.LocalFlag); l.command == nil || !ok || !local.IsLocal() {
			flags = append(flags, f)
		}
	}
	if l.command != nil {
		flags = append(flags, l.command.Flags...)
	}
	return flags
}

func (l *line) lookup(name string) cli.Flag {
	for _, f := range l.known() {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

func (l *line) unknown(word string) error {
	text := "there is no flag " + quoted(word)
	name := strings.TrimLeft(word, "-")
	if flag := cli.SuggestFlag(l.known(), name, false); len(name) > 1 && len(flag) > 3 && flag[2] == name[0] {
		text += fmt.Sprintf("; did you mean %s?", flag)
	} else if len(l.args) > 0 {
		text += "; put -- before what begins with - and is none"
	}
	return usageError{text}
}

func commandOf(root *cli.Command, name string) *cli.Command {
	for _, c := range root.Commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func similar(root *cli.Command, name string) string {
	if s := strings.TrimSpace(cli.SuggestCommand(root.Commands, name)); s != "" && name != "" && s[0] == name[0] {
		return fmt.Sprintf("; did you mean %q?", s)
	}
	return ""
}

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Aliases:   []string{"h"},
		Usage:     "list the commands, or explain one",
		ArgsUsage: "[COMMAND]",
		Action: func(ctx context.Context, cmd *cli.Command) error {
			root := cmd.Root()
			switch name := cmd.Args().First(); {
			case cmd.NArg() > 1:
				return usageError{fmt.Sprintf("help explains one command, not %d", cmd.NArg())}
			case cmd.NArg() == 0:
				return cli.ShowRootCommandHelp(root)
			case commandOf(root, name) == nil:
				return usageError{fmt.Sprintf("there is no command %s%s", quoted(name), similar(root, name))}
			default:
				return cli.ShowCommandHelp(ctx, root, name)
			}
		},
	}
}
