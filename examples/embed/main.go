// Command embed is a web service with a pipe inside: the body of a POST streams through it to a
// goroutine that prints the lines while they are still being sent.
//
//	go run ./examples/embed
//	curl -X POST -T - localhost:8080 < file
//
// The broker lives in the service. The pipe holds a bounded number of bytes, so a slow reader
// slows the sender down, and a body of any size needs no more memory than a small one.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/zpipes/zpipes"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	listener, err := net.Listen("tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Println("listening on", listener.Addr())
	if err := run(ctx, listener, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and then until every line that was sent is printed.
func run(ctx context.Context, listener net.Listener, out io.Writer) error {
	broker, err := zpipes.NewBroker("") // any name will do: nobody else has to find it
	if err != nil {
		return err
	}
	defer broker.Close()
	server := &http.Server{Handler: receive(broker.Client())}

	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return printLines(broker.Client(), out) })
	work.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	work.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// First those who write, then what they wrote to.
		return errors.Join(server.Shutdown(grace), broker.Shutdown(grace))
	})
	return work.Wait()
}

// receive writes a request's body to the pipe.
func receive(client *zpipes.Client) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		pipe, err := client.OpenWriter(req.Context(), "lines")
		if err != nil { // ErrPipeBusy: a pipe has one writer at a time
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if _, err = io.Copy(pipe, req.Body); err != nil {
			pipe.Flush()             // what has come is the reader's, who may have yet to come, too
			pipe.CloseWithError(err) // or the reader would take half a body for a whole one
		} else {
			err = pipe.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// printLines prints what comes through the pipe, one writer after the other.
func printLines(client *zpipes.Client, out io.Writer) error {
	for {
		pipe, err := client.OpenReader(context.Background(), "lines")
		if errors.Is(err, zpipes.ErrBrokerGone) {
			return nil
		}
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			fmt.Fprintln(out, lines.Text())
		}
		err = lines.Err()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			fmt.Fprintln(out, "... and here the sender broke off")
		}
		pipe.CloseWithError(err) // tells the writer, where it was us who gave up
	}
}
