//go:build linux && !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func init() { parts["memory"] = playMemory }

// playMemory has a broker without endpoints do what needs a session, and says what that took
// of the system: descriptors, and threads of libzmq's.
func playMemory(childTask) int {
	used := func() string {
		files, err := os.ReadDir("/proc/self/fd")
		tasks, err2 := os.ReadDir("/proc/self/task")
		if err := errors.Join(err, err2); err != nil {
			return err.Error()
		}
		threads := 0
		for _, task := range tasks {
			if name, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/comm"); strings.HasPrefix(string(name), "ZMQ") {
				threads++
			}
		}
		return fmt.Sprintf("%d descriptors, %d threads", len(files), threads)
	}
	used() // Go's poller has descriptors of its own from the first file on
	before := used()
	during := func() string {
		b, err := BrokerConfig{Endpoints: []string{}}.NewBroker("")
		if err != nil {
			return err.Error()
		}
		defer b.Close()
		c := b.Client()
		defer c.Close()
		ctx := context.Background()
		q, err := c.OpenQueue(ctx, "q")
		if err != nil {
			return err.Error()
		}
		rd, err := c.OpenReader(ctx, "q")
		if err == nil {
			err = q.Send(ctx, []byte("x"))
		}
		if err == nil {
			_, err = io.ReadFull(rd, make([]byte, 1))
		}
		if err != nil {
			return err.Error()
		}
		return used()
	}()
	fmt.Printf("%s\n%s\n", before, during)
	return 0
}

// A broker that serves no endpoint has no context, thread or descriptor of ZeroMQ's.
func TestBrokerInMemoryHasNothingOfZeroMQ(t *testing.T) {
	c := startChild(t, childTask{Part: "memory"})
	before, during := c.line(), c.line()
	if before != during || !strings.HasSuffix(before, " 0 threads") {
		t.Errorf("%s; with a broker %s", before, during)
	}
}
