// Command demo sends a directory through a pipe from one process to another, and checks that
// every byte arrived.
//
//	go run ./examples/demo DIRECTORY
//
// It starts itself three times: as a broker, as a writer that packs the directory into a tar
// archive straight into the pipe, and as a reader. Both ends compute the SHA-256 of what passes.
package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/zpipes/zpipes"
	"golang.org/x/sync/errgroup"
)

const pipe = "archive"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "broker":
		return broker()
	case len(args) == 3 && args[0] == "write":
		return write(args[1], args[2])
	case len(args) == 2 && args[0] == "read":
		return read(args[1])
	case len(args) == 1:
		return demo(args[0], os.Stdout)
	}
	return errors.New("usage: demo DIRECTORY")
}

// broker serves until its standard input ends: it never outlives whoever started it. What it
// prints is its name, and the sign that it is up.
func broker() error {
	b, err := zpipes.NewBroker("")
	if err != nil {
		return err
	}
	defer b.Close()
	fmt.Println(b.Name())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func write(broker, dir string) error {
	c, err := zpipes.NewClient(broker)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := c.OpenWriter(context.Background(), pipe)
	if err != nil {
		return err
	}
	t := newTally()
	archive := tar.NewWriter(io.MultiWriter(w, t))
	if err := errors.Join(archive.AddFS(os.DirFS(dir)), archive.Close()); err != nil {
		w.CloseWithError(err) // so that the reader does not take half an archive for a whole one
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	return t.print()
}

func read(broker string) error {
	c, err := zpipes.NewClient(broker)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.OpenReader(context.Background(), pipe)
	if err != nil {
		return err
	}
	t := newTally()
	if _, err := io.Copy(t, r); err != nil {
		return err
	}
	return t.print()
}

// A tally is what each end knows of the bytes that passed, to be compared.
type tally struct {
	sum   hash.Hash
	bytes int64
}

func newTally() *tally { return &tally{sum: sha256.New()} }

func (t *tally) Write(p []byte) (int, error) {
	t.bytes += int64(len(p))
	return t.sum.Write(p)
}

func (t *tally) print() error {
	_, err := fmt.Printf("%x %d\n", t.sum.Sum(nil), t.bytes)
	return err
}

// demo starts the three processes and prints what the two ends saw.
func demo(dir string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	name, stop, err := startBroker(self)
	if err != nil {
		return fmt.Errorf("the broker did not start: %w", err)
	}
	defer stop()

	fmt.Fprintf(out, "A broker, a writer and a reader: three processes, and a pipe by name.\n")
	fmt.Fprintf(out, "Through it, as a tar archive: %s\n\n", dir)

	start := time.Now()
	ends, ctx := errgroup.WithContext(context.Background()) // when one end fails, the other is stopped
	var written, got result
	ends.Go(func() error { return written.of(ctx, self, "write", name, dir) })
	ends.Go(func() error { return got.of(ctx, self, "read", name) })
	if err := ends.Wait(); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()

	fmt.Fprintf(out, "  written  %s\n", written.sum)
	fmt.Fprintf(out, "  read     %s\n\n", got.sum)
	if written != got {
		return fmt.Errorf("%d bytes were written, and %d others read", written.bytes, got.bytes)
	}
	mb := float64(got.bytes) / 1e6
	fmt.Fprintf(out, "The same to the last byte: %.1f MB in %.2f s, %.0f MB/s, and no temporary file.\n", mb, seconds, mb/seconds)
	return nil
}

// startBroker returns the name of a new broker process, and what stops it.
func startBroker(self string) (name string, stop func(), err error) {
	cmd := exec.Command(self, "broker")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		stdin.Close()
		cmd.Wait()
	}
	if _, err := fmt.Fscanln(stdout, &name); err != nil {
		stop()
		return "", nil, err
	}
	return name, stop, nil
}

// A result is a tally as its process printed it.
type result struct {
	sum   string
	bytes int64
}

// of runs one end in a process of its own.
func (r *result) of(ctx context.Context, self, end string, args ...string) error {
	cmd := exec.CommandContext(ctx, self, append([]string{end}, args...)...)
	cmd.Stderr = os.Stderr
	printed, err := cmd.Output()
	if err == nil {
		_, err = fmt.Sscan(string(printed), &r.sum, &r.bytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", end, err)
	}
	return nil
}
