package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/zpipes/zpipes"
)

// A peer is the end that survives, in this process.
type peer struct {
	client *zpipes.Client
	pipe   string
	role   rune // the victim's: the peer of 'w' reads
	seed   uint64
	rand   *rand.Rand
	mood   mood

	dying <-chan struct{} // closed when the victim was killed or stopped
	open  chan struct{}   // closed when its pipe is open
	done  chan struct{}   // closed when all below is known

	stoodIn   bool  // something else took the part of the victim, whose end the pipe never had
	err       error // nil: a clean end
	at        time.Time
	n         int64 // bytes read or written
	confirmed int64
}

// A mood is how a peer behaves until the victim dies.
type mood string

const (
	eager  mood = "eager"  // reads or writes all the time
	slow   mood = "slow"   // does nothing until the victim dies
	closer mood = "closer" // closes its writer before long
)

func startPeer(ctx context.Context, p peer, after time.Duration) *peer {
	p.open, p.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.done)
		time.Sleep(after)
		if p.role == 'w' {
			p.err = p.read(ctx)
		} else {
			p.err = p.write(ctx)
		}
		p.at = time.Now()
	}()
	return &p
}

func (p *peer) over() bool { return closed(p.done) }

func (p *peer) read(ctx context.Context) error {
	r, err := p.client.OpenReader(ctx, p.pipe)
	if err != nil {
		return wrongBytes{err}
	}
	close(p.open)
	return p.drink(r)
}

func (p *peer) drink(r io.ReadCloser) error {
	defer r.Close()
	if p.mood == slow {
		<-p.dying
	}
	o := oracle{seed: p.seed}
	err := o.readAll(r, someSize(p.rand)+512)
	p.n = o.off
	return err
}

func (p *peer) write(ctx context.Context) error {
	w, err := p.client.OpenWriter(ctx, p.pipe)
	if err != nil {
		return wrongBytes{err}
	}
	close(p.open)
	return p.pour(w)
}

func (p *peer) pour(w sink) error {
	defer w.Close()
	b := make([]byte, 512<<10)
	write := func() error {
		n := someSize(p.rand)
		fill(b[:n], p.seed, p.n)
		n, err := w.Write(b[:n])
		p.n += int64(n)
		return err
	}
	flush := func() error {
		all := p.n
		err := w.Flush()
		var lost *zpipes.UndeliveredError
		if errors.As(err, &lost) && lost.Bytes > all-p.confirmed {
			return wrongBytes{fmt.Errorf("%d bytes undelivered of the %d that were not confirmed", lost.Bytes, all-p.confirmed)}
		}
		if err == nil && confirms(w) {
			p.confirmed = all
		}
		return err
	}
	for target := 1 + p.rand.Int64N(4<<20); p.mood != closer || p.n < target; {
		if err := write(); err != nil {
			return err
		}
		if p.mood == slow || p.rand.IntN(6) == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		if p.mood != slow {
			continue
		}
		for <-p.dying; ; time.Sleep(5 * time.Millisecond) { // the writer is idle
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err := w.Close()
	if err == nil {
		p.confirmed = p.n
	}
	return err
}

// alone waits until the peer knows of the death, or is found to be alone in its pipe: it
// may have opened that too late, or the victim never did.
func (p *peer) alone(h *house) (bool, error) {
	alone := false
	err := eventually(notice, fmt.Sprintf("the peer (%s) of %q, a %c,", p.mood, p.pipe, p.role), func() bool {
		if p.over() {
			return true
		}
		if closed(p.open) {
			info := h.pipe(p.pipe)
			alone = info.Reader != info.Writer
		}
		return alone
	})
	return alone, err
}

// standIn takes the part of the victim, so that the peer's story has an end. Should
// the name still be the dead's, it waits.
func (p *peer) standIn(ctx context.Context, h *house, client *zpipes.Client) (err error) {
	if p.role == 'w' {
		w, err := retryBusy(func() (*zpipes.Writer, error) { return client.OpenWriter(ctx, p.pipe) })
		if err != nil {
			return err
		}
		defer w.CloseWithError(errors.New("it was not needed"))
		if p.stoodIn = h.pipe(p.pipe).Reader; !p.stoodIn {
			return nil // the peer has lost another writer
		}
		b := make([]byte, 100_000)
		fill(b, p.seed, 0)
		_, err = w.Write(b)
		return errors.Join(err, w.Close())
	}
	r, err := retryBusy(func() (*zpipes.Reader, error) { return client.OpenReader(ctx, p.pipe) })
	if err != nil {
		return err
	}
	defer r.Close()
	if p.stoodIn = h.pipe(p.pipe).Writer; !p.stoodIn {
		return nil
	}
	o := oracle{seed: p.seed}
	b := make([]byte, 64<<10)
	n, err := within(patience, "a Read of what a peer wrote", func() (int, error) { return r.Read(b) })
	if err == nil {
		err = o.check(b[:n])
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// retryBusy opens an end whose name the dead may still have for a while.
func retryBusy[E any](open func() (E, error)) (E, error) {
	for end := time.Now().Add(notice); ; time.Sleep(2 * time.Millisecond) {
		e, err := within(patience, "an open", open)
		if !errors.Is(err, zpipes.ErrPipeBusy) || time.Now().After(end) {
			return e, err
		}
	}
}
