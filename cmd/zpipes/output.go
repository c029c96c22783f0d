package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
)

// errNoOutput is that nobody reads standard output any more. It ends a command in peace.
var errNoOutput = errors.New("nobody reads the output any more")

// withReader returns a context that ends when nobody reads any more what is written to file.
func withReader(parent context.Context, file *os.File) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := hangup(file, func() { cancel(errNoOutput) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// output is standard output, whose errors say what they are, and are kept.
type output struct{}

var outputFailure struct {
	sync.Mutex
	err error
}

func (output) Write(b []byte) (n int, err error) {
	if err = (output{}).usable(); err == nil {
		n, err = os.Stdout.Write(b)
	}
	var told hintError
	if errors.Is(err, syscall.EPIPE) {
		err = errNoOutput
	} else if err != nil && !errors.As(err, &told) {
		err = hintError{err, "The output is not complete."}
	}
	if err != nil {
		outputFailure.Lock()
		defer outputFailure.Unlock()
		outputFailure.err = err
	}
	return n, err
}

// failure is why something that was written is not out.
func (output) failure() error {
	outputFailure.Lock()
	defer outputFailure.Unlock()
	return outputFailure.err
}

// usable is to be asked before anything is taken from a pipe or a queue.
func (output) usable() error {
	return closedError(os.Stdout)
}

// closedError is that this program was started without the file, which is one of the
// standard ones.
func closedError(file *os.File) error {
	if !closedAtStart(file.Fd()) {
		return nil
	}
	return hintError{&os.PathError{Op: "use", Path: file.Name(), Err: errors.New("it was closed when this program started")},
		"If nothing is to come from it, or to go there, say so: /dev/null"}
}
