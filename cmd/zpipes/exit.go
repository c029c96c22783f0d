package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// Exit statuses. Signals are 128 and the signal's number, as the shell has it.
const (
	exitError    = 1
	exitUsage    = 2
	exitBusy     = 3
	exitNoBroker = 4
	exitVanished = 5
	exitTimeout  = 124
	exitSignal   = 128
)

// A usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// A timeoutError is the end of the time that --timeout gave.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("not done after %v", e.after) }

// A signalError is a signal that ended the command.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "ended by a signal: " + e.signal.String() }

// A hintError says in its own words what to do next.
type hintError struct {
	err  error
	hint string
}

func (e hintError) Error() string { return e.err.Error() }
func (e hintError) Unwrap() error { return e.err }

// A toldError is on standard error by now.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var timeout timeoutError
	var sig signalError
	op := opOf(err)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage), errors.Is(err, zpipes.ErrBadName) && op != nil && op.Op != "start broker":
		return exitUsage
	case errors.As(err, &sig):
		return exitSignal + int(sig.signal)
	case errors.Is(err, zpipes.ErrNoBroker), errors.Is(err, zpipes.ErrBrokerGone):
		return exitNoBroker // even if it was the time that ended the waiting for it
	case errors.As(err, &timeout), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, zpipes.ErrPipeBusy):
		return exitBusy
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, zpipes.ErrTooSlow):
		return exitVanished
	}
	return exitError
}

// opOf finds the library's error in err; nil if there is none. Those of connections are the
// net package's, whose Op becomes one of ours.
func opOf(err error) *zpipes.OpError {
	var op *zpipes.OpError
	var n *net.OpError
	switch {
	case errors.As(err, &op):
		return op
	case errors.As(err, &n):
		if addr, ok := n.Addr.(zpipes.Addr); ok {
			return &zpipes.OpError{Op: "connection: " + n.Op, Broker: addr.Broker, Pipe: addr.Name, Err: n.Err}
		}
	}
	return nil
}

// complain says what went wrong, and in a second line what to do next.
func complain(w io.Writer, err error) {
	what, next := explain(err)
	text := "zpipes: " + harmless(what) + "\n"
	if next != "" {
		text += "  " + harmless(next) + "\n"
	}
	io.WriteString(w, text)
}

// lastWord is complain on standard error; but a program that has been told to end does not
// wait for who reads that, and maybe never will.
func lastWord(ctx context.Context, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		complain(os.Stderr, err)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(spoolTime):
	}
}

// tell is lastWord for one who has to wait for others before the end.
func tell(ctx context.Context, err error) error {
	lastWord(ctx, err)
	return toldError{err}
}

func explain(err error) (what, next string) {
	var usage usageError
	var hint hintError
	op := opOf(err)
	what = strings.ReplaceAll(strings.TrimPrefix(err.Error(), "zpipes: "), "\n", "; ")
	switch {
	case errors.As(err, &usage):
		return what, "See: zpipes help"
	case errors.Is(err, zpipes.ErrBadName) && op != nil && op.Op != "start broker":
		return strings.TrimPrefix(op.Err.Error(), zpipes.ErrBadName.Error()+": "), "See: zpipes help"
	case errors.As(err, &hint):
		return what, hint.hint
	case op != nil:
		what, next = explainOp(err, op)
	}
	var left *zpipes.UndeliveredError
	if errors.As(err, &left) && left.Bytes > 0 {
		what += fmt.Sprintf("; up to %d bytes were not delivered", left.Bytes)
	}
	var timeout timeoutError
	if errors.As(err, &timeout) {
		next = "Give it more time with --timeout."
	}
	return what, next
}

// queueOps are what is done with a queue that is open, beside what says so.
var queueOps = []string{"send", "receive", "take", "done", "return", "reject", "extend"}

