package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
)

func workCommand() *cli.Command {
	var timeout, lease duration
	var n, many, deliveries count
	return &cli.Command{
		Name:      "work",
		Usage:     "run a program for each job of a queue",
		ArgsUsage: "QUEUE -- PROGRAM [ARG...]",
		Description: `Takes one job after the other, and runs PROGRAM for each, with the job on its standard input, or
with --argument as one more argument. If its exit status is 0, the job is done, and gone from the
queue. Else it is given back, and comes again after a second, and each time after twice as long,
up to ten minutes; with --max-deliveries it is dead after so many times (see zpipes peek and
redrive). If this program dies, or is told to end, its jobs go to other workers.

The program finds the job's id and how often it was delivered in ZPIPES_JOB and
ZPIPES_DELIVERIES. It is ended if the job is taken away from this worker; also when the broker
ends, as this does then, with status 4. Have it started again.`,
		Flags: []cli.Flag{timeoutFlag(&timeout),
			&cli.GenericFlag{Name: "jobs", Aliases: []string{"j"}, Value: &many, Usage: "work on `COUNT` jobs at once"},
			&cli.GenericFlag{Name: "count", Aliases: []string{"n"}, Value: &n, Usage: "end after `COUNT` jobs"},
			&cli.BoolFlag{Name: "argument", Usage: "the job is the program's last argument, and its standard input is empty"},
			&cli.GenericFlag{Name: "lease", Value: &lease, Usage: "whoever works on a job of this queue for longer than `DURATION` loses it"},
			&cli.GenericFlag{Name: "max-deliveries", Value: &deliveries, Usage: "a job of this queue is dead after `COUNT` deliveries"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			own, p, err := splitProgram(cmd.Args().Slice())
			if err != nil {
				return err
			}
			name, err := oneOf(cmd, own, "queue")
			if err != nil {
				return err
			}
			if p == nil {
				return usageError{"which program? zpipes work QUEUE -- PROGRAM [ARG...]"}
			}
			if err := (output{}).usable(); err != nil {
				return err
			}
			cfg := zpipes.QueueConfig{Lease: time.Duration(lease), MaxDeliveries: int(deliveries)}
			return withClient(ctx, cmd, timeout, func(ctx context.Context, c *zpipes.Client) error {
				q, err := cfg.OpenQueue(ctx, c, name)
				if err != nil {
					return causeOf(ctx, err)
				}
				w := worker{q: q, program: p, argument: cmd.Bool("argument"), left: int(n), deliveries: int(deliveries), says: newComplaints()}
				defer w.says.close()
				return w.run(ctx, max(1, int(many)))
			})
		},
	}
}

// A worker runs a program for each job.
type worker struct {
	q        *zpipes.Queue
	program  *program
	argument bool
	says     *spool
	// deliveries is after how many a job is dead; 0: this worker was not told.
	deliveries int

	mu   sync.Mutex
	left int // how many jobs may still be taken; 0 at the beginning: any number
}

// run has many at once work, until ctx ends, or one of them can't go on.
func (w *worker) run(ctx context.Context, many int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limited := w.left > 0
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for w.mayTake(limited) {
				if err := w.one(ctx); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	err := context.Cause(ctx)
	if closed := w.q.Close(); err == nil {
		err = causeOf(ctx, closed)
	}
	return err
}

func (w *worker) mayTake(limited bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if limited {
		w.left--
		return w.left >= 0
	}
	return true
}

// one takes a job, and works on it.
func (w *worker) one(ctx context.Context) error {
	j, err := w.q.Take(ctx)
	if err != nil {
		return causeOf(ctx, err)
	}
	failed := w.work(ctx, j)
	switch {
	case failed == nil: // also if it was told to end
		err = j.Done()
	case ctx.Err() != nil: // to close the queue gives it back
		return context.Cause(ctx)
	case j.Context().Err() != nil:
		err = zpipes.ErrLeaseLost
	default:
		wait := backOff(j.Deliveries)
		next := fmt.Sprintf("again in %v", wait)
		if w.deliveries > 0 && j.Deliveries >= w.deliveries {
			next = "it is dead now (see zpipes peek and redrive)"
		}
		fmt.Fprintln(w.says, harmless(fmt.Sprintf("zpipes: job %s: %v; %s", j.ID, failed, next)))
		err = j.Return(wait)
	}
	name := "job " + j.ID
	if err == nil {
		name = "a job" // of whichever of those that work here at once
		err = settle(ctx, w.q, nil)
	}
	if errors.Is(err, zpipes.ErrLeaseLost) {
		fmt.Fprintln(w.says, harmless("zpipes: "+name+" was taken away from this worker"))
		return nil
	}
	return causeOf(ctx, err)
}

func (w *worker) work(ctx context.Context, j *zpipes.Job) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(j.Context(), cancel)()
	cmd := exec.CommandContext(ctx, w.program.path, w.program.argv[1:]...)
	cmd.Args[0] = w.program.argv[0]
	if w.argument {
		cmd.Args = append(cmd.Args, string(j.Data))
	} else {
		cmd.Stdin = bytes.NewReader(j.Data)
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "ZPIPES_JOB="+j.ID, fmt.Sprintf("ZPIPES_DELIVERIES=%d", j.Deliveries))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = mercy
	err := cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.Success() {
		return nil // whatever became of its standard input, and whoever has that still
	}
	if err != nil {
		return fmt.Errorf("%s failed: %w", visible(w.program.argv[0]), err)
	}
	return nil
}

// backOff is how long a job waits that was delivered so often and not done.
func backOff(deliveries int) time.Duration {
	const longest = 10 * time.Minute
	return min(longest, time.Second<<min(max(0, deliveries-1), 10))
}
