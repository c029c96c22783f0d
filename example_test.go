//go:build !core

package zpipes_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/zpipes/zpipes"
)

// A broker, and a pipe between two goroutines.
func Example() {
	broker, err := zpipes.NewBroker("") // or a name by which other processes find it
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	client, err := zpipes.NewClient(broker.Name())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	go func() {
		w, err := client.OpenWriter(context.Background(), "greetings")
		if err != nil {
			log.Fatal(err)
		}
		for i := range 3 {
			fmt.Fprintln(w, "hello", i)
		}
		if err := w.Close(); err != nil { // tells of all that was not delivered
			log.Fatal(err)
		}
	}()

	r, err := client.OpenReader(context.Background(), "greetings")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(os.Stdout, r); err != nil { // until the writer has closed
		log.Fatal(err)
	}
	// Output:
	// hello 0
	// hello 1
	// hello 2
}

// There is one broker of a name on a machine. A second one does not get in its way.
func ExampleNewBroker() {
	broker, err := zpipes.NewBroker("") // "" picks a name that nobody else has
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	_, err = zpipes.NewBroker(broker.Name())
	fmt.Println(errors.Is(err, zpipes.ErrBrokerExists))
	// Output: true
}

// Whoever has the broker needs no name to get a client.
func ExampleBroker_Client() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	client := broker.Client()
	defer client.Close()
	_, err = client.Ping(context.Background())
	fmt.Println(err)
	// Output: <nil>
}

// Shutdown lets readers have what was confirmed, and then ends the pipes. What the
// readers meet is not io.EOF, since their writers had not closed.
func ExampleBroker_Shutdown() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	r, w := openBoth(broker, "jobs")
	io.WriteString(w, "the last job")
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}

	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- broker.Shutdown(ctx)
	}()

	read, err := io.ReadAll(r)
	fmt.Printf("%q\n", read)
	fmt.Println(errors.Is(err, zpipes.ErrBrokerGone))
	fmt.Println(<-done)
	// Output:
	// "the last job"
	// true
	// <nil>
}

func ExampleBroker_Pipes() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	_, w := openBoth(broker, "jobs")
	io.WriteString(w, "five!")

	for p := range broker.Pipes() {
		fmt.Println(p.Name, "reader:", p.Reader, "writer:", p.Writer, "waiting:", p.Queued, "bytes")
	}
	// Output: jobs reader: true writer: true waiting: 5 bytes
}

// The counters run from the broker's start; the difference of two gives a rate.
func ExampleBroker_Stats() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	before := broker.Stats()
	_, w := openBoth(broker, "jobs")
	io.WriteString(w, "some work")
	now := broker.Stats()
	fmt.Println(now.Pipes, "pipe,", now.Sub(before).BytesIn, "bytes written")
	// Output: 1 pipe, 9 bytes written
}

// By its name, a broker in the same process is reached directly. By an endpoint, it is
// reached in the way that this names, as from any other process.
func ExampleNewClient() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	for _, address := range append(broker.Endpoints(), broker.Name()) {
		client, err := zpipes.NewClient(address)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.Ping(context.Background()); err != nil {
			log.Fatal(err)
		}
		client.Close()
	}
	fmt.Println("all of them are the broker's")
	// Output: all of them are the broker's
}

// The context limits how long to wait for a broker, and nothing else.
func ExampleClient_OpenReader() {
	client, err := zpipes.NewClient("nobody-runs-this-broker")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = client.OpenReader(ctx, "jobs")
	fmt.Println(errors.Is(err, zpipes.ErrNoBroker))
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// true
	// true
}

// A pipe has one writer at a time.
func ExampleClient_OpenWriter() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	ctx := context.Background()

	first, err := client.OpenWriter(ctx, "log")
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.OpenWriter(ctx, "log")
	fmt.Println(errors.Is(err, zpipes.ErrPipeBusy))

	first.CloseWithError(errors.New("not needed")) // Close would wait for a reader
	_, err = client.OpenWriter(ctx, "log")         // a new pipe of that name
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// Ping is a health check: it goes to the broker and back.
func ExampleClient_Ping() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	client := broker.Client()
	defer client.Close()
	ctx := context.Background()

	took, err := client.Ping(ctx)
	fmt.Println(took < time.Second, err)

	broker.Close()
	_, err = client.Ping(ctx)
	fmt.Println(errors.Is(err, zpipes.ErrBrokerGone))
	// Output:
	// true <nil>
	// true
}

// A Reader is an io.Reader, so all that works with those works with it. A
// bufio.Scanner, for one, makes lines of the bytes.
func ExampleReader() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "lines")
	go func() {
		io.WriteString(w, "one\ntwo\nthr")
		io.WriteString(w, "ee\n")
		w.Close()
	}()

	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Println(lines.Text())
	}
	if err := lines.Err(); err != nil {
		fmt.Println("the stream is not complete:", err)
	}
	// Output:
	// one
	// two
	// three
}

// A deadline ends the wait, not the pipe.
func ExampleReader_SetReadDeadline() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "slow")
	buf := make([]byte, 100)

	r.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err = r.Read(buf)
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded))

	r.SetReadDeadline(time.Time{}) // none
	io.WriteString(w, "better late than never")
	n, err := r.Read(buf)
	fmt.Printf("%s, %v\n", buf[:n], err)
	// Output:
	// true
	// better late than never, <nil>
}

// A reader that gives up can tell the writer why.
func ExampleReader_CloseWithError() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "upload")

	r.CloseWithError(errors.New("disk full"))
	_, err = io.WriteString(w, "more")
	fmt.Println(errors.Is(err, io.ErrClosedPipe))
	fmt.Println(strings.Contains(err.Error(), "disk full"))
	// Output:
	// true
	// true
}

