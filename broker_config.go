//go:build !core

package zpipes

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"
)

// BrokerConfig holds the options of a broker; a zero field means its default.
type BrokerConfig struct {
	// Endpoints to serve beside inproc://zpipes/NAME: ipc://PATH, ipc://@NAME
	// (an abstract socket of Linux), or tcp on loopback (anywhere with a Key),
	// where the port may be * and localhost is 127.0.0.1; and near doors, unix://PATH or unix://@NAME,
	// which need no ZeroMQ. Beside each ipc endpoint there is a near door, at
	// PATH.near or @NAME.near. While the broker serves PATH, it also uses
	// PATH.lock. nil: the ipc endpoint at which clients look for a broker of
	// that name (in a program without libzmq its near door alone). Empty but
	// not nil: this process alone. Without an endpoint of ZeroMQ's the broker
	// starts nothing of it.
	Endpoints []string

	// Private serves a socket in a directory of mode 0700 that is this user's:
	// $XDG_RUNTIME_DIR/zpipes, or zpipes-UID beside other temporary files. It
	// comes in addition to Endpoints, and in place of the endpoint that nil
	// means there. On Linux other users can connect to that usual endpoint, to
	// be refused, and can take its name while it is free; here they can do
	// neither. Clients of the same user with the same environment find the
	// broker by its name, before they look at the usual place.
	Private bool

	// Context is the ZeroMQ context (a *zmq4.Context) of the broker's socket;
	// nil: one of its own, where an endpoint needs it. Share yours to reach
	// inproc://zpipes/NAME from ZeroMQ sockets of yours. Close does not
	// terminate it, and you must not do so before Close. In a context of its
	// own the broker decides who may connect before it receives anything from
	// them; in a shared one, where a ZAP handler would be yours, it decides at
	// the first message. docs/RELIABILITY.md says what that leaves to
	// strangers.
	Context *ZeroMQContext

	// ClientTimeout is how long a client of the base protocol may be silent
	// before it is dropped; default 10 s. One that waits for an answer is not
	// silent as long as its connection is there; when the connection has ended,
	// it is dropped within 3 s (Linux). A client of this library is dropped
	// after missing four of its own heartbeats.
	ClientTimeout time.Duration

	// MaxPending is how many bytes a pipe holds before writes wait; default 1
	// MiB, below 2 GiB. A larger message is taken when the pipe is empty, and
	// any message is taken while the reader waits for more than there is.
	MaxPending int

	// MaxMessage is the size in bytes of the largest chunk that a client may
	// write at once from another process; default 16 MiB, at least 256 KiB. A larger one
	// ends its connection. A READ for more bytes fails as soon as this many are
	// there.
	MaxMessage int

	// Dir is a directory for durable queues (QueueConfig.Durable), which is made
	// where there is none; empty: no queue is durable. One broker at a time can
	// have it. When the broker starts, the queues in it are there again. Whoever
	// can read it can read what they hold; it is made for this user alone.
	Dir string

	// MaxDisk is how many bytes all durable queues may take on the disk; beyond
	// it, what is sent to them waits, while jobs can be taken and done. A queue
	// that is used takes 6 MiB at least, and 12 MiB now and then. Default: as
	// many bytes as the disk has.
	MaxDisk int64

	// MaxPipes is how many pipes there may be, including those whose name is
	// free but that an end still holds, two for each connection, and listeners'
	// names; and how often queues may be open.
	// Default 65536. The next open is refused with ErrTooManyPipes.
	MaxPipes int

	// Backlog is how many connections there may be at one name that were dialled
	// and not accepted yet; default 128. Beyond that dials wait.
	Backlog int

	// PerClient limits what one connection holds, and PerUser what
	// all connections of one user hold together (those of one key count as one
	// user, and so do all over tcp that have none). The defaults are 32768 and 49152 ends, 256 MiB and 2 GiB,
	// 262144 and 1048576 requests. Clients in this process that use the broker
	// directly have no limits.
	PerClient, PerUser Limits

	// AllowUIDs are the users who may connect over ipc and at near doors,
	// besides root and the broker's own user. Others are refused with fs.ErrPermission. If it is
	// set, the permissions of a socket at a path are open to all (0666), and
	// the broker decides. (A tcp endpoint serves every user of this machine.)
	// Where the system does not say who comes (at near doors it does on Linux, macOS and
	// FreeBSD, over ipc on Linux), a broker with AllowUIDs has no such endpoint: NewBroker
	// returns an error that is errors.ErrUnsupported. Without AllowUIDs a socket at a path
	// is closed to others there (0600).
	// In a user namespace, such as a rootless container's, all users who have
	// no place in it appear as one number, mostly 65534. That number is
	// nobody's own there, not even the broker's, and to allow it is to allow
	// them all.
	AllowUIDs []int

	// Key encrypts tcp: with it the broker serves tcp endpoints at any address
	// (tcp://HOST:PORT, or tcp://*:PORT for all that the machine has), loopback
	// as well, to clients that have the same secret, and to those in AllowKeys.
	// NewKey and the command "zpipes key" make one. A Key of several secrets
	// serves the clients of each; SetKeys replaces it. It needs a Context of
	// the broker's own, and a libzmq that has CURVE. docs/MACHINES.md shows how
	// to set it up.
	Key Key

	// AllowKeys are the public keys (Key.ClientKeys) of clients that may
	// connect by tcp with a Key of their own, which does not make them able to
	// run a broker, or let others in. They may also be in the form that
	// ZeroMQ's tools print.
	AllowKeys []string

	// Cluster makes the broker act as one with brokers of other machines:
	// cluster.Config, of the module github.com/zpipes/zpipes/cluster. nil: it is
	// alone, and pays nothing. docs/MACHINES.md shows how to set it up.
	Cluster Cluster

	// Allow is asked before a client in another process, or over inproc, opens a pipe, listens, dials, deletes a queue
	// or reads the status. An error refuses that, with fs.ErrPermission and the
	// error's text. Allow may take its time: only the request it is asked about
	// waits, and later requests of the same client for the same pipe. It runs
	// on goroutines of the broker's, at most 64 at once and 4 for one client,
	// and may use this broker. If it panics, that is a refusal. Close waits for
	// it for 0.3 s at most. nil: all is allowed.
	Allow func(Access) error

	// ForgetQueues is how long a queue stays after nobody has it open any more.
	// Then it is deleted, with what is in it. 0: it stays until DeleteQueue or
	// the end of the broker.
	ForgetQueues time.Duration

	// Logger gets what an operator wants to know: the broker's start and end,
	// and clients that expire, break the protocol, or may not connect. Its
	// handler is called by a goroutine of its own, for which nobody waits.
	// Lines that are too many for the handler, or of which one kind comes too
	// often, are left out; a line says how many. When Close returns, earlier
	// lines have been written, if that takes less than 0.3 s. nil: silence.
	Logger *slog.Logger
}

