package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// judge compares what a peer knows with what a victim that died has said.
func (p *peer) judge(l *ledger) error {
	var wrong wrongBytes
	switch {
	case errors.As(p.err, &wrong):
		return p.err
	case l.wrong != "":
		return errors.New("the victim: " + l.wrong)
	case p.stoodIn && l.confirmed+l.read > 0:
		return fmt.Errorf("LOST: %d bytes were confirmed and %d read, but the peer never had the victim", l.confirmed, l.read)
	case p.stoodIn && p.role == 'w' && (p.err != nil || p.n != 100_000):
		return fmt.Errorf("%d bytes of 100000 and %v from a writer that closed", p.n, p.err)
	case p.stoodIn && p.role == 'w':
		return nil
	case p.role == 'w':
		return p.judgeWriter(l)
	}
	return p.judgeReader(l)
}

// judgeWriter judges the end of a writer that died.
func (p *peer) judgeWriter(l *ledger) error {
	switch {
	case p.n < l.confirmed:
		return fmt.Errorf("LOST: %d bytes were read and %d confirmed (%v)", p.n, l.confirmed, p.err)
	case p.err == nil && p.n == l.closing: // perhaps it could not say any more that it had closed
		return nil
	case p.err == nil:
		return fmt.Errorf("the writer died (%s), but the reader has a clean end behind %d bytes", l.state, p.n)
	case l.closed:
		return fmt.Errorf("the writer closed, but the reader has %w", p.err)
	case class(p.err) != "torn":
		return fmt.Errorf("the writer died, but the reader has %w", p.err)
	}
	return nil
}

// judgeReader judges the end of a reader that died or left.
func (p *peer) judgeReader(l *ledger) error {
	switch {
	case l.read > p.n:
		return fmt.Errorf("%d bytes were read of %d written", l.read, p.n)
	case l.end >= 0 && (p.err != nil || l.end != p.n):
		return fmt.Errorf("the reader had a clean end behind %d bytes, but the writer wrote %d and has %w", l.end, p.n, p.err)
	case p.err == nil && p.mood != closer:
		return errors.New("the writer ended without an error")
	case p.err != nil && class(p.err) != "left":
		return fmt.Errorf("the reader left, but the writer has %w", p.err)
	}
	return nil
}

// cutOff counts clients with faster heartbeats than usual that were taken for dead, or
// took their broker for dead, because the machine was busy.
const cutOff = "cut off with faster heartbeats"

// judgeDead looks at what a victim says before it dies: it has no reason to fail.
func (g *graveyard) judgeDead(l *ledger, f fate) error {
	switch {
	case l.failed == "":
		return nil
	case f.Heartbeat != 0 && strings.HasPrefix(l.failed, "gone "):
		g.count(cutOff, 1)
		return nil
	}
	return errors.New("the victim, before it died: " + l.failed)
}

// learns waits until each end of a victim that stood still and went on knows what became
// of it.
func (g *graveyard) learns(v *victim) error {
	began := time.Now()
	if err := eventually(notice, "a victim that went on", func() bool { return v.all((*ledger).over) }); err != nil {
		return fmt.Errorf("%w: %s", err, v.states())
	}
	g.took("by one that goes on", time.Since(began))
	for _, l := range v.ledgers {
		if err := l.judgeAwake(); err != nil {
			return err
		}
	}
	return nil
}

// judgeAwake looks at what a victim has learned that stood still and went on.
func (l *ledger) judgeAwake() error {
	if l.failed != "" && !strings.HasPrefix(l.failed, "gone ") {
		return errors.New("the victim that went on: " + l.failed)
	}
	return nil
}

// judgeWhole is for a stream whose ends both lived until its end.
func (p *peer) judgeWhole(l *ledger) error {
	switch {
	case p.err != nil:
		return p.err
	case l.wrong != "" || l.failed != "":
		return fmt.Errorf("the victim: %s%s", l.wrong, l.failed)
	case p.role == 'w' && (!l.closed || p.n != l.closing), p.role == 'r' && l.end != p.n:
		return fmt.Errorf("%d bytes at one end, and at the other %d or %d", p.n, l.closing, l.end)
	}
	return nil
}
