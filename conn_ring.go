//go:build !core

package zpipes

import (
	"errors"

	"github.com/zpipes/zpipes/internal/ring"
)

var errNoRing = errors.New("no use for a ring")

// offered takes or refuses a ring that the broker offers; one of no size asks for the ring
// that the Writer has.
func (l *streamLink) offered(m *message) {
	if m.size == 0 {
		l.askedBack()
		return
	}
	if err := l.takeRing(m); err != nil {
		l.conn.client.log.info("a stream does not go through memory", "why", err)
		l.send(&message{id: msgMove, mode: moveNot})
		return
	}
	if l.role == reader {
		l.send(&message{id: msgMove, mode: moveInto})
		return
	}
	l.goesOver = true
	l.serve()
}

func (l *streamLink) takeRing(m *message) error {
	ds := m.descriptors
	m.descriptors = nil
	defer func() { closeDescriptors(ds) }()
	if len(ds) != 2 {
		return errNoRing
	}
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	data, pending := size(m.size), size(m.count)
	if p.ring != nil || p.over() || l.ofQueue || l.role == writer && data < pending+p.window {
		return errNoRing
	}
	g, err := openRingEnd(ds, data, pending, l.role)
	if err != nil {
		return err
	}
	bell := ds[1]
	ds = ds[:1]
	if g.bell, err = ring.OpenBell(bell); err != nil {
		g.mapping.Release()
		return err
	}
	if p.enterRing(g); l.role == writer {
		go g.bell.Listen(func() { p.rung(g) })
	}
	return nil
}

// askedBack gives the Writer's ring back, if it is of no use now.
func (l *streamLink) askedBack() {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.role != writer || l.goesOver || !p.mayComeBack() {
		return
	}
	l.send(&message{id: msgMove, mode: moveOut, count: uint32(p.ring.w.Written())})
	p.grant(p.ring.pending) // all is read
	p.leaveRing()
}

// moved takes the broker's word of where the stream goes.
func (l *streamLink) moved(m *message) {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.ring
	switch {
	case g == nil: // this end has left
	case g.w != nil:
		p.answered(size(m.count))
	case m.mode == moveInto:
		p.goOver()
	default:
		p.comeBack(m.count)
	}
}

// goOver sends MOVE once all that was written before the ring has left. p.mu is held.
func (l *streamLink) goOver() {
	if l.goesOver && l.pipe.buf.n == 0 && !l.pipe.filling {
		l.goesOver = false
		l.send(&message{id: msgMove, mode: moveInto})
	}
}
