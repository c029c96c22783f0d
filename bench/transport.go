package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/zpipes/zpipes"
)

// A transport brings streams of bytes from their writers to their readers. Where
// these are processes, each has a transport of its own and plays its part with
// it; in one process, all parts are played with the same one.
type transport interface {
	// serve starts what stands in the middle, and returns how to reach it.
	serve() (address string, err error)
	// reader and writer open an end of the i-th stream. The readers of all
	// processes are opened before the first writer.
	reader(i int) (source, error)
	writer(i int) (io.Writer, error)
}

// A source is the reading end of a stream. next returns what arrives, in pieces
// that are valid until the next call. Where a source is also an io.WriterTo, that
// is preferred.
type source interface {
	next() ([]byte, error)
}

// readBuffer is the least size of the buffers that are read into.
const readBuffer = 64 << 10

// reading is a source that calls Read.
type reading struct {
	from io.Reader
	buf  []byte
}

func newReading(r io.Reader, size int) *reading {
	return &reading{r, make([]byte, max(size, readBuffer))}
}

func (r *reading) next() ([]byte, error) {
	n, err := r.from.Read(r.buf)
	if n > 0 {
		return r.buf[:n], nil
	}
	return nil, err
}

// drink adds all that arrives to a tally.
func drink(s source, t *tally) error {
	if w, ok := s.(io.WriterTo); ok {
		_, err := w.WriteTo(t)
		return err
	}
	for {
		b, err := s.next()
		if err != nil {
			return err
		}
		t.add(b)
	}
}

// Task is what the processes of one measurement are told.
type Task struct {
	Job       string // see jobs
	Transport string // see transports
	Size      int    // bytes of a write
	Streams   int    // how many at once, senders and receivers of a queue, or readers of one stream
	Dir       string // for sockets with a path
	Address   string // what serve returned
	Prefix    string // of streams' names, where others may be at that address
	Profile   string // where to write a CPU profile, or empty
	MaxPipes  int    // of zpipes' broker; 0: its default
	Secret    string // of zpipes' clients, for tcp; or empty
	Patient   bool   // clients of zpipes wait longer than they do by default
	Beside    string // for pings: where the broker's process says everything back; or empty
}

// transports by name.
var transports = map[string]func(Task) transport{
	"zpipes":          func(t Task) transport { return &pipes{Task: t} },
	"zpipes, WriteTo": func(t Task) transport { return &pipes{Task: t, writeTo: true} },
	"zpipes over ipc": func(t Task) transport { return &pipes{Task: t, overIPC: true} },
	"io.Pipe":         func(t Task) transport { return &goPipes{Task: t, make: ioPipe} },
	"os.Pipe":         func(t Task) transport { return &goPipes{Task: t, make: osPipe} },
	inCluster:         func(t Task) transport { return &pipes{Task: t, clustered: true} },
	betweenBrokers:    func(t Task) transport { return &pipes{Task: t, clustered: true, across: true} },
	"FIFO":            func(t Task) transport { return fifos{Task: t} },
	"Unix socket":     func(t Task) transport { return unixSockets{Task: t} },
	"loopback TCP":    func(t Task) transport { return &tcpSockets{Task: t} },
	"zmq.Proxy":       func(t Task) transport { return &proxied{Task: t} },
	"DEALER/ROUTER":   func(t Task) transport { return &bare{proxied: proxied{Task: t}} },
	encryptedZpipes:   newKeyedPipes,
	encryptedBare:     func(t Task) transport { return &keyedBare{bare{proxied: proxied{Task: t}}} },
	"NATS":            func(t Task) transport { return &nats{Task: t} },

	"zpipes, broadcast":          func(t Task) transport { return &broadcasts{pipes{Task: t}} },
	"zpipes over ipc, broadcast": func(t Task) transport { return &broadcasts{pipes{Task: t, overIPC: true}} },
	"NATS, broadcast":            func(t Task) transport { return &natsToAll{nats{Task: t}} },
	"io.Pipe to each":            func(t Task) transport { return toEach{&goPipes{Task: t, make: ioPipe}} },
	"Unix socket to each":        func(t Task) transport { return toEach{unixSockets{Task: t}} },

	"zpipes, queue":    func(t Task) transport { return &queues{pipes{Task: t}} },
	"Go channel":       func(t Task) transport { return &channel{Task: t} },
	"NATS queue group": func(t Task) transport { return &natsGroup{nats{Task: t}} },
	"JetStream":        func(t Task) transport { return &workQueue{nats{Task: t}} },
}

// pipes is zpipes: a client that is given the broker's name finds the best way by
// itself, which is directly in one process; one that is given an ipc endpoint uses
// ZeroMQ.
type pipes struct {
	Task
	writeTo   bool
	overIPC   bool
	clustered bool // the broker is one of two of a cluster
	across    bool // and readers are at the other one
	broker    *zpipes.Broker
	shared    *zpipes.Client
}

