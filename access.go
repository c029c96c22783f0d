package zpipes

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Access is what a client asks a broker for, with what the operating system says of
// the client's process. See BrokerConfig.Allow.
type Access struct {
	UID, GID, PID int    // of the process; -1 where they are not known (tcp)
	Pipe          string // the pipe's name
	// Op is "read" or "write" (an end of a stream, or of a queue's bytes), "queue"
	// (send and receive, also by text), "delete" (a queue, also by a CLOSE of text),
	// or "status".
	Op string
}

// tellsPeers: the system and libzmq say who is at the other end of a Unix socket.
var tellsPeers bool

// localPeer is the address of who connects over ipc, before what is known of him.
const localPeer = "localhost"

// peerOf reads what libzmq says of the process at the other end: nothing over inproc,
// "localhost:UID:GID:PID" over ipc, an address over tcp.
func peerOf(address string) (who Access, ok bool) {
	if address == "" {
		return Access{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}, true
	}
	rest, unix := strings.CutPrefix(address, localPeer)
	if !unix {
		return Access{UID: -1, GID: -1, PID: -1}, true
	}
	ids := strings.Split(rest, ":")
	if len(ids) != 4 {
		// Where the system does not tell, the path's permissions must do.
		return Access{UID: -1, GID: -1, PID: -1}, !tellsPeers
	}
	for i, id := range []*int{&who.UID, &who.GID, &who.PID} {
		n, err := strconv.Atoi(ids[i+1])
		if err != nil {
			return who, false
		}
		*id = n
	}
	return who, true
}

// trusted says whether a user is this process's own, root, or one of others.
func trusted(uid int, others []int) bool {
	return uid == 0 || uid == os.Geteuid() || slices.Contains(others, uid)
}

// admit says who a client is, and why it may not connect.
func (cfg *BrokerConfig) admit(address string) (Access, error) {
	who, ok := peerOf(address)
	switch {
	case !ok:
		return who, fmt.Errorf("the system does not say who the client is (%q)", address)
	case who.UID >= 0 && !trusted(who.UID, cfg.AllowUIDs):
		return who, fmt.Errorf("user %d may not use this broker; its BrokerConfig.AllowUIDs can allow it", who.UID)
	}
	return who, nil
}

// allow is why the session's client may not do that.
func (cfg *BrokerConfig) allow(who Access, pipe, op string) *cause {
	if cfg.Allow == nil {
		return nil
	}
	who.Pipe, who.Op = pipe, op
	if err := cfg.Allow(who); err != nil {
		return &cause{causeDenied, err.Error()}
	}
	return nil
}

// checkServer is why a client should not send its data to who answers at an endpoint.
func (cfg *ClientConfig) checkServer(address, endpoint string) error {
	who, ok := peerOf(address)
	switch {
	case !ok:
		return fmt.Errorf("%w: the system does not say who serves %s (%q)", fs.ErrPermission, endpoint, address)
	case who.UID >= 0 && !trusted(who.UID, cfg.TrustUIDs):
		return fmt.Errorf("%w: %s is served by user %d, who is neither this process's own nor root; ClientConfig.TrustUIDs can allow it",
			fs.ErrPermission, endpoint, who.UID)
	}
	return nil
}
