//go:build unix && !core

package zpipes

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A near is either end of a Unix stream socket between a client and a broker, on which
// each message follows its length, four bytes in network byte order.
//
// Its owner receives and sends by itself, and waits in Go's poller. Only while the kernel
// does not take what was sent, there is a second goroutine, which waits for that.
// Connections are many and mostly quiet, so one that has nothing to receive or to send
// holds no buffers.
type near struct {
	file *os.File // whose errors cost nothing, unlike a net.Conn's
	raw  syscall.RawConn
	parking
	lent sync.Mutex // held by the owner, but not while it waits; taken with no other one held

	// These belong to the owner.
	look     func(fd uintptr) (done bool) // n.receive
	looked   bool                         // since the owner waits
	dry      bool                         // the kernel had nothing when it looked
	largest  int                          // bytes of a message that is taken
	met      bool                         // the first one was
	in       *inBuffer                    // nil: there is nothing in it
	body     *segment                     // the large message that is being received; nil: none is
	bodyLeft int                          // bytes of it that are missing
	next     packet
	ready    bool  // next is to be handed out
	over     error // why nothing is received any more

	gift  *gift // nil: descriptors are not wanted
	given []int // that have come, for messages that are still to be taken

	push    func(fd uintptr) (done bool) // n.write
	out     []byte                       // what was sent, and has not left; nil or outPool's
	rest    []byte                       // of what is being written
	lingers time.Duration

	most      int         // bytes that may be kept before send returns errFull
	congested atomic.Bool // something is kept; set by the owner
	keptMu    sync.Mutex  // guards what follows; no other lock is taken under it
	kept      buffer      // what the kernel has not taken
	drained   chan struct{}
	deaf      bool // the peer takes nothing any more
}

const (
	// inSize is how much is received at once of small messages. What is larger is
	// received where it will stay.
	inSize = 8 << 10
	// outSize is how much is gathered before it leaves; what is larger than
	// copyToSend leaves from where it is.
	outSize    = 32 << 10
	copyToSend = 8 << 10
)

// An inBuffer has received bytes from r to w.
type inBuffer struct {
	r, w int
	data [inSize]byte
}

var (
	inPool  = sync.Pool{New: func() any { return new(inBuffer) }}
	outPool = sync.Pool{New: func() any { return new([outSize]byte) }}
)

// newNear takes a connection over, unless there is an error. largest is how many bytes a message may have that is
// received, except for the first one, and most how many may be kept for a peer that does not
// take them.
func newNear(file *os.File, largest, most int) (*near, error) {
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return nil, err
	}
	// So that what a stream sends at once leaves at once. The system has less if it likes.
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 2*frameSegment)
	})
	n := &near{file: file, raw: raw, largest: largest, most: most}
	n.parking.deadline = file.SetReadDeadline
	n.look, n.push = n.receive, n.write
	n.lent.Lock()
	return n, nil
}

// wantDescriptors has the peer's descriptors taken, and says whether they can be.
func (n *near) wantDescriptors() bool {
	if canGive {
		n.gift = new(gift)
	}
	return canGive
}

// givesDescriptors says whether give may do anything.
func (n *near) givesDescriptors() bool { return canGive }

// give sends a message with descriptors, which stay the caller's. It says false where
// that can't be done now: then nothing was sent.
func (n *near) give(frame []byte, descriptors []int) bool {
	if n.flush(); n.congested.Load() {
		return false
	}
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	k := 0
	n.raw.Write(func(fd uintptr) bool {
		k, _ = sendDescriptors(int(fd), b, descriptors)
		return true
	})
	if 0 < k && k < len(b) {
		n.leave(b[k:])
	}
	return k > 0
}

// mostGiven is how many descriptors may have come for messages that have not.
const mostGiven = 8

// receiveSmall receives what may have descriptors with it.
func (n *near) receiveSmall(fd int, to []byte) (int, error) {
	if n.gift == nil {
		return receiveSome(fd, to)
	}
	k, ds, err := receiveGift(fd, to, n.gift)
	if len(ds) > 0 {
		if n.given = append(n.given, ds...); len(n.given) > mostGiven {
			closeDescriptors(n.given)
			n.given = nil
		}
	}
	return k, err
}

