package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/zpipes/zpipes"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

// ways to a broker.
var ways = []struct {
	name   string
	broker zpipes.BrokerConfig
	reach  string // the scheme of the endpoint by which clients come; empty: by name
}{
	{name: "direct"},
	{"near", zpipes.BrokerConfig{}, "unix://"},
	{"ipc", zpipes.BrokerConfig{}, "ipc://"},
	{"inproc", zpipes.BrokerConfig{}, "inproc://"},
	{"memory", zpipes.BrokerConfig{Endpoints: []string{}}, "inproc://"},
}

// What the net package's own connections are held to, ours are, too, in each way to a broker;
// and nothing is left behind.
func TestConnections(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			b, err := way.broker.NewBroker("")
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			nettest.TestConn(t, func() (dialled, accepted net.Conn, stop func(), err error) {
				return connected(endpoint(b, way.reach))
			})
		})
	}
}

// endpoint is the broker's of that kind, or its name.
func endpoint(b *zpipes.Broker, scheme string) string {
	if scheme == "" {
		return b.Name()
	}
	for _, e := range b.Endpoints() {
		if strings.HasPrefix(e, scheme) {
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
