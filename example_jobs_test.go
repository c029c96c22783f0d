//go:build !core

package zpipes_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/zpipes/zpipes"
)

// A job stays in the queue until the work is done. What fails comes back, and is put aside after
// the third time.
func ExampleQueue_Jobs() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	queue, err := zpipes.QueueConfig{MaxDeliveries: 3}.OpenQueue(ctx, client, "mail")
	if err != nil {
		log.Fatal(err)
	}
	defer queue.Close()
	for _, to := range []string{"ada@example.com", "nobody@example.invalid"} {
		if err := queue.Send(ctx, []byte(to)); err != nil {
			log.Fatal(err)
		}
	}

	for job, err := range queue.Jobs(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if string(job.Data) == "ada@example.com" {
			fmt.Printf("%s: sent\n", job.Data)
			err = job.Done()
		} else {
			fmt.Printf("%s: failed for the %d. time\n", job.Data, job.Deliveries)
			err = job.Return(time.Millisecond)
		}
		if err != nil {
			log.Fatal(err)
		}
		if job.Deliveries == 3 {
			break
		}
	}
	if err := queue.Flush(ctx); err != nil { // what was said of jobs is confirmed
		log.Fatal(err)
	}
	for job, err := range client.PeekJobs(ctx, "mail") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s is %s: %s\n", job.Data, job.State, job.Reason)
	}
	// Output:
	// ada@example.com: sent
	// nobody@example.invalid: failed for the 1. time
	// nobody@example.invalid: failed for the 2. time
	// nobody@example.invalid: failed for the 3. time
	// nobody@example.invalid is dead: delivered 3 times, and not done
}

// A durable queue is there again when the broker is.
func ExampleQueueConfig_OpenQueue() {
	dir, err := os.MkdirTemp("", "queues")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	open := func() (*zpipes.Broker, *zpipes.Queue) {
		broker, err := zpipes.BrokerConfig{Dir: dir}.NewBroker("")
		if err != nil {
			log.Fatal(err)
		}
		queue, err := zpipes.QueueConfig{Durable: true}.OpenQueue(ctx, broker.Client(), "orders")
		if err != nil {
			log.Fatal(err)
		}
		return broker, queue
	}

	broker, queue := open()
	if err := queue.Send(ctx, []byte("two coffees")); err != nil {
		log.Fatal(err)
	}
	if err := queue.Flush(ctx); err != nil { // it is on the disk
		log.Fatal(err)
	}
	broker.Close()

	broker, queue = open()
	defer broker.Close()
	order, err := queue.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", order)
	// Output: two coffees
}