// explainOp finds words for the errors of the library.
func explainOp(err error, op *zpipes.OpError) (what, next string) {
	connection := strings.HasPrefix(op.Op, "connection: ")
	queue := strings.Contains(op.Op, "queue") || strings.Contains(op.Op, "jobs") || slices.Contains(queueOps, op.Op)
	switch {
	case errors.Is(err, zpipes.ErrNoBroker) && strings.Contains(op.Err.Error(), "answered in time, though"):
		return fmt.Sprintf("the broker %q is there, but has not answered in time", op.Broker),
			"If it belongs to a cluster, another broker may be out of reach: zpipes cluster status. Else try again."
	case errors.Is(err, zpipes.ErrNoBroker):
		what = fmt.Sprintf("no broker answers at %q", op.Broker)
		if _, why, ok := strings.Cut(op.Err.Error(), "nobody serves it: "); ok && strings.HasPrefix(op.Broker, "tcp:") {
			what += ": " + harmless(strings.TrimSuffix(why, ")"))
		}
		return what, startBroker(op.Broker)
	case errors.Is(err, zpipes.ErrBrokerGone) && strings.Contains(op.Err.Error(), "can't be reached"):
		return "another broker of the cluster is out of reach: " + detail(op.Err),
			"zpipes cluster status says more, and docs/MACHINES.md what to look at."
	case errors.Is(err, zpipes.ErrBrokerGone) && strings.Contains(op.Err.Error(), "can't keep it"):
		return fmt.Sprintf("the broker %q has given up the queue %s for now: %v", op.Broker, quoted(op.Pipe), detail(op.Err)),
			"It reads again what is on its disk, as all is that was confirmed, and its log says more; start anew."
	case errors.Is(err, zpipes.ErrBrokerGone):
		return fmt.Sprintf("the broker %q is gone: %v", op.Broker, detail(op.Err)),
			"When one runs again (zpipes ping tells), start anew; what it held is lost, but for durable queues."
	case errors.Is(err, fs.ErrPermission) && strings.Contains(op.Err.Error(), "served by user"):
		return detail(op.Err), "If its user may have your data: --trust-user USER or ZPIPES_TRUST_USER."
	case errors.Is(err, fs.ErrPermission) && keyAdvice(op.Err) != "":
		return detail(op.Err), keyAdvice(op.Err)
	case strings.Contains(op.Err.Error(), "; BrokerConfig.Key is needed"):
		return detail(op.Err), "Make a key (zpipes key >FILE), and give it: --key FILE"
	case errors.Is(err, fs.ErrPermission) && strings.Contains(op.Err.Error(), ": a directory of "):
		return detail(op.Err), "Who owns it can let you pass: chmod o+x, or a group's right, for each directory above the socket."
	case errors.Is(err, fs.ErrPermission) && strings.Contains(op.Err.Error(), "until it is repaired"):
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)),
			"Who runs it can end it, save what is left by zpipes repair DIRECTORY (its --dir), and start it again."
	case errors.Is(err, fs.ErrPermission) && strings.Contains(op.Err.Error(), "has no more file descriptors"):
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)),
			"Try again when others have gone. Who runs it can give it more: ulimit -n, or LimitNOFILE of its unit."
	case errors.Is(err, fs.ErrPermission) && (strings.Contains(op.Err.Error(), "can't be used now") || strings.Contains(op.Err.Error(), "the broker can't keep it")):
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)), "Its log says more."
	case errors.Is(err, fs.ErrPermission) && op.Op != "start broker":
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)),
			"Who runs it can let you in: zpipes broker --allow-user USER"
	case errors.Is(err, zpipes.ErrBrokerExists):
		return fmt.Sprintf("a broker %q is there already, or somebody at its endpoint: %v", op.Broker, op.Err),
			"Use that one (zpipes ls shows what it holds), or give yours another name or --listen."
	case errors.Is(err, zpipes.ErrTooSlow):
		return fmt.Sprintf("this reader of the broadcast %s was left behind: %v", quoted(op.Pipe), detail(op.Err)),
			"What came before is whole. Read faster, or give the writer more --patience."
	case errors.Is(err, zpipes.ErrPipeBusy) && op.Op == "open broadcast":
		return fmt.Sprintf("the pipe %s has a writer already", quoted(op.Pipe)),
			"Wait until that one is done (zpipes ls shows it), or take another name."
	case errors.Is(err, zpipes.ErrPipeBusy) && op.Op == "open reader":
		return fmt.Sprintf("the pipe %s has a reader already", quoted(op.Pipe)),
			"Wait until that one is done (zpipes ls shows it), or take another name. For many readers there are zpipes write --broadcast, and queues (zpipes send, zpipes receive)."
	case errors.Is(err, zpipes.ErrPipeBusy):
		return fmt.Sprintf("the pipe %s has a %s already", quoted(op.Pipe), strings.TrimPrefix(op.Op, "open ")),
			"Wait until that one is done (zpipes ls shows it), take another name, or use a queue (zpipes send, zpipes receive)."
	case errors.Is(err, zpipes.ErrTooLarge):
		return strings.TrimPrefix(err.Error(), "zpipes: "),
			"Start the broker with a larger --max-pending (and --max-message), or send a name, and the bytes by zpipes write."
	case errors.Is(err, zpipes.ErrNoListener):
		return "nobody listens at " + quoted(op.Pipe),
			fmt.Sprintf("Start a listener: zpipes listen %s -- PROGRAM    zpipes ls shows those that there are.", visible(op.Pipe))
	case errors.Is(err, zpipes.ErrPipeMode) && connection:
		return fmt.Sprintf("%s is a stream or a queue, and takes no connections", quoted(op.Pipe)), "Take another name; zpipes ls shows what there is."
	case errors.Is(err, io.ErrUnexpectedEOF) && connection:
		return fmt.Sprintf("the other side of %s did not finish: %v", quoted(op.Pipe), detail(op.Err)),
			"What came from there is not all."
	case errors.Is(err, io.ErrClosedPipe) && strings.Contains(op.Err.Error(), "where a queue takes at most"):
		return fmt.Sprintf("the broker that has %s refuses: %v", quoted(op.Pipe), detail(op.Err)),
			"It is another one of the cluster: start all with the same --max-pending and --max-message."
	case errors.Is(err, io.ErrClosedPipe) && connection:
		return fmt.Sprintf("the other side of %s did not read all: %v", quoted(op.Pipe), detail(op.Err)), ""
	case errors.Is(err, zpipes.ErrPipeMode) && strings.Contains(op.Err.Error(), "listens there"):
		return fmt.Sprintf("somebody listens for connections at %s", quoted(op.Pipe)), "Use zpipes connect for it, or another name."
	case errors.Is(err, zpipes.ErrPipeMode) && queue && strings.Contains(op.Err.Error(), "broadcast"):
		return fmt.Sprintf("%s is a broadcast, not a queue", quoted(op.Pipe)), "Use zpipes read for it, or another name."
	case errors.Is(err, zpipes.ErrPipeMode) && queue:
		if why := detail(op.Err); strings.Contains(why, "is not durable") {
			return fmt.Sprintf("%s can't be durable: %s", quoted(op.Pipe), why), "Take another name, or zpipes delete it first."
		} else if strings.Contains(why, "durable") || strings.Contains(why, "keeps no queues") {
			return fmt.Sprintf("%s can't be durable: %s", quoted(op.Pipe), why), "Start the broker with --dir DIRECTORY."
		}
		return fmt.Sprintf("%s is a stream, not a queue", quoted(op.Pipe)), "Use zpipes write and zpipes read for it, or another name."
	case errors.Is(err, zpipes.ErrPipeMode) && strings.Contains(op.Err.Error(), "readers of a broadcast"):
		return fmt.Sprintf("readers of a broadcast wait at %s for its writer", quoted(op.Pipe)), "Use zpipes write --broadcast for it, or another name."
	case errors.Is(err, zpipes.ErrPipeMode):
		return fmt.Sprintf("%s is a queue, not a stream", quoted(op.Pipe)), "Use zpipes send and zpipes receive for it, or another name."
	case errors.Is(err, fs.ErrNotExist) && op.Pipe != "" && (queue || op.Op == "stat"):
		return fmt.Sprintf("there is no queue %s", quoted(op.Pipe)), "zpipes ls shows those that there are."
	case errors.Is(err, zpipes.ErrTooManyPipes) && strings.Contains(op.Err.Error(), "keep"):
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)),
			"Give a smaller --keep, or start the broker with a larger --max-pending."
	case errors.Is(err, zpipes.ErrTooManyPipes):
		return fmt.Sprintf("the broker %q refuses: %v", op.Broker, detail(op.Err)),
			"Close some, or start it with a larger --max-pipes, or per_client or per_user in its config file."
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("the writer of %s did not finish: %v", quoted(op.Pipe), detail(op.Err)),
			"What was read is not all; have it written again."
	case errors.Is(err, io.ErrClosedPipe) && queue:
		return fmt.Sprintf("somebody deleted the queue %s", quoted(op.Pipe)), "Start again for a new one of that name."
	case errors.Is(err, io.ErrClosedPipe):
		return fmt.Sprintf("the reader of %s left before the end: %v", quoted(op.Pipe), detail(op.Err)),
			"Start it again (zpipes read), and then this."
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Sprintf("the broker %q can't do that: %v", op.Broker, detail(op.Err)),
			"Run the broker of this program instead: zpipes broker"
	}
	return strings.TrimPrefix(err.Error(), "zpipes: "), ""
}

