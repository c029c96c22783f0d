//go:build unix && !core

package zpipes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// childEnv makes the test binary play a part in another test instead: its value
// is a JSON childTask.
const childEnv = "ZPIPES_TEST_CHILD"

func init() {
	beforeTests = func() {
		if task := os.Getenv(childEnv); task != "" {
			os.Exit(playChild(task))
		}
	}
}

// childTask is what another process is to do.
type childTask struct {
	Part       string // "broker", "reader", "writer", "sender", "receiver", or one of parts
	Broker     string // name, or where to connect to
	Pipe       string
	Data       string // for a writer: to be written and flushed
	Count      int    // bytes for a reader to read, chunks for a sender to send and flush, or for a receiver to receive
	Forever    bool   // once it is ready: a sender sends on, a receiver receives and prints a line for each chunk
	MaxPending int
	Backlog    int
	Dir        string
	Private    bool
	Rings      bool   // a broker moves every stream into a ring at once
	Quick      bool   // and has it back as soon as it is quiet
	UID        uint32 // whom it runs as; 0: the tests' own user
	Namespace  bool   // in a user namespace of its own
	AllowUIDs  []int  // BrokerConfig's
	TrustUIDs  []int  // ClientConfig's
}

// parts are those that are played in other ways than the common ones.
var parts = map[string]func(childTask) int{}

// playChild does it, says "ready" when that is done, and stays until its standard
// input ends. An open end is then left as it is.
func playChild(encoded string) int {
	var task childTask
	err := json.Unmarshal([]byte(encoded), &task)
	if play := parts[task.Part]; play != nil {
		return play(task)
	}
	ctx := context.Background()
	var c *Client
	if err == nil && task.Part != "broker" {
		c, err = ClientConfig{TrustUIDs: task.TrustUIDs}.NewClient(task.Broker)
	}
	var q *Queue
	then := func() error { return nil } // what it does once it is ready
	if err == nil {
		switch task.Part {
		case "broker":
			if moveAtOnce = task.Rings; task.Quick {
				quietTime = 0
			}
			var b *Broker
			if b, err = (BrokerConfig{MaxPending: task.MaxPending, Dir: task.Dir, Backlog: task.Backlog, Private: task.Private, AllowUIDs: task.AllowUIDs}).NewBroker(task.Broker); err == nil {
				defer b.Close()
			}
		case "reader":
			var r *Reader
			if r, err = c.OpenReader(ctx, task.Pipe); err == nil {
				_, err = io.ReadFull(r, make([]byte, task.Count))
			}
		case "writer":
			var w *Writer
			if w, err = c.OpenWriter(ctx, task.Pipe); err == nil {
				if _, err = w.WriteString(task.Data); err == nil {
					err = w.Flush()
				}
			}
		case "quitter":
			var w *Writer
			if w, err = c.OpenWriter(ctx, task.Pipe); err == nil {
				w.CloseWithError(errors.New(task.Data))
				return 0
			}
		case "sender":
			i := 0
			send := func() error {
				i++
				return q.Send(ctx, strconv.AppendInt(nil, int64(i-1), 10))
			}
			if q, err = c.OpenQueue(ctx, task.Pipe); err == nil {
				for err == nil && i < task.Count {
					err = send()
				}
			}
			if err == nil {
				err, then = q.Flush(ctx), send
			}
		case "receiver":
			if q, err = c.OpenQueue(ctx, task.Pipe); err == nil {
				for i := 0; err == nil && i < task.Count; i++ {
					_, err = q.Receive(ctx)
				}
			}
			then = func() error {
				chunk, err := q.Receive(ctx)
				fmt.Printf("%s\n", chunk)
				return err
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	if task.Forever {
		go func() {
			for err == nil {
				err = then()
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// child is another process.
type child struct {
	t     testing.TB
	task  childTask
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// startChild starts another process, which is killed at the end of the test.
func startChild(t testing.TB, task childTask) *child {
	t.Helper()
	encoded, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(encoded),
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // else one that ends by itself takes a second for that under the race detector
	cmd.Stderr = os.Stderr
	asUser(cmd, task.UID)
	if task.Namespace {
		inNamespace(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, task: task, cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	t.Cleanup(c.kill)
	return c
}

// ready waits until the process has done its part.
func (c *child) ready() *child {
	c.t.Helper()
	if line := c.line(); line != "ready" {
		c.t.Fatalf("the other process said %q, want ready", line)
	}
	return c
}

// line is the next that the process says.
func (c *child) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("the other process said %q, and then %v", line, err)
	}
	return strings.TrimSpace(line)
}

// lines yields what the process says from now on, until it is no more.
func (c *child) lines(yield func(string) bool) {
	for {
		line, err := c.out.ReadString('\n')
		if err != nil || !yield(strings.TrimSuffix(line, "\n")) {
			return
		}
	}
}

func (c *child) kill() { c.signal(syscall.SIGKILL); c.cmd.Wait() }

// pause stops the process, and waits until it has stopped.
func (c *child) pause() {
	c.t.Helper()
	c.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		c.t.Fatalf("the other process did not stop: %v", err)
	}
}

func (c *child) signal(s syscall.Signal) { c.cmd.Process.Signal(s) }
