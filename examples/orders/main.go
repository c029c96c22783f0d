// Command orders is a service that takes orders over HTTP and has other processes do them. What it has
// answered with 202 is done, also if the service, a worker or the machine dies in between. An order that
// is sent again with the same Idempotency-Key, since nobody knows whether it came, is done once. The
// first of these commands does it all, and kills the service in the middle; the others do it part by part:
//
//	go run ./examples/orders
//
//	go run ./examples/orders serve demo ./queues localhost:8080 &
//	go run ./examples/orders work demo &
//	go run ./examples/orders work demo &
//	curl -d 'two of them' -H 'Idempotency-Key: 17' localhost:8080/orders
//	kill %3 %2 %1
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	flag.Parse()
	err := errors.New("usage: orders [serve NAME DIRECTORY ADDRESS | work NAME]")
	switch role := flag.Arg(0); {
	case role == "" && flag.NArg() == 0:
		err = all(ctx)
	case role == "serve" && flag.NArg() == 4:
		err = serve(ctx, flag.Arg(1), flag.Arg(2), flag.Arg(3))
	case role == "work" && flag.NArg() == 2:
		err = work(ctx, flag.Arg(1))
	}
	if err != nil {
		log.Fatalln("orders:", err)
	}
}

// serve takes orders, and keeps them in a directory until they are done.
func serve(ctx context.Context, name, dir, address string) error {
	b, err := zpipes.BrokerConfig{Dir: dir}.NewBroker(name)
	if err != nil {
		return err
	}
	defer b.Close()
	orders, err := zpipes.QueueConfig{Durable: true, MaxDeliveries: 10}.OpenQueue(ctx, b.Client(), "orders")
	if err != nil {
		return err
	}
	http.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		order, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if key := r.Header.Get("Idempotency-Key"); key != "" {
			err = orders.SendOnce(r.Context(), key, order)
		} else {
			err = orders.Send(r.Context(), order)
		}
		if err == nil {
			err = orders.Flush(r.Context()) // it is on the disk; one fsync serves all who wait
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("serving at", l.Addr())
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Shutdown(context.Background()) })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// work does orders until it is told to stop. When the service is gone it waits until it is back.
func work(ctx context.Context, name string) error {
	c, err := zpipes.ClientConfig{Timeout: time.Minute}.NewClient(name)
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		orders, err := c.OpenQueue(ctx, "orders")
		if err != nil {
			return err
		}
		for order, err := range orders.Jobs(ctx) {
			if err != nil {
				break // the service is gone, or this process is to stop
			}
			do(order)
		}
		orders.Close() // which also waits until the service knows what was done
	}
	return nil
}

// do does an order. Until Done it is this worker's; if the process dies, it is another one's soon.
func do(order *zpipes.Job) {
	if strings.Contains(string(order.Data), "impossible") {
		order.Reject("it can't be done") // `zpipes peek` shows it, and why
		return
	}
	fmt.Println("did", string(order.Data))
	if err := order.Done(); err != nil {
		log.Println("orders:", err) // it may be done once more
	}
}

// all sends orders to a service that is killed in the middle, and checks that each is done.
func all(ctx context.Context) error {
	const n = 500
	dir, err := os.MkdirTemp("", "orders-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	name := fmt.Sprint("orders-", os.Getpid())

	service, out, err := start(ctx, "serve", name, dir, "localhost:0")
	if err != nil {
		return err
	}
	defer func() { service.Process.Kill(); service.Wait() }()
	out.Scan()
	address := strings.TrimPrefix(out.Text(), "serving at ")
	did := make(chan string)
	for range 2 {
		worker, out, err := start(ctx, "work", name)
		if err != nil {
			return err
		}
		defer func() { worker.Process.Kill(); worker.Wait() }()
		go func() {
			for out.Scan() {
				did <- out.Text()
			}
		}()
	}

	var customers errgroup.Group
	for first := range 10 {
		customers.Go(func() error {
			for i := first; i < n; i += 10 {
				if err := order(ctx, address, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	done := make(map[string]bool)
	for killed := false; len(done) < n; {
		select {
		case line := <-did:
			done[line] = true // some are done again: the service died before it knew
		case <-ctx.Done():
			return fmt.Errorf("%d of %d orders are done: %w", len(done), n, ctx.Err())
		}
		if len(done) == n/3 && !killed {
			killed = true
			service.Process.Kill()
			service.Wait()
			if service, _, err = start(ctx, "serve", name, dir, address); err != nil {
				return err
			}
			fmt.Println("the service was killed, and started again")
		}
	}
	if err := customers.Wait(); err != nil {
		return err
	}
	fmt.Println(n, "orders, each of them done")
	return nil
}

// order sends an order until it is accepted.
func order(ctx context.Context, address string, number int) error {
	for {
		body := strings.NewReader(fmt.Sprint("order ", number))
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/orders", body)
		if err != nil {
			return err
		}
		r.Header.Set("Idempotency-Key", strconv.Itoa(number))
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusAccepted {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start starts this program in another role.
func start(ctx context.Context, args ...string) (*exec.Cmd, *bufio.Scanner, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, bufio.NewScanner(out), cmd.Start()
}