const (
	defaultClientTimeout = 10 * time.Second
	defaultMaxPending    = 1 << 20
	defaultMaxMessage    = 16 << 20
	leastMaxMessage      = frameSegment
	defaultMaxPipes      = 65536
)

func (cfg BrokerConfig) withDefaults() (BrokerConfig, error) {
	if cfg.ClientTimeout < 0 || cfg.MaxPending < 0 || cfg.MaxMessage < 0 || cfg.MaxPipes < 0 || cfg.Backlog < 0 || cfg.MaxDisk < 0 || cfg.ForgetQueues < 0 {
		return cfg, errors.New("a negative value in BrokerConfig; use zero for the default")
	}
	cfg.AllowUIDs = slices.Clone(cfg.AllowUIDs) // what becomes of the caller's does not matter
	if cfg.ClientTimeout == 0 {
		cfg.ClientTimeout = defaultClientTimeout
	}
	if cfg.MaxPending > math.MaxInt32 {
		return cfg, fmt.Errorf("BrokerConfig.MaxPending is %d; it must be below 2 GiB", cfg.MaxPending)
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	if cfg.MaxMessage < leastMaxMessage || cfg.MaxMessage > math.MaxInt32 {
		return cfg, fmt.Errorf("BrokerConfig.MaxMessage is %d; it must be from %d to %d", cfg.MaxMessage, leastMaxMessage, math.MaxInt32)
	}
	if cfg.Backlog == 0 {
		cfg.Backlog = defaultBacklog
	}
	if cfg.MaxPipes == 0 {
		cfg.MaxPipes = defaultMaxPipes
	}
	var err error
	if cfg.PerClient, err = cfg.PerClient.withDefaults(defaultPerClient); err != nil {
		return cfg, err
	}
	if cfg.PerUser, err = cfg.PerUser.withDefaults(defaultPerUser); err != nil {
		return cfg, err
	}
	return cfg, nil
}
