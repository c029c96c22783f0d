package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// A process is what Linux says of one, in a folder of /proc.
type process string

const thisProcess process = "/proc/self"

func processOf(pid int) process { return process(fmt.Sprintf("/proc/%d", pid)) }

// A usage is what a process has.
type usage struct {
	Goroutines, Descriptors, Threads int64
	Resident                         int64 // bytes
}

// use is what this process has.
func use() (usage, error) {
	u, err := thisProcess.usage()
	u.Goroutines = int64(runtime.NumGoroutine())
	return u, err
}

// usage is what can be seen of a process from outside.
func (p process) usage() (u usage, err error) {
	if u.Resident, err = p.status("VmRSS"); err != nil {
		return u, err
	}
	if u.Threads, err = p.status("Threads"); err != nil {
		return u, err
	}
	fds, err := os.ReadDir(filepath.Join(string(p), "fd"))
	u.Descriptors = int64(len(fds))
	return u, err
}

// status returns a field of the file of that name, in bytes where it is a size.
func (p process) status(field string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(string(p), "status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	line, _, _ := strings.Cut(rest, "\n")
	var n int64
	var unit string
	if fmt.Sscan(line, &n, &unit); unit == "kB" {
		n <<= 10
	}
	return n, nil
}

// stopped says that it stands still.
func (p process) stopped() bool {
	text, err := os.ReadFile(filepath.Join(string(p), "status"))
	return err == nil && strings.Contains(string(text), "\nState:\tT")
}

// rings is where memory of rings begins that the process has mapped.
func (p process) rings() (at []int64) {
	maps, err := os.ReadFile(filepath.Join(string(p), "maps"))
	if err != nil || !bytes.Contains(maps, []byte(ringName)) {
		return nil
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, ringName) {
			begin, _, _ := strings.Cut(line, "-")
			if n, err := strconv.ParseInt(begin, 16, 64); err == nil {
				at = append(at, n)
			}
		}
	}
	return at
}

const ringName = "/memfd:zpipes"

// peak is the most memory that was resident since forgetPeak.
func (p process) peak() (int64, error) { return p.status("VmHWM") }

func (p process) forgetPeak() error {
	return os.WriteFile(filepath.Join(string(p), "clear_refs"), []byte("5"), 0)
}
