//go:build cgo && !core

package zpipes

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/pebbe/zmq4"
)

// BrokerConfig holds the options of a broker; a zero field means its default.
type BrokerConfig struct {
	// Endpoints to serve beside inproc://zpipes/NAME: ipc://PATH, ipc://@NAME
	// (Linux's abstract sockets) or tcp on loopback, where the port may be *; localhost
	// is 127.0.0.1 there. PATH.lock is the broker's, too, while it serves the path.
	// nil: the one endpoint at which clients look for a broker of that name;
	// empty but not nil: inproc alone.
	Endpoints []string

	// Private serves a socket in a directory of mode 0700 that is this user's, beside
	// Endpoints, and instead of the one that nil means there: $XDG_RUNTIME_DIR/zpipes,
	// or zpipes-UID beside other temporary files. On Linux other users may connect to
	// the usual endpoint, to be refused, or take its name while it is free; they can't
	// do either here. Clients of the same user, with the same environment, find the
	// broker by its name, before they look at the usual place.
	Private bool

	// Context is where the broker's socket is made; nil: one of its own. Share
	// it to reach inproc://zpipes/NAME from ZeroMQ sockets of yours. Close does
	// not terminate it; do not do so before Close. In a context of its own the
	// broker decides who may connect before anything is received from there; in a
	// shared one, where a ZAP handler would be yours, with the first message; what
	// that leaves to strangers is in docs/RELIABILITY.md.
	Context *zmq4.Context

	// ClientTimeout is how long a client of the base protocol may be silent
	// before it is dropped; default 10 s. One that waits for an answer is not
	// silent as long as its connection is there, and where that has ended it is
	// dropped within 3 s (Linux). A client of this library is dropped after
	// missing four of its own heartbeats.
	ClientTimeout time.Duration

	// MaxPending is how many bytes a pipe holds before writes wait; default
	// 1 MiB, below 2 GiB. A message that is larger is taken when the pipe is
	// empty, and any is where the reader waits for more than there is.
	MaxPending int

	// MaxMessage is the size in bytes of the largest chunk that a client of the
	// protocol may write at once; default 16 MiB, at least 256 KiB. A larger one
	// ends its connection. A READ for more fails once so much is there.
	MaxMessage int

	// MaxPipes is how many pipes there may be, with those whose name is free
	// but that an end still holds; and how many may have queues open. Default 65536.
	// The next open is refused with ErrTooManyPipes.
	MaxPipes int

	// PerClient limits what one connection over ZeroMQ holds, and PerUser all
	// connections of one user together (all those over tcp count as one). The
	// defaults are 32768 and 49152 ends, 256 MiB and 2 GiB, 262144 and 1048576
	// requests. Clients in this process that use the broker directly have no limits.
	PerClient, PerUser Limits

	// AllowUIDs are the users who may connect over ipc, besides root and the user
	// that the broker runs as. A socket with a path is then open to all by its own
	// permissions (0666), and the broker decides. (Whoever may open a tcp endpoint of this machine may
	// connect over that.) Others are refused with fs.ErrPermission. In a user namespace,
	// as of a rootless container, the number as which all users appear who have no place
	// in it, mostly 65534, stands for all of them: it is not even this broker's own, and
	// to allow it allows them all.
	AllowUIDs []int

	// Allow is asked before a client outside of this process, or over inproc, opens
	// a pipe, deletes a queue or reads the status; an error refuses that, with
	// fs.ErrPermission and its text. It may take its time: only what it is asked about
	// waits, and what the client asked for behind that on the same pipe. It is called by
	// goroutines of the broker's, 64 at once at most and 4 for one client, others wait; and
	// it may use this broker. Where it panics, that is a refusal. What it says of a client
	// that is gone is of no account. Close waits for it, but for 0.3 s at most. nil: all is
	// allowed.
	Allow func(Access) error

	// ForgetQueues is how long a queue stays that nobody has open any more. Then it
	// is deleted, with what is in it. 0: it stays until DeleteQueue or the broker's end.
	ForgetQueues time.Duration

	// Logger gets what an operator wants to know: the broker's start and end,
	// clients that expire, break the protocol, or may not connect. Its handler is called
	// by one goroutine of its own, for which nobody waits: what is too much for it is left
	// out, and what comes too often, too, with a line that counts it. What came before
	// Close has been written when Close returns, if that takes less than 0.3 s. nil:
	// silence.
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
	if cfg.ClientTimeout < 0 || cfg.MaxPending < 0 || cfg.MaxMessage < 0 || cfg.MaxPipes < 0 || cfg.ForgetQueues < 0 {
		return cfg, errors.New("a negative value in BrokerConfig; use zero for the default")
	}
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
