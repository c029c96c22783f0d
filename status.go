//go:build !core

package zpipes

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Status is what a broker says of itself. Client.Status gets it from a broker
// anywhere. It travels as JSON (see docs/PROTOCOL.md). If the name of a pipe is
// not UTF-8, "name" has U+FFFD in it there, and "name_base64" has all its
// bytes.
type Status struct {
	Name      string        `json:"name"`
	Endpoints []string      `json:"endpoints"`
	Uptime    time.Duration `json:"uptime_ns"`
	Stats     BrokerStats   `json:"stats"`
	Pipes     []PipeInfo    `json:"pipes"` // by name

	Members []Member `json:"members,omitempty"` // of the cluster, as this broker sees them; see Broker.Members

	Version string `json:"version"` // of zpipes, in the broker's process
	ZeroMQ  string `json:"zeromq"`
	Go      string `json:"go"`
}

// Status returns what Stats and Pipes return, and more, in one.
func (b *Broker) Status() Status {
	s := b.status()
	s.Pipes = inJSON(b.list())
	return s
}

func (b *Broker) list() []PipeInfo {
	infos := b.pipes.list(time.Now())
	sortPipes(infos)
	return infos
}

// sortPipes sorts by name. There may be a million: each of them, which is large, is moved once, and its
// name is looked at where the first bytes in which names differ do not decide.
func sortPipes(pipes []PipeInfo) {
	type place struct {
		first uint64 // bytes of the name
		from  int
	}
	order, common := make([]place, len(pipes)), ""
	for i := range pipes {
		name := pipes[i].Name
		if i == 0 {
			common = name
		}
		for !strings.HasPrefix(name, common) {
			common = common[:len(common)-1]
		}
	}
	for i := range pipes {
		var first [8]byte
		copy(first[:], pipes[i].Name[len(common):])
		order[i] = place{binary.BigEndian.Uint64(first[:]), i}
	}
	slices.SortFunc(order, func(x, y place) int {
		if x.first != y.first {
			return cmp.Compare(x.first, y.first)
		}
		return strings.Compare(pipes[x.from].Name, pipes[y.from].Name)
	})
	for i := range order {
		first := pipes[i]
		for to := i; order[to].from >= 0; { // a cycle of places, each of which gets what is at the next
			from := order[to].from
			order[to].from = -1
			if from == i {
				pipes[to] = first
				break
			}
			pipes[to] = pipes[from]
			to = from
		}
	}
}

// inJSON adds to names what JSON can't carry.
func inJSON(pipes []PipeInfo) []PipeInfo {
	for i := range pipes {
		if p := &pipes[i]; !utf8.ValidString(p.Name) {
			p.NameBase64 = base64.StdEncoding.EncodeToString([]byte(p.Name))
		}
	}
	return pipes
}

// status is the Status without pipes.
func (b *Broker) status() Status {
	return Status{
		Name:      b.name,
		Endpoints: b.Endpoints(),
		Uptime:    time.Since(b.started),
		Stats:     b.Stats(),
		Members:   b.members(),
		Version:   version(),
		ZeroMQ:    zmqVersion(),
		Go:        strings.TrimPrefix(runtime.Version(), "go"),
	}
}

// version is this module's version, as far as the running program knows it.
func version() string {
	const path = "github.com/zpipes/zpipes"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == path && m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}

// Status asks the broker what it says of itself. It connects if need be, and
// waits until ctx ends or ClientConfig.Timeout has passed. The errors are
// ErrNoBroker, ErrBrokerGone, fs.ErrPermission, os.ErrClosed and the system's,
// as with OpenReader, and errors.ErrUnsupported if the broker knows only the
// base protocol.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.reach(ctx, func(_ context.Context, b *Broker) error {
		s = b.Status()
		return b.pipes.refusal()
	}, func(ctx context.Context) (err error) {
		s, err = c.statusElsewhere(ctx)
		return err
	})
	if err != nil {
		return Status{}, c.opError("status", "", err)
	}
	return s, nil
}

// statusElsewhere asks the broker in another process.
func (c *Client) statusElsewhere(ctx context.Context) (Status, error) {
	var s Status
	text, err := c.statusText(ctx)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	for i := range s.Pipes {
		if p := &s.Pipes[i]; p.NameBase64 != "" {
			name, err := base64.StdEncoding.DecodeString(p.NameBase64)
			if err != nil {
				return s, err
			}
			p.Name = string(name)
		}
	}
	sortPipes(s.Pipes)
	return s, nil
}

// Stat describes the pipe or queue of that name, whose ends it leaves alone. In
// the broker's own process it looks up the name; elsewhere it goes through the
// Status. The errors are ErrBadName, those of Status, and fs.ErrNotExist if
// there is nothing of that name.
func (c *Client) Stat(ctx context.Context, pipe string) (PipeInfo, error) {
	var info PipeInfo
	found := false
	err := c.reachPipe(ctx, pipe, func(_ context.Context, b *Broker) error {
		info, found = b.pipes.lookUp(pipe, time.Now())
		return b.pipes.refusal()
	}, func(ctx context.Context) error {
		s, err := c.statusElsewhere(ctx)
		for _, p := range s.Pipes {
			if p.Name == pipe {
				info, found = p, true
			}
		}
		return err
	})
	info.NameBase64 = "" // the name has all its bytes
	if err == nil && !found {
		err = fs.ErrNotExist
	}
	if err != nil {
		return PipeInfo{}, c.opError("stat", pipe, err)
	}
	return info, nil
}

// statusText reads the status. Calls take turns, since a broker has one at a time for a connection.
func (c *Client) statusText(ctx context.Context) (text []byte, err error) {
	if err := c.surveying.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.surveying.Release(1)
	r, end, err := c.openReport(ctx, c.endpoint, modeStatus, "status")
	if err != nil {
		return nil, err
	}
	defer end()
	defer r.endWith(ctx)()
	var buf strings.Builder
	if _, err := r.WriteTo(&buf); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return []byte(buf.String()), nil
}

// endWith has reads end with a context, until stop is called.
func (r *Reader) endWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
}

// openReport opens a stream of what the broker says. One of an earlier version says one thing at a time over a
// connection, so another one is made where that is busy.
func (c *Client) openReport(ctx context.Context, endpoint string, mode byte, name string) (r *Reader, end func(), err error) {
	open := func(k *conn) error {
		if err := k.needExtension("status"); err != nil {
			return err
		}
		if mode != modeStatus && k.able&ableJobs == 0 {
			return errNoJobs
		}
		r = new(Reader)
		r.role = reader
		r.link = k.newLink(nil, r.remotePipe(c, name), reader, mode)
		return k.open(ctx, r.link)
	}
	err = c.onConn(ctx, endpoint, open)
	end = func() { r.Close() }
	if errors.Is(err, ErrPipeBusy) {
		var k *conn
		if k, err = c.connectAlone(ctx, endpoint); err != nil {
			return nil, nil, err
		}
		if err = open(k); err != nil {
			k.retire()
		}
		end = func() { r.Close(); k.retire() }
	}
	return r, end, err
}
