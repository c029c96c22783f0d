package zpipes

import "hash/maphash"

// A registration is what the registry notes about a pipe, a queue or a port. All but waited is
// guarded by the registry's mu.
type registration struct {
	stream *pipe // whose it is; or
	queue  *chunkQueue
	port   *port
	of     *duplex // of a pipe without a name: the connection that it is a half of

	key    uint64           // says where it is among the names
	below  [4]*registration // there
	named  bool             // it is
	waited bool             // it is counted in waits. Guarded by the pipe's or queue's mu
	place  int              // in the table of all; 0: not there
}

func (r *registration) name() string {
	switch {
	case r.queue != nil:
		return r.queue.name
	case r.port != nil:
		return r.port.name
	}
	return r.stream.name
}

// An index finds registrations by their keys, which are random: a digital search tree. The
// digits of a key, two bits each, say the way from the root, and it is at the first place
// on that way that was free. It is made of nothing but the registrations themselves, so
// that no table has to grow and nothing is allocated while others wait for the lock: with
// 10^6 of them, all that is done takes some ten steps.
type index struct {
	root *registration
	n    int
}

// firstDigit says where a key goes next; the rest of it is key<<2.
func firstDigit(key uint64) uint64 { return key >> 62 }

func (t *index) find(key uint64, name string) *registration {
	r := t.root
	for way := key; r != nil && (r.key != key || r.name() != name); way <<= 2 {
		r = r.below[firstDigit(way)]
	}
	return r
}

// put adds r, which is nowhere, under a key.
func (t *index) put(r *registration, key uint64) {
	at := &t.root
	for way := key; *at != nil; way <<= 2 {
		at = &(*at).below[firstDigit(way)]
	}
	*at, r.named, r.key = r, true, key
	t.n++
}

// remove takes out r, which is in it. One that is on no other's way takes its place.
func (t *index) remove(r *registration) {
	at := &t.root
	for way := r.key; *at != r; way <<= 2 {
		at = &(*at).below[firstDigit(way)]
	}
	last := at
	for next := last; next != nil; {
		last, next = next, (*next).some()
	}
	x := *last
	*last = nil
	if x != r {
		*at, x.below = x, r.below
	}
	r.named, r.below = false, [4]*registration{}
	t.n--
}

// some is a place below r that is taken; nil: none is.
func (r *registration) some() **registration {
	for i := range r.below {
		if r.below[i] != nil {
			return &r.below[i]
		}
	}
	return nil
}

// keyOf is the key of a name. Nobody outside can know it.
func (g *registry) keyOf(name string) uint64 { return maphash.String(g.seed, name) }
