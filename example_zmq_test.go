//go:build cgo && !core

package zpipes_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/zpipes/zpipes"
)

// Smaller pipes than usual, and a loopback port beside the usual way in.
func ExampleBrokerConfig_NewBroker() {
	broker, err := zpipes.BrokerConfig{
		Endpoints:  []string{"tcp://127.0.0.1:*"}, // * is any free port
		MaxPending: 64 << 10,
	}.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	for _, endpoint := range broker.Endpoints() {
		scheme, _, _ := strings.Cut(endpoint, "://")
		fmt.Println(scheme)
	}
	// Output:
	// inproc
	// tcp
}

// A broker and a client on two hosts, which have the same secret. (Here both are on one, so
// that the example runs; the client gets it from a file, with ReadKey, as the broker does.)
func ExampleKey() {
	key := zpipes.NewKey()
	broker, err := zpipes.BrokerConfig{
		Key:       key,
		Endpoints: []string{"tcp://127.0.0.1:*"}, // tcp://*:7900 for all that the host has
	}.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()

	client, err := zpipes.ClientConfig{Key: key}.NewClient(broker.Endpoints()[1]) // tcp://HOST:7900
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	go func() {
		w, err := client.OpenWriter(context.Background(), "letters")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprint(w, "nobody can read this on its way")
		w.Close()
	}()
	r, err := broker.Client().OpenReader(context.Background(), "letters")
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(r)
	fmt.Println(string(text), err)
	// Output: nobody can read this on its way <nil>
}
