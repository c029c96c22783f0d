//go:build darwin || freebsd

package zpipes

import (
	"net"

	"golang.org/x/sys/unix"
)

// doorsTell: the system says who is at the other end of a near door.
var doorsTell = true

// peerCredentials is what the system says of the process at the other end of a Unix
// socket: of who connected, or of who listened.
func peerCredentials(c net.Conn) (who Access, told bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return who, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return who, false
	}
	var cred *unix.Xucred
	if raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED); err == nil {
			who.PID = peerProcess(int(fd))
		}
	}) != nil || err != nil || cred.Ngroups < 1 {
		return Access{}, false
	}
	who.UID, who.GID = int(cred.Uid), int(cred.Groups[0])
	return who, true
}
