package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// A side is one of the two that couple joins: a connection, a program, the standard files.
type side interface {
	io.ReadWriter
	CloseWrite() error
	CloseRead() error // an error says that a Read may go on waiting, or is errUnread
	Close() error
	tear(why error) // what it has got is not all
	gone() bool     // it takes no more, as far as can be told; asked when it has sent its end
}

// errUnread is that there may be something to be read: who reads it finds out that it is not taken.
var errUnread = errors.New("there is more to be read")

// couple copies in both directions until both have ended, and then closes both sides; ends
// pass through one by one. What tears one side, or ctx's end, tears the other. The error is
// that, or that one side did not take all.
func couple(ctx context.Context, a, b side) error {
	ended := make(chan error, 4) // by each direction, or in its place
	over := make(chan struct{})
	defer close(over)
	go pump(b, a, ended, over)
	go pump(a, b, ended, over)
	var left error
	for n := 0; n < 2; n++ {
		var err error
		select {
		case err = <-ended:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		switch {
		case err == nil:
		case hasLeft(err):
			left = cmp.Or(left, err)
		default:
			var wg sync.WaitGroup
			wg.Go(func() { a.tear(err) })
			b.tear(err)
			wg.Wait()
			return err
		}
	}
	a.Close()
	b.Close()
	return left
}

// pump is one direction. When src has sent its end, it watches whether src still takes what
// dst sends, which may have nothing to send.
func pump(dst, src side, ended chan<- error, over <-chan struct{}) {
	_, err := io.Copy(dst, src)
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed): // by the other direction
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "write" { // else that says what became of it
			ended <- nil
		}
		return
	case hasLeft(err):
		src.CloseRead()
	case err == nil:
		if err = dst.CloseWrite(); hasAll(err) {
			err = nil
		}
	}
	ended <- err
	if err != nil {
		return
	}
	for {
		if src.gone() {
			if err = dst.CloseRead(); err != errUnread {
				break
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-over:
			return
		}
	}
	if err != nil {
		if err = src.CloseWrite(); hasAll(err) {
			err = nil
		}
		ended <- err
	}
}

// hasLeft says that err is of a side that takes no more.
func hasLeft(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// hasAll says so of one that has taken what there was.
func hasAll(err error) bool {
	var lost *zpipes.UndeliveredError
	return hasLeft(err) && !(errors.As(err, &lost) && lost.Bytes > 0)
}

// pipeSide is a connection of zpipes.
type pipeSide struct{ *zpipes.Conn }

func newPipeSide(n *zpipes.Conn) pipeSide {
	n.SetWriteDeadline(time.Now().Add(forever)) // CloseWrite delivers for as long as it takes
	return pipeSide{n}
}

func (s pipeSide) tear(why error) { s.CloseWithError(why) }

func (s pipeSide) gone() bool {
	_, err := s.Write(nil)
	return hasAll(err)
}

// A server has take deal with each connection that a listener accepts, with at most so many
// at a time: others wait in the backlog.
type server struct {
	timeout duration
	most    count
	grace   duration
	idle    duration // 0: for ever
}

// couple is couple, but tears both sides where nothing passes for the idle time.
func (s *server) couple(ctx context.Context, a, b side) error {
	if s.idle == 0 {
		return couple(ctx, a, b)
	}
	ctx, tear := context.WithCancelCause(ctx)
	defer tear(nil)
	idle := time.Duration(s.idle)
	clock := time.AfterFunc(idle, func() { tear(fmt.Errorf("nothing has passed for %v", idle)) })
	defer clock.Stop()
	return couple(ctx, watched{a, clock, idle}, watched{b, clock, idle})
}

// A watched side sets the clock back when something has passed.
type watched struct {
	side
	clock *time.Timer
	idle  time.Duration
}

func (w watched) Read(b []byte) (int, error) {
	n, err := w.side.Read(b)
	w.clock.Reset(w.idle)
	return n, err
}

func (w watched) Write(b []byte) (int, error) {
	n, err := w.side.Write(b)
	w.clock.Reset(w.idle)
	return n, err
}

// serve ends with ctx, or when accepting fails for good. Then those that there are have the
// grace, and it is an error if one needs more: the end of take's context tears it.
func (s *server) serve(ctx context.Context, l net.Listener, take func(context.Context, net.Conn) error) error {
	taking, tear := context.WithCancelCause(context.WithoutCancel(ctx))
	defer tear(nil)
	log := &complaints{to: newComplaints()}
	defer log.to.close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	room := make(chan struct{}, s.most)
	var wg sync.WaitGroup
	err := func() error {
		for {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			c, err := l.Accept()
			if err == nil {
				wg.Go(func() {
					defer func() { <-room }()
					if err := take(taking, c); err != nil {
						log.complain(err)
					}
				})
				continue
			}
			<-room
			var passing interface{ Temporary() bool }
			switch {
			case ctx.Err() != nil:
				return nil
			case !errors.As(err, &passing) || !passing.Temporary():
				return err
			}
			log.complain(err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	l.Close()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-time.After(time.Duration(s.grace)):
	}
	late := fmt.Errorf("connections were still at it after %v", time.Duration(s.grace))
	tear(cmp.Or(context.Cause(ctx), late))
	<-done
	return cmp.Or(err, late)
}

// complaints go to standard error, one a second, so that those who connect can't fill a disk.
type complaints struct {
	to      *spool
	mu      sync.Mutex // guards the rest
	last    time.Time
	skipped int
}

func (c *complaints) complain(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) < time.Second {
		c.skipped++
		return
	}
	if c.skipped > 0 {
		err = fmt.Errorf("%w (and %d more such)", err, c.skipped)
	}
	c.last, c.skipped = time.Now(), 0
	complain(c.to, err)
}
