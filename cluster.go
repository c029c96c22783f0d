//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"time"
)

// A Cluster connects a broker with those of other machines, so that they act as
// one: what is opened at one of them finds its other end wherever that is. The
// module github.com/zpipes/zpipes/cluster has the one to use, whose Config is a
// Cluster.
//
// It is for the connections themselves: who may make them, and encryption. The
// broker does the rest.
type Cluster interface {
	// Open begins to listen. NewBroker calls it once, and fails if it does.
	Open(ClusterHost) (ClusterPort, error)
}

// A ClusterHost is what a broker gives to a Cluster. All may be called from any
// goroutine, and none waits for anything.
type ClusterHost struct {
	// Broker is the broker's name.
	Broker string
	// Accept takes a connection over that has come from another broker, which has
	// shown that it belongs to the cluster.
	Accept func(net.Conn)
	// Enter counts a connection from somebody who has yet to show that, until leave;
	// or says that there are too many.
	Enter func(net.Conn) (leave func(), err error)
	// Refused records that somebody at that address is not let in.
	Refused func(address string, why error)
	// Log writes a line to BrokerConfig.Logger.
	Log func(message string, args ...any)
}

// A ClusterPort is what a broker gets from a Cluster.
type ClusterPort interface {
	// Dial connects to the broker at that address, which has to show that it
	// belongs to the cluster. It tries again by itself where the system is not
	// told of a failure. Close of what it returns, and of what goes to Accept, waits
	// for nothing.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Address is where others connect to: HOST:PORT, or :PORT at the address from
	// which the broker comes to them.
	Address() string
	// Join are the addresses of brokers with which to begin.
	Join() []string
	// Patience is how long a broker may be out of reach before ends that are open
	// across fail.
	Patience() time.Duration
	// Close ends what Open has begun. Connections that were made stay.
	Close() error
}

// Members yields the brokers of the cluster as this one sees them, itself first,
// the others by name. A broker without BrokerConfig.Cluster has none.
func (b *Broker) Members() iter.Seq[Member] { return slices.Values(b.members()) }

func (b *Broker) members() []Member {
	if b.mesh == nil {
		return nil
	}
	return b.mesh.list()
}

// LeaveCluster has the broker leave its cluster (BrokerConfig.Cluster) and go on
// alone until it ends, soon. The queues that it has in memory alone are handed over to
// another broker, for up to a second. The others forget it; streams to and from them end with
// an error. A broker that belongs to none is left as it is. It connects if need be,
// and waits until ctx ends or ClientConfig.Timeout has passed. The errors are those
// of Client.Status.
func (c *Client) LeaveCluster(ctx context.Context) error {
	err := c.reach(ctx, func(_ context.Context, b *Broker) error {
		b.leaveCluster()
		return b.pipes.refusal()
	}, func(ctx context.Context) error {
		return c.onConn(ctx, c.endpoint, func(k *conn) error {
			if err := k.needExtension("clusters"); err != nil {
				return err
			}
			const name = "cluster" // which nobody looks at
			s := newChunkQueue(name, noLimit, noLimit, time.Time{})
			err := k.openQueue(ctx, k.newQueueLink(nil, s, new(senderQueue), modeLeave))
			if errors.Is(err, ErrPipeMode) {
				err = fmt.Errorf("%w: the broker is of an earlier version, which has no clusters", errors.ErrUnsupported)
			}
			return err
		})
	})
	if err != nil {
		return c.opError("leave cluster", "", err)
	}
	return nil
}
