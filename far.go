//go:build !core

package zpipes

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A far is either end of a connection between brokers of several machines: frames on a
// net.Conn, mostly encrypted. Unlike a near, it can't write without waiting; so what was sent
// is written by a goroutine that is there only while there is something. Another one receives,
// into the inbox if it is a transport (listen), else it is who calls next.
type far struct {
	inbox
	conn    net.Conn
	largest int           // bytes of a message that is taken
	life    *lifeSign     // of the broker at the other end
	heard   lifeSign      // likewise, of this connection
	took    bell          // rings when there is room in the inbox; nil: it is no transport
	ended   chan struct{} // closed when the goroutine that receives has ended
	head    [lengthBytes]byte

	out     sync.Mutex    // guards what follows; no other lock is taken under it
	rest    buffer        // what is to be written
	unsent  int           // bytes that have not left
	mostOut int           // bytes that may be unsent before send returns errFull
	full    bool          // stalled was said
	writing chan struct{} // closed when the goroutine that writes ends; nil: there is none
	deaf    bool          // the other end takes nothing any more
	lingers time.Duration // how long close waits; a mesh says so, while who receives may be closing
}

// A lifeSign is when anything at all has come from a broker, over whichever connection: on a
// slow link data may be before every heartbeat, but is as good as one.
//
// It goes by the clock that nobody sets: else all would seem dead when the time of a host is
// put forward.
type lifeSign struct{ at atomic.Int64 } // nanoseconds since started

func (s *lifeSign) note(at time.Time) { s.at.Store(int64(at.Sub(started))) }

func (s *lifeSign) time() time.Time { return started.Add(time.Duration(s.at.Load())) }

const (
	// maxFarInbox is how much is received ahead of who takes it.
	maxFarInbox = 1 << 20
	// stalledFar is how much may be unsent before the other end counts as one that does not
	// take it.
	stalledFar = 256 << 10
	// silentFar is how long one connection to a broker may be silent that lives by others.
	silentFar = 15 * time.Second
)

func newFar(c net.Conn, largest, mostOut int, life *lifeSign) *far {
	f := &far{conn: c, largest: largest, mostOut: mostOut, life: life}
	f.alive()
	return f
}

// listen makes it a transport.
func (f *far) listen() *far {
	f.inbox = newInbox(maxFarInbox)
	f.took, f.ended = newBell(), make(chan struct{})
	f.roomy = f.took.ring
	go f.receive()
	return f
}

// receive fills the inbox, until there is nothing more, or nobody takes it.
func (f *far) receive() {
	defer close(f.ended)
	defer f.end()
	for {
		p, err := f.next()
		if err == errTooLarge {
			p.fault = err
		} else if err != nil {
			return
		}
		for f.put(p) == errFull {
			<-f.took
		}
		if err != nil {
			return
		}
	}
}

// next receives a message.
func (f *far) next() (p packet, err error) {
	if err := f.fill(f.head[:]); err != nil {
		return p, err
	}
	size := int(binary.BigEndian.Uint32(f.head[:]))
	switch {
	case size > f.largest || size < 0:
		return p, errTooLarge
	case size <= copyUpTo:
		p.frame = make([]byte, size)
		return p, f.fill(p.frame)
	}
	body := newBody(size)
	for left := size; left > 0; {
		n, err := f.conn.Read(body.bodyRoom(left))
		if n == 0 && err != nil {
			body.release()
			return p, err
		}
		f.alive()
		body.w += n
		left -= n
	}
	return body.packet(), nil
}

func (f *far) fill(b []byte) error {
	for n := 0; n < len(b); {
		k, err := f.conn.Read(b[n:])
		if k == 0 && err != nil {
			if err == io.EOF && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		f.alive()
		n += k
	}
	return nil
}

// hear is next for one who reads messages. What it points to is the receiver's.
func (f *far) hear() (*message, error) {
	p, err := f.next()
	if err != nil {
		return nil, err
	}
	m, err := parse(p.frame)
	return &m, err
}

// alive records that something has come.
func (f *far) alive() {
	now := time.Now()
	f.heard.note(now)
	f.life.note(now)
}

// heardAt is when the other broker was last heard, as far as that says something of this
// connection.
func (f *far) heardAt() time.Time {
	own, other := f.heard.time(), f.life.time()
	if other.Sub(own) > silentFar {
		return own
	}
	return other
}

// send is transport's, and may be called from any goroutine. What can't reach the other end any
// more is dropped, as by a near.
func (f *far) send(frames ...[]byte) error {
	f.out.Lock()
	defer f.out.Unlock()
	for _, frame := range frames {
		switch {
		case f.deaf:
			return nil
		case f.unsent >= f.mostOut:
			return errFull
		}
		var length [lengthBytes]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(frame)))
		f.rest.write(length[:], false)
		f.rest.write(frame, len(frame) > largeSegment/2)
		f.unsent += lengthBytes + len(frame)
	}
	if f.writing == nil {
		f.writing = make(chan struct{})
		go f.write(f.writing)
	}
	return nil
}

func (f *far) sendMessage(m *message) error { return f.send(m.append(nil)) }

// write writes what there is, until that is all.
func (f *far) write(done chan struct{}) {
	defer close(done)
	for {
		f.out.Lock()
		b := f.rest
		f.rest = buffer{}
		if b.n == 0 {
			f.writing = nil
			f.out.Unlock()
			return
		}
		f.out.Unlock()
		for b.n > 0 {
			k, err := f.conn.Write(b.head.data())
			b.consume(k)
			f.out.Lock()
			if f.unsent -= k; err != nil {
				f.deaf, f.unsent = true, 0
				f.rest.clear()
				b.clear()
			}
			room := f.full && f.unsent <= stalledFar/2
			f.full = f.full && !room
			f.out.Unlock()
			if room {
				f.wake()
			}
		}
	}
}

// waiting is how many bytes have yet to leave.
func (f *far) waiting() int {
	f.out.Lock()
	defer f.out.Unlock()
	return f.unsent
}

func (f *far) stalled() bool {
	f.out.Lock()
	defer f.out.Unlock()
	f.full = f.unsent > stalledFar
	return f.full
}

func (f *far) linger(d time.Duration) {
	f.out.Lock()
	defer f.out.Unlock()
	f.lingers = d
}

// part closes with a last message, which has so long to leave.
func (f *far) part(last *message, within time.Duration) {
	f.sendMessage(last)
	f.linger(within)
	f.close()
}

// close is transport's.
func (f *far) close() {
	f.out.Lock()
	writing, lingers := f.writing, f.lingers
	f.out.Unlock()
	if writing != nil && lingers > 0 {
		patience := time.NewTimer(lingers)
		defer patience.Stop()
		select {
		case <-writing:
		case <-patience.C:
		}
	}
	f.conn.Close()
	f.out.Lock()
	writing = f.writing
	f.out.Unlock()
	if writing != nil {
		<-writing
	}
	if f.ended == nil {
		return
	}
	f.shut()
	f.roomy()
	<-f.ended
}
