//go:build cgo && !core

package zpipes_test

import (
	"fmt"
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
