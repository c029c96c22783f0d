//go:build !core

package zpipes

import "io"

// writeRing writes what there is room for of b into the ring. pipe.mu is held, but not
// while much is copied. 0: there is no room, and the bell will ring when there is.
func (w *Writer) writeRing(b []byte) (n int, err error) {
	p := w.pipe
	g := p.ring
	p.limitRing()
	if g.w.Gathered() > 0 {
		err = g.w.Push()
	}
	k := 0
	if err == nil {
		k, err = g.w.Reserve(len(b))
	}
	switch {
	case err != nil || k == 0:
	case k <= pinAbove:
		err = g.w.Fill(b[:k])
	default:
		err = w.fillAside(g, b[:k])
		if err := w.writeErr(); err != nil {
			return 0, err
		}
	}
	if err == nil && k > 0 {
		err = g.w.Publish(k)
	}
	if err != nil {
		p.breaks()
		return 0, p.writeError()
	}
	p.entered(k)
	p.settleEntered()
	return k, nil
}

// fillAside copies b into the ring without pipe.mu.
func (w *Writer) fillAside(g *ringEnd, b []byte) (err error) {
	w.busy, g.copying = true, true
	defer func() { g.copying = false }()
	g.mapping.Retain()
	w.pipe.unlocked(func() {
		defer g.mapping.Release()
		err = g.w.Fill(b)
	})
	return err
}

// readRing reads up to len(b) bytes out of the ring, of which the first n are there.
// pipe.mu is held, but not while much is copied. Where b faults behind bytes that have been
// taken, these are what is read.
func (r *Reader) readRing(b []byte, n int) (total int) {
	p := r.pipe
	g := p.ring
	defer func() {
		if r.busy {
			r.release()
		}
		if e := recover(); e != nil && (total == 0 || !faultIn(e, b)) {
			panic(e)
		}
	}()
	for n > 0 {
		if !r.copyOut(g, b[total:total+n]) {
			break
		}
		total += n
		p.taken(n)
		if n = 0; p.ring == g {
			n = min(g.r.There(), len(b)-total)
		}
		if n > 0 {
			n = p.ready(n)
		}
	}
	return total
}

// awaitBell waits until the ring's bell rings, or anything else may unblock the call. It
// does so in this goroutine: another one that listens would have to wake it, which costs as
// much again. pipe.mu is held, but not meanwhile.
func (r *Reader) awaitBell() {
	p := r.pipe
	g := p.ring
	r.busy, r.hears = true, g.bell
	p.mu.Unlock()
	rings := g.bell.Wait()
	p.mu.Lock()
	g.mute = !rings
	if r.hears == nil {
		g.bell.Resume()
	}
	r.hears = nil
	r.release()
}

// copyOut copies the ring's next bytes, without pipe.mu where they are many. It says false
// if the ring is no longer there then.
func (r *Reader) copyOut(g *ringEnd, to []byte) bool {
	p := r.pipe
	var err error
	if len(to) <= pinAbove {
		err = g.r.Copy(to)
	} else {
		r.busy = true
		g.mapping.Retain()
		p.unlocked(func() {
			defer g.mapping.Release()
			err = g.r.Copy(to)
		})
	}
	if err != nil && p.ring == g {
		p.breaks()
	}
	return err == nil && p.ring == g
}

// writeOutRing writes up to n bytes of the ring to to, which may keep them for as long as
// it likes: they are a copy. pipe.mu is held, and given back.
func (r *Reader) writeOutRing(to io.Writer, n int) (int, error) {
	p := r.pipe
	g := p.ring
	if n == 0 { // it broke
		p.mu.Unlock()
		return 0, nil
	}
	c := newSegment(largePool)
	defer c.release()
	r.busy = true
	b := c.free()[:min(n, largeSegment)]
	ok := r.copyOut(g, b)
	p.mu.Unlock()
	if !ok {
		b = nil
	}
	k := 0
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if k > 0 && p.ring == g {
			p.taken(k)
		}
		r.release()
	}()
	if len(b) == 0 {
		return 0, nil
	}
	var err error
	k, err = writeAll(to, b)
	return k, err
}
