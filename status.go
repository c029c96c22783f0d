//go:build cgo

package zpipes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pebbe/zmq4"
)

// Status is what a broker says of itself. Client.Status gets it from a broker
// anywhere; as JSON it is what travels (see docs/PROTOCOL.md). There a pipe's name that is
// not UTF-8 has U+FFFD in "name", and "name_base64" has it exactly.
type Status struct {
	Name      string        `json:"name"`
	Endpoints []string      `json:"endpoints"`
	Uptime    time.Duration `json:"uptime_ns"`
	Stats     BrokerStats   `json:"stats"`
	Pipes     []PipeInfo    `json:"pipes"` // by name

	Version string `json:"version"` // of zpipes, in the broker's process
	ZeroMQ  string `json:"zeromq"`
	Go      string `json:"go"`
}

// Status returns what Stats and Pipes tell, and more, in one.
func (b *Broker) Status() Status {
	major, minor, patch := zmq4.Version()
	pipes := slices.Collect(b.Pipes())
	for i := range pipes {
		if p := &pipes[i]; !utf8.ValidString(p.Name) {
			p.NameBase64 = base64.StdEncoding.EncodeToString([]byte(p.Name))
		}
	}
	return Status{
		Name:      b.name,
		Endpoints: b.Endpoints(),
		Uptime:    time.Since(b.started),
		Stats:     b.Stats(),
		Pipes:     pipes,
		Version:   version(),
		ZeroMQ:    fmt.Sprintf("%d.%d.%d", major, minor, patch),
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

// Status asks the broker what it says of itself. It connects if need be, and waits
// until ctx ends or ClientConfig.Timeout has passed. The errors are as with OpenReader; a
// broker that knows only the old protocol can't tell, and the error is
// errors.ErrUnsupported.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.either(ctx, func(b *Broker) error {
		s = b.Status()
		return b.pipes.refusal()
	}, func(ctx context.Context) error {
		text, err := c.status(ctx)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		for i := range s.Pipes {
			if p := &s.Pipes[i]; p.NameBase64 != "" {
				name, err := base64.StdEncoding.DecodeString(p.NameBase64)
				if err != nil {
					return err
				}
				p.Name = string(name)
			}
		}
		return nil
	})
	if err != nil {
		return Status{}, c.opError("status", "", err)
	}
	return s, nil
}

// status reads the status as a stream.
func (c *Client) status(ctx context.Context) (text []byte, err error) {
	r := new(Reader)
	r.role = reader
	err = c.onConn(ctx, c.endpoint, func(k *conn) error {
		if err := k.extended("status"); err != nil {
			return err
		}
		r.link, err = k.open(ctx, r.over(c, "status"), reader, modeStatus)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })()
	var buf strings.Builder
	if _, err := r.WriteTo(&buf); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return []byte(buf.String()), nil
}

// report writes the status to a pipe, and ends it. It does so in another goroutine,
// since the loop has better things to do; one at a time.
func (b *Broker) report(p *pipe) {
	b.reports.Go(func() {
		b.reporting.Lock()
		text, err := json.Marshal(b.Status())
		b.reporting.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		why := cause{}
		if err != nil {
			why = cause{causeAborted, err.Error()}
		}
		p.buf.write(text, false)
		p.leave(writer, why)
	})
}