// wait is transport's. The packet's frame is lent, or it is in the packet's body, which
// is the owner's.
func (n *near) wait(until time.Time) (packet, bool) {
	if !n.ready {
		n.take()
	}
	if !n.met && n.out == nil {
		n.raw.Control(n.lookOnce) // who connects says something at once
	}
	waited := false
	if !n.ready && n.over == nil {
		n.flush()
		if n.park(until) {
			n.looked, n.dry = false, false
			n.lent.Unlock()
			n.raw.Read(n.look)
			n.lent.Lock()
			waited = n.dry
			if !n.looked {
				n.raw.Control(n.lookOnce) // the deadline was over before the first look
			}
			n.unpark()
		} else {
			n.raw.Control(n.lookOnce)
		}
	}
	p, ok := n.next, n.ready
	p.waited = waited
	n.next, n.ready = packet{}, false
	return p, ok
}

// borrow and repay are lender's. Who has borrowed touches nothing of what receives.
func (n *near) borrow() bool { return n.lent.TryLock() }

func (n *near) repay() {
	n.flush()
	n.lent.Unlock()
}

func (n *near) lookOnce(fd uintptr) { n.look(fd) }

// receive takes what has come, up to the next whole message, and says whether there is
// one, or never will be.
func (n *near) receive(fd uintptr) (done bool) {
	n.looked = true
	for !n.ready && n.over == nil {
		var k int
		var err error
		if n.bodyLeft > 0 {
			k, err = receiveSome(int(fd), n.body.bodyRoom(n.bodyLeft))
		} else {
			if n.in == nil {
				n.in = inPool.Get().(*inBuffer)
				n.in.r, n.in.w = 0, 0
			}
			k, err = n.receiveSmall(int(fd), n.in.data[n.in.w:])
		}
		switch {
		case err == syscall.EAGAIN: // nothing less says that an edge will come
			n.dry = true
			n.giveBack()
			return false
		case err != nil:
			n.over = err
		case k == 0:
			n.over = errGone
		case n.bodyLeft > 0:
			n.received(k)
		default:
			n.in.w += k
		}
		if n.over != nil {
			n.body.release()
			n.body, n.bodyLeft = nil, 0
			n.giveBack()
			return true
		}
		n.take()
	}
	return true
}

// take makes next of what has been received, if that is a whole message.
func (n *near) take() {
	in := n.in
	if in == nil || n.bodyLeft > 0 || n.over != nil {
		return
	}
	have := in.data[in.r:in.w]
	if len(have) < lengthBytes {
		n.compact()
		return
	}
	size := int(binary.BigEndian.Uint32(have))
	most := n.largest
	if !n.met {
		most = min(most, messageOverhead)
	}
	if size > most || size < 0 {
		n.over = errTooLarge
		n.next, n.ready = packet{fault: errTooLarge}, true
		return
	}
	n.met = true
	have = have[lengthBytes:]
	switch {
	case size <= min(len(have), copyUpTo):
		n.next, n.ready = packet{frame: have[:size:size], lent: true}, true
		if len(n.given) > 0 && offersRing(n.next.frame) {
			n.next.descriptors, n.given = n.given[:min(len(n.given), 2)], n.given[min(len(n.given), 2):]
		}
		in.r += lengthBytes + size
	case size <= copyUpTo:
		n.compact()
	default:
		n.body = newBody(size)
		n.bodyLeft = size
		k := copy(n.body.bodyRoom(size), have)
		in.r += lengthBytes + k
		n.received(k)
	}
}

// offersRing says that descriptors come with that message.
func offersRing(frame []byte) bool {
	m, err := parse(frame)
	return err == nil && m.id == msgOffer && m.size > 0
}

// compact makes room behind the beginning of a message.
func (n *near) compact() {
	if in := n.in; in.w > len(in.data)/2 {
		in.w = copy(in.data[:], in.data[in.r:in.w])
		in.r = 0
	}
}

// giveBack lets go of an empty buffer.
func (n *near) giveBack() {
	if in := n.in; in != nil && (in.r == in.w || n.over != nil) {
		n.in = nil
		inPool.Put(in)
	}
}

// received counts k bytes more of the body, and makes next of it once it is whole.
func (n *near) received(k int) {
	c := n.body
	c.w += k
	if n.bodyLeft -= k; n.bodyLeft > 0 {
		return
	}
	n.next, n.ready = c.packet(), true
	n.body = nil
}

