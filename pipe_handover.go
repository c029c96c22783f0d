package zpipes

// A handover takes bytes from a Write straight to a Read that waits, past the pipe's
// buffer. It is a part of a pipe whose ends are in the broker's process, and mu guards it.
//
// What is in the Read's buffer, or will be in a moment, has been read: it counts as in
// and out, and whoever leaves meanwhile changes nothing about it.
type handover struct {
	waits bool   // a Read or WriteTo
	into  []byte // the Read's buffer
	given int    // bytes that it has got
	lent  bool   // a Write copies into it without holding mu, and the Read returns after that
	stays bool   // a Write that has served who waits goes on after that one has
}

// pinAbove is the size from which bytes are copied without holding the pipe's mu, so that
// the other end goes on meanwhile.
const pinAbove = 4 << 10

// offer is for a Read that waits: a Write may copy into b. With nil it is for a WriteTo,
// which only says that it waits. Another call may do so already.
func (p *pipe) offer(b []byte) bool {
	if p.use != brokers || p.waits {
		return false
	}
	p.waits, p.into = true, b
	return true
}

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

// wants is how many of n bytes may go to a Read that waits. A few that do not fill its
// buffer go into the pipe's: others that follow before it returns are read with them.
func (p *pipe) wants(n int) int {
	room := len(p.into)
	if room == 0 || p.given > 0 || p.buf.n > 0 || !p.reader.attached() || n < room && n <= pinAbove {
		return 0
	}
	return min(n, room)
}

// give copies b, which is wanted.
func (p *pipe) give(b []byte) {
	copy(p.lend(len(b)), b)
	p.gave()
}

// lend is give for one who copies without holding mu, until gave.
func (p *pipe) lend(n int) []byte {
	p.lent, p.given = true, n
	p.passed(int64(n), int64(n))
	return p.into[:n]
}

func (p *pipe) gave() {
	p.lent = false
	p.wakeSide(&p.reader)
}

// stay is for a Write that has served who waits, and goes on when stays is not set any
// more, or earlier with goOn.
func (p *pipe) stay() { p.stays = p.waits }

func (p *pipe) goOn() { p.stays = false }
