package ring

import (
	"io"
	"runtime/debug"
)

// A Reader is the reading end.
type Reader struct {
	memory
	grain  int
	bell   func() // makes the writer look
	pause  func()
	pauses int // so many before it sleeps; in the last one the writer publishes whatever it writes

	count uint64 // bytes taken: what the header says, which is not believed
	seen  uint64 // the writer's count when last looked at, or the end
	ended bool

	marked uint64 // marks it was told
	behind uint64 // no more are before there
}

// NewReader makes the reading end of the ring in mem, from which nothing has been read
// yet. bell makes the writer look again; it must not block. pause takes half a microsecond:
// a reader without bytes waits for some of these before it asks a writer for what that has
// gathered.
func NewReader(mem []byte, bell, pause func()) (*Reader, error) {
	r := &Reader{grain: tuned.grain, bell: bell, pause: pause, pauses: tuned.pauses}
	return r, r.open(mem, len(mem)-Header)
}

// Read reads what there is. If there is nothing, it returns 0, and the bell will ring when
// there is something; io.EOF is the end that End has told.
func (r *Reader) Read(b []byte) (n int, err error) {
	for n < len(b) {
		k := r.There()
		if k == 0 && n > 0 {
			break
		}
		if k, err = r.Ready(len(b) - n); k == 0 || err != nil {
			return n, err
		}
		if err := r.Copy(b[n : n+k]); err != nil {
			return n, err
		}
		if err := r.Consume(k); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// There is how many bytes there were at the last look.
func (r *Reader) There() int { return int(r.seen - r.count) }

// Ready says how many of n bytes can be copied out now. 0: none, and the bell will ring
// when there are some.
func (r *Reader) Ready(n int) (k int, err error) {
	defer r.shield(debug.SetPanicOnFault(true), &err)
	if r.There() < n {
		r.look()
	}
	if r.There() == 0 && !r.ended {
		r.await()
	}
	switch {
	case r.err != nil:
		return 0, r.err
	case r.There() == 0 && r.ended:
		return 0, io.EOF
	}
	return min(n, r.There(), r.grain), nil
}

// look takes the writer's count, unless that may be behind the end.
func (r *Reader) look() {
	if r.ended || r.err != nil {
		return
	}
	n := r.written.load()
	if r.closed.load() != 0 {
		return // the keeper will tell how much counts
	}
	r.see(n)
}

func (r *Reader) see(n uint64) {
	if n < r.seen || n-r.count > r.size {
		r.err = ErrBroken
		return
	}
	r.seen = n
}

// await has the bell rung when there is something, and looks whether there is.
func (r *Reader) await() {
	for left := r.pauses; left > 0 && r.There() == 0 && r.staged.load() != 0; left-- {
		if left == 1 {
			r.rsleep.store(looks)
		}
		r.pause()
		r.look()
	}
	if r.There() == 0 {
		r.rsleep.store(sleeps)
		r.look()
		if r.There() == 0 && r.staged.load() != 0 {
			r.bell()
		}
	}
	if r.There() > 0 && r.rsleep.load() != 0 {
		r.rsleep.store(0)
	}
}

// Copy copies out the first bytes, which Ready has said are there. They stay where they
// are until they are consumed.
func (r *Reader) Copy(b []byte) (err error) {
	defer r.shield(debug.SetPanicOnFault(true), &err)
	r.get(b, r.count)
	return nil
}

// Consume gives the room of n bytes back to the writer.
func (r *Reader) Consume(n int) (err error) {
	defer r.shield(debug.SetPanicOnFault(true), &err)
	r.count += uint64(n)
	r.read.store(r.count)
	// Judged by what the writer's count is now: by an older one there might seem to be
	// more room than there is, and its flag would be cleared too early.
	if need := r.wsleep.load(); need != 0 && r.size-(r.written.load()-r.count) >= uint64(need) && r.wsleep.clear(need) {
		r.bell()
	}
	return r.err
}

// Count is how many bytes were consumed.
func (r *Reader) Count() uint64 { return r.count }

// End says that the stream ends behind its first n bytes, as the keeper has found. What is
// before is read first.
func (r *Reader) End(n uint64) error {
	if r.see(n); r.err == nil {
		r.ended = true
	}
	return r.err
}

// EndHere is End behind all that is published, where nobody is left to say more.
func (r *Reader) EndHere() (err error) {
	defer r.shield(debug.SetPanicOnFault(true), &err)
	if !r.ended && r.err == nil {
		r.see(r.written.load())
		r.ended = r.err == nil
	}
	return r.err
}
