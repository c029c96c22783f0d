//go:build linux || darwin || freebsd

package zpipes

import "net"

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
	err = raw.Control(func(fd uintptr) { who, told = credentials(int(fd)) })
	return who, told && err == nil
}
