package ring

import (
	"runtime/debug"
	"unsafe"
)

// Behind its numbers the header has room for marks: places in the stream of which the writer
// says that something begins there. At most mostMarks are told that the reader has not
// passed, since the next one takes the place of the one before that.
type marks struct {
	told count // how many there ever were; the writer's
	_    [block - 8]byte
	at   [mostMarks]count // the writer's
}

const (
	marksAt   = 4 << 10
	mostMarks = 4096
)

// The header has room for them.
const _ = uint(Header - marksAt - unsafe.Sizeof(marks{}))

func (m *memory) marks() *marks {
	return (*marks)(unsafe.Add(unsafe.Pointer(m.header), marksAt))
}

// A marker is what the writer knows of its marks.
type marker struct {
	told uint64
	at   []uint64 // as in the header, which is not believed
}

// Mark marks the place behind all that was written, unless it is marked. Where the reader
// has so many before it that there is no room for one more, it is left out.
func (w *Writer) Mark() {
	err := w.mark()
	if w.err == nil {
		w.err = err
	}
}

func (w *Writer) mark() (err error) {
	defer w.shield(debug.SetPanicOnFault(true), &err)
	m, at := &w.marker, w.Written()
	if m.at == nil {
		m.at = make([]uint64, mostMarks)
	}
	if m.told > 0 && m.at[(m.told-1)%mostMarks] == at {
		return nil
	}
	i := m.told % mostMarks
	if m.told >= mostMarks && m.at[i] >= w.seen {
		if w.look(); m.at[i] >= w.seen {
			return w.err
		}
	}
	m.at[i] = at
	m.told++
	shared := w.marks()
	shared.at[i].store(at)
	shared.told.store(m.told)
	return w.err
}

// Marks calls f with the marks in the first n bytes, which Ready has said are there, counted
// from the first one. It says each once.
func (r *Reader) Marks(n int, f func(at int)) (err error) {
	defer r.shield(debug.SetPanicOnFault(true), &err)
	shared := r.marks()
	told := shared.told.load()
	if told < r.marked || told-r.marked > mostMarks {
		r.err = ErrBroken
	}
	for r.err == nil && r.marked < told {
		at := shared.at[r.marked%mostMarks].load()
		if at >= r.count+uint64(n) {
			break
		}
		if at < r.count || at < r.behind {
			r.err = ErrBroken
			break
		}
		r.marked, r.behind = r.marked+1, at+1
		f(int(at - r.count))
	}
	return r.err
}
