package zpipes

// A handover takes bytes from a Write straight to a Read that waits, past the pipe's
// buffer. It is a part of a pipe whose ends are in the broker's process, and mu guards it.
//
// What is in the Read's buffer, or will be in a moment, has been read: it counts as in
// and out, and whoever leaves meanwhile changes nothing about it.
type handover struct {
	waits bool   // a Read or WriteTo
	into  []byte // the free part of the Read's buffer, while what comes next belongs there
	given int    // bytes that it has got
	lent  bool   // a Write copies into it without holding mu, and the Read returns after that
	stays bool   // a Write that has served who waits goes on after that one has
}

// offer is for a Read that waits: a Write may copy into b. With nil it is for a WriteTo,
// which only says that it waits. Another call may do so already.
func (p *pipe) offer(b []byte) bool {
	if p.use != brokers || p.waits {
		return false
	}
	p.waits, p.into = true, b
	return true
}

// seal has nothing more go to the Read that waits: bytes have gone into the pipe's buffer,
// and what comes behind them must not get before them.
func (p *pipe) seal() { p.into = nil }

// collect ends the offer, and returns how many bytes the Read has got. None is lent.
func (p *pipe) collect() int {
	n := p.given
	p.waits, p.into, p.given = false, nil, 0
	if p.stays {
		p.stays = false
		p.wakeSide(&p.writer)
	}
	return n
}

// wants is how many of the next bytes may go to a Read that waits.
func (p *pipe) wants() int {
	if p.buf.n > 0 || p.lent || !p.reader.attached() {
		return 0
	}
	return len(p.into)
}

// give copies b, which is wanted.
func (p *pipe) give(b []byte) {
	first := p.given == 0
	copy(p.hand(len(b)), b)
	if first {
		p.wakeSide(&p.reader)
	}
}

// lend is give for one who copies without holding mu, until gave. The Read must have got
// nothing so far: one that is about to return should not have to wait.
func (p *pipe) lend(n int) []byte {
	p.lent = true
	return p.hand(n)
}

func (p *pipe) gave() {
	p.lent = false
	p.wakeSide(&p.reader)
}

func (p *pipe) hand(n int) []byte {
	b := p.into[:n]
	p.into = p.into[n:]
	p.given += n
	p.passed(int64(n), int64(n))
	return b
}

// stay is for a Write that has served who waits, and goes on when stays is not set any
// more, or earlier with goOn.
func (p *pipe) stay() { p.stays = p.waits }

func (p *pipe) goOn() { p.stays = false }
