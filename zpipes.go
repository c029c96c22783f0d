package zpipes

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// Find these errors with errors.Is in whatever a call returns. Besides them,
// fs.ErrPermission means that this process may not use the broker, or may not
// do that with it, or that the broker runs as a user whom the client does not
// trust; and errors.ErrUnsupported means that the broker knows only the base
// protocol.
var (
	// ErrBadName: a broker's name is 1 to 64 letters, digits, '.', '_' or '-';
	// a pipe's is 1 to 255 bytes, none of them NUL. Also an endpoint that is
	// malformed, or of a kind that this package does not speak.
	ErrBadName = errors.New("bad name")

	// While opening.

	// ErrNoBroker: no broker answered in time under that name or endpoint.
	ErrNoBroker = errors.New("no broker")
	// ErrBrokerExists: there is a broker of that name on this machine, or
	// somebody else serves one of the endpoints.
	ErrBrokerExists = errors.New("broker exists")
	// ErrPipeBusy: the pipe has a reader (or a writer) already.
	ErrPipeBusy = errors.New("pipe busy")
	// ErrPipeMode: the name belongs to another kind than was asked for: to a
	// stream, a queue, a broadcast, or a listener.
	ErrPipeMode = errors.New("wrong kind of pipe")
	// ErrTooManyPipes: the broker holds BrokerConfig.MaxPipes pipes, or this
	// client or user has as many ends open as PerClient or PerUser allow.
	ErrTooManyPipes = errors.New("too many pipes")

	// ErrNoListener: nobody listens at that name. It is syscall.ECONNREFUSED, too.
	ErrNoListener error = noListener{}

	// Afterwards.

	// ErrTooLarge: the chunk is larger than the queue takes.
	ErrTooLarge = errors.New("too large")
	// ErrLeaseLost: the job that was taken is not this worker's any more. Its
	// lease has ended, the connection was lost, the Queue was closed, or the
	// job is settled. Somebody else may have it.
	ErrLeaseLost = errors.New("lease lost")

	// ErrTooSlow: this Reader of a broadcast has held up the writer for longer than
	// BroadcastConfig.Patience, and was left behind. A *MissedError says how much it
	// has missed.
	ErrTooSlow = errors.New("reader too slow")

	// ErrBrokerGone: the broker has closed or died, no longer answers, or has
	// dropped this end. What was open stays dead; open it again.
	ErrBrokerGone = errors.New("broker gone")
)

type noListener struct{}

func (noListener) Error() string { return "nobody listens there" }

func (noListener) Is(target error) bool { return target == syscall.ECONNREFUSED }

// OpError is the error of a call that failed. The exceptions are io.EOF, which
// Read returns bare; the errors of the source and the destination in ReadFrom
// and WriteTo; and the error of the context in Shutdown.
type OpError struct {
	// Op is what was tried: "start broker", "shut down", "new client", "ping",
	// "status", "stat"; "open reader", "read", "set read deadline"; "open writer",
	// "open broadcast", "write", "flush", "close writer", "set write deadline"; "open queue",
	// "send", "flush", "receive", "close queue", "delete queue"; "take",
	// "done", "return", "reject", "extend", "peek jobs", "purge jobs",
	// "redrive jobs"; "set keys", "leave cluster", "repair queues".
	Op     string
	Broker string // the broker's name or endpoint
	Pipe   string // the pipe's name, or empty
	Err    error  // why it failed
}

