package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// maxSpooled is how many lines wait for who reads the log.
	maxSpooled = 256
	// spoolTime is how long close waits for him.
	spoolTime = 300 * time.Millisecond
)

// A spool passes lines of log on to one who may be slow, or hang, and whom nobody waits
// for. Lines beyond maxSpooled are left out, and their number is told.
type spool struct {
	lines chan []byte
	done  chan struct{}

	mu     sync.Mutex // guards left, and that nothing is sent behind the end
	left   int
	closed bool
}

// newSpool has leftOut say what was left out.
func newSpool(to io.Writer, leftOut func(n int)) *spool {
	s := &spool{lines: make(chan []byte, maxSpooled), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for line := range s.lines {
			to.Write(line)
			s.mu.Lock()
			n := s.left
			s.left = 0
			s.mu.Unlock()
			if n > 0 {
				leftOut(n)
			}
		}
	}()
	return s
}

// newComplaints is a spool for what goes wrong while a command goes on.
func newComplaints() *spool {
	return newSpool(os.Stderr, func(n int) {
		fmt.Fprintf(os.Stderr, "zpipes: %d lines left out, since standard error was not read\n", n)
	})
}

func (s *spool) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		select {
		case s.lines <- bytes.Clone(line):
		default:
			s.left++
		}
	}
	return len(line), nil
}

// close waits a little until all is written.
func (s *spool) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.lines)
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(spoolTime):
	}
}
