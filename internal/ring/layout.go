package ring

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

// Header is how many bytes of the memory are before the data. It is as large as the pages
// of any system, so that the data can be given back and the header mapped alone.
const Header = 64 << 10

// MaxSize is the most data that a ring can have.
const MaxSize = 1 << 30

// ErrBroken says that the memory holds what an honest end can't have put there, or that
// the system had no memory for it.
var ErrBroken = errors.New("the other end broke the ring")

// header is the beginning of the memory, its numbers in the processor's byte order. Each
// block of 128 bytes (two cache lines, which processors fetch together) has one writer,
// but for the sleepers' flags: who sleeps sets them, and who rings clears them.
type header struct {
	written count // bytes ever published; the writer's
	staged  flag  // 1: the writer has more, which it has not published; the writer's
	_       [block - 12]byte
	read    count // bytes ever taken; the reader's
	_       [block - 8]byte
	rsleep  flag // sleeps: the reader waits for the bell; looks: for a moment, without it; 0: it does not
	_       [block - 4]byte
	wsleep  flag // the writer waits until so many bytes are free; 0: it does not
	_       [block - 4]byte
	closed  flag // 1: what is published from now on does not count; the keeper's
	_       [block - 4]byte
}

const block = 128

const (
	sleeps = 1
	looks  = 2 // so that a writer at work publishes, and need not wake anybody
)

// A count is a 64-bit number in the memory, a flag one of 32 bits. All their methods are
// sequentially consistent, as sync/atomic is; the package stands on that.
type (
	count struct{ v atomic.Uint64 }
	flag  struct{ v atomic.Uint32 }
)

func (c *count) load() uint64 {
	step(unsafe.Pointer(c))
	v := c.v.Load()
	orderLoad()
	return v
}

func (c *count) store(v uint64) {
	step(nil)
	orderStore()
	c.v.Store(v)
}

func (f *flag) load() uint32 {
	step(unsafe.Pointer(f))
	return f.v.Load()
}

func (f *flag) store(v uint32) {
	step(nil)
	f.v.Store(v)
}

// clear sets the flag from v to 0, and says whether it did.
func (f *flag) clear(v uint32) bool {
	step(unsafe.Pointer(f))
	return f.v.CompareAndSwap(v, 0)
}

// memory is a ring as one end sees it.
type memory struct {
	*header
	data []byte
	size uint64
	err  error // why this end is over
}

// open is for a ring of size bytes, all or the header of which is in mem.
func (m *memory) open(mem []byte, size int) error {
	if len(mem) < Header || size <= 0 || size > MaxSize || uintptr(unsafe.Pointer(&mem[0]))%8 != 0 {
		return fmt.Errorf("%d bytes of memory can't be of a ring", len(mem))
	}
	*m = memory{header: (*header)(unsafe.Pointer(&mem[0])), data: mem[Header:], size: uint64(size)}
	return nil
}

// put copies b to where the byte number at belongs.
func (m *memory) put(at uint64, b []byte) {
	step(nil)
	n := copy(m.data[at%m.size:], b)
	copy(m.data, b[n:])
}

// get is the reverse.
func (m *memory) get(b []byte, at uint64) {
	step(nil)
	n := copy(b, m.data[at%m.size:])
	copy(b[n:], m.data)
}

// Memory that nobody has touched yet can turn out not to be there: then the processor
// faults. What touches it, does so between debug.SetPanicOnFault(true) and
//
//	defer m.shield(debug.SetPanicOnFault(true), &err)
//
// which makes an error of a fault in the ring, and of nothing else.
func (m *memory) shield(before bool, err *error) {
	debug.SetPanicOnFault(before)
	e := recover()
	if e == nil {
		return
	}
	fault, ok := e.(interface{ Addr() uintptr })
	if !ok || !m.has(fault.Addr()) {
		panic(e)
	}
	*err = fmt.Errorf("%w, or there is no memory for it", ErrBroken)
}

func (m *memory) has(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(m.header)) < Header+uintptr(m.size)
}
