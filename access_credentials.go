//go:build linux || darwin || freebsd

package zpipes

import "syscall"

// doorsTell: the system says who is at the other end of a near door.
var doorsTell = true

// peerCredentials is what the system says of the process at the other end of a Unix
// socket: of who connected, or of who listened.
func peerCredentials(c syscall.Conn) (who Access, told bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return who, false
	}
	err = raw.Control(func(fd uintptr) { who, told = credentials(int(fd)) })
	return who, told && err == nil
}
