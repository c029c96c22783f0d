//go:build linux || darwin

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// background says that fd is this process's terminal, and another job has it.
func background(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

// hangup calls f once nobody can read any more what is written to file, as long as it is
// a pipe or a socket. It ends with the process.
func hangup(file *os.File, f func()) {
	info, err := file.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return
	}
	go func() {
		for {
			fds := []unix.PollFd{{Fd: int32(file.Fd())}}
			if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
				return
			}
			if fds[0].Revents != 0 {
				f()
				return
			}
		}
	}()
}
