package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// A program is one that write or read runs, so that its failure is theirs: a pipeline of
// the shell throws it away.
type program struct {
	path    string
	argv    []string
	env     []string // nil: this one's
	process *os.Process
	done    chan struct{}
	err     error // how it ended; to be read when done is closed
}

// A programError is how a program ended that failed.
type programError struct{ text string }

func (e programError) Error() string { return e.text }

// mercy is how long a program may take to end that is told to.
const mercy = 2 * time.Second

// splitProgram parts PIPE [FILE...] -- PROGRAM [ARG...]. program is nil if there is no --
// behind the name, which may be -- itself.
func splitProgram(args []string) (own []string, p *program, err error) {
	i := 1 + slices.Index(args[min(1, len(args)):], "--")
	if i == 0 {
		return args, nil, nil
	}
	own, argv := args[:i], args[i+1:]
	if len(argv) == 0 {
		return own, nil, usageError{"which program? It has to stand behind --"}
	}
	p = &program{argv: argv, done: make(chan struct{})}
	if p.path, err = exec.LookPath(argv[0]); err != nil {
		err = fmt.Errorf("%s: %w", visible(argv[0]), errors.Unwrap(err))
	}
	return own, p, err
}

// start runs the program. A file that is nil is closed for it.
func (p *program) start(in, out *os.File) (err error) {
	p.process, err = os.StartProcess(p.path, p.argv, &os.ProcAttr{Env: p.env, Files: []*os.File{in, out, os.Stderr}})
	if err != nil {
		return err
	}
	go func() {
		defer close(p.done)
		state, err := p.process.Wait()
		if err == nil && !state.Success() {
			err = programError{fmt.Sprintf("%s failed: %v", visible(p.argv[0]), state)}
		}
		p.err = err
	}()
	return nil
}

// output starts the program, and returns what it writes. In place of its end comes the
// program's failure.
func (p *program) output() (io.ReadCloser, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	in := os.Stdin
	if closedAtStart(in.Fd()) {
		in = nil
	}
	if err := p.start(in, w); err != nil {
		r.Close()
		return nil, err
	}
	return &programOutput{r, p}, nil
}

type programOutput struct {
	*os.File
	p *program
}

func (o *programOutput) Read(b []byte) (int, error) {
	n, err := o.File.Read(b)
	if err == io.EOF {
		if <-o.p.done; o.p.err != nil {
			err = o.p.err
		}
	}
	return n, err
}

// input starts the program, and returns what it reads from.
func (p *program) input() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := p.start(r, os.Stdout); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// wait waits for the program's end, which is its error.
func (p *program) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failure is how the program failed, if it has by now.
func (p *program) failure() error {
	if p != nil {
		select {
		case <-p.done:
			return p.err
		default:
		}
	}
	return nil
}

// end ends the program, if it has not ended.
func (p *program) end() {
	if p == nil || p.process == nil {
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	if p.process.Signal(syscall.SIGTERM) != nil {
		p.process.Kill()
	}
	select {
	case <-p.done:
	case <-time.After(mercy):
		p.process.Kill()
		<-p.done
	}
}
