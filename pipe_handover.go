package zpipes

import (
	"runtime/debug"
	"unsafe"
)

// A handover takes bytes from a Write straight to a Read that waits, past the pipe's
// buffer. It is a part of a pipe whose ends are in the broker's process, and mu guards it.
//
// What is in the Read's buffer, or will be in a moment, has been read: it counts as in
// and out, and whoever leaves meanwhile changes nothing about it.
type handover struct {
	waits bool   // a Read or WriteTo
	lent  bool   // a Write copies into it, and the Read returns after that
	stays bool   // a Write that has served who waits goes on after that one has
	into  []byte // the Read's buffer
	given int    // bytes that it has got
}

// pinAbove is the size from which bytes are copied without holding the pipe's mu, so that
// the other end goes on meanwhile.
const pinAbove = 4 << 10

// offer is for a Read that waits: a Write may copy into b. With nil it is for a WriteTo,
// which only says that it waits. Another call may do so already.
func (p *pipe) offer(b []byte) bool {
	if p.use != brokers || p.waits {
		return false
	}
	p.waits, p.into = true, b
	return true
}

// collect ends the offer, and returns how many bytes the Read has got. None is lent.
func (p *pipe) collect() int {
	n := p.given
	p.waits, p.into, p.given = false, nil, 0
	if p.stays {
		p.stays = false
		p.wakeSide(&p.writer)
	}
	return n
}

// wants is how many of n bytes may go to a Read that waits. A few that do not fill its
// buffer go into the pipe's: others that follow before it returns are read with them.
func (p *pipe) wants(n int) int {
	room := len(p.into)
	if room == 0 || p.given > 0 || p.buf.n > 0 || !p.reader.attached() || n < room && n <= pinAbove {
		return 0
	}
	return min(n, room)
}

// give copies b, which is wanted; with aside set, without holding mu. It says how much of it
// the Read has got: all, or nothing where its buffer faults.
func (p *pipe) give(b []byte, aside bool) (n int) {
	to := p.lend(len(b))
	defer func() {
		if n == 0 {
			p.takeBack()
		}
		p.gave()
	}()
	if aside {
		p.unlocked(func() { n = copyOver(to, b) })
		return n
	}
	return copyOver(to, b)
}

// lend is for one who copies, until gave.
func (p *pipe) lend(n int) []byte {
	p.lent, p.given = true, n
	p.passed(int64(n), int64(n))
	return p.into[:n]
}

// takeBack is for one who can't. The Read looks again, and is given nothing more.
func (p *pipe) takeBack() {
	p.passed(-int64(p.given), -int64(p.given))
	p.into, p.given = nil, 0
}

func (p *pipe) gave() {
	p.lent = false
	p.wakeSide(&p.reader)
}

// copyOver is copy, which is done with nothing if to faults: that is for its owner to meet, on
// a goroutine of his own.
func copyOver(to, b []byte) (n int) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if n > 0 {
			return
		}
		if e := recover(); e != nil && !faultIn(e, to) {
			panic(e)
		}
	}()
	return copy(to, b)
}

// faultIn says that what was recovered is a fault in that memory.
func faultIn(e any, b []byte) bool {
	fault, ok := e.(interface{ Addr() uintptr })
	return ok && fault.Addr()-uintptr(unsafe.Pointer(unsafe.SliceData(b))) < uintptr(len(b))
}

// stay is for a Write that has served who waits, and goes on when stays is not set any
// more, or earlier with goOn.
func (p *pipe) stay() { p.stays = p.waits }

func (p *pipe) goOn() { p.stays = false }
