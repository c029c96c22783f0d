package zpipes

import "time"

// Readers of a broadcast that are at other brokers. For each of these brokers there is one
// branch, which a relay takes from: the bytes go there once, into a trunk that has the readers
// of that broker. The branch passes what is confirmed there, so that a relay whose connection
// breaks goes on where the other broker is.

// A farBranch is what such a branch has besides. The trunk's mu guards it.
type farBranch struct {
	begins marks // where Writes begin in what is not confirmed there,
	ahead  marks // and in what has yet to be sent
	more   int   // how many readers there are there, besides one
	upto   int64 // of one that was left behind: how many bytes of its stream there were then
}

// reachFar makes a new branch one for readers at another broker.
func (p *pipe) reachFar() { p.far = new(farBranch) }

// heads is how many readers a branch stands for.
func (k *cursor) heads() int {
	if k.far == nil {
		return 1
	}
	return 1 + k.far.more
}

// mostHeads is more readers than one broker has.
const mostHeads = 1 << 24

// recount takes note that there are n readers at another broker.
func (c *broadcast) recount(p *pipe, n int) {
	if p.reader.left {
		return
	}
	n = min(n, mostHeads) - p.heads()
	p.far.more += n
	c.more += n
	if p.reader.sure {
		c.sure += n
		c.changed()
	}
}

// marked records in what goes to other brokers that a Write begins there.
func (c *broadcast) marked(at int64) {
	for _, p := range c.relays {
		p.far.begins.add(at)
		p.far.ahead.add(at)
	}
}

// relayed takes note that the other broker has n bytes more. With anew set, the rest will be sent
// again.
func (c *broadcast) relayed(p *pipe, n int, anew bool) {
	f := p.far
	if n > 0 {
		f.begins.dropBefore(p.at + int64(n))
		c.advance(p, n)
	}
	if anew {
		f.ahead = f.begins.clone()
	}
}

// relayBegins takes out where Writes begin in the last n bytes that relay has taken.
func (p *pipe) relayBegins(n int) []byte {
	if p.use != branch {
		return nil
	}
	end := p.at + int64(p.sent)
	return p.far.ahead.cut(end-int64(n), end, p.cast.keep)
}

// relayedAll says that nothing of what has been written is not confirmed.
func (p *pipe) relayedAll() bool { return p.use != branch || p.cast.behind(p) == 0 }

// heldTo is how many bytes the other broker has to take, counted as in TAKEN, before the writer
// can go on; 0: it does not wait for that.
func (p *pipe) heldTo() int64 {
	if p.use != branch || !p.cast.held {
		return 0
	}
	return max(0, p.done+p.cast.until-int64(p.cast.trunk.bound())-p.at)
}

// leftBehind is why a branch has left, as it is told to readers at the other broker. What these have
// missed comes behind all that went there, though it may not have been confirmed.
func (p *pipe) leftBehind() cause {
	if p.reader.cause.code != causeTooSlow {
		return p.reader.cause
	}
	p.missed = p.far.upto - p.had
	return p.tooSlow()
}

// fed says that the writer is at another broker.
func (c *broadcast) fed() bool {
	m := c.trunk.rendezvous
	return m != nil && m.elsewhere(writer)
}

// hold has the writer at another broker wait until so many bytes have been taken here.
func (c *broadcast) hold(to int64) {
	c.needs = to
	c.watch()
}

// waits is how many bytes wait to be taken.
func (c *broadcast) waits() int {
	p := c.trunk
	switch {
	case c.fed():
		return int(max(0, c.needs-p.in))
	case p.unconfirmed > 0:
		return p.unconfirmed
	}
	return p.writer.want
}

// farGrace is how much longer than the patience a branch of readers at another broker may be
// the slowest: that one has to leave behind who is, and to say so. Tests change it.
var farGrace = time.Second
