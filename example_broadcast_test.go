//go:build !core

package zpipes_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/zpipes/zpipes"
)

// Two readers follow what is written, each in its own time.
func ExampleClient_OpenBroadcast() {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()
	ctx := context.Background()

	w, err := zpipes.BroadcastConfig{Readers: 2}.OpenBroadcast(ctx, client, "news")
	if err != nil {
		log.Fatal(err)
	}
	var readers []*zpipes.Reader
	for range 2 {
		r, err := client.OpenReader(ctx, "news")
		if err != nil {
			log.Fatal(err)
		}
		readers = append(readers, r)
	}
	fmt.Fprintln(w, "hear, hear")
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	for _, r := range readers {
		io.Copy(os.Stdout, r)
		r.Close()
	}
	// Output:
	// hear, hear
	// hear, hear
}
