//go:build !core

package zpipes

import (
	"errors"
	"time"
)

// A transport carries messages between a client and a broker, both ways and in order. It
// belongs to one goroutine, its owner, which calls everything but wake and calls nothing
// that blocks but wait.
type transport interface {
	// wait returns the next message as soon as there is one; and without one when wake
	// was called, when send may be tried again after errFull, when the connection has
	// ended, or the time is there (a zero one never is), and now and then for no reason.
	// What was sent has left then, as far as it can.
	wait(until time.Time) (packet, bool)
	// send hands a message over. It returns errFull where as much waits for the peer as
	// may, and errGone where there is no peer any more. The frames are the caller's again.
	send(frames ...[]byte) error
	// stalled says that the peer does not take what was sent, so that it costs memory
	// here. wait returns when it is over.
	stalled() bool
	// connected says whether the peer is there, as far as that may have changed with the
	// last wait. All that it sent before its end has been received when it is not.
	connected() bool
	// wake makes the owner's wait return. It may be called from any goroutine.
	wake()
	// linger has close wait so long for what was sent.
	linger(d time.Duration)
	close()
}

var (
	errGone = errors.New("connection lost")
	errFull = errors.New("as much as may wait for the peer does")
)

// packet is a received message. One frame is all there is, but from a client of ZeroMQ's
// to a broker: there a message of more than one has the others in more, as far as they
// are kept.
type packet struct {
	id    []byte            // routing id, on a ROUTER
	about map[string]string // what libzmq says of its connection, of what was asked
	frame []byte
	more  [][]byte
	// lent says that the frame is the transport's again at the next wait: who keeps any of
	// it copies that.
	lent bool
	// fault says that what has come is no message, and why; nothing comes after it.
	fault error
	body  *segment // has the frame, and is the receiver's to keep or to release; nil: none has
	// waited says that nothing was there when the owner came for it, message or none.
	waited bool

	descriptors []int // that came with it; the receiver's
}

// What libzmq says of the connection that a message came over. Over inproc it says
// nothing.
const (
	peerAddress = "Peer-Address" // see peerOf
	userID      = "User-Id"      // what the ZAP handler calls the connection
	descriptor  = "__fd"         // its number in this process
)
