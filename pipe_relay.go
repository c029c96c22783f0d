package zpipes

// A relaying is what a pipe has whose reader is at another broker, or a branch whose readers are.
// Its bytes stay in buf, unconfirmed, or in the trunk, until that broker has confirmed them: where
// the connection breaks, they are sent again from where it has got to. The pipe's mu guards it.
type relaying struct {
	sent  int   // how many bytes of buf are on their way
	done  int64 // how many, from the stream's first on, were confirmed before
	had   int64 // how many there are at the other broker, or will be before what is sent next
	begun bool  // some have left, and may have been read
	ahead cursor
}

// end forgets what is on its way: nobody will confirm it here.
func (y *relaying) end() { y.sent, y.ahead = 0, cursor{} }

// relays says whether a WRITE of n bytes can be taken for another broker. One for which there
// never is room goes there in pieces, as soon as there is some.
func (p *pipe) relays(n int) bool {
	idle := p.unconfirmed == 0 && p.granted > 0
	if p.payer != nil && n > p.payer.room() {
		return idle && p.payer.lends(p, n)
	}
	return n <= p.room() || idle
}

// relay copies the next bytes that go to the other broker, which has room for them: most at
// most; nil: there are none, or it has none.
func (p *pipe) relay(most int) *segment {
	n := min(most, p.readable(), p.granted-p.sent)
	if n <= 0 {
		return nil
	}
	s := segmentFor(n)
	switch {
	case p.sent > 0:
	case p.use == branch:
		p.cast.seek(p)
		p.ahead = p.cursor
	default:
		p.ahead.goTo(p.buf.head)
	}
	for end := s.r + n; s.w < end; {
		s.w += p.ahead.copyOut(s.buf[s.w:end])
	}
	p.sent += n
	p.had = p.done + int64(p.sent)
	p.begun = true
	return s
}

// relaysNothing is for a relay that has failed, of which nothing was taken.
func (p *pipe) relaysNothing() {
	p.relaying = relaying{}
	p.narrow(p.extra)
	p.grant(0)
	p.beRelayed(false)
}

// relayedTo takes the other broker's word that it has the bytes before number at, and room for
// more. With anew set it is the answer to an attach: what it does not have is sent again. False:
// that can't be.
func (p *pipe) relayedTo(at int64, room int, anew bool) bool {
	if anew {
		p.had = at
	}
	if p.reader.left || p.writer.left && p.use != branch { // and what was not confirmed is gone
		return true
	}
	n := at - p.done
	if n < 0 || n > int64(p.sent) {
		return false
	}
	p.done += n
	p.sent -= int(n)
	if anew {
		p.sent = 0
	}
	if p.use == branch {
		p.grant(room)
		p.cast.relayed(p, int(n), anew)
		return true
	}
	p.buf.consume(int(n))
	p.passed(0, n)
	p.widen(room)
	p.grant(min(room, p.limit))
	p.confirm(int(n))
	p.settle()
	return true
}
