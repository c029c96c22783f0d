package zpipes

import (
	"math"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// findSocket returns the connection of that descriptor, if it still is the one of who is
// said to be at the other end.
func findSocket(descriptor string, who Access) netSocket {
	ended := netSocket{fd: -1, inode: 1}
	fd, err := strconv.Atoi(descriptor)
	if err != nil {
		return netSocket{}
	}
	n := netSocket{fd, inode(fd)}
	if n.inode == 0 {
		return ended
	}
	if who.UID >= 0 {
		cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil || int(cred.Uid) != who.UID || int(cred.Gid) != who.GID || int(cred.Pid) != who.PID {
			return ended
		}
	}
	return n
}

// connectedSocket is the connection that has that descriptor now.
func connectedSocket(fd int) netSocket { return netSocket{fd, inode(fd)} }

// quiet is for how long nothing has come; as long as may be, where the system does not say.
func (n netSocket) quiet() time.Duration {
	if n.presence() != present {
		return math.MaxInt64
	}
	info, err := unix.GetsockoptTCPInfo(n.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return math.MaxInt64
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond
}

// peerName is the address of the other end of a Unix socket, as net has it.
func (n netSocket) peerName() string {
	if n.presence() != present {
		return ""
	}
	if a, err := unix.Getpeername(n.fd); err == nil {
		if u, ok := a.(*unix.SockaddrUnix); ok {
			return u.Name
		}
	}
	return ""
}

// presence asks the system. Inodes of sockets are numbered in turn, so that a new one
// does not have an old one's.
func (n netSocket) presence() liveness {
	switch n.inode {
	case 0:
		return unknown
	case inode(n.fd):
		return present
	}
	return absent
}

// taken says that the descriptor is another connection's by now.
func (n netSocket) taken() bool {
	if n.inode == 0 {
		return false
	}
	now := inode(n.fd)
	return now != 0 && now != n.inode
}

// inode is 0 where the descriptor is no socket.
func inode(fd int) uint64 {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return 0
	}
	return st.Ino
}
