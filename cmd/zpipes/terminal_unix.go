//go:build linux || darwin

package main

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// background says that fd is this process's terminal, and another job has it.
func background(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

// readable says that a read of the file does not wait.
func readable(file *os.File) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// hangup calls f once nobody can read any more what is written to file, as long as it is
// a pipe or a socket. stop ends that; before it, closing the file does not show to its
// reader, since whoever polls a file holds it.
func hangup(file *os.File, f func()) (stop func()) {
	info, err := file.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return func() {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		for {
			fds := []unix.PollFd{{Fd: int32(file.Fd())}, {Fd: int32(r.Fd())}}
			if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
				return
			}
			if fds[1].Revents != 0 {
				return
			}
			if fds[0].Revents != 0 {
				f()
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		w.Close()
		<-done
	})
}
