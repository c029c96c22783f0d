package zpipes

import "golang.org/x/sys/unix"

// peerProcess is the process at the other end; 0: it is not known.
func peerProcess(fd int) int {
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return 0
	}
	return pid
}
