package zpipes

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Access is what a client asks a broker for, and what the operating system says
// of the client's process. See BrokerConfig.Allow.
type Access struct {
	// UID, GID and PID are the process's, or -1 if they are not known: over
	// tcp, and the PID of a process in another PID namespace. In a user
	// namespace (rootless containers) all users who have no place in it appear
	// as one UID, mostly 65534.
	UID, GID, PID int
	// Key is the public key of a client that came by encrypted tcp, else empty:
	// one of BrokerConfig.AllowKeys, or of its Key's ClientKeys.
	Key  string
	Pipe string // the pipe's name
	// Op is "read" or "write" (an end of a stream, or of a queue's bytes),
	// "queue" (to send and receive, also by text), "delete" (a queue, also by
	// CLOSE of the text interface), "status", "listen", "dial", or "leave" (the
	// broker its cluster).
	Op string
}

// unknownAccess is what is said of a process of which nothing is known.
var unknownAccess = Access{UID: -1, GID: -1, PID: -1}

// tellsPeers: the system and libzmq say who is at the other end of a Unix socket.
var tellsPeers bool

// localPeer is the address of who connects over a Unix socket, before what is known of him:
// libzmq has it so.
const localPeer = "localhost"

// localAddress is the address of a process of this machine, about whom that is known.
func localAddress(who Access, told bool) string {
	if !told {
		return localPeer
	}
	return fmt.Sprintf("%s:%d:%d:%d", localPeer, who.UID, who.GID, who.PID)
}

// peerOf reads what is said of the process at the other end: nothing over inproc,
// "localhost:UID:GID:PID" over ipc, an address over tcp, the key where that is encrypted.
func peerOf(address string) (who Access, ok bool) {
	if address == "" {
		return Access{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}, true
	}
	rest, unix := strings.CutPrefix(address, localPeer)
	if !unix {
		who = unknownAccess
		if strings.HasPrefix(address, publicPrefix) {
			who.Key = address
		}
		return who, true
	}
	ids := strings.Split(rest, ":")
	if len(ids) != 4 {
		// Where the system does not tell, the path's permissions must do.
		return unknownAccess, !tellsPeers
	}
	for i, id := range []*int{&who.UID, &who.GID, &who.PID} {
		n, err := strconv.Atoi(ids[i+1])
		if err != nil || n < 0 {
			return who, false
		}
		*id = n
	}
	if who.PID == 0 { // it is in another PID namespace
		who.PID = -1
	}
	return who, true
}

// ownUser says that a process or a file of that user is of this process's own user.
func ownUser(uid int) bool { return uid == os.Geteuid() && !anybody(uid) }

// trusted says whether a user is this process's own, root, or one of others.
func trusted(uid int, others []int) bool {
	return uid == 0 && !anybody(uid) || ownUser(uid) || slices.Contains(others, uid)
}

// whose names a user in an error.
func whose(uid int) string {
	if anybody(uid) {
		return fmt.Sprintf("user %d (as whom all appear who have no place in this user namespace)", uid)
	}
	return fmt.Sprintf("user %d", uid)
}

// mapsAll says that a user namespace with that uid_map has a place for every user.
func mapsAll(uidMap string) bool {
	const all = 1<<32 - 1
	places := uint64(0)
	for line := range strings.Lines(uidMap) {
		var inside, outside, count uint64
		if n, err := fmt.Sscan(line, &inside, &outside, &count); n != 3 || err != nil {
			return false
		}
		places += count
	}
	return places >= all
}

// payer is the user whose account a client's is part of; of its own those who may be
// anybody.
func (a Access) payer() int {
	if anybody(a.UID) && a.PID != os.Getpid() {
		return -2
	}
	return a.UID
}