func startBroker(broker string) string {
	command := "zpipes broker"
	switch {
	case strings.HasPrefix(broker, "tcp:") && !strings.HasPrefix(broker, "tcp://127.") && !strings.HasPrefix(broker, "tcp://localhost:"):
		return "Is one running there? docs/MACHINES.md, \"When two hosts do not meet\", says what to look at."
	case strings.Contains(broker, "://"):
		command += " --listen " + visible(broker)
	case broker != defaultBroker:
		command += " " + visible(broker)
	}
	return "Start one: " + command + " &    or name another with --broker or ZPIPES_BROKER."
}

// detail is the text of a cause without what introduces it.
func detail(err error) string {
	var left *zpipes.UndeliveredError
	if errors.As(err, &left) {
		err = left.Err
	}
	text := err.Error()
	for _, sentinel := range []error{zpipes.ErrBrokerGone, zpipes.ErrPipeMode, io.ErrUnexpectedEOF, io.ErrClosedPipe, errors.ErrUnsupported, fs.ErrPermission} {
		for more := true; more; {
			text, more = strings.CutPrefix(text, sentinel.Error()+": ")
		}
	}
	// What the library advises is for programmers.
	text, _, _ = strings.Cut(text, "; its BrokerConfig.")
	text, _, _ = strings.Cut(text, "; BrokerConfig.")
	text, _, _ = strings.Cut(text, "; ClientConfig.")
	return text
}
