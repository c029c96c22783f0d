package ring

import "runtime/debug"

// tuning is what tests make small.
type tuning struct {
	grain  int // bytes copied before they are published, so that both ends work at once
	small  int // the largest write that is gathered
	gather int // bytes that are gathered
	burst  int // so many small writes after a bell are not
	pauses int // of a reader, while that goes on
}

var tuned = tuning{grain: 64 << 10, small: 512, gather: 16 << 10, burst: 8, pauses: 4}

// A Writer is the writing end.
//
// Small writes are gathered in private memory while the reader is awake: publishing each
// makes two processors fight for one cache line. They are published when there are enough,
// when the reader sleeps or asks (see [Writer.Rung]), and by [Writer.Push].
type Writer struct {
	memory
	tuning
	marker
	bell func() // makes the reader look

	limit    uint64 // no more bytes than that are in the ring, and gathered
	count    uint64 // bytes published: what the header says, which is not believed
	seen     uint64 // the reader's count when last looked at
	gathered []byte
	fresh    int // writes since the reader was last woken
	need     uint32
}

// NewWriter makes the writing end of the ring in mem, into which nothing has been written
// yet. bell makes the reader look again; it must not block.
func NewWriter(mem []byte, bell func()) (*Writer, error) {
	w := &Writer{tuning: tuned, bell: bell}
	err := w.open(mem, len(mem)-Header)
	w.limit = w.size
	return w, err
}

// Limit has the ring hold no more than n bytes, or what it holds now, if that is more.
func (w *Writer) Limit(n int) { w.limit = min(uint64(max(0, n)), w.size) }

// Write writes what there is room for. If that is less than all, the bell will ring when
// there is more.
func (w *Writer) Write(b []byte) (n int, err error) {
	if ok, err := w.Gather(b); ok || err != nil {
		return len(b), err
	}
	for n < len(b) {
		k, err := w.Reserve(len(b) - n)
		if k == 0 || err != nil {
			return n, err
		}
		if err := w.Fill(b[n : n+k]); err != nil {
			return n, err
		}
		if err := w.Publish(k); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// Gather takes b, if it is one of many small writes for which there is room; if not, it
// publishes what it has gathered.
func (w *Writer) Gather(b []byte) (ok bool, err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	switch {
	case w.err != nil:
		return false, w.err
	case len(b) == 0:
		return true, nil
	case len(b) > w.small, len(b) > w.left(), len(w.gathered) == 0 && w.fresh < w.burst:
		w.fresh++
		w.push()
		return false, w.err
	}
	if w.gathered == nil {
		w.gathered = make([]byte, 0, w.gather)
	}
	w.gathered = append(w.gathered, b...)
	if len(w.gathered) == len(b) {
		w.staged.store(1)
	}
	// The flag was set before this look, and the reader looks at it after it has set its
	// own: one of the two sees the other.
	if len(w.gathered) > w.gather-w.small || w.rsleep.load() != 0 {
		w.push()
	}
	return true, w.err
}

// left is how many bytes there was room for at the last look, behind what is gathered.
func (w *Writer) left() int {
	return max(0, int(w.limit)-int(w.count-w.seen)-len(w.gathered))
}

// Push publishes what was gathered. There always is room for it.
func (w *Writer) Push() (err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	if w.err == nil {
		w.push()
	}
	return w.err
}

func (w *Writer) push() {
	if n := len(w.gathered); n > 0 {
		w.put(w.count, w.gathered)
		w.gathered = w.gathered[:0]
		w.publish(n)
		w.staged.store(0)
	}
}

// Rung is to be called when the bell has rung: if the reader waits for what was gathered,
// it is published.
func (w *Writer) Rung() (err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	if w.err == nil && len(w.gathered) > 0 && w.rsleep.load() != 0 {
		w.push()
	}
	return w.err
}

// Reserve says how many of n bytes can be filled in and published now. 0: none, and the
// bell will ring when there is room for n, or half of the ring. What was gathered must
// have been pushed.
func (w *Writer) Reserve(n int) (k int, err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	if w.left() < n {
		w.look()
		if w.left() == 0 {
			w.await(w.size - w.limit + min(uint64(n), max(1, w.limit/2)))
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return min(n, w.left(), w.grain), nil
}

// look takes the reader's count.
func (w *Writer) look() {
	n := w.read.load()
	if w.err != nil {
		return
	}
	if n < w.seen || n > w.count {
		w.err = ErrBroken
		return
	}
	w.seen = n
}

// await has the bell rung when need bytes are free, or before, and looks whether they are.
// It has to be called again after each bell, since who rang may have been mistaken.
func (w *Writer) await(need uint64) {
	// Of two who wait, the flag is for the one who needs less.
	if n := uint32(need); w.wsleep.load() == 0 || n < w.need {
		w.need = n
		w.wsleep.store(n)
	}
	w.look()
}

// Fill copies b, for which Reserve has said that there is room. Nothing but this end's
// other calls may happen meanwhile that write.
func (w *Writer) Fill(b []byte) error { return w.FillAt(0, b) }

// FillAt is Fill behind n bytes that were filled in and not published yet.
func (w *Writer) FillAt(n int, b []byte) (err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	w.put(w.count+uint64(n), b)
	return nil
}

// Publish makes n bytes that were filled in the reader's.
func (w *Writer) Publish(n int) (err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	w.publish(n)
	return w.err
}

func (w *Writer) publish(n int) {
	w.count += uint64(n)
	w.written.store(w.count)
	if w.rsleep.load() == sleeps && w.rsleep.clear(sleeps) {
		w.fresh = 0
		w.bell()
	}
}

// Written is how many bytes were written, Gathered how many of them are not published.
func (w *Writer) Written() uint64 { return w.count + uint64(len(w.gathered)) }

// Gathered is how many bytes were written and not published.
func (w *Writer) Gathered() int { return len(w.gathered) }

// Unread is how many of the published bytes the reader has not taken.
func (w *Writer) Unread() (n uint64, err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	w.look()
	return w.count - w.seen, w.err
}

// Confirmed says how many bytes will be read whatever becomes of this end: they are
// published, no more than pending of them are ahead of the reader, and the keeper had not
// closed the ring. If it had, only what the reader has taken is sure. If they are less than
// n, the bell will ring when they may be as many.
func (w *Writer) Confirmed(n, pending uint64) (sure uint64, err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	w.look()
	if n > w.seen+pending {
		w.await(w.size - (w.count - (n - pending)))
	}
	return w.sure(pending), w.err
}

// Settled is Confirmed for one who waits for nothing.
func (w *Writer) Settled(pending uint64) (sure uint64, err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	if w.count > w.seen+pending {
		w.look()
	}
	return w.sure(pending), w.err
}

func (w *Writer) sure(pending uint64) uint64 {
	if w.closed.load() != 0 || w.err != nil {
		return w.seen
	}
	return min(w.count, w.seen+pending)
}
