package zpipes

import "hash/maphash"

// A registration is what the registry notes about a pipe, a queue or a port. All but waited is
// guarded by the registry's mu.
type registration struct {
	stream *pipe // whose it is; or
	queue  *chunkQueue
	port   *port
	of     *duplex // of a pipe without a name: the connection that it is a half of

	key    uint64           // says where it is in its index
	below  [4]*registration // there
	place  standing         // which index that is
	waited bool             // it is counted in waits. Guarded by the pipe's or queue's mu
}

type standing byte

const (
	nowhere  standing = iota
	named             // among those whose names are taken
	nameless          // among those whose names are free, but that an end still holds; or that have none
)

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
	is   standing
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
	*at, r.place, r.key = r, t.is, key
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
	r.place, r.below = nowhere, [4]*registration{}
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

// indexStep is how many are found in a step, more or less, as keys are random.
const indexStep = 64

// step returns some registrations: those with the keys from a first one, which is 0 at the
// beginning, up to next; 0: that was the last step. So, in an index that changes, what was
// there at the first step and is there at the last is found once. found has room for them.
func (t *index) step(from uint64, found []*registration) (next uint64, _ []*registration) {
	digits := 0 // that all these keys have in common
	for t.n>>(2*digits) > indexStep || from<<(2*digits) != 0 {
		digits++
	}
	r := t.root
	for i := 0; i < digits && r != nil; i++ {
		if (r.key^from)>>(64-2*digits) == 0 {
			found = append(found, r)
		}
		r = r.below[firstDigit(from<<(2*i))]
	}
	return from + 1<<(64-2*digits), r.all(found)
}

// all adds r, unless it is nil, and those below it.
func (r *registration) all(found []*registration) []*registration {
	if r == nil {
		return found
	}
	found = append(found, r)
	for _, b := range r.below {
		found = b.all(found)
	}
	return found
}

// keyOf is the key of a name. Nobody outside can know it.
func (g *registry) keyOf(name string) uint64 { return maphash.String(g.seed, name) }
