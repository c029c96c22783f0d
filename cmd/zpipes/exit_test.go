package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// Each error of the library has an exit status, and what it says is for people.
func TestErrors(t *testing.T) {
	op := func(what string, err error) error {
		return &zpipes.OpError{Op: what, Broker: "local", Pipe: "p", Err: err}
	}
	for _, c := range []struct {
		err        error
		code       int
		what, next string // parts of the two lines
	}{
		{op("open reader", fmt.Errorf("%w answered (%w)", zpipes.ErrNoBroker, os.ErrDeadlineExceeded)), 4, "no broker answers", "zpipes broker &"},
		{op("open queue", fmt.Errorf("%w answered in time, though one is at unix:///x (%w)", zpipes.ErrNoBroker, os.ErrDeadlineExceeded)), 4, "is there, but has not", "zpipes cluster status"},
		{op("open queue", fmt.Errorf("%w: the broker that has it, b@host, can't be reached (no route to host)", zpipes.ErrBrokerGone)), 4, "out of reach: the broker that has it", "zpipes cluster status"},
		{op("read", fmt.Errorf("%w: connection lost", zpipes.ErrBrokerGone)), 4, "is gone: connection lost", "start anew"},
		{op("start broker", fmt.Errorf("%w: x", zpipes.ErrBrokerExists)), 1, "is there already", "another name"},
		{op("open writer", zpipes.ErrPipeBusy), 3, `"p" has a writer already`, "Wait"},
		{op("open queue", zpipes.ErrPipeMode), 1, "is a stream", "zpipes write"},
		{op("open writer", zpipes.ErrPipeMode), 1, "is a queue", "zpipes send"},
		{op("open writer", zpipes.ErrTooManyPipes), 1, "too many pipes", "--max-pipes"},
		{op("open broadcast", fmt.Errorf("%w: a broadcast keeps 1 byte at most", zpipes.ErrTooManyPipes)), 1, "too many pipes", "--keep"},
		{op("open writer", fmt.Errorf("%w: readers of a broadcast wait there", zpipes.ErrPipeMode)), 1, "readers of a broadcast", "--broadcast"},
		{op("open reader", zpipes.ErrPipeBusy), 3, `"p" has a reader already`, "--broadcast"},
		{op("read", fmt.Errorf("%w: out of paper", io.ErrUnexpectedEOF)), 5, "did not finish: out of paper", "not all"},
		{op("write", fmt.Errorf("%w: enough", io.ErrClosedPipe)), 5, "left before the end: enough", "zpipes read"},
		{op("flush", &zpipes.UndeliveredError{Bytes: 7, Err: io.ErrClosedPipe}), 5, "up to 7 bytes were not delivered", "zpipes read"},
		{op("flush", fmt.Errorf("%w: a chunk of 7 bytes, where a queue takes at most 6", io.ErrClosedPipe)), 5, "refuses: a chunk of 7 bytes", "--max-pending"},
		{op("receive", io.ErrClosedPipe), 5, "deleted the queue", "Start again"},
		{op("take", io.ErrClosedPipe), 5, "deleted the queue", "Start again"},
		{op("flush", fmt.Errorf("%w: the broker can't keep it: fdatasync: input/output error", zpipes.ErrBrokerGone)), 4, "has given up the queue", "start anew"},
		{op("peek jobs", fmt.Errorf("%w: no such queue", fs.ErrNotExist)), 1, `there is no queue "p"`, "zpipes ls"},
		{op("stat", fs.ErrNotExist), 1, `there is no queue "p"`, "zpipes ls"},
		{op("status", fmt.Errorf("%w: too old", errors.ErrUnsupported)), 1, "can't do that: too old", "zpipes broker"},
		{op("ping", fmt.Errorf("%w: the broker's process has no more file descriptors for connections", fs.ErrPermission)), 1, "no more file descriptors", "ulimit -n"},
		{op("open queue", fmt.Errorf("%w: the broker can't keep it: mkdir: no space left on device", fs.ErrPermission)), 1, "no space left", "Its log says more."},
		{op("ping", fmt.Errorf("%w: user 1 may not use this broker; its BrokerConfig.AllowUIDs can allow it", fs.ErrPermission)), 1, "user 1 may not use this broker", "--allow-user"},
		{op("ping", fmt.Errorf("%w: a directory of unix:///x/s keeps user 1 out", fs.ErrPermission)), 1, "a directory of unix:///x/s keeps user 1 out", "chmod o+x"},
		{op("ping", fmt.Errorf("%w: a directory of ipc:///x/s keeps user 1 out", fs.ErrPermission)), 1, "a directory of ipc:///x/s keeps user 1 out", "chmod o+x"},
		{op("ping", fmt.Errorf("%w: x is served by user 1, a stranger; ClientConfig.TrustUIDs can allow it", fs.ErrPermission)), 1, "user 1, a stranger", "--trust-user"},
		{timeoutError{time.Second}, 124, "not done after 1s", "--timeout"},
		{op("send", context.DeadlineExceeded), 124, "deadline", ""},
		{signalError{syscall.SIGTERM}, 143, "signal: terminated", ""},
		{usageError{"what?"}, 2, "what?", "zpipes help"},
		{errors.New("else"), 1, "else", ""},
		{&zpipes.OpError{Op: "open writer", Broker: "local", Pipe: "caf\xe9", Err: zpipes.ErrPipeBusy}, 3, `the pipe $'caf\351' has a writer`, ""},
	} {
		what, next := explain(c.err)
		if code := exitCode(c.err); code != c.code || !strings.Contains(what, c.what) || !strings.Contains(next, c.next) {
			t.Errorf("%v: status %d, want %d\n%s\n%s", c.err, code, c.code, what, next)
		}
		if strings.Contains(what, "zpipes: ") || strings.Contains(what, "Config.") {
			t.Errorf("%v: %s", c.err, what)
		}
	}
	var text strings.Builder
	complain(&text, op("read", fmt.Errorf("%w: \x1b]0;pwned\a\r\nnext", io.ErrUnexpectedEOF)))
	if want := `did not finish: \x1b]0;pwned\a\r\nnext` + "\n"; !strings.Contains(text.String(), want) {
		t.Errorf("a cause with escape sequences is shown as %q", text.String())
	}
	if code := exitCode(nil); code != 0 {
		t.Error("status", code)
	}
}
