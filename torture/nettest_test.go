package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/cluster"
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
				to := endpoint(b, way.reach)
				return connected(to, to)
			})
		})
	}
}

// So are those between brokers of a cluster.
func TestConnectionsBetweenBrokers(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(zpipes.NewKey().Secret()), 0o600); err != nil {
		t.Fatal(err)
	}
	var brokers []*zpipes.Broker
	var join []string
	for range 2 {
		address, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		cfg := zpipes.BrokerConfig{Endpoints: []string{}, Cluster: cluster.Config{KeyFile: key, Listen: address, Advertise: address, Join: join}}
		b, err := cfg.NewBroker("")
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		brokers, join = append(brokers, b), append(join, address)
	}
	if err := eventually(meetingTime, "brokers that meet", func() bool {
		time.Sleep(10 * time.Millisecond)
		return missing(brokers) == 0
	}); err != nil {
		t.Fatal(err)
	}
	nettest.TestConn(t, func() (dialled, accepted net.Conn, stop func(), err error) {
		return connected(brokers[0].Name(), brokers[1].Name())
	})
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

// connected makes a connection from one broker to another, or to itself, each end of which is another client's.
func connected(from, to string) (dialled, accepted net.Conn, stop func(), err error) {
	ctx := context.Background()
	here, err := zpipes.NewClient(from)
	if err != nil {
		return nil, nil, nil, err
	}
	there, err := zpipes.NewClient(to)
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
	var refused error
	err = eventually(meetingTime, "a listener that is known", func() bool {
		dialled, refused = here.DialContext(ctx, "zpipes", "conn")
		return from == to || !errors.Is(refused, zpipes.ErrNoListener)
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, nil, nil, err
	}
	if accepted, err = l.Accept(); err != nil {
		return nil, nil, nil, err
	}
	return dialled, accepted, stop, l.Close()
}
