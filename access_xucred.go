//go:build darwin || freebsd

package zpipes

import "golang.org/x/sys/unix"

func credentials(fd int) (who Access, told bool) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil || cred.Ngroups < 1 {
		return who, false
	}
	return Access{UID: int(cred.Uid), GID: int(cred.Groups[0]), PID: peerProcess(fd)}, true
}
