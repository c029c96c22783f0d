package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// How soon a death is told near, where it is the end of a connection.

const (
	// nearPromised is within what time a death must be told, in 99 of 100 cases.
	nearPromised = 100 * time.Millisecond
	// mortals is how many processes live at once. They die one by one, so that those that
	// start do not disturb the measurement.
	mortals = 10
)

func init() { parts["mortal"] = playMortal }

// playMortal opens an end near, which t.Fate says, and waits.
func playMortal(t task) error {
	c, err := zpipes.NewClient(t.Broker)
	if err != nil {
		return err
	}
	if t.Fate.Roles == "w" {
		_, err = c.OpenWriter(background, t.Pipe)
	} else {
		_, err = c.OpenReader(background, t.Pipe)
	}
	if err != nil {
		return err
	}
	say("open")
	<-untilToldTo()
	return nil
}

// notices kills processes that use a broker of this process near, and measures how long it
// takes until the other ends know: directly, and near themselves. The machine may be busy; so
// it also measures when the system tells of the same death, by the end of a pipe of its own.
func notices(ctx context.Context, b *bench) (outcome, error) {
	h, err := newHouse(zpipes.BrokerConfig{})
	if err != nil {
		return outcome{}, err
	}
	defer h.close()
	near, err := zpipes.NewClient(h.near())
	if err != nil {
		return outcome{}, err
	}
	defer near.Close()
	kills := max(2*mortals, b.size(1000))
	var told, system laps
	for n := int64(0); n < kills; {
		var all []*mortal
		for ; len(all) < mortals && n < kills && err == nil; n++ {
			m := &mortal{pipe: fmt.Sprint("mortal ", n), role: "wr"[n%2:][:1], survivor: []*zpipes.Client{h.broker.Client(), near}[n/2%2]}
			if err = m.start(h.broker.Name()); err == nil {
				all = append(all, m)
			}
		}
		for _, m := range all {
			if err == nil {
				err = m.die(&told, &system)
			}
			m.kill()
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return outcome{}, err
		}
	}
	if err := h.settle(); err != nil {
		return outcome{}, err
	}
	end, eof := told.lap(), system.lap()
	slow := end.P99
	if kills < 100 {
		slow = end.P50 // of few, the slowest is an accident
	}
	if slow > nearPromised+eof.P99 {
		err = fmt.Errorf("a death was told after %v (the system's own pipe: p99 %v), and should be within %v", slow, eof.P99, nearPromised)
	}
	return outcome{kills, fmt.Sprintf("told after: p50 %v, p99 %v, at worst %v; the end of the dead's standard output, told by the system alone, after: p50 %v, p99 %v, at worst %v",
		brief(end.P50), brief(end.P99), brief(end.Most), brief(eof.P50), brief(eof.P99), brief(eof.Most))}, err
}

// A mortal is a process that is going to be killed, and who has the other end of its pipe.
type mortal struct {
	*child
	pipe     string
	role     string // its own
	survivor *zpipes.Client
	told     chan notified // when the survivor knows
}

type notified struct {
	at  time.Time
	err error
}

// start returns when both ends are open and the survivor waits.
func (m *mortal) start(broker string) (err error) {
	if m.child, err = startChild(task{Part: "mortal", Broker: broker, Pipe: m.pipe, Fate: fate{Roles: m.role}}); err != nil {
		return err
	}
	if line, err := within(patience, "a process that opens an end", m.line); line != "open" {
		m.kill()
		return fmt.Errorf("a process that opens an end said %q, %v", line, err)
	}
	m.told = make(chan notified, 1)
	if m.role == "w" {
		r, err := m.survivor.OpenReader(background, m.pipe)
		if err != nil {
			m.kill()
			return err
		}
		go func() {
			_, err := r.Read(make([]byte, 1))
			m.told <- notified{time.Now(), err}
			r.Close()
		}()
		return nil
	}
	w, err := m.survivor.OpenWriter(background, m.pipe)
	if err != nil {
		m.kill()
		return err
	}
	go func() { // more than the pipe takes
		_, err := w.Write(make([]byte, 8<<20))
		m.told <- notified{time.Now(), err}
		w.Close()
	}()
	return nil
}

// die kills it, and waits until the survivor knows.
func (m *mortal) die(told, system *laps) error {
	eof := make(chan time.Time, 1)
	go func() {
		m.line()
		eof <- time.Now()
	}()
	died := time.Now()
	m.signal(syscall.SIGKILL)
	n, err := within(notice, "the other end of a dead process", func() (notified, error) { return <-m.told, nil })
	if err != nil {
		return err
	}
	want := io.ErrUnexpectedEOF
	if m.role == "r" {
		want = io.ErrClosedPipe
	}
	if !errors.Is(n.err, want) {
		return fmt.Errorf("the process died, but the other end has %w", n.err)
	}
	*told = append(*told, n.at.Sub(died))
	*system = append(*system, (<-eof).Sub(died))
	return nil
}
