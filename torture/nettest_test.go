package main

import (
	"context"
	"net"
	"testing"

	"github.com/zpipes/zpipes"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

// What the net package's own connections are held to, ours are, too, in each way to a broker;
// and nothing is left behind.
func TestConnections(t *testing.T) {
	for _, way := range []struct {
		name string
		// reach says how to name the broker, and whether to a client of its own process.
		reach func(b *zpipes.Broker) string
	}{
		{"direct", (*zpipes.Broker).Name},
		{"near", func(b *zpipes.Broker) string { return endpoint(b, "unix://") }},
		{"ipc", func(b *zpipes.Broker) string { return endpoint(b, "ipc://") }},
		{"inproc", func(b *zpipes.Broker) string { return endpoint(b, "inproc://") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			b, err := zpipes.NewBroker("")
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			nettest.TestConn(t, func() (dialled, accepted net.Conn, stop func(), err error) {
				return connected(way.reach(b))
			})
		})
	}
}

// endpoint is the broker's of that kind.
func endpoint(b *zpipes.Broker, scheme string) string {
	for _, e := range b.Endpoints() {
		if len(e) >= len(scheme) && e[:len(scheme)] == scheme {
			return e
		}
	}
	return ""
}

// connected makes a connection, each end of which is another client's.
func connected(broker string) (dialled, accepted net.Conn, stop func(), err error) {
	ctx := context.Background()
	here, err := zpipes.NewClient(broker)
	if err != nil {
		return nil, nil, nil, err
	}
	there, err := zpipes.NewClient(broker)
	if err != nil {
		return nil, nil, nil, err
	}
	stop = func() {
		for _, n := range []net.Conn{dialled, accepted} {
			n.(*zpipes.Conn).CloseWithError(net.ErrClosed) // a test does not read all
		}
		here.Close()
		there.Close()
	}
	l, err := there.Listen(ctx, "conn")
	if err != nil {
		return nil, nil, nil, err
	}
	if dialled, err = here.Dial(ctx, "conn"); err != nil {
		return nil, nil, nil, err
	}
	if accepted, err = l.Accept(); err != nil {
		return nil, nil, nil, err
	}
	return dialled, accepted, stop, l.Close()
}
