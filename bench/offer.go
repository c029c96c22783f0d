package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pebbe/zmq4"
)

// A Part can also offer a broker more than anybody reads; see memory.

// Endpoint returns where the broker of this process is served over ZeroMQ.
func (p *Part) Endpoint(_ struct{}, endpoint *string) (err error) {
	b, err := p.broker()
	if err != nil {
		return err
	}
	*endpoint, err = ipcEndpoint(b)
	return err
}

// Offering is what a reader that never reads is offered.
type Offering struct {
	Task            // Size is that of a write
	Endpoint string // for Flood
	Bytes    int64
	AtOnce   int // for Flood: how many clients
	Readers  int // of a broadcast; 0: it is a stream
}

// Offered is what came of it.
type Offered struct {
	Bytes   int64 // offered
	Taken   int64 // of them, accepted by Write, or confirmed
	Clients int64 // that offered
	Dropped int64 // of them, by the broker
}

// Ignore opens the first pipe's reading end, or as many as a span has, and never reads.
func (p *Part) Ignore(s Span, _ *struct{}) error {
	c, err := p.client(s.Task)
	for range max(1, s.Count) {
		if err == nil {
			_, err = c.OpenReader(context.Background(), s.pipe(0))
		}
	}
	return err
}

// Broadcast has Offer write to a broadcast.
func (p *Part) Broadcast(o Offering, _ *struct{}) error {
	c, err := p.client(o.Task)
	if err == nil {
		p.offers, err = c.OpenBroadcast(context.Background(), Span{}.pipe(0))
	}
	return err
}

// Offer offers by Writes to that pipe, each with a deadline since it blocks.
func (p *Part) Offer(o Offering, got *Offered) error {
	const each = 10 * time.Millisecond
	c, err := p.client(o.Task)
	if err != nil {
		return err
	}
	w := p.offers
	if w == nil {
		if w, err = c.OpenWriter(context.Background(), Span{}.pipe(0)); err != nil {
			return err
		}
	}
	got.Clients = 1
	for b := make([]byte, o.Size); got.Bytes < o.Bytes; got.Bytes += int64(len(b)) {
		if err := w.SetWriteDeadline(time.Now().Add(each)); err != nil {
			return err
		}
		n, err := w.Write(b)
		got.Taken += int64(n)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

// Flood offers by bare ZeroMQ clients of the base protocol, which do not wait for
// answers. When the broker has dropped one, another takes its place.
func (p *Part) Flood(o Offering, got *Offered) error {
	c, err := p.client(o.Task)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var offered, taken, clients, dropped atomic.Int64
	for range o.AtOnce {
		wg.Go(func() {
			for offered.Load() < o.Bytes {
				name := fmt.Sprint("flooded ", clients.Add(1))
				r, err := c.OpenReader(context.Background(), name)
				if err != nil {
					p.fail(err)
					return
				}
				f := flood{offered: &offered, taken: &taken, most: o.Bytes}
				gone, err := f.run(o.Endpoint, name, o.Size)
				if err != nil {
					p.fail(err)
					return
				}
				if gone {
					dropped.Add(1)
				}
				r.Close()
			}
		})
	}
	wg.Wait()
	*got = Offered{offered.Load(), taken.Load(), clients.Load(), dropped.Load()}
	return p.Report(struct{}{}, nil)
}

// A flood is one such client.
type flood struct {
	offered, taken *atomic.Int64
	most           int64
}

// Messages of the base protocol; see docs/PROTOCOL.md.
const (
	signature = "\xaa\xa0"
	output    = 4
	outputOK  = 5
	write     = 12
	writeOK   = 13
	invalid   = 21
)

// run returns when the broker has dropped the client, or enough is offered.
func (f flood) run(endpoint, pipe string, size int) (dropped bool, err error) {
	ctx, err := zmq4.NewContext()
	if err != nil {
		return false, err
	}
	defer ctx.Term()
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err != nil {
		return false, err
	}
	defer s.Close()
	// What libzmq takes here has not reached the broker, so let it be little.
	err = errors.Join(s.SetLinger(0), s.SetSndhwm(1), s.SetRcvhwm(0),
		s.SetRcvtimeo(patience), s.SetSndtimeo(time.Millisecond), s.Connect(endpoint))
	if err != nil {
		return false, err
	}
	open := append([]byte(signature), output, byte(len(pipe)))
	if _, err := s.SendBytes(append(open, pipe...), 0); err != nil {
		return false, err
	}
	if m, err := s.RecvBytes(0); err != nil || len(m) < 3 || m[2] != outputOK {
		return false, fmt.Errorf("OUTPUT was answered with %x (%v)", m, err)
	}
	m := append([]byte(signature), write)
	m = binary.BigEndian.AppendUint32(m, uint32(size))
	m = append(m, newRecord(size)...)
	m = binary.BigEndian.AppendUint32(m, 0) // no timeout
	for stuck := time.Now(); f.offered.Load() < f.most && time.Since(stuck) < patience; {
		if _, err := s.SendBytes(m, 0); err == nil {
			f.offered.Add(int64(size))
			stuck = time.Now()
		}
		for {
			answer, err := s.RecvBytes(zmq4.DONTWAIT)
			if err != nil || len(answer) < 3 {
				break
			}
			switch answer[2] {
			case writeOK:
				f.taken.Add(int64(size))
			case invalid:
				return true, nil
			}
		}
	}
	return false, nil
}
