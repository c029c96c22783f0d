//go:build linux && !race

package zpipes

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// resident is a process's resident memory in bytes.
func resident(t *testing.T, pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// A reader that is slower than the writer slows the writer down; nothing in
// between grows. The race detector's own memory would drown the figures.
func TestMemoryUnderASlowReader(t *testing.T) {
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "broker", Broker: name}).ready()
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("p")
	before := resident(t, broker.cmd.Process.Pid)
	ownBefore := resident(t, os.Getpid())

	const offered = 1 << 30
	go func() {
		b := make([]byte, 64<<10)
		for n := 0; n < offered; n += len(b) {
			if _, err := w.Write(b); err != nil {
				t.Error(err)
				return
			}
		}
		w.Close()
	}()
	var total, most, ownMost int
	b := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(rd, b)
		total += n
		if err != nil {
			break
		}
		time.Sleep(time.Millisecond) // this is what a slow reader does
		most = max(most, resident(t, broker.cmd.Process.Pid))
		ownMost = max(ownMost, resident(t, os.Getpid()))
	}
	if total != offered {
		t.Errorf("read %d bytes of %d", total, offered)
	}
	t.Logf("the broker grew by %.1f MiB, both ends by %.1f MiB", float64(most-before)/(1<<20), float64(ownMost-ownBefore)/(1<<20))
	if grown := most - before; grown > 16<<20 {
		t.Errorf("the broker grew by %d MiB", grown>>20)
	}
	if grown := ownMost - ownBefore; grown > 32<<20 {
		t.Errorf("both ends together grew by %d MiB", grown>>20)
	}
}
