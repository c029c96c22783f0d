//go:build !core

package zpipes_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/rpc"

	"github.com/zpipes/zpipes"
)

// A Listener is a net.Listener, and DialContext is what http.Transport wants: then the host
// of a URL is a listener's name.
func ExampleClient_DialContext() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	// In one process:
	service := broker.Client()
	defer service.Close()
	listener, err := service.Listen(context.Background(), "greeter")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s", r.URL.Query().Get("name"))
	})}
	defer server.Close()
	go server.Serve(listener)

	// In another:
	client, err := zpipes.NewClient(broker.Name())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	web := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}}
	defer web.CloseIdleConnections()
	response, err := web.Get("http://greeter/?name=gopher")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	fmt.Println(string(text), err)
	// Output: hello, gopher <nil>
}

// A Sum adds numbers up.
type Sum struct{}

// Of is called by net/rpc.
func (Sum) Of(numbers []int, sum *int) error {
	for _, n := range numbers {
		*sum += n
	}
	return nil
}

// What takes a net.Listener and a net.Conn, such as net/rpc, needs nothing else.
func ExampleClient_Listen() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()

	listener, err := client.Listen(context.Background(), "calculator")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	server := rpc.NewServer()
	if err := server.Register(Sum{}); err != nil {
		log.Fatal(err)
	}
	go server.Accept(listener)

	conn, err := client.Dial(context.Background(), "calculator")
	if err != nil {
		log.Fatal(err)
	}
	calls := rpc.NewClient(conn)
	defer calls.Close()
	var sum int
	err = calls.Call("Sum.Of", []int{1, 2, 3}, &sum)
	fmt.Println(sum, err)
	// Output: 6 <nil>
}

// A dial fails at once where nobody listens; it does not wait for somebody.
func ExampleClient_Dial() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()

	_, err = client.Dial(context.Background(), "echo")
	fmt.Println(errors.Is(err, zpipes.ErrNoListener))

	listener, err := client.Listen(context.Background(), "echo")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()

	conn, err := client.Dial(context.Background(), "echo")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "once more")
	if err := conn.CloseWrite(); err != nil { // that was all
		log.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	fmt.Println(string(text), err)
	// Output:
	// true
	// once more <nil>
}
