package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/torture/netrig"
)

// partVar makes this program play a part in a trial: its value is a JSON task.
const partVar = "ZPIPES_TORTURE_PART"

// A task is what another process is to do.
type task struct {
	Part   string // in parts
	Broker string // a name or an endpoint
	Pipe   string
	Seed   uint64
	Fate   fate // of a victim
	Queue  zpipes.QueueConfig
	Setup  setup // of a machine
	Stint  stint // of who is measured

	// Of a broker:
	Dir     string
	MaxDisk int64
}

// parts are what other processes do. They tell what happens with say, and stay until
// their standard input ends, or until they are killed.
var parts = map[string]func(task) error{}

func playPart() int {
	var t task
	err := json.Unmarshal([]byte(os.Getenv(partVar)), &t)
	if err == nil {
		part := parts[t.Part]
		if part == nil {
			err = fmt.Errorf("there is no part %q", t.Part)
		} else {
			err = part(t)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "torture: %s: %v\n", t.Part, err)
		return 1
	}
	return 0
}

// say tells the process that started this one something, in one line.
func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// tell says something as JSON.
func tell(what any) error { return json.NewEncoder(os.Stdout).Encode(what) }

// untilToldTo returns what is closed when this process's standard input ends.
func untilToldTo() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, os.Stdin)
	}()
	return done
}

// A child is another process that plays a part.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func startChild(t task) (*child, error) { return startChildAt(nil, t) }

// startChildAt starts it on a host, or here if there is none.
func startChildAt(h *netrig.Host, t task) (*child, error) {
	encoded, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), partVar+"="+string(encoded),
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // else one that ends by itself takes a second for that under the race detector
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := cmd.Start
	if h != nil {
		start = func() error { return h.Start(cmd) }
	}
	if err := start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}, nil
}

// line is the next that the child says.
func (c *child) line() (string, error) {
	line, err := c.out.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (c *child) process() process { return processOf(c.cmd.Process.Pid) }

func (c *child) signal(s syscall.Signal) { c.cmd.Process.Signal(s) }

// pause has the child stand still.
func (c *child) pause() error {
	c.signal(syscall.SIGSTOP)
	return eventually(patience, "a process that stands still", c.process().stopped)
}

// kill ends the child at once.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	c.cmd.Wait()
}
