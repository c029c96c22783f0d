package zpipes

import (
	"net"
	"syscall"
)

// serverUID is the user of the process that listens at the other end.
func serverUID(c net.Conn) (uid int, ok bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return 0, false
	}
	return int(cred.Uid), true
}

// lives says that the process may still be there.
func (a Access) lives() bool { return a.PID <= 0 || syscall.Kill(a.PID, 0) != syscall.ESRCH }
