// Command gzip sends a file from one process to another, compressed on the way.
//
//	go run ./examples/gzip broker &
//	go run ./examples/gzip read > copy &
//	go run ./examples/gzip write < file
//
// The order does not matter. The ends of a pipe are an io.Reader and an io.Writer like any other,
// so compress/gzip fits onto them as it is.
package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/zpipes/zpipes"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gzip:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	name := "gzip-example"
	if len(args) == 2 {
		name = args[1]
	}
	if len(args) == 1 || len(args) == 2 {
		switch args[0] {
		case "broker":
			return broker(ctx, name)
		case "write":
			return write(ctx, name)
		case "read":
			return read(ctx, name)
		}
	}
	return errors.New("usage: gzip broker|write|read [BROKER]")
}

// broker serves until it is interrupted.
func broker(ctx context.Context, name string) error {
	b, err := zpipes.NewBroker(name)
	if err != nil {
		return err
	}
	defer b.Close()
	fmt.Println("broker", name, "is up")
	<-ctx.Done()
	return nil
}

// write sends what it reads from its standard input.
func write(ctx context.Context, name string) error {
	c, err := zpipes.NewClient(name)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := c.OpenWriter(ctx, "file")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	_, err = io.Copy(z, os.Stdin)
	if err = errors.Join(err, z.Close()); err != nil {
		w.CloseWithError(err) // or the reader would take half a file for a whole one
		return err
	}
	return w.Close()
}

// read prints what arrives, until the writer closes.
func read(ctx context.Context, name string) error {
	c, err := zpipes.NewClient(name)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.OpenReader(ctx, "file")
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, z)
	return err
}
