package zpipes

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

func credentials(fd int) (who Access, told bool) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return who, false
	}
	return Access{UID: int(cred.Uid), GID: int(cred.Gid), PID: int(cred.Pid)}, true
}

// overflowUID is the user that all appear as who have no place in this process's user
// namespace; -1 where all have one.
var overflowUID = sync.OnceValue(func() int {
	if users, err := os.ReadFile("/proc/self/uid_map"); err == nil && mapsAll(string(users)) {
		return -1
	}
	const usual = 65534
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return usual
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return usual
	}
	return uid
})

// anybody says that many users appear as that one here: it may be any of them.
func anybody(uid int) bool { return uid >= 0 && uid == overflowUID() }

// rootHere says that this process is root to all processes that it meets, not just to
// those of its own user namespace.
func rootHere() bool { return os.Geteuid() == 0 && overflowUID() < 0 }

// admitAll lets all users connect to a socket at a path: who may stay is not for its
// permissions to say. The path may have become another file's meanwhile.
func admitAll(path string) error {
	const onlyPath = 0x200000 // O_PATH
	fd, err := syscall.Open(path, onlyPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return &os.PathError{Op: "chmod", Path: path, Err: syscall.ENOTSOCK}
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o666)
}
