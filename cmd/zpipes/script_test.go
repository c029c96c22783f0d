//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/zpipes/zpipes"
)

// The scripts run the command as processes, which are this very executable.
func TestMain(m *testing.M) {
	flag.Set("test.parallel", "6") // they wait more than they work
	// Under nohup, what they start would ignore it, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	testscript.Main(m, map[string]func(){"zpipes": main, "look": look, "listen": listen})
}

// patience is how long a condition may take to come true on a busy machine.
const patience = 20 * time.Second

var brokers atomic.Int64

func scripts(t *testing.T, p testscript.Params, prepare ...func(*testscript.Env) error) {
	t.Helper()
	p.Setup = func(e *testscript.Env) error {
		// A broker of its own for each script, which the commands find by themselves.
		e.Setenv("ZPIPES_BROKER", fmt.Sprintf("test-%d-%d", os.Getpid(), brokers.Add(1)))
		e.Setenv("GORACE", "atexit_sleep_ms=0") // else each process of a test with -race takes a second to end
		e.Values[childrenKey{}] = make(children)
		for _, f := range prepare {
			if err := f(e); err != nil {
				return err
			}
		}
		return nil
	}
	p.Cmds = map[string]func(*testscript.TestScript, bool, []string){
		"broker":  cmdBroker,
		"spawn":   cmdSpawn,
		"say":     cmdSay,
		"close":   cmdClose,
		"signal":  cmdSignal,
		"reap":    cmdReap,
		"status":  cmdStatus,
		"await":   cmdAwait,
		"listed":  cmdListed,
		"random":  cmdRandom,
		"systemd": cmdSystemd,
	}
	testscript.Run(t, p)
}

func TestScripts(t *testing.T) { scripts(t, testscript.Params{Dir: "testdata/script"}) }

// A child is a process that a script has started.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser // nil: it has no more to read
	hold *os.File       // keeps a pipe open that nobody reads
	done chan struct{}
}

type childrenKey struct{}
type children map[string]*child

func childrenOf(ts *testscript.TestScript) children { return ts.Value(childrenKey{}).(children) }

func childOf(ts *testscript.TestScript, name string) *child {
	c := childrenOf(ts)[name]
	if c == nil {
		ts.Fatalf("there is no %q", name)
	}
	return c
}

// broker [FLAG...]: starts a broker and waits until it is up.
func cmdBroker(ts *testscript.TestScript, _ bool, args []string) {
	cmdSpawn(ts, false, append([]string{"broker", "zpipes", "broker"}, args...))
	cmdAwait(ts, false, []string{"broker.out", "try: "})
}

// spawn NAME [<FILE | <-] [>-] PROGRAM [ARG...]: starts a process. It writes to the
// files NAME.out and NAME.err, or with >- into a pipe that nobody reads; it reads the
// file, or with <- what say gives it.
func cmdSpawn(ts *testscript.TestScript, _ bool, args []string) {
	c := &child{done: make(chan struct{})}
	name, args := args[0], args[1:]
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer func() { out.Close() }()
	errs, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer errs.Close()
	var in *os.File
	for ; strings.HasPrefix(args[0], "<") || args[0] == ">-"; args = args[1:] {
		switch args[0] {
		case ">-":
			out.Close()
			c.hold, out, err = os.Pipe()
		case "<-":
			var w *os.File
			in, w, err = os.Pipe()
			c.in = w
		default:
			in, err = os.Open(ts.MkAbs(args[0][1:]))
		}
		ts.Check(err)
	}
	if in != nil {
		defer in.Close()
	}
	program := lookPath(ts, args[0])
	c.cmd = &exec.Cmd{Path: program, Args: args, Dir: ts.MkAbs("."), Env: environ(ts), Stdin: in, Stdout: out, Stderr: errs}
	if in == nil {
		c.cmd.Stdin = nil
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what it starts ends with it
	ts.Check(c.cmd.Start())
	go func() {
		c.cmd.Wait()
		close(c.done)
	}()
	childrenOf(ts)[name] = c
	ts.Defer(func() {
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.done
		if c.hold != nil {
			c.hold.Close()
		}
		text, _ := os.ReadFile(ts.MkAbs(name + ".err"))
		ts.Logf("[%s: %v]\n%s", name, c.cmd.ProcessState, text)
	})
}

func lookPath(ts *testscript.TestScript, program string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path
		}
	}
	ts.Fatalf("there is no program %q", program)
	return ""
}