func (p *pipes) serve() (_ string, err error) {
	var b *zpipes.Broker
	if p.clustered {
		b, err = p.serveCluster()
	} else {
		b, err = zpipes.BrokerConfig{MaxPipes: p.MaxPipes}.NewBroker("")
	}
	if err != nil {
		return "", err
	}
	return p.servedBy(b)
}

// servedBy is where the broker is found.
func (p *pipes) servedBy(b *zpipes.Broker) (_ string, err error) {
	p.broker, p.Address = b, b.Name()
	if p.overIPC {
		p.Address, err = ipcEndpoint(b)
	}
	return p.Address, err
}

// ipcEndpoint is where a broker is served over ZeroMQ.
func ipcEndpoint(b *zpipes.Broker) (string, error) {
	for _, e := range b.Endpoints() {
		if strings.HasPrefix(e, "ipc://") {
			return e, nil
		}
	}
	return "", fmt.Errorf("no ipc endpoint among %q", b.Endpoints())
}

func (p *pipes) name(i int) string { return fmt.Sprint(p.Prefix, "stream ", i) }

// client is one for all ends of this process.
func (p *pipes) client() (*zpipes.Client, error) {
	if p.shared == nil {
		c, err := p.newClient()
		if err != nil {
			return nil, err
		}
		p.shared = c
	}
	return p.shared, nil
}

func (t Task) newClient() (*zpipes.Client, error) {
	var c zpipes.ClientConfig
	if t.Patient {
		c.Timeout, c.Heartbeat = callTime, patience
	}
	if t.Secret != "" {
		var err error
		if c.Key, err = zpipes.ParseKey(t.Secret); err != nil {
			return nil, err
		}
	}
	return c.NewClient(t.Address)
}

func (p *pipes) reader(i int) (source, error) {
	if p.across && p.shared == nil {
		p.Address += otherMember
	}
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	r, err := c.OpenReader(context.Background(), p.name(i))
	if err != nil {
		return nil, err
	}
	plain := newReading(r, p.Size)
	if p.writeTo {
		return copying{plain, r}, nil
	}
	return plain, nil
}

// copying is a source that prefers WriteTo.
type copying struct {
	*reading
	io.WriterTo
}

func (p *pipes) writer(i int) (io.Writer, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	return c.OpenWriter(context.Background(), p.name(i))
}

// goPipes are what Go has for one process. Nothing stands in the middle, but
// serve is where both ends can be made.
type goPipes struct {
	Task
	make    func() (io.Reader, io.Writer, error)
	readers []io.Reader
	writers []io.Writer
}

func ioPipe() (io.Reader, io.Writer, error) {
	r, w := io.Pipe()
	return r, w, nil
}

func osPipe() (io.Reader, io.Writer, error) { return os.Pipe() }

func (p *goPipes) serve() (string, error) {
	for range p.Streams {
		r, w, err := p.make()
		if err != nil {
			return "", err
		}
		p.readers = append(p.readers, r)
		p.writers = append(p.writers, w)
	}
	return "", nil
}

func (p *goPipes) reader(i int) (source, error)    { return newReading(p.readers[i], p.Size), nil }
func (p *goPipes) writer(i int) (io.Writer, error) { return p.writers[i], nil }

// opening is a source's beginning: it is opened when it is first read from, since
// that may wait for the writer.
type opening struct {
	open func() (io.Reader, error)
	from io.Reader
}

func (o *opening) Read(b []byte) (_ int, err error) {
	if o.from == nil {
		if o.from, err = o.open(); err != nil {
			return 0, err
		}
	}
	return o.from.Read(b)
}

// fifos are named pipes of the system, between two processes.
type fifos struct{ Task }

func (f fifos) serve() (string, error) { return "", nil }
func (f fifos) path(i int) string      { return filepath.Join(f.Dir, fmt.Sprint("fifo", i)) }

func (f fifos) reader(i int) (source, error) {
	if err := syscall.Mkfifo(f.path(i), 0o600); err != nil {
		return nil, err
	}
	open := func() (io.Reader, error) { return os.Open(f.path(i)) }
	return newReading(&opening{open: open}, f.Size), nil
}

func (f fifos) writer(i int) (io.Writer, error) { return os.OpenFile(f.path(i), os.O_WRONLY, 0) }

// unixSockets are stream sockets between two processes.
type unixSockets struct{ Task }

func (u unixSockets) serve() (string, error) { return "", nil }
func (u unixSockets) path(i int) string      { return filepath.Join(u.Dir, fmt.Sprint("unix", i)) }

func (u unixSockets) reader(i int) (source, error) {
	l, err := net.Listen("unix", u.path(i))
	if err != nil {
		return nil, err
	}
	return newReading(&opening{open: func() (io.Reader, error) { return l.Accept() }}, u.Size), nil
}

func (u unixSockets) writer(i int) (io.Writer, error) { return net.Dial("unix", u.path(i)) }
