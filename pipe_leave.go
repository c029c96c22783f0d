package zpipes

// How an end of a pipe leaves, and what the other one is told.

// leave ends one side for good. What a writer has had confirmed stays readable;
// what is still in its window does so only if it left in order, which it does
// not do before all is confirmed. What a reader did not read is gone.
func (p *pipe) leave(r role, why cause) {
	s := p.side(r)
	if s.left {
		return
	}
	s.left, s.cause = true, why
	if p.use == branch {
		if r == reader {
			p.relaying.end()
			p.cast.part(p)
		}
		p.wakeSide(&p.reader)
		return
	}
	p.endDetour()
	p.relaying.end()
	p.narrow(p.extra)
	if r == writer {
		if n := min(p.unconfirmed, p.buf.n); n > 0 {
			p.buf.truncate(n)
			p.unconfirmed -= n
			p.lost += n
		}
	} else if p.unread = p.buf.n; !p.pinned && p.use != trunk {
		p.buf.clear()
	}
	if p.ring != nil {
		p.sideLeft(r)
	}
	if p.detour != nil && !p.detour.own() && p.reader.left { // nobody is there to be told
		p.dropDetour()
	}
	if p.use == trunk {
		p.cast.over(r, why)
	}
	p.pay()
	p.payer.forget(p)
	p.wakeSide(&p.reader)
	p.wakeSide(&p.writer)
	p.rendezvous.changed()
}

// tear has a side that left in order be one that did not.
func (p *pipe) tear(r role, why cause) {
	if s := p.side(r); s.cause.code == causeClosed {
		s.cause = why
	}
}

// amend says more exactly why a side has left.
func (p *pipe) amend(r role, why cause) { p.side(r).cause = why }

// over says that the pipe's name is free.
func (p *pipe) over() bool { return p.reader.left || p.writer.left }

// idle says that no end is left that could still do something with the pipe.
func (p *pipe) idle() bool {
	return p.over() && !p.reader.attached() && !p.writer.attached() && (p.use != trunk || len(p.cast.readers) == 0)
}

// deadFor says why the end can't go on, and whether that is so: the broker has
// ended it, or the other side has left and nothing is there to be read.
func (p *pipe) deadFor(r role) (cause, bool) {
	own, other := p.side(r), p.side(1-r)
	switch {
	case own.left:
		return own.cause, true
	case other.left && (r == writer || p.readable() == 0 && p.ring == nil):
		return other.cause, true
	}
	return cause{}, false
}

// readError is why there is nothing to read and never will be; nil: wait.
func (p *pipe) readError() error {
	if !p.over() {
		return nil
	}
	if why, dead := p.deadFor(reader); dead {
		return why.readError()
	}
	return nil
}

// writeError is why nothing more can be written; nil: it can.
func (p *pipe) writeError() error {
	if !p.over() {
		return nil
	}
	if why, dead := p.deadFor(writer); dead {
		return why.writeError()
	}
	return nil
}
