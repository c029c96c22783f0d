package door_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

// A program that knows only HTTP writes, and a Reader gets it.
func Example() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0") // such as 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Handler:           door.New(client),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	go server.Serve(listener)
	defer server.Close()

	var posting sync.WaitGroup
	posting.Go(func() { // as curl -T - http://127.0.0.1:8080/pipes/greetings does
		url := "http://" + listener.Addr().String() + "/pipes/greetings"
		answer, err := http.Post(url, "text/plain", strings.NewReader("hello"))
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
	})

	reader, err := client.OpenReader(context.Background(), "greetings")
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(reader)
	posting.Wait() // it is told when all has been delivered
	fmt.Printf("%s, %v\n", text, err)
	// Output: hello, <nil>
}

// Other machines come in with a token, and TLS.
func ExampleConfig() {
	client, err := zpipes.NewClient("local")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	handler, err := door.Config{Guard: door.Guard{
		Token: "EZZMJ5UTT7TNFYJ5L3TLIKPKO6", // from a file that only this program can read
		Hosts: []string{"files.example.com"},
	}}.New(client)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: ":443", Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	log.Print(server.ListenAndServeTLS("cert.pem", "key.pem"))
}
