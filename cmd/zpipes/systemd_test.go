//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

var signals = map[string]os.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL,
	"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
}

// systemd FILE: plays systemd, to whom services say how they are; that goes into the file.
func cmdSystemd(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := os.MkdirTemp("", "zpipes") // a socket's path must be short
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: dir + "/notify"})
	ts.Check(err)
	ts.Setenv("NOTIFY_SOCKET", dir+"/notify")
	file, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(file, "%s\n", buf[:n])
		}
	}()
	ts.Defer(func() {
		c.Close()
		<-done
		file.Close()
	})
}
