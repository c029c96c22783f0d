package zpipes

import "math"

// How much may be read of a pipe, and written to it.

// readable is how many bytes the reader may take now.
func (p *pipe) readable() int {
	switch p.use {
	case outbound:
		return p.buf.n
	case relayed:
		return p.buf.n - p.sent
	case trunk:
		return p.cast.lag()
	case branch:
		return p.cast.behind(p) - p.sent
	}
	n := p.buf.n - p.unconfirmed
	if p.ring != nil && p.ring.live {
		n = min(n, p.ring.before) // what is behind comes after the ring's
	}
	return n
}

// room is how many bytes the writer may add now.
func (p *pipe) room() int {
	n := int64(p.window) + int64(p.granted) - int64(p.unconfirmed)
	if p.reader.sure && !p.confirmedElsewhere() {
		n += int64(max(0, p.bound()-p.confirmed()))
	}
	if p.payer != nil {
		n = min(n, int64(p.payer.room()))
	}
	return int(min(max(0, n), math.MaxInt))
}

// bound is how many bytes the pipe takes before writes wait. A reader that waits
// for more than the limit raises it, since it would wait for ever.
func (p *pipe) bound() int {
	if p.use == trunk {
		return max(p.limit, p.cast.wanted())
	}
	return max(p.limit, p.reader.want)
}

// confirmed is how many bytes the pipe has taken that were not read.
func (p *pipe) confirmed() int {
	if p.use == trunk {
		return p.cast.lag()
	}
	return p.buf.n - p.unconfirmed
}

// starved says that the reader waits for more than there is.
func (p *pipe) starved() bool {
	if p.use == trunk {
		return p.cast.starved()
	}
	return p.readable() < p.reader.want
}

// accepts says whether a WRITE of n bytes can be taken and confirmed now. One of
// any size is taken where the pipe is empty, or the reader waits for more than
// there is: neither could go on otherwise.
func (p *pipe) accepts(n int) bool {
	switch {
	case !p.reader.sure:
		return false
	case p.use == relayed:
		return p.relays(n)
	case p.payer != nil && n > p.payer.room():
		return p.starved() && p.payer.lends(p, n)
	}
	return n <= p.room() || p.unconfirmed == 0 && p.confirmed() == 0 || p.starved()
}

// reserved is for how many bytes the payer pays in any case.
func (p *pipe) reserved() int {
	if p.use == trunk && !p.writer.left {
		return p.cast.keep
	}
	return 0
}