func environ(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"PATH", "GORACE", "ZPIPES_BROKER", "NOTIFY_SOCKET", "WORK", "HOME", "TMPDIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// say NAME TEXT: gives a line to the standard input of a process.
func cmdSay(ts *testscript.TestScript, _ bool, args []string) {
	_, err := fmt.Fprintln(childOf(ts, args[0]).in, args[1])
	ts.Check(err)
}

// close NAME: ends the standard input of a process; with -out, nobody can read its
// standard output any more.
func cmdClose(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "-out" {
		ts.Check(childOf(ts, args[1]).hold.Close())
		return
	}
	ts.Check(childOf(ts, args[0]).in.Close())
}

// signal NAME SIGNAL: sends a signal, and for STOP waits until it has stopped.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	c := childOf(ts, args[0])
	ts.Check(c.cmd.Process.Signal(signals[args[1]]))
	if args[1] == "STOP" {
		eventuallyWithin(ts, patience, args[0]+" stops", func() bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
			return strings.Contains(string(stat), ") T ")
		})
	}
}

// reap NAME STATUS [WITHIN]: waits until a process has ended with that exit status.
func cmdReap(ts *testscript.TestScript, _ bool, args []string) {
	c := childOf(ts, args[0])
	within := patience
	if len(args) > 2 {
		var err error
		within, err = time.ParseDuration(args[2])
		ts.Check(err)
	}
	select {
	case <-c.done:
	case <-time.After(within):
		for _, c := range childrenOf(ts) { // what each does is in the test's log then
			if filepath.Base(c.cmd.Path) == "zpipes" && c.cmd.Process.Signal(syscall.SIGQUIT) == nil {
				select {
				case <-c.done:
				case <-time.After(time.Second): // it stands still
				}
			}
		}
		ts.Fatalf("%s has not ended within %v", args[0], within)
	}
	if got := fmt.Sprint(c.cmd.ProcessState.ExitCode()); got != args[1] {
		text, _ := os.ReadFile(ts.MkAbs(args[0] + ".err"))
		ts.Fatalf("%s ended with status %s, want %s\n%s", args[0], got, args[1], text)
	}
	if text, _ := os.ReadFile(ts.MkAbs(args[0] + ".err")); strings.Contains(string(text), "goroutine ") {
		ts.Fatalf("%s shows a stack", args[0])
	}
}

// status CODE PROGRAM [ARG...]: runs a program that ends with that exit status.
func cmdStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		got = fmt.Sprint(exit.ExitCode())
	} else {
		ts.Check(err)
	}
	if got != args[0] {
		ts.Fatalf("%s ended with status %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// await FILE PATTERN: waits until the file has the pattern in it.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[1])
	eventuallyWithin(ts, patience, fmt.Sprintf("%s has %s", args[0], args[1]), func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && pattern.Match(text)
	})
}

// listed PATTERN: waits until zpipes ls shows the pattern; ! listed: until it does not.
func cmdListed(ts *testscript.TestScript, neg bool, args []string) {
	c, err := zpipes.NewClient(ts.Getenv("ZPIPES_BROKER"))
	ts.Check(err)
	defer c.Close()
	pattern := regexp.MustCompile("(?m)" + args[0])
	eventuallyWithin(ts, patience, "zpipes ls shows "+args[0], func() bool {
		status, err := c.Status(context.Background())
		ts.Check(err)
		var text strings.Builder
		list(&text, status)
		return pattern.MatchString(text.String()) != neg
	})
}

// random FILE SIZE: makes a file.
func cmdRandom(ts *testscript.TestScript, _ bool, args []string) {
	n, err := parseSize(args[1])
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.Reader, int64(n))
	ts.Check(err)
	ts.Check(f.Close())
}
