package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const tellsPeers = true

// unixPeer says whose process is at the other end of a Unix socket; seen from who
// connects, it is the one that listened.
func unixPeer(c net.Conn) (uid, pid int, ok bool) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return -1, 0, false
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return -1, 0, false
	}
	return int(cred.Uid), int(cred.Pid), true
}

// overflowUID is who all users are that have no number in this user namespace.
var overflowUID = sync.OnceValue(func() int {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return 65534
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 65534
	}
	return uid
})
