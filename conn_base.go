//go:build !core

package zpipes

import "time"

// What a link does otherwise at a broker that knows only the base protocol. There the
// connection has one link, on channel 0.

// maxBaseReads is how many READs wait at a base-protocol broker at once.
const maxBaseReads = 256

// askBase reads from a broker that answers with exactly what it was asked for: with as
// many READs as room has for their answers, but at least one.
func (l *streamLink) askBase(room int) {
	size := l.conn.client.cfg.ReadSize
	count := min(room/size, maxBaseReads)
	if count == 0 && l.pipe.buf.n == 0 {
		count = 1
	}
	if l.asked > count*size/2 {
		return
	}
	for ; l.asked < count*size; l.asked += size {
		l.send(&message{id: msgRead, size: uint32(size)})
	}
}

// answersRead is how many bytes of what was asked for a READ_OK takes off. In the base
// protocol it answers one READ, whatever is in it: less at the end of the stream, and
// nothing where zbroker took a PING for the READ.
func (l *streamLink) answersRead(m *message) int {
	if l.conn.agreed() {
		return len(m.chunk)
	}
	return l.conn.client.cfg.ReadSize
}

// probeTimeout is how long an empty WRITE waits for a reader: it is answered as often as
// a PING would be, and no later than an open end may take to close.
func (k *conn) probeTimeout() time.Duration { return min(k.client.cfg.Heartbeat, defaultHeartbeat) }

// sendProbe sends a base-protocol broker an empty WRITE, which is answered when the
// reader is there, or when its time is over. Until then it stands for PINGs: one that
// comes while a WRITE waits takes that one's place at zbroker, which aborts when the
// reader comes. After its WRITE_OK no WRITE has to wait any more.
func (l *streamLink) sendProbe() {
	if len(l.sent) > 0 {
		return
	}
	l.sent = append(l.sent, sentWrite{})
	l.send(&message{id: msgWrite, timeout: uint32(l.conn.probeTimeout() / time.Millisecond)})
}

// probing says that the link is a writer that has not met its reader at a base-protocol
// broker.
func (l *streamLink) probing() bool { return l.role == writer && !l.moving && !l.conn.agreed() }

// probeAnswered takes note that no reader came in that time.
func (l *streamLink) probeAnswered() {
	l.sent = nil
	l.serve()
}

// pings says that the connection shows with PINGs that it lives.
func (k *conn) pings() bool {
	// Without a session each PING would begin one, and end the one before.
	if k.asking && !k.greeted {
		return false
	}
	l, _ := k.links[0].(*streamLink)
	return l == nil || !l.probing()
}
