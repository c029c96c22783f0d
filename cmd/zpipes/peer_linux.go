package main

import (
	"net"
	"os"
	"slices"
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

// overflowUID is who all users appear as that have no number in this process's user
// namespace; -1 where all have one.
var overflowUID = sync.OnceValue(func() int {
	if users, err := os.ReadFile("/proc/self/uid_map"); err == nil && slices.Equal(strings.Fields(string(users)), []string{"0", "0", "4294967295"}) {
		return -1
	}
	text, _ := os.ReadFile("/proc/sys/kernel/overflowuid")
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 65534
	}
	return uid
})
