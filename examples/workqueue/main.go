// Command workqueue spreads jobs over worker processes. Each job in the queue "jobs" goes to one
// worker, and its result into the queue "results". Here a job is a text, its result the SHA-256.
// The first of these commands does it all, the others do it part by part:
//
//	go run ./examples/workqueue
//
//	go run ./examples/workqueue broker demo &
//	go run ./examples/workqueue work demo &
//	go run ./examples/workqueue work demo &
//	seq 100 | go run ./examples/workqueue submit demo
//	go run ./examples/workqueue collect demo 100
//	seq 100 | python3 examples/workqueue/submit.py demo
//	kill %3 %2 %1
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	flag.Parse()
	if err := run(ctx, flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		log.Fatalln("workqueue:", err)
	}
}

func run(ctx context.Context, role, name, number string) error {
	if flag.NArg() != map[string]int{"broker": 2, "work": 2, "submit": 2, "collect": 3}[role] {
		return errors.New("usage: workqueue [broker NAME | work NAME | submit NAME | collect NAME N]")
	}
	if role == "" || role == "broker" {
		b, err := zpipes.NewBroker(name) // without a name: one that nobody else has
		if err != nil {
			return err
		}
		defer b.Close()
		name = b.Name()
		fmt.Println(b.Endpoints()[1], "is ready")
	}
	c, err := zpipes.NewClient(name)
	if err != nil {
		return err
	}
	defer c.Close()
	jobs, err := c.OpenQueue(ctx, "jobs")
	if err != nil {
		return err
	}
	results, err := c.OpenQueue(ctx, "results")
	if err != nil {
		return err
	}
	switch role {
	case "":
		return all(ctx, name, jobs, results)
	case "broker":
		<-ctx.Done() // with the queues open: what nobody has open is deleted when submit.py CLOSEs it
		return nil
	case "work":
		return work(ctx, jobs, results)
	case "submit":
		lines := bufio.NewScanner(os.Stdin)
		for err == nil && lines.Scan() {
			err = jobs.Send(ctx, lines.Bytes()) // waits while the queue is full
		}
		return errors.Join(err, lines.Err(), jobs.Flush(ctx))
	default: // collect
		n, err := strconv.Atoi(number)
		for range n {
			result, err := results.Receive(ctx)
			if err != nil {
				return err
			}
			fmt.Printf("%s\n", result)
		}
		return err
	}
}

// work does jobs until it is told to stop. A job that it does when it crashes is lost.
func work(ctx context.Context, jobs, results *zpipes.Queue) error {
	fmt.Println("worker", os.Getpid(), "is ready")
	for done := 0; ; done++ {
		job, err := jobs.Receive(ctx)
		if errors.Is(err, context.Canceled) {
			fmt.Println("worker", os.Getpid(), "did", done, "jobs")
			return results.Close() // which delivers what has not arrived
		} else if err != nil {
			return err
		}
		// Not with ctx, since the job is not in its queue any more.
		if err := results.Send(context.Background(), do(job)); err != nil {
			return err
		}
	}
}

func do(job []byte) []byte { return fmt.Appendf(nil, "%x  %s", sha256.Sum256(job), job) }

// all has four workers do jobs, and checks that each result comes, is right, and comes once.
func all(ctx context.Context, broker string, jobs, results *zpipes.Queue) error {
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx) // a process that fails stops the others
	for range 4 {
		cmd := exec.CommandContext(ctx, os.Args[0], "work", broker)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 5 * time.Second // then it is killed
		group.Go(cmd.Run)
	}
	const n = 20_000
	missing := make(map[string]bool, n)
	for i := range n {
		missing[string(do(fmt.Append(nil, i)))] = true
	}
	group.Go(func() (err error) {
		for i := 0; i < n && err == nil; i++ {
			err = jobs.Send(ctx, fmt.Append(nil, i))
		}
		return err
	})
	for range n {
		result, _ := results.Receive(ctx) // it fails only where something else did
		delete(missing, string(result))
	}
	stop()
	if err := group.Wait(); len(missing) > 0 {
		return fmt.Errorf("%d of %d results are missing: %w", len(missing), n, err)
	}
	fmt.Println(n, "results, each of them right and there once")
	return nil
}