func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString("zpipes: " + e.Op)
	if e.Pipe != "" {
		fmt.Fprintf(&b, " %q", e.Pipe)
	}
	if e.Broker != "" {
		fmt.Fprintf(&b, " at broker %q", e.Broker)
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap returns Err, for errors.Is and errors.As.
func (e *OpError) Unwrap() error { return e.Err }

// Timeout reports whether a deadline ended the call, as net.Error has it.
func (e *OpError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// Temporary is Timeout, for those who still want a net.Error.
func (e *OpError) Temporary() bool { return e.Timeout() }

var _ net.Error = (*OpError)(nil)

// UndeliveredError is wrapped in the error of Flush and Close (use errors.As)
// when bytes that Write or Send had accepted were not confirmed: at most Bytes
// of them did not reach the broker. If Bytes is 0, only the end of the stream
// was not confirmed: perhaps nobody has learnt of it.
type UndeliveredError struct {
	Bytes int64
	Err   error // what kept them from it
}

func (e *UndeliveredError) Error() string {
	if e.Bytes == 0 {
		return fmt.Sprintf("undelivered: %v", e.Err)
	}
	return fmt.Sprintf("%d bytes undelivered: %v", e.Bytes, e.Err)
}

// Unwrap returns Err, for errors.Is and errors.As.
func (e *UndeliveredError) Unwrap() error { return e.Err }

// MissedError is wrapped in the error of Read (use errors.As) when the Reader of a
// broadcast was left behind: of what had been written until then, it did not get
// the last Bytes, nor anything later.
type MissedError struct {
	Bytes int64
	Err   error // ErrTooSlow
}

func (e *MissedError) Error() string { return fmt.Sprintf("%v: %d bytes missed", e.Err, e.Bytes) }

// Unwrap returns Err, for errors.Is and errors.As.
func (e *MissedError) Unwrap() error { return e.Err }

// PipeInfo describes a pipe at one moment.
type PipeInfo struct {
	Name     string        `json:"name"`
	Mode     Mode          `json:"mode"`
	Reader   bool          `json:"reader"`        // of a stream: a reader is attached, or its open is about to return
	Writer   bool          `json:"writer"`        // of a stream: likewise a writer
	Reads    bool          `json:"reads"`         // more is asked for than there is; between processes readers ask ahead
	Writes   bool          `json:"writes"`        // something waits for room, or for a reader; between processes it may only seem so where the pipe is full
	Readers  int           `json:"readers"`       // of a broadcast: how many readers there are
	Lag      int           `json:"lag_bytes"`     // of a broadcast: how far the slowest of them is behind
	Users    int           `json:"users"`         // of a queue: how many have it open
	Queued   int           `json:"queued_bytes"`  // bytes written and not read yet; of a broadcast, and those it keeps
	Chunks   int           `json:"queued_chunks"` // of a queue: how many chunks these are
	Taken    int           `json:"taken_jobs"`    // of them, how many somebody has, or is about to get
	Delayed  int           `json:"delayed_jobs"`  // how many are not due yet
	Dead     int           `json:"dead_jobs"`     // how many nobody gets any more
	Oldest   time.Duration `json:"oldest_ns"`     // of a queue: since when the oldest one waits that is ready
	Handed   int64         `json:"deliveries"`    // of a queue: how often a chunk was handed out
	Durable  bool          `json:"durable"`       // of a queue: it outlives the broker
	Disk     int64         `json:"disk_bytes"`    // of a durable queue: what it takes on the disk
	Syncs    int64         `json:"syncs"`         // how often it was synced, since the broker began
	Syncing  time.Duration `json:"sync_ns"`       // and how long that took together, with the sync that is under way
	BytesIn  int64         `json:"bytes_in"`      // bytes ever written
	BytesOut int64         `json:"bytes_out"`     // bytes ever read; of a broadcast, by all its readers together
	Age      time.Duration `json:"age_ns"`        // since the first end opened
	Idle     time.Duration `json:"idle_ns"`       // of a queue: how long nobody has had it open, or used it by text

	// Unusable is why a durable queue is refused, if it can't be read from the disk, or not yet.
	Unusable string `json:"unusable,omitempty"`

	// Of a listener's name, where Reads means that somebody waits in Accept, and
	// Writes that somebody waits to be accepted.
	Listeners   int `json:"listeners,omitempty"`   // how many listen there
	Waiting     int `json:"waiting,omitempty"`     // how many have dialled, and were not accepted yet
	Connections int `json:"connections,omitempty"` // how many connections there are, those that wait included

	// Of a stream whose reader, or writer, is at another broker of the cluster, or a
	// broadcast whose writer is: that one, as BROKER@HOST.
	ReaderAt string `json:"reader_at,omitempty"`
	WriterAt string `json:"writer_at,omitempty"`

	// Of a queue whose home is another broker of the cluster: that one, as BROKER@HOST. Users are
	// those of this broker; what is queued is on its way there.
	HomeAt string `json:"home_at,omitempty"`

	// NameBase64 is set in a Status if Name is not UTF-8, which JSON can't
	// carry.
	NameBase64 string `json:"name_base64,omitempty"`
}

// Mode is the kind of a pipe.
type Mode byte

const (
	ModeStream    Mode = iota // bytes, from one Writer to one Reader
	ModeQueue                 // whole chunks, for any number of Queues
	ModeListener              // where Listeners take connections; each of those is two pipes that have no name
	ModeBroadcast             // bytes, from one Writer to any number of Readers
)

func (m Mode) String() string {
	switch m {
	case ModeQueue:
		return "queue"
	case ModeListener:
		return "listener"
	case ModeBroadcast:
		return "broadcast"
	}
	return "stream"
}

// MarshalText returns the mode's name, for JSON and the like.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText takes the mode's name.
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "stream":
		*m = ModeStream
	case "queue":
		*m = ModeQueue
	case "listener":
		*m = ModeListener
	case "broadcast":
		*m = ModeBroadcast
	default:
		return fmt.Errorf("%q is no mode of a pipe", text)
	}
	return nil
}

// BrokerStats counts what a broker has done since it began. Subtract an earlier
// one to get rates.
type BrokerStats struct {
	Pipes      int   `json:"pipes"`      // pipes that exist now
	Clients    int   `json:"clients"`    // connections of clients now
	Near       int   `json:"near"`       // those of them that came through near doors, without ZeroMQ
	Opened     int64 `json:"opened"`     // pipe ends opened
	Refused    int64 `json:"refused"`    // opens refused
	Expired    int64 `json:"expired"`    // connections dropped, as silent or gone, with ends open
	Violations int64 `json:"violations"` // messages that broke the protocol
	Denied     int64 `json:"denied"`     // clients refused, once for each try, and requests that Allow refused
	BytesIn    int64 `json:"bytes_in"`   // bytes written into pipes
	BytesOut   int64 `json:"bytes_out"`  // bytes read from pipes
}

// Sub returns the difference of the counters since an earlier snapshot; Pipes,
// Clients and Near stay what they are now.
func (s BrokerStats) Sub(earlier BrokerStats) BrokerStats {
	s.Opened -= earlier.Opened
	s.Refused -= earlier.Refused
	s.Expired -= earlier.Expired
	s.Violations -= earlier.Violations
	s.Denied -= earlier.Denied
	s.BytesIn -= earlier.BytesIn
	s.BytesOut -= earlier.BytesOut
	return s
}

func checkBrokerName(name string) error {
	if len(name) == 0 || len(name) > 64 {
		return fmt.Errorf("%w: a broker's name has 1 to 64 characters, this one %d", ErrBadName, len(name))
	}
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: %q has %q; use letters, digits, '.', '_' and '-'", ErrBadName, name, c)
		}
	}
	return nil
}

func checkPipeName(name string) error {
	switch {
	case len(name) == 0 || len(name) > maxString:
		return fmt.Errorf("%w: a pipe's name has 1 to %d bytes, this one %d", ErrBadName, maxString, len(name))
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: a pipe's name has no NUL byte", ErrBadName)
	}
	return nil
}
