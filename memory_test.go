//go:build cgo && linux && !race && !core

package zpipes

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func init() { parts["slow reader"] = playSlowReader }

// memory is one of the system's figures about a process, in bytes: VmRSS is what is in
// memory now, VmHWM the most that ever was.
func memory(process any, figure string) (bytes int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%v/status", process))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), figure+":")
	_, err = fmt.Sscan(rest, &bytes)
	return bytes << 10, err
}

const slowlyRead = 1 << 30

// playSlowReader has both ends of a pipe, whose reader is slow, and says by how much
// this process has grown.
func playSlowReader(task childTask) int {
	grown, err := func() (grown int, err error) {
		ctx := context.Background()
		c, err := NewClient(task.Broker)
		if err != nil {
			return 0, err
		}
		w, err := c.OpenWriter(ctx, task.Pipe)
		if err != nil {
			return 0, err
		}
		r, err := c.OpenReader(ctx, task.Pipe)
		if err != nil {
			return 0, err
		}
		before, err := memory("self", "VmRSS")
		if err != nil {
			return 0, err
		}
		wrote := make(chan error, 1)
		go func() {
			b := make([]byte, 64<<10)
			for n := 0; err == nil && n < slowlyRead; n += len(b) {
				_, err = w.Write(b)
			}
			if err == nil {
				err = w.Close()
			}
			wrote <- err
		}()
		b := make([]byte, 1<<20)
		for range slowlyRead / len(b) {
			if _, err := io.ReadFull(r, b); err != nil {
				return 0, err
			}
			time.Sleep(time.Millisecond) // this is what a slow reader does
		}
		if n, err := r.Read(b); err != io.EOF {
			return 0, fmt.Errorf("after the last byte there are %d and %v", n, err)
		}
		if err := <-wrote; err != nil {
			return 0, err
		}
		most, err := memory("self", "VmHWM")
		return most - before, err
	}()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(grown)
	return 0
}

// A reader that is slower than the writer slows the writer down; nothing in
// between grows. The broker and both ends have a process each, since what other tests
// have left in this one comes and goes; and the race detector's own memory would drown
// the figures.
func TestMemoryUnderASlowReader(t *testing.T) {
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "broker", Broker: name}).ready().cmd.Process.Pid
	before, err := memory(broker, "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	line := startChild(t, childTask{Part: "slow reader", Broker: name, Pipe: "p"}).line()
	var ends int
	if _, err := fmt.Sscan(line, &ends); err != nil {
		t.Fatalf("both ends said %q", line)
	}
	most, err := memory(broker, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the broker grew by %.1f MiB, both ends by %.1f MiB", float64(most-before)/(1<<20), float64(ends)/(1<<20))
	if grown := most - before; grown > 16<<20 {
		t.Errorf("the broker grew by %d MiB", grown>>20)
	}
	if ends > 32<<20 {
		t.Errorf("both ends together grew by %d MiB", ends>>20)
	}
}