// send is transport's. What can't reach the peer any more is dropped: its end is told
// when all that it sent before has been received.
func (n *near) send(frames ...[]byte) error {
	for _, frame := range frames {
		if n.congested.Load() {
			n.flush() // what is older
			if err := n.keep(frame); err != nil {
				return err
			}
			continue
		}
		k := min(len(frame), copyToSend)
		if len(n.out)+lengthBytes+k > outSize {
			n.flush()
		}
		if n.out == nil {
			n.out = outPool.Get().(*[outSize]byte)[:0]
		}
		// The beginning of a large one leaves with its length: whom that wakes finds
		// something to do.
		n.out = binary.BigEndian.AppendUint32(n.out, uint32(len(frame)))
		n.out = append(n.out, frame[:k]...)
		if k < len(frame) {
			n.flush()
			n.leave(frame[k:])
		}
	}
	return nil
}

// keep is send while the kernel takes nothing.
func (n *near) keep(frame []byte) error {
	n.keptMu.Lock()
	defer n.keptMu.Unlock()
	if n.kept.n >= n.most {
		return errFull
	}
	var length [lengthBytes]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(frame)))
	n.add(length[:])
	n.add(frame)
	return nil
}

// flush has leave what was gathered.
func (n *near) flush() {
	if n.out == nil {
		return
	}
	out := n.out
	n.out = nil
	n.leave(out)
	outPool.Put((*[outSize]byte)(out[:outSize]))
}

// leave has b leave, now as far as the kernel takes it, and the rest as soon as it does.
func (n *near) leave(b []byte) {
	var err error
	if !n.congested.Load() {
		n.rest = b
		err = n.raw.Write(n.push)
		if b, n.rest = n.rest, nil; err == nil && len(b) == 0 {
			return
		}
	}
	n.keptMu.Lock()
	defer n.keptMu.Unlock()
	n.deaf = n.deaf || err != nil
	n.add(b)
}

// write writes the rest once, as far as the kernel takes it.
func (n *near) write(fd uintptr) (done bool) {
	for len(n.rest) > 0 {
		k, err := sendSome(int(fd), n.rest)
		if err == syscall.EAGAIN {
			break
		}
		if err != nil {
			n.rest = nil
			break
		}
		n.rest = n.rest[k:]
	}
	return true
}

// add keeps b, and has a goroutine wait until the kernel takes it. keptMu is held.
func (n *near) add(b []byte) {
	if n.deaf {
		return
	}
	n.kept.write(b, len(b) > largeSegment/2)
	if !n.congested.Load() {
		n.congested.Store(true)
		n.drained = make(chan struct{})
		go n.drain(n.drained)
	}
}

// drain waits until the kernel has taken all that is kept, or the connection is over.
func (n *near) drain(drained chan struct{}) {
	err := n.raw.Write(n.writeKept)
	if err != nil {
		n.keptMu.Lock()
		n.kept.clear()
		n.deaf = true
		n.congested.Store(false)
		n.keptMu.Unlock()
	}
	close(drained)
	n.wake()
}

// writeKept writes what is kept, and is done when that is all.
func (n *near) writeKept(fd uintptr) (done bool) {
	n.keptMu.Lock()
	defer n.keptMu.Unlock()
	for n.kept.n > 0 {
		k, err := sendSome(int(fd), n.kept.head.data())
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			n.kept.clear()
			n.deaf = true
			break
		}
		n.kept.consume(k)
	}
	n.congested.Store(false)
	return true
}

func (n *near) stalled() bool { return n.congested.Load() }

func (n *near) connected() bool { return n.ready || n.over == nil }

func (n *near) linger(d time.Duration) { n.lingers = d }

// close is transport's. What the kernel has taken reaches the peer all the same.
func (n *near) close() {
	n.flush()
	if n.congested.Load() && n.lingers > 0 {
		patience := time.NewTimer(n.lingers)
		defer patience.Stop()
		select {
		case <-n.drained:
		case <-patience.C:
		}
	}
	n.file.Close()
	if n.drained != nil {
		<-n.drained
	}
	n.body.release()
	n.body, n.in = nil, nil
	closeDescriptors(n.given)
	closeDescriptors(n.next.descriptors)
	n.given, n.next = nil, packet{}
}

// receiveSome is read(2), without EINTR.
func receiveSome(fd int, b []byte) (int, error) {
	for {
		if k, err := syscall.Read(fd, b); err != syscall.EINTR {
			return k, err
		}
	}
}