// What Flush has confirmed reaches the reader, whatever becomes of the writer.
func ExampleWriter_Flush() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "journal")

	io.WriteString(w, "step 1 is done")
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}
	w.CloseWithError(errors.New("step 2 failed"))

	read, err := io.ReadAll(r)
	fmt.Printf("%q\n", read)
	fmt.Println(errors.Is(err, io.ErrUnexpectedEOF))
	// Output:
	// "step 1 is done"
	// true
}

// A writer that can't finish says so, and the reader does not take a part for the
// whole.
func ExampleWriter_CloseWithError() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "backup")

	w.CloseWithError(errors.New("source file vanished"))
	_, err = io.ReadAll(r)
	fmt.Println(errors.Is(err, io.ErrUnexpectedEOF))
	fmt.Println(strings.Contains(err.Error(), "source file vanished"))
	// Output:
	// true
	// true
}

// A Writer is an io.Writer: here it takes a compressed stream.
func ExampleWriter() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, w := openBoth(broker, "compressed")
	go func() {
		z := gzip.NewWriter(w)
		_, err := io.Copy(z, strings.NewReader(strings.Repeat("again and ", 1000)))
		if err = errors.Join(err, z.Close()); err != nil {
			w.CloseWithError(err)
			return
		}
		w.Close()
	}()

	z, err := gzip.NewReader(r)
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(z)
	fmt.Println(len(text), err)
	// Output: 10000 <nil>
}

// An OpError says what failed, and where. What it wraps says why.
func ExampleOpError() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	r, _ := openBoth(broker, "events")
	r.SetReadDeadline(time.Now())

	_, err = r.Read(make([]byte, 1))
	var op *zpipes.OpError
	if errors.As(err, &op) {
		fmt.Println(op.Op, op.Pipe, op.Timeout())
		fmt.Println(op.Broker == broker.Name())
		fmt.Println(op.Err)
	}
	// Output:
	// read events true
	// true
	// i/o timeout
}

// Without a reader nothing can be delivered. Close says how much that was.
func ExampleUndeliveredError() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	w, err := broker.Client().OpenWriter(context.Background(), "nobody reads")
	if err != nil {
		log.Fatal(err)
	}

	io.WriteString(w, "hello?")
	w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // or Close tries for 5 s
	err = w.Close()
	var undelivered *zpipes.UndeliveredError
	if errors.As(err, &undelivered) {
		fmt.Println(undelivered.Bytes, "bytes:", undelivered.Err)
	}
	// Output: 6 bytes: i/o timeout
}

// A queue keeps whole chunks until somebody receives them, no matter who comes first
// and who stays.
func ExampleClient_OpenQueue() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	ctx := context.Background()

	jobs, err := client.OpenQueue(ctx, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range []string{"wash", "dry", "fold"} {
		if err := jobs.Send(ctx, []byte(job)); err != nil {
			log.Fatal(err)
		}
	}
	if err := jobs.Close(); err != nil { // tells of all that has not arrived
		log.Fatal(err)
	}

	jobs, err = client.OpenQueue(ctx, "jobs") // later, and elsewhere
	if err != nil {
		log.Fatal(err)
	}
	defer jobs.Close()
	for range 3 {
		job, err := jobs.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", job)
	}
	// Output:
	// wash
	// dry
	// fold
}

// Workers share the chunks of a queue: each chunk goes to one of them.
func ExampleQueue_All() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	squares := make(chan int)
	for range 3 {
		numbers, err := client.OpenQueue(ctx, "numbers")
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer numbers.Close()
			for chunk, err := range numbers.All(ctx) {
				if err != nil {
					return // ctx has ended, or the queue, or the broker
				}
				n, _ := strconv.Atoi(string(chunk))
				squares <- n * n
			}
		}()
	}

	numbers, err := client.OpenQueue(ctx, "numbers")
	if err != nil {
		log.Fatal(err)
	}
	for i := range 10 {
		numbers.Send(ctx, []byte(strconv.Itoa(i+1)))
	}
	sum := 0
	for range 10 {
		sum += <-squares
	}
	fmt.Println(sum)
	// Output: 385
}

// The context ends the wait, not the queue: a chunk that comes later is there for the
// next Receive.
func ExampleQueue_Receive() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	mail, err := client.OpenQueue(context.Background(), "mail")
	if err != nil {
		log.Fatal(err)
	}
	defer mail.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = mail.Receive(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))

	mail.Send(context.Background(), []byte("a letter"))
	chunk, err := mail.Receive(context.Background())
	fmt.Printf("%s, %v\n", chunk, err)
	// Output:
	// true
	// a letter, <nil>
}

// A queue outlives all who use it, until it is deleted with all that is in it.
func ExampleClient_DeleteQueue() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	ctx := context.Background()
	jobs, err := client.OpenQueue(ctx, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	defer jobs.Close()

	fmt.Println(client.DeleteQueue(ctx, "jobs"))
	_, err = jobs.Receive(ctx) // whoever has it open is told
	fmt.Println(errors.Is(err, io.ErrClosedPipe))
	err = client.DeleteQueue(ctx, "jobs")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// <nil>
	// true
	// true
}

// openBoth opens both ends of a pipe.
func openBoth(broker *zpipes.Broker, pipe string) (*zpipes.Reader, *zpipes.Writer) {
	client := broker.Client()
	r, err := client.OpenReader(context.Background(), pipe)
	if err != nil {
		log.Fatal(err)
	}
	w, err := client.OpenWriter(context.Background(), pipe)
	if err != nil {
		log.Fatal(err)
	}
	return r, w
}
