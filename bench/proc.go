package main

import (
	"fmt"
	"os"
	"strings"
)

// What Linux says of another process.

// status returns a field of /proc/PID/status, in bytes where it is a size.
func (p *process) status(field string) (int64, error) {
	text, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			var n int64
			var unit string
			fmt.Sscan(value, &n, &unit)
			if unit == "kB" {
				n <<= 10
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("no %s in %s", field, p.proc("status"))
}

func (p *process) proc(name string) string {
	return fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)
}

func (p *process) resident() (int64, error) { return p.status("VmRSS") }
func (p *process) threads() (int64, error)  { return p.status("Threads") }

// peak is the most memory that was resident since forgetPeak.
func (p *process) peak() (int64, error) { return p.status("VmHWM") }
func (p *process) forgetPeak() error    { return os.WriteFile(p.proc("clear_refs"), []byte("5"), 0) }

func (p *process) descriptors() (int64, error) {
	entries, err := os.ReadDir(p.proc("fd"))
	return int64(len(entries)), err
}

// descriptorLimit is how many descriptors the process may have. Go raises it to
// the hard limit when it starts.
func (p *process) descriptorLimit() (int64, error) {
	text, err := os.ReadFile(p.proc("limits"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "Max open files")
	var n int64
	_, err = fmt.Sscan(rest, &n)
	return n, err
}
