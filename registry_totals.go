package zpipes

import "sync"

// The totals add up the bytes of all pipes and queues of a broker, without a word from
// those that move none, and almost none from the others.
type totals struct {
	adding sync.Mutex // held by the one who adds up

	mu      sync.Mutex // guards what follows; taken under a pipe's or queue's
	in, out int64
	moved   *counter // a ring's first: those that may have moved bytes since
}

// A counter is one pipe's or queue's part. It is guarded by the owner's mu, but for the
// last two fields, which are the totals'.
type counter struct {
	in, out int64 // bytes ever written and read

	totals          *totals // nil: it does not count
	owner           sync.Locker
	toldIn, toldOut int64 // what it knows
	listed          bool

	next, prev *counter
}

// join has what is counted from now on added up.
func (c *counter) join(t *totals, owner sync.Locker) { c.totals, c.owner = t, owner }

// passed adds bytes that were written and read.
func (c *counter) passed(in, out int64) {
	c.in += in
	c.out += out
	if !c.listed && c.totals != nil {
		c.listed = true
		c.totals.list(c)
	}
}

func (t *totals) list(c *counter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moved == nil {
		t.moved, c.next, c.prev = c, c, c
		return
	}
	c.next, c.prev = t.moved, t.moved.prev
	c.prev.next, c.next.prev = c, c
}

// unlist takes c out of the ring, if it is in it. mu is held.
func (t *totals) unlist(c *counter) {
	if c.next == nil {
		return
	}
	if t.moved == c {
		if t.moved = c.next; t.moved == c {
			t.moved = nil
		}
	}
	c.prev.next, c.next.prev = c.next, c.prev
	c.next, c.prev = nil, nil
}

// add takes over what c has counted. The owner's mu is held.
func (t *totals) add(c *counter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unlist(c)
	t.in += c.in - c.toldIn
	t.out += c.out - c.toldOut
	c.toldIn, c.toldOut, c.listed = c.in, c.out, false
}

// leave is add for the last time.
func (t *totals) leave(c *counter) {
	t.add(c)
	c.totals = nil
}

// sums are the bytes that were ever written and read.
func (t *totals) sums() (in, out int64) {
	t.adding.Lock()
	defer t.adding.Unlock()
	for c := t.next(); c != nil; c = t.next() {
		c.owner.Lock()
		if c.totals != nil {
			t.add(c)
		}
		c.owner.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.in, t.out
}

func (t *totals) next() *counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.moved
	if c != nil {
		t.unlist(c)
	}
	return c
}
